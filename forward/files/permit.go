package files

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"relayguard/forward"
)

// Rights, as in the lowest bits of a mode.
const (
	mayRead   = 4
	maySearch = 1
)

// permitted reports whether an account has a right to what is open, by the mode,
// the groups and the access control list. Capabilities are root's only.
func permitted(as *forward.Account, fd int, st *unix.Stat_t, right uint32) bool {
	if as.UID == 0 {
		return true
	}
	// The owner's right never depends on a list; nor does anybody's where the
	// group's bits, which are then the list's mask, are all clear (fs/namei.c,
	// acl_permission_check).
	if as.UID != int(st.Uid) && st.Mode&0o070 != 0 {
		if acl := readACL(fd); acl != nil {
			return byACL(as, acl, st, right)
		}
	}
	return byMode(as, st, right)
}

func byMode(as *forward.Account, st *unix.Stat_t, right uint32) bool {
	mode := st.Mode
	switch {
	case as.UID == int(st.Uid):
		mode >>= 6
	case inGroup(as, int(st.Gid)):
		mode >>= 3
	}
	return mode&right == right
}

func inGroup(as *forward.Account, gid int) bool {
	return as.GID == gid || slices.Contains(as.Groups, gid)
}

// The form of system.posix_acl_access: linux/posix_acl_xattr.h.
const (
	aclVersion  = 2
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
	aclMost     = 4 + 8*1024 // octets that are read; ext4 has room for fewer
)

// readACL reads the list of what is open; nil: there is none.
func readACL(fd int) []aclEntry {
	buf := make([]byte, 4+8*16)
	name := procName(fd)
	n, err := unix.Getxattr(name, "system.posix_acl_access", buf)
	if err == unix.ERANGE {
		buf = make([]byte, aclMost)
		n, err = unix.Getxattr(name, "system.posix_acl_access", buf)
	}
	if err != nil {
		return nil
	}
	return parseACL(buf[:n])
}

type aclEntry struct {
	tag   uint16
	right uint32
	id    int
}

// parseACL reads the kernel's form; nil: it is of another one.
func parseACL(b []byte) []aclEntry {
	if len(b) < 4 || len(b) > aclMost || binary.LittleEndian.Uint32(b) != aclVersion || (len(b)-4)%8 != 0 {
		return nil
	}
	all := []aclEntry{}
	for b = b[4:]; len(b) > 0; b = b[8:] {
		all = append(all, aclEntry{binary.LittleEndian.Uint16(b), uint32(binary.LittleEndian.Uint16(b[2:])), int(binary.LittleEndian.Uint32(b[4:]))})
	}
	return all
}

// byACL is the algorithm of acl(5), "access check", for one who is not the owner.
func byACL(as *forward.Account, acl []aclEntry, st *unix.Stat_t, right uint32) bool {
	mask, other := uint32(7), uint32(0)
	for _, e := range acl {
		switch e.tag {
		case aclMask:
			mask = e.right
		case aclOther:
			other = e.right
		}
	}
	named, granted := false, false
	for _, e := range acl {
		switch {
		case e.tag == aclUser && e.id == as.UID:
			return e.right&mask&right == right
		case e.tag == aclGroupObj && inGroup(as, int(st.Gid)), e.tag == aclGroup && inGroup(as, e.id):
			named = true
			granted = granted || e.right&mask&right == right
		}
	}
	if named {
		return granted
	}
	return other&right == right
}
