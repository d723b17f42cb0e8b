package redis

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

// Reconciliation tells Redis what passed without it, before mail asks it again:
//
//  1. What is owed is taken out (owed.take), so that mail goes on and notes what
//     it passes meanwhile, and paid. That is repeated until little is left.
//  2. With gate held, so that no mail is decided here, what came meanwhile is
//     paid, and the breaker closes. Mail that comes in this moment waits, for half
//     a Timeout at most, and then asks Redis.
//
// So each step is either decided here, noted and paid before the breaker closes,
// or decided by Redis; none is both. Two are paid later, by Run: a call that was on
// its way when the breaker opened, and fails when it is closed again already; and
// one of a caller in a hurry, which the breaker has nothing to do with.
//
// Every payment has an id and is repeated under it until it is known what became
// of it, and what is paid is dropped at once: Redis may go away in the middle any
// number of times, and nothing is counted twice. A call that got no answer is
// asked about by its id. Is it not remembered although ids still are, it was not
// done, and is done now, under the same id: the first call cannot come later and
// count again. After that time it counts as charged; so does, always, a step
// that Redis took without an answer and that was then stopped here.
//
// Amounts are exact; times are as exact as cells are (see reconcile_owed.go), and in a
// bucket that other relays have charged since, what is added counts as of then.

const (
	// remembered is how long Redis can surely be asked about an id: a minute less
	// some seconds for the way there.
	remembered = 55 * time.Second

	payers    = 16 // at the same time: the store sends together what comes together
	shortRest = 64 // payments that half a Timeout is enough for
	rounds    = 20 // after which the rest is tried, however long
)

// op is what a payment does.
type op uint8

const (
	opAdd op = iota + 1
	opShut
	opResume
	opReset
)

// payment is one call that Redis is owed.
type payment struct {
	op      op
	step    limit.Step // of opAdd and opShut
	key     limit.Key  // of opResume and opReset
	at      time.Time  // when it happened, by our clock
	charges int64      // of mail that it stands for
	spent   bool       // Redis was asked to Spend it: what became of that decides
	sent    time.Time  // when Redis was first asked without an answer; zero: it has not done it
}

// batch is what was taken out to be paid: stages one after another, in each of
// them lists at the same time, in a list one payment after another.
type batch struct {
	stages [][][]payment
	left   atomic.Int64
}

// reconcile pays what is owed and closes the breaker.
func (s *Shared) reconcile(ctx context.Context) error {
	for range rounds {
		if err := s.payBatch(ctx); err != nil {
			return err
		}
		if s.owed.len() <= shortRest {
			break
		}
		s.batch.take(&s.owed, s.newID)
	}
	if err := s.payBatch(ctx); err != nil {
		return err
	}
	if !s.breaker.isOpen() && s.owed.len() == 0 {
		return nil
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.timeout/2)
	defer cancel()
	s.batch.take(&s.owed, s.newID)
	if err := s.payBatch(ctx); err != nil {
		return err
	}
	s.shutBreaker()
	return nil
}

// take fills an empty batch.
func (b *batch) take(o *owed, newID func() string) {
	b.stages = o.take(newID)
	n := 0
	for _, lists := range b.stages {
		for _, l := range lists {
			n += len(l)
		}
	}
	b.left.Store(int64(n))
}

// payBatch pays the batch, or as much of it as goes.
func (s *Shared) payBatch(ctx context.Context) error {
	b := &s.batch
	for len(b.stages) > 0 {
		if err := s.payStage(ctx, b.stages[0]); err != nil {
			return err
		}
		b.stages = b.stages[1:]
	}
	return nil
}

// payStage pays lists at the same time. After the first error none is begun.
func (s *Shared) payStage(ctx context.Context, lists [][]payment) error {
	var all sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, payers)
	for range min(payers, len(lists)) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(lists)) && len(failed) == 0; i = next.Add(1) - 1 {
				if err := s.payList(ctx, &lists[i]); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// payList pays from the front and leaves what is not paid.
func (s *Shared) payList(ctx context.Context, list *[]payment) error {
	for len(*list) > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := &(*list)[0]
		switch err := s.pay(ctx, p); {
		case err == nil:
		case isAway(err):
			return err
		default: // not even Redis takes it
			s.breaker.lost.Add(p.charges)
			s.log.Error("what passed while redis was away cannot be added", "error", err)
		}
		*list = (*list)[1:]
		s.batch.left.Add(-1)
	}
	return nil
}

// pay makes one payment.
func (s *Shared) pay(ctx context.Context, p *payment) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	at := s.theirs(p.at)
	switch p.op {
	case opReset:
		return s.remote.Reset(ctx, at, p.key)
	case opResume:
		return s.remote.Resume(ctx, at, p.key)
	case opShut:
		var out limit.Outcome
		return s.remote.Spend(ctx, at, &p.step, &out)
	}
	if !p.sent.IsZero() && time.Since(p.sent) > remembered {
		s.breaker.lost.Add(p.charges) // counts as charged
		return nil
	}
	done, err := s.wasDone(ctx, p)
	if err != nil || done {
		return err
	}
	sent := time.Now()
	err = s.remote.Add(ctx, at, &p.step)
	switch {
	case err == nil:
		s.breaker.reconciled.Add(p.charges)
	case errors.Is(err, ErrUnsure) && p.sent.IsZero():
		p.sent = sent
	}
	return err
}

// wasDone asks what became of a step that got no answer when it was spent.
func (s *Shared) wasDone(ctx context.Context, p *payment) (bool, error) {
	if !p.spent {
		return false, nil
	}
	found, taken, err := s.remote.Outcome(ctx, p.step.ID)
	if err != nil || found && taken {
		return true, err
	}
	p.spent = false
	if found { // Redis refused what passed here
		p.step.ID, p.sent = s.newID(), time.Time{}
	}
	return false, nil
}
