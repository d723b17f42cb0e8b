// Package telemetry is where the daemon's log lines go.
package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// flushEvery bounds how long a line about accepted mail waits for company.
const flushEvery = 100 * time.Millisecond

// flushAt is the size at which waiting lines are written whatever the time, and
// maxWaiting that beyond which lines are dropped: the target is stuck, and mail
// must not wait for it. Urgent lines have as much again to themselves.
const (
	flushAt    = 32 << 10
	maxWaiting = 1 << 20
	maxUrgent  = 2 * maxWaiting
)

// Writer joins log lines into few writes, made by a goroutine of its own: who
// logs never waits for the target, a full disk or a reader that sleeps. Lines
// that the target refuses or does not take in time are dropped and counted.
// Safe for concurrent use. Close it.
type Writer struct {
	// Lost, if set, is called when the target takes lines again, with the number
	// of those that it did not get. It may write to the Writer.
	Lost func(lines int64)

	w    io.Writer
	kick chan struct{} // write now
	done chan struct{}
	end  sync.Once

	mu      sync.Mutex
	waiting []byte
	dropped int64 // lines
	told    int64 // of them, to Lost

	writing []byte // the goroutine's own
	stopped chan struct{}
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer {
	lw := &Writer{w: w, kick: make(chan struct{}, 1), done: make(chan struct{}), stopped: make(chan struct{})}
	go lw.run()
	return lw
}

// Write keeps one log line.
func (w *Writer) Write(p []byte) (int, error) { return w.keep(p, maxWaiting, false) }

// Urgent is the same log for lines that must not wait for company.
func (w *Writer) Urgent() io.Writer { return urgent{w} }

type urgent struct{ w *Writer }

func (u urgent) Write(p []byte) (int, error) { return u.w.keep(p, maxUrgent, true) }

func (w *Writer) keep(p []byte, limit int, now bool) (int, error) {
	w.mu.Lock()
	if len(w.waiting)+len(p) > limit {
		w.dropped++
		w.mu.Unlock()
		return len(p), nil
	}
	first := len(w.waiting) == 0
	w.waiting = append(w.waiting, p...)
	now = now || len(w.waiting) >= flushAt
	w.mu.Unlock()
	switch {
	case now:
		w.Flush()
	case first:
		w.arm()
	}
	return len(p), nil
}

// arm sees to it that what waits is written in time.
func (w *Writer) arm() { time.AfterFunc(flushEvery, w.Flush) }

// Flush has what waits written now. It does not wait for that.
func (w *Writer) Flush() {
	select {
	case w.kick <- struct{}{}:
	default: // it is being said already
	}
}

// Close writes what waits and ends. A target that is stuck is waited for a
// second.
func (w *Writer) Close() {
	w.end.Do(func() { close(w.done) })
	select {
	case <-w.stopped:
	case <-time.After(time.Second):
	}
}

func (w *Writer) run() {
	defer close(w.stopped)
	for {
		select {
		case <-w.kick:
			w.write()
		case <-w.done:
			w.write()
			return
		}
	}
}

func (w *Writer) write() {
	w.mu.Lock()
	w.writing, w.waiting = w.waiting, w.writing[:0]
	w.mu.Unlock()
	if len(w.writing) == 0 {
		return
	}
	if _, err := w.w.Write(w.writing); err != nil {
		lost := int64(bytes.Count(w.writing, []byte{'\n'}))
		w.mu.Lock()
		w.dropped += lost
		w.mu.Unlock()
		return
	}
	w.mu.Lock()
	lost := w.dropped - w.told
	w.told = w.dropped
	w.mu.Unlock()
	if lost > 0 && w.Lost != nil {
		w.Lost(lost)
	}
}

// Dropped is the number of lines that were lost.
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
