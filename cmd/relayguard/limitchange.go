package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/journal"
	"relayguard/policy/limit"
)

// A bucket does not say what it counts. What each limit counted when its buckets
// were filled is kept in the journal: when a limit of the same name counts
// something else, a thousand octets are not to be a thousand recipients.

// countedValue is the journal's name for what limits counted.
const countedValue = "limits-counted"

// meaning is what the numbers in a limit's buckets are, and whether they latch.
type meaning struct {
	Counts string `json:"counts"`
	Kind   string `json:"kind"`
}

// meanings are those of a configuration, by limit.
func meanings(c *config.Config) map[string]meaning {
	all := map[string]meaning{}
	if c != nil {
		for _, l := range c.Limits {
			all[l.Name] = meaning{l.Counts, l.Kind}
		}
	}
	return all
}

// changedMeanings are the limits whose buckets have to be changed: those that
// count something else than they did, and those that latch no more.
func changedMeanings(was, is map[string]meaning) (names []string) {
	for name, m := range is {
		if before, known := was[name]; known && (before.Counts != m.Counts || before.Kind != m.Kind && m.Kind == limit.Volume.String()) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// renewAgain is how soon buckets are asked for again that could not be had, as
// those in Redis while it is away.
const renewAgain = 10 * time.Second

// renew has the budgets of limits begin anew that count something else than under
// the configuration before, nil: than when the daemon last ran. It goes on beside
// mail, until all are done or another configuration is in force.
func (s *state) renew(before, c *config.Config) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := s.stop
	s.stop = func() {
		cancel()
		if stop != nil {
			stop()
		}
	}
	s.work.Go(func() {
		defer cancel()
		r := renewal{state: s, was: s.meaningsBefore(ctx, before), is: meanings(c), done: map[limit.Key]bool{}}
		r.changed = changedMeanings(r.was, r.is)
		for len(r.changed) > 0 && !r.pass(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(renewAgain):
			}
			if s.config.Load() != c {
				break
			}
		}
		if s.config.Load() != c {
			return // what that one has renewed is all of it: nothing was noted
		}
		maps.Copy(r.was, r.is) // what is no longer configured may come back while its buckets are there
		if text, err := json.Marshal(r.was); err == nil {
			s.journal.Note(journal.Value{Name: countedValue, Value: string(text)})
		}
	})
}

// meaningsBefore is what limits counted: as the journal has it, which knows of
// changes that were not finished, else as the configuration before does.
func (s *state) meaningsBefore(ctx context.Context, before *config.Config) map[string]meaning {
	was := meanings(before)
	if err := s.journal.Sync(ctx); err != nil {
		return was // what it has may be old
	}
	text, found, err := s.journal.Value(ctx, countedValue)
	if err == nil && found {
		err = json.Unmarshal([]byte(text), &was)
	}
	if err != nil {
		s.log.Warn("what limits counted before is not known; if one counts something else now, see relayguard limits reset", "error", err)
	}
	return was
}

// renewal is the work of renew.
type renewal struct {
	*state
	was, is map[string]meaning
	changed []string
	done    map[limit.Key]bool // none twice: it would be a fresh budget again
}

// pass looks at all buckets once, and reports whether all could be had. While
// Redis is away those of this relay are done.
func (r *renewal) pass(ctx context.Context) bool {
	r.listing.Lock()
	defer r.listing.Unlock()
	renewed := map[string]int{}
	err := r.each(ctx, r.budgets.whole, renewed)
	if err != nil && ctx.Err() == nil && r.budgets.client != nil {
		err = errors.Join(err, r.each(ctx, r.budgets.Keeper, renewed))
	}
	for _, name := range r.changed {
		switch n := renewed[name]; {
		case n == 0:
		case r.was[name].Counts != r.is[name].Counts:
			r.log.Warn("a limit counts something else now: its budgets begin anew", "limit", name, "budgets", n, "counted", r.was[name].Counts, "counts", r.is[name].Counts)
		default:
			r.log.Warn("a limit is of kind volume now: those of its budgets that were shut are open", "limit", name, "budgets", n)
		}
	}
	if err != nil && ctx.Err() == nil {
		r.log.Warn("budgets of limits that count something else now cannot all be had; it is tried again", "limits", r.changed, "error", err)
	}
	r.desk.Hurry()
	return err == nil
}

func (r *renewal) each(ctx context.Context, k limit.Keeper, renewed map[string]int) error {
	var first error
	err := k.Each(ctx, func(e limit.Entry) error {
		if e.State == nil || r.done[e.State.Key] || !slices.Contains(r.changed, e.State.Key.Limit) {
			return nil
		}
		name := e.State.Key.Limit
		if r.was[name].Counts == r.is[name].Counts && e.State.Latched.IsZero() {
			return nil
		}
		if err := r.renewBucket(ctx, e.State, r.was[name], r.is[name]); err != nil {
			first = cmp.Or(first, err)
			return ctx.Err()
		}
		r.done[e.State.Key] = true
		renewed[name]++
		return nil
	})
	return cmp.Or(err, first)
}

// renewBucket opens a shut bucket that counts what it did, and empties one that
// counted something else, which stays shut under a limit that still latches.
func (s *state) renewBucket(ctx context.Context, b *limit.State, was, is meaning) error {
	latches, now := is.Kind == limit.Abuse.String(), time.Now()
	switch {
	case was.Counts == is.Counts:
		return s.budgets.Resume(ctx, now, b.Key)
	case latches && !b.Latched.IsZero():
		shut := limit.State{Key: b.Key, Latched: b.Latched}
		for _, w := range b.Windows {
			shut.Windows = append(shut.Windows, limit.WindowState{Length: w.Length})
		}
		return s.budgets.Put(ctx, limit.Entry{State: &shut})
	}
	return s.budgets.Reset(ctx, now, b.Key)
}
