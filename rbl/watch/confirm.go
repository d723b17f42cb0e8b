package watch

import (
	"context"
	"slices"
	"sync"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// secondsAtOnce is how many second looks are under way at once.
const secondsAtOnce = 8

// secondLooks asks again about listings that wait for it: each subject on each zone
// once, whatever codes it has there.
func (w *Watch) secondLooks(ctx context.Context) {
	now := time.Now()
	due, err := w.o.Store.Due(ctx, now)
	if err != nil {
		if ctx.Err() == nil {
			w.o.Log.Error("history of blocklists cannot be read", "error", err)
		}
		w.lastSecond = now
		return
	}
	if len(due) == 0 {
		return
	}
	w.lastSecond = now
	plan := w.plan(ctx)
	if ctx.Err() != nil {
		return
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, secondsAtOnce)
	type pair struct {
		zone    string
		subject rbl.Subject
	}
	asked := map[pair]bool{}
	var later []int64
	for i := range due {
		l := &due[i]
		z := slices.IndexFunc(plan.Zones, func(z rbl.Zone) bool { return z.Name == l.Zone })
		if plan.Checker == nil || z < 0 || !slices.Contains(plan.Subjects, l.Subject) {
			later = append(later, l.ID)
			continue
		}
		p := pair{l.Zone, l.Subject}
		if asked[p] {
			continue
		}
		asked[p] = true
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			w.second(ctx, plan.Checker, l, &plan.Zones[z])
		})
	}
	asking.Wait()
	w.book(ctx, plan.Checker)
	w.putOff(ctx, now, later)
	signal(w.news)
}

// putOff leaves what the plan does not have to the next round: another plan, which is
// dear, would hardly have it before.
func (w *Watch) putOff(ctx context.Context, now time.Time, ids []int64) {
	if len(ids) == 0 {
		return
	}
	w.mu.Lock()
	next := w.status.Next
	w.mu.Unlock()
	if err := w.o.Store.PutOff(ctx, now, next, ids...); err != nil && ctx.Err() == nil {
		w.o.Log.Error("second looks at blocklists were not put off", "error", err)
	}
}

func (w *Watch) second(ctx context.Context, c Checker, l *history.Listing, z *rbl.Zone) {
	answer, health := c.Again(ctx, l.Subject, z, l.Resolver)
	if ctx.Err() != nil {
		return
	}
	if err := w.o.Store.TakeAgain(ctx, l.ID, answer, health); err != nil {
		w.o.Log.Error("a second look at a blocklist was not stored", "zone", l.Zone, "error", err)
	}
}
