package control

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// end closes a stream, so that one that was cut off is known for it.
type end struct {
	End   *int   `json:"end,omitempty"` // how many lines there were
	Error string `json:"error,omitempty"`

	Status int `json:"status,omitempty"` // HTTP's that goes with Error; 0: none in particular
}

// Stream serves an operation with an answer of any length: do calls send with
// one value after the other. It reads nothing but the query.
func Stream[Out any](m *Mux, pattern string, need Right, do func(ctx context.Context, r *http.Request, send func(Out) error) error) {
	stream(m, pattern, need, false, do)
}

// Follow is Stream of what comes in its own time: each value is written at once.
func Follow[Out any](m *Mux, pattern string, need Right, do func(ctx context.Context, r *http.Request, send func(Out) error) error) {
	stream(m, pattern, need, true, do)
}

func stream[Out any](m *Mux, pattern string, need Right, atOnce bool, do func(ctx context.Context, r *http.Request, send func(Out) error) error) {
	m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !allowed(w, r, need) {
			return
		}
		w.Header().Set("Content-Type", "application/jsonl")
		lines := bufio.NewWriterSize(w, 64<<10)
		encoder, n := json.NewEncoder(lines), 0
		err := do(r.Context(), r, func(out Out) error {
			n++
			if err := encoder.Encode(out); err != nil || !atOnce {
				return err
			}
			if err := lines.Flush(); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		})
		last := end{End: &n}
		if err != nil {
			last = end{Error: err.Error()}
		}
		_ = encoder.Encode(last) // who hangs up does not want it
		_ = lines.Flush()
	})
}

// Serve serves an operation that writes its answer itself.
func Serve(m *Mux, pattern string, need Right, h http.Handler) {
	m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if allowed(w, r, need) {
			h.ServeHTTP(w, r)
		}
	})
}

// allowed answers who may not.
func allowed(w http.ResponseWriter, r *http.Request, need Right) bool {
	peer := PeerFrom(r.Context())
	if !peer.Rights.has(need) {
		answer(w, &Error{http.StatusForbidden, fmt.Sprintf("%s may not %s; ask root, or use sudo", peer.Name, rightNames[need])})
		return false
	}
	return true
}

// maxText bounds an answer that is text.
const maxText = 16 << 20

// Text asks an operation that answers in text.
func (c *Client) Text(ctx context.Context, path string) (string, error) {
	body, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxText))
	if err != nil {
		return "", fmt.Errorf("read the daemon's answer: %w", err)
	}
	return string(text), nil
}

// maxStreamLine bounds one line of a stream.
const maxStreamLine = 16 << 20

// Lines asks an operation that answers with a stream, and hands over each of its
// lines but the last. A stream that was cut off is an error.
func (c *Client) Lines(ctx context.Context, path string, query url.Values, line func([]byte) error) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	body, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	return readLines(body, line)
}

func readLines(body io.Reader, line func([]byte) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64<<10), maxStreamLine)
	n := 0
	for lines.Scan() {
		var last end
		if text := lines.Bytes(); len(text) < 4<<10 && json.Unmarshal(text, &last) == nil && (last.End != nil || last.Error != "") {
			return finished(&last, n)
		}
		if err := line(lines.Bytes()); err != nil {
			return err
		}
		n++
	}
	return fmt.Errorf("read the daemon's answer: %w", errors.Join(lines.Err(), io.ErrUnexpectedEOF))
}

func finished(last *end, n int) error {
	switch {
	case last.Error != "":
		return &Error{cmp.Or(last.Status, http.StatusInternalServerError), last.Error}
	case *last.End != n:
		return fmt.Errorf("read the daemon's answer: %d lines came of %d", n, *last.End)
	}
	return nil
}
