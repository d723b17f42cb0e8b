package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

// perConnection is the number of messages before a connection is closed and
// another opened.
const perConnection = 100

// stall is how long a milter may say nothing before the load gives up.
const stall = 20 * time.Second

// load drives one milter over some connections from one thread.
type load struct {
	socket string
	mails  []mail
	poller *poller
	conns  []*conn
	next   int     // variant of the next message
	stream *stream // what is sent instead of variants; nil: them

	dialogue *dialogue // made when the milter has negotiated

	// ready is called when a connection has nothing to say: at its opening
	// and after each message. It calls conn.send, or keeps the connection for
	// later.
	ready func(*conn) error
	// sent is called at the answer to an end of message.
	sent func(*conn)

	messages atomic.Int64
}

// conn is one connection of a load.
type conn struct {
	load *load
	tag  int
	fd   int

	steps   []step // what is being said
	at      int
	message bool // the steps are a message's
	left    int  // messages until the connection is closed; -1 = negotiating

	in         []byte // what came and was not looked at: in[start:end]
	start, end int

	scheduled time.Time // when the message was due
	dot       time.Time // when the client's final dot set off header, body and end of message
}

func newLoad(socket string, mails []mail) (*load, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &load{socket: socket, mails: mails, poller: p}, nil
}

// close closes all connections without a word.
func (l *load) close() {
	for _, c := range l.conns {
		syscall.Close(c.fd)
	}
	l.poller.close()
}

// connect opens n more connections.
func (l *load) connect(n int) error {
	for range n {
		c := &conn{load: l, tag: len(l.conns), fd: -1, in: make([]byte, 1<<10)}
		l.conns = append(l.conns, c)
		if err := c.open(); err != nil {
			return err
		}
	}
	return nil
}

// poll serves what happens within timeout, other than on a descriptor with a
// negative tag: for that it returns true.
func (l *load) poll(timeout time.Duration) (other bool, err error) {
	events, err := l.poller.wait(timeout)
	if err != nil {
		return false, err
	}
	for _, ev := range events {
		if ev.Fd < 0 {
			other = true
			continue
		}
		if err := l.conns[ev.Fd].serve(); err != nil {
			return other, err
		}
	}
	return other, nil
}

func (c *conn) open() error {
	fd, err := connect(c.load.socket)
	if err != nil {
		return err
	}
	c.fd, c.left, c.start, c.end = fd, -1, 0, 0
	if err := c.load.poller.add(fd, c.tag); err != nil {
		return err
	}
	return write(fd, offer)
}

// send starts the next message, which was due at a time.
func (c *conn) send(due time.Time) error {
	l := c.load
	c.scheduled = due
	c.at, c.message = 0, true
	if l.stream != nil {
		m := l.stream.mail()
		c.steps = l.dialogue.encode(&m)
		return c.say()
	}
	c.steps = l.dialogue.messages[l.next]
	l.next = (l.next + 1) % len(l.dialogue.messages)
	return c.say()
}

// say sends the step that is due.
func (c *conn) say() error {
	out := c.steps[c.at].out
	if c.at == 0 && c.message && c.left == perConnection { // no message to abort yet
		opening := c.load.dialogue.first
		out = append(opening[:len(opening):len(opening)], out[len(abort):]...)
	}
	return write(c.fd, out)
}

// serve reads what came and goes on as it says.
func (c *conn) serve() error {
	n, err := read(c.fd, c.in[c.end:])
	if err != nil {
		return err
	}
	c.end += n
	for c.start < c.end {
		code, payload, size, err := cutFrame(c.in[c.start:c.end])
		if err != nil {
			return err
		}
		if size == 0 { // the rest is yet to come
			c.end = copy(c.in, c.in[c.start:c.end])
			c.start = 0
			if c.end == len(c.in) {
				return errors.New("the milter answers more than the generator keeps")
			}
			return nil
		}
		c.start += size
		if err := c.answered(code, payload); err != nil {
			return err
		}
	}
	c.start, c.end = 0, 0
	return nil
}

// answered goes on after a frame of the milter.
func (c *conn) answered(code byte, payload []byte) error {
	switch {
	case c.left < 0:
		return c.agreed(code, payload)
	case c.at == len(c.steps):
		return fmt.Errorf("an answer %q that nobody waits for", code)
	}
	step := &c.steps[c.at]
	if step.after == cmdEOM && (code == ansInsertHeader || code == ansChangeHeader) {
		return nil // the answer is yet to come
	}
	if code != ansContinue && (code != ansAccept || step.after != cmdEOM) {
		return fmt.Errorf("answer %q %.80q to command %q: every message is one to let pass", code, payload, step.after)
	}
	if c.at++; c.at < len(c.steps) {
		c.noteDot()
		return c.say()
	}
	if c.message {
		return c.finished()
	}
	return c.load.ready(c)
}

// noteDot keeps the time of the first write behind RCPT and DATA.
func (c *conn) noteDot() {
	if c.load.sent == nil {
		return
	}
	if before := c.steps[c.at-1].after; before == cmdRcpt || before == cmdData {
		c.dot = time.Now()
	}
}

// agreed takes the answer to the offer; the first one makes the dialogue.
func (c *conn) agreed(code byte, payload []byte) error {
	l := c.load
	if code != ansOptNeg {
		return fmt.Errorf("answer %q to the negotiation", code)
	}
	if l.dialogue == nil {
		a, err := parseAgreement(payload)
		if err != nil {
			return err
		}
		l.dialogue = newDialogue(a, l.mails)
	}
	c.left = perConnection
	c.steps, c.at, c.message = l.dialogue.open, 0, false
	if len(c.steps) == 0 {
		return l.ready(c)
	}
	return c.say()
}

// finished counts a message and opens another connection when this one had its
// share.
func (c *conn) finished() error {
	c.load.messages.Add(1)
	if c.load.sent != nil {
		c.load.sent(c)
	}
	if c.left--; c.left > 0 {
		return c.load.ready(c)
	}
	if err := write(c.fd, c.load.dialogue.quit); err != nil {
		return err
	}
	syscall.Close(c.fd)
	return c.open()
}
