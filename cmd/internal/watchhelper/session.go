package watchhelper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/files/wire"
	"relayguard/mta/local"
)

// session is one connection.
type session struct {
	*server
	conn net.Conn
	cred local.Cred
	room chan struct{}
	work sync.WaitGroup

	writing sync.Mutex
	out     []byte

	watching *watching // nil: this connection asks
}

// serve takes requests until the client leaves.
func (s *server) serve(ctx context.Context, conn net.Conn, cred local.Cred) {
	ctx, cancel := context.WithCancel(ctx)
	c := &session{server: s, conn: conn, cred: cred, room: make(chan struct{}, maxParallel)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err := c.requests(ctx)
	cancel()
	c.work.Wait()
	if c.watching != nil {
		c.watching.end()
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		s.Log.Warn("connection ended", "uid", cred.UID, "pid", cred.PID, "error", err)
	}
}

func (c *session) requests(ctx context.Context) error {
	in := bufio.NewReaderSize(c.conn, 64<<10)
	var buf []byte
	for {
		b, err := wire.ReadFrame(in, &buf)
		if err != nil {
			return err
		}
		q, err := wire.ParseRequest(b)
		if err != nil {
			return err
		}
		if q.Verb == wire.Watch {
			if err := c.watch(ctx, q); err != nil {
				c.end(q.ID, err, forward.Info{})
				return err
			}
			continue
		}
		if c.watching != nil {
			return fmt.Errorf("%w: a request among what is watched", wire.ErrForm)
		}
		select {
		case c.room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c.work.Go(func() {
			defer func() { <-c.room }()
			c.answer(ctx, q)
		})
	}
}

// answer does one request. A panic is ours, and an error for the client.
func (c *session) answer(ctx context.Context, q wire.Request) {
	defer func() {
		if p := recover(); p != nil {
			c.Log.Error("panic in a request", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.end(q.ID, errors.New("the watch helper has a fault; see journalctl -u relayguard-watch"), forward.Info{})
		}
	}()
	var info forward.Info
	var err error
	o := forward.ReadOptions{Max: min(q.Max, maxRead), MaxEntries: int(min(q.MaxEntries, forward.MaxDir)), NoFollow: q.NoFollow, As: q.As}
	switch q.Verb {
	case wire.Read:
		info, err = c.read(ctx, q, o)
	case wire.ReadDir:
		var infos []forward.Info
		infos, err = c.files.ReadDir(ctx, q.Paths[0], o)
		c.infos(q.ID, infos)
	case wire.LstatAll:
		var infos []forward.Info
		infos, err = c.files.LstatAll(ctx, q.Paths)
		c.infos(q.ID, infos)
	case wire.Lstat:
		info, err = c.files.Lstat(ctx, q.Paths[0])
	case wire.Readlink:
		var text string
		if text, err = c.files.Readlink(ctx, q.Paths[0]); err == nil {
			c.send(&wire.Response{ID: q.ID, Kind: wire.Data, Data: []byte(text)})
		}
	}
	c.end(q.ID, err, info)
}

// read sends a file in parts: never more than one of them is in memory.
func (c *session) read(ctx context.Context, q wire.Request, o forward.ReadOptions) (forward.Info, error) {
	f, real, err := c.warden.open(ctx, c.cred, q.Paths[0], o)
	if errors.Is(err, errWithheld) {
		c.refused(real, c.cred)
	}
	if err != nil {
		if f == nil {
			return forward.Info{}, err
		}
		return f.Info, err
	}
	defer f.Close()
	return f.Info, c.parts(ctx, q.ID, f)
}

func (c *session) parts(ctx context.Context, id uint32, f *files.File) error {
	size := max(min(f.Info.Size+1, wire.Part), 4<<10)
	for {
		part := make([]byte, size) // a new one: what hangs may still write into the last
		n, err := f.ReadContext(ctx, part)
		if n > 0 {
			if err := c.send(&wire.Response{ID: id, Kind: wire.Data, Data: part[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// infosPart is how many entries go into a frame: names have 255 octets at most.
const infosPart = 2000

func (c *session) infos(id uint32, all []forward.Info) {
	for len(all) > 0 {
		part := all[:min(len(all), infosPart)]
		all = all[len(part):]
		if c.send(&wire.Response{ID: id, Kind: wire.Infos, Infos: part}) != nil {
			return
		}
	}
}

func (c *session) end(id uint32, err error, info forward.Info) {
	r := wire.Response{ID: id, Kind: wire.End, Info: info}
	r.Code, r.Text = wire.CodeOf(err)
	c.send(&r)
}

// send writes one frame. A client that does not take it is left.
func (c *session) send(r *wire.Response) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.out = r.Append(c.out[:0])
	c.conn.SetWriteDeadline(time.Now().Add(writeWait))
	_, err := c.conn.Write(c.out)
	if err != nil {
		c.conn.Close()
	}
	return err
}
