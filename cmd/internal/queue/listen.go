package queue

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"relayguard/milter"
)

// ErrNoSocket says that systemd passed none.
var ErrNoSocket = errors.New("no socket was passed; start relayguard-queue.socket, or name one with --socket")

// PassedSocket takes the one socket that systemd opened for this process
// (sd_listen_fds(3)). It may be called once.
func PassedSocket() (*net.UnixListener, error) {
	pid, fds := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name) // not for Postfix's tools
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, ErrNoSocket
	}
	if fds != "1" {
		return nil, fmt.Errorf("systemd passed %q sockets, want 1", fds)
	}
	const first = 3 // SD_LISTEN_FDS_START
	unix.CloseOnExec(first)
	f := os.NewFile(first, "passed socket")
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("use the socket that systemd passed: %w", err)
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil, fmt.Errorf("use the socket that systemd passed: %s is no Unix stream socket", ln.Addr().Network())
	}
	u.SetUnlinkOnClose(false) // it is systemd's
	return u, nil
}

// Listen opens a socket without systemd. gid is the daemon's group, the only
// one beside root that gets to it.
func Listen(path string, gid int) (*net.UnixListener, error) {
	ln, err := milter.Socket{Network: "unix", Address: path, Mode: 0o660, GID: gid}.Listen()
	if err != nil {
		return nil, err
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		ln.Close()
		return nil, fmt.Errorf("listen on unix:%s: got a %T", path, ln)
	}
	return u, nil
}
