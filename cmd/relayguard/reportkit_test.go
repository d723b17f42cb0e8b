package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/report"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
)

// reportScene is what a report is made of: a journal, a history of listings, and what
// the daemon adds. It is morning in Japan.
type reportScene struct {
	t       *testing.T
	journal *journal.Journal
	history *history.Store
	sources *reportSources
	now     time.Time
	n       int
	seen    map[string]bool // zones with their subjects of which there was a round
}

const sceneConfirm = 10 * time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newReportScene(t *testing.T) *reportScene {
	t.Helper()
	return reportSceneAt(t, time.Date(2026, 3, 2, 6, 30, 0, 400_000_000, zoneOf(t, "Asia/Tokyo")))
}

func zoneOf(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	must(t, err)
	return loc
}

func reportSceneAt(t *testing.T, now time.Time) *reportScene {
	t.Helper()
	dir, long := t.TempDir(), 100*365*24*time.Hour
	j, err := journal.Open(t.Context(), journal.Options{Dir: filepath.Join(dir, "journal"), Retention: journal.Retention{Addresses: long, Totals: long, Actions: long}, MinFree: 1, Settle: time.Minute})
	must(t, err)
	t.Cleanup(func() { j.Close() })
	h, err := history.Open(t.Context(), filepath.Join(dir, "blocklists"), history.Options{Confirm: sceneConfirm, Keep: long})
	must(t, err)
	t.Cleanup(func() { h.Close() })
	c := config.Default()
	return &reportScene{t: t, journal: j, history: h, now: now, seen: map[string]bool{}, sources: &reportSources{config: c, journal: j, history: h, watched: true, off: map[string]string{}}}
}

// ago is so long before the report.
func (s *reportScene) ago(d time.Duration) time.Time { return s.now.Add(-d) }

// sent has a message decided about; change may be nil.
func (s *reportScene) sent(at time.Time, account string, recipients int, change func(*journal.Decision)) journal.Decision {
	s.t.Helper()
	s.n++
	d := journal.Decision{ID: fmt.Sprintf("%026d", s.n), Time: at, Stage: journal.StageMessage, Verdict: policy.Accept, Phase: policy.Observe, Listener: "local", Role: policy.Local,
		Account: account, UID: -1, QueueID: fmt.Sprintf("A%07X", s.n), MailFrom: "x@example.jp", Recipients: recipients, Size: 1000}
	if change != nil {
		change(&d)
	}
	must(s.t, s.journal.Append(d))
	return d
}

// by is mail of a web site, of one of its plugins.
func by(site, plugin string) func(*journal.Decision) {
	return func(d *journal.Decision) {
		d.Site, d.SiteBy, d.Plugin, d.PluginBy = site, "signed", plugin, "signed"
	}
}

func held(rule string) func(*journal.Decision) {
	return func(d *journal.Decision) { d.Verdict, d.Rule, d.Reason = policy.Hold, rule, "too many" }
}

// shareAbuse is a shop whose orders go out as ever, for so many days, and of which the
// share button wrote to many until that time. Another site does what it does.
func (s *reportScene) shareAbuse(until time.Time, days int) {
	for day := 1; day <= days; day++ {
		at := until.Add(-time.Duration(day)*24*time.Hour - time.Hour)
		s.sent(at, "local_user:shop", 20, by("shop.example.jp", "orders"))
		s.sent(at, "local_user:shop", 2, by("shop.example.jp", "share"))
		s.sent(at, "local_user:news", 400, by("news.example.jp", "newsletter"))
	}
	s.sent(until.Add(-3*time.Hour), "local_user:shop", 20, by("shop.example.jp", "orders"))
	s.sent(until.Add(-3*time.Hour), "local_user:news", 400, by("news.example.jp", "newsletter"))
	for i := range 20 {
		d := s.sent(until.Add(-2*time.Hour+time.Duration(i)*time.Minute), "local_user:shop", 50, by("shop.example.jp", "share"))
		must(s.t, s.journal.Append(journal.Delivery{QueueID: d.QueueID, Time: d.Time.Add(time.Second), Status: "sent", N: 44}, journal.Delivery{QueueID: d.QueueID, Time: d.Time.Add(time.Second), Status: "bounced", N: 6}))
	}
}

// hit is a code of a list.
func hit(last byte, severity rbl.Severity, scope rbl.Scope) rbl.Hit {
	return rbl.Hit{Code: netip.AddrFrom4([4]byte{127, 0, 0, last}), Means: fmt.Sprintf("means %d", last), Severity: severity, Scope: scope}
}

// round is one in which healthy zones say this of subjects.
func (s *reportScene) round(at time.Time, answers ...rbl.Answer) {
	s.t.Helper()
	s.roundOf(at, nil, answers...)
}

func (s *reportScene) roundOf(at time.Time, sick map[string]rbl.State, answers ...rbl.Answer) {
	s.t.Helper()
	r := check.Round{Began: at, Took: time.Second, Queries: int64(len(answers))}
	var subjects []rbl.Subject
	var zones []rbl.Zone
	seen := map[string]bool{}
	for _, a := range answers {
		a.At, a.Resolver = at, "127.0.0.1:53"
		if a.Result == rbl.Listed {
			a.Reasons = []string{"seen " + a.Zone}
		}
		r.Answers, subjects, zones = append(r.Answers, a), append(subjects, a.Subject), append(zones, rbl.Zone{Name: a.Zone})
		if key := a.Zone + fmt.Sprint(a.Subject.Kind()); !seen[key] {
			seen[key] = true
			h := rbl.Health{Zone: a.Zone, Kind: a.Subject.Kind(), State: rbl.Healthy, At: at}
			if state, is := sick[a.Zone]; is {
				h.State, h.Why = state, "it is so"
			}
			r.Zones = append(r.Zones, h)
		}
	}
	must(s.t, s.history.Take(s.t.Context(), r, subjects, zones))
}

// checked has our address looked at lately, and clean.
func (s *reportScene) checked() {
	s.t.Helper()
	s.round(s.ago(time.Hour), isClean(ourAddr, "checked.example"))
}

// listed has subjects listed since that time, and confirmed. They were clean before.
func (s *reportScene) listed(since time.Time, answers ...rbl.Answer) {
	s.t.Helper()
	var before []rbl.Answer
	for _, a := range answers {
		if key := a.Zone + " " + a.Subject.String(); !s.seen[key] {
			s.seen[key] = true
			before = append(before, isClean(a.Subject, a.Zone))
		}
	}
	if len(before) > 0 {
		s.round(since.Add(-time.Hour), before...)
	}
	s.round(since, answers...)
	s.round(since.Add(sceneConfirm), answers...)
}

func isListed(subject rbl.Subject, zone string, hits ...rbl.Hit) rbl.Answer {
	return rbl.Answer{Zone: zone, Subject: subject, Result: rbl.Listed, Hits: hits}
}

func isClean(subject rbl.Subject, zone string) rbl.Answer {
	return rbl.Answer{Zone: zone, Subject: subject, Result: rbl.Clean}
}

// report makes it.
func (s *reportScene) report() *report.Report {
	s.t.Helper()
	must(s.t, s.journal.Sync(s.t.Context()))
	if s.sources.journal == nil {
		return gatherReport(s.t.Context(), s.now, s.sources)
	}
	r := gatherReport(s.t.Context(), s.now, s.sources)
	for _, form := range []string{"txt", "html", "json"} { // it can be shown, whatever is in it
		for _, lang := range report.Languages {
			var out strings.Builder
			if err := writeReport(&out, r, form, lang); err != nil || out.Len() == 0 {
				s.t.Errorf("%s in %s: %v", form, lang, err)
			}
			if strings.Contains(out.String(), "NaN") || form == "json" && strings.Contains(out.String(), ": null") {
				s.t.Errorf("%s in %s: %s", form, lang, out.String())
			}
		}
	}
	return r
}

// known has the report know lists of its own.
func (s *reportScene) known(zones string) {
	s.t.Helper()
	path, _ := listsOf(s.t, zones, "", nil)
	s.sources.lists = askingBy(s.t, path)
}

// askingBy is what a configuration says of blocklists.
func askingBy(t *testing.T, path string) *asking {
	t.Helper()
	c, err := config.Load(path)
	must(t, err)
	a := &asking{}
	must(t, a.choose(c))
	must(t, a.resolve(c))
	return a
}

// stepsOf are the kinds of steps, each with whom it is about.
func stepsOf(r *report.Report) (all []string) {
	for _, s := range r.Steps {
		all = append(all, strings.TrimSpace(s.Kind+" "+s.What))
	}
	return all
}

func changesOf(r *report.Report) (all []string) {
	for _, c := range r.Changes {
		all = append(all, fmt.Sprintf("%d %s %s", c.Level, c.Kind, c.What))
	}
	return all
}

func missingIn(r *report.Report) (all []string) {
	for _, m := range r.Missing {
		all = append(all, m.Section)
	}
	return all
}

// exitOf is the exit status of a report.
func exitOf(t *testing.T, r *report.Report) int {
	t.Helper()
	err := reportExit(r)
	var exit *exitError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &exit):
		return exit.code
	}
	t.Fatal(err)
	return 0
}

// brokenJournal knows nothing of what it is asked.
type brokenJournal struct {
	reportJournal
	activity, volumes, troubles, holds, incidents, actions bool
}

var errBroken = errors.New("database is locked")

func (b brokenJournal) Activity(ctx context.Context, q journal.ActivityQuery) ([]journal.Activity, error) {
	if b.activity {
		return nil, errBroken
	}
	return b.reportJournal.Activity(ctx, q)
}

func (b brokenJournal) Volumes(ctx context.Context, since, until time.Time) ([]journal.Volume, error) {
	if b.volumes {
		return nil, errBroken
	}
	return b.reportJournal.Volumes(ctx, since, until)
}

func (b brokenJournal) Troubles(ctx context.Context, since, until time.Time) ([]journal.Trouble, error) {
	if b.troubles {
		return nil, errBroken
	}
	return b.reportJournal.Troubles(ctx, since, until)
}

func (b brokenJournal) Holds(ctx context.Context, q journal.HoldQuery) ([]journal.Hold, error) {
	if b.holds {
		return nil, errBroken
	}
	return b.reportJournal.Holds(ctx, q)
}

func (b brokenJournal) Incidents(ctx context.Context, openOnly bool) ([]journal.Incident, error) {
	if b.incidents {
		return nil, errBroken
	}
	return b.reportJournal.Incidents(ctx, openOnly)
}

func (b brokenJournal) AdminActions(ctx context.Context, limit int) ([]journal.AdminAction, error) {
	if b.actions {
		return nil, errBroken
	}
	return b.reportJournal.AdminActions(ctx, limit)
}
