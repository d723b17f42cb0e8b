package control

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"relayguard/mta/local"
)

// Rights are what a peer may do.
type Rights struct {
	Read    bool `json:"read"`    // look, mail's headers and content aside
	Admin   bool `json:"admin"`   // act
	Inspect bool `json:"inspect"` // headers and content of held mail, with a reason
}

// Peer is who speaks, by the kernel's word.
type Peer struct {
	UID      int
	Name     string // of the account, or its uid
	LoginUID int    // of the login session, which sudo does not change; -1 if unknown
	Rights   Rights
}

// Groups name those who have rights beside root; "" for nobody.
type Groups struct{ Admin, Read, Inspect string }

// ours reports whether an account may all, whatever the groups say: root, and
// the daemon's own.
func ours(uid int) bool { return uid == 0 || uid == os.Getuid() }

// Rights of an account: root and the daemon's own may all; groups give single
// ones. Being in the admin group gives no look into mail.
func (g Groups) Rights(uid int) Rights {
	if ours(uid) {
		return Rights{true, true, true}
	}
	in := func(name string) bool { return name != "" && memberOf(uid, name) }
	admin := in(g.Admin)
	inspect := in(g.Inspect)
	return Rights{Read: admin || inspect || in(g.Read), Admin: admin, Inspect: inspect}
}

func memberOf(uid int, group string) bool {
	g, err := user.LookupGroup(group)
	if err != nil {
		return false
	}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return false
	}
	ids, err := u.GroupIds()
	return err == nil && (u.Gid == g.Gid || slices.Contains(ids, g.Gid))
}

// peerOf says what the other end may do.
func peerOf(cred local.Cred, loginUID int, g Groups) Peer {
	return Peer{UID: cred.UID, Name: accountName(cred.UID), LoginUID: loginUID, Rights: g.Rights(cred.UID)}
}

// Self is who runs this process, for what is done without the daemon.
func Self() Peer {
	uid := os.Getuid()
	return Peer{UID: uid, Name: accountName(uid), LoginUID: loginUID(os.Getpid()), Rights: Groups{}.Rights(uid)}
}

func accountName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid:" + strconv.Itoa(uid)
}

// By is how the journal calls the peer: the account, and who it was before sudo.
func (p Peer) By() string {
	if p.LoginUID < 0 || p.LoginUID == p.UID {
		return p.Name
	}
	return p.Name + " (" + accountName(p.LoginUID) + ")"
}

// loginUID reads proc(5)'s loginuid; -1 where there is none.
func loginUID(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/loginuid", pid))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || n == 1<<32-1 {
		return -1
	}
	return int(n)
}

type peerKey struct{}

// PeerFrom is the peer of a request that a Server serves.
func PeerFrom(ctx context.Context) Peer {
	who, ok := ctx.Value(peerKey{}).(func() Peer)
	if !ok {
		return Peer{}
	}
	return who()
}
