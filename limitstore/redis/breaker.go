package redis

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

const (
	// Redis is asked whether it is back after probeLeast, then less and less
	// often.
	probeLeast = 250 * time.Millisecond
	probeMost  = 5 * time.Second

	// steady is how long Redis must have served for the next absence to be a new
	// one, and how often its clock is measured meanwhile.
	steady = 10 * time.Second
)

// Health is how it stands with the Redis that the relays share.
type Health struct {
	Away  bool      // mail is decided by this relay's own buckets
	Since time.Time // when that began, or when it ended; zero: not asked yet
	Why   string    // the last error while Away

	Fallbacks  int64         // steps that were decided here, since the start
	Unsure     int64         // calls that got no answer: Redis may have done them
	Reconciled int64         // charges that Redis was told of afterwards
	Lost       int64         // charges that it will not be told of: no room to note them, or too late to ask
	Offset     time.Duration // Redis's clock minus ours
	Pending    int           // calls and buckets that Redis has not been told of yet
	Evicted    uint64        // buckets of this relay's own that were forgotten for want of room
}

// breaker says whether Redis is asked at all. It is open until a probe closes it.
type breaker struct {
	open   atomic.Bool
	opened chan struct{} // capacity 1: there is something for Run to do

	fallbacks, unsure, reconciled, lost atomic.Int64

	mu    sync.Mutex // what follows
	since time.Time
	why   string
	told  bool   // a log line said that it is open
	was   Health // the counts when it opened
}

func (b *breaker) isOpen() bool { return b.open.Load() }

// wake has Run look whether there is something to do.
func (b *breaker) wake() {
	select {
	case b.opened <- struct{}{}:
	default:
	}
}

// trip opens the breaker; err says why. It logs once each time.
func (s *Shared) trip(err error) {
	b := &s.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why = err.Error()
	if b.isOpen() && b.told {
		return
	}
	b.open.Store(true)
	b.since, b.told, b.was = time.Now(), true, s.counts()
	s.log.Warn("redis is away, this relay decides by its own buckets", "share", s.share, "error", err)
	b.wake()
}

// shutBreaker has mail ask Redis again. The caller holds gate.
func (s *Shared) shutBreaker() {
	b := &s.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isOpen() {
		return
	}
	b.open.Store(false)
	began, was, is := b.since, b.was, s.counts()
	b.since, b.why = time.Now(), ""
	if !b.told {
		return
	}
	b.told = false
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "redis is back",
		slog.Duration("away", b.since.Sub(began)), slog.Int64("fallbacks", is.Fallbacks-was.Fallbacks),
		slog.Int64("unsure", is.Unsure-was.Unsure), slog.Int64("reconciled", is.Reconciled-was.Reconciled),
		slog.Int64("lost", is.Lost-was.Lost), slog.Duration("offset", is.Offset))
}

func (s *Shared) counts() Health {
	b := &s.breaker
	return Health{
		Fallbacks: b.fallbacks.Load(), Unsure: b.unsure.Load(), Reconciled: b.reconciled.Load(), Lost: b.lost.Load(),
		Offset: time.Duration(s.offset.Load()) * time.Microsecond,
	}
}

// Health is for status and metrics. It waits for nothing.
func (s *Shared) Health() Health {
	h := s.counts()
	h.Pending, h.Evicted = s.owed.len()+int(s.batch.left.Load()), s.local.Evicted()
	s.breaker.mu.Lock()
	defer s.breaker.mu.Unlock()
	h.Away, h.Since, h.Why = s.breaker.isOpen(), s.breaker.since, s.breaker.why
	return h
}

// probeKey is a bucket for nobody's mail: probes write into it.
func (s *Shared) probeKey() limit.Key { return limit.Key{Limit: "probe", Value: "relay:" + s.run} }

// Run looks after Redis until ctx ends: it asks whether Redis is back, tells it
// what passed meanwhile, and measures its clock. It sweeps this relay's own
// buckets, too.
func (s *Shared) Run(ctx context.Context) {
	delay, swept := probeLeast, time.Now()
	for ctx.Err() == nil {
		began := time.Now()
		if began.Sub(swept) >= time.Minute {
			s.local.Sweep(began)
			swept = began
		}
		if s.Probe(ctx) == nil {
			woken := sleep(ctx, steady, s.breaker.opened)
			if time.Since(began) >= steady {
				delay = probeLeast
			}
			if !woken {
				continue
			}
		}
		sleep(ctx, delay, nil)
		delay = min(2*delay, probeMost)
	}
}

// sleep returns true if it was woken before its time.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
		return true
	}
	return false
}

// Probe asks Redis now, rather than when its turn has come. Without an error
// Redis knows all that passed here, and mail asks it.
func (s *Shared) Probe(ctx context.Context) error {
	s.probing.Lock()
	defer s.probing.Unlock()
	err := s.probe(ctx)
	if err != nil && ctx.Err() == nil {
		s.trip(err)
	}
	return err
}

func (s *Shared) probe(ctx context.Context) error {
	if err := s.measure(ctx); err != nil {
		return err
	}
	if err := s.tryWriting(ctx); err != nil {
		return err
	}
	return s.reconcile(ctx)
}

// tryWriting does what mail needs. A replica, or a Redis that is full, answers
// TIME nevertheless.
func (s *Shared) tryWriting(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	now := s.theirs(time.Now())
	windows := []limit.Window{{Count: 1, Length: limit.MinLength}}
	step := limit.Step{ID: s.newID(), Charges: []limit.Charge{{Key: s.probeKey(), Kind: limit.Volume, Windows: windows, Amount: 1}}}
	if err := s.remote.Add(ctx, now, &step); err != nil {
		return err
	}
	return s.remote.Reset(ctx, now, s.probeKey())
}

// Close tells Redis what it is owed, if it answers within a second. Run has
// ended.
func (s *Shared) Close() error {
	if s.Health().Pending == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return s.Probe(ctx)
}
