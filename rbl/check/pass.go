package check

import (
	"context"
	"slices"
	"sync"
	"time"

	"relayguard/rbl"
)

// pass is one round, one second look or one look at neighbours.
type pass struct {
	c         *Checker
	began     time.Time
	fresh     bool // no test entry is believed from memory
	resolvers []rbl.Resolver
	elsewhere []*elsewhere // by resolver

	mu       sync.Mutex
	around   map[string]int // questions by zone, of a look around; nil: it is none
	queries  int64
	outcomes map[string]int64
}

func (c *Checker) pass(resolvers []rbl.Resolver, fresh bool) *pass {
	p := &pass{c: c, began: c.now(), fresh: fresh, resolvers: resolvers, outcomes: map[string]int64{}}
	for range resolvers {
		p.elsewhere = append(p.elsewhere, &elsewhere{asking: make(chan struct{}, 1)})
	}
	return p
}

// stands are the zones by name and kind, each with the subjects of that kind.
func (p *pass) stands(zones []rbl.Zone, subjects []rbl.Subject) []*stand {
	byKind := map[rbl.Kind][]rbl.Subject{}
	for _, s := range subjects {
		byKind[s.Kind()] = append(byKind[s.Kind()], s)
	}
	zones = slices.Clone(zones)
	slices.SortStableFunc(zones, byName)
	zones = slices.CompactFunc(zones, func(a, b rbl.Zone) bool { return a.Name == b.Name })
	var all []*stand
	for i := range zones {
		for _, kind := range []rbl.Kind{rbl.IP4, rbl.IP6, rbl.Domain} {
			if zones[i].Asks(kind) && len(byKind[kind]) > 0 {
				all = append(all, p.stand(&zones[i], kind, byKind[kind]))
			}
		}
	}
	return all
}

// run asks all, each zone by itself: none waits for another's answers.
func (p *pass) run(ctx context.Context, stands []*stand, reasons bool, told func()) {
	var wait sync.WaitGroup
	for _, s := range stands {
		wait.Go(func() { s.run(ctx, reasons, told) })
	}
	wait.Wait()
	compare(stands)
	for _, s := range stands {
		s.settle()
	}
}

// count counts a question that was sent.
func (p *pass) count(o rbl.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queries++
	p.outcomes[o.String()]++
}

func (p *pass) sent() (int64, map[string]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queries, p.outcomes
}
