package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/ledger"
)

var start = time.Date(2016, 9, 10, 1, 0, 0, 0, time.UTC)

func rules() ledger.Rules {
	return ledger.Rules{Important: []string{"boss@corp.test"}, Roles: ledger.DefaultRoles(), Writers: []int{990}, Policy: ledger.DefaultPolicy()}
}

// rule makes a finding that names its target itself.
func rule(owner, target string) forward.Finding {
	f := forward.Finding{Owner: owner, Mechanism: forward.DotForward, Source: "/home/" + owner + "/.forward", Line: 1, Target: target,
		Verdict: forward.Outside, Mode: forward.Redirect, Chain: []string{owner}, UID: 1000, Unit: "forward " + owner}
	f.ID = forward.FindingID(owner, f.Mechanism, target, f.Mode)
	return f
}

func open(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(dir, rules())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func all(t *testing.T, l *ledger.Ledger, now time.Time, findings ...forward.Finding) []ledger.Event {
	t.Helper()
	events, err := l.All(now, findings, own, nil)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// own: the owner of the home wrote it.
func own(f *forward.Finding) ledger.Seen {
	return ledger.Seen{Expected: []int{1000}}
}

func entry(t *testing.T, l *ledger.Ledger, id string) ledger.Entry {
	t.Helper()
	e, err := l.Find(id)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestFirstScanIsTheBaseline(t *testing.T) {
	l := open(t, t.TempDir())
	a, b := rule("alice", "a@evil.test"), rule("sales", "s@evil.test")
	events := all(t, l, start, a, b)
	if len(events) != 1 || events[0].Kind != ledger.Baseline || events[0].Count != 2 {
		t.Fatalf("%+v", events)
	}
	for _, e := range l.Entries(false) {
		if e.Status != ledger.Existing || e.Due() {
			t.Errorf("%+v", e)
		}
	}
	if events := all(t, l, start.Add(time.Hour), a, b); len(events) != 0 {
		t.Errorf("the same again: %+v", events)
	}
}

func TestWhatMattersAlerts(t *testing.T) {
	server := rule("*", "x@evil.test")
	catchAll := rule("@corp.test", "x@evil.test")
	differs := rule("carol", "c@evil.test")
	differs.Differs = "the compiled form has it, the text has not"
	opaque := rule("dave", "/home/dave/filter")
	opaque.Verdict = forward.Opaque
	dormant := rule("sales", "s@evil.test")
	dormant.Verdict = forward.Dormant
	derived := rule("erin", "e@evil.test")
	derived.Chain = []string{"erin", "list"}
	derivedBoss := rule("boss@corp.test", "b@evil.test")
	derivedBoss.Chain = []string{"boss@corp.test", "list"}
	byRoot := rule("frank", "f@evil.test")
	byRoot.UID = 0
	byPanel := rule("grace", "g@evil.test")
	byPanel.UID = 990
	for _, c := range []struct {
		name   string
		f      forward.Finding
		class  ledger.Class
		action ledger.Action
	}{
		{"a customer's own", rule("alice", "a@evil.test"), ledger.Customer, ledger.Digest},
		{"everybody's", server, ledger.Server, ledger.Alert},
		{"a catch-all", catchAll, ledger.Server, ledger.Alert},
		{"an important owner", rule("boss@corp.test", "b@evil.test"), ledger.Important, ledger.Alert},
		{"a role", rule("payroll+x@corp.test", "p@evil.test"), ledger.Role, ledger.Alert},
		{"source differs", differs, ledger.Differs, ledger.Alert},
		{"a program", opaque, ledger.Customer, ledger.Digest},
		{"not in force", dormant, ledger.Role, ledger.Digest},
		{"through another's old rule", derived, ledger.Customer, ledger.Digest},
		{"an important one's, through another's", derivedBoss, ledger.Important, ledger.Alert},
		{"written by root", byRoot, ledger.Writer, ledger.Alert},
		{"written by a panel", byPanel, ledger.Customer, ledger.Digest},
	} {
		l := open(t, t.TempDir())
		all(t, l, start)
		events := all(t, l, start.Add(time.Minute), c.f)
		if len(events) != 1 || events[0].Action != c.action || !slices.Contains(events[0].Entry.Classes, c.class) {
			t.Errorf("%s: %+v", c.name, events)
			continue
		}
		if e := entry(t, l, c.f.ID); e.Due() != (c.action == ledger.Alert) || e.Status != ledger.New {
			t.Errorf("%s: due %v, %s", c.name, e.Due(), e.Status)
		}
	}
}

func TestKernelsWordAboutTheWriterGoesFirst(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start)
	events, err := l.Some(start, []forward.Finding{rule("alice", "a@evil.test")}, nil, func(*forward.Finding) ledger.Seen {
		return ledger.Seen{Writers: []forward.Writer{forward.UnknownWriter, {UID: 1000}, {UID: 33, LoginUID: forward.NoUID, PID: 9, Process: "/usr/sbin/apache2"}, {UID: 1000}}, Expected: []int{1000}}
	})
	if err != nil || len(events) != 1 || events[0].Action != ledger.Alert || events[0].Entry.Writer.Process != "/usr/sbin/apache2" {
		t.Errorf("%+v, %v", events, err)
	}
}

func TestOneTargetFedByThree(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start, rule("alice", "x@evil.test"), rule("alice+tag", "x@evil.test")) // one and the same
	two := rule("bob", "x@evil.test")
	events := all(t, l, start, rule("alice", "x@evil.test"), rule("alice+tag", "x@evil.test"), two)
	if len(events) != 1 || events[0].Action != ledger.Digest {
		t.Fatalf("two owners: %+v", events)
	}
	events = all(t, l, start, rule("alice", "x@evil.test"), rule("alice+tag", "x@evil.test"), two, rule("carol", "x@evil.test"))
	if len(events) != 1 || events[0].Action != ledger.Alert || !slices.Contains(events[0].Entry.Classes, ledger.FanIn) {
		t.Fatalf("three owners: %+v", events)
	}
	// Who has gone feeds nothing any more.
	all(t, l, start, rule("alice", "x@evil.test"), rule("carol", "x@evil.test"))
	events = all(t, l, start, rule("alice", "x@evil.test"), rule("carol", "x@evil.test"), rule("alice+b", "x@evil.test"))
	if len(events) != 1 || events[0].Action != ledger.Digest {
		t.Errorf("two again: %+v", events)
	}
}

func TestFiveAtOnceAreSeenAsOneTarget(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start)
	var five []forward.Finding
	for n := range 5 {
		five = append(five, rule(fmt.Sprintf("officer%d", n), "x@evil.test"))
	}
	alerts := 0
	for _, e := range all(t, l, start, five...) {
		if e.Action == ledger.Alert {
			alerts++
		}
	}
	if alerts != 5 {
		t.Errorf("%d of 5 alert", alerts)
	}
}

func TestApprovalHoldsForWhatWasApproved(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all(t, l, start)
	f := rule("sales", "s@partner.test")
	f.Digest = "aa"
	all(t, l, start, f)
	until := start.Add(24 * time.Hour)
	event, err := l.Approve(start, f.ID[:6], ledger.Approval{By: "root", Reason: "outsourced", Until: until})
	if err != nil || event.Kind != ledger.Granted || event.Action != ledger.Alert {
		t.Fatalf("%+v, %v", event, err)
	}
	gone := all(t, l, start)
	if len(gone) != 1 || gone[0].Kind != ledger.Vanished {
		t.Fatalf("%+v", gone)
	}
	back := all(t, l, start.Add(2*time.Hour), f)
	if len(back) != 1 || back[0].Action != ledger.Ignore || !entry(t, l, f.ID).Approved {
		t.Errorf("it came back: %+v", back)
	}
	changed := f
	changed.Digest = "bb"
	events := all(t, l, start, changed)
	if len(events) != 1 || events[0].Kind != ledger.Changed || events[0].Action != ledger.Alert || entry(t, l, f.ID).Approved {
		t.Errorf("another program: %+v", events)
	}
	if _, err := l.Approve(start, f.ID, ledger.Approval{By: "root", Reason: "seen", Until: until}); err != nil {
		t.Fatal(err)
	}
	if events, _ := l.Expire(until.Add(-time.Second)); len(events) != 0 {
		t.Errorf("before its time: %+v", events)
	}
	if events, _ := l.Expire(until); len(events) != 1 || events[0].Kind != ledger.Expired || events[0].Action != ledger.Alert || !events[0].Entry.Due() || entry(t, l, f.ID).Approved {
		t.Errorf("expired: %+v", events)
	}
	if _, err := l.Revoke(start, f.ID, "root"); !errors.Is(err, ledger.ErrNotApproved) {
		t.Errorf("revoke: %v", err)
	}
	if _, err := l.Approve(start, "F000", ledger.Approval{}); !errors.Is(err, ledger.ErrUnknown) {
		t.Errorf("unknown: %v", err)
	}
}

func TestRestartKnowsEverything(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all(t, l, start, rule("alice", "a@evil.test"))
	all(t, l, start, rule("alice", "a@evil.test"), rule("sales", "s@evil.test"))
	if _, err := l.Approve(start, rule("alice", "a@evil.test").ID, ledger.Approval{By: "root", Reason: "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Open(dir, rules()); !errors.Is(err, ledger.ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	before, seq, hash := l.Entries(true), int64(0), ""
	seq, hash = l.Head()
	l.Close()
	l = open(t, dir)
	if s, h := l.Head(); s != seq || h != hash || l.Broken() != "" {
		t.Errorf("head %d %s, was %d %s; %s", s, h, seq, hash, l.Broken())
	}
	if after := l.Entries(true); fmt.Sprintf("%+v", strip(after)) != fmt.Sprintf("%+v", strip(before)) {
		t.Errorf("got  %+v\nwant %+v", after, before)
	}
	if events := all(t, l, start, rule("alice", "a@evil.test"), rule("sales", "s@evil.test")); len(events) != 0 {
		t.Errorf("after a restart: %+v", events)
	}
}

// strip leaves out the address of what is pointed to.
func strip(entries []ledger.Entry) []ledger.Entry {
	for i := range entries {
		if entries[i].Approval != nil {
			entries[i].Note += entries[i].Approval.Reason
			entries[i].Approval = nil
		}
	}
	return entries
}

func TestPeekWhileAnotherHasIt(t *testing.T) {
	dir := t.TempDir()
	if _, err := ledger.Peek(dir, rules()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	l := open(t, dir)
	all(t, l, start, rule("alice", "a@evil.test"))
	if _, err := l.Approve(start, rule("alice", "a@evil.test").ID, ledger.Approval{By: "root", Reason: "old"}); err != nil {
		t.Fatal(err)
	}
	p, err := ledger.Peek(dir, rules())
	if at, based := p.Based(); err != nil || !based || !at.Equal(start) || !entry(t, p, rule("alice", "a@evil.test").ID).Approved {
		t.Errorf("%v", err)
	}
}

func TestWhatChangedIsNotGone(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start)
	before := rule("sales", "s@evil.test")
	before.Digest = "aa"
	all(t, l, start, before)
	after := before
	after.Digest = "bb"
	events, err := l.Some(start, []forward.Finding{after}, []forward.Finding{before}, own)
	if err != nil || len(events) != 1 || events[0].Kind != ledger.Changed || events[0].Action != ledger.Alert {
		t.Errorf("%+v, %v", events, err)
	}
}

// wantEvents compares kinds and actions: "appeared alice digest".
func wantEvents(t *testing.T, when string, events []ledger.Event, want ...string) {
	t.Helper()
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.Kind, " ", e.Entry.Owner, " ", e.Action))
	}
	slices.Sort(got)
	slices.Sort(want)
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("%s: %q, want %q", when, got, want)
	}
}

func TestATextThatIsCompiledInAMomentWakesNobody(t *testing.T) {
	l := open(t, t.TempDir())
	old := rule("bob", "b@phone.test")
	all(t, l, start, old)
	if _, err := l.Approve(start, old.ID, ledger.Approval{By: "root", Reason: "his phone"}); err != nil {
		t.Fatal(err)
	}
	// A panel writes the text: a line more, one that is another.
	added, away := rule("alice", "a@phone.test"), old
	added.Verdict, added.Differs, away.Differs = forward.Dormant, "the text has it, the compiled form has not", "the compiled form has it, the text has not"
	wantEvents(t, "the text", all(t, l, start.Add(time.Second), away, added), "changed bob ignore", "appeared alice digest")
	if entry(t, l, old.ID).Approved || l.Approved(old.ID, "", "") {
		t.Error("what differs from its source is approved")
	}
	// And compiles it.
	now := rule("alice", "a@phone.test")
	wantEvents(t, "compiled", all(t, l, start.Add(2*time.Second), old, now), "returned bob ignore", "appeared alice digest")
	if !entry(t, l, old.ID).Approved || !l.Approved(old.ID, "", "") {
		t.Error("the approval is gone")
	}
	if events, _ := l.Expire(start.Add(time.Hour)); len(events) != 0 {
		t.Errorf("later: %+v", events)
	}
}

func TestATextThatGoesOnDifferingIsTold(t *testing.T) {
	l := open(t, t.TempDir())
	old := rule("bob", "b@phone.test")
	all(t, l, start, old)
	away := old
	away.Differs = "the compiled form has it, the text has not"
	wantEvents(t, "the text was changed", all(t, l, start, away), "changed bob ignore")
	if events, _ := l.Expire(start.Add(time.Minute)); len(events) != 0 {
		t.Errorf("too soon: %+v", events)
	}
	events, _ := l.Expire(start.Add(3 * time.Minute))
	wantEvents(t, "it stays so", events, "changed bob alert")
	// One that only the compiled form has is told at once.
	planted := rule("carol", "c@evil.test")
	planted.Differs = "the compiled form has it, the text has not"
	wantEvents(t, "planted", all(t, l, start.Add(4*time.Minute), away, planted), "appeared carol alert")
}

func TestAHopToAnOldRuleIsTold(t *testing.T) {
	l := open(t, t.TempDir())
	bob := rule("bob", "b@evil.test")
	all(t, l, start, bob)
	there := []forward.Finding{bob}
	for n := range 4 {
		hop := rule(fmt.Sprintf("officer%d@corp.test", n), "b@evil.test")
		hop.Chain = []string{hop.Owner, "bob"}
		there = append(there, hop)
	}
	wantEvents(t, "four officers to bob", all(t, l, start, there...), "appeared officer0@corp.test alert", "appeared officer1@corp.test alert", "appeared officer2@corp.test alert", "appeared officer3@corp.test alert")
}

func TestWhatGoesByAnewRuleIsToldWithItUnlessItMattersMore(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start)
	bob, list, sales, everybody := rule("bob", "b@evil.test"), rule("list", "b@evil.test"), rule("sales", "b@evil.test"), rule("*", "b@evil.test")
	list.Chain, sales.Chain, everybody.Chain = []string{"list", "bob"}, []string{"sales", "list", "bob"}, []string{"*", "bob"}
	wantEvents(t, "bob's own rule", all(t, l, start, everybody, bob, list, sales), "appeared * alert", "appeared bob digest", "appeared list ignore", "appeared sales alert")
	if e := entry(t, l, list.ID); !e.Behind || e.Due() {
		t.Errorf("%+v", e)
	}
}

func TestAHomeThatWasAwayIsNotNew(t *testing.T) {
	l := open(t, t.TempDir())
	old := rule("sales", "s@evil.test")
	all(t, l, start, old)
	fresh := rule("info", "i@evil.test")
	all(t, l, start, old, fresh)
	wantEvents(t, "away", all(t, l, start), "gone info digest", "gone sales digest")
	wantEvents(t, "back", all(t, l, start.Add(time.Minute), old, fresh), "returned sales ignore", "returned info alert")
	all(t, l, start.Add(time.Minute))
	wantEvents(t, "back after hours", all(t, l, start.Add(3*time.Hour), old), "appeared sales alert")
}

func TestCaseAndTagsOfATargetHideNothing(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start)
	a, b, c := rule("alice", "out@evil.test"), rule("bob", "oUt@evil.test"), rule("carol", "out+x@evil.test")
	wantEvents(t, "three", all(t, l, start, a, b, c), "appeared alice alert", "appeared bob alert", "appeared carol alert")
}

func TestAdoptedRulesAreExisting(t *testing.T) {
	l := open(t, t.TempDir())
	known := rule("alice", "a@evil.test")
	all(t, l, start)
	all(t, l, start, known)
	events, err := l.Adopt(start, "database panel", []forward.Finding{known, rule("sales", "s@evil.test")})
	if err != nil || len(events) != 1 || events[0].Count != 1 || events[0].Why != "database panel" {
		t.Errorf("%+v, %v", events, err)
	}
	if a, s := entry(t, l, known.ID), entry(t, l, rule("sales", "s@evil.test").ID); a.Status != ledger.New || s.Status != ledger.Existing {
		t.Errorf("%s, %s", a.Status, s.Status)
	}
	if again, _ := l.Adopt(start, "database panel", []forward.Finding{known}); len(again) != 0 {
		t.Errorf("%+v", again)
	}
}

func TestARevokedApprovalStaysSoThroughARewrittenFile(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	f := rule("sales", "s@partner.test")
	all(t, l, start, f)
	many := []forward.Finding{f}
	for n := range 100 {
		many = append(many, rule(fmt.Sprint("u", n), fmt.Sprintf("x%d@phone.test", n)))
	}
	for range 100 { // until the file is nearly long enough to be made anew
		all(t, l, start, many...)
		all(t, l, start, f)
	}
	granted := 0
	for aside := []string(nil); len(aside) == 0 && granted < 1000; granted++ {
		if _, err := l.Approve(start, f.ID, ledger.Approval{By: "root", Reason: "r"}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Revoke(start, f.ID, "root"); err != nil {
			t.Fatal(err)
		}
		aside, _ = filepath.Glob(filepath.Join(dir, "ledger-*"))
	}
	if granted == 1000 {
		t.Fatal("the file was never made anew")
	}
	l.Close()
	if l = open(t, dir); entry(t, l, f.ID).Approved || l.Approved(f.ID, "", "") {
		t.Errorf("after %d approvals and revocations it is approved", granted)
	}
}

func TestPlacesOfWhichNothingCanBeSaidKeepTheirRules(t *testing.T) {
	l := open(t, t.TempDir())
	a, b := rule("alice", "a@evil.test"), rule("bob", "b@evil.test")
	all(t, l, start, a, b)
	events, err := l.All(start, nil, own, func(unit string) bool { return unit == a.Unit })
	if err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "alice's cannot be read", events, "gone bob digest")
}

func TestFilesOfThePastAreFew(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all(t, l, start)
	for round := range 9 {
		var many []forward.Finding
		for n := range 9000 {
			many = append(many, rule("mallory", fmt.Sprintf("x%d.%d@evil.test", round, n)))
		}
		all(t, l, start.Add(time.Duration(round)*time.Hour*24*40), many...)
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "ledger-*")); len(aside) > 5 {
		t.Errorf("%d files", len(aside))
	}
}

func TestOneOwnersRulesAreBounded(t *testing.T) {
	l := open(t, t.TempDir())
	all(t, l, start)
	many := make([]forward.Finding, 12_000)
	crowded := 0
	for round := range 3 {
		for n := range many {
			many[n] = rule("mallory", fmt.Sprintf("x%d.%d@evil.test", round, n))
		}
		for _, e := range all(t, l, start.Add(time.Duration(round)*time.Minute), many...) {
			if e.Kind == ledger.Crowded {
				crowded++
			}
		}
	}
	if n := len(l.Entries(true)); n > 40_000 || crowded == 0 {
		t.Errorf("%d entries, told %d times", n, crowded)
	}
}

func TestWhatCountsAsInsideIsRemembered(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	world := func(l *ledger.Ledger, domains ...string) []ledger.Event {
		t.Helper()
		w := &forward.World{Inside: map[string]bool{}, Hosts: map[string]bool{"127.0.0.1": true}}
		for _, d := range domains {
			w.Inside[d] = true
		}
		events, err := l.World(start, w)
		if err != nil {
			t.Fatal(err)
		}
		return events
	}
	if events := world(l, "corp.test"); len(events) != 0 {
		t.Errorf("the first: %+v", events)
	}
	events := world(l, "corp.test", "evil.test")
	if len(events) != 1 || events[0].Action != ledger.Alert || events[0].Why != "domain evil.test counts as inside now" {
		t.Errorf("%+v", events)
	}
	l.Close()
	l = open(t, dir)
	if events := world(l, "corp.test", "evil.test"); len(events) != 0 {
		t.Errorf("after a restart: %+v", events)
	}
	if events := world(l, "corp.test"); len(events) != 1 || events[0].Why != "domain evil.test does no longer" {
		t.Errorf("%+v", events)
	}
}

func TestUnfinishedRecordIsCutOff(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all(t, l, start, rule("alice", "a@evil.test"))
	l.Close()
	path := filepath.Join(dir, "ledger")
	data := read(t, path)
	write(t, path, append(slices.Clone(data), "0123 {\"seq\":"...))
	l = open(t, dir)
	if l.Broken() != "" || len(l.Entries(false)) != 1 {
		t.Errorf("%q, %d entries", l.Broken(), len(l.Entries(false)))
	}
	all(t, l, start, rule("alice", "a@evil.test"), rule("bob", "b@evil.test"))
	l.Close()
	if l = open(t, dir); l.Broken() != "" || len(l.Entries(false)) != 2 {
		t.Errorf("after it: %q, %d entries", l.Broken(), len(l.Entries(false)))
	}
}

func TestARewrittenRecordIsNoticed(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"a target": func(b []byte) []byte { return bytes.Replace(b, []byte("b@evil.test"), []byte("b@corp.test"), 1) },
		"a line less": func(b []byte) []byte {
			lines := bytes.SplitAfter(b, []byte("\n"))
			return bytes.Join(append(lines[:1:1], lines[2:]...), nil)
		},
		"rubbish": func(b []byte) []byte { return append([]byte("rubbish\n"), b...) },
	} {
		dir := t.TempDir()
		l := open(t, dir)
		all(t, l, start, rule("alice", "a@evil.test"), rule("bob", "b@evil.test"), rule("carol", "c@evil.test"))
		l.Close()
		path := filepath.Join(dir, "ledger")
		write(t, path, spoil(read(t, path)))
		l = open(t, dir)
		if l.Broken() == "" {
			t.Errorf("%s: not noticed", name)
		}
		aside, _ := filepath.Glob(filepath.Join(dir, "ledger-*-broken"))
		if len(aside) != 1 {
			t.Errorf("%s: put aside: %q", name, aside)
		}
		l.Close()
		if l = open(t, dir); l.Broken() != "" {
			t.Errorf("%s: the new file is broken, too: %s", name, l.Broken())
		}
	}
}

func TestHeadCommitsToWhatIsRecorded(t *testing.T) {
	heads := map[string]bool{}
	l := open(t, t.TempDir())
	for n := range 4 {
		var there []forward.Finding
		for i := range n {
			there = append(there, rule(fmt.Sprint("u", i), "x@evil.test"))
		}
		all(t, l, start, there...)
		_, hash := l.Head()
		heads[hash] = true
	}
	if len(heads) != 4 {
		t.Errorf("%d heads of 4 states", len(heads))
	}
}

func TestFileStaysSmall(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all(t, l, start)
	for range 60 {
		var some []forward.Finding
		for n := range 200 {
			some = append(some, rule(fmt.Sprint("u", n), "x@evil.test"))
		}
		all(t, l, start, some...)
		all(t, l, start)
	}
	if lines := strings.Count(string(read(t, filepath.Join(dir, "ledger"))), "\n"); lines > 21_000 {
		t.Errorf("%d lines", lines)
	}
	seq, _ := l.Head()
	l.Close()
	l = open(t, dir)
	if again, _ := l.Head(); again != seq || l.Broken() != "" || len(l.Entries(true)) != 200 {
		t.Errorf("head %d, was %d; %q", again, seq, l.Broken())
	}
}

func TestFullDiskLosesNoRecord(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	all(t, l, start)
	// A file that may not grow stands for a disk that is full.
	limitFileSize(t, int64(len(read(t, filepath.Join(dir, "ledger")))))
	events, err := l.All(start, []forward.Finding{rule("sales", "s@evil.test")}, own, nil)
	if err == nil || len(events) != 1 || events[0].Action != ledger.Alert {
		t.Errorf("it is told all the same: %+v, %v", events, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o640); err != nil {
		t.Fatal(err)
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	l, err := ledger.Open(dir, rules())
	if err != nil {
		f.Fatal(err)
	}
	l.All(start, []forward.Finding{rule("alice", "a@evil.test")}, own, nil)
	l.Close()
	data, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("x {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "ledger"), data)
		l, err := ledger.Open(dir, rules())
		if err != nil {
			return
		}
		l.All(start, []forward.Finding{rule("bob", "b@evil.test")}, own, nil)
		l.Close()
		if l, err = ledger.Open(dir, rules()); err != nil || l.Broken() != "" {
			t.Fatalf("what was written cannot be read: %v, %q", err, l.Broken())
		}
		l.Close()
	})
}
