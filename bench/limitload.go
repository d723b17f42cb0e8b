package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

// Who is charged: a million buckets, six of each sender, one under each limit.
const (
	manyBuckets = limit.DefaultBuckets
	perSender   = 6
	manyCharges = 500_000 // drawn beforehand: far more than caches hold
)

// senderLimits are the names of the limits and the keys under them.
var senderLimits = [perSender]struct{ name, value string }{
	{"login-volume", "login:user%06d@example.jp"},
	{"site-volume", "site:shop%06d.example.jp"},
	{"domain-volume", "domain:d%06d.example.jp"},
	{"network-volume", "network:office-%06d"},
	{"customer-volume", "customer:customer-%06d"},
	{"plugin-volume", "plugin:contact-form shop%06d.example.jp"},
}

// limitWindows are those of every limit. They never fill up: what is measured is
// mail that passes.
var limitWindows = []limit.Window{
	{Count: limit.MaxCount, Length: 10 * time.Minute, Burst: true},
	{Count: limit.MaxCount, Length: time.Hour},
	{Count: limit.MaxCount, Length: 24 * time.Hour},
}

func keyOf(i int) limit.Key {
	l := &senderLimits[i%perSender]
	return limit.Key{Limit: l.name, Value: fmt.Sprintf(l.value, i/perSender)}
}

// stateOf is a bucket with two cells in each window.
func stateOf(i int, now time.Time) *limit.State {
	before := func(d time.Duration) limit.Cell {
		return limit.Cell{Last: now.Add(-d).UnixMicro(), Count: int64(1 + i%7)}
	}
	recent := before(2 * time.Minute)
	return &limit.State{Key: keyOf(i), Windows: []limit.WindowState{
		{Length: limitWindows[0].Length, Cells: []limit.Cell{before(5 * time.Minute), recent}},
		{Length: limitWindows[1].Length, Cells: []limit.Cell{before(20 * time.Minute), recent}},
		{Length: limitWindows[2].Length, Cells: []limit.Cell{before(5 * time.Hour), recent}},
	}}
}

// rawKey is a bucket's key as one string.
func rawKey(k limit.Key) string { return k.Limit + "/" + k.Value }

func chargeOf(i int) limit.Charge {
	return limit.Charge{Key: keyOf(i), Kind: limit.Volume, Counts: limit.Recipients, Windows: limitWindows, Amount: 1}
}

// traffic is what callers do: steps of one size, made beforehand, all limits of
// one step of one sender. raw has the same keys as one string each.
type traffic struct {
	steps []limit.Step
	raw   [][]string
}

// newTraffic draws n steps of so many of the buckets, always the same.
func newTraffic(n, size, buckets int, raw func(limit.Key) string) *traffic {
	random := rand.New(rand.NewPCG(uint64(size), uint64(n)))
	t := &traffic{make([]limit.Step, n), make([][]string, n)}
	for i := range t.steps {
		first := random.IntN(buckets/size) * size
		for j := range size {
			c := chargeOf(first + j)
			t.steps[i].Charges = append(t.steps[i].Charges, c)
			t.raw[i] = append(t.raw[i], raw(c.Key))
		}
	}
	return t
}

// worker does step number i in one of the systems. Each caller has its own.
type worker func(i int) error

// spending are workers that spend the traffic's steps in a store, a microsecond
// of its time apart.
func spending(store limit.Store, t *traffic) func() worker {
	return func() worker {
		began, out := time.Now(), &limit.Outcome{}
		return func(i int) error {
			now := began.Add(time.Duration(i) * time.Microsecond)
			return store.Spend(context.Background(), now, &t.steps[i%len(t.steps)], out)
		}
	}
}

// pace is how quickly callers went.
type pace struct {
	perSecond float64
	p99       time.Duration // of one step
}

// drive has callers work as fast as they can. It takes the time of one step in
// every few: the clock is not free.
func drive(callers int, window time.Duration, every int, begin func() worker) (pace, error) {
	var next atomic.Int64
	var stop atomic.Bool
	var all sync.WaitGroup
	took, errs := make([][]time.Duration, callers), make([]error, callers)
	began := time.Now()
	for c := range callers {
		all.Go(func() {
			work := begin()
			for !stop.Load() && errs[c] == nil {
				i := int(next.Add(int64(every))) - every
				at := time.Now()
				errs[c] = work(i)
				took[c] = append(took[c], time.Since(at))
				for j := 1; j < every && errs[c] == nil; j++ {
					errs[c] = work(i + j)
				}
			}
		})
	}
	time.Sleep(window)
	stop.Store(true)
	all.Wait()
	seconds := time.Since(began).Seconds()
	times := slices.Concat(took...)
	slices.Sort(times)
	return pace{float64(len(times)*every) / seconds, percentile(times, 0.99)}, errors.Join(errs...)
}
