package check

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"relayguard/rbl"
)

// errBudget: the zone's terms allow no more questions today. Nothing was sent.
var errBudget = errors.New("the questions of today are used up that its terms allow")

// gate is what all passes share about a zone: how many questions are under way, and
// how many were sent today.
type gate struct {
	slots chan struct{}

	mu    sync.Mutex
	day   string // UTC
	spent int
}

func (c *Checker) gate(zone string) *gate {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.gates[zone]
	if g == nil {
		g = &gate{slots: make(chan struct{}, c.perZone)}
		c.gates[zone] = g
	}
	return g
}

// spend takes one of perDay questions (0: nothing is said).
func (g *gate) spend(now time.Time, perDay int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if day := now.UTC().Format(time.DateOnly); day != g.day {
		g.day, g.spent = day, 0
	}
	if perDay > 0 && g.spent >= perDay {
		return false
	}
	g.spent++
	return true
}

// ask sends one question, as soon as there is room; g is nil for names that belong to
// no zone. What was not sent is TimedOut, with errBudget or ctx's error.
func (p *pass) ask(ctx context.Context, g *gate, perDay int, r rbl.Resolver, name string, t rbl.Type) rbl.Response {
	// The zone's slot first: who waits for a slow zone must not take room from others.
	if g != nil {
		if err := take(ctx, g.slots); err != nil {
			return rbl.Response{Err: err}
		}
		defer func() { <-g.slots }()
	}
	if err := take(ctx, p.c.slots); err != nil {
		return rbl.Response{Err: err}
	}
	defer func() { <-p.c.slots }()
	if g != nil && !g.spend(p.c.now(), perDay) {
		return rbl.Response{Err: fmt.Errorf("%w: %d a day", errBudget, perDay)}
	}
	response := r.Ask(ctx, name, t)
	p.count(response.Outcome)
	return response
}

func take(ctx context.Context, slots chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// testEntry is what a Checker remembers to have seen.
type testEntry struct {
	zone     string
	kind     rbl.Kind
	resolver string
}

func (c *Checker) remember(e testEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.passed[e] = c.now()
}

func (c *Checker) forget(e testEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.passed, e)
}

func (c *Checker) remembers(e testEntry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.passed[e]
	age := c.now().Sub(at)
	return ok && age >= 0 && age < c.healthFor
}
