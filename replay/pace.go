package replay

import (
	"container/heap"
	"context"
	"slices"
	"time"

	"relayguard/policy"
)

// How the daemon paces: when it looks at a message in line at first, and at the
// earliest again.
const (
	coming     = 2 * time.Second
	leastPause = time.Second
)

// longPause is until a line is looked at again of which nobody can say when it
// goes on. The daemon does so every ten seconds.
const longPause = 30 * time.Second

// pass lets time pass: mail that waits is let go as its budget comes back, or
// gets too old, incidents end. It goes from one moment at which something can
// happen to the next, not in steps of a clock.
func (r *run) pass(ctx context.Context, to time.Time) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.now = r.next(to)
		if r.tickDue(r.now) {
			r.tick()
		}
		r.bounces.forget(r.now)
		r.freeOld()
		r.age()
		if err := r.wake(ctx); err != nil {
			return err
		}
		if !r.now.Before(to) {
			return nil
		}
	}
}

// next is the next moment, not after to.
func (r *run) next(to time.Time) time.Time {
	at := to
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if r.Incidents != nil && r.Incidents.Open() > 0 {
		sooner(r.ticked.Add(r.tickEvery()))
	}
	if a, any := r.first(); any {
		sooner(a.at)
	}
	if oldest := r.held.oldest(); oldest != nil && r.MaxAge > 0 {
		sooner(oldest.at.Add(r.MaxAge))
	}
	if at.Before(r.now) {
		return r.now
	}
	return at
}

// tickEvery is how often incidents are looked at: the longer nothing was stopped
// and the more of them there are, the less often, so that a trace of years is no
// more work than one of days.
func (r *run) tickEvery() time.Duration {
	every := time.Minute
	if r.Incidents != nil {
		every = max(every, time.Duration(r.Incidents.Open())*time.Second)
	}
	return max(every, r.ticked.Sub(r.stopped)/64)
}

func (r *run) tickDue(now time.Time) bool {
	return r.Incidents != nil && r.Incidents.Open() > 0 && now.Sub(r.ticked) >= r.tickEvery()
}

func (r *run) tick() {
	r.settle()
	r.Incidents.Tick(r.now, r.policy())
	r.ticked = r.now
}

// age has mail that waited too long leave its line and wait for an admin.
func (r *run) age() {
	for h := r.held.oldest(); h != nil && r.MaxAge > 0 && r.now.Sub(h.at) >= r.MaxAge; h = r.held.oldest() {
		r.leave(h, policy.Hold)
		r.heads(h.waits.Lines())
	}
}

// wake looks at the messages whose time has come, if it is their turn.
func (r *run) wake(ctx context.Context) error {
	for a, any := r.first(); any && !a.at.After(r.now); a, any = r.first() {
		heap.Pop(&r.alarms)
		h := a.held
		if !slices.ContainsFunc(r.Lines.HeadsOf(r.now, h.waits.Lines()), func(w policy.Waiting) bool { return w.ID == h.id }) {
			continue // what is before it has it looked at
		}
		left, err := r.tryRelease(ctx, h)
		if err != nil {
			return err
		}
		if left {
			r.heads(h.waits.Lines())
		}
	}
	return nil
}

// tryRelease lets one message go if it may and has budget. It reports whether
// the message has left its line.
func (r *run) tryRelease(ctx context.Context, h *held) (left bool, err error) {
	if late := h.at.Add(coming); r.now.Before(late) {
		r.later(h, late)
		return false, nil
	}
	r.settle()
	unsure := r.now.Add(max(longPause, r.now.Sub(h.at)/16))
	if r.halted(h) {
		r.later(h, unsure)
		return false, nil
	}
	paid, err := r.policy().Limits.Pay(ctx, r.now, r.Board.Load(), h.waits, "release:"+h.id)
	switch {
	case err != nil:
		return false, err
	case paid.Never:
		r.leave(h, policy.Hold)
		return true, nil
	case paid.Taken:
		r.released(h, &paid)
		return true, nil
	case paid.FreeAt.IsZero():
		r.later(h, unsure)
		return false, nil
	case paid.FreeAt.Before(r.now.Add(leastPause)):
		paid.FreeAt = r.now.Add(leastPause)
	}
	r.later(h, paid.FreeAt)
	return false, nil
}

// halted reports whether nothing that waits in the message's lines is let go by
// itself: a suspension, a complaint, an open incident of abuse, or bounces.
func (r *run) halted(h *held) bool {
	o := &h.waits.Origin
	if r.Board.Load().Suspended(r.now, o) != nil || r.orders.complained[o.Stable()] || r.Incidents != nil && r.Incidents.Abused(h.waits, r.policy()) {
		return true
	}
	for _, k := range h.waits.Lines() {
		if r.bounces.tooMany(k, r.Bounced) {
			return true
		}
	}
	return false
}

// released lets a message go that was paid for.
func (r *run) released(h *held, paid *policy.Paid) {
	as := policy.Hold
	if r.now.Sub(h.at) <= Within {
		as = policy.Accept
	}
	r.judge.passed[h.whose] += h.recipients
	r.leave(h, as)
	r.free(h)
	h.sent.through, h.sent.bounces, h.sent.out = true, paid.Bounces, r.bounces.add(r.now, h.waits.Lines(), h.recipients)
}
