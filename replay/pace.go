package replay

import (
	"context"
	"time"

	"relayguard/policy"
)

// pass lets time pass: mail that waits is let go as its budget comes back,
// incidents end, learning ends. It goes from one moment at which something can
// happen to the next, not in steps of a clock.
func (r *run) pass(ctx context.Context, to time.Time) error {
	for {
		at := r.next(to)
		r.now = at
		if at.Sub(r.ticked) >= tickEvery && r.Incidents != nil {
			r.Incidents.Tick(at)
			r.ticked = at
		}
		if err := r.pace(ctx); err != nil {
			return err
		}
		if !at.Before(to) {
			return nil
		}
	}
}

// next is the next moment, not after to: when incidents are looked at, or the
// oldest of a line may fit.
func (r *run) next(to time.Time) time.Time {
	at := to
	if tick := r.ticked.Add(tickEvery); r.Incidents != nil && r.Incidents.Busy() && tick.After(r.now) && tick.Before(at) {
		at = tick
	}
	for _, head := range r.Lines.Heads(r.now) {
		w := r.waits[head.ID]
		if free := w.freeAt; free.After(r.now) && free.Before(at) {
			at = free
		}
	}
	return at
}

// pace lets go what has budget, the oldest of each line, until none has.
func (r *run) pace(ctx context.Context) error {
	for _, old := range r.Lines.Expire(r.now, r.MaxAge) {
		w := r.waits[old.ID]
		r.judge.add(w.label, policy.Hold, w.recipients)
		delete(r.waits, old.ID)
	}
	for again := true; again; {
		again = false
		for _, head := range r.Lines.Heads(r.now) {
			gone, err := r.tryRelease(ctx, r.waits[head.ID])
			if err != nil {
				return err
			}
			again = again || gone
		}
	}
	return nil
}

// tryRelease lets one message go if it may and has budget. It reports whether
// the message has left its line.
func (r *run) tryRelease(ctx context.Context, w *waiting) (gone bool, err error) {
	if w.freeAt.After(r.now) || r.mayNot(w) {
		return false, nil
	}
	paid, err := r.policy().Limits.Pay(ctx, r.now, r.Board.Load(), w.waits, "release:"+w.id)
	switch {
	case err != nil:
		return false, err
	case paid.Never:
		r.judge.add(w.label, policy.Hold, w.recipients)
		r.drop(w.id)
		return true, nil
	case !paid.Taken:
		w.freeAt = paid.FreeAt
		if !w.freeAt.After(r.now) {
			w.freeAt = r.now.Add(time.Second)
		}
		return false, nil
	}
	w.sent.through, w.sent.paced = true, true
	r.fateOf(w.origin)
	r.judge.released(r.now, w)
	r.drop(w.id)
	return true, nil
}

// mayNot: an open incident of abuse, a suspension, a complaint, or bounces.
func (r *run) mayNot(w *waiting) bool {
	f := r.fateOf(w.origin)
	s := r.Board.Load()
	return r.Incidents != nil && r.Incidents.Abused(w.origin) ||
		s.Suspended(r.now, &w.waits.Origin) != nil || s.Paused(r.now, &w.waits.Origin) != nil ||
		f.bounced >= leastBounces && 100*f.bounced > r.Bounced*f.sent
}

// leastBounces is how few bounces say nothing.
const leastBounces = 3

func (r *run) fateOf(name string) *fate {
	if r.bounces[name] == nil {
		r.bounces[name] = &fate{}
	}
	return r.bounces[name]
}

func (r *run) drop(id string) {
	r.Lines.Remove(id, id)
	delete(r.waits, id)
}
