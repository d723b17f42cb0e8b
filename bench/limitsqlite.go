package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"time"

	"relayguard/limitstore/sqlite"
	"relayguard/policy/limit"
)

// limitsInSQLite: what the file behind the buckets costs mail, how fast it is
// written and read.
func (b *bench) limitsInSQLite(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as serve does
	b.progress("limits, a million buckets in SQLite")
	path := filepath.Join(b.dir, "limits.db")
	defer removeSQLite(path)
	if err := fillSQLite(ctx, path); err != nil {
		return err
	}
	plain, err := newPlainBatch(ctx, path)
	if err != nil {
		return err
	}
	defer plain.close()
	var took []float64
	rates := samples{}
	for round := range oftenEnough {
		b.progress("limits, restart and writing, round %d of %d", round+1, oftenEnough)
		seconds, err := restartAndWrite(ctx, path, plain, rates)
		if err != nil {
			return err
		}
		took = append(took, seconds)
	}
	b.single("limits/million/restart", "s", &goal{3, false, false}, took...)
	b.add("limits/sqlite/buckets_per_s", "1/s", thePlainBatch, nil, rates, []string{theGuard, thePlainBatch})
	return b.besideMemory(ctx, path)
}

// oftenEnough: what takes seconds is not repeated as often as the rest.
const oftenEnough = 3

// restartAndWrite opens the store, and has it and the plain batch write as many
// buckets that changed.
func restartAndWrite(ctx context.Context, path string, plain *plainBatch, rates samples) (seconds float64, err error) {
	s, seconds, err := openSQLite(ctx, path, time.Hour) // it writes when it is told to
	if err != nil {
		return 0, err
	}
	defer s.Close()
	changed := rand.Perm(manyBuckets)[:20_000]
	for _, i := range changed {
		if err := s.Add(ctx, time.Now(), &limit.Step{Charges: []limit.Charge{chargeOf(i)}}); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if err := s.Flush(ctx); err != nil {
		return 0, err
	}
	rates.add(theGuard, float64(len(changed))/time.Since(began).Seconds())
	rate, err := plain.write(ctx, changed)
	rates.add(thePlainBatch, rate)
	return seconds, err
}

// openSQLite opens the file of a million buckets, and says how long it took.
func openSQLite(ctx context.Context, path string, every time.Duration) (*sqlite.Store, float64, error) {
	liveHeap() // begins with a clean heap, as a daemon does
	began := time.Now()
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Memory: limit.MemoryOptions{Buckets: 2 * manyBuckets}, Every: every})
	if err != nil {
		return nil, 0, err
	}
	seconds := time.Since(began).Seconds()
	if ok, text := s.Health(); !ok || s.Len() != manyBuckets {
		s.Close()
		return nil, 0, fmt.Errorf("open limits: %d of %d buckets, %s", s.Len(), manyBuckets, text)
	}
	return s, seconds, nil
}

// fillSQLite makes the file, its buckets written in no order.
func fillSQLite(ctx context.Context, path string) error {
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Memory: limit.MemoryOptions{Buckets: 2 * manyBuckets}})
	if err != nil {
		return err
	}
	now := time.Now()
	for _, i := range rand.Perm(manyBuckets) {
		if err := s.Put(ctx, limit.Entry{State: stateOf(i, now)}); err != nil {
			s.Close()
			return err
		}
	}
	return s.Close()
}

// besideMemory has callers charge as many senders as are active at one time,
// among all those there are. What is behind is written after each round, so that
// the next one does not pay for it.
func (b *bench) besideMemory(ctx context.Context, path string) error {
	s, _, err := openSQLite(ctx, path, sqlite.DefaultEvery)
	if err != nil {
		return err
	}
	defer s.Close()
	m, err := fill(ctx, manyBuckets, time.Now())
	if err != nil {
		return err
	}
	return b.contest(ctx, contest{
		store: "sqlite", reference: theMemory, every: 16, window: b.window / 20,
		traffic: func(size int) *traffic {
			t := newTraffic(logins, size, manyBuckets, rawKey)
			for i := range t.steps {
				_ = m.Add(ctx, time.Now(), &t.steps[i]) // it fails only when it is full
				_ = s.Add(ctx, time.Now(), &t.steps[i])
			}
			return t
		},
		ours:   func(t *traffic) func() worker { return spending(s, t) },
		theirs: func(t *traffic) func() worker { return spending(m, t) },
		settle: func() error { return s.Flush(ctx) },
		goal:   &goal{2, false, false},
	})
}
