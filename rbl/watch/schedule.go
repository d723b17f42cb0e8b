package watch

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	startWithin  = time.Minute      // machines that start together do not ask together
	longestSleep = 10 * time.Minute // then the clock is looked at anew: it may have been set, or the machine suspended
	planAgain    = 10 * time.Minute // after a plan that had nothing to check
	secondsApart = time.Minute      // passes of second looks at least: what cannot be asked does not spin
)

var errEnded = errors.New("blocklists are not watched any more")

// jittered is d give or take a tenth.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// Run checks until ctx ends. A round that was due while nobody ran is made at once,
// after at most a minute.
func (w *Watch) Run(ctx context.Context) {
	var beside sync.WaitGroup
	beside.Go(func() { w.tellUntil(ctx) })
	defer beside.Wait()
	defer w.end()
	w.start(ctx)
	for ctx.Err() == nil {
		w.sleep(ctx)
		if ctx.Err() != nil {
			return
		}
		w.book(ctx, w.checker) // of a look around that goes on, for the next plan and against a crash
		if f, due := w.due(time.Now()); f == nil && !due {
			w.secondLooks(ctx)
		} else if plan := w.round(ctx); plan != nil {
			w.secondLooks(ctx) // that have come due meanwhile
			w.lookAround(ctx, plan, &beside)
		}
	}
}

// start plans the first round by when the last one was.
func (w *Watch) start(ctx context.Context) {
	last, near, err := w.o.Store.Last(ctx)
	if err != nil {
		w.o.Log.Error("history of blocklists cannot be read", "error", err)
	}
	now := time.Now()
	next := last.Add(jittered(w.o.Every))
	soon := now.Add(time.Duration(rand.Float64() * float64(startWithin)))
	if last.After(now) || next.Before(soon) { // after now: the clock was set back
		next = soon
	}
	next = now.Add(next.Sub(now)) // by the clock that nobody sets
	w.mu.Lock()
	w.status.Last, w.status.Next = last, next
	w.near = around{last: near, week: jittered(w.o.Week)}
	w.mu.Unlock()
}

// due is the round that is asked for, and whether one is due by the schedule.
func (w *Watch) due(now time.Time) (*flight, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flight, !now.Before(w.status.Next)
}

// sleep waits until there may be something to do.
func (w *Watch) sleep(ctx context.Context) {
	second, err := w.o.Store.NextDue(ctx)
	if err != nil && ctx.Err() == nil {
		w.o.Log.Error("history of blocklists cannot be read", "error", err)
	}
	now := time.Now()
	w.mu.Lock()
	wait := min(w.status.Next.Sub(now), w.o.Confirm, longestSleep)
	if w.flight != nil {
		wait = 0
	}
	w.mu.Unlock()
	if !second.IsZero() {
		if earliest := w.lastSecond.Add(secondsApart); second.Before(earliest) {
			second = earliest
		}
		wait = min(wait, second.Sub(now))
	}
	timer := time.NewTimer(max(0, wait))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.wake:
	case <-ctx.Done():
	}
}

// Now asks for a round at once, and returns when that has ended. It begins after the
// call, so that what was changed before is in it: while one is under way, it is the
// one after that. Those who ask meanwhile join it. Before Run it waits for that; after
// Run it is an error, as is a plan that has nothing to check.
func (w *Watch) Now(ctx context.Context) error {
	w.mu.Lock()
	if w.ended != nil {
		w.mu.Unlock()
		return w.ended
	}
	next := &w.flight
	if w.flight != nil && w.flight.begun {
		next = &w.after
	}
	if *next == nil {
		*next = &flight{done: make(chan struct{}), wanted: true}
		signal(w.wake)
	}
	f := *next
	w.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takeOff marks a round as under way.
func (w *Watch) takeOff() *flight {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.flight == nil {
		w.flight = &flight{done: make(chan struct{})}
	}
	w.flight.begun = true
	w.status.Running = true
	return w.flight
}

// land ends a round: next is when another one is due.
func (w *Watch) land(next time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.Next, w.status.Running = next, false
	w.flight.err = err
	close(w.flight.done)
	w.flight, w.after = w.after, nil
}

// end has nobody wait for a round that will not be.
func (w *Watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = errEnded
	for _, f := range []*flight{w.flight, w.after} {
		if f != nil {
			f.err = errEnded
			close(f.done)
		}
	}
	w.flight, w.after = nil, nil
}
