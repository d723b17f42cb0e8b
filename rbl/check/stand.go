package check

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"relayguard/rbl"
)

// quietAfter is how many questions in a row a zone leaves without an answer before it
// is not asked further in that round: a dead server costs two time-outs, not one for
// each subject.
const quietAfter = 2

// stand is how one zone stands for one kind of subject in one pass.
type stand struct {
	p        *pass
	zone     *rbl.Zone
	kind     rbl.Kind
	key      string
	gate     *gate
	subjects []rbl.Subject

	answers []rbl.Answer // by subject; one goroutine each
	by      []int        // the resolver it came from; none or ours

	// asking is taken by who finds out how the zone stands, the others wait. No Mutex:
	// it is held while an answer is waited for.
	asking chan struct{}

	mu    sync.Mutex
	tries []try  // by resolver
	noKey string // why it cannot be asked at all
	ended time.Time
}

// In place of a resolver, of an answer: nobody was asked, and health says why; or the
// answer says itself why it tells nothing; or it is to be asked for once more.
const none, ours, anew = -1, -2, -3

// try is how the zone stands with one resolver.
type try struct {
	examined bool
	state    rbl.State
	why      string
	fails    int       // in a row
	quiet    string    // why it is not asked further, although what it said holds
	refused  bool      // it is quiet because it refuses
	passes   bool      // its test entry came through since
	saw      time.Time // when its test entry was last there; zero: only by memory
}

func (p *pass) stand(z *rbl.Zone, kind rbl.Kind, subjects []rbl.Subject) *stand {
	s := &stand{
		p: p, zone: z, kind: kind, subjects: subjects,
		gate:    p.c.gate(z),
		answers: make([]rbl.Answer, len(subjects)),
		by:      make([]int, len(subjects)),
		tries:   make([]try, len(p.resolvers)),
		asking:  make(chan struct{}, 1),
	}
	if z.Key == "" {
		return s
	}
	s.key = p.c.keys[z.Key]
	switch {
	case s.key == "":
		s.noKey = fmt.Sprintf("it needs a key of %s, which is not configured", z.Key)
	case !keyForm().MatchString(s.key):
		s.noKey = fmt.Sprintf("the key of %s is none: want 1 to 63 letters, digits, - or _", z.Key)
	}
	return s
}

func keyForm() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`) }

func (s *stand) ask(ctx context.Context, i int, name string, t rbl.Type) rbl.Response {
	return s.p.ask(ctx, s.gate, s.zone.Terms.PerDay, s.p.resolvers[i], name, t)
}

// healthy is the first resolver from start on through which the zone can be believed;
// none if there is none. What is not known yet is found out.
func (s *stand) healthy(ctx context.Context, start int) int {
	if s.noKey != "" {
		return none
	}
	for i := start; i < len(s.tries); i++ {
		if !s.try(i).examined {
			s.find(ctx, i)
		}
		if s.credible(i) && s.try(i).quiet == "" {
			return i
		}
	}
	return none
}

// find finds out how the zone stands with resolver i, once.
func (s *stand) find(ctx context.Context, i int) {
	// Not by ctx: examine returns by it, and then all is known that will be.
	s.asking <- struct{}{}
	defer func() { <-s.asking }()
	if s.try(i).examined || s.over() {
		return
	}
	state, why := s.examine(ctx, i)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries[i].examined, s.tries[i].state, s.tries[i].why = true, state, why
}

// try is how it stands with resolver i now.
func (s *stand) try(i int) try {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries[i]
}

// over reports whether the zone is at fault, whoever is asked.
func (s *stand) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.tries, func(t try) bool {
		return t.examined && (t.state == rbl.Wild || t.state == rbl.Parked)
	})
}

// credible reports whether what came through resolver i is to be believed.
func (s *stand) credible(i int) bool {
	t := s.try(i)
	return t.examined && t.state == rbl.Healthy && !s.over()
}

// fail counts a question without an answer.
func (s *stand) fail(i int, result rbl.Result, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries[i].fails++; s.tries[i].fails >= quietAfter {
		s.tries[i].leave(result == rbl.Refused, why)
	}
}

// leave has resolver i not asked further.
func (s *stand) leave(i int, refused bool, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries[i].leave(refused, why)
}

func (t *try) leave(refused bool, why string) {
	if t.quiet == "" {
		t.quiet, t.refused = "then "+why, refused
	}
}

// saw notes that the test entry is there. Of a zone without one: that it is healthy.
func (s *stand) saw(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries[i].saw = s.p.c.now()
}

func (s *stand) spoke(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries[i].fails = 0
}

// discredit says that what came through resolver i is not to be believed, before
// either.
func (s *stand) discredit(i int, state rbl.State, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries[i].state != rbl.Healthy {
		return
	}
	s.tries[i].state, s.tries[i].why = state, why
	s.p.c.forget(s.entry(i))
}

// refuses reports whether it was well and then refused questions.
func (s *stand) refuses() bool {
	return slices.ContainsFunc(s.tries, func(t try) bool { return t.refused })
}

// telling are the states by how much they tell of the zone: with several resolvers
// the first that one found counts.
func telling() []rbl.State {
	return []rbl.State{rbl.Wild, rbl.Parked, rbl.Healthy, rbl.Dead, rbl.Emptied, rbl.Refusing, rbl.Filtered, rbl.Rewritten, rbl.Silent, rbl.NotAsked}
}

// health is how the zone stood in this pass.
func (s *stand) health() rbl.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := rbl.Health{Zone: s.zone.Name, Kind: s.kind, At: s.ended}
	switch {
	case s.noKey != "":
		h.State, h.Why = rbl.NotAsked, s.noKey
		return h
	case len(s.tries) == 0:
		h.State, h.Why = rbl.Silent, "there is no resolver to ask"
		return h
	}
	best := len(telling())
	for i, t := range s.tries {
		if !t.examined {
			continue
		}
		best = min(best, slices.Index(telling(), t.state))
		for _, why := range []string{t.why, t.quiet} {
			if why == "" {
				continue
			}
			if h.Why != "" {
				h.Why += "; "
			}
			if len(s.tries) > 1 {
				h.Why += "through " + s.p.resolvers[i].Name() + ": "
			}
			h.Why += why
		}
	}
	if best < len(telling()) {
		h.State = telling()[best]
	}
	return h
}
