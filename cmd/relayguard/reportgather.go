package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/report"
	"relayguard/forward/evidence"
	"relayguard/forward/ledger"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/watch"
)

// reportJournal is what a report asks of the journal, open or only read.
type reportJournal interface {
	Activity(ctx context.Context, q journal.ActivityQuery) ([]journal.Activity, error)
	Volumes(ctx context.Context, since, until time.Time) ([]journal.Volume, error)
	Troubles(ctx context.Context, since, until time.Time) ([]journal.Trouble, error)
	Holds(ctx context.Context, q journal.HoldQuery) ([]journal.Hold, error)
	Incidents(ctx context.Context, openOnly bool) ([]journal.Incident, error)
	AdminActions(ctx context.Context, limit int) ([]journal.AdminAction, error)
}

// reportSources is where a report is from. What is nil is not known, and Off says
// why by section.
type reportSources struct {
	config   *config.Config
	since    time.Time // where it begins; zero: 24 hours ago
	journal  reportJournal
	foreign  int64 // held by others
	switches []policy.Switch
	history  reportHistory
	lists    *asking      // nil: not made ready yet
	watch    watch.Status // of the daemon's check of lists
	entries  []ledger.Entry
	watched  bool
	evidence *evidence.Store
	dropped  int64
	off      map[string]string
}

// gatherReport fills a report of the day until now, in the zone of now.
func gatherReport(ctx context.Context, now time.Time, s *reportSources) *report.Report {
	now = now.Round(0)
	g := &gathering{sources: s, now: now, explained: map[explained]bool{}, out: emptyReport(now)}
	if !s.since.IsZero() {
		g.out.Since = s.since.Round(0)
	}
	g.out.Phase = s.config.Phase.String()
	g.out.Host, _ = os.Hostname()
	for section, why := range s.off {
		g.missing(section, errors.New(why))
	}
	if s.journal == nil {
		g.withoutJournal()
	}
	if s.journal != nil {
		g.mail(ctx)
		g.active(ctx)
		g.held(ctx)
		g.incidents(ctx)
		g.degraded(ctx)
		g.acts(ctx)
	}
	g.suspended()
	g.forwards(ctx)
	if s.history != nil {
		g.blocklists(ctx)
	}
	g.addSteps()
	slices.SortStableFunc(g.out.Changes, func(a, b report.Change) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), b.At.Compare(a.At))
	})
	slices.SortFunc(g.out.Missing, func(a, b report.Missing) int {
		return cmp.Or(strings.Compare(a.Section, b.Section), strings.Compare(a.Why, b.Why))
	})
	return g.out
}

// emptyReport has an empty list where nothing is known of, for who reads the JSON.
func emptyReport(now time.Time) *report.Report {
	return &report.Report{
		Version: version, Made: now, Since: now.AddDate(0, 0, -1), Until: now,
		Changes: []report.Change{}, Steps: []report.Step{}, Missing: []report.Missing{},
		Listings: []report.Listing{}, Ended: []report.Listing{}, Addresses: []report.Checked{}, Zones: report.ZoneCounts{Trouble: []report.ZoneTrouble{}}, Sender: []report.Fact{},
		Mail: report.Mail{Days: []report.DayMail{}}, Senders: []report.Sender{}, Plugins: []report.Sender{}, Held: report.Held{By: []report.HeldBy{}},
		Incidents: []report.Incident{}, Suspended: []report.Suspended{}, Forwards: report.Forwards{New: []report.Forward{}}, Degraded: []report.Span{}, Gaps: []report.Span{},
	}
}

// withoutJournal says of all that is from the journal that it is not known.
func (g *gathering) withoutJournal() {
	why := cmp.Or(g.sources.off[report.SectionMail], "the journal cannot be read")
	for _, section := range []string{report.SectionMail, report.SectionDeliveries, report.SectionHeld, report.SectionIncidents, report.SectionGuard, report.SectionChanges, report.SectionCause} {
		g.missing(section, errors.New(why))
	}
}

// gathering is a report on its way.
type gathering struct {
	sources *reportSources
	now     time.Time
	out     *report.Report
	table   *rbl.Table            // of lists; nil: not read yet
	actions []journal.AdminAction // the newest first
	past    []history.Listing     // of the report's time

	explained map[explained]bool // suspects of whom a smaller one did nearly all
}

func (g *gathering) missing(section string, err error) {
	if one := (report.Missing{Section: section, Why: err.Error()}); !slices.Contains(g.out.Missing, one) {
		g.out.Missing = append(g.out.Missing, one)
	}
}

func (g *gathering) change(level report.Level, kind, what, by, text string, count int64, at time.Time) {
	g.out.Changes = append(g.out.Changes, report.Change{Level: level, Kind: kind, What: what, By: by, Text: text, Count: count, At: g.at(at)})
}

// at is a time in the server's zone; none stays none.
func (g *gathering) at(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.In(g.now.Location())
}

// today reports whether something happened in the report's time.
func (g *gathering) today(at time.Time) bool {
	return !at.Before(g.out.Since) && at.Before(g.out.Until)
}

const (
	trendDays = 365
	usualDays = 28
	leastDays = 3 // below which nothing is "usual"
)

// mail counts by verdict: the day, the days before it in the server's zone, and what
// is usual.
func (g *gathering) mail(ctx context.Context) {
	volumes, err := g.sources.journal.Volumes(ctx, startOfDay(g.now).AddDate(0, 0, -trendDays), g.out.Until)
	if err != nil {
		g.missing("mail", err)
		return
	}
	m := &g.out.Mail
	m.Unseen = g.sources.dropped
	var usual report.Verdicts
	days := map[time.Time]*report.DayMail{}
	usualSince := g.out.Since.AddDate(0, 0, -usualDays)
	for _, v := range volumes {
		at := v.Start.In(g.now.Location())
		if g.out.First.IsZero() {
			g.out.First = at
		}
		day := startOfDay(at)
		if days[day] == nil {
			days[day] = &report.DayMail{Day: day}
		}
		addVolume(&days[day].Verdicts, v)
		switch middle := at.Add(journal.VolumeSlot / 2); { // where the time begins within a quarter, the nearest
		case !middle.Before(g.out.Since):
			addVolume(&m.Total, v)
		case !at.Before(usualSince):
			addVolume(&usual, v)
		}
	}
	if g.out.First.IsZero() {
		return
	}
	for day := startOfDay(g.out.First); !day.After(g.now); day = nextDay(day) {
		d := days[day]
		if d == nil {
			d = &report.DayMail{Day: day}
		}
		m.Days = append(m.Days, *d)
	}
	m.Days = m.Days[max(0, len(m.Days)-trendDays):]
	if from := later(g.out.First, usualSince); g.out.Since.Sub(from) >= leastDays*24*time.Hour {
		n := int64(g.out.Since.Sub(from).Hours()/24 + 0.5)
		span := g.days()
		of := func(all int64) int64 { return int64(float64(all/n)*span + 0.5) }
		m.Usual = &report.Verdicts{Accepted: of(usual.Accepted), Told: of(usual.Told), Held: of(usual.Held), Deferred: of(usual.Deferred), Rejected: of(usual.Rejected)}
	}
}

// days is how long the report's time is: 1, but for one that was made late.
func (g *gathering) days() float64 {
	if days := g.out.Until.Sub(g.out.Since).Hours() / 24; days < 0.8 || days > 1.2 { // not for an hour of summer time
		return days
	}
	return 1
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// startOfDay is the first moment of a day: where clocks are put forward at midnight,
// it is 1 o'clock.
func startOfDay(t time.Time) time.Time {
	y, m, d := t.Date()
	start := time.Date(y, m, d, 0, 0, 0, 0, t.Location())
	for start.Day() != d { // time.Date may choose the hour before
		start = start.Add(time.Hour)
	}
	return start
}

func nextDay(t time.Time) time.Time {
	y, m, d := t.Date()
	return startOfDay(time.Date(y, m, d+1, 12, 0, 0, 0, t.Location()))
}

func addVolume(to *report.Verdicts, v journal.Volume) {
	switch v.Verdict {
	case policy.Hold:
		to.Held += v.Recipients
	case policy.Defer:
		to.Deferred += v.Recipients
	case policy.Reject:
		to.Rejected += v.Recipients
	case policy.Tell:
		to.Told += v.Recipients
		to.Accepted += v.Recipients
	default:
		to.Accepted += v.Recipients
	}
}

// topSenders is how many are named.
const topSenders = 10

// active names who sent most, and who sent much more than usual.
func (g *gathering) active(ctx context.Context) {
	all, err := g.sources.journal.Activity(ctx, journal.ActivityQuery{Since: g.out.Since, Until: g.out.Until, UsualDays: 14})
	if err != nil {
		g.missing("mail", err)
		return
	}
	slices.SortStableFunc(all, func(a, b journal.Activity) int {
		return cmp.Compare(b.Recipients+b.Stopped, a.Recipients+a.Stopped)
	})
	m := &g.out.Mail
	for i := range all {
		a := &all[i]
		s := senderOf(a)
		if g.out.Mail.Usual == nil { // too few days
			s.Usual = -1
		}
		switch a.By {
		case journal.ByAccount:
			m.Sent, m.Bounced, m.Deferred = m.Sent+a.Sent, m.Bounced+a.Bounced, m.Deferred+a.Deferred
			fallthrough
		case journal.BySite:
			if len(g.out.Senders) < topSenders {
				g.out.Senders = append(g.out.Senders, s)
			}
		case journal.ByPlugin:
			if len(g.out.Plugins) < topSenders {
				g.out.Plugins = append(g.out.Plugins, s)
			}
		default:
			continue
		}
		if s.Usual >= 0 && s.Recipients >= 100 && float64(s.Recipients) > 3*a.Usual && float64(s.Recipients) > a.UsualMost {
			g.change(report.Look, report.ChangeVolume, s.Name, s.Kind, fmt.Sprint(s.Usual), s.Recipients, g.out.Until)
		}
	}
}

// senderOf is an activity as the report has it.
func senderOf(a *journal.Activity) report.Sender {
	s := report.Sender{Kind: string(a.By), Name: a.Name(), Messages: a.Messages, Recipients: a.Recipients, Usual: usual(a.Usual), Stopped: a.Stopped, Bounced: a.Bounced}
	return s
}

// held counts what waits, by account and rule.
func (g *gathering) held(ctx context.Context) {
	open, err := g.sources.journal.Holds(ctx, journal.HoldQuery{})
	if err != nil {
		g.missing("held", err)
		return
	}
	h := &g.out.Held
	h.Foreign = g.sources.foreign
	type name struct{ account, rule string }
	by, fresh := map[name]*report.HeldBy{}, int64(0)
	for _, o := range open {
		h.Messages++
		h.Bytes += o.Size
		if h.Oldest.IsZero() || o.HeldAt.Before(h.Oldest) {
			h.Oldest = o.HeldAt
		}
		n := name{o.Account, o.Rule}
		b := by[n]
		if b == nil {
			b = &report.HeldBy{Account: o.Account, Rule: o.Rule, Oldest: o.HeldAt}
			by[n] = b
		}
		b.Messages++
		if o.HeldAt.Before(b.Oldest) {
			b.Oldest = o.HeldAt
		}
		if g.today(o.HeldAt) {
			fresh++
		}
	}
	for _, b := range by {
		b.Oldest = g.at(b.Oldest)
		h.By = append(h.By, *b)
	}
	slices.SortFunc(h.By, func(a, b report.HeldBy) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Account, b.Account), strings.Compare(a.Rule, b.Rule))
	})
	h.Oldest = g.at(h.Oldest)
	if fresh > 0 {
		g.change(report.Look, report.ChangeHeld, "", "", "", fresh, g.out.Until)
	}
	closed, err := g.sources.journal.Holds(ctx, journal.HoldQuery{States: []journal.State{journal.StateReleased, journal.StateDeleted}, HeldAfter: g.out.Since.AddDate(0, 0, -usualDays)})
	if err != nil {
		g.missing("held", err)
		return
	}
	for _, c := range closed {
		switch {
		case !g.today(c.Changed):
		case c.State == journal.StateReleased:
			h.Released++
		default:
			h.Deleted++
		}
	}
}

// incidents lists those that are open, and those of the day.
func (g *gathering) incidents(ctx context.Context) {
	all, err := g.sources.journal.Incidents(ctx, false)
	if err != nil {
		g.missing("incidents", err)
		return
	}
	for _, i := range all {
		if !i.Closed.IsZero() && !g.today(i.Closed) && !g.today(i.Opened) {
			continue
		}
		g.out.Incidents = append(g.out.Incidents, report.Incident{ID: i.ID, Origin: i.Origin, Cause: i.Cause, Opened: g.at(i.Opened), Closed: g.at(i.Closed), Stops: i.Stops, Recipients: i.Recipients})
		if g.today(i.Opened) {
			g.change(report.Look, report.ChangeIncident, i.Origin, i.Cause, "", i.Recipients, i.Opened)
		}
		if g.today(i.Closed) {
			g.change(report.Good, report.ChangeClosed, i.Origin, i.Cause, "", 0, i.Closed)
		}
	}
}

// degraded lists when something of the guard was not well.
func (g *gathering) degraded(ctx context.Context) {
	all, err := g.sources.journal.Troubles(ctx, g.out.Since, g.out.Until)
	if err != nil {
		g.missing(report.SectionGuard, err)
		return
	}
	for _, t := range all {
		g.out.Degraded = append(g.out.Degraded, report.Span{What: t.What, Why: t.Why, Since: g.at(t.Since), Until: g.at(t.Until)})
		level := report.Notice
		if t.Until.IsZero() {
			level = report.Look
		}
		g.change(level, report.ChangeDegraded, t.What, "", t.Why, 0, t.Since)
	}
}

// acts puts what admins switched among the changes.
func (g *gathering) acts(ctx context.Context) {
	var err error
	if g.actions, err = g.sources.journal.AdminActions(ctx, journal.DefaultLimit*10); err != nil {
		g.missing(report.SectionChanges, err)
		return
	}
	kinds := map[string]string{"suspend": report.ChangeSuspended, "resume": report.ChangeResumed, "stop": report.ChangeStopped, "start": report.ChangeStarted}
	for _, a := range g.actions {
		if kind := kinds[a.Verb]; kind != "" && g.today(a.Time) {
			g.change(report.Notice, kind, a.Target, a.By, a.Reason, 0, a.Time)
		}
	}
}

func (g *gathering) suspended() {
	for i := range g.sources.switches {
		sw := &g.sources.switches[i]
		if sw.Kind == policy.Stop {
			g.out.Stopped = &report.Span{What: sw.By, Why: sw.Reason, Since: g.at(sw.Since)}
		}
		if sw.Kind == policy.Suspend {
			g.out.Suspended = append(g.out.Suspended, report.Suspended{Name: accountName(sw), By: sw.By, Reason: sw.Reason, Since: g.at(sw.Since), Until: g.at(sw.Until)})
		}
	}
}
