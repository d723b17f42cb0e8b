package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

// scratch is room for one step of this relay's own, which its Memory does not
// keep.
type scratch struct {
	step    limit.Step
	charges []limit.Charge
	windows []limit.Window
	out     limit.Outcome
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// mirror puts what Redis said of a step into this relay's own buckets: what it
// took, and which buckets are shut. Own buckets that are full of shut ones lose
// it, which is in Redis all the same.
func (s *Shared) mirror(now time.Time, step *limit.Step, out *limit.Outcome) {
	if out.Taken {
		m := scratches.Get().(*scratch)
		m.charges = appendTaken(m.charges[:0], step, out, limit.Recipients)
		m.step = limit.Step{Charges: m.charges, Known: step.Known}
		_ = s.local.Add(context.Background(), now, &m.step)
		m.step = limit.Step{}
		scratches.Put(m)
	}
	for i := range step.Charges {
		c := &step.Charges[i]
		switch shut := s.shut.has(c.Key); {
		case out.Latched[i] && !shut:
			s.shut.add(c.Key)
			s.shutHere(now, c)
		case !out.Latched[i] && shut:
			s.shut.remove(c.Key)
			_ = s.local.Resume(context.Background(), now, c.Key)
		}
	}
}

// shutHere shuts this relay's own bucket of a charge.
func (s *Shared) shutHere(now time.Time, c *limit.Charge) {
	var out limit.Outcome
	step := limit.Step{Charges: []limit.Charge{tooMuch(c)}}
	_ = s.local.Spend(context.Background(), now, &step, &out)
}

// tooMuch is a charge that shuts the bucket of c in any store: stores shut only
// what a charge does not fit into. It is counted as an attempt, as the charge
// was that shut the bucket elsewhere.
func tooMuch(c *limit.Charge) limit.Charge {
	t := limit.Charge{Key: c.Key, Kind: limit.Abuse, Counts: limit.Recipients, Amount: max(c.Amount, 2)}
	if c.Counts == limit.Distinct {
		t.Counts, t.Amount, t.Items = limit.Distinct, 0, []limit.Item{1, 2}
	}
	for _, w := range c.Windows {
		t.Windows = append(t.Windows, limit.Window{Count: 1, Length: w.Length})
	}
	return t
}

// appendTaken appends the charges that a step which was taken has taken: all but
// those that only tell and did not fit. A first-time charge becomes one of the
// unit as, of so many as the outcome says.
func appendTaken(to []limit.Charge, step *limit.Step, out *limit.Outcome, as limit.Unit) []limit.Charge {
	uses := out.Uses
	for i := range step.Charges {
		c := step.Charges[i]
		its := uses[:len(c.Windows)]
		uses = uses[len(its):]
		if out.Latched[i] || slices.ContainsFunc(its, func(u limit.Use) bool { return u.Over && !u.Window.Soft }) {
			continue
		}
		if c.Counts == limit.FirstTime && as != limit.FirstTime {
			c.Counts, c.Amount, c.Items = as, its[0].Amount, nil
		}
		to = append(to, c)
	}
	return to
}

// spendHere decides a step by this relay's own buckets, and notes what Redis is
// to be told. The caller holds gate; sent is when Redis was asked without an
// answer, zero if it has certainly not taken the step.
func (s *Shared) spendHere(now time.Time, step *limit.Step, out *limit.Outcome, sent time.Time) error {
	if err := s.here(s.local.Spend, now, step, out); err != nil {
		return err
	}
	s.breaker.fallbacks.Add(1)
	if out.Taken {
		s.owed.taken(now, step, out, sent)
	}
	for i := range step.Charges {
		c := &step.Charges[i]
		if out.Latched[i] && c.Kind == limit.Abuse && c.Counts != limit.FirstTime && !s.shut.has(c.Key) {
			s.shut.add(c.Key)
			s.owed.shut(now, c)
		}
	}
	s.waitForRedis(now, step, out)
	return nil
}

func (s *Shared) peekHere(now time.Time, step *limit.Step, out *limit.Outcome) error {
	if err := s.here(s.local.Peek, now, step, out); err != nil {
		return err
	}
	s.waitForRedis(now, step, out)
	return nil
}

// here asks this relay's own buckets, with its share of each count.
func (s *Shared) here(do func(context.Context, time.Time, *limit.Step, *limit.Outcome) error, now time.Time, step *limit.Step, out *limit.Outcome) error {
	m := scratches.Get().(*scratch)
	defer scratches.Put(m)
	m.charges, m.windows = append(m.charges[:0], step.Charges...), m.windows[:0]
	lessShuts := false // some abuse charge's share is less than its count
	for i := range step.Charges {
		c, from := &step.Charges[i], len(m.windows)
		m.windows = append(m.windows, c.Windows...)
		if s.alone != nil && s.alone(c.Key.Value) {
			continue
		}
		for j := range m.windows[from:] {
			w := &m.windows[from+j]
			w.Count = s.part(w.Count)
			lessShuts = lessShuts || c.Kind == limit.Abuse && w.Count < c.Windows[j].Count
		}
	}
	rest := m.windows
	for i := range m.charges {
		c := &m.charges[i]
		n := len(c.Windows)
		c.Windows, rest = rest[:n:n], rest[n:]
		if c.Counts == limit.FirstTime { // stops like one of volume: what is shut stays shut
			c.Kind = limit.Volume
		}
	}
	err := error(nil)
	if lessShuts {
		err = s.onlyCountShuts(now, step, m)
	}
	m.step = limit.Step{Charges: m.charges, Known: step.Known}
	if err == nil {
		err = do(context.Background(), now, &m.step, out)
	}
	m.step = limit.Step{}
	if err != nil {
		return fmt.Errorf("ask this relay's own buckets, redis being away: %w", err)
	}
	return nil
}

// onlyCountShuts lets those abuse charges of m shut their buckets that do so
// with their whole count, too.
func (s *Shared) onlyCountShuts(now time.Time, step *limit.Step, m *scratch) error {
	if err := s.local.Peek(context.Background(), now, step, &m.out); err != nil {
		return err
	}
	for i := range m.charges {
		if !m.out.Latched[i] {
			m.charges[i].Kind = limit.Volume
		}
	}
	return nil
}

// part is the share of a count.
func (s *Shared) part(count int64) int64 {
	return min(count, max(1, int64(float64(count)*s.share)))
}

// waitForRedis sees to it that nothing is refused for good that has no room in
// the share of a window, but in the window: it has when Redis is back. Nor for
// first-time recipients, of whom Redis may know more.
func (s *Shared) waitForRedis(now time.Time, step *limit.Step, out *limit.Outcome) {
	uses := out.Uses
	for i := range step.Charges {
		c := &step.Charges[i]
		windows := c.Windows
		for j, w := range windows {
			if u := &uses[j]; u.Never && !out.Latched[i] && (u.Amount <= w.Count || c.Counts == limit.FirstTime) {
				u.Window, u.Never, u.FreeAt = w, false, now.Add(probeMost)
			}
		}
		uses = uses[len(windows):]
	}
}

// findShut finds what is shut in buckets that outlived a restart. If Redis says
// otherwise, it is opened.
func (s *Shared) findShut() {
	_ = s.local.Each(context.Background(), func(e limit.Entry) error { // no error of ours, nor of a context
		if e.State != nil && !e.State.Latched.IsZero() {
			s.shut.add(e.State.Key)
		}
		return nil
	})
}

// shutKeys are the shut buckets that this relay knows of. There are few, mostly
// none.
type shutKeys struct {
	n    atomic.Int64
	mu   sync.Mutex
	keys map[limit.Key]struct{}
}

func (k *shutKeys) has(key limit.Key) bool {
	if k.n.Load() == 0 {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.keys[key]
	return ok
}

func (k *shutKeys) add(key limit.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil {
		k.keys = map[limit.Key]struct{}{}
	}
	k.keys[own(key)] = struct{}{}
	k.n.Store(int64(len(k.keys)))
}

func (k *shutKeys) remove(key limit.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, key)
	k.n.Store(int64(len(k.keys)))
}

// own is the key with memory of its own.
func own(key limit.Key) limit.Key {
	return limit.Key{Limit: strings.Clone(key.Limit), Value: strings.Clone(key.Value)}
}
