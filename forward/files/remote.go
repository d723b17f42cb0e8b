package files

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"relayguard/forward"
	"relayguard/forward/files/wire"
)

// Errors of Remote.
var (
	// ErrUnreachable says that no helper answers at the socket.
	ErrUnreachable = errors.New("watch helper not reachable")
	// ErrCut says that the connection ended before the answer did.
	ErrCut = errors.New("the watch helper's answer was cut short")
)

const (
	dialWait    = 5 * time.Second
	writeWait   = 30 * time.Second
	requestWait = 2 * time.Minute // for a whole answer, where ctx has no end
	maxCalls    = 16              // requests under way; the others wait
)

// Remote reads this machine through the root helper, and hears of changes from
// it. All requests share one connection, which is made when it is needed and
// again when it broke; changes have another (Run).
type Remote struct {
	// Problem hears of each time that Run lost the helper or did not get to it;
	// nil: nobody does. To be set before Run.
	Problem func(error)

	socket string
	room   chan struct{}
	watch  remoteWatch

	mu         sync.Mutex
	link       *link // nil: none
	unanswered uint64
	why        error // of the last
}

var _ forward.Files = (*Remote)(nil)

// Dial is a Remote over the helper's Unix socket. Nothing is connected yet.
func Dial(socket string) *Remote {
	r := &Remote{socket: socket, room: make(chan struct{}, maxCalls)}
	r.watch.wake = make(chan struct{}, 1)
	return r
}

// Close ends the connection for requests; a later request makes another one.
func (r *Remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != nil {
		r.link.conn.Close()
		r.link = nil
	}
	return nil
}

// Unanswered is how many requests got no answer, since the helper could not be
// reached or went away, and why the last did not. What was read while it grew says
// nothing of what is there.
func (r *Remote) Unanswered() (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unanswered, r.why
}

func (r *Remote) noAnswer(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unanswered++
	r.why = err
}

func (r *Remote) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "unix", r.socket)
	if err != nil {
		return nil, fmt.Errorf("%w at %s: %w; see systemctl status relayguard-watch.socket", ErrUnreachable, r.socket, err)
	}
	return conn, nil
}

// link is one connection for requests.
type link struct {
	conn net.Conn

	writing sync.Mutex
	out     []byte

	mu    sync.Mutex
	calls map[uint32]*call
	last  uint32
	err   error // why it ended
}

// call is a request under way. Its fields are the link's until done is closed.
type call struct {
	most  int64 // octets of content
	count int   // of entries
	data  []byte
	infos []forward.Info
	end   wire.Response
	err   error // the link's
	done  chan struct{}
}

// connected is the link, made anew if there is none.
func (r *Remote) connected(ctx context.Context) (*link, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != nil && r.link.broken() == nil {
		return r.link, nil
	}
	conn, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	r.link = &link{conn: conn, calls: map[uint32]*call{}}
	go r.link.hear()
	return r.link, nil
}

func (l *link) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// ask sends a request and waits for the whole answer. Nothing that is asked
// changes anything, so it is asked again if the connection broke.
func (r *Remote) ask(ctx context.Context, q wire.Request, most int64, count int) (*call, error) {
	ctx, cancel := context.WithTimeout(ctx, requestWait)
	defer cancel()
	select {
	case r.room <- struct{}{}:
		defer func() { <-r.room }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for try := 0; ; try++ {
		l, err := r.connected(ctx)
		if err != nil {
			r.noAnswer(err)
			return nil, err
		}
		c := &call{most: most, count: count, done: make(chan struct{})}
		err = l.do(ctx, q, c)
		if errors.Is(err, ErrCut) && try == 0 && ctx.Err() == nil {
			continue
		}
		if errors.Is(err, ErrCut) {
			r.noAnswer(err)
		}
		return c, err
	}
}

func (l *link) do(ctx context.Context, q wire.Request, c *call) error {
	if err := l.begin(&q, c); err != nil {
		return err
	}
	if err := l.send(&q); err != nil {
		l.fail(err)
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.calls, q.ID)
		l.mu.Unlock()
		return ctx.Err()
	}
}

func (l *link) begin(q *wire.Request, c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	for l.last++; l.calls[l.last] != nil; {
		l.last++
	}
	q.ID = l.last
	l.calls[q.ID] = c
	return nil
}

func (l *link) send(q *wire.Request) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.out = q.Append(l.out[:0])
	if len(l.out) > wire.MaxFrame {
		return fmt.Errorf("a request of %d octets", len(l.out))
	}
	l.conn.SetWriteDeadline(time.Now().Add(writeWait))
	_, err := l.conn.Write(l.out)
	return err
}

// hear takes responses until the connection ends.
func (l *link) hear() {
	in := bufio.NewReaderSize(l.conn, 64<<10)
	var buf []byte
	for {
		b, err := wire.ReadFrame(in, &buf)
		if err == nil {
			var r wire.Response
			if r, err = wire.ParseResponse(b); err == nil {
				err = l.take(&r)
			}
		}
		if err != nil {
			l.fail(err)
			return
		}
	}
}

// take gives a response to its call. One of a call that was given up is for
// nobody.
func (l *link) take(r *wire.Response) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.calls[r.ID]
	if c == nil {
		return nil
	}
	switch r.Kind {
	case wire.Data:
		if int64(len(c.data)+len(r.Data)) > c.most {
			return fmt.Errorf("%w: more octets than were asked for", wire.ErrForm)
		}
		c.data = append(c.data, r.Data...)
	case wire.Infos:
		if len(c.infos)+len(r.Infos) > c.count {
			return fmt.Errorf("%w: more entries than were asked for", wire.ErrForm)
		}
		c.infos = append(c.infos, r.Infos...)
	case wire.End:
		c.end = *r
		delete(l.calls, r.ID)
		close(c.done)
	default:
		return fmt.Errorf("%w: an answer to no request", wire.ErrForm)
	}
	return nil
}

// fail ends the connection and every call.
func (l *link) fail(err error) {
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = fmt.Errorf("%w: %w", ErrCut, err)
	for id, c := range l.calls {
		c.err = l.err
		delete(l.calls, id)
		close(c.done)
	}
}

// wrap adds what was tried to an error that does not say it.
func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// Lstat is forward.Files'. So are the others.
func (r *Remote) Lstat(ctx context.Context, path string) (forward.Info, error) {
	c, err := r.ask(ctx, wire.Request{Verb: wire.Lstat, Paths: []string{path}}, 0, 0)
	if err != nil {
		return forward.Info{}, wrap("look at", path, err)
	}
	return c.end.Info, c.end.Err()
}

func (r *Remote) Read(ctx context.Context, path string, o forward.ReadOptions) ([]byte, forward.Info, error) {
	if o.Max <= 0 {
		o.Max = forward.MaxFile
	}
	c, err := r.ask(ctx, wire.Request{Verb: wire.Read, Paths: []string{path}, Max: o.Max, NoFollow: o.NoFollow, As: o.As}, o.Max, 0)
	if err != nil {
		return nil, forward.Info{}, wrap("read", path, err)
	}
	if err := c.end.Err(); err != nil {
		return nil, c.end.Info, err
	}
	if c.data == nil {
		c.data = []byte{}
	}
	return c.data, c.end.Info, nil
}

func (r *Remote) ReadDir(ctx context.Context, path string, o forward.ReadOptions) ([]forward.Info, error) {
	if o.MaxEntries <= 0 {
		o.MaxEntries = forward.MaxDir
	}
	q := wire.Request{Verb: wire.ReadDir, Paths: []string{path}, MaxEntries: int64(o.MaxEntries), NoFollow: o.NoFollow, As: o.As}
	c, err := r.ask(ctx, q, 0, o.MaxEntries)
	if err != nil {
		return nil, wrap("list", path, err)
	}
	return c.infos, c.end.Err()
}

func (r *Remote) Readlink(ctx context.Context, path string) (string, error) {
	c, err := r.ask(ctx, wire.Request{Verb: wire.Readlink, Paths: []string{path}}, maxLink, 0)
	if err != nil {
		return "", wrap("read link", path, err)
	}
	return string(c.data), c.end.Err()
}

func (r *Remote) LstatAll(ctx context.Context, paths []string) ([]forward.Info, error) {
	all := make([]forward.Info, 0, len(paths))
	for len(paths) > 0 {
		part := paths[:batch(paths)]
		c, err := r.ask(ctx, wire.Request{Verb: wire.LstatAll, Paths: part}, 0, len(part))
		if err == nil {
			err = c.end.Err()
		}
		if err == nil && len(c.infos) != len(part) {
			err = fmt.Errorf("%w: %d entries for %d paths", wire.ErrForm, len(c.infos), len(part))
		}
		if err != nil {
			return nil, fmt.Errorf("look at %s and %d others: %w", part[0], len(part)-1, err)
		}
		all, paths = append(all, c.infos...), paths[len(part):]
	}
	return all, nil
}

// batch is how many paths go into a request.
func batch(paths []string) int {
	octets := 0
	for n, p := range paths {
		octets += len(p) + 4
		if n > 0 && (n == wire.MaxPaths || octets > wire.Part) {
			return n
		}
	}
	return len(paths)
}
