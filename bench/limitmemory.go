package main

import (
	"context"
	"runtime"
	"time"

	"relayguard/policy/limit"
)

// limitsInMemory: a million buckets in memory beside a million keys of a map.
func (b *bench) limitsInMemory(ctx context.Context) error {
	b.progress("limits, a million buckets in memory")
	before := liveHeap()
	m, err := fill(ctx, manyBuckets, time.Now())
	if err != nil {
		return err
	}
	b.single("limits/million/heap", "MB", &goal{200, false, false}, float64(liveHeap()-before)/1e6)
	raw := newShardedMap(manyBuckets)
	drawn := func(size int) *traffic {
		t := newTraffic(manyCharges/size, size, manyBuckets, rawKey)
		for i := range t.steps { // cells of today, and room for them
			_ = m.Add(ctx, time.Now(), &t.steps[i]) // it fails only when it is full
		}
		return t
	}
	allocated, err := allocations(m, drawn(3))
	if err != nil {
		return err
	}
	b.single("limits/memory/allocs", "/step", &goal{0, false, false}, allocated)
	return b.contest(ctx, contest{
		store: theMemory, reference: theMap, every: 16, window: b.window / 15, traffic: drawn,
		ours:   func(t *traffic) func() worker { return spending(m, t) },
		theirs: raw.counting, goal: &goal{0.4, true, true},
	})
}

// fill makes a store of so many buckets.
func fill(ctx context.Context, n int, now time.Time) (*limit.Memory, error) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 2 * n})
	for i := range n {
		if err := m.Put(ctx, limit.Entry{State: stateOf(i, now)}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// liveHeap is the memory in use, in octets.
func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // what was in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// allocations is the number a step, rounded as testing.AllocsPerRun does.
func allocations(m *limit.Memory, t *traffic) (float64, error) {
	work := spending(m, t)()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const steps = 100_000
	for i := range steps {
		if err := work(i); err != nil {
			return 0, err
		}
	}
	runtime.ReadMemStats(&after)
	return float64((after.Mallocs - before.Mallocs) / steps), nil
}
