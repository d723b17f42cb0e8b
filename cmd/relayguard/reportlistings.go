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
	"relayguard/forward/evidence"
	"relayguard/journal"
	"relayguard/policy/origin"
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
	Days(ctx context.Context, since, until time.Time, loc *time.Location) ([]history.Day, error)
	Queries(ctx context.Context, since, until time.Time) (int64, error)
	Facts(ctx context.Context) ([]history.FactState, error)
	Neighbours(ctx context.Context) (now []check.Neighbour, before []int, err error)
	Last(ctx context.Context) (round, neighbours time.Time, err error)
}

// beforeListing is the time before a listing was first seen in which its cause is
// looked for: lists take hours to act, and a round may be hours old.
const beforeListing = 24 * time.Hour

const (
	maxSuspects  = 5
	maxCauses    = 8 // listings of one time whose cause is looked for
	causeForDays = 30
)

// blocklists fills in what is known of listings, lists, neighbours and of what
// receivers look at.
func (g *gathering) blocklists(ctx context.Context) {
	for _, part := range []struct {
		section string
		fill    func(context.Context) error
	}{
		{report.SectionBlocklists, g.listings}, {report.SectionChanges, g.listEvents}, {report.SectionBlocklists, g.zones}, {report.SectionBlocklists, g.checked},
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
	causes := map[time.Time]*stoodOut{}
	for i := range open {
		l := g.listing(&open[i])
		for j := range open { // of one address on one list: what has to go first
			if other := &open[j]; i != j && other.Zone == l.Zone && other.Subject == open[i].Subject && l.Removal.First != "" && other.Hit.Code.String() == l.Removal.First && l.Code != l.Removal.First {
				l.Waits = other.Hit.Means
			}
		}
		hour := open[i].First.Truncate(time.Hour)
		if _, known := causes[hour]; !known && len(causes) < maxCauses && !l.Scope.Wide() && l.Severity > rbl.Info && g.now.Sub(open[i].First) < causeForDays*24*time.Hour {
			causes[hour] = g.suspects(ctx, open[i].First)
		}
		if found := causes[hour]; found != nil && !l.Scope.Wide() && l.Severity > rbl.Info {
			l.Suspects, l.Searched = found.suspects, true
		}
		g.out.Listings = append(g.out.Listings, l)
		if open[i].Phase == history.Suspected && g.today(l.Since) {
			g.change(report.Notice, report.ChangeSuspected, l.Subject, l.Zone, l.Means, 0, l.Since)
		}
	}
	past, err := g.sources.history.Listings(ctx, history.Query{Since: g.out.Since, Until: g.out.Until})
	if err != nil {
		return err
	}
	for i := range past {
		if past[i].Phase == history.Ended && g.today(past[i].Ended) {
			g.out.Ended = append(g.out.Ended, g.listing(&past[i]))
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
		Since: g.at(l.First), Ended: g.at(l.Ended), Confirmed: !l.Confirmed.IsZero(), Reasons: l.Reasons, Removal: z.RemovalOf(l.Hit), Unasked: g.at(l.Unasked),
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
			level := report.Look
			switch {
			case l.Hit.Scope.Wide() || l.Hit.Severity == rbl.Info:
				level = report.Notice
			case l.Hit.Severity >= g.sources.config.RBL.Alert:
				level = report.Act
			}
			g.change(level, report.ChangeListed, l.Subject.String(), l.Zone, l.Hit.Means, 0, l.First)
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

// zones says how the lists are.
func (g *gathering) zones(ctx context.Context) error {
	all, err := g.sources.history.Zones(ctx)
	if err != nil {
		return err
	}
	c := &g.out.Zones
	worst := map[string]history.ZoneState{}
	for _, z := range all {
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
	if l := g.sources.lists; l != nil {
		for _, n := range l.not {
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
	for _, s := range all {
		name := s.Subject.String()
		g.out.Addresses = append(g.out.Addresses, report.Checked{Subject: name, How: how[name], Listed: s.Listed, Clean: s.Clean, Unknown: s.Unknown, Refused: s.Refused, At: g.at(s.At)})
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

// stoodOut are who stood out before a listing.
type stoodOut struct{ suspects []report.Suspect }

// suspects finds them; nil: that is not known.
func (g *gathering) suspects(ctx context.Context, first time.Time) *stoodOut {
	if g.sources.journal == nil {
		return nil
	}
	since := first.Add(-beforeListing)
	found, err := suspectsOf(ctx, g.sources.journal, g.sources.evidence, since, first)
	if err != nil {
		g.missing(report.SectionCause, fmt.Errorf("who was active before %s: %w", first.Format(time.RFC3339), err))
		return nil
	}
	var all []report.Suspect
	for i, s := range found {
		g.explained[explained{first, s.Kind, s.Name}] = explainedBy(&s, found[:i])
		all = append(all, report.Suspect{
			Kind: s.Kind, Name: s.Name, Recipients: s.Recipients, Usual: usual(s.Usual), Bounced: s.Bounced, FirstTime: s.FirstTime, Stopped: s.Stopped, Released: s.Released,
			Share: s.Share, Command: suspendCommand(&s), Tightened: g.tightened(&s, first), From: since, To: first,
		})
	}
	return &stoodOut{all}
}

func usual(mean float64) int64 {
	if mean < 0 {
		return -1
	}
	return int64(mean + 0.5)
}

// suspectsOf ranks who was active, the likeliest first.
func suspectsOf(ctx context.Context, j reportJournal, e *evidence.Store, since, until time.Time) ([]cause.Suspect, error) {
	if j == nil {
		return nil, nil
	}
	all, err := j.Activity(ctx, journal.ActivityQuery{Since: since, Until: until})
	if err != nil {
		return nil, err
	}
	acts := make([]cause.Activity, 0, len(all))
	for i := range all {
		a := &all[i]
		s := senderOf(a)
		acts = append(acts, cause.Activity{
			Kind: s.Kind, Name: s.Name, Account: a.Account, Site: a.Site, Messages: a.Messages, Recipients: a.Recipients, Stopped: a.Stopped, Told: a.Told, FirstTime: a.FirstTime,
			Sent: a.Sent, Bounced: a.Bounced, Held: a.Held, Released: a.Released, Usual: a.Usual, UsualBounced: a.UsualBounced, UsualMost: a.UsualMost,
		})
	}
	if e != nil {
		forwarded, err := forwardersOf(ctx, e, since, until)
		if err != nil {
			return nil, err
		}
		acts = append(acts, forwarded...)
	}
	found := cause.Rank(acts)
	return found[:min(len(found), maxSuspects)], nil
}

// usualForwards is how many days before tell what is usual of a forwarding rule.
const usualForwards = 14

// forwardersOf are the owners of forwarding rules by which mail went outside.
func forwardersOf(ctx context.Context, e *evidence.Store, since, until time.Time) ([]cause.Activity, error) {
	now, err := e.Sent(ctx, since, until)
	if err != nil {
		return nil, err
	}
	before, err := e.Sent(ctx, since.AddDate(0, 0, -usualForwards), since)
	if err != nil {
		return nil, err
	}
	share := until.Sub(since).Hours() / 24 / usualForwards
	known := map[string]evidence.Sent{}
	for _, s := range before {
		known[s.ID] = s
	}
	var all []cause.Activity
	for _, s := range now {
		if s.Owner == "" {
			continue
		}
		a := cause.Activity{Kind: cause.Forward, Name: s.Owner, Messages: int64(s.Mails), Recipients: int64(s.Mails), FirstTime: -1, Sent: int64(s.Taken), Bounced: int64(s.Back), Usual: -1, UsualBounced: -1}
		if len(before) > 0 {
			a.Usual, a.UsualBounced = share*float64(known[s.ID].Mails), share*float64(known[s.ID].Back)
		}
		all = append(all, a)
	}
	return all, nil
}

// explained names a suspect of the time before a listing.
type explained struct {
	first      time.Time
	kind, name string
}

// nearlyAll is a part of what somebody sent.
const nearlyAll = 0.8

// explainedBy reports whether a smaller one among those did nearly all of what a
// suspect did: a plugin of its site, a site of its account. To stop that is enough,
// and spares the others.
func explainedBy(s *cause.Suspect, before []cause.Suspect) bool {
	return slices.ContainsFunc(before, func(part cause.Suspect) bool {
		within := s.Kind == cause.Site && part.Kind == cause.Plugin && part.Site == s.Name ||
			s.Kind == cause.Account && (part.Kind == cause.Plugin || part.Kind == cause.Site) && part.Account == s.Name
		return within && float64(part.Recipients+part.Released) >= nearlyAll*(float64(s.Recipients+s.Released)-max(0, s.Usual))
	})
}

// suspectAccount is a suspect as suspend takes it; "": it cannot be suspended.
func suspectAccount(s *cause.Suspect) string {
	switch s.Kind {
	case cause.Plugin:
		return "plugin:" + s.Name
	case cause.Site:
		return "site:" + s.Name
	case cause.Account:
		switch kind, value, _ := strings.Cut(s.Name, ":"); origin.Kind(kind) {
		case origin.KindLogin, origin.KindLocalUser, origin.KindNetwork: // not "unknown": that is nobody's
			if value != "" {
				return s.Name
			}
		}
	}
	return ""
}

func suspendCommand(s *cause.Suspect) string {
	account := suspectAccount(s)
	if account == "" {
		return ""
	}
	return "relayguard suspend " + shellWord(account, "ACCOUNT") + " --reason 'before a blocklisting'"
}

// tightenVerb is in the journal's actions.
const tightenVerb = "tighten"

// tightened says what the guard did about a suspect when the listing was confirmed.
func (g *gathering) tightened(s *cause.Suspect, first time.Time) string {
	account := suspectAccount(s)
	for _, a := range g.actions {
		if a.Verb == tightenVerb && (a.Target == account || s.Kind == cause.Plugin && a.Target == "site:"+s.Site) && a.Time.After(first) {
			if strings.HasPrefix(a.Outcome, wouldHalve) {
				return "would"
			}
			return "done"
		}
	}
	return ""
}
