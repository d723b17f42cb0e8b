package desk

import (
	"context"
	"errors"
	"time"

	"relayguard/mta"
)

const (
	// actBatch is how many messages of a bulk are done at a time: so many at most
	// are done after somebody said stop.
	actBatch = 500
	// slowBatch is how long a batch may take before the next is twice as large: an
	// MTA may read its whole queue for each.
	slowBatch = 3 * time.Second
	// seenEvery is how often a bulk that still chooses says how far it is.
	seenEvery = time.Second
)

// Outcomes beside those of mta.Fate.
const (
	outcomeWould   = "would"
	outcomeForeign = "foreign"
)

// run tells how far a bulk act is.
type run struct {
	send   func(Step) error
	tell   bool // of every message
	quiet  bool // new ids alone are not worth telling of
	most   int  // of one batch
	sum    Step
	spoken time.Time // when it last said anything
}

func newRun(send func(Step) error, tell bool) *run {
	return &run{send: send, tell: tell, most: maxAtOnce, sum: Step{Counts: map[string]int{}}, spoken: time.Now()}
}

// seen says now and then how many were looked at.
func (r *run) seen(n int) error {
	if time.Since(r.spoken) < seenEvery {
		return nil
	}
	r.spoken = time.Now()
	return r.send(Step{Seen: n})
}

// chosen says how many there are.
func (r *run) chosen(total int, bytes int64, unknown []string) error {
	r.sum.Total, r.sum.Bytes = total, bytes
	first := r.step()
	first.Unknown = unknown
	return r.send(first)
}

func (r *run) step() Step {
	s := r.sum
	s.Counts = make(map[string]int, len(r.sum.Counts))
	for outcome, n := range r.sum.Counts {
		s.Counts[outcome] = n
	}
	return s
}

// did counts what came of some messages, and tells of it.
func (r *run) did(done []Done) error {
	var worth []Done
	for i := range done {
		m := &done[i]
		r.sum.Done++
		r.sum.Counts[m.Outcome]++
		usual := m.Outcome == mta.Done.String() || m.Outcome == outcomeWould
		if usual {
			r.sum.DoneBytes += m.Size
		}
		if r.tell || !usual || m.NewID != "" && !r.quiet {
			worth = append(worth, *m)
		}
	}
	s := r.step()
	s.Messages = worth
	r.spoken = time.Now()
	return r.send(s)
}

// end says that all were done, or why not.
func (r *run) end(why error) error {
	s := r.step()
	s.End = why == nil
	if why != nil {
		s.Cut = why.Error()
	}
	return r.send(s)
}

// unchosen ends an act of which nothing was begun.
func (r *run) unchosen(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return r.end(errStopped)
}

// errStopped ends a bulk act between two batches.
var errStopped = errors.New("it was interrupted")

// batches does n messages, some at a time, until it is through, ctx ends, or who
// asked cannot be told any more; then the batch in hand is ended and no other begun.
func (r *run) batches(ctx context.Context, n int, do func(ctx context.Context, from, to int) ([]Done, error)) error {
	size := actBatch
	for from := 0; from < n; {
		if ctx.Err() != nil {
			return errStopped
		}
		to := min(from+size, n)
		begun := time.Now()
		done, err := do(context.WithoutCancel(ctx), from, to)
		if said := r.did(done); err == nil {
			err = said
		}
		if err != nil {
			return err
		}
		if time.Since(begun) > slowBatch {
			size = min(2*size, r.most)
		}
		from = to
	}
	return nil
}
