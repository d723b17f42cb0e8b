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
// It reads the kernel's whole socket table, 150 bytes a socket: ask once a
// connection.
func TCPOwner(local, remote netip.AddrPort) (uid int, ok bool, err error) {
	return tcpOwner(local, remote, procTCP, procTCP6)
}

func tcpOwner(local, remote netip.AddrPort, tcp, tcp6 string) (int, bool, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), local.Port())
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port())
	if !local.IsValid() || !remote.IsValid() || local.Addr().Is4() != remote.Addr().Is4() {
		return 0, false, fmt.Errorf("find owner of TCP %s -> %s: not the two ends of one connection", remote, local)
	}
	type table struct {
		path string
		row  []byte
	}
	tables := []table{{tcp6, endpoints16(remote, local)}}
	if local.Addr().Is4() {
		tables = []table{{tcp, endpoints4(remote, local)}, tables[0]}
	}
	// The kernel hands the table out in pieces; a row may slip from one piece
	// to the one before while we read. So a miss is looked for once more.
	for range 2 {
		for _, t := range tables {
			uid, ok, err := findInFile(t.path, t.row)
			if err != nil && !(errors.Is(err, fs.ErrNotExist) && t.path == tcp6) { // no IPv6 in this kernel
				return 0, false, fmt.Errorf("find owner of TCP %s -> %s: %w", remote, local, err)
			}
			if ok {
				return uid, true, nil
			}
		}
	}
	return 0, false, nil
}

// endpoints4 is "local_address rem_address" as /proc/net/tcp writes it: each
// 32-bit word of the address in the machine's byte order, the port as a number.
func endpoints4(a, b netip.AddrPort) []byte {
	var row []byte
	for i, end := range []netip.AddrPort{a, b} {
		if i > 0 {
			row = append(row, ' ')
		}
		ip := end.Addr().As4()
		row = appendEnd(row, ip[:], end.Port())
	}
	return row
}

// endpoints16 is the same for /proc/net/tcp6; IPv4 is written mapped.
func endpoints16(a, b netip.AddrPort) []byte {
	var row []byte
	for i, end := range []netip.AddrPort{a, b} {
		if i > 0 {
			row = append(row, ' ')
		}
		ip := end.Addr().As16()
		row = appendEnd(row, ip[:], end.Port())
	}
	return row
}

func appendEnd(row, ip []byte, port uint16) []byte {
	for ; len(ip) > 0; ip = ip[4:] {
		row = fmt.Appendf(row, "%08X", binary.NativeEndian.Uint32(ip))
	}
	return fmt.Appendf(row, ":%04X", port)
}

func findInFile(path string, row []byte) (int, bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	uid, ok, err := findRow(f, row)
	if err != nil {
		return 0, false, fmt.Errorf("read %s: %w", path, err)
	}
	return uid, ok, nil
}

// tableBuffers are shared by the calls: a busy server's table is megabytes.
var tableBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// findRow streams a socket table and returns the uid of the socket whose end
// points are row, if a process still has it.
func findRow(r io.Reader, row []byte) (int, bool, error) {
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
			if uid, ok := ownerOf(rest[:i], row); ok {
				return uid, true, nil
			}
			rest = rest[i+1:]
		}
		switch {
		case err == io.EOF:
			return 0, false, nil
		case err != nil:
			return 0, false, err
		case len(rest) == len(buf):
			return 0, false, fmt.Errorf("line of more than %d octets", len(buf))
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
func ownerOf(line, row []byte) (uid int, ok bool) {
	_, rest, found := bytes.Cut(line, []byte(": "))
	if !found || !bytes.HasPrefix(rest, row) {
		return 0, false
	}
	var fields [8][]byte // st tx:rx tr:tm retrnsmt uid timeout inode, rest
	rest = rest[len(row):]
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
