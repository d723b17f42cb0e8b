// Package milter is the MTA's side of the wire: it speaks the milter protocol
// with Postfix and Sendmail, fills one policy.Message a transaction, asks a
// Guard, and answers at RCPT and at end of message.
//
// emersion/go-milter dispatches; conn mends what it lacks (deadlines, caps,
// macros by stage, version 6, drain). The trap: a frame that the MTA expects
// no answer to must get none, and one that it waits for exactly one, or the two
// fall out of step and the rest of the SMTP session is lost.
//
// It decides nothing and looks nothing up.
package milter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	gomilter "github.com/emersion/go-milter"

	"relayguard/policy"
)

// Guard decides. Its methods are called by many connections at once and return
// by ctx's deadline; the message is theirs only during the call.
type Guard interface {
	// Recipient is asked at every RCPT, before to is among m.RcptTo. A
	// verdict of reject or defer refuses this recipient alone.
	Recipient(ctx context.Context, m *policy.Message, to string) policy.Decision

	// Message is asked at end of message.
	Message(ctx context.Context, m *policy.Message) policy.Decision
}

// Limits bound what one peer may take. All must be positive.
type Limits struct {
	DecisionTimeout time.Duration // ours; the MTA gives up after 30 s, Sendmail 10 s
	AcceptOverdue   bool          // what an overdue decision is answered with; false = tempfail
	IdleTimeout     time.Duration // between frames: an SMTP client may take its time over DATA
	FrameTimeout    time.Duration // inside a frame, and for writing one
	Connections     int           // of all listeners together
	HeaderBytes     int           // kept of one message's header
	HeaderFields    int
	Recipients      int // kept of one message

	// Memory bounds, in octets, what all connections together keep of headers
	// and recipients beyond 16 KiB each. Over it, a recipient is answered 452
	// and a header counts as too large to be read whole.
	Memory int64
}

// Listener is one socket and what it is for.
type Listener struct {
	Name string
	Role policy.Role
	net.Listener

	// LocalBySMTP says of a listener with the role local that sendmail(1) hands mail
	// in by SMTP over loopback, as Sendmail's does: the kernel tells the account by
	// the client's socket. Mail whose account it does not tell is deferred by the
	// guard. False: local mail comes without a port, from Postfix's pickup, and a
	// client with one is judged as on a listener with the role relay.
	LocalBySMTP bool

	// BodyBytes is how much of a body the guard gets to read. 0: nothing.
	BodyBytes int

	// Admit judges a peer that has just connected; nil admits everybody who
	// reaches the socket.
	Admit func(net.Conn) error
}

// protocol is what of the milter protocol the listener wants. Where the kernel is
// asked whose a client's socket is, the MTA waits at CONNECT: a client that had
// gone by then would be nobody's.
func (l *Listener) protocol() gomilter.OptProtocol {
	if l.LocalBySMTP {
		return wantProtocol &^ gomilter.OptNoConnReply
	}
	return wantProtocol
}

// Stats counts since the start.
type Stats struct {
	Connections atomic.Int64 // accepted
	Open        atomic.Int64 // now
	Refused     atomic.Int64 // over the cap or not admitted
	Malformed   atomic.Int64 // closed for what they sent
	Messages    atomic.Int64 // that came to their end
	Overdue     atomic.Int64 // decisions answered for the guard
	Panics      atomic.Int64
	AcceptFails atomic.Int64 // errors of accept(2) survived
}

// Server serves any number of listeners. Set the fields before Serve; the
// methods are safe for concurrent use.
type Server struct {
	Guard  Guard
	Limits Limits
	Log    *slog.Logger
	Stats  Stats

	// ClientUID finds the Unix account behind an SMTP client on this machine;
	// origin.NoUID if it cannot. nil: not looked for. daemon is the MTA's own
	// end of the SMTP connection.
	ClientUID func(client, daemon netip.AddrPort) int

	// Own reports whether an address is one of this machine's; nil: loopback alone is,
	// and what the MTA says that a connection came in by. It must not wait.
	Own func(netip.Addr) bool

	draining atomic.Bool
	drainEnd atomic.Int64
	lastLine [lineKinds]atomic.Int64 // unix nanoseconds, see sometimes
	memory   budget

	once   sync.Once
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	listeners map[net.Listener]bool
	conns     map[*conn]bool
	idle      chan struct{} // closed and replaced as connections end
}

// How often overdue decisions are looked for, and after how long the MTA is
// told that one is still being made.
const (
	watchEvery    = 100 * time.Millisecond
	progressEvery = 2 * time.Second
)

func (s *Server) init() {
	s.once.Do(func() {
		s.ctx, s.cancel = context.WithCancel(context.Background())
		s.listeners = map[net.Listener]bool{}
		s.conns = map[*conn]bool{}
		s.idle = make(chan struct{})
		s.memory.limit = s.Limits.Memory
		go s.watch()
	})
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

// ErrClosed is what Serve returns after Shutdown or Close.
var ErrClosed = errors.New("milter server closed")

// Serve accepts connections until Shutdown or Close. An error of accept(2),
// such as too many open files, is waited out.
func (s *Server) Serve(l *Listener) error {
	s.init()
	if !s.track(l) {
		l.Close()
		return ErrClosed
	}
	defer s.untrack(l)
	var pause time.Duration
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			s.accept(l, c)
		case s.draining.Load() || s.ctx.Err() != nil:
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Name, err)
		default:
			s.Stats.AcceptFails.Add(1)
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.sometimes(lineAccept, slog.LevelWarn, "accept", "listener", l.Name, "error", err, "retry_in", pause)
			if !s.wait(pause) {
				return ErrClosed
			}
		}
	}
}

func (s *Server) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Server) track(l *Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining.Load() || s.ctx.Err() != nil {
		return false
	}
	s.listeners[l.Listener] = true
	return true
}

func (s *Server) untrack(l *Listener) {
	l.Close()
	s.mu.Lock()
	delete(s.listeners, l.Listener)
	s.mu.Unlock()
}

// accept takes a connection in, or closes it: the MTA then gives its default
// answer, which is to try again later.
func (s *Server) accept(l *Listener, nc net.Conn) {
	if int(s.Stats.Open.Add(1)) > s.Limits.Connections {
		s.refuse(nc, l, fmt.Errorf("more than %d connections; raise milter.max_connections if the MTA really has as many", s.Limits.Connections))
		return
	}
	if l.Admit == nil {
		s.start(l, nc)
		return
	}
	go func() { // it may read /proc
		if err := l.Admit(nc); err != nil {
			s.refuse(nc, l, err)
			return
		}
		s.start(l, nc)
	}()
}

func (s *Server) refuse(nc net.Conn, l *Listener, why error) {
	nc.Close()
	s.Stats.Open.Add(-1)
	s.Stats.Refused.Add(1)
	s.sometimes(lineRefused, slog.LevelWarn, "connection refused", "listener", l.Name, "error", why, "refused", s.Stats.Refused.Load())
}

// start hands the connection to a library server of its own, whose session
// lives as long as the connection: Serve returns as soon as it has started it.
func (s *Server) start(l *Listener, nc net.Conn) {
	s.Stats.Connections.Add(1)
	c := newConn(s, l, nc)
	s.mu.Lock()
	s.conns[c] = true
	gone := s.ctx.Err() != nil
	s.mu.Unlock()
	if gone {
		c.Close()
		return
	}
	lib := gomilter.Server{
		NewMilter: func() gomilter.Milter { return c.session },
		Actions:   wantActions,
		Protocol:  wantProtocol,
		SymList:   wantMacros,
	}
	lib.Serve(&oneShot{c: c})
}

// oneShot is a listener that has one connection to give.
type oneShot struct{ c net.Conn }

func (o *oneShot) Accept() (net.Conn, error) {
	if o.c == nil {
		return nil, io.EOF
	}
	c := o.c
	o.c = nil
	return c, nil
}

func (o *oneShot) Close() error { return nil }

func (o *oneShot) Addr() net.Addr { return nil }

// closed forgets a connection; conn calls it once.
func (s *Server) closed(c *conn) {
	s.Stats.Open.Add(-1)
	c.mu.Lock()
	err := c.failed
	c.mu.Unlock()
	if err != nil {
		if errors.Is(err, errMalformed) {
			s.Stats.Malformed.Add(1)
		}
		s.sometimes(lineEnded, slog.LevelWarn, "connection ended", "listener", c.session.listener.Name, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 {
		close(s.idle)
		s.idle = make(chan struct{})
	}
}

// Kinds of lines that a peer can cause at will. Of each at most one a second is
// logged; the counters have them all.
const (
	lineAccept = iota
	lineRefused
	lineEnded
	lineOverdue
	linePanic
	lineQuarantine
	lineKinds
)

func (s *Server) sometimes(kind int, level slog.Level, msg string, args ...any) {
	now := time.Now().UnixNano()
	last := s.lastLine[kind].Load()
	if now-last >= int64(time.Second) && s.lastLine[kind].CompareAndSwap(last, now) {
		s.log().Log(context.Background(), level, msg, args...)
	}
}

// budget is memory that many connections share.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reports whether n octets were left, which are then the caller's.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) {
	if n != 0 {
		b.used.Add(-n)
	}
}

func (s *Server) watch() {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-t.C:
			s.mu.Lock()
			for c := range s.conns {
				c.watch(now)
			}
			s.mu.Unlock()
		}
	}
}

// Shutdown drains: it accepts nothing more, closes connections between
// transactions, lets running transactions finish, and closes what is left when
// ctx ends. It returns ctx's error if something was.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	by, ok := ctx.Deadline()
	if !ok {
		by = time.Now().Add(s.Limits.IdleTimeout)
	}
	s.drainEnd.Store(by.UnixNano())
	s.draining.Store(true)
	s.mu.Lock()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	for _, c := range s.open() {
		c.wake()
	}
	defer s.cancel()
	for {
		s.mu.Lock()
		left, idle := len(s.conns), s.idle
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			s.closeAll()
			return fmt.Errorf("drain: %d connections closed inside a transaction: %w", left, ctx.Err())
		}
	}
}

// Close ends everything at once. Messages whose decision was not told are
// tried again by their senders.
func (s *Server) Close() {
	s.init()
	s.cancel()
	s.mu.Lock()
	for l := range s.listeners {
		l.Close()
	}
	s.mu.Unlock()
	s.closeAll()
}

func (s *Server) closeAll() {
	for _, c := range s.open() {
		c.Close()
	}
}

// open lists the connections.
func (s *Server) open() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.conns))
}

func (s *Server) drainBy() time.Time { return time.Unix(0, s.drainEnd.Load()) }
