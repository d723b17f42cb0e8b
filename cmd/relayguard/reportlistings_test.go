package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/report"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

// strictList is a list of which one code has to go before others can.
const strictList = `
[[zone]]
name = "strict.example"
operator = "Strict"
kinds = ["ip4"]
severity = "high"
scope = "ip"
default = "on"
status = "verified"
codes = [
  { code = "127.0.0.2", means = "means 2", how = ["isp"] },
  { code = "127.0.0.3", means = "means 3" },
]
removal = { url = "https://strict.example/remove", how = ["form"], first = "127.0.0.2" }
`

func TestReportOfAnAbuseStopsTheCauseBeforeItProvesAndProvesBeforeItAsks(t *testing.T) {
	s := newReportScene(t)
	s.known(strictList)
	first := s.ago(5 * time.Hour)
	s.shareAbuse(first, 14)
	s.listed(first, isListed(ourAddr, "strict.example", hit(3, rbl.High, rbl.ScopeAddress)))
	r := s.report()
	if got, want := stepsOf(r), []string{"suspend share@shop.example.jp", "prove share@shop.example.jp", "removal 203.0.113.5"}; !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
	if len(r.Listings) != 1 || !r.Listings[0].Searched || len(r.Listings[0].Suspects) == 0 {
		t.Fatalf("%+v", r.Listings)
	}
	l := r.Listings[0]
	if l.Operator != "Strict" || l.Means != "means 3" || !l.Confirmed || !slices.Equal(l.Reasons, []string{"seen strict.example"}) || l.Since.String() != first.Truncate(time.Microsecond).String() {
		t.Errorf("%+v", l)
	}
	x := l.Suspects[0]
	if x.Kind != "plugin" || x.Name != "share@shop.example.jp" || x.Recipients != 1000 || x.Usual != 2 || x.Bounced != 120 || x.Command != "relayguard suspend plugin:share@shop.example.jp --reason 'before a blocklisting'" {
		t.Errorf("%+v", x)
	}
	if prove := r.Steps[1]; prove.By != report.BySuspect || prove.Command != "relayguard origins show plugin:share@shop.example.jp --since 1h" {
		t.Errorf("%+v", prove)
	}
	if r.Steps[0].Command != x.Command || r.Steps[2].URL != "https://strict.example/remove" || r.Steps[2].Text != "form" {
		t.Errorf("%+v", r.Steps)
	}
	if i := slices.IndexFunc(l.Suspects, func(x report.Suspect) bool { return x.Name == "local_user:news" }); i >= 0 {
		t.Errorf("a newsletter that goes out each day is suspected: %+v", l.Suspects[i])
	}
	if exitOf(t, r) != exitFinding {
		t.Error("a listing exits otherwise than 1")
	}
}

// Review of part L: with its plugin the whole shop was to be suspended, too.
func TestReportSuspendsNoMoreThanItMust(t *testing.T) {
	for name, c := range map[string]struct {
		suspended policy.Switch
		want      []string
	}{
		"the site is suspended": {policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectSite, Value: "shop.example.jp"}, nil},
		"the plugin is":         {policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectPlugin, Value: "share@shop.example.jp"}, nil},
		"somebody else is":      {policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectSite, Value: "news.example.jp"}, []string{"suspend share@shop.example.jp"}},
	} {
		s := newReportScene(t)
		first := s.ago(5 * time.Hour)
		s.shareAbuse(first, 14)
		s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
		s.sources.switches = []policy.Switch{c.suspended}
		got := slices.DeleteFunc(stepsOf(s.report()), func(s string) bool { return !strings.HasPrefix(s, "suspend") })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestReportAsksNoListForWhatWaitsForAnotherListing(t *testing.T) {
	s := newReportScene(t)
	s.known(strictList)
	s.listed(s.ago(time.Hour), isListed(ourAddr, "strict.example", hit(3, rbl.High, rbl.ScopeAddress), hit(2, rbl.High, rbl.ScopeAddress)))
	r := s.report()
	if got, want := stepsOf(r), []string{"prove 203.0.113.5", "removal 203.0.113.5"}; !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
	if r.Steps[1].Text != "isp" {
		t.Errorf("%+v", r.Steps[1])
	}
	waits := map[string]string{}
	for _, l := range r.Listings {
		waits[l.Code] = l.Waits
	}
	if waits["127.0.0.3"] != "means 2" || waits["127.0.0.2"] != "" {
		t.Errorf("waits %q", waits)
	}
	// Another address that has only the one listing waits for nothing.
	s.listed(s.ago(30*time.Minute), isListed(ourAddr, "strict.example", hit(3, rbl.High, rbl.ScopeAddress), hit(2, rbl.High, rbl.ScopeAddress)),
		isListed(ourAddr6, "strict.example", hit(3, rbl.High, rbl.ScopeAddress)))
	if got := stepsOf(s.report()); len(got) != 3 || !slices.Contains(got, "removal 2001:db8::25") {
		t.Errorf("steps %q", got)
	}
}

// What is urgent is what names our own address and harms; nobody is woken for a
// range, a network, or what only informs.
func TestReportSaysHowUrgentAListingIs(t *testing.T) {
	for name, c := range map[string]struct {
		hit    rbl.Hit
		change string
		exit   int
		prove  bool
	}{
		"critical":          {hit(2, rbl.Critical, rbl.ScopeAddress), "3 listed 203.0.113.5", exitFinding, true},
		"as in rbl.alert":   {hit(2, rbl.Medium, rbl.ScopeAddress), "3 listed 203.0.113.5", exitFinding, true},
		"below rbl.alert":   {hit(2, rbl.Low, rbl.ScopeAddress), "2 listed 203.0.113.5", exitFinding, true},
		"info":              {hit(2, rbl.Info, rbl.ScopeAddress), "1 listed 203.0.113.5", exitFine, false},
		"a range":           {hit(2, rbl.Critical, rbl.ScopeRange), "1 listed 203.0.113.5", exitFine, false},
		"the whole network": {hit(2, rbl.Critical, rbl.ScopeASN), "1 listed 203.0.113.5", exitFine, false},
	} {
		s := newReportScene(t)
		s.shareAbuse(s.ago(time.Hour), 14)
		s.listed(s.ago(time.Hour), isListed(ourAddr, "bl.example", c.hit))
		r := s.report()
		if got := changesOf(r); !slices.Contains(got, c.change) {
			t.Errorf("%s: changes %q, want %q", name, got, c.change)
		}
		if code := exitOf(t, r); code != c.exit {
			t.Errorf("%s: exit %d, want %d; missing %q", name, code, c.exit, missingIn(r))
		}
		if got := slices.Contains(stepsOf(r), "prove share@shop.example.jp"); got != c.prove {
			t.Errorf("%s: steps %q", name, stepsOf(r))
		}
		if got := len(r.Listings) == 1 && r.Listings[0].Searched; got != c.prove {
			t.Errorf("%s: it was looked for a cause: %v", name, got)
		}
	}
}

func TestReportTellsWhatIsNotConfirmedApart(t *testing.T) {
	s := newReportScene(t)
	s.round(s.ago(time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.Critical, rbl.ScopeAddress)))
	r := s.report()
	if got, want := changesOf(r), []string{"1 suspected 203.0.113.5"}; !slices.Equal(got, want) || len(r.Listings) != 1 || r.Listings[0].Confirmed || len(r.Steps) > 0 || exitOf(t, r) != exitFine {
		t.Errorf("changes %q, steps %q, %+v", got, stepsOf(r), r.Listings)
	}
}

func TestReportTellsTheEndOfAListingOnItsDay(t *testing.T) {
	s := newReportScene(t)
	s.listed(s.ago(80*time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	s.listed(s.ago(3*time.Hour), isClean(ourAddr, "bl.example"))
	r := s.report()
	if got, want := changesOf(r), []string{"0 unlisted 203.0.113.5"}; !slices.Equal(got, want) || len(r.Ended) != 1 || len(r.Listings) != 0 || exitOf(t, r) != exitFine {
		t.Errorf("changes %q, ended %+v", got, r.Ended)
	}
	if got := r.Ended[0].Ended.Location().String(); got != "Asia/Tokyo" {
		t.Errorf("its end is told in %s", got)
	}
	s.now = s.now.AddDate(0, 0, 1)
	if r := s.report(); len(r.Changes) != 0 || len(r.Ended) != 0 {
		t.Errorf("on the day after: %q, %+v", changesOf(r), r.Ended)
	}
}

// The cause of what matters is looked for first: there are more listings than it is
// looked for.
func TestReportLooksForTheCauseOfTheWorstFirst(t *testing.T) {
	s := newReportScene(t)
	s.shareAbuse(s.ago(90*time.Hour), 14)
	all := []rbl.Answer{isListed(ourAddr, "high.example", hit(2, rbl.High, rbl.ScopeAddress)), isListed(ourAddr, "info.example", hit(2, rbl.Info, rbl.ScopeAddress))}
	s.listed(s.ago(90*time.Hour), all...)
	for i := range maxCauses + 3 {
		all = append(all, isListed(ourAddr, "low"+string(rune('a'+i))+".example", hit(2, rbl.Low, rbl.ScopeAddress)))
		s.listed(s.ago(time.Duration(40-2*i)*time.Hour), all...)
	}
	r := s.report()
	searched := 0
	for _, l := range r.Listings {
		if l.Searched {
			searched++
		}
	}
	if r.Listings[0].Zone != "high.example" || !r.Listings[0].Searched || searched != maxCauses {
		t.Errorf("%s first, searched %v, %d in all", r.Listings[0].Zone, r.Listings[0].Searched, searched)
	}
	if last := r.Listings[len(r.Listings)-1]; last.Zone != "info.example" || last.Searched {
		t.Errorf("%+v", last)
	}
}

func TestReportThatCannotFindTheCauseSaysSo(t *testing.T) {
	s := newReportScene(t)
	s.listed(s.ago(time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	s.sources.journal = brokenJournal{reportJournal: s.journal, activity: true}
	r := s.report()
	if got := missingIn(r); !slices.Equal(got, []string{report.SectionCause, report.SectionMail}) || r.Listings[0].Searched {
		t.Errorf("missing %q, %+v", got, r.Listings)
	}
	if got := stepsOf(r); !slices.Equal(got, []string{"prove 203.0.113.5"}) && len(got) > 2 {
		t.Errorf("steps %q", got)
	}
	s = newReportScene(t)
	s.listed(s.ago(time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	if r := s.report(); !r.Listings[0].Searched || len(r.Listings[0].Suspects) != 0 || len(r.Missing) != 0 {
		t.Errorf("nobody sent anything: missing %q, %+v", missingIn(r), r.Listings)
	}
}

func TestReportSaysWhatWasDoneAboutASuspect(t *testing.T) {
	for name, c := range map[string]struct {
		verb, target, outcome string
		after                 time.Duration
		want                  map[string]string // by kind
	}{
		"observed":       {tightenVerb, "site:shop.example.jp", wouldHalve, time.Minute, map[string]string{"plugin": "would", "site": "would"}},
		"done":           {tightenVerb, "site:shop.example.jp", "half of each limit until then", time.Minute, map[string]string{"plugin": "done", "site": "done"}},
		"of the account": {tightenVerb, "local_user:shop", "half of each limit until then", time.Minute, map[string]string{"account": "done"}},
		"before it":      {tightenVerb, "site:shop.example.jp", "half of each limit until then", -time.Minute, nil},
		"another":        {tightenVerb, "site:news.example.jp", "half of each limit until then", time.Minute, nil},
		"something else": {"resume", "site:shop.example.jp", "", time.Minute, nil},
	} {
		s := newReportScene(t)
		first := s.ago(5 * time.Hour)
		s.shareAbuse(first, 14)
		s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
		must(t, s.journal.Append(journal.AdminAction{Time: first.Add(c.after), By: "relayguard", Verb: c.verb, Target: c.target, Outcome: c.outcome}))
		for _, x := range s.report().Listings[0].Suspects {
			if x.Tightened != c.want[x.Kind] {
				t.Errorf("%s: %s %s %q, want %q", name, x.Kind, x.Name, x.Tightened, c.want[x.Kind])
			}
		}
	}
}

func TestReportProposesToSuspendOnlyWhatCanBe(t *testing.T) {
	for _, account := range []string{"unknown", "node:web3", "node", "login:"} {
		s := newReportScene(t)
		first := s.ago(5 * time.Hour)
		for i := range 10 {
			s.sent(first.Add(-time.Duration(i+1)*time.Minute), account, 100, nil)
		}
		s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
		r := s.report()
		if x := r.Listings[0].Suspects; len(x) != 1 || x[0].Command != "" || r.Steps[0].Kind == report.StepSuspend {
			t.Errorf("%s: %+v, steps %q", account, x, stepsOf(r))
		}
	}
	s := newReportScene(t)
	first := s.ago(5 * time.Hour)
	s.sent(first.Add(-time.Minute), "login:o'neil@example.jp", 1000, nil)
	s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	if got, want := s.report().Steps[0].Command, `relayguard suspend 'login:o'\''neil@example.jp' --reason 'before a blocklisting'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestReportTellsListsThatCannotBeBelieved(t *testing.T) {
	s := newReportScene(t)
	s.known(twoLists)
	s.round(s.ago(30*time.Hour), isClean(ourAddr, "bl.example"))
	s.roundOf(s.ago(2*time.Hour), map[string]rbl.State{"bl.example": rbl.Wild}, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	r := s.report()
	if got, want := changesOf(r), []string{"1 zone bl.example"}; !slices.Equal(got, want) || len(r.Listings) != 0 || r.Changes[0].Text != "wild" {
		t.Errorf("changes %+v, listings %+v", r.Changes, r.Listings)
	}
	if r.Zones.Asked != 1 || r.Zones.Healthy != 0 || len(r.Zones.Trouble) != 2 || r.Zones.Trouble[0].Zone != "bl.example" || r.Zones.Trouble[0].State != rbl.Wild || r.Zones.Trouble[1].State != rbl.NotAsked {
		t.Errorf("%+v", r.Zones)
	}
	if got := stepsOf(r); !slices.Equal(got, []string{"zone bl.example"}) {
		t.Errorf("steps %q", got)
	}
	s.round(s.ago(time.Hour), isClean(ourAddr, "bl.example"))
	if got, want := changesOf(s.report()), []string{"1 zone bl.example", "0 zone_well bl.example"}; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

// Review of part L: who had switched a list off, or asked it with a key, was told each
// day that it is not asked.
func TestReportDoesNotNagAboutListsThatAreNotWanted(t *testing.T) {
	key := writeKey(t, "abcdefghijklmnopqrstuvwxyz")
	for name, c := range map[string]struct {
		rbl  string
		want []string
	}{
		"commercial, without a key": {"", []string{"zen.spamhaus.org"}},
		"switched off":              {"disable = [\"zen.spamhaus.org\"]\n", nil},
		"not for business":          {"use = \"noncommercial\"\n", nil},
		"with a key":                {"[[zone_key]]\noperator = \"spamhaus\"\nfile = \"" + key + "\"\n", nil},
	} {
		path, _ := configWith(t, "[rbl]\nresolvers = [\"127.0.0.1:5353\"]\n"+c.rbl)
		c2, err := config.Load(path)
		must(t, err)
		a := &asking{}
		must(t, a.choose(c2))
		got, _ := a.missed()
		got = slices.DeleteFunc(got, func(s string) bool { return !strings.HasPrefix(s, "zen.") })
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], " ")
		}
		if !slices.Contains(got, "zen.spamhaus.org") && len(c.want) > 0 || len(c.want) == 0 && len(got) > 0 {
			t.Errorf("%s: %q are missed, want %q", name, got, c.want)
		}
		s := newReportScene(t)
		s.sources.lists = a
		r := s.report()
		for _, step := range r.Steps {
			if strings.HasPrefix(step.What, "zen.") && !slices.Contains(got, step.What) {
				t.Errorf("%s: a step for %s", name, step.What)
			}
		}
	}
}

func TestReportHasWhatReceiversLookAtAndTheNeighbourhood(t *testing.T) {
	s := newReportScene(t)
	s.facts(s.ago(50*time.Hour), "ok")
	s.facts(s.ago(5*time.Hour), "wrong")
	r := s.report()
	if got, want := changesOf(r), []string{"2 sender 203.0.113.5"}; !slices.Equal(got, want) || len(r.Sender) != 1 || r.Sender[0].State != "wrong" || r.Neighbours != nil {
		t.Errorf("changes %q, %+v", got, r.Sender)
	}
	if got, want := stepsOf(r), []string{"sender 203.0.113.5"}; !slices.Equal(got, want) || r.Steps[0].Text != "one name" {
		t.Errorf("steps %+v", r.Steps)
	}
	s.facts(s.ago(4*time.Hour), "ok")
	if got, want := changesOf(s.report()), []string{"2 sender 203.0.113.5", "0 sender_well 203.0.113.5"}; !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
	s.neighbours(s.ago(8*24*time.Hour), 7)
	s.neighbours(s.ago(24*time.Hour), 9)
	if n := s.report().Neighbours; n == nil || len(n.Ranges) != 1 || n.Ranges[0].Listed != 9 || n.Ranges[0].Before != 7 {
		t.Errorf("%+v", n)
	}
}

func TestReportShowsHowEachAddressStoodOnEachDay(t *testing.T) {
	s := newReportScene(t)
	for _, d := range []int{5, 4, 1} {
		s.round(s.now.AddDate(0, 0, -d), isClean(ourAddr, "bl.example"))
	}
	s.listed(s.ago(2*time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	r := s.report()
	var days []string
	for _, d := range r.Addresses[0].Days {
		days = append(days, d.Day.Format("02")+d.State)
	}
	if want := []string{"25clean", "26clean", "27", "28", "01clean", "02listed"}; !slices.Equal(days, want) {
		t.Errorf("%q, want %q", days, want)
	}
	if a := r.Addresses[0]; a.Subject != "203.0.113.5" || a.Listed != 1 || a.Clean != 0 || a.At.Location().String() != "Asia/Tokyo" {
		t.Errorf("%+v", a)
	}
}

// brokenHistory knows nothing of what it is asked.
type brokenHistory struct {
	reportHistory
	what string
}

func TestReportSaysWhichPartOfTheHistoryCannotBeRead(t *testing.T) {
	for what, want := range map[string]string{
		"listings": report.SectionBlocklists, "events": report.SectionChanges, "zones": report.SectionBlocklists, "subjects": report.SectionBlocklists,
		"days": report.SectionHistory, "queries": report.SectionBlocklists, "facts": report.SectionSender, "neighbours": report.SectionNeighbours,
	} {
		s := newReportScene(t)
		s.listed(s.ago(time.Hour), isClean(ourAddr, "bl.example"))
		s.sources.history = brokenHistory{s.history, what}
		r := s.report()
		if got := missingIn(r); !slices.Equal(got, []string{want}) || exitOf(t, r) != exitCannotTell {
			t.Errorf("%s: missing %q, want %q", what, got, want)
		}
	}
}

var _ reportHistory = (*history.Store)(nil)

// Review: "all clean" was said of what was found before the check broke.
func TestReportSaysThatTheCheckDoesNotRun(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *reportScene)
		want   []string
		exit   int
	}{
		"it runs": {func(s *reportScene) { s.checked() }, nil, exitFine},
		"never":   {func(*reportScene) {}, []string{report.SectionBlocklists}, exitCannotTell},
		"no more": {func(s *reportScene) { s.round(s.ago(12*time.Hour+time.Minute), isClean(ourAddr, "bl.example")) }, []string{report.SectionBlocklists}, exitCannotTell},
		"late":    {func(s *reportScene) { s.round(s.ago(12*time.Hour-time.Minute), isClean(ourAddr, "bl.example")) }, nil, exitFine},
		"it cannot": {func(s *reportScene) {
			s.checked()
			s.sources.watch.Trouble = "rbl.zones_file: no such file"
		}, []string{report.SectionBlocklists}, exitCannotTell},
		"it cannot, and who sends is not known": {func(s *reportScene) {
			s.checked()
			s.sources.lists = &asking{table: rbl.Builtin(), targets: blocklists.Targets{Trouble: []string{"which addresses send is not known"}}, zones: []rbl.Zone{{Name: "checked.example"}}}
			s.sources.watch.Trouble = "which addresses send is not known; nobody can be asked"
		}, []string{report.SectionAddresses, report.SectionBlocklists}, exitCannotTell},
		"who sends is not all known": {func(s *reportScene) {
			s.checked()
			s.sources.lists = &asking{table: rbl.Builtin(), targets: blocklists.Targets{Trouble: []string{"which addresses send is not known"}}, zones: []rbl.Zone{{Name: "checked.example"}}}
			s.sources.watch.Trouble = "which addresses send is not known"
		}, []string{report.SectionAddresses}, exitCannotTell},
	} {
		s := newReportScene(t)
		c.change(s)
		r := s.report()
		if got := missingIn(r); !slices.Equal(got, c.want) || exitOf(t, r) != c.exit {
			t.Errorf("%s: missing %+v, want %q; exit %d, want %d", name, r.Missing, c.want, exitOf(t, r), c.exit)
		}
	}
}

// Review: what had begun and ended since yesterday was to be acted on at once, below a
// headline that said "all clean".
func TestReportTellsAListingThatIsOverAsANote(t *testing.T) {
	s := newReportScene(t)
	s.listed(s.ago(6*time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.Critical, rbl.ScopeAddress)))
	s.listed(s.ago(3*time.Hour), isClean(ourAddr, "bl.example"))
	r := s.report()
	if got, want := changesOf(r), []string{"1 listed 203.0.113.5", "0 unlisted 203.0.113.5"}; !slices.Equal(got, want) || exitOf(t, r) != exitFine || len(r.Steps) > 0 {
		t.Errorf("changes %q, want %q; exit %d, steps %q", got, want, exitOf(t, r), stepsOf(r))
	}
	if got, want := r.Changes[0].Text, "means 2; was listed for 3 h"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.listed(s.ago(time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.Critical, rbl.ScopeAddress))) // again
	if got := changesOf(s.report()); len(got) != 3 || got[0] != "3 listed 203.0.113.5" {
		t.Errorf("changes %q", got)
	}
}

func TestReportTellsWhatIsNoLongerCheckedApartFromWhatEnded(t *testing.T) {
	s := newReportScene(t)
	s.listed(s.ago(80*time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	must(t, s.history.Drop(t.Context(), s.ago(2*time.Hour), func(*history.Listing) bool { return true }))
	s.checked()
	r := s.report()
	if got, want := changesOf(r), []string{"1 dropped 203.0.113.5"}; !slices.Equal(got, want) || len(r.Ended) != 1 || !r.Ended[0].Dropped || len(r.Listings) != 0 {
		t.Errorf("changes %q, want %q; ended %+v", got, want, r.Ended)
	}
}

// A domain is listed for mail that names it: who else was busy has nothing to do with
// that.
func TestReportSuspectsOfADomainOnlyWhoIsOfIt(t *testing.T) {
	s := newReportScene(t)
	first := s.ago(5 * time.Hour)
	s.shareAbuse(first, 14)
	for i := range 20 {
		s.sent(first.Add(-time.Duration(i+1)*time.Minute), "login:hanako@mail.example.jp", 40, nil)
	}
	domain := func(name string) rbl.Subject { return rbl.Subject{Name: name} }
	s.listed(first, isListed(domain("mail.example.jp"), "d.example", hit(2, rbl.High, rbl.ScopeDomain)), isListed(domain("shop.example.jp"), "d.example", hit(2, rbl.High, rbl.ScopeDomain)),
		isListed(domain("elsewhere.example"), "d.example", hit(2, rbl.High, rbl.ScopeDomain)), isListed(domain("hop.example.jp"), "d.example", hit(2, rbl.High, rbl.ScopeDomain)))
	for _, l := range s.report().Listings {
		var got []string
		for _, x := range l.Suspects {
			got = append(got, x.Name)
		}
		want := map[string][]string{"mail.example.jp": {"login:hanako@mail.example.jp"}, "shop.example.jp": {"share@shop.example.jp", "shop.example.jp"}}[l.Subject]
		if !slices.Equal(got, want) || !l.Searched {
			t.Errorf("%s: %q, want %q; searched %v", l.Subject, got, want, l.Searched)
		}
	}
}

// A newsletter of every month is nothing odd.
func TestReportKnowsWhatWasUsualTwoMonthsAgo(t *testing.T) {
	s := newReportScene(t)
	first := s.ago(5 * time.Hour)
	for _, days := range []int{0, 29, 58} {
		s.sent(first.AddDate(0, 0, -days).Add(-time.Hour), "login:news@example.jp", 5000, nil)
	}
	s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	if l := s.report().Listings[0]; len(l.Suspects) != 1 || l.Suspects[0].Usual < 80 { // 2 x 5000 in 60 days
		t.Errorf("%+v", l.Suspects)
	}
}

func TestReportNamesListsThatMatterAndEachOnce(t *testing.T) {
	zone := func(name, keyed string, severity rbl.Severity) rbl.Zone {
		return rbl.Zone{Name: name, Keyed: keyed, Severity: severity, Kinds: []rbl.Kind{rbl.IP4}, Default: rbl.On}
	}
	s := newReportScene(t)
	s.sources.config.RBL.Enable = []string{"wanted.example"}
	not := func(zones ...rbl.Zone) (all []rbl.NotChosen) {
		for _, z := range zones {
			all = append(all, rbl.NotChosen{Zone: z, Why: "why " + z.Name})
		}
		return all
	}
	s.sources.lists = &asking{table: rbl.Builtin(), off: map[string]bool{"off.example": true}, zones: []rbl.Zone{zone("checked.example", "", rbl.Low), zone("dqs.example", "", rbl.High), zone("zen.spamhaus.org", "", rbl.High)}, not: not(
		zone("off.example", "", rbl.Critical), zone("minor.example", "", rbl.Low), zone("wanted.example", "", rbl.Low), zone("public.example", "keyholders.example", rbl.High), zone("keyholders.example", "", rbl.High),
		zone("free.example", "dqs.example", rbl.High))}
	s.roundOf(s.ago(time.Hour), map[string]rbl.State{"zen.spamhaus.org": rbl.Refusing, "gone.example": rbl.Dead}, isClean(ourAddr, "checked.example"), isClean(ourAddr, "zen.spamhaus.org"), isClean(ourAddr, "gone.example"))
	r := s.report()
	var got []string
	for _, z := range r.Zones.Trouble {
		got = append(got, z.Zone)
	}
	slices.Sort(got)
	if want := []string{"public.example", "wanted.example", "zen.spamhaus.org"}; !slices.Equal(got, want) || r.Zones.Asked != 2 || r.Zones.Healthy != 1 {
		t.Errorf("%q, want %q; %d asked, %d well", got, want, r.Zones.Asked, r.Zones.Healthy)
	}
	steps := map[string]report.Step{}
	for _, step := range r.Steps {
		steps[step.What] = step
	}
	if not, bad := steps["public.example"], steps["zen.spamhaus.org"]; len(r.Steps) != 2 || not.By != rbl.NotAsked.String() || not.Text != "why public.example" || bad.By != rbl.Refusing.String() || bad.Text != "it is so" {
		t.Errorf("%+v", r.Steps)
	}
}

// What lists only inform of, or say of the network, is counted apart.
func TestReportCountsWhatListsSayByWhatItMeans(t *testing.T) {
	s := newReportScene(t)
	s.round(s.ago(time.Hour), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress), hit(3, rbl.High, rbl.ScopeRange)), isListed(ourAddr, "range.example", hit(2, rbl.High, rbl.ScopeRange)),
		isListed(ourAddr, "good.example", hit(2, rbl.Info, rbl.ScopeAddress)), isClean(ourAddr, "clean.example"))
	if a := s.report().Addresses[0]; a.Listed != 1 || a.Wide != 1 || a.Info != 1 || a.Clean != 1 {
		t.Errorf("%+v", a)
	}
}

// Review: of a listing that the first round found the busiest of a day before was named.
func TestReportLooksForACauseOnlyIfItKnowsWhenAListingBegan(t *testing.T) {
	for name, c := range map[string]struct {
		clean time.Duration // before it was seen; 0: never
		want  bool
	}{
		"the first round": {0, false}, "clean at the round before": {6 * time.Hour, true}, "not asked for a day": {47 * time.Hour, true}, "not asked for two days": {49 * time.Hour, false},
	} {
		s := newReportScene(t)
		first := s.ago(5 * time.Hour)
		s.shareAbuse(first, 14)
		if c.clean > 0 {
			s.round(first.Add(-c.clean), isClean(ourAddr, "bl.example"))
		}
		s.round(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
		s.round(first.Add(sceneConfirm), isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
		r := s.report()
		if l := r.Listings[0]; l.Searched != c.want || (len(l.Suspects) > 0) != c.want || slices.Contains(missingIn(r), report.SectionCause) == c.want {
			t.Errorf("%s: searched %v, %d suspects, missing %+v", name, l.Searched, len(l.Suspects), r.Missing)
		}
		if want := map[bool]string{true: "prove share@shop.example.jp", false: "prove 203.0.113.5"}[c.want]; !slices.Contains(stepsOf(r), want) {
			t.Errorf("%s: steps %q, want %q", name, stepsOf(r), want)
		}
		if exitOf(t, r) != exitFinding {
			t.Errorf("%s: exit %d", name, exitOf(t, r))
		}
	}
}
