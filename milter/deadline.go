package milter

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends by a time. Decisions seldom wait for anything,
// so the timer that ends it is made only when somebody asks for Done.
type deadline struct {
	context.Context // of the connection
	by              time.Time

	mu     sync.Mutex
	timed  context.Context // nil until Done
	cancel context.CancelFunc
	over   bool // stop was called
}

// Deadline implements context.Context.
func (d *deadline) Deadline() (time.Time, bool) { return d.by, true }

// Done implements context.Context.
func (d *deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timed == nil {
		d.timed, d.cancel = context.WithDeadline(d.Context, d.by)
		if d.over {
			d.cancel()
		}
	}
	return d.timed.Done()
}

// Err implements context.Context.
func (d *deadline) Err() error {
	d.mu.Lock()
	timed, over := d.timed, d.over
	d.mu.Unlock()
	switch {
	case timed != nil:
		return timed.Err()
	case d.Context.Err() != nil:
		return d.Context.Err()
	case !time.Now().Before(d.by):
		return context.DeadlineExceeded
	case over:
		return context.Canceled
	}
	return nil
}

// stop ends the context and gives its timer back.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.cancel != nil {
		d.cancel()
	}
}
