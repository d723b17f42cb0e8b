package main

import (
	"context"
	"slices"
	"time"

	"relayguard/policy/limit"
)

// sweep measures how long mail is held up while half a million of expired
// buckets, among as many others, are removed.
func (b *bench) sweep(ctx context.Context) error {
	const half, noSweep = manyBuckets / 2, "no-sweep"
	b.progress("limits, sweep")
	now := time.Now()
	m, err := fill(ctx, half, now)
	if err != nil {
		return err
	}
	work := spending(m, newTraffic(manyCharges/3, 3, half, rawKey))()
	p999, longest := samples{}, samples{}
	measure := func(name string, ended <-chan struct{}) error {
		took, err := timed(work, ended)
		p999.add(name, microseconds(percentile(took, 0.999)))
		longest.add(name, microseconds(percentile(took, 1)))
		return err
	}
	for range oftenEnough {
		for i := range half {
			if err := m.Put(ctx, limit.Entry{State: stateOf(half+i, now.Add(-30*time.Hour))}); err != nil {
				return err
			}
		}
		if err := measure(noSweep, after(300*time.Millisecond)); err != nil {
			return err
		}
		swept := make(chan struct{})
		go func() {
			defer close(swept)
			m.Sweep(now)
		}()
		if err := measure(theGuard, swept); err != nil {
			return err
		}
	}
	order := []string{theGuard, noSweep}
	b.add("limits/sweep/p99.9", "us", noSweep, &goal{1000, false, false}, p999, order)
	b.add("limits/sweep/longest", "us", noSweep, nil, longest, order)
	return nil
}

// timed works until it is over, and returns how long each step took, in order.
func timed(work worker, over <-chan struct{}) (took []time.Duration, err error) {
	for i := 0; ; i++ {
		select {
		case <-over:
			slices.Sort(took)
			return took, nil
		default:
		}
		at := time.Now()
		if err := work(i); err != nil {
			return nil, err
		}
		took = append(took, time.Since(at))
	}
}

func after(d time.Duration) <-chan struct{} {
	over := make(chan struct{})
	time.AfterFunc(d, func() { close(over) })
	return over
}
