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

// errAround: one look around asks no more of a zone. Nothing was sent.
var errAround = errors.New("a look around asks a list no more at once")

// unsent reports whether a question was not sent because there were enough.
func unsent(err error) bool { return errors.Is(err, errBudget) || errors.Is(err, errAround) }

// gate is what all passes share about a zone: how many questions are under way, and
// how many were sent today; and with the other zones of its operator, at what pace.
type gate struct {
	zone     string
	slots    chan struct{}
	around   *pace // of looks around alone
	operator *operator

	mu    sync.Mutex
	day   string // UTC
	spent int64
}

func dayOf(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (c *Checker) gate(z *rbl.Zone) *gate {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.gates[z.Name]
	if g == nil {
		g = &gate{
			zone: z.Name, slots: make(chan struct{}, c.perZone), around: newPace(), operator: c.operator(z),
			day: c.day, spent: c.used[z.Name],
		}
		c.gates[z.Name] = g
	}
	// A table that is read anew may say something else.
	delete(g.operator.rates, z.Name)
	if rate := z.Terms.PerSecond; rate > 0 {
		g.operator.rates[z.Name] = rate
	}
	return g
}

func (c *Checker) operator(z *rbl.Zone) *operator {
	who := whose{operator: z.Operator}
	if z.Operator == "" {
		who.zone = z.Name
	}
	o := c.operators[who]
	if o == nil {
		o = &operator{pace: newPace(), rates: map[string]float64{}}
		c.operators[who] = o
	}
	return o
}

// spend takes one of perDay questions (0: nothing is said).
func (g *gate) spend(now time.Time, perDay int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.has(now, perDay) {
		return false
	}
	g.spent++
	return true
}

// empty reports whether nothing is left of perDay questions.
func (g *gate) empty(now time.Time, perDay int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.has(now, perDay)
}

func (g *gate) has(now time.Time, perDay int) bool {
	if day := dayOf(now); day != g.day {
		g.day, g.spent = day, 0
	}
	return perDay < 1 || g.spent < int64(perDay)
}

// ask sends one question, as soon as there is room; g is nil for names that belong to
// no zone. What was not sent is TimedOut, with errBudget, errAround or ctx's error.
func (p *pass) ask(ctx context.Context, g *gate, perDay int, r rbl.Resolver, name string, t rbl.Type) rbl.Response {
	if g != nil {
		leave, err := p.askZone(ctx, g, perDay)
		if err != nil {
			return rbl.Response{Err: err}
		}
		defer leave()
	} else if err := take(ctx, p.c.slots); err != nil {
		return rbl.Response{Err: err}
	}
	defer func() { <-p.c.slots }()
	p.c.note(g)
	response := r.Ask(ctx, name, t)
	p.count(response.Outcome)
	return response
}

// askZone waits until a zone may be asked one question, which counts from then on, and
// takes one of the Checker's slots. leave is to be called after the answer.
func (p *pass) askZone(ctx context.Context, g *gate, perDay int) (leave func(), err error) {
	if g.empty(p.c.now(), perDay) { // nobody waits for what will not be sent
		return nil, fmt.Errorf("%w: %d a day", errBudget, perDay)
	}
	if err := p.stroll(ctx, g); err != nil {
		return nil, err
	}
	// The Checker's slot last: who waits for a slow zone, or for his turn with an
	// operator, must not take room from others.
	if err := take(ctx, g.slots); err != nil {
		return nil, err
	}
	leave = func() { <-g.slots }
	so, long := within(p.c.rate(g))
	if err := g.operator.enter(ctx, so, long); err != nil {
		leave()
		return nil, err
	}
	if err := take(ctx, p.c.slots); err != nil {
		g.operator.leave(false)
		leave()
		return nil, err
	}
	spent := g.spend(p.c.now(), perDay)
	g.operator.leave(spent)
	if !spent {
		<-p.c.slots
		leave()
		return nil, fmt.Errorf("%w: %d a day", errBudget, perDay)
	}
	return leave, nil
}

// stroll keeps a look around slow, and within what one may ask a zone.
func (p *pass) stroll(ctx context.Context, g *gate) error {
	if p.around == nil {
		return nil
	}
	if !p.aroundMore(g.zone) {
		return fmt.Errorf("%w than %d questions", errAround, mostAround)
	}
	if err := g.around.enter(ctx, 1, aroundEvery); err != nil {
		return err
	}
	g.around.leave(true)
	return nil
}

func (p *pass) aroundMore(zone string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.around[zone]++
	return p.around[zone] <= mostAround
}

func (c *Checker) rate(g *gate) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return g.operator.rate()
}

// note counts a question that is about to be sent.
func (c *Checker) note(g *gate) {
	zone := ""
	if g != nil {
		zone = g.zone
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[zone]++
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
