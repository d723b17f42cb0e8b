package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
// Spend and for Add, for a minute.
type RemoteStore interface {
	limit.Store
	limit.Keeper
	// Time is its clock.
	Time(ctx context.Context) (time.Time, error)
	// Outcome says whether the step with this id is remembered, and whether it
	// was taken.
	Outcome(ctx context.Context, id string) (found, taken bool, err error)
}

// SharedOptions are what NewShared needs.
type SharedOptions struct {
	Store RemoteStore // its owner closes it, after Shared

	// Share is how much of each count this relay allows by itself while Redis is
	// away, above 0 and up to 1; 0 is a half. 1/n with n relays keeps the sum of
	// all within one limit.
	Share float64

	Local   limit.MemoryOptions // of the buckets for that time
	Timeout time.Duration       // how long mail waits for Redis; 0 is 50 ms
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
// with empty buckets, like one more relay; so does Redis if it comes back without
// its data (a fail-over loses what the replica had not yet seen); and buckets
// that were evicted (Local.Buckets) are forgotten.
//
// # Traps
//
// An abuse limit shuts at Share of its count while Redis is away, and stays shut.
// A message that is too large for the share but not for the whole count is told
// that it is over, but not Never: it waits for Redis.
type Shared struct {
	remote  RemoteStore
	local   *limit.Memory
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
		remote: o.Store, local: limit.NewMemoryOf(o.Local), share: o.Share, timeout: o.Timeout, log: o.Log,
		run: strconv.FormatUint(rand.Uint64(), 36),
	}
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
	named := s.named(step)
	sent, err := s.ask(ctx, func(ctx context.Context) error { return s.remote.Spend(ctx, s.theirs(now), named, out) })
	switch {
	case err == nil:
		s.mirror(now, step, out)
		s.ourTimes(out)
		return nil
	case !isAway(err):
		return err
	}
	defer s.gate.RUnlock() // ask holds it
	return s.spendHere(now, named, out, sent)
}

// Peek is Store's.
func (s *Shared) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	_, err := s.ask(ctx, func(ctx context.Context) error { return s.remote.Peek(ctx, s.theirs(now), step, out) })
	switch {
	case err == nil:
		s.ourTimes(out)
		return nil
	case !isAway(err):
		return err
	}
	defer s.gate.RUnlock()
	return s.peekHere(now, step, out)
}

// Add is Store's.
func (s *Shared) Add(ctx context.Context, now time.Time, step *limit.Step) error {
	named := s.named(step)
	sent, err := s.ask(ctx, func(ctx context.Context) error { return s.remote.Add(ctx, s.theirs(now), named) })
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
	_, err := s.ask(ctx, func(ctx context.Context) error { return s.remote.Resume(ctx, s.theirs(now), key) })
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
	_, err := s.ask(ctx, func(ctx context.Context) error { return s.remote.Reset(ctx, s.theirs(now), key) })
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

// Each is Keeper's, of what Redis keeps: an error while it is away.
func (s *Shared) Each(ctx context.Context, fn func(limit.Entry) error) error {
	if s.breaker.isOpen() {
		return errOpen
	}
	return s.remote.Each(ctx, fn)
}

// Put is Keeper's, like Each.
func (s *Shared) Put(ctx context.Context, e limit.Entry) error {
	if s.breaker.isOpen() {
		return errOpen
	}
	return s.remote.Put(ctx, e)
}

// errOpen is what a caller gets who can only be served by Redis.
var errOpen = fmt.Errorf("%w: the breaker is open until it answers again", ErrAway)

// isAway: the error says that Redis cannot be asked, not that a charge is wrong.
func isAway(err error) bool { return errors.Is(err, ErrAway) || errors.Is(err, ErrUnsure) }

// ask does one thing at Redis within the timeout. If that fails, and at once if
// the breaker is open, the error isAway and gate is held for reading; sent is
// when the call was made if it may have been done nevertheless.
//
// A caller who gives up does not break the call off: that would look like a
// Redis that is away.
func (s *Shared) ask(ctx context.Context, do func(context.Context) error) (sent time.Time, err error) {
	began := time.Now()
	if s.breaker.isOpen() {
		s.gate.RLock() // waits while the breaker is about to close
		if s.breaker.isOpen() {
			return time.Time{}, errOpen
		}
		s.gate.RUnlock()
	}
	deadline := began.Add(s.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		if deadline = d; !began.Before(d) {
			return time.Time{}, context.DeadlineExceeded
		}
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	if err = do(ctx); err == nil || !isAway(err) {
		return time.Time{}, err
	}
	s.trip(err)
	s.gate.RLock()
	if errors.Is(err, ErrUnsure) {
		s.breaker.unsure.Add(1)
		return began, err
	}
	return time.Time{}, err
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
