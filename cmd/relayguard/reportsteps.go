package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"relayguard/cmd/internal/report"
	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/rbl"
	"relayguard/rbl/cause"
	rblsender "relayguard/rbl/sender"
)

// maxForwards is how many new rules are named.
const maxForwards = 20

// forwards says how forwarding rules stand.
func (g *gathering) forwards(ctx context.Context) {
	f := &g.out.Forwards
	f.Watched = g.sources.watched
	for i := range g.sources.entries {
		e := &g.sources.entries[i]
		if !e.Gone.IsZero() {
			if g.today(e.Gone) && e.Leaves() {
				g.change(report.Good, report.ChangeForwardGone, e.Owner, string(e.Mechanism), e.Target, 0, e.Gone)
			}
			continue
		}
		f.Known++
		if e.Due() {
			f.Due++
		}
		if e.Status == ledger.Existing {
			f.Unreviewed++
		}
		if e.Status != ledger.New || e.Action == ledger.Ignore || !g.today(e.Since) && !e.Due() {
			continue
		}
		one := report.Forward{ID: forward.ShortID(e.ID), Owner: e.Owner, Target: e.Target, Mechanism: string(e.Mechanism), Due: e.Due(), Since: e.Since.In(g.now.Location())}
		f.New = append(f.New, one)
		if g.today(e.Since) {
			level := report.Notice
			if one.Due {
				level = report.Act
			}
			g.change(level, report.ChangeForward, one.Owner, one.Mechanism, one.Target, 0, e.Since)
		}
	}
	slices.SortStableFunc(f.New, func(a, b report.Forward) int {
		return cmp.Or(dueFirst(a.Due, b.Due), b.Since.Compare(a.Since), strings.Compare(a.Owner, b.Owner))
	})
	f.More = max(0, len(f.New)-maxForwards)
	f.New = f.New[:min(len(f.New), maxForwards)]
	if g.sources.evidence == nil {
		return
	}
	gaps, err := g.sources.evidence.GapsBetween(ctx, g.out.Since, g.out.Until)
	if err != nil {
		g.missing(report.SectionGaps, err)
		return
	}
	for _, gap := range gaps {
		g.out.Gaps = append(g.out.Gaps, report.Span{What: "forwards", Why: gap.Why, Since: g.at(gap.From), Until: g.at(gap.To)})
	}
}

func dueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// addSteps says what to do, in the order in which to do it: stop what goes on, look,
// prove that it is over, and only then ask for removal.
func (g *gathering) addSteps() {
	add := func(s report.Step) {
		if !slices.Contains(g.out.Steps, s) {
			g.out.Steps = append(g.out.Steps, s)
		}
	}
	for _, d := range g.out.Degraded {
		if d.Until.IsZero() {
			add(report.Step{Kind: report.StepDegraded, What: d.What, Text: d.Why, Command: "relayguard status"})
		}
	}
	harmful := slices.DeleteFunc(slices.Clone(g.out.Listings), func(l report.Listing) bool {
		return l.Scope.Wide() || l.Severity == rbl.Info || !l.Confirmed || l.Dropped
	})
	for _, l := range harmful {
		named := 0
		for _, s := range l.Suspects {
			if named < 2 && s.Command != "" && !g.explained[explained{s.To, s.Kind, s.Name}] {
				if named++; g.isSuspended(s.Kind, s.Name) {
					continue
				}
				add(report.Step{Kind: report.StepSuspend, What: s.Name, By: s.Kind, Text: stoodOutBy(&s), Command: s.Command})
			}
		}
	}
	for _, i := range g.out.Incidents {
		if i.Closed.IsZero() {
			add(report.Step{Kind: report.StepIncident, What: i.Origin, By: i.Cause, Command: "relayguard incident show " + shellWord(i.ID, "ID")})
		}
	}
	for _, f := range g.out.Forwards.New {
		if f.Due {
			add(report.Step{Kind: report.StepForwards, What: f.Owner, Text: f.Target, Command: "relayguard forwards show " + shellWord(f.ID, "ID")})
		}
	}
	if len(harmful) > 0 {
		add(g.prove(harmful))
	}
	for _, l := range harmful {
		if len(l.Removal.How) > 0 && l.Waits == "" {
			add(report.Step{Kind: report.StepRemoval, What: l.Subject, By: l.Zone, Text: l.Removal.How[0], URL: l.Removal.URL})
		}
	}
	if g.out.Held.Messages > 0 {
		add(report.Step{Kind: report.StepHeld, Command: "relayguard held list"})
	}
	if g.out.Forwards.Due == 0 && len(g.out.Forwards.New) > 0 {
		add(report.Step{Kind: report.StepForwards, Command: "relayguard forwards list --status new"})
	}
	for _, f := range g.out.Sender {
		if f.State == rblsender.Wrong {
			add(report.Step{Kind: report.StepSender, What: f.Subject, By: f.Check, Text: f.Wanted})
		}
	}
	if w := g.out.Zones.Warning; w != "" {
		add(report.Step{Kind: report.StepResolver, Text: w})
	}
	for _, z := range g.out.Zones.Trouble {
		if z.Severity >= rbl.High && z.State != rbl.Silent && (z.State != rbl.NotAsked || g.sources.lists.misses(z.Zone)) {
			add(report.Step{Kind: report.StepZone, What: z.Zone, By: z.State.String(), Text: z.Why})
		}
	}
}

// prove is the step to see that it has stopped: of the likeliest cause if there is one
// that mail can be counted of.
func (g *gathering) prove(harmful []report.Listing) report.Step {
	for _, l := range harmful {
		for _, s := range l.Suspects {
			if who := s.Kind + ":" + s.Name; !g.explained[explained{s.To, s.Kind, s.Name}] {
				if s.Kind == cause.Account {
					who = s.Name
				}
				if s.Kind == cause.Forward || s.Command == "" && s.Kind != cause.Template {
					return report.Step{Kind: report.StepProve, What: s.Name, By: report.BySuspect, Command: proveCommand}
				}
				return report.Step{Kind: report.StepProve, What: s.Name, By: report.BySuspect, Command: "relayguard origins show " + shellWord(who, "WHO") + " --since 1h"}
			}
		}
	}
	return report.Step{Kind: report.StepProve, What: harmful[0].Subject, Command: proveCommand}
}

// proveCommand shows who sends now.
const proveCommand = "relayguard origins list --since 1h"

// stoodOutBy says in numbers why somebody is suspected.
func stoodOutBy(s *report.Suspect) string {
	text := fmt.Sprintf("%d recipients in %.0f hours", s.Recipients, s.To.Sub(s.From).Hours())
	if s.Usual >= 0 {
		text += fmt.Sprintf(", usually %d", s.Usual)
	}
	if s.FirstTime > 0 {
		text += fmt.Sprintf("; %d never written to before", s.FirstTime)
	}
	if s.Bounced > 0 {
		text += fmt.Sprintf("; %d bounced", s.Bounced)
	}
	return text
}

// isSuspended reports whether somebody is suspended, a plugin also with its site.
func (g *gathering) isSuspended(kind, name string) bool {
	return slices.ContainsFunc(g.out.Suspended, func(s report.Suspended) bool {
		if _, site, of := strings.Cut(name, "@"); of && kind == cause.Plugin && s.Name == "site:"+site {
			return true
		}
		return s.Name == name || s.Name == kind+":"+name
	})
}
