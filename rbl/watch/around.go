package watch

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"relayguard/rbl"
)

// lookAround has neighbours looked at, if that is due and nobody is at it: rounds and
// second looks go on meanwhile.
func (w *Watch) lookAround(ctx context.Context, p *Plan, beside *sync.WaitGroup) {
	var zones []rbl.Zone
	for i := range p.Zones {
		if p.Zones[i].Ranges {
			zones = append(zones, p.Zones[i])
		}
	}
	if len(zones) == 0 || len(p.Neighbours) == 0 || !w.setOut(time.Now()) {
		return
	}
	beside.Go(func() {
		began := time.Now()
		if w.neighbours(ctx, p.Checker, p.Neighbours, zones) {
			w.back(began)
		} else {
			w.back(time.Time{})
		}
	})
}

// setOut reports whether neighbours are to be looked at, which nobody else does then
// until back.
func (w *Watch) setOut(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &w.near
	if n.looks || !n.last.IsZero() && !now.Before(n.last) && now.Sub(n.last) < n.week {
		return false
	}
	n.looks = true
	return true
}

// back ends a look around; at is zero if nothing came of it.
func (w *Watch) back(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.near.looks = false
	if !at.IsZero() {
		w.near.last, w.near.week = at, jittered(w.o.Week)
	}
}

// neighbours reports whether they were looked at.
func (w *Watch) neighbours(ctx context.Context, c Checker, prefixes []netip.Prefix, zones []rbl.Zone) bool {
	now := time.Now()
	within, cancel := context.WithTimeout(ctx, longestRound)
	defer cancel()
	all := c.Neighbours(within, prefixes, zones, w.o.Neighbours)
	w.book(ctx, c)
	if ctx.Err() != nil {
		return false
	}
	if err := w.o.Store.TakeNeighbours(ctx, now, all); err != nil {
		w.o.Log.Error("a look at neighbours was not stored", "error", err)
	}
	return true
}
