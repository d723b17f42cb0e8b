package milter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Socket says where to listen.
type Socket struct {
	Network string      // "unix" or "tcp"
	Address string      // absolute path, or host:port
	Mode    fs.FileMode // of a Unix socket
	GID     int         // group of a Unix socket and of a directory made for it; -1 = as it comes
}

// maxUnixPath is what sockaddr_un holds on Linux, with its NUL.
const maxUnixPath = 107

// Listen opens the socket. A Unix socket left behind by a dead process is
// replaced; one that answers is not, nor is anything that is no socket. The
// directory is made, for the MTA's group only, if it is missing.
func (s Socket) Listen() (net.Listener, error) {
	if s.Network == "tcp" {
		l, err := net.Listen("tcp", s.Address)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, fmt.Errorf("listen on tcp:%s: another process serves it; is relayguard running already?", s.Address)
		case err != nil:
			return nil, fmt.Errorf("listen: %w", err)
		}
		return l, nil
	}
	if len(s.Address) > maxUnixPath {
		return nil, fmt.Errorf("listen on unix:%s: the path has %d octets, a socket's may have %d", s.Address, len(s.Address), maxUnixPath)
	}
	if err := s.makeDirectory(); err != nil {
		return nil, err
	}
	if err := s.removeStale(); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", s.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on unix:%s: %w", s.Address, err)
	}
	if err := s.restrict(); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (s Socket) makeDirectory() error {
	dir := filepath.Dir(s.Address)
	err := os.Mkdir(dir, 0o750)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("make socket directory %s: its parent does not exist; is the MTA installed there?", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("make socket directory %s: not permitted; let root make it: install -d -m 2750 -o relayguard -g postfix %s", dir, dir)
	case err != nil:
		return fmt.Errorf("make socket directory: %w", err)
	}
	if s.GID >= 0 {
		if err := os.Chown(dir, -1, s.GID); err != nil {
			return fmt.Errorf("give socket directory to the MTA's group: %w", err)
		}
	}
	return os.Chmod(dir, 0o750) // whatever the umask
}

func (s Socket) removeStale() error {
	info, err := os.Lstat(s.Address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at socket: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("listen on unix:%s: there is something that is no socket; move it away", s.Address)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", s.Address)
	if err == nil {
		c.Close()
		return fmt.Errorf("listen on unix:%s: another process serves it; is relayguard running already?", s.Address)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on unix:%s: look whether it is served: %w", s.Address, err)
	}
	if err := os.Remove(s.Address); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}

func (s Socket) restrict() error {
	if s.GID >= 0 {
		if err := os.Chown(s.Address, -1, s.GID); err != nil {
			return fmt.Errorf("give socket to the MTA's group: %w; the guard's account must be a member of that group", err)
		}
	}
	if err := os.Chmod(s.Address, s.Mode); err != nil {
		return fmt.Errorf("set mode of socket: %w", err)
	}
	return nil
}
