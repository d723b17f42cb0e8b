package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/rbl"
	"relayguard/rbl/cause"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	rblsender "relayguard/rbl/sender"
)

// reportHistory is what a report asks of the history of listings.
type reportHistory interface {
	Listings(ctx context.Context, q history.Query) ([]history.Listing, error)
	Events(ctx context.Context, since, until time.Time) ([]history.Event, error)
	Zones(ctx context.Context) ([]history.ZoneState, error)
	Subjects(ctx context.Context) ([]history.SubjectState, error)
	Answers(ctx context.Context) ([]rbl.Answer, error)
	Days(ctx context.Context, since, until time.Time, loc *time.Location) ([]history.Day, error)
	Queries(ctx context.Context, since, until time.Time) (int64, error)
	Facts(ctx context.Context) ([]history.FactState, error)
	Neighbours(ctx context.Context) (now []check.Neighbour, before []int, err error)
	Last(ctx context.Context) (round, neighbours time.Time, err error)
}

// blocklists fills in what is known of listings, lists, neighbours and of what
// receivers look at.
func (g *gathering) blocklists(ctx context.Context) {
	for _, part := range []struct {
		section string
		fill    func(context.Context) error
	}{
		{report.SectionBlocklists, g.runs}, {report.SectionBlocklists, g.listings}, {report.SectionChanges, g.listEvents}, {report.SectionBlocklists, g.zones}, {report.SectionBlocklists, g.checked},
		{report.SectionHistory, g.checkedDays}, {report.SectionNeighbours, g.neighbours}, {report.SectionSender, g.facts},
	} {
		if err := part.fill(ctx); err != nil {
			g.missing(part.section, err)
		}
	}
	if l := g.sources.lists; l != nil {
		for _, text := range l.targets.Trouble {
			g.missing(report.SectionAddresses, errors.New(text))
		}
		for _, text := range l.warnings {
			g.missing(report.SectionLists, errors.New(text))
		}
		if n := l.targets.Left; n > 0 {
			g.missing(report.SectionLists, fmt.Errorf("%s are not checked: they are too many", counted(n, "domain")))
		}
	}
}

// lateRounds is after how many rounds that were left out nothing is known any more.
const lateRounds = 2

// runs says if the check does not run: what it found before is no answer for now.
func (g *gathering) runs(ctx context.Context) error {
	trouble := g.sources.watch.Trouble
	if l := g.sources.lists; l != nil && trouble == strings.Join(l.targets.Trouble, "; ") {
		trouble = "" // all else is checked
	}
	if trouble != "" {
		g.missing(report.SectionBlocklists, errors.New(trouble))
	}
	round, _, err := g.sources.history.Last(ctx)
	switch late := lateRounds * g.sources.config.RBL.Every; {
	case err != nil:
		return err
	case round.IsZero():
		return errors.New("nothing was checked yet")
	case g.now.Sub(round) > late:
		return fmt.Errorf("nothing was checked since %s", g.at(round).Format("2006-01-02 15:04 MST"))
	}
	return nil
}

// zone is what is known of a list.
func (g *gathering) zone(name string) rbl.Zone {
	if g.table == nil {
		g.table = rbl.Builtin()
		if g.sources.lists != nil {
			g.table = g.sources.lists.table
		}
	}
	z, _ := g.table.Find(name)
	return z
}

func (g *gathering) listings(ctx context.Context) error {
	open, err := g.sources.history.Listings(ctx, history.Query{OpenOnly: true})
	if err != nil {
		return err
	}
	slices.SortStableFunc(open, func(a, b history.Listing) int { // as the report has them; first those whose cause matters
		return cmp.Or(wideLast(a.Hit.Scope, b.Hit.Scope), cmp.Compare(b.Hit.Severity, a.Hit.Severity), a.First.Compare(b.First))
	})
	causes := &causes{g: g, found: map[time.Time][]cause.Suspect{}}
	for i := range open {
		l := g.listing(&open[i])
		for j := range open { // of one address on one list: what has to go first
			if other := &open[j]; i != j && other.Zone == l.Zone && other.Subject == open[i].Subject && l.Removal.First != "" && other.Hit.Code.String() == l.Removal.First && l.Code != l.Removal.First {
				l.Waits = other.Hit.Means
			}
		}
		if !l.Scope.Wide() && l.Severity > rbl.Info {
			l.Suspects, l.Searched = causes.of(ctx, &open[i])
		}
		g.out.Listings = append(g.out.Listings, l)
		if open[i].Phase == history.Suspected && g.today(l.Since) {
			g.change(report.Notice, report.ChangeSuspected, l.Subject, l.Zone, l.Means, 0, l.Since)
		}
	}
	g.past, err = g.sources.history.Listings(ctx, history.Query{Since: g.out.Since, Until: g.out.Until})
	if err != nil {
		return err
	}
	for i := range g.past {
		l := &g.past[i]
		if !g.today(l.Closed) {
			continue
		}
		switch l.Phase {
		case history.Ended:
			g.out.Ended = append(g.out.Ended, g.listing(l))
		case history.Dropped: // nobody knows whether it ended
			g.out.Ended = append(g.out.Ended, g.listing(l))
			g.change(report.Notice, report.ChangeDropped, l.Subject.String(), l.Zone, l.Hit.Means, 0, l.Ended)
		}
	}
	return nil
}

func wideLast(a, b rbl.Scope) int {
	switch {
	case a.Wide() == b.Wide():
		return 0
	case a.Wide():
		return 1
	}
	return -1
}

// listing is one as the report has it.
func (g *gathering) listing(l *history.Listing) report.Listing {
	z := g.zone(l.Zone)
	return report.Listing{
		Subject: l.Subject.String(), Zone: l.Zone, Operator: z.Operator, Means: l.Hit.Means, Code: l.Hit.Code.String(), Severity: l.Hit.Severity, Scope: l.Hit.Scope,
		Since: g.at(l.First), Ended: g.at(l.Ended), Confirmed: !l.Confirmed.IsZero(), Reasons: l.Reasons, Removal: z.RemovalOf(l.Hit), Unasked: g.at(l.Unasked), Dropped: l.Phase == history.Dropped,
	}
}

// listEvents puts what began and ended among the changes.
func (g *gathering) listEvents(ctx context.Context) error {
	events, err := g.sources.history.Events(ctx, g.out.Since, g.out.Until)
	if err != nil {
		return err
	}
	for _, e := range events {
		switch l, h, f := e.Listing, e.Health, e.Fact; {
		case e.Kind == history.Began && l != nil:
			level, means := report.Look, l.Hit.Means
			switch ended := g.endedSince(l.ID); {
			case !ended.IsZero(): // nothing is to be done about it any more
				level = report.Notice
				means = strings.TrimPrefix(fmt.Sprintf("%s; was listed for %s", means, lasted(ended.Sub(l.First))), "; ")
			case l.Hit.Scope.Wide() || l.Hit.Severity == rbl.Info:
				level = report.Notice
			case l.Hit.Severity >= g.sources.config.RBL.Alert:
				level = report.Act
			}
			g.change(level, report.ChangeListed, l.Subject.String(), l.Zone, means, 0, l.First)
		case e.Kind == history.Over && l != nil:
			g.change(report.Good, report.ChangeUnlisted, l.Subject.String(), l.Zone, l.Hit.Means, 0, e.At)
		case e.Kind == history.ZoneBad && h != nil:
			g.change(report.Notice, report.ChangeZone, h.Zone, "", h.State.String(), 0, e.At)
		case e.Kind == history.ZoneWell && h != nil:
			g.change(report.Good, report.ChangeZoneWell, h.Zone, "", "", 0, e.At)
		case e.Kind == history.FactBad && f != nil:
			g.change(report.Look, report.ChangeSender, f.Subject, f.Check, f.Found, 0, e.At)
		case e.Kind == history.FactWell && f != nil:
			g.change(report.Good, report.ChangeSenderWell, f.Subject, f.Check, f.Found, 0, e.At)
		}
	}
	return nil
}

// endedSince is when a listing of the report's time ended; zero: it goes on, or nobody
// knows.
func (g *gathering) endedSince(id int64) time.Time {
	for i := range g.past {
		if l := &g.past[i]; l.ID == id && l.Phase == history.Ended {
			return l.Ended
		}
	}
	return time.Time{}
}

// lasted is how long something was so: 40 min, 3 h, 2 days.
func lasted(d time.Duration) string {
	switch {
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", max(1, int(d.Round(time.Minute).Minutes())))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour).Hours()))
	}
	return counted(int(d.Round(24*time.Hour).Hours())/24, "day")
}

// zones says how the lists are that are in use.
func (g *gathering) zones(ctx context.Context) error {
	all, err := g.sources.history.Zones(ctx)
	if err != nil {
		return err
	}
	c := &g.out.Zones
	worst := map[string]history.ZoneState{}
	l := g.sources.lists
	for _, z := range all {
		if l != nil && !l.asks(z.Zone) {
			continue // it was in use at the last round
		}
		if was, seen := worst[z.Zone]; !seen || was.State == rbl.Healthy {
			worst[z.Zone] = z
		}
	}
	for name, z := range worst {
		c.Asked++
		if z.State == rbl.Healthy {
			c.Healthy++
			continue
		}
		known := g.zone(name)
		c.Trouble = append(c.Trouble, report.ZoneTrouble{Zone: name, State: z.State, Why: z.Why, Since: z.Since.In(g.now.Location()), Severity: known.Severity})
	}
	if l != nil {
		for i := range l.not {
			n := &l.not[i]
			if !g.matters(n) {
				continue
			}
			c.Trouble = append(c.Trouble, report.ZoneTrouble{Zone: n.Zone.Name, State: rbl.NotAsked, Why: n.Why, Severity: n.Zone.Severity})
		}
		for i, r := range l.resolvers {
			if i > 0 {
				c.Resolver += ", "
			}
			c.Resolver += r.Name()
		}
		if l.forwarded != "" || len(l.resolvers) == 0 {
			c.Warning = strings.Join(l.warnings, "; ")
		}
	}
	slices.SortFunc(c.Trouble, func(a, b report.ZoneTrouble) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), strings.Compare(a.Zone, b.Zone))
	})
	c.Queries, err = g.sources.history.Queries(ctx, g.out.Since, g.out.Until)
	return err
}

// matters reports whether it is worth a word that a list is not asked: it weighs, or
// somebody wanted it. Not if it is switched off, nor if another that has the same data
// is asked or named.
func (g *gathering) matters(n *rbl.NotChosen) bool {
	l, zone := g.sources.lists, n.Zone.Name
	if l.off[zone] || n.Zone.Severity < rbl.Medium && !slices.Contains(g.sources.config.RBL.Enable, zone) {
		return false
	}
	if slices.ContainsFunc(l.zones, func(z rbl.Zone) bool { return z.Name == n.Zone.Keyed || z.Keyed == zone }) {
		return false
	}
	return !slices.ContainsFunc(l.not, func(public rbl.NotChosen) bool { return public.Zone.Keyed == zone })
}

// checked says what is checked, and how it stands.
func (g *gathering) checked(ctx context.Context) error {
	all, err := g.sources.history.Subjects(ctx)
	if err != nil {
		return err
	}
	how := map[string]string{}
	if l := g.sources.lists; l != nil {
		for _, a := range l.targets.Addresses {
			how[a.Addr.String()] = a.How
		}
	}
	answers, err := g.sources.history.Answers(ctx)
	if err != nil {
		return err
	}
	standing := map[rbl.Subject]*rblStanding{}
	for _, s := range all {
		standing[s.Subject] = &rblStanding{}
	}
	for i := range answers {
		if s := standing[answers[i].Subject]; s != nil {
			s.count(&answers[i])
		}
	}
	for _, s := range all {
		name, n := s.Subject.String(), standing[s.Subject]
		g.out.Addresses = append(g.out.Addresses, report.Checked{Subject: name, How: how[name], Listed: n.Listed - n.Range, Wide: n.Range, Info: n.Info, Clean: n.Clean, Unknown: n.Unknown, Refused: n.Refused, At: g.at(s.At)})
	}
	return nil
}

// checkedDays says how each of them stood on each day.
func (g *gathering) checkedDays(ctx context.Context) error {
	days, err := g.sources.history.Days(ctx, startOfDay(g.now).AddDate(0, 0, 1-trendDays), g.out.Until, g.now.Location())
	if err != nil {
		return err
	}
	by := map[string][]report.DayState{}
	for _, d := range days {
		name := d.Subject.String()
		day := startOfDay(d.Day.Add(2 * time.Hour)) // one that has no midnight may come as the hour before, and that before it in two
		switch last := len(by[name]) - 1; {
		case last < 0 || !by[name][last].Day.Equal(day):
			by[name] = append(by[name], report.DayState{Day: day, State: d.Worst.String()})
		case badDay(d.Worst.String()) > badDay(by[name][last].State):
			by[name][last].State = d.Worst.String()
		}
	}
	for i := range g.out.Addresses {
		g.out.Addresses[i].Days = everyDay(by[g.out.Addresses[i].Subject])
	}
	return nil
}

// badDay orders what is known of days.
func badDay(state string) int {
	return slices.Index([]string{rbl.Clean.String(), rbl.Unknown.String(), rbl.Listed.String()}, state)
}

// everyDay fills in the days of which nothing is known.
func everyDay(known []report.DayState) (all []report.DayState) {
	for _, d := range known {
		for len(all) > 0 {
			next := nextDay(all[len(all)-1].Day)
			if !next.Before(d.Day) {
				break
			}
			all = append(all, report.DayState{Day: next})
		}
		all = append(all, d)
	}
	return all
}

func (g *gathering) neighbours(ctx context.Context) error {
	now, before, err := g.sources.history.Neighbours(ctx)
	if err != nil || len(now) == 0 {
		return err
	}
	n := &report.Neighbours{At: now[0].At.In(g.now.Location())}
	for i, one := range now {
		n.Ranges = append(n.Ranges, report.Neighbour{Prefix: one.Prefix, Zone: one.Zone, Asked: one.Asked, Listed: one.Listed, Unknown: one.Unknown, Before: before[i]})
	}
	g.out.Neighbours = n
	return nil
}

func (g *gathering) facts(ctx context.Context) error {
	all, err := g.sources.history.Facts(ctx)
	if err != nil {
		return err
	}
	for _, f := range all {
		g.out.Sender = append(g.out.Sender, report.Fact{Subject: f.Subject, Check: f.Check, State: f.State, Found: f.Found, Wanted: f.Wanted, Since: f.Since.In(g.now.Location())})
	}
	slices.SortStableFunc(g.out.Sender, func(a, b report.Fact) int { return cmp.Compare(badness(a.State), badness(b.State)) })
	return nil
}

func badness(state string) int {
	return slices.Index([]string{rblsender.Wrong, rblsender.Unknown, rblsender.OK}, state)
}
