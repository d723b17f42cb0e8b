package main

import (
	"context"
	"os"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"sync/atomic"
	"time"
)

// Beside what lives in the heap there may be as much garbage, or this much if that
// is more, but no more than four times what lives. A daemon at rest has some ten
// megabytes that live, and collecting them more often costs a tenth of all CPU time;
// one whose memories a storm has filled must not take five times as much.
const (
	spareGarbage = 40 << 20
	mostGarbage  = 400 // per cent of what lives
	atStart      = 100
	paceEvery    = time.Second

	// While all of the queue is looked at or acted on, which may be very many messages.
	bulkGarbage = 5 << 20
	leastBulk   = 20        // per cent
	bulkHeap    = 100 << 20 // beyond, to mark what lives costs the mail that comes meanwhile too much
)

// gcPace keeps garbage within bounds. The zero value is ready.
type gcPace struct{ bulk atomic.Int32 } // looks and acts that go on

// bulky says that all of the queue is looked at or acted on, until over is called. What
// is kept of it has no pointers, so that to collect more often costs little.
func (p *gcPace) bulky() (over func()) {
	p.bulk.Add(1)
	return func() { p.bulk.Add(-1) }
}

// littleGarbage is for a command that keeps something of each of 200,000 messages: as
// that has no pointers, to collect twice as often costs little.
func littleGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// limitHeap keeps garbage low until run says how much there may be: to start, all that
// is held is looked at. It has the heap stay not much beyond what milter.max_memory, the connections'
// buffers and as many budgets as store.max_buckets allows need, all of them full.
func limitHeap(maxMemory, budgets int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(atStart)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(256<<20 + 2*maxMemory + 2*budgets)
	}
}

// run does it as what lives grows and shrinks, until ctx ends.
func (p *gcPace) run(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	live := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := atStart; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		runtimemetrics.Read(live)
		if next := garbagePercent(live[0].Value.Uint64(), p.bulk.Load() > 0); max(next-now, now-next) > now/10 { // each change stops the world for a moment
			debug.SetGCPercent(next)
			now = next
		}
	}
}

// garbagePercent is how much garbage there may be beside so many octets, in per cent
// of them.
func garbagePercent(live uint64, bulk bool) int {
	spare, least := uint64(spareGarbage), uint64(100)
	if bulk && live < bulkHeap {
		spare, least = bulkGarbage, leastBulk
	}
	return int(min(max(least, 100*spare/max(live, 1)), mostGarbage))
}
