package main

import (
	"slices"
	"testing"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/rbl"
)

func TestReportOfNothingIsNoReportOfZero(t *testing.T) {
	s := newReportScene(t)
	s.checked()
	r := s.report()
	if len(r.Missing) > 0 || !r.First.IsZero() || r.Mail.Usual != nil || len(r.Changes) > 0 || exitOf(t, r) != exitFine {
		t.Errorf("an empty journal: missing %q, %+v", missingIn(r), r.Mail)
	}
	s.sources.journal, s.sources.history, s.sources.off = nil, nil, map[string]string{report.SectionMail: "disk on fire", report.SectionBlocklists: "nothing is there"}
	r = s.report()
	want := []string{report.SectionBlocklists, report.SectionCause, report.SectionChanges, report.SectionDeliveries, report.SectionGuard, report.SectionHeld, report.SectionIncidents, report.SectionMail}
	if got := missingIn(r); !slices.Equal(got, want) || r.Missing[0].Why != "nothing is there" || r.Missing[1].Why != "disk on fire" || exitOf(t, r) != exitCannotTell {
		t.Errorf("without a journal: missing %+v, want %q", r.Missing, want)
	}
}

func TestReportSaysWhichPartOfTheJournalCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		broken brokenJournal
		want   string
	}{
		"activity":  {brokenJournal{activity: true}, report.SectionMail},
		"volumes":   {brokenJournal{volumes: true}, report.SectionMail},
		"troubles":  {brokenJournal{troubles: true}, report.SectionGuard},
		"holds":     {brokenJournal{holds: true}, report.SectionHeld},
		"incidents": {brokenJournal{incidents: true}, report.SectionIncidents},
		"actions":   {brokenJournal{actions: true}, report.SectionChanges},
	} {
		s := newReportScene(t)
		s.checked()
		c.broken.reportJournal = s.journal
		s.sources.journal = c.broken
		r := s.report()
		if got := missingIn(r); !slices.Equal(got, []string{c.want}) || r.Missing[0].Why != errBroken.Error() || exitOf(t, r) != exitCannotTell {
			t.Errorf("%s: missing %+v, want %s", name, r.Missing, c.want)
		}
	}
}

// The report is made a moment after its time; mail of the first quarter of an hour is
// in one of two reports, and not in none. Review of part L: it was in none.
func TestReportCountsEachMailOnOneDay(t *testing.T) {
	s := newReportScene(t)
	day := time.Date(2026, 3, 1, 6, 30, 0, 0, s.now.Location())
	send := func(all ...time.Duration) {
		for _, after := range all {
			s.sent(day.Add(after), "login:taro@example.jp", 1, nil)
		}
	}
	send(-25*time.Hour, -time.Second)
	s.now = s.now.AddDate(0, 0, -1)
	before := s.report().Mail.Total.Accepted
	send(time.Second, 14*time.Minute, 12*time.Hour, 24*time.Hour-time.Second)
	s.now = s.now.AddDate(0, 0, 1)
	if today := s.report().Mail.Total.Accepted; today != 4 || before != 1 {
		t.Errorf("%d of today and %d of the day before, want 4 and 1", today, before)
	}
}

func TestReportCountsByVerdict(t *testing.T) {
	s := newReportScene(t)
	for v, n := range map[policy.Verdict]int{policy.Accept: 1, policy.Tell: 2, policy.Hold: 4, policy.Defer: 8, policy.Reject: 16} {
		s.sent(s.ago(time.Hour), "login:taro@example.jp", n, func(d *journal.Decision) { d.Verdict, d.Rule = v, "volume" })
	}
	s.sources.dropped, s.sources.foreign = 7, 3
	r := s.report()
	if want := (report.Verdicts{Accepted: 3, Told: 2, Held: 4, Deferred: 8, Rejected: 16}); r.Mail.Total != want || r.Mail.Unseen != 7 || r.Held.Foreign != 3 {
		t.Errorf("%+v, want %+v", r.Mail, want)
	}
	if got := r.Senders[0]; got.Recipients != 3 || got.Stopped != 28 || got.Name != "login:taro@example.jp" || got.Usual != -1 {
		t.Errorf("%+v", got)
	}
}

// What is usual is not said before three days are known, and nothing stands out then.
func TestReportKnowsWhatIsUsualAfterThreeDays(t *testing.T) {
	for days, want := range map[int]int64{0: -1, 1: -1, 2: -1, 3: 100, 20: 100} {
		s := newReportScene(t)
		for d := 1; d <= days; d++ {
			s.sent(s.now.AddDate(0, 0, -d).Add(-12*time.Hour), "login:taro@example.jp", 100, nil)
		}
		s.sent(s.ago(23*time.Hour), "login:taro@example.jp", 500, nil)
		r := s.report()
		if days > 0 {
			s.sent(s.now.AddDate(0, 0, -days-1), "login:hanako@example.jp", 100, nil) // so that so many whole days are known
			r = s.report()
		}
		got := r.Senders[0].Usual
		if (got >= 0) != (want >= 0) || (r.Mail.Usual != nil) != (want >= 0) {
			t.Errorf("after %d days: %d, %+v", days, got, r.Mail.Usual)
		}
		if stands := slices.Contains(changesOf(r), "2 volume login:taro@example.jp"); stands != (want >= 0) {
			t.Errorf("after %d days: changes %q", days, changesOf(r))
		}
	}
}

func TestReportHasADayForEachDayOfTheServersZone(t *testing.T) {
	for zone, c := range map[string]struct {
		end  time.Time // in that zone, 6:30
		days int
	}{
		"Asia/Tokyo":       {time.Date(2026, 3, 10, 6, 30, 0, 0, time.UTC), 9},
		"Europe/Berlin":    {time.Date(2026, 4, 1, 6, 30, 0, 0, time.UTC), 9},  // 29 March has 23 hours
		"America/New_York": {time.Date(2026, 11, 4, 6, 30, 0, 0, time.UTC), 9}, // 1 November has 25
		"America/Santiago": {time.Date(2026, 9, 10, 6, 30, 0, 0, time.UTC), 9}, // 6 September begins at 1:00
		"Africa/Cairo":     {time.Date(2026, 4, 28, 6, 30, 0, 0, time.UTC), 9}, // 24 April likewise
		"Asia/Kathmandu":   {time.Date(2026, 3, 10, 6, 30, 0, 0, time.UTC), 9}, // +05:45
	} {
		loc := zoneOf(t, zone)
		y, m, d := c.end.Date()
		s := reportSceneAt(t, time.Date(y, m, d, 6, 30, 0, 0, loc))
		for back := range c.days {
			for _, hour := range []int{1, 12, 23} {
				if at := time.Date(y, m, d-back, hour, 50, 0, 0, loc); at.Before(s.now) {
					s.sent(at, "login:taro@example.jp", 1, nil)
					s.round(at, isClean(ourAddr, "bl.example"))
				}
			}
		}
		r := s.report()
		if len(r.Mail.Days) != c.days || len(r.Addresses[0].Days) != c.days {
			t.Errorf("%s: %d days of mail, %d of lists, want %d", zone, len(r.Mail.Days), len(r.Addresses[0].Days), c.days)
			continue
		}
		for i, day := range r.Mail.Days {
			want := int64(3)
			if i == c.days-1 {
				want = 1
			}
			if date := time.Date(y, m, d-c.days+1+i, 12, 0, 0, 0, loc).Format(reportDay); day.Day.Format(reportDay) != date || day.Accepted != want {
				t.Errorf("%s: %d on %s, want %d on %s", zone, day.Accepted, day.Day, want, date)
			}
			if state := r.Addresses[0].Days[i]; state.State != "clean" {
				t.Errorf("%s: %q on %s", zone, state.State, state.Day)
			}
		}
		if r.Mail.Usual == nil || r.Mail.Usual.Accepted < 2 || r.Mail.Usual.Accepted > 3 {
			t.Errorf("%s: usual %+v", zone, r.Mail.Usual)
		}
	}
}

func TestReportCountsWhatIsHeldReleasedAndDeleted(t *testing.T) {
	s := newReportScene(t)
	change := func(d journal.Decision, at time.Time, state journal.State) {
		must(t, s.journal.Append(journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: at, State: state, By: "root"}))
	}
	old := s.sent(s.ago(50*time.Hour), "login:taro@example.jp", 1, held("volume"))
	s.sent(s.ago(5*time.Hour), "login:taro@example.jp", 1, held("volume"))
	s.sent(s.ago(4*time.Hour), "login:taro@example.jp", 1, held("abuse"))
	s.sent(s.ago(3*time.Hour), "login:hanako@example.jp", 1, held("volume"))
	change(s.sent(s.ago(60*time.Hour), "login:taro@example.jp", 1, held("volume")), s.ago(2*time.Hour), journal.StateReleased)
	change(s.sent(s.ago(3*time.Hour), "login:taro@example.jp", 1, held("volume")), s.ago(2*time.Hour), journal.StateReleased)
	change(s.sent(s.ago(60*time.Hour), "login:taro@example.jp", 1, held("volume")), s.ago(40*time.Hour), journal.StateReleased) // the day before
	change(s.sent(s.ago(3*time.Hour), "login:taro@example.jp", 1, held("volume")), s.ago(time.Hour), journal.StateDeleted)
	r := s.report()
	h := r.Held
	if h.Messages != 4 || h.Bytes != 4000 || h.Released != 2 || h.Deleted != 1 || !h.Oldest.Equal(old.Time.Truncate(time.Microsecond)) {
		t.Errorf("%+v", h)
	}
	if len(h.By) != 3 || h.By[0].Account != "login:taro@example.jp" || h.By[0].Rule != "volume" || h.By[0].Messages != 2 || h.By[1].Account != "login:hanako@example.jp" {
		t.Errorf("%+v", h.By)
	}
	if got := changesOf(r); !slices.Equal(got, []string{"2 held"}) && !slices.Equal(got, []string{"2 held "}) || r.Changes[0].Count != 3 {
		t.Errorf("%q", got)
	}
	if got := stepsOf(r); !slices.Equal(got, []string{"held"}) {
		t.Errorf("%q", got)
	}
}

func TestReportTellsWhatWasSwitchedOpenedAndNotWell(t *testing.T) {
	s := newReportScene(t)
	must(t, s.journal.Append(
		journal.AdminAction{Time: s.ago(3 * time.Hour), By: "root", Verb: "suspend", Target: "login:taro@example.jp", Reason: "stolen"},
		journal.AdminAction{Time: s.ago(30 * time.Hour), By: "root", Verb: "suspend", Target: "login:hanako@example.jp", Reason: "the day before"},
		journal.AdminAction{Time: s.ago(2 * time.Hour), By: "root", Verb: "stop", Reason: "spam run"},
		journal.Incident{ID: "I1", Origin: "login:taro@example.jp", Cause: "volume", Opened: s.ago(5 * time.Hour), Stops: 3, Recipients: 40, State: []byte("{}")},
		journal.Incident{ID: "I2", Origin: "login:jiro@example.jp", Cause: "volume", Opened: s.ago(50 * time.Hour), Closed: s.ago(4 * time.Hour), State: []byte("{}")},
		journal.Incident{ID: "I3", Origin: "login:old@example.jp", Cause: "volume", Opened: s.ago(90 * time.Hour), Closed: s.ago(80 * time.Hour), State: []byte("{}")},
		journal.Trouble{What: "redis", Why: "away", Since: s.ago(9 * time.Hour), Until: s.ago(8 * time.Hour)},
		journal.Trouble{What: "queue", Why: "no helper", Since: s.ago(time.Hour)},
		journal.Trouble{What: "journal", Why: "full", Since: s.ago(60 * time.Hour), Until: s.ago(50 * time.Hour)},
	))
	s.sources.switches = []policy.Switch{{Kind: policy.Stop, By: "root", Reason: "spam run", Since: s.ago(2 * time.Hour)}, {Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: "taro@example.jp", By: "root", Reason: "stolen", Since: s.ago(3 * time.Hour)}}
	r := s.report()
	want := []string{"2 degraded queue", "2 incident login:taro@example.jp", "1 stopped ", "1 suspension login:taro@example.jp", "1 degraded redis", "0 closed login:jiro@example.jp"}
	if got := changesOf(r); !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if len(r.Incidents) != 2 || len(r.Suspended) != 1 || r.Suspended[0].Name != "login:taro@example.jp" || len(r.Degraded) != 2 || r.Stopped == nil || r.Stopped.Why != "spam run" {
		t.Errorf("%+v %+v %+v %+v", r.Incidents, r.Suspended, r.Degraded, r.Stopped)
	}
	if got, want := stepsOf(r), []string{"degraded queue", "incident login:taro@example.jp"}; !slices.Equal(got, want) || r.Steps[1].Command != "relayguard incident show I1" {
		t.Errorf("steps %+v, want %q", r.Steps, want)
	}
}

// Review of part L: a report with steps to be taken now exited with 0.
func TestReportExitsByWhatIsToBeDone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*report.Report)
		code   int
	}{
		"nothing":                  {func(*report.Report) {}, exitFine},
		"all mail is stopped":      {func(r *report.Report) { r.Stopped = &report.Span{} }, exitFinding},
		"an incident is open":      {func(r *report.Report) { r.Incidents = []report.Incident{{ID: "x"}} }, exitFinding},
		"an incident is over":      {func(r *report.Report) { r.Incidents = []report.Incident{{ID: "x", Closed: time.Now()}} }, exitFine},
		"a forwarding rule is due": {func(r *report.Report) { r.Forwards.Due = 1 }, exitFinding},
		"a change to act on":       {func(r *report.Report) { r.Changes = []report.Change{{Level: report.Act}} }, exitFinding},
		"a change to look at":      {func(r *report.Report) { r.Changes = []report.Change{{Level: report.Look}} }, exitFine},
		"listed": {func(r *report.Report) {
			r.Listings = []report.Listing{{Confirmed: true, Severity: rbl.Low}}
			r.Missing = []report.Missing{{Section: report.SectionMail}}
		}, exitFinding},
		"not confirmed": {func(r *report.Report) { r.Listings = []report.Listing{{Severity: rbl.Critical}} }, exitFine},
		"a range": {func(r *report.Report) {
			r.Listings = []report.Listing{{Confirmed: true, Severity: rbl.Critical, Scope: rbl.ScopeRange}}
		}, exitFine},
		"not known":          {func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionBlocklists}} }, exitCannotTell},
		"nothing is checked": {func(r *report.Report) { r.Addresses = nil }, exitCannotTell},
		"nobody answered":    {func(r *report.Report) { r.Addresses[0].Clean, r.Addresses[0].Unknown = 0, 30 }, exitCannotTell},
		"a list that weighs is wild": {func(r *report.Report) {
			r.Zones = report.ZoneCounts{Asked: 9, Healthy: 8, Trouble: []report.ZoneTrouble{{Zone: "high.example", State: rbl.Wild, Severity: rbl.High}}}
		}, exitCannotTell},
		"an address is not known": {func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionAddresses}} }, exitCannotTell},
		"a remark about lists":    {func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionLists}} }, exitFine},
		"deliveries not read":     {func(r *report.Report) { r.Missing = []report.Missing{{Section: report.SectionDeliveries}} }, exitFine},
	} {
		r := emptyReport(time.Now())
		r.Addresses = []report.Checked{{Subject: "203.0.113.5", Clean: 30, At: r.Made.Add(-time.Hour)}}
		c.change(r)
		if got := exitOf(t, r); got != c.code {
			t.Errorf("%s: exit %d, want %d", name, got, c.code)
		}
	}
}

func TestReportTellsForwardingRules(t *testing.T) {
	s := newReportScene(t)
	entry := func(owner string, since time.Time, status ledger.Status, action ledger.Action) ledger.Entry {
		f := forward.Finding{Owner: owner, Mechanism: forward.Virtual, Target: "x@evil.test", Verdict: forward.Outside, Mode: forward.Redirect, Chain: []string{owner}}
		f.ID = forward.FindingID(owner, f.Mechanism, f.Target, f.Mode)
		return ledger.Entry{Finding: f, Status: status, Action: action, Since: since, First: since}
	}
	gone := entry("gone@corp.test", s.ago(90*time.Hour), ledger.New, ledger.Alert)
	gone.Gone = s.ago(time.Hour)
	s.sources.entries = []ledger.Entry{
		entry("due@corp.test", s.ago(2*time.Hour), ledger.New, ledger.Alert), entry("olddue@corp.test", s.ago(90*time.Hour), ledger.New, ledger.Alert),
		entry("note@corp.test", s.ago(3*time.Hour), ledger.New, ledger.Digest), entry("there@corp.test", s.ago(900*time.Hour), ledger.Existing, ledger.Digest), gone,
	}
	r := s.report()
	f := r.Forwards
	if !f.Watched || f.Known != 4 || f.Due != 2 || f.Unreviewed != 1 || len(f.New) != 3 || f.New[0].Owner != "due@corp.test" || f.New[2].Owner != "note@corp.test" {
		t.Errorf("%+v", f)
	}
	if got, want := changesOf(r), []string{"3 forward due@corp.test", "1 forward note@corp.test", "0 forward_gone gone@corp.test"}; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	if got, want := stepsOf(r), []string{"forwards due@corp.test", "forwards olddue@corp.test"}; !slices.Equal(got, want) || exitOf(t, r) != exitFinding {
		t.Errorf("steps %q, want %q", got, want)
	}
	s.sources.entries = nil
	for range maxForwards + 5 {
		s.sources.entries = append(s.sources.entries, entry("note@corp.test", s.ago(time.Hour), ledger.New, ledger.Digest))
	}
	if r := s.report(); len(r.Forwards.New) != maxForwards || r.Forwards.More != 5 || !slices.Equal(stepsOf(r), []string{"forwards"}) {
		t.Errorf("%d and %d more; steps %q", len(r.Forwards.New), r.Forwards.More, stepsOf(r))
	}
}
