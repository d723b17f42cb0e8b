package check

import (
	"context"
	"fmt"
	"time"

	"relayguard/rbl"
)

// sawFor is how long a test entry that was seen in this pass is not asked for again: a
// list can be emptied meanwhile.
const sawFor = 5 * time.Second

// recheck looks once more at each resolver that something came from: the list may have
// changed since it was examined, and one that lists everybody may spare its tests.
func (s *stand) recheck(ctx context.Context) {
	for i := range s.tries {
		s.recheckListed(ctx, i)
		s.recheckClean(ctx, i)
	}
}

// recheckListed asks about what nobody lists, if anything is listed.
func (s *stand) recheckListed(ctx context.Context, i int) {
	listed := s.resulting(i, rbl.Listed)
	if len(listed) == 0 || !s.credible(i) {
		return
	}
	strays := s.strays(ctx, i, s.witnesses(listed))
	if state, why := s.stray(ctx, i, strays); state != rbl.Healthy {
		s.discredit(i, state, why)
		return
	}
	for _, f := range strays {
		if f.silent() {
			s.doubt(ctx, i, rbl.Listed, f, s.said(f))
			return
		}
	}
}

// recheckClean asks whether the test entry is still there, if anything is clean that
// it was not seen beside.
func (s *stand) recheckClean(ctx context.Context, i int) {
	if len(s.resulting(i, rbl.Clean)) == 0 || !s.credible(i) || s.sawLately(i) {
		return
	}
	f, state, why := s.remains(ctx, i)
	switch {
	case state == rbl.Healthy:
		s.saw(i)
	case state == rbl.Silent || state == rbl.NotAsked:
		s.doubt(ctx, i, rbl.Clean, f, why)
	default:
		s.discredit(i, state, why)
	}
}

// remains is how the zone stands by its test entry, or by its name if it has none.
func (s *stand) remains(ctx context.Context, i int) (finding, rbl.State, string) {
	listed, _ := s.tests()
	if listed == "" {
		f := finding{asked: true, what: "its name", r: s.ask(ctx, i, s.zone.Name, rbl.TypeSOA)}
		switch {
		case f.silent():
			return f, rbl.Silent, s.said(f)
		case f.r.Outcome == rbl.NoName:
			return f, rbl.Dead, gone
		}
		return f, rbl.Healthy, ""
	}
	f := s.look(ctx, i, "its test entry", s.zone.TestName(listed, s.key))
	if f.silent() {
		return f, rbl.Silent, s.said(f)
	}
	if f.r.Outcome == rbl.Answered && !f.outside && f.refused == "" {
		s.p.c.remember(s.entry(i))
		return f, rbl.Healthy, ""
	}
	state, why := s.judge(ctx, i, listed, false, f, s.strays(ctx, i, s.usualDecoys()))
	return f, state, why
}

// sawLately reports whether the test entry was there a moment ago, and not only in
// another pass.
func (s *stand) sawLately(i int) bool {
	saw := s.try(i).saw
	age := s.p.c.now().Sub(saw)
	return !saw.IsZero() && age >= 0 && age <= sawFor
}

// resulting are the subjects of which resolver i had this result.
func (s *stand) resulting(i int, r rbl.Result) (all []rbl.Subject) {
	for k, a := range s.answers {
		if s.by[k] == i && a.Result == r {
			all = append(all, s.subjects[k])
		}
	}
	return all
}

// doubt takes back what resolver i said with this result, because nothing was told when
// that was looked at once more (f). Another resolver is asked then.
func (s *stand) doubt(ctx context.Context, i int, r rbl.Result, f finding, why string) {
	by := anew
	switch {
	case unsent(f.r.Err):
		why, by = f.r.Err.Error(), ours
	case ctx.Err() != nil:
		why, by = fmt.Sprintf("the check ended before it was looked at once more: %v", ctx.Err()), ours
	}
	for k := range s.answers {
		a := &s.answers[k]
		if s.by[k] != i || a.Result != r {
			continue
		}
		*a = rbl.Answer{Zone: a.Zone, Subject: a.Subject, Why: why, At: s.p.c.now()}
		s.by[k] = by
	}
	if by == anew {
		s.leave(i, f.r.Outcome == rbl.QueryRefused, why)
	}
}

// void takes back what came from where nothing is believed any more, and returns
// which subjects are to be asked about again.
func (s *stand) void() (again []int) {
	for k, i := range s.by {
		if i != anew && (i < 0 || s.credible(i)) {
			continue
		}
		s.answers[k] = rbl.Answer{Zone: s.zone.Name, Subject: s.subjects[k], At: s.p.c.now()}
		s.by[k] = none
		again = append(again, k)
	}
	return again
}
