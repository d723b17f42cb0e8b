package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// flushEvery is how long a line of a stream may wait for others.
	flushEvery = 100 * time.Millisecond
	// stallWait is how long who asked may take nothing of a stream: it keeps the
	// MTA's tools waiting.
	stallWait = 5 * time.Minute
)

// Converse serves an operation that is asked as Handle is and answers as Stream
// does: the first line goes at once, others within a tenth of a second. An error
// before the first line has its own status. The context ends when who asked hangs
// up; then send fails, too. Send is for one goroutine at a time.
func Converse[In, Out any](m *Mux, pattern string, need Right, do func(ctx context.Context, p Peer, in In, send func(Out) error) error) {
	m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !allowed(w, r, need) {
			return
		}
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&in); err != nil && !errors.Is(err, io.EOF) {
			answer(w, Errorf(http.StatusBadRequest, "read the request: %v", err))
			return
		}
		c := converse(w)
		defer c.stop()
		n := 0
		err := do(r.Context(), PeerFrom(r.Context()), in, func(out Out) error {
			n++
			return c.send(out)
		})
		if err != nil && n == 0 {
			answer(w, err)
			return
		}
		last := end{End: &n}
		if err != nil {
			last = end{Error: err.Error(), Status: statusOf(err)}
		}
		_ = c.send(last) // who hangs up does not want it
	})
}

func statusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// conversation writes lines, and what waits for others in time.
type conversation struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	lines   *bufio.Writer
	encoder *json.Encoder
	begun   bool
	err     error // of an earlier write; the stream is broken
	timer   *time.Timer
	waiting bool // the timer runs
}

func converse(w http.ResponseWriter) *conversation {
	// Reading the request had a deadline. Left there, it would end the context.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	lines := bufio.NewWriterSize(w, 64<<10)
	return &conversation{w: w, lines: lines, encoder: json.NewEncoder(lines)}
}

func (c *conversation) send(line any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(stallWait))
	first := !c.begun
	if first {
		c.begun = true
		c.w.Header().Set("Content-Type", "application/jsonl")
	}
	if c.err = c.encoder.Encode(line); c.err != nil {
		return c.err
	}
	_, last := line.(end)
	switch {
	case first || last:
		c.flush()
	case c.waiting:
	case c.timer == nil:
		c.waiting, c.timer = true, time.AfterFunc(flushEvery, c.inTime)
	default:
		c.waiting = true
		c.timer.Reset(flushEvery)
	}
	return c.err
}

func (c *conversation) inTime() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting && c.err == nil {
		c.flush()
	}
	c.waiting = false
}

func (c *conversation) flush() {
	if c.err = c.lines.Flush(); c.err == nil {
		c.err = http.NewResponseController(c.w).Flush()
	}
}

// stop ends the timer: what it does must not come after the handler.
func (c *conversation) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	if c.timer != nil {
		c.timer.Stop()
	}
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Time{}) // the connection may be asked again
}

// Exchange asks an operation that Converse serves, and hands over each line but the
// last. A stream that was cut off is an error.
func Exchange[Out any](ctx context.Context, c *Client, path string, in any, line func(Out) error) error {
	text, err := json.Marshal(in)
	if err != nil {
		return err
	}
	body, err := c.ask(ctx, http.MethodPost, path, text)
	if err != nil {
		return err
	}
	defer body.Close()
	return readLines(body, func(text []byte) error {
		var out Out
		if err := json.Unmarshal(text, &out); err != nil {
			return err
		}
		return line(out)
	})
}
