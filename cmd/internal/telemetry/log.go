// Package telemetry is where the daemon's log lines go.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// flushEvery bounds how long a line about accepted mail waits for company.
const flushEvery = 100 * time.Millisecond

// flushAt is the size at which waiting lines are written whatever the time.
const flushAt = 32 << 10

// Writer joins log lines into few writes. Flush writes at once. Safe for
// concurrent use. A line that the target refuses is counted and dropped: a full
// disk must not stop mail.
type Writer struct {
	mu      sync.Mutex
	w       io.Writer
	buf     []byte
	timer   *time.Timer
	pending bool
	dropped int64
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer {
	lw := &Writer{w: w}
	lw.timer = time.AfterFunc(time.Hour, lw.Flush)
	lw.timer.Stop()
	return lw
}

// Write keeps one log line.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	switch {
	case len(w.buf) >= flushAt:
		w.flush()
	case !w.pending:
		w.pending = true
		w.timer.Reset(flushEvery)
	}
	return len(p), nil
}

// Flush writes what waits.
func (w *Writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
}

func (w *Writer) flush() {
	w.pending = false
	if len(w.buf) == 0 {
		return
	}
	if _, err := w.w.Write(w.buf); err != nil {
		w.dropped++
	}
	w.buf = w.buf[:0]
}

// Dropped is the number of writes that failed.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

// NewLogger logs to w in the format "text" or "json".
func NewLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format: found %q, want text or json", format)
}
