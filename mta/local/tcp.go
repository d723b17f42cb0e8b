package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"sync"
)

// Linux lists its TCP sockets here: proc(5). IPv4 sockets are in the first,
// IPv6 sockets, also those that speak IPv4 (::ffff:127.0.0.1), in the second.
const (
	procTCP  = "/proc/net/tcp"
	procTCP6 = "/proc/net/tcp6"
)

// TCPOwner returns the uid of the process at the other end of a TCP connection
// within this machine; local and remote are as seen from our end. ok is false
// when the other end is not on this machine (or in another network namespace),
// or when its process has closed it already, so that nobody owns it any more.
//
// An unspecified local address (0.0.0.0, ::) stands for whichever the connection
// came in by, where that is not known. Then ok is also false if processes of
// several uids have such a connection, from one address and port to one port.
//
// It reads the kernel's whole socket table, 150 bytes a socket: ask once a
// connection.
func TCPOwner(local, remote netip.AddrPort) (uid int, ok bool, err error) {
	return tcpOwner(local, remote, procTCP, procTCP6)
}

func tcpOwner(local, remote netip.AddrPort, tcp, tcp6 string) (int, bool, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
	anywhere := local.Addr().IsUnspecified()
	if !local.IsValid() || !remote.IsValid() || local.Addr().Is4() != remote.Addr().Is4() && !anywhere {
		return 0, false, fmt.Errorf("find owner of TCP %s -> %s: not the two ends of one connection", remote, local)
	}
	type table struct {
		path string
		row  row
	}
	tables := []table{{tcp6, row{endpoint16(remote), endpoint16(local), anywhere}}}
	if remote.Addr().Is4() {
		tables = []table{{tcp, row{endpoint4(remote), endpoint4(local), anywhere}}, tables[0]}
	}
	// The kernel hands the table out in pieces; a row may slip from one piece
	// to the one before while we read. So a miss is looked for once more.
	for range 2 {
		var found owner
		for _, t := range tables {
			err := found.lookIn(t.path, t.row)
			if err != nil && !(errors.Is(err, fs.ErrNotExist) && t.path == tcp6) { // no IPv6 in this kernel
				return 0, false, fmt.Errorf("find owner of TCP %s -> %s: %w", remote, local, err)
			}
			if found.known && !anywhere {
				break
			}
		}
		if found.known {
			return found.uid, !found.several, nil
		}
	}
	return 0, false, nil
}

// row says which rows of a socket table are looked for.
type row struct {
	client, daemon []byte // "address:port" as the table writes it
	anywhere       bool   // of daemon only the port counts
}

// matches reports whether a line, behind its number, is such a row, and returns
// what follows the end points.
func (r *row) matches(line []byte) (rest []byte, ok bool) {
	line, ok = bytes.CutPrefix(line, r.client)
	if !ok || len(line) < 1+len(r.daemon) || line[0] != ' ' {
		return nil, false
	}
	daemon, rest := line[1:1+len(r.daemon)], line[1+len(r.daemon):]
	if r.anywhere {
		port := bytes.LastIndexByte(r.daemon, ':')
		return rest, bytes.Equal(daemon[port:], r.daemon[port:])
	}
	return rest, bytes.Equal(daemon, r.daemon)
}

// owner is whose the sockets are that were found.
type owner struct {
	uid            int
	known, several bool
}

func (o *owner) add(uid int) {
	o.several = o.several || o.known && o.uid != uid
	o.uid, o.known = uid, true
}

// endpoint4 is an end point as /proc/net/tcp writes it: each 32-bit word of the
// address in the machine's byte order, the port as a number. An unspecified address
// may be of either kind.
func endpoint4(end netip.AddrPort) []byte {
	var ip [4]byte
	if end.Addr().Is4() {
		ip = end.Addr().As4()
	}
	return appendEnd(nil, ip[:], end.Port())
}

// endpoint16 is the same for /proc/net/tcp6; IPv4 is written mapped.
func endpoint16(end netip.AddrPort) []byte {
	ip := end.Addr().As16()
	return appendEnd(nil, ip[:], end.Port())
}

func appendEnd(row, ip []byte, port uint16) []byte {
	for ; len(ip) > 0; ip = ip[4:] {
		row = fmt.Appendf(row, "%08X", binary.NativeEndian.Uint32(ip))
	}
	return fmt.Appendf(row, ":%04X", port)
}

// lookIn adds the owners of a table's rows; of the first, if one is enough.
func (o *owner) lookIn(path string, r row) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := o.read(f, r); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// tableBuffers are shared by the calls: a busy server's table is megabytes.
var tableBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// read streams a socket table.
func (o *owner) read(r io.Reader, wanted row) error {
	bp := tableBuffers.Get().(*[]byte)
	defer tableBuffers.Put(bp)
	buf, n := *bp, 0
	for {
		m, err := r.Read(buf[n:])
		n += m
		rest := buf[:n]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if uid, ok := ownerOf(rest[:i], &wanted); ok {
				if o.add(uid); !wanted.anywhere {
					return nil
				}
			}
			rest = rest[i+1:]
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case len(rest) == len(buf):
			return fmt.Errorf("line of more than %d octets", len(buf))
		}
		n = copy(buf, rest)
	}
}

// ownerOf reads one line of the table:
//
//	sl: local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode ...
//
// A socket without a process (TIME_WAIT, or closed while data was under way)
// has inode 0, and uid 0 that means nothing.
func ownerOf(line []byte, wanted *row) (uid int, ok bool) {
	_, rest, found := bytes.Cut(line, []byte(": "))
	if !found {
		return 0, false
	}
	if rest, ok = wanted.matches(rest); !ok {
		return 0, false
	}
	var fields [8][]byte // st tx:rx tr:tm retrnsmt uid timeout inode, rest
	for i := range fields {
		rest = bytes.TrimLeft(rest, " ")
		end := bytes.IndexByte(rest, ' ')
		if end < 0 {
			end = len(rest)
		}
		fields[i], rest = rest[:end], rest[end:]
	}
	if !held(string(fields[0])) {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(fields[6]), 10, 64)
	if err != nil || inode == 0 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(fields[4]), 10, 32)
	if err != nil {
		return 0, false
	}
	return int(n), true
}

// held reports the states in which a process can hold a connected socket and
// wait for an answer: open, closed by one side, or shut down for writing.
func held(state string) bool {
	switch state { // linux/include/net/tcp_states.h
	case "01", "04", "05", "08", "09", "0B": // ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING
		return true
	}
	return false
}
