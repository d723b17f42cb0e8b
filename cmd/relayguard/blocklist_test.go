package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	looks "relayguard/rbl/sender"
)

// anEvent is of our address on a list.
func anEvent(kind history.EventKind, severity rbl.Severity, scope rbl.Scope) history.Event {
	return history.Event{ID: 1, Kind: kind, At: noon, Listing: &history.Listing{Zone: "bl.example", Subject: ourAddr, Hit: hit(2, severity, scope), First: noon}}
}

func TestWhatIsToldOfAListing(t *testing.T) {
	wild := &rbl.Health{Zone: "bl.example", State: rbl.Wild, Why: "it lists what nobody lists"}
	for name, c := range map[string]struct {
		event  history.Event
		from   rbl.Severity
		want   string // begins so; "": nobody is told
		urgent bool
	}{
		"begins":                {anEvent(history.Began, rbl.High, rbl.ScopeAddress), rbl.Medium, "203.0.113.5 is listed by bl.example: means 2 (high), first seen ", true},
		"just enough":           {anEvent(history.Began, rbl.Medium, rbl.ScopeDomain), rbl.Medium, "203.0.113.5 is listed by bl.example: means 2 (medium)", true},
		"too little":            {anEvent(history.Began, rbl.Low, rbl.ScopeAddress), rbl.Medium, "", false},
		"of a range":            {anEvent(history.Began, rbl.Critical, rbl.ScopeRange), rbl.Low, "", false},
		"of a network":          {anEvent(history.Began, rbl.Critical, rbl.ScopeASN), rbl.Low, "", false},
		"ends":                  {anEvent(history.Over, rbl.High, rbl.ScopeAddress), rbl.Medium, "203.0.113.5 is no longer listed by bl.example (means 2); it was from ", false},
		"too little ends":       {anEvent(history.Over, rbl.Low, rbl.ScopeAddress), rbl.Medium, "", false},
		"of a range ends":       {anEvent(history.Over, rbl.Critical, rbl.ScopeRange), rbl.Low, "", false},
		"a list went wild":      {history.Event{Kind: history.ZoneBad, At: noon, Health: wild}, rbl.Medium, "the blocklist bl.example is wild: what it says is not believed until it is well again: it lists what nobody lists", false},
		"a list is well":        {history.Event{Kind: history.ZoneWell, At: noon, Health: wild}, rbl.Medium, "", false},
		"a reverse name":        {history.Event{Kind: history.FactBad, At: noon, Fact: &looks.Fact{Subject: "203.0.113.5", Check: looks.PTR, State: looks.Wrong}}, rbl.Medium, "", false},
		"of nothing, by chance": {history.Event{Kind: history.Began, At: noon}, rbl.Medium, "", false},
		"a list without health": {history.Event{Kind: history.ZoneBad, At: noon}, rbl.Medium, "", false},
	} {
		text, urgent := "", false
		if all := listingAlerts([]history.Event{c.event}, c.from); len(all) > 0 {
			text, urgent = all[0].text, all[0].urgent
		}
		if !strings.HasPrefix(text, c.want) || (text == "") != (c.want == "") || urgent != c.urgent {
			t.Errorf("%s: %q, urgent %v", name, text, urgent)
		}
	}
}

// watchingState is a daemon's state that checks the lists of a configuration.
func watchingState(t *testing.T, more string, change func(*config.Config)) *state {
	t.Helper()
	path, _ := listsOf(t, twoLists, "from_mta = false\nneighbours = false\naddresses = [\"203.0.113.5\"]\n"+more, zonesOfTest("nokey"))
	c, err := config.Load(path)
	must(t, err)
	c.MTA.Log, c.MTA.QueueHelper, c.Alert.Syslog, c.Forward.Watch = config.LogNone, path+".no-helper", false, false
	if change != nil {
		change(c)
	}
	s := aState(t, c)
	t.Cleanup(func() { s.close(nil) })
	return s
}

func TestAlertsOfListingsNameAddressAndList(t *testing.T) {
	webhook, alerts := alertsTo(t)
	s := watchingState(t, "", func(c *config.Config) { c.Alert.Webhook = webhook })
	must(t, s.blocklists.tell(t.Context(), []history.Event{
		anEvent(history.Began, rbl.Critical, rbl.ScopeRange), anEvent(history.Began, rbl.Low, rbl.ScopeAddress), anEvent(history.Began, rbl.High, rbl.ScopeAddress),
	}))
	until(t, "the alert comes", 10*time.Second, func() bool { return alerts.String() != "" })
	if got := alerts.String(); strings.Count(got, "\"alert\"") != 1 || !strings.Contains(got, "203.0.113.5 is listed by bl.example") || !strings.Contains(got, `"warning"`) {
		t.Errorf("%s", got)
	}
}

func TestPlanIsOfTheConfigurationInForce(t *testing.T) {
	s := watchingState(t, "", nil)
	b := s.blocklists
	p := b.plan(t.Context())
	if p.Trouble != "" || len(p.Zones) != 1 || p.Zones[0].Name != "bl.example" || !slices.Equal(p.Subjects, []rbl.Subject{ourAddr}) || p.Resolver == nil || len(p.Neighbours) > 0 {
		t.Errorf("%+v", p)
	}
	if again := b.plan(t.Context()); again.Checker != p.Checker {
		t.Error("what a list allows in a day is counted anew with each round")
	}
	before := *s.config.Load()
	change := func(with func(*config.Config)) *config.Config {
		c := before
		with(&c)
		s.config.Store(&c)
		return &c
	}
	for name, with := range map[string]func(*config.Config){
		"another key": func(c *config.Config) {
			c.ZoneKeys = []config.ZoneKey{{Operator: "keyed", File: writeKey(t, "abcdefgh12")}}
		},
		"another resolver": func(c *config.Config) { c.RBL.Resolvers = []string{"127.0.0.1:5354"} },
		"another timeout":  func(c *config.Config) { c.RBL.Timeout = time.Minute },
	} {
		was := b.plan(t.Context()).Checker
		c := change(with)
		if b.plan(t.Context()).Checker == was {
			t.Errorf("%s: the checker is the old one", name)
		}
		b.reload(&before, c)
		select {
		case <-b.hurry:
		default:
			t.Errorf("%s: nothing is checked anew", name)
		}
	}
	b.reload(&before, &before)
	select {
	case <-b.hurry:
		t.Error("a reload that changes nothing has everything asked again")
	default:
	}
	change(func(c *config.Config) { c.RBL.ZonesFile = "/nowhere/zones.toml" })
	if p := b.plan(t.Context()); !strings.Contains(p.Trouble, "rbl.zones_file") || len(p.Subjects) > 0 || p.Checker != nil {
		t.Errorf("%+v", p)
	}
	change(func(c *config.Config) { c.RBL.Addresses, c.RBL.FromMTA, c.MTA.ConfigDirectory = nil, true, "/nowhere" })
	if p := b.plan(t.Context()); !strings.Contains(p.Trouble, "rbl.from_mta: which addresses send is not known") {
		t.Errorf("%+v", p)
	}
	none := (*blocklistWatch)(nil)
	none.reload(&before, &before)
	none.close()
}

func TestKeyThatCannotBeUsedIsAWarningThatDoesNotQuoteIt(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"a key":            {"abcdefghij0123456789\n", true},
		"without newline":  {"abcdefghij0123456789", true},
		"with spaces":      {"  abcdefghij0123456789\t\r\nsecond line\n", true},
		"too short":        {"s3cret\n", false},
		"no label":         {"s3cret.key.example\n", false},
		"two words":        {"s3cret s3cret\n", false},
		"nothing":          {"", false},
		"second line only": {"\ns3creets3cret\n", false},
		"too long":         {strings.Repeat("s3cret", 20) + "\n", false},
		"endless":          {strings.Repeat("s3cret", 100_000), false},
	} {
		path := filepath.Join(dir, "key")
		must(t, os.WriteFile(path, []byte(c.text), 0o600))
		key, err := readZoneKey(path)
		if (err == nil) != c.ok || c.ok && key != "abcdefghij0123456789" || !c.ok && key != "" {
			t.Errorf("%s: %q, %v", name, key, err)
		}
		if err != nil && strings.Contains(err.Error(), "s3cr") {
			t.Errorf("%s: the key is in %q", name, err)
		}
	}
	configuration := config.Default()
	configuration.ZoneKeys = []config.ZoneKey{{Operator: "spamhaus", File: filepath.Join(dir, "none")}}
	a := &asking{}
	must(t, a.choose(configuration))
	if len(a.keys) != 0 || len(a.warnings) != 1 || !strings.Contains(a.warnings[0], "zone_key spamhaus: ") || slices.ContainsFunc(a.zones, func(z rbl.Zone) bool { return z.Key == "spamhaus" }) {
		t.Errorf("keys %d, warnings %q", len(a.keys), a.warnings)
	}
}

// abusedState is one whose journal knows that a shop's share button wrote to many,
// and that www-data, which many share, did.
func abusedState(t *testing.T, tighten string, first time.Time) *state {
	t.Helper()
	s := watchingState(t, "tighten = \""+tighten+"\"\n", nil)
	in := *s.rules.Load()
	in.policy = &policy.Policy{Limits: policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Store: limit.NewMemory(), Retries: s.retries, SharedUIDs: []int{33}, SharedUsers: []string{"www-data"}})}
	s.rules.Store(&in)
	n := 0
	sent := func(at time.Time, account string, recipients int, change func(*journal.Decision)) {
		n++
		d := journal.Decision{ID: fmt.Sprintf("%026d", n), Time: at, Stage: journal.StageMessage, Verdict: policy.Accept, Listener: "local", Role: policy.Local, Account: account, UID: -1, QueueID: fmt.Sprintf("A%07X", n), Recipients: recipients}
		if change != nil {
			change(&d)
		}
		must(t, s.journal.Append(d))
	}
	for day := 1; day <= 10; day++ {
		sent(first.Add(-time.Duration(day)*24*time.Hour-time.Hour), "local_user:www-data", 10, by("shop.example.jp", "orders"))
		sent(first.Add(-time.Duration(day)*24*time.Hour-time.Hour), "login:taro@example.jp", 1, nil)
	}
	for i := range 20 {
		sent(first.Add(-time.Hour+time.Duration(i)*time.Minute), "local_user:www-data", 50, by("shop.example.jp", "share"))
	}
	sent(first.Add(-time.Hour), "login:taro@example.jp", 400, nil)
	must(t, s.journal.Sync(t.Context()))
	return s
}

func TestLikelyCauseOfAListingIsTightenedOrNoted(t *testing.T) {
	first := time.Now().Add(-10 * time.Minute)
	began := func(zone string, severity rbl.Severity, scope rbl.Scope) history.Event {
		e := anEvent(history.Began, severity, scope)
		e.Listing.Zone, e.Listing.First = zone, first
		switch zone {
		case "old.example":
			e.Listing.CleanBefore = first.Add(-49 * time.Hour)
		case "a.example", "b.example":
			e.Listing.CleanBefore = first.Add(-47 * time.Hour)
		}
		return e
	}
	domain := func(e history.Event) history.Event {
		e.Listing.Subject = ourDomain
		return e
	}
	for name, c := range map[string]struct {
		tighten string
		events  []history.Event
		noted   []string
		halved  []string
	}{
		"observed":               {"observe", []history.Event{began("a.example", rbl.High, rbl.ScopeAddress)}, []string{"site:shop.example.jp would", "login:taro@example.jp would"}, nil},
		"of two lists, once":     {"observe", []history.Event{began("a.example", rbl.High, rbl.ScopeAddress), began("b.example", rbl.High, rbl.ScopeAddress)}, []string{"site:shop.example.jp would", "login:taro@example.jp would"}, nil},
		"done":                   {"on", []history.Event{began("a.example", rbl.High, rbl.ScopeAddress), began("b.example", rbl.High, rbl.ScopeAddress)}, []string{"site:shop.example.jp done", "login:taro@example.jp done"}, []string{"login:taro@example.jp", "site:shop.example.jp"}},
		"off":                    {"off", []history.Event{began("a.example", rbl.High, rbl.ScopeAddress)}, nil, nil},
		"a range":                {"on", []history.Event{began("a.example", rbl.Critical, rbl.ScopeRange)}, nil, nil},
		"less than is told":      {"on", []history.Event{began("a.example", rbl.Low, rbl.ScopeAddress)}, nil, nil},
		"a domain":               {"on", []history.Event{domain(began("a.example", rbl.High, rbl.ScopeDomain))}, nil, nil},
		"not seen to begin":      {"on", []history.Event{began("first.example", rbl.High, rbl.ScopeAddress)}, nil, nil},
		"clean long before":      {"on", []history.Event{began("old.example", rbl.High, rbl.ScopeAddress)}, nil, nil},
		"an end":                 {"on", []history.Event{anEvent(history.Over, rbl.High, rbl.ScopeAddress)}, nil, nil},
		"a list that is nowhere": {"on", []history.Event{{Kind: history.ZoneBad, Health: &rbl.Health{}}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := abusedState(t, c.tighten, first)
			s.blocklists.tighten(t.Context(), time.Now(), c.events)
			must(t, s.journal.Sync(t.Context()))
			all, err := s.journal.AdminActions(t.Context(), 100)
			must(t, err)
			var noted, halved []string
			for _, a := range slices.Backward(all) {
				outcome := "done"
				if strings.HasPrefix(a.Outcome, wouldHalve) {
					outcome = "would"
				}
				noted = append(noted, a.Target+" "+outcome)
				if a.Verb != tightenVerb || a.By != "relayguard" || !strings.Contains(a.Reason, "listing of 203.0.113.5 by a.example") {
					t.Errorf("%+v", a)
				}
			}
			for _, sw := range s.switches.All(time.Now()) {
				halved = append(halved, sw.About())
			}
			slices.Sort(halved)
			if !slices.Equal(noted, c.noted) || !slices.Equal(halved, c.halved) {
				t.Errorf("noted %q, want %q; halved %q, want %q", noted, c.noted, halved, c.halved)
			}
		})
	}
}

// wellRound is one in which healthy lists say this.
func wellRound(t *testing.T, b *blocklistWatch, at time.Time, answers ...rbl.Answer) {
	t.Helper()
	r := check.Round{Began: at}
	var subjects []rbl.Subject
	var zones []rbl.Zone
	for _, a := range answers {
		a.At = at
		r.Answers, subjects, zones = append(r.Answers, a), append(subjects, a.Subject), append(zones, rbl.Zone{Name: a.Zone})
		r.Zones = append(r.Zones, rbl.Health{Zone: a.Zone, Kind: a.Subject.Kind(), State: rbl.Healthy, At: at})
	}
	must(t, b.store.Take(t.Context(), r, subjects, zones))
}

func TestStatusTellsListingsApart(t *testing.T) {
	s := watchingState(t, "", nil)
	b := s.blocklists
	if got := b.status(t.Context()); got.finding() || got.line(time.Now()) != "not checked yet" {
		t.Errorf("before the first round: %q", got.line(time.Now()))
	}
	now := time.Now()
	round := func(at time.Time) {
		r := check.Round{Began: at, Queries: 9}
		hits := map[string]rbl.Hit{"high.example": hit(2, rbl.High, rbl.ScopeAddress), "low.example": hit(2, rbl.Low, rbl.ScopeAddress), "range.example": hit(2, rbl.Critical, rbl.ScopeRange), "info.example": hit(2, rbl.Info, rbl.ScopeAddress)}
		var zones []rbl.Zone
		for zone, h := range hits {
			a := isListed(ourAddr, zone, h)
			a.At = at
			r.Answers, zones = append(r.Answers, a), append(zones, rbl.Zone{Name: zone})
			r.Zones = append(r.Zones, rbl.Health{Zone: zone, Kind: rbl.IP4, State: rbl.Healthy, At: at})
		}
		r.Answers = append(r.Answers, rbl.Answer{Zone: "silent.example", Subject: ourAddr, Result: rbl.Unknown, Why: "timeout", At: at})
		r.Zones = append(r.Zones, rbl.Health{Zone: "silent.example", Kind: rbl.IP4, State: rbl.Silent, At: at})
		must(t, b.store.Take(t.Context(), r, []rbl.Subject{ourAddr}, append(zones, rbl.Zone{Name: "silent.example"})))
	}
	round(now.Add(-time.Hour))
	if got := b.status(t.Context()); len(got.Listings) != 0 || got.finding() {
		t.Errorf("not confirmed: %+v", got)
	}
	round(now.Add(-30 * time.Minute))
	got := b.status(t.Context())
	if len(got.Listings) != 2 || got.Alerting != 1 || !got.finding() || got.Zones["silent"] != 1 || got.Zones["healthy"] != 4 || got.Results["unknown"] != 1 || got.Results["clean"] != 0 || got.Results["listed"] != 2 || got.Results["wide"] != 1 || got.Results["info"] != 1 {
		t.Errorf("%+v", got)
	}
	for severity, want := range map[string]int64{"info": 1, "low": 1, "medium": 0, "high": 1, "critical": 0} {
		if n, known := got.Severity[severity]; n != want || !known {
			t.Errorf("%s: %d, want %d", severity, n, want)
		}
	}
	if len(got.queries()) != len(rbl.Outcomes()) {
		t.Errorf("queries %v", got.queries())
	}
	line := got.line(now)
	for _, part := range []string{"203.0.113.5 listed by high.example (means 2, high) since ", "203.0.113.5 listed by low.example (means 2, low)"} {
		if !strings.Contains(line, part) {
			t.Errorf("no %q in %q", part, line)
		}
	}
	if strings.Contains(line, "range.example") || strings.Contains(line, "info.example") {
		t.Errorf("%q", line)
	}
	must(t, b.store.Close())
	if broken := b.status(t.Context()); broken.Error == "" || !broken.finding() || !strings.Contains(broken.line(now), "not known: ") {
		t.Errorf("%+v", broken)
	}
	if (&status{}).blocklists() == nil || (*blocklistStatus)(nil).finding() {
		t.Error("without a watch")
	}
}
