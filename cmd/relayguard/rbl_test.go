package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	looks "relayguard/rbl/sender"
	"relayguard/rbl/watch"
)

// aListing is a listing of ours; who is what others chose.
func aListing(who string, phase history.Phase, severity rbl.Severity, scope rbl.Scope) history.Listing {
	return history.Listing{ID: 1, Zone: "bl.example", Subject: ourAddr, Hit: aHit(severity, scope), Reasons: []string{who}, Phase: phase, First: noon, Confirmed: noon.Add(10 * time.Minute), Last: noon.Add(time.Hour), Resolver: "127.0.0.1:53"}
}

// someRBLStatus has a bit of everything; who is what others chose.
func someRBLStatus(who string) rblStatus {
	h := rbl.Health{Zone: "wild.example", Kind: rbl.IP4, State: rbl.Wild, Why: who, At: noon}
	own := rblTargets{Addresses: []rblAddress{{ourAddr.Addr, who, who}}, Domains: []string{"example.jp"}, Helos: []string{who}, About: []rblAbout{{ourAddr, who}, {ourDomain, "sending domain"}}, Learnt: []history.Learnt{{Addr: "203.0.113.5", Where: who, At: noon}}, Trouble: []string{who}}
	return rblStatus{Now: noon.Add(2 * time.Hour), Watch: &watch.Status{Last: noon, Next: noon.Add(6 * time.Hour), Trouble: who}, Round: noon,
		Listings: []history.Listing{aListing(who, history.Standing, rbl.High, rbl.ScopeAddress), aListing(who, history.Suspected, rbl.Low, rbl.ScopeRange)},
		Every:    6 * time.Hour, Unread: []string{}, Warnings: []string{},
		Subjects: []rblSubjectState{{rblStanding{Subject: ourAddr, How: who, Listed: 1, Clean: 50, Unknown: 2}, noon}, {rblStanding{Subject: ourDomain, How: "sending domain", Clean: 9}, noon}},
		Zones:    []history.ZoneState{{Health: h, Since: noon}, {Health: rbl.Health{Zone: "well.example", State: rbl.Healthy}, Since: noon}},
		Facts:    []history.FactState{{Fact: looks.Fact{Subject: "203.0.113.5", Check: looks.PTR, State: looks.Wrong, Found: who, Wanted: "one name"}, Since: noon}, {Fact: looks.Fact{Subject: "fine", State: looks.OK}}},
		Around:   []rblAround{{check.Neighbour{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Zone: "range.example", Asked: 256, Listed: 12}, 10}},
		Own:      own}
}

func somePast(who string) rblPast {
	over := aListing(who, history.Ended, rbl.High, rbl.ScopeAddress)
	over.Ended = noon.Add(24 * time.Hour)
	h := rbl.Health{Zone: "wild.example", Kind: rbl.IP4, State: rbl.Wild, Why: who, At: noon}
	return rblPast{Listings: []history.Listing{aListing(who, history.Standing, rbl.Medium, rbl.ScopeAddress), over}, Zones: []history.Event{{ID: 1, Kind: history.ZoneBad, At: noon, Health: &h}}}
}

// rblDaemon answers all about blocklists; who is what others chose.
func rblDaemon(t *testing.T, who string) *fakeDaemon {
	d := newFakeDaemon(t)
	s := someRBLStatus(who)
	d.always("GET /v1/rbl/status", s)
	d.always("POST /v1/rbl/check", s)
	d.always("GET /v1/rbl/history", somePast(who))
	d.always("POST /v1/rbl/learn", s.Own.Learnt)
	d.always("POST /v1/rbl/forget", s.Own.Learnt)
	d.always("GET /v1/switches", []struct{}{})
	return d
}

// rblLookers are command lines that show what others chose.
var rblLookers = []string{"rbl status", "rbl status --now", "rbl history", "rbl zones", "rbl zones --all", "rbl zones --dead", "rbl addresses --forget 203.0.113.5"}

func TestRBLShowsWhatOthersChoseHarmlessly(t *testing.T) {
	d := rblDaemon(t, hostile)
	for _, line := range rblLookers {
		term := newTerminal(t, 80)
		code, shown, stderr := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		if code == exitUsage || code == exitCannotTell || shown == "" {
			t.Errorf("%s: exit %d, shown %q, stderr %q", line, code, shown, stderr)
		}
		noTricks(t, line, shown)
		noTricks(t, line+" (stderr)", stderr)
		_, stdout, stderr := d.run(append(strings.Fields(line), "--json")...)
		if !json.Valid([]byte(stdout)) {
			t.Errorf("%s: %q (%s)", line, stdout, stderr)
		}
		noTricks(t, line, stdout)
	}
}

func TestRBLTablesFit80Columns(t *testing.T) {
	d := rblDaemon(t, "seen on 2026-03-02, see there")
	for _, line := range rblLookers {
		term := newTerminal(t, 80)
		_, shown, _ := term.run(t, "", append(strings.Fields(line), "--config", d.config)...)
		fits(t, line, shown, 80)
	}
}

func TestRBLStatusShowsListingsFirstAndThenWhatIsKnown(t *testing.T) {
	d := rblDaemon(t, "why")
	term := newTerminal(t, 100)
	code, shown, stderr := term.run(t, "", "rbl", "status", "--config", d.config)
	want := "SUBJECT      ZONE        PHASE      SEVERITY  SCOPE  SINCE\n203.0.113.5  bl.example  listed     high      ip        2h\n203.0.113.5  bl.example  suspected  low       range     2h\n"
	if code != exitFinding || !strings.HasPrefix(shown, want) || stderr != "" {
		t.Errorf("exit %d, stderr %q, shown:\n%s\nwant:\n%s", code, stderr, shown, want)
	}
	words := strings.Join(strings.Fields(shown), " ")
	for _, part := range []string{"why: bl.example: spam source (127.0.0.2): why", "203.0.113.5 (why): listed on 1, unknown on 2, clean on 50", "example.jp (sending domain): clean on 9", "1 of 2 lists can be believed", "wild.example (ip4) is wild: since",
		"ptr of 203.0.113.5 is wrong: why; wanted: one name", "203.0.113.0/24 on range.example: 12 of 256 listed, 10 the time before", "rounds: last 2", "; next 2"} {
		if !strings.Contains(words, part) {
			t.Errorf("no %q in\n%s", part, shown)
		}
	}
	if strings.Contains(shown, "fine") {
		t.Errorf("what is well is shown as if it were not:\n%s", shown)
	}
}

func TestRBLStatusExitsByWhatIsConfirmedAndWhatIsKnown(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rblStatus)
		code   int
	}{
		"listed": {func(s *rblStatus) {}, exitFinding},
		"ending": {func(s *rblStatus) {
			s.Listings = []history.Listing{aListing("", history.Ending, rbl.Low, rbl.ScopeAddress)}
		}, exitFinding},
		"suspected": {func(s *rblStatus) { s.Listings = s.Listings[1:] }, exitFine},
		"info": {func(s *rblStatus) {
			s.Listings = []history.Listing{aListing("", history.Standing, rbl.Info, rbl.ScopeRange)}
		}, exitFine},
		"clean":      {func(s *rblStatus) { s.Listings = nil }, exitFine},
		"no round":   {func(s *rblStatus) { s.Listings, s.Round = nil, time.Time{} }, exitCannotTell},
		"no subject": {func(s *rblStatus) { s.Listings, s.Subjects = nil, nil }, exitCannotTell},
		"all unknown": {func(s *rblStatus) {
			s.Listings, s.Subjects = nil, []rblSubjectState{{rblStanding: rblStanding{Subject: ourAddr, Unknown: 60}}}
		}, exitCannotTell},
		"harmless entries only": {func(s *rblStatus) {
			s.Listings, s.Subjects = nil, []rblSubjectState{{rblStanding: rblStanding{Subject: ourAddr, Info: 3}}}
		}, exitCannotTell},
		"mostly unknown": {func(s *rblStatus) {
			s.Listings, s.Subjects[0].rblStanding = nil, rblStanding{Subject: ourAddr, Clean: 20, Info: 5, Unknown: 15, Refused: 6}
		}, exitCannotTell},
		"some unknown": {func(s *rblStatus) {
			s.Listings, s.Subjects[0].rblStanding = nil, rblStanding{Subject: ourAddr, Clean: 20, Unknown: 15, Refused: 5}
		}, exitFine},
		"long ago":          {func(s *rblStatus) { s.Listings, s.Round = nil, s.Now.Add(-12*time.Hour-time.Minute) }, exitCannotTell},
		"domains only":      {func(s *rblStatus) { s.Listings, s.Subjects = nil, s.Subjects[1:] }, exitCannotTell},
		"a key unread":      {func(s *rblStatus) { s.Listings, s.Unread = nil, []string{"zone_key spamhaus: permission denied"} }, exitCannotTell},
		"who sends unknown": {func(s *rblStatus) { s.Listings, s.Own.Unsure = nil, true }, exitCannotTell},
	} {
		d, s := newFakeDaemon(t), someRBLStatus("why")
		c.change(&s)
		d.always("GET /v1/rbl/status", s)
		for _, flags := range []string{"", "--json"} {
			if code, stdout, stderr := d.run(append([]string{"rbl", "status"}, strings.Fields(flags)...)...); code != c.code {
				t.Errorf("%s %s: exit %d, want %d; stdout %q, stderr %q", name, flags, code, c.code, stdout, stderr)
			}
		}
	}
}

func TestRBLStatusOfADaemonThatDoesNotCheckExits3(t *testing.T) {
	d := newFakeDaemon(t)
	d.on("GET /v1/rbl/status", func(json.RawMessage) (any, error) {
		return nil, control.Errorf(503, "the daemon does not check blocklists: rbl.watch is false; look now: relayguard rbl check")
	})
	if code, stdout, stderr := d.run("rbl", "status"); code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "rbl.watch is false") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestRBLHistoryAsksForWhatWasSaidAndShowsListsThatWentBad(t *testing.T) {
	d := rblDaemon(t, "it lists 127.0.0.1")
	code, stdout, stderr := d.run("rbl", "history", "--since", "2026-03-01T00:00:00Z", "--subject", "203.0.113.5", "--zone", "BL.example.", "--limit", "7")
	if want := "GET /v1/rbl/history?limit=7&since=2026-03-01T00%3A00%3A00Z&subject=203.0.113.5&zone=bl.example "; !strings.HasPrefix(d.lastAsked("GET /v1/rbl/history"), want) {
		t.Errorf("asked %q, want %q", d.lastAsked("GET /v1/rbl/history"), want)
	}
	for _, part := range []string{"ENDED", "wild.example", "it lists 127.0.0.1", "spam source (127.0.0.2)"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
	if code != exitFine || stderr != "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	d.run("rbl", "history", "--since", "30d")
	d = newFakeDaemon(t)
	d.always("GET /v1/rbl/history", rblPast{})
	if code, stdout, stderr := d.run("rbl", "history"); code != exitFine || stdout != "" || !strings.Contains(stderr, "nothing of ours was listed") {
		t.Errorf("nothing: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestRBLZonesShowsWhichAreAskedAndWhyOthersAreNot(t *testing.T) {
	config, _ := listsOf(t, twoLists+"\n[[zone]]\nname = \"off.example\"\noperator = \"Off\"\nkinds = [\"domain\"]\nseverity = \"low\"\nscope = \"domain\"\ndefault = \"off\"\nstatus = \"own\"\n", "", nil)
	code, stdout, stderr := runIn(t, "rbl", "zones", "--config", config)
	if code != exitFine || !strings.Contains(stderr, "1 list asked, 1 shown that are not") || strings.Contains(stdout, "off.example") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	_, stdout, _ = runIn(t, "rbl", "zones", "--all", "--json", "--config", config)
	var shown struct {
		Zones []struct {
			Zone, Why string
			Used      bool
		}
	}
	if err := json.Unmarshal([]byte(stdout), &shown); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	used := map[string]bool{}
	for _, z := range shown.Zones {
		if used[z.Zone] = z.Used; z.Used != (z.Why == "") {
			t.Errorf("%+v", z)
		}
	}
	if len(used) != 3 || !used["bl.example"] || used["bl.keyed.example"] || used["off.example"] {
		t.Errorf("zones %v", used)
	}
}

func TestRBLZonesNamesListsThatHaveClosed(t *testing.T) {
	config, _ := commandDir(t)
	code, stdout, stderr := runIn(t, "rbl", "zones", "--dead", "--config", config)
	if code != exitFine || !strings.Contains(stdout, "sorbs") || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestRBLAddressesForgetsWhatWasLearnt(t *testing.T) {
	d := rblDaemon(t, "Received by mx.example.org")
	code, stdout, stderr := d.run("rbl", "addresses", "--forget", "::ffff:203.0.113.5")
	if code != exitFine || !strings.Contains(stdout, "mx.example.org") || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if asked := d.lastAsked("POST /v1/rbl/forget"); !strings.Contains(asked, `"addr":"203.0.113.5"`) {
		t.Errorf("asked %q", asked)
	}
}

func TestRBLAddressesLearnsFromAMessageAsItWasReceivedOutside(t *testing.T) {
	d := rblDaemon(t, "Received by mx.example.org")
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.config, append(text, "[rbl]\nfrom_mta = false\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	mail := filepath.Join(t.TempDir(), "mail.eml")
	if err := os.WriteFile(mail, []byte("Subject: nothing\n\nnothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := d.run("rbl", "addresses", "--learn", mail); code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "no Received line") {
		t.Errorf("no line: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, _, stderr := d.run("rbl", "addresses", "--learn", mail+".not"); code != exitCannotTell || !strings.Contains(stderr, "no such file") {
		t.Errorf("no file: exit %d, stderr %q", code, stderr)
	}
	if asked := d.lastAsked("POST"); asked != "" {
		t.Errorf("asked %q", asked)
	}
}

// deadRBLDaemon is a configuration whose daemon is dead and has left a history with a
// listing of ours.
func deadRBLDaemon(t *testing.T) (config string) {
	t.Helper()
	config, _ = commandDir(t)
	h, err := history.Open(t.Context(), filepath.Join(filepath.Dir(config), "blocklists"), history.Options{Confirm: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	zone := rbl.Zone{Name: "bl.example", Kinds: []rbl.Kind{rbl.IP4}, Severity: rbl.High}
	for i := range 2 {
		at := time.Now().Add(time.Duration(i-2) * time.Hour)
		a := anAnswer(ourAddr, zone.Name, rbl.Listed, aHit(rbl.High, rbl.ScopeAddress))
		a.At = at
		r := check.Round{Began: at, Answers: []rbl.Answer{a}, Zones: []rbl.Health{{Zone: zone.Name, Kind: rbl.IP4, State: rbl.Healthy, At: at}}}
		if err := h.Take(t.Context(), r, []rbl.Subject{ourAddr}, []rbl.Zone{zone}); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

func TestRBLOfADeadDaemonIsReadFromItsHistory(t *testing.T) {
	if !isRoot() {
		t.Skip("only root reads it without the daemon")
	}
	config := deadRBLDaemon(t)
	for _, line := range []string{"rbl status", "rbl history"} {
		code, stdout, stderr := runIn(t, append(strings.Fields(line), "--config", config)...)
		want := map[bool]int{true: exitFinding, false: exitFine}[line == "rbl status"]
		if code != want || !strings.Contains(stdout, "bl.example") || !strings.Contains(stderr, "the daemon does not run: this is what it knew") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
	config, _ = commandDir(t)
	for _, line := range []string{"rbl status", "rbl history"} {
		if code, stdout, stderr := runIn(t, append(strings.Fields(line), "--config", config)...); code != exitCannotTell || stdout != "" || !strings.Contains(stderr, "has left no history") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", line, code, stdout, stderr)
		}
	}
}

func TestRBLAddressesShowsHowEachIsKnown(t *testing.T) {
	config, _ := listsOf(t, twoLists, "from_mta = false\naddresses = [\"203.0.113.5\"]\n", nil)
	code, stdout, stderr := runIn(t, "rbl", "addresses", "--config", config)
	if code != exitFine || !strings.Contains(stdout, "203.0.113.5") || !strings.Contains(stdout, "rbl.addresses") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	_, stdout, _ = runIn(t, "rbl", "addresses", "--json", "--config", config)
	var own rblTargets
	if err := json.Unmarshal([]byte(stdout), &own); err != nil || len(own.Addresses) != 1 || own.Addresses[0].Addr != ourAddr.Addr {
		t.Errorf("%v in %q", err, stdout)
	}
}
