package share

import (
	"context"
	"time"

	"relayguard/cmd/internal/switches"
	"relayguard/policy"
)

// effects are switches whose effects here are to come: the last of each, in the
// order in which they came first. No more than there are switches.
type effects struct {
	order []switches.What
	next  map[switches.What]effect
	wake  chan struct{}
}

type effect struct {
	policy.Switch
	left bool
}

func (e *effects) add(s policy.Switch, left bool) {
	what := switches.What{Kind: s.Kind, Subject: s.Subject, Value: s.Value, Rule: s.Rule}
	if _, known := e.next[what]; !known {
		e.order = append(e.order, what)
	}
	e.next[what] = effect{s, left}
	poke(e.wake)
}

// take hands out the next one.
func (e *effects) take() (next effect, ok bool) {
	if len(e.order) == 0 {
		e.order = nil
		return effect{}, false
	}
	what := e.order[0]
	e.order = e.order[1:]
	next = e.next[what]
	delete(e.next, what)
	return next, true
}

// arrived notes what a merge changed. What has ended already is for the file's
// Sweep.
func (s *Share) arrived(now time.Time, m switches.Merged) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sw := range m.Arrived {
		if !sw.Over(now) {
			s.effects.add(sw, false)
		}
	}
	for _, sw := range m.Left {
		s.effects.add(sw, true)
	}
}

// act has the effects, one after the other.
func (s *Share) act(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		e, ok := s.effects.take()
		s.mu.Unlock()
		switch {
		case !ok:
			select {
			case <-ctx.Done():
			case <-s.effects.wake:
			}
		case e.left:
			s.o.Log.Info("taken back on another relay", "switch", string(e.Kind), "about", e.About(), "id", e.ID)
			call(ctx, s.o.Left, e.Switch)
		default:
			s.o.Log.Info("ordered on another relay", "switch", string(e.Kind), "about", e.About(), "id", e.ID, "by", e.By)
			call(ctx, s.o.Arrived, e.Switch)
		}
	}
}

func call(ctx context.Context, do func(context.Context, policy.Switch), s policy.Switch) {
	if do != nil {
		do(ctx, s)
	}
}
