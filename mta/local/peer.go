// Package local asks this machine's kernel who is at the other end of a local
// connection, and what a Unix account is called.
//
// What it answers is the kernel's word, so it may stand for an account. Two
// traps: a TCP socket whose process is gone is listed by Linux with uid 0
// although it was not root's, so such a row is no answer; and a name may come from a
// directory server that hangs, so names are never waited for.
package local

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Cred says who connected to a Unix socket, at the time of connect(2):
// unix(7), SO_PEERCRED. The process may have gone since.
type Cred struct {
	PID int
	UID int
	GID int
}

// PeerCred returns the credentials of the process that connected conn.
func PeerCred(conn *net.UnixConn) (Cred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Cred{}, fmt.Errorf("read peer credentials of %s: %w", conn.LocalAddr(), err)
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = optErr
	}
	if err != nil {
		return Cred{}, fmt.Errorf("read peer credentials of %s: %w", conn.LocalAddr(), err)
	}
	return Cred{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}
