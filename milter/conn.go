package milter

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// conn stands between the MTA's connection and the library's session. Towards
// the library it is a net.Conn that carries only what the library dispatches
// well (negotiation, connect, HELO, MAIL, RCPT, end of message, abort, quit),
// checked before. Macros, header, body and the commands that the library would
// answer by closing go straight to the session.
//
// Read, Write and the session run on the library's goroutine; watch and drain
// on others, so what they touch is atomic or under mu.
type conn struct {
	net.Conn // the MTA
	server   *Server
	br       *bufio.Reader
	session  *session
	ctx      context.Context
	cancel   context.CancelFunc
	once     sync.Once

	out      []byte // the frame that the library is reading
	outAt    int
	midFrame bool      // between a frame's length and its last octet
	frameBy  time.Time // when the frame must be whole; zero between frames
	deciding bool      // between beginDecision and endDecision

	arming sync.Mutex // read deadlines against drain; never held while waiting

	mu      sync.Mutex // writing
	failed  error      // why the connection ends; nil for a quit or EOF
	scratch []byte

	decideBy  atomic.Int64 // unix nanoseconds; 0 = no decision is being made
	decideEOM atomic.Bool
	progress  atomic.Int64 // when watch last told the MTA to be patient
}

func newConn(s *Server, l *Listener, c net.Conn) *conn {
	mc := &conn{Conn: c, server: s}
	mc.br = bufio.NewReaderSize(netReader{mc}, bufferSize)
	mc.ctx, mc.cancel = context.WithCancel(s.ctx)
	mc.session = newSession(mc, l)
	return mc
}

// Read feeds the library one checked frame at a time. Whatever ends the
// connection, the library sees io.EOF, which it does not log; failed says more.
func (c *conn) Read(p []byte) (int, error) {
	if c.outAt == len(c.out) {
		if err := c.next(); err != nil {
			if !errors.Is(err, io.EOF) {
				c.mu.Lock()
				c.fail(err)
				c.mu.Unlock()
			}
			c.session.endTransaction()
			return 0, io.EOF
		}
	}
	n := copy(p, c.out[c.outAt:])
	c.outAt += n
	return n, nil
}

// next puts the next frame for the library into out, after it has served those
// that the library never sees.
func (c *conn) next() error {
	for {
		length, cmd, err := c.frameHead()
		if err != nil {
			return err
		}
		if err := c.session.allow(cmd); err != nil {
			return err
		}
		n := int(length) - 1
		c.br.Discard(frameHeader + 1)
		switch cmd {
		case cmdBody, cmdEOM:
			if err := c.body(n); err != nil {
				return err
			}
			n = 0
		case cmdHeader:
			if err := c.header(n); err != nil {
				return err
			}
			n = 0
		}
		payload, err := c.br.Peek(n)
		if err != nil {
			return c.endOfStream(1, err)
		}
		if err := checkPayload(cmd, payload); err != nil {
			return err
		}
		forLibrary, err := c.session.take(cmd, payload)
		if forLibrary {
			c.forward(cmd, payload)
		}
		c.br.Discard(n)
		c.midFrame, c.frameBy = false, time.Time{}
		if err != nil || forLibrary {
			return err
		}
	}
}

// frameHead reads a frame's length and command without consuming them.
func (c *conn) frameHead() (length uint32, cmd byte, err error) {
	head, err := c.br.Peek(frameHeader)
	if err != nil {
		return 0, 0, c.endOfStream(len(head), err)
	}
	c.midFrame = true
	length = binary.BigEndian.Uint32(head)
	if length == 0 { // no command will follow
		return 0, 0, fmt.Errorf("%w: length 0", errMalformed)
	}
	if head, err = c.br.Peek(frameHeader + 1); err != nil {
		return 0, 0, c.endOfStream(len(head), err)
	}
	return length, head[frameHeader], checkSize(length, head[frameHeader])
}

// forward hands a frame to the library.
func (c *conn) forward(cmd byte, payload []byte) {
	c.out, c.outAt = appendFrame(c.out[:0], cmd, payload), 0
}

// body streams n octets of body to the session.
func (c *conn) body(n int) error {
	for n > 0 {
		if _, err := c.br.Peek(1); err != nil {
			return c.endOfStream(1, err)
		}
		piece, _ := c.br.Peek(min(n, c.br.Buffered()))
		c.session.body(piece)
		c.br.Discard(len(piece))
		n -= len(piece)
	}
	return nil
}

// header reads a header frame of n octets and gives it to the session. One that
// is larger than the whole header may be, or than memory allows, is read past.
func (c *conn) header(n int) error {
	if n <= bufferSize {
		p, err := c.br.Peek(n)
		if err != nil {
			return c.endOfStream(1, err)
		}
		defer c.br.Discard(n)
		return c.session.header(p)
	}
	if n > c.server.Limits.HeaderBytes || !c.server.memory.take(int64(n)) {
		if _, err := io.CopyN(io.Discard, c.br, int64(n)); err != nil {
			return c.endOfStream(1, err)
		}
		c.session.oversizedHeader(n)
		return nil
	}
	defer c.server.memory.give(int64(n))
	p := make([]byte, n)
	if _, err := io.ReadFull(c.br, p); err != nil {
		return c.endOfStream(1, err)
	}
	return c.session.header(p)
}

// endOfStream tells an end between frames from one inside a frame.
func (c *conn) endOfStream(got int, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("read from the MTA: nothing came in time: %w", err)
	case errors.Is(err, io.EOF) && got == 0:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: connection ends inside a frame", errMalformed)
	}
	return fmt.Errorf("read from the MTA: %w", err)
}

// netReader reads from the MTA under the deadline that the moment asks for.
type netReader struct{ c *conn }

func (r netReader) Read(p []byte) (int, error) {
	c := r.c
	for {
		by, err := c.armRead()
		if err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(by) && !c.drained() {
			continue // drain woke a transaction that may still finish
		}
		return n, err
	}
}

// drained reports whether nothing more is to be read because the server drains:
// between transactions at once, inside one when its time is over.
func (c *conn) drained() bool {
	return c.server.draining.Load() && (!c.session.inTransaction && !c.midFrame || !time.Now().Before(c.server.drainBy()))
}

// armRead sets the read deadline: one for a whole frame, however slowly its
// octets come. drain sets its own under the same lock, so neither overwrites
// the other unseen.
func (c *conn) armRead() (by time.Time, err error) {
	c.arming.Lock()
	defer c.arming.Unlock()
	if c.drained() {
		return by, io.EOF
	}
	now := time.Now()
	by = now.Add(c.server.Limits.IdleTimeout)
	if c.midFrame || c.br.Buffered() > 0 {
		if c.frameBy.IsZero() {
			c.frameBy = now.Add(c.server.Limits.FrameTimeout)
		}
		by = c.frameBy
	}
	if c.server.draining.Load() {
		if end := c.server.drainBy(); end.Before(by) {
			by = end
		}
	}
	return by, c.SetReadDeadline(by)
}

// Write takes a frame from the library. That is its answer to the negotiation,
// which is corrected here; every other answer the session gives itself. It
// reports no error, since the library would log it: a connection that cannot be
// written to ends at the next Read.
func (c *conn) Write(p []byte) (int, error) {
	if p[frameHeader] != ansOptNeg {
		c.server.log().Error("answer of the library dropped", "code", string(p[frameHeader]))
		return len(p), nil
	}
	c.send(c.session.agreed.rewrite(p))
	return len(p), nil
}

// send writes frames to the MTA.
func (c *conn) send(frames []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(frames)
}

// write is send under mu. After a failure the connection ends: part of a frame
// may be out.
func (c *conn) write(frames []byte) {
	c.Conn.SetWriteDeadline(time.Now().Add(c.server.Limits.FrameTimeout))
	if _, err := c.Conn.Write(frames); err != nil {
		c.fail(fmt.Errorf("write to the MTA: %w", err))
		c.Conn.Close() // the next Read sees it
	}
}

// fail notes under mu why the connection ends; the first reason counts.
func (c *conn) fail(err error) {
	if c.failed == nil {
		c.failed = err
	}
}

var longAgo = time.Unix(1, 0)

// answer writes an answer of one octet.
func (c *conn) answer(code byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scratch = appendFrame(c.scratch[:0], code)
	c.write(c.scratch)
}

// beginDecision starts the clock on an answer that the MTA waits for.
func (c *conn) beginDecision(by time.Time, eom bool) {
	c.deciding = true
	c.decideEOM.Store(eom)
	c.progress.Store(0)
	c.decideBy.Store(by.UnixNano())
}

// endDecision stops the clock. False: it had run out, and watch has answered.
func (c *conn) endDecision() bool {
	c.deciding = false
	return c.decideBy.Swap(0) != 0
}

// wake makes a Read that waits look at the server's state.
func (c *conn) wake() {
	c.arming.Lock()
	defer c.arming.Unlock()
	c.SetReadDeadline(longAgo)
}

// watch is called a few times a second. It answers for a decision that is
// overdue, and keeps an MTA patient with one that takes long. It does not wait:
// what it writes, another goroutine does.
func (c *conn) watch(now time.Time) {
	by := c.decideBy.Load()
	if by == 0 {
		return
	}
	if now.UnixNano() >= by {
		if c.decideBy.CompareAndSwap(by, 0) {
			c.server.Stats.Overdue.Add(1)
			go c.answerOverdue()
		}
		return
	}
	started := by - int64(c.server.Limits.DecisionTimeout)
	last := max(started, c.progress.Load())
	if c.decideEOM.Load() && now.UnixNano()-last > int64(progressEvery) {
		c.progress.Store(now.UnixNano())
		go c.answerProgress(by)
	}
}

func (c *conn) answerOverdue() {
	code := byte(ansTempFail)
	if c.server.Limits.AcceptOverdue {
		code = ansContinue
	}
	c.server.sometimes(lineOverdue, slog.LevelError, "decision overdue", "listener", c.session.listener.Name,
		"after", c.server.Limits.DecisionTimeout, "answered", string(code), "overdue", c.server.Stats.Overdue.Load())
	c.answer(code)
}

// answerProgress asks for patience while the decision that is due by then is
// still being made: who ends it does so before he writes the answer.
func (c *conn) answerProgress(by int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decideBy.Load() == by {
		c.scratch = appendFrame(c.scratch[:0], ansProgress)
		c.write(c.scratch)
	}
}

// Close ends the connection; the first call tells the server.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.cancel()
		c.server.closed(c)
	})
	return err
}
