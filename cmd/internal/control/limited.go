package control

import (
	"fmt"
	"log/slog"
	"net"
	"sync"

	"relayguard/mta/local"
)

// Bounds of the connections at a time. Root and the daemon's own account have
// theirs apart: they must get in whatever the others do.
const (
	maxOurs   = 64 // of root, and of the daemon's account
	maxOthers = 64 // of all others together
	maxPerUID = 4  // of one of the others; a command needs one, or two for a moment
)

// limited bounds the connections, for every account may connect. Who is over
// the bounds is hung up on.
type limited struct {
	net.Listener
	log *slog.Logger

	mu     sync.Mutex
	open   map[int]int // connections by uid
	others int         // of them, not ours
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		cred, err := credOf(c)
		if err != nil {
			l.log.Warn("who asks on the control socket is not known", "error", err)
			c.Close()
			continue
		}
		if l.take(cred.UID) {
			// The login session is read now: the process may end any moment.
			return &admitted{Conn: c, from: l, cred: cred, loginUID: loginUID(cred.PID)}, nil
		}
		c.Close()
	}
}

// credOf asks the kernel who is at the other end.
func credOf(c net.Conn) (local.Cred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return local.Cred{}, fmt.Errorf("control connection is no Unix socket: %T", c)
	}
	return local.PeerCred(u)
}

func (l *limited) take(uid int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ours(uid) {
		if l.open[uid] >= maxOurs {
			return false
		}
	} else {
		if l.open[uid] >= maxPerUID || l.others >= maxOthers {
			return false
		}
		l.others++
	}
	l.open[uid]++
	return true
}

func (l *limited) give(uid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ours(uid) {
		l.others--
	}
	if l.open[uid]--; l.open[uid] == 0 {
		delete(l.open, uid)
	}
}

// admitted is a connection that has a place; it gives it back once, whoever
// closes it first.
type admitted struct {
	net.Conn
	from     *limited
	cred     local.Cred
	loginUID int
	once     sync.Once
}

func (a *admitted) Close() error {
	a.once.Do(func() { a.from.give(a.cred.UID) })
	return a.Conn.Close()
}
