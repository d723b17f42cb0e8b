package check

import (
	"context"
	"fmt"
	"sync"

	"relayguard/rbl"
)

// longest name that DNS can ask for, without its final dot (RFC 1035 §3.1).
const longestName = 253

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
		// Each time a resolver less is believed or asked, so this ends.
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
	case unsent(f.r.Err):
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
	if f.r.Outcome != rbl.NoData { // of that passes counts the failures
		s.spoke(i)
	}
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
		s.saw(i)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tries[i].passes = true
		return true
	case f.silent():
		s.fail(i, rbl.Unknown, s.said(f))
	}
	return false
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
