// Package watchhelper is the root helper that reads homes and watches files for
// the daemon, which has no rights: a fixed set of verbs over a Unix socket
// (forward/files/wire). It opens, reads and lists; what it reads it does not look
// at, and it writes nothing.
//
// The trap: whoever may ask would see what root sees. So it looks who asks (root
// and the daemon's account alone), and shows of what the daemon could not read by
// itself only what serves the purpose (warden): a server's settings and tables, what
// a person's rules stand in, and of that person's other files what he could read
// himself. Keys, password hashes and mail stay its own (Secret). Names and places are
// no secret: directories may be listed.
package watchhelper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/mta/local"
)

// Options of Serve.
type Options struct {
	AllowedUID int          // who may connect beside root: the daemon's account
	Log        *slog.Logger // nil: nowhere
	Idle       time.Duration
	// Method is how to watch (watch.Options); empty: the best.
	Method string
	// Accounts are whose homes there are; nil: those of /etc/passwd.
	Accounts func(context.Context) ([]forward.Account, error)
}

// Bounds.
const (
	maxConns    = 32
	maxWatches  = 4         // connections that watch
	maxParallel = 8         // requests of a connection under way
	maxRead     = 256 << 20 // octets of a file: the largest table that is read
	maxTold     = 1000
	writeWait   = 30 * time.Second
)

// server is Serve's state.
type server struct {
	Options
	files   *files.LocalFiles
	warden  *warden
	busy    sync.WaitGroup
	watches chan struct{}

	mu    sync.Mutex
	conns int
	last  time.Time       // when a connection last began or ended
	told  map[string]bool // files whose refusal was logged
}

// Serve answers connections until ctx ends, or until there was none for
// Options.Idle (0: never). It returns nil then; it closes ln.
func Serve(ctx context.Context, ln *net.UnixListener, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	local := files.Local()
	if o.Accounts == nil {
		o.Accounts = func(ctx context.Context) ([]forward.Account, error) { return files.ReadAccounts(ctx, local) }
	}
	s := &server{Options: o, files: local, warden: &warden{files: local, read: o.Accounts}, watches: make(chan struct{}, maxWatches), last: time.Now()}
	ctx, cancel := context.WithCancel(ctx)
	defer s.busy.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	if s.Idle > 0 {
		ln.SetDeadline(time.Now().Add(s.Idle))
	}
	return s.accept(ctx, ln)
}

func (s *server) accept(ctx context.Context, ln *net.UnixListener) error {
	pause := 5 * time.Millisecond
	for {
		conn, err := ln.AcceptUnix()
		var timeout net.Error
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			s.admit(ctx, conn)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		case errors.As(err, &timeout) && timeout.Timeout():
			rest := s.rest()
			if rest <= 0 {
				return nil
			}
			ln.SetDeadline(time.Now().Add(rest))
		default: // out of descriptors: that passes
			s.Log.Error("accept a connection", "error", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, time.Second)
		}
	}
}

// rest is how long it may still be idle.
func (s *server) rest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns > 0 {
		return s.Idle
	}
	return s.Idle - time.Since(s.last)
}

// admit looks who is there, by the kernel's word.
func (s *server) admit(ctx context.Context, conn *net.UnixConn) {
	cred, err := local.PeerCred(conn)
	if err == nil && cred.UID != 0 && cred.UID != s.AllowedUID {
		err = fmt.Errorf("uid %d may not use the watch helper", cred.UID)
	}
	s.mu.Lock()
	if err == nil && s.conns >= maxConns {
		err = errors.New("too many connections")
	}
	if err == nil {
		s.conns++
		s.last = time.Now()
	}
	s.mu.Unlock()
	if err != nil {
		s.Log.Warn("connection refused", "uid", cred.UID, "pid", cred.PID, "error", err)
		conn.Close()
		return
	}
	s.busy.Go(func() {
		defer func() {
			conn.Close()
			s.mu.Lock()
			s.conns--
			s.last = time.Now()
			s.mu.Unlock()
		}()
		s.serve(ctx, conn, cred)
	})
}

// refused logs that a file was not shown, once each.
func (s *server) refused(path string, cred local.Cred) {
	s.mu.Lock()
	again := s.told[path]
	if s.told == nil || len(s.told) >= maxTold {
		s.told = map[string]bool{}
	}
	s.told[path] = true
	s.mu.Unlock()
	if !again {
		s.Log.Warn("file refused", "path", path, "uid", cred.UID)
	}
}
