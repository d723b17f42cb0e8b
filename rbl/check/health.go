package check

import (
	"context"
	"fmt"
	"regexp"
	"sync"

	"relayguard/rbl"
)

// finding is one answer of a zone and what it means there.
type finding struct {
	asked   bool
	what    string // "a random name"
	mild    bool   // hits without harm prove nothing
	r       rbl.Response
	hits    []rbl.Hit
	refused string
	outside bool
}

// answered: there is something of that name, whatever it is.
func (f *finding) answered() bool {
	if !f.asked || f.r.Outcome != rbl.Answered {
		return false
	}
	if f.mild && !f.outside && f.refused == "" {
		a := rbl.Answer{Hits: f.hits}
		return a.Worst() > rbl.Info
	}
	return true
}

// silent: nobody said whether there is something of that name.
func (f *finding) silent() bool {
	if !f.asked {
		return false
	}
	switch f.r.Outcome {
	case rbl.Answered, rbl.NoData, rbl.NoName:
		return false
	}
	return true
}

// examine says whether the zone can be believed through resolver i.
func (s *stand) examine(ctx context.Context, i int) (rbl.State, string) {
	entry := s.entry(i)
	listed, _ := s.tests()
	believed := listed != "" && !s.p.fresh && s.p.c.remembers(entry)

	var positive finding
	var strays []finding
	var wait sync.WaitGroup
	if listed != "" && !believed {
		wait.Go(func() { positive = s.look(ctx, i, "its test entry", s.zone.TestName(listed, s.key)) })
	}
	wait.Go(func() { strays = s.strays(ctx, i, s.usualDecoys()) })
	wait.Wait()

	state, why := s.judge(ctx, i, listed, believed, positive, strays)
	switch {
	case state != rbl.Healthy:
		s.p.c.forget(entry)
	case positive.asked:
		s.p.c.remember(entry)
		s.saw(i)
	case listed == "":
		s.saw(i)
	}
	return state, why
}

func (s *stand) entry(i int) testEntry {
	return testEntry{s.zone.Name, s.kind, s.p.resolvers[i].Name()}
}

// tests are the labels of the zone's test entries; "" if it has none.
func (s *stand) tests() (listed, clean string) {
	t := &s.zone.Test
	switch s.kind {
	case rbl.IP4:
		return t.Listed4, t.Clean4
	case rbl.IP6:
		return t.Listed6, t.Clean6
	}
	return t.ListedDomain, t.CleanDomain
}

// strays asks about what nobody lists.
func (s *stand) strays(ctx context.Context, i int, decoys []decoy) []finding {
	all := make([]finding, len(decoys))
	var wait sync.WaitGroup
	for k, d := range decoys {
		wait.Go(func() {
			all[k] = s.look(ctx, i, d.what, d.name)
			all[k].mild = d.mild
		})
	}
	wait.Wait()
	return all
}

func (s *stand) look(ctx context.Context, i int, what, name string) finding {
	f := finding{asked: true, what: what, r: s.ask(ctx, i, name, rbl.TypeA)}
	if f.r.Outcome == rbl.Answered {
		f.hits, f.refused, f.outside = s.zone.Decode(f.r.Addrs)
	}
	for i := range f.hits { // of a list that has both, what was asked about counts
		if s.kind == rbl.Domain && f.hits[i].Scope == rbl.ScopeAddress {
			f.hits[i].Scope = rbl.ScopeDomain
		}
	}
	return f
}

func (s *stand) judge(ctx context.Context, i int, listed string, believed bool, positive finding, strays []finding) (rbl.State, string) {
	all := append([]finding{positive}, strays...)
	for _, f := range all {
		if f.asked && unsent(f.r.Err) {
			return rbl.NotAsked, f.r.Err.Error()
		}
	}
	if err := ctx.Err(); err != nil {
		return rbl.Silent, fmt.Sprintf("the check ended before it was known: %v", err)
	}
	state, why := s.stray(ctx, i, strays)
	switch {
	case state == rbl.Rewritten:
		return state, why
	case positive.refused != "":
		return rbl.Refusing, positive.refused
	case state != rbl.Healthy:
		return state, why
	case positive.outside:
		return s.abroad(ctx, i, positive)
	}
	// REFUSED tells more than silence.
	for _, f := range all {
		if f.asked && f.r.Outcome == rbl.QueryRefused {
			return rbl.Refusing, s.said(f)
		}
	}
	for _, f := range all {
		if f.silent() {
			return rbl.Silent, s.said(f)
		}
	}
	switch {
	case believed:
		return rbl.Healthy, ""
	case listed == "":
		return s.exists(ctx, i, rbl.Healthy, "")
	case positive.r.Outcome == rbl.Answered:
		return rbl.Healthy, ""
	case positive.r.Outcome == rbl.NoName:
		return s.exists(ctx, i, rbl.Emptied, "its test entry is not there"+s.keyHint())
	case strays[0].r.Outcome == rbl.NoData:
		return rbl.Emptied, "it answers without records, to a random name too" + s.keyHint()
	}
	return rbl.Filtered, "the answer to its test entry came without records: the resolver takes 127.0.0.0/8 out (rebinding protection)"
}

// stray judges answers about what nobody lists; Healthy if there are none.
func (s *stand) stray(ctx context.Context, i int, strays []finding) (rbl.State, string) {
	var hit *finding
	for k := range strays {
		f := &strays[k]
		if !f.answered() {
			continue
		}
		// Outside counts before a refusal, that before a hit.
		if hit == nil || f.outside && !hit.outside || !hit.outside && f.refused != "" && hit.refused == "" {
			hit = f
		}
	}
	if hit == nil {
		return rbl.Healthy, ""
	}
	if hit.outside {
		return s.abroad(ctx, i, *hit)
	}
	if rewrite, _ := s.p.lookElsewhere(ctx, i); rewrite {
		return rbl.Rewritten, rewrites
	}
	if hit.refused != "" {
		return rbl.Refusing, hit.refused
	}
	return rbl.Wild, fmt.Sprintf("it lists %s (%s)", hit.what, hit.first())
}

const gone = "its name does not exist any more"

const rewrites = "the resolver gives addresses to names that do not exist"

// abroad judges an answer outside of 127.0.0.0/8: by the list, or by the resolver?
func (s *stand) abroad(ctx context.Context, i int, f finding) (rbl.State, string) {
	switch rewrite, honest := s.p.lookElsewhere(ctx, i); {
	case rewrite:
		return rbl.Rewritten, rewrites
	case honest:
		return rbl.Parked, fmt.Sprintf("%s has an address that is none of a list (%s): the domain is somebody else's", f.what, f.first())
	}
	return rbl.Silent, fmt.Sprintf("%s has an address that is none of a list (%s), by the list or by the resolver: it did not answer about names elsewhere", f.what, f.first())
}

func (f *finding) first() string {
	for _, a := range f.r.Addrs {
		if f.outside && a.Is4() && a.As4()[0] == 127 {
			continue
		}
		return a.String()
	}
	return "no address"
}

// exists is state and why if the zone is there, else Dead.
func (s *stand) exists(ctx context.Context, i int, state rbl.State, why string) (rbl.State, string) {
	// The zone's own name: nothing needs to be there for a wrong key.
	r := s.ask(ctx, i, s.zone.Name, rbl.TypeSOA)
	switch r.Outcome {
	case rbl.Answered, rbl.NoData:
		return state, why
	case rbl.NoName:
		return rbl.Dead, gone
	}
	if unsent(r.Err) {
		return rbl.NotAsked, r.Err.Error()
	}
	if why == "" {
		return rbl.Silent, s.said(finding{what: "its name", r: r})
	}
	return rbl.Silent, why + "; " + s.said(finding{what: "its name", r: r})
}

func (s *stand) keyHint() string {
	if s.key == "" {
		return ""
	}
	return "; the key may be wrong or ended"
}

// said says how a question ended that told nothing.
func (s *stand) said(f finding) string {
	return "asked for " + f.what + ": " + s.outcome(f.r)
}

func (s *stand) outcome(r rbl.Response) string {
	var text string
	switch r.Outcome {
	case rbl.TimedOut:
		text = "no answer in time"
	case rbl.ServFail:
		text = "the resolver could not find out (SERVFAIL)"
	case rbl.QueryRefused:
		text = "the resolver refused the question (REFUSED)"
	case rbl.NoData:
		text = "an answer without records"
	default:
		text = "no answer that can be read"
	}
	if r.Err != nil {
		text += ": " + r.Err.Error()
	}
	return s.redact(text)
}

// redact takes the key out: an error of a resolver may quote the name it asked for.
func (s *stand) redact(text string) string {
	if s.key == "" {
		return text
	}
	return regexp.MustCompile("(?i)"+regexp.QuoteMeta(s.key)).ReplaceAllLiteralString(text, "***")
}
