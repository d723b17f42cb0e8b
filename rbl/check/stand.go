package check

import (
	"context"
	"errors"
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

// longest name that DNS can ask for, without its final dot (RFC 1035 §3.1).
const longestName = 253

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

// In place of a resolver, of an answer: nobody was asked, and health says why; or we
// did not ask, and the answer says why.
const none, ours = -1, -2

// try is how the zone stands with one resolver.
type try struct {
	examined bool
	state    rbl.State
	why      string
	fails    int    // in a row
	quiet    string // why it is not asked further, although what it said holds
	refused  bool   // it is quiet because it refuses
	passes   bool   // its test entry came through since
}

func (p *pass) stand(z *rbl.Zone, kind rbl.Kind, subjects []rbl.Subject) *stand {
	s := &stand{
		p: p, zone: z, kind: kind, subjects: subjects,
		gate:    p.c.gate(z.Name),
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

// run fills answers. told is called once for each.
func (s *stand) run(ctx context.Context, reasons bool, told func()) {
	todo := make([]int, len(s.subjects))
	for k := range todo {
		todo[k] = k
	}
	for first := true; len(todo) > 0; first = false {
		s.each(todo, func(k int) {
			s.answers[k], s.by[k] = s.answer(ctx, s.subjects[k], reasons)
			if first {
				told()
			}
		})
		s.recheck(ctx)
		// Each time a resolver less is believed, so this ends.
		todo = s.void()
	}
	s.ended = s.p.c.now()
}

// each does work for all, as many at once as the zone may be asked.
func (s *stand) each(todo []int, work func(k int)) {
	next := make(chan int, len(todo))
	for _, k := range todo {
		next <- k
	}
	close(next)
	var wait sync.WaitGroup
	for range min(s.p.c.perZone, len(todo)) {
		wait.Go(func() {
			for k := range next {
				work(k)
			}
		})
	}
	wait.Wait()
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

// answer asks about one subject, of one resolver after the other. The resolver is
// none if nobody could be asked: settle says why.
func (s *stand) answer(ctx context.Context, subject rbl.Subject, reasons bool) (rbl.Answer, int) {
	a, by := rbl.Answer{Zone: s.zone.Name, Subject: subject}, none
	name := s.zone.QueryName(subject, s.key)
	if len(name) > longestName && s.noKey == "" {
		a.Why, a.At = "the name is too long to be asked for on this list", s.p.c.now()
		return a, ours
	}
	for i := s.healthy(ctx, 0); i != none; i = s.healthy(ctx, i+1) {
		a, by = s.through(ctx, i, subject, name, reasons)
		if by == ours || a.Result != rbl.Unknown && a.Result != rbl.Refused {
			break
		}
	}
	a.At = s.p.c.now()
	return a, by
}

// through asks resolver i about one subject.
func (s *stand) through(ctx context.Context, i int, subject rbl.Subject, name string, reasons bool) (rbl.Answer, int) {
	a := rbl.Answer{Zone: s.zone.Name, Subject: subject}
	f := s.look(ctx, i, "the subject", name)
	switch {
	case errors.Is(f.r.Err, errBudget):
		a.Why = f.r.Err.Error()
		return a, ours
	case ctx.Err() != nil && f.silent():
		a.Why = fmt.Sprintf("the check ended before an answer came: %v", ctx.Err())
		return a, ours
	}
	a.Resolver = s.p.resolvers[i].Name()
	a.Result, a.Why = s.means(ctx, i, f)
	if f.silent() {
		s.fail(i, a.Result, a.Why)
		return a, i
	}
	s.spoke(i)
	if a.Result == rbl.Listed {
		a.Hits = f.hits
		if reasons {
			a.Reasons = rbl.CleanReasons(s.ask(ctx, i, name, rbl.TypeTXT).Texts, s.keys()...)
		}
	}
	return a, i
}

func (s *stand) keys() []string {
	if s.key == "" {
		return nil
	}
	return []string{s.key}
}

// means says what an answer about a subject is worth.
func (s *stand) means(ctx context.Context, i int, f finding) (rbl.Result, string) {
	switch f.r.Outcome {
	case rbl.NoName:
		return rbl.Clean, ""
	case rbl.NoData:
		// Not there, or taken out on the way: the test entry tells.
		if s.passes(ctx, i) {
			return rbl.Clean, ""
		}
		return rbl.Unknown, "an answer without records, and the test entry does not show either"
	case rbl.QueryRefused:
		return rbl.Refused, s.outcome(f.r)
	case rbl.Answered:
	default:
		return rbl.Unknown, s.outcome(f.r)
	}
	switch {
	case f.outside:
		return rbl.Unknown, fmt.Sprintf("an address that is none of a list: %s", f.first())
	case f.refused != "":
		s.discredit(i, rbl.Refusing, f.refused)
		return rbl.Refused, f.refused
	case len(f.hits) == 0:
		return rbl.Unknown, fmt.Sprintf("an answer that means nothing on this list: %s", f.first())
	}
	return rbl.Listed, ""
}

// passes reports whether the test entry still comes through resolver i. It is asked
// until that is known; if it does not, the resolver is not believed any more.
func (s *stand) passes(ctx context.Context, i int) bool {
	s.asking <- struct{}{}
	defer func() { <-s.asking }()
	listed, _ := s.tests()
	if t := s.try(i); t.passes || listed == "" || t.state != rbl.Healthy {
		return t.passes
	}
	f := s.look(ctx, i, "its test entry", s.zone.TestName(listed, s.key))
	switch {
	case f.r.Outcome == rbl.NoData:
		s.discredit(i, rbl.Filtered, "the test entry came, and then without records: the resolver takes 127.0.0.0/8 out")
	case f.r.Outcome == rbl.Answered && !f.outside && f.refused == "":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tries[i].passes = true
		return true
	}
	return false
}

// fail counts a question without an answer.
func (s *stand) fail(i int, result rbl.Result, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.tries[i]
	if t.fails++; t.fails >= quietAfter && t.quiet == "" {
		t.quiet, t.refused = "then "+why, result == rbl.Refused
	}
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
	s.p.c.forget(testEntry{s.zone.Name, s.kind, s.p.resolvers[i].Name()})
}

// recheck asks once more about what nobody lists, wherever a listing came from: it
// may have gone wild since it was examined.
func (s *stand) recheck(ctx context.Context) {
	for i := range s.tries {
		listed := false
		for k, a := range s.answers {
			listed = listed || s.by[k] == i && a.Result == rbl.Listed
		}
		if !listed || !s.credible(i) || ctx.Err() != nil {
			continue
		}
		if state, why := s.stray(ctx, i, s.strays(ctx, i)); state != rbl.Healthy {
			s.discredit(i, state, why)
		}
	}
}

// void takes back what came from where nothing is believed any more, and returns
// which subjects are to be asked about again.
func (s *stand) void() (again []int) {
	for k, i := range s.by {
		if i < 0 || s.credible(i) {
			continue
		}
		s.answers[k] = rbl.Answer{Zone: s.zone.Name, Subject: s.subjects[k], At: s.p.c.now()}
		s.by[k] = none
		again = append(again, k)
	}
	return again
}

// settle says of all that could not be asked why.
func (s *stand) settle() {
	h := s.health()
	for k, i := range s.by {
		if i != none {
			continue
		}
		a := &s.answers[k]
		a.Result, a.Why = rbl.Unknown, h.Why
		if h.State == rbl.Refusing || h.State == rbl.Healthy && s.refuses() {
			a.Result = rbl.Refused
		}
	}
	if h.State != rbl.Healthy {
		s.p.c.log.Debug("blocklist cannot be believed", "zone", h.Zone, "kind", h.Kind.String(), "state", h.State.String(), "why", h.Why)
	}
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
