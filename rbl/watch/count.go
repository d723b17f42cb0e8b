package watch

import (
	"context"
	"sync"
	"sync/atomic"

	"relayguard/rbl"
)

// outcomes are all of rbl.Outcome: each stands in Status, also if there was none.
var outcomes = [...]rbl.Outcome{rbl.Answered, rbl.NoData, rbl.NoName, rbl.TimedOut, rbl.ServFail, rbl.QueryRefused, rbl.Broken}

// counter counts questions by how they ended.
type counter struct {
	mu sync.Mutex
	n  map[string]int64
}

func (c *counter) add(outcome string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int64{}
	}
	c.n[outcome] += n
}

func (c *counter) all() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[string]int64{}
	for _, o := range outcomes {
		all[o.String()] = c.n[o.String()]
	}
	return all
}

// counted is a resolver whose questions are counted twice: for Status, and for who
// uses it.
type counted struct {
	rbl.Resolver
	by   *counter
	sent atomic.Int64
}

func (c *counted) Ask(ctx context.Context, name string, t rbl.Type) rbl.Response {
	r := c.Resolver.Ask(ctx, name, t)
	c.by.add(r.Outcome.String(), 1)
	c.sent.Add(1)
	return r
}
