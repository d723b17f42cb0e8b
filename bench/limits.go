package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// Names of what limits are compared with.
const (
	theMap        = "sharded-map"
	theMemory     = "memory"
	thePlainBatch = "plain-batch"
	emptyLua      = "empty-lua"
)

var (
	stepSizes   = []int{1, 3, 6} // buckets of a step
	callerCount = []int{1, 16, 64}
)

// limits measures what a step costs in each store, beside what the store stands
// on, and what a million buckets take.
func (b *bench) limits(ctx context.Context) error {
	for _, part := range []func(context.Context) error{b.limitsInMemory, b.sweep, b.limitsInSQLite, b.limitsInRedis, b.replay} {
		if err := part(ctx); err != nil {
			b.skipped = append(b.skipped, fmt.Sprintf("limits: %v", err))
		}
		runtime.GC() // what it kept would cost the next one
	}
	return ctx.Err()
}

// contest is one store beside its reference, for steps of each size and numbers
// of callers.
type contest struct {
	store, reference string
	every            int // see drive
	window           time.Duration
	traffic          func(size int) *traffic
	ours, theirs     func(*traffic) func() worker
	settle           func() error // after ours: what it does behind the scenes is done; nil: nothing
	goal             *goal        // of the ratio of the rates; of what ours adds, if not of the ratio
}

func (b *bench) contest(ctx context.Context, c contest) error {
	for _, size := range stepSizes {
		t := c.traffic(size)
		for _, callers := range callerCount {
			s := standing{name: fmt.Sprintf("%s/%dx%d", c.store, size, callers), reference: c.reference, goal: c.goal}
			for round := range b.rounds {
				b.progress("limits, %s, round %d of %d", s.name, round+1, b.rounds)
				if err := c.round(round, callers, t, &s); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				if err := ctx.Err(); err != nil {
					return err
				}
			}
			b.standings = append(b.standings, s)
		}
	}
	return nil
}

// round drives both, in turns as the first.
func (c *contest) round(round, callers int, t *traffic, s *standing) error {
	for i := range 2 {
		if (round+i)%2 == 0 {
			p, err := drive(callers, c.window, c.every, c.theirs(t))
			if err != nil {
				return err
			}
			s.theirs = append(s.theirs, p)
			continue
		}
		p, err := drive(callers, c.window, c.every, c.ours(t))
		if err == nil && c.settle != nil {
			err = c.settle()
		}
		if err != nil {
			return err
		}
		s.ours = append(s.ours, p)
	}
	return nil
}

// single adds a measure without a reference.
func (b *bench) single(name, unit string, g *goal, values ...float64) {
	b.results = append(b.results, result{Name: name, Value: round(median(values)), Unit: unit, of: theGuard, goal: g})
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
