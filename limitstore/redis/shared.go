package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

// RemoteStore is what Shared needs of the store that several relays share:
// *Store. A call that failed and has certainly done nothing gives an error that
// is ErrAway, one that may have been done ErrUnsure; all others are faults of
// the charges. A step whose id is remembered is not done again: that is so for
// Spend and for Add, for a minute, if it was taken.
type RemoteStore interface {
	limit.Store
	limit.Keeper
	// Time is its clock.
	Time(ctx context.Context) (time.Time, error)
	// Outcome says whether the step with this id is remembered, and whether it
	// was taken.
	Outcome(ctx context.Context, id string) (found, taken bool, err error)
}

// OwnBuckets are a relay's own: limit.Memory, or one that outlives a restart.
type OwnBuckets interface {
	limit.Store
	limit.Keeper
	Sweep(now time.Time) int
	Evicted() uint64
}

// SharedOptions are what NewShared needs.
type SharedOptions struct {
	Store RemoteStore // its owner closes it, after Shared

	// Share is how much of each count this relay allows by itself while Redis is
	// away, above 0 and up to 1; 0 is a half. 1/n with n relays keeps the sum of
	// all within one limit.
	Share float64

	// Own are the buckets for that time; its owner closes it, after Shared. nil is
	// a Memory with the bounds of Local, which a restart empties.
	Own   OwnBuckets
	Local limit.MemoryOptions

	Timeout time.Duration // how long mail waits for Redis; 0 is 50 ms
	Log     *slog.Logger
}

// Shared is a limit.Store for one of several relays: all of them count in one
// Redis, and each goes on by itself while that is away.
//
// Mail waits for Redis no longer than Timeout, and not at all while the breaker
// is open. One time-out or error opens it. Then the relay decides by buckets of
// its own, with Share of each count (rounded down, at least 1). What it passed
// through Redis before is in them, too, and so are the shut buckets that it saw.
// The breaker closes when Redis answers again and has been told of everything
// that passed meanwhile; see reconcile.go.
//
// A caller whose own time ends before Timeout says nothing about Redis: the
// breaker stays as it is, and his call goes on. While it is closed, Spend and Peek
// give him context.DeadlineExceeded when his time is over, since this relay's
// share is for a Redis that is away only: what Redis took of that stays charged,
// and what it did not is not owed. Add, Resume and Reset are noted here, and Redis
// is told once more later, which counts once.
//
// # How much passes while Redis is away
//
// With n relays and cap = max(1, floor(Share * count)), within any interval as
// long as a window, and however long, however often and for whom Redis is away,
// all relays together pass at most
//
//	count + n * cap
//
// What passes through Redis is at most count, since Redis counts all of it; what
// a relay passes by itself is at most cap, since its own buckets count all of
// it. No more is needed: neither equal clocks nor a reconciliation.
//
// Since a relay's own buckets also count what it passed through Redis, the bound
// is in fact lower. A relay passes something by itself only while all that it
// passed in that window, either way, is at most cap. So
//
//   - relays that are all cut off at once and go on by themselves pass at most
//     the sum of max(cap, r) over all relays, r being what each had passed
//     through Redis: n * cap if traffic was even, and at most count + (n-1) * cap;
//   - a relay that is back passes nothing through Redis that does not fit beside
//     what it passed by itself, so that count + (n-1) * cap also holds for windows
//     that see the end of it;
//   - a single relay never passes more than count.
//
// This lower bound does not know the calls that are on their way in the moment
// Redis goes: a step that Redis takes while the relay decides another one is not
// yet in the relay's own buckets.
//
// A bucket that is this relay's own in Redis, too (Options.Own), has no share:
// all of its count is this relay's, and no more than count passes.
//
// Three things are outside of all that: a relay that is restarted meanwhile begins
// with empty buckets, like one more relay, if Own does not keep them, and what it
// owed Redis is lost in any case; Redis may come back without its data (a
// fail-over loses what the replica had not yet seen); and buckets that were evicted
// (Local.Buckets) are forgotten.
//
// # What shuts a bucket while Redis is away
//
// A shut bucket waits for an admin, on all relays. So this relay shuts an abuse
// bucket only for what would have shut it with Redis there: if what it passed
// itself, with what is asked for, is more than the whole count. At the share the
// bucket stops, and goes on when Redis is back. What was shut before stays shut.
//
// First-time recipients shut nothing at all. Who is known, this relay can only
// say of those it wrote to itself and remembers: after a restart, or if traffic is
// spread over relays, old customers are first-time ones here. They are counted,
// so that the share stops them, and Redis, which knows, counts anew what passed.
//
// # Traps
//
// A message that is too large for the share but not for the whole count is told
// that it is over, but not Never: it waits for Redis.
//
// Each is not the same while Redis is away: see there, and Whole.
type Shared struct {
	remote  RemoteStore
	local   OwnBuckets
	share   float64
	timeout time.Duration
	log     *slog.Logger

	alone  func(value string) bool // no other relay charges its bucket; nil: none
	run    string                  // begins the ids of this process
	number atomic.Uint64
	offset atomic.Int64 // Redis's clock minus ours, microseconds

	// gate is held for reading while mail is decided here and noted as owed, and
	// for writing by the last part of a reconciliation, which closes the breaker.
	gate    sync.RWMutex
	breaker breaker
	shut    shutKeys
	owed    owed
	probing sync.Mutex // one reconciliation at a time; holds batch
	batch   batch
}

// NewShared makes a store that decides by itself until the first Probe, which
// Run begins with.
func NewShared(o SharedOptions) *Shared {
	if o.Share <= 0 || o.Share > 1 {
		o.Share = 0.5
	}
	if o.Timeout <= 0 {
		o.Timeout = 50 * time.Millisecond
	}
	s := &Shared{
		remote: o.Store, local: o.Own, share: o.Share, timeout: o.Timeout, log: o.Log,
		run: strconv.FormatUint(rand.Uint64(), 36),
	}
	if s.local == nil {
		s.local = limit.NewMemoryOf(o.Local)
	}
	s.findShut()
	s.breaker.opened, s.breaker.why = make(chan struct{}, 1), "not asked yet"
	s.breaker.open.Store(true)
	s.owed.lost = &s.breaker.lost
	if st, ok := o.Store.(*Store); ok {
		s.alone = st.own
	}
	return s
}

// Spend is Store's.
func (s *Shared) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	hurry := s.hurries(ctx)
	named, answer := s.apart(hurry, s.named(step), out)
	sent, err := s.ask(ctx, hurry, func(ctx context.Context) error { return s.remote.Spend(ctx, s.theirs(now), named, answer) })
	switch {
	case err == nil:
		*out = *answer
		s.mirror(now, step, out)
		s.ourTimes(out)
		return nil
	case !isAway(err):
		return err
	}
	defer s.gate.RUnlock() // ask holds it
	if s.tooLate(err) {
		return errLate
	}
	return s.spendHere(now, named, out, sent)
}

// Peek is Store's.
func (s *Shared) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	hurry := s.hurries(ctx)
	asked, answer := s.apart(hurry, step, out)
	_, err := s.ask(ctx, hurry, func(ctx context.Context) error { return s.remote.Peek(ctx, s.theirs(now), asked, answer) })
	switch {
	case err == nil:
		*out = *answer
		s.ourTimes(out)
		return nil
	case !isAway(err):
		return err
	}
	defer s.gate.RUnlock()
	if s.tooLate(err) {
		return errLate
	}
	return s.peekHere(now, step, out)
}

// Add is Store's.
func (s *Shared) Add(ctx context.Context, now time.Time, step *limit.Step) error {
	hurry := s.hurries(ctx)
	named, _ := s.apart(hurry, s.named(step), nil)
	sent, err := s.ask(ctx, hurry, func(ctx context.Context) error { return s.remote.Add(ctx, s.theirs(now), named) })
	away := err != nil && isAway(err)
	switch {
	case away:
		defer s.gate.RUnlock()
	case err != nil:
		return err
	}
	if err := s.local.Add(ctx, now, step); err != nil {
		return fmt.Errorf("add to this relay's own buckets: %w", err)
	}
	if away {
		s.owed.added(now, named, sent)
	}
	return nil
}

// Resume is Store's. While Redis is away it acts here at once, and there later.
func (s *Shared) Resume(ctx context.Context, now time.Time, key limit.Key) error {
	_, err := s.ask(ctx, s.hurries(ctx), func(ctx context.Context) error { return s.remote.Resume(ctx, s.theirs(now), key) })
	if err != nil && !isAway(err) {
		return err
	}
	s.owed.resume(now, key, err != nil)
	if err != nil {
		defer s.gate.RUnlock()
	}
	s.shut.remove(key)
	return s.local.Resume(ctx, now, key)
}

// Reset is Store's. While Redis is away it acts here at once, and there later.
func (s *Shared) Reset(ctx context.Context, now time.Time, key limit.Key) error {
	_, err := s.ask(ctx, s.hurries(ctx), func(ctx context.Context) error { return s.remote.Reset(ctx, s.theirs(now), key) })
	if err != nil && !isAway(err) {
		return err
	}
	s.owed.reset(now, key, err != nil)
	if err != nil {
		defer s.gate.RUnlock()
	}
	s.shut.remove(key)
	return s.local.Reset(ctx, now, key)
}

// Each is Keeper's, of what Redis keeps. While that is away it is of this relay's
// own buckets, so that an admin can resume and reset them: what passed here,
// what is shut as far as this relay saw it, and whom accounts wrote to by it.
// Who needs all, or nothing, asks Whole.
func (s *Shared) Each(ctx context.Context, fn func(limit.Entry) error) error {
	told := false
	err := s.Whole().Each(ctx, func(e limit.Entry) error {
		told = true
		return fn(e)
	})
	if err == nil || told || !isAway(err) || ctx.Err() != nil {
		return err
	}
	return s.local.Each(ctx, fn)
}

// Put is Keeper's, of what Redis keeps: an error while it is away. An account that
// is to know nobody is forgotten by this relay, too.
func (s *Shared) Put(ctx context.Context, e limit.Entry) error {
	if e.Known == nil || len(e.Known.Items) > 0 || s.breaker.isOpen() {
		return s.Whole().Put(ctx, e)
	}
	s.probing.Lock() // nothing of it is on its way to Redis
	defer s.probing.Unlock()
	if err := s.Whole().Put(ctx, e); err != nil {
		return err
	}
	s.owed.forget(e.Known.Account)
	return s.local.Put(ctx, e)
}

// Whole is what Redis keeps, and that only: an error that is ErrAway or ErrUnsure
// while it is away.
func (s *Shared) Whole() limit.Keeper { return whole{s} }

type whole struct{ s *Shared }

func (w whole) Each(ctx context.Context, fn func(limit.Entry) error) error {
	if w.s.breaker.isOpen() {
		return errOpen
	}
	return w.s.remote.Each(ctx, fn)
}

func (w whole) Put(ctx context.Context, e limit.Entry) error {
	if w.s.breaker.isOpen() {
		return errOpen
	}
	return w.s.remote.Put(ctx, e)
}

// errOpen is what a caller gets who can only be served by Redis.
var errOpen = fmt.Errorf("%w: the breaker is open until it answers again", ErrAway)

// errHurry is what a caller gets whose time ended while Redis was asked.
var errHurry = fmt.Errorf("%w before the caller's time was over", ErrUnsure)

// errLate is what Spend and Peek make of errHurry.
var errLate = fmt.Errorf("ask Redis: %w", context.DeadlineExceeded)

// tooLate: only the caller's time is over, Redis is not away. He holds gate.
func (s *Shared) tooLate(err error) bool { return errors.Is(err, errHurry) && !s.breaker.isOpen() }

// isAway: the error says that Redis cannot be asked, not that a charge is wrong.
func isAway(err error) bool { return errors.Is(err, ErrAway) || errors.Is(err, ErrUnsure) }

// ask does one thing at Redis within the timeout. If that fails, and at once if
// the breaker is open, the error isAway and gate is held for reading; sent is
// when the call was made if it may have been done nevertheless.
//
// A caller who gives up does not break the call off: that would look like a
// Redis that is away. Of one in a hurry, do goes on after ask has returned.
func (s *Shared) ask(ctx context.Context, hurry bool, do func(context.Context) error) (sent time.Time, err error) {
	began := time.Now()
	if s.breaker.isOpen() {
		s.gate.RLock() // waits while the breaker is about to close
		if s.breaker.isOpen() {
			return time.Time{}, errOpen
		}
		s.gate.RUnlock()
	}
	if until, ok := ctx.Deadline(); !hurry {
		err = s.call(ctx, do)
	} else if left := time.Until(until); ok && left > 0 {
		err = s.callFor(ctx, left, do)
	} else {
		err = context.DeadlineExceeded
	}
	if err == nil || !isAway(err) {
		return time.Time{}, err
	}
	s.gate.RLock()
	if errors.Is(err, ErrUnsure) {
		return began, err
	}
	return time.Time{}, err
}

// call asks Redis, and opens the breaker if it does not answer.
func (s *Shared) call(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	err := do(ctx)
	if err != nil && isAway(err) {
		s.trip(err)
		if errors.Is(err, ErrUnsure) {
			s.breaker.unsure.Add(1)
		}
	}
	return err
}

// callFor is call for a caller who has less time than a call.
func (s *Shared) callFor(ctx context.Context, left time.Duration, do func(context.Context) error) error {
	answered := make(chan error, 1)
	go func() { answered <- s.call(ctx, do) }()
	over := time.NewTimer(left)
	defer over.Stop()
	select {
	case err := <-answered:
		return err
	case <-over.C:
		s.breaker.wake() // Run asks what became of it, not at once
		return errHurry
	}
}

// hurries: the caller's time may end before that of a call.
func (s *Shared) hurries(ctx context.Context) bool {
	until, ok := ctx.Deadline()
	return ok && time.Until(until) < s.timeout
}

// apart is what a call is made with. One that may outlive its caller shares no
// memory with him.
func (s *Shared) apart(hurry bool, step *limit.Step, out *limit.Outcome) (*limit.Step, *limit.Outcome) {
	if !hurry {
		return step, out
	}
	c := *step
	c.Known.Items, c.Charges = slices.Clone(c.Known.Items), slices.Clone(c.Charges)
	for i := range c.Charges {
		charge := &c.Charges[i]
		charge.Windows, charge.Items = slices.Clone(charge.Windows), slices.Clone(charge.Items)
	}
	return &c, &limit.Outcome{}
}

// named is the step with an id, by which Redis can be asked about it.
func (s *Shared) named(step *limit.Step) *limit.Step {
	if step.ID != "" {
		return step
	}
	named := *step
	named.ID = s.newID()
	return &named
}

func (s *Shared) newID() string {
	return s.run + "-" + strconv.FormatUint(s.number.Add(1), 36)
}
