package forwards_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/mail"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/forward/ledger"
)

var at = time.Date(2016, 9, 10, 3, 0, 0, 0, time.UTC)

func event(kind, owner, target string, action ledger.Action) ledger.Event {
	f := forward.Finding{Owner: owner, Mechanism: forward.DotForward, Target: target, Verdict: forward.Outside, Mode: forward.Redirect, Chain: []string{owner}, Source: "/home/x/.forward", Line: 2, UID: 1000}
	f.ID = forward.FindingID(owner, f.Mechanism, target, f.Mode)
	return ledger.Event{Kind: kind, Action: action, Time: at, Entry: ledger.Entry{Finding: f, Classes: []ledger.Class{ledger.Role}, Since: at, Writer: forward.UnknownWriter}}
}

func TestOnlyAlertsAreAnnounced(t *testing.T) {
	all := forwards.Announce([]ledger.Event{event(ledger.Appeared, "alice", "a@evil.test", ledger.Digest), event(ledger.Vanished, "bob", "b@evil.test", ledger.Ignore)})
	if len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestAnAnnouncementSaysWhatWhereAndWho(t *testing.T) {
	e := event(ledger.Appeared, "sales", "s@evil.test", ledger.Alert)
	e.Entry.Writer = forward.Writer{UID: 33, LoginUID: 1000, PID: 5, Process: "/usr/sbin/apache2"}
	all := forwards.Announce([]ledger.Event{e})
	if len(all) != 1 || !all[0].Urgent || all[0].Topic != "forward "+e.Entry.ID || len(all[0].Detail.Forwards) != 1 {
		t.Fatalf("%+v", all)
	}
	for _, part := range []string{forward.ShortID(e.Entry.ID), "sales", "s@evil.test", "/home/x/.forward:2", "uid 33 (/usr/sbin/apache2), logged in as uid 1000", "role", "relayguard forwards show"} {
		if !strings.Contains(all[0].Text, part) {
			t.Errorf("no %q in %q", part, all[0].Text)
		}
	}
	if d := all[0].Detail.Forwards[0]; d.Target != "s@evil.test" || d.Owner != "sales" || d.Writer == "" {
		t.Errorf("%+v", d)
	}
}

func TestThousandsOfRulesAreAHandfulOfAnnouncements(t *testing.T) {
	var events []ledger.Event
	for n := range 5000 {
		events = append(events, event(ledger.Appeared, fmt.Sprint("u", n), "spy@evil.test", ledger.Alert))
	}
	events = append(events, event(ledger.Appeared, "sales", "other@evil.test", ledger.Alert))
	all := forwards.Announce(events)
	if len(all) != 1 || all[0].Detail.Count != 5001 || len(all[0].Detail.Forwards) > 100 {
		t.Fatalf("%d announcements, %+v", len(all), all[0].Detail.Count)
	}
	if !strings.Contains(all[0].Text, "5001 forwarding rules new: 5000 to spy@evil.test, 1 to other@evil.test") {
		t.Errorf("%q", all[0].Text)
	}
}

func TestAServersRuleIsNotHiddenAmongDecoys(t *testing.T) {
	var events []ledger.Event
	for n := range 500 {
		events = append(events, event(ledger.Appeared, fmt.Sprint("u", n), "decoy@evil.test", ledger.Alert))
	}
	server := event(ledger.Appeared, "*", "real@evil.test", ledger.Alert)
	server.Entry.Classes = []ledger.Class{ledger.Server}
	all := forwards.Announce(append(events, server))
	if len(all) != 2 || !strings.Contains(all[0].Text, "real@evil.test") || all[1].Detail.Count != 500 {
		t.Errorf("%d announcements, the first: %q", len(all), all[0].Text)
	}
}

func TestWhatIsAboutNoOneRule(t *testing.T) {
	var domains []string
	for n := range 40 {
		domains = append(domains, fmt.Sprintf("domain d%d.test counts as inside now", n))
	}
	topics := map[string]bool{}
	for says, e := range map[string]ledger.Event{
		"in 40 places":            {Kind: ledger.Widened, Count: 40, Names: domains, Why: strings.Join(domains[:20], "; ")},
		"in 1 places":             {Kind: ledger.Widened, Count: 1, Names: domains[:1], Why: domains[0]},
		"cannot be read any more": {Kind: forwards.Blind, Count: 2, Names: []string{"/home/a", "/home/b"}},
		"not approved yet":        {Kind: forwards.Due, Count: 3},
		"taken as existing":       {Kind: ledger.Baseline, Count: 7, Why: "database panel"},
		"more than 9":             {Kind: ledger.Crowded, Why: "mallory has more than 9 forwarding rules"},
	} {
		e.Action = ledger.Alert
		all := forwards.Announce([]ledger.Event{e})
		if len(all) != 1 || !strings.Contains(all[0].Text, says) || len(all[0].Detail.Names) != len(e.Names) {
			t.Errorf("%+v", all)
			continue
		}
		topics[all[0].Topic] = true
		if line := forwards.Line(e); line != all[0].Text {
			t.Errorf("line %q", line)
		}
	}
	if len(topics) != 6 {
		t.Errorf("topics %v: of two with one topic only the later is told", topics)
	}
}

func TestOneRuleSeenInTwoPlacesIsToldOnce(t *testing.T) {
	a, b := event(ledger.Appeared, "sales@corp.test", "s@evil.test", ledger.Alert), event(ledger.Appeared, "sales@corp.test", "s@evil.test", ledger.Alert)
	b.Entry.Mechanism, b.Entry.ID = forward.SQL, "F2"
	if all := forwards.Announce([]ledger.Event{a, b}); len(all) != 1 {
		t.Errorf("%+v", all)
	}
}

func TestNothingOfAnIntruderMovesTheCursor(t *testing.T) {
	e := event(ledger.Appeared, "sales\x1b[2J", "s\r\nBcc: x\u202e@evil.test", ledger.Alert)
	e.Entry.Differs = strings.Repeat("x", 10_000)
	for _, a := range forwards.Announce([]ledger.Event{e, {Kind: ledger.Broken, Action: ledger.Alert, Why: "\x1b]0;x\a"}, {Kind: ledger.Widened, Action: ledger.Alert, Why: "domain \n"}}) {
		if strings.ContainsAny(a.Text, "\x1b\r\n\a\u202e") || len(a.Text) > 1500 {
			t.Errorf("%q", a.Text)
		}
		for _, f := range a.Detail.Forwards {
			if strings.ContainsAny(f.Target+f.Owner+f.Differs, "\x1b\r\n\u202e") {
				t.Errorf("%+v", f)
			}
		}
	}
}

func TestWhoIsToldOfHisOwnRule(t *testing.T) {
	ours := func(domain string) bool { return domain == "corp.test" }
	server := event(ledger.Appeared, "alice", "a@evil.test", ledger.Digest)
	server.Entry.Server = true
	opaque := event(ledger.Appeared, "alice", "|prog", ledger.Digest)
	opaque.Entry.Verdict = forward.Opaque
	derived := event(ledger.Appeared, "alice", "a@evil.test", ledger.Digest)
	derived.Entry.Chain = []string{"alice", "bob"}
	for name, c := range map[string]struct {
		e  ledger.Event
		to string
	}{
		"a local name":       {event(ledger.Appeared, "alice", "a@evil.test", ledger.Digest), "alice@corp.test"},
		"an address":         {event(ledger.Appeared, "bob@corp.test", "a@evil.test", ledger.Digest), "bob@corp.test"},
		"not ours":           {event(ledger.Appeared, "bob@other.test", "a@evil.test", ledger.Digest), ""},
		"an admin was woken": {event(ledger.Appeared, "alice", "a@evil.test", ledger.Alert), ""},
		"gone":               {event(ledger.Vanished, "alice", "a@evil.test", ledger.Digest), ""},
		"a domain":           {event(ledger.Appeared, "@corp.test", "a@evil.test", ledger.Digest), ""},
		"everybody":          {event(ledger.Appeared, "*", "a@evil.test", ledger.Digest), ""},
		"hostile":            {event(ledger.Appeared, "a\r\nrcpt to:<x@corp.test", "a@evil.test", ledger.Digest), ""},
		"the server's":       {server, ""},
		"a program":          {opaque, ""},
		"another's rule":     {derived, ""},
	} {
		if to, ok := forwards.Told(&c.e, "corp.test", ours); to != c.to || ok != (c.to != "") {
			t.Errorf("%s: %q %v", name, to, ok)
		}
	}
}

func TestTheOwnersMail(t *testing.T) {
	e := event(ledger.Appeared, "alice", "a\r\nX: y@evil.test", ledger.Digest)
	m := forwards.OwnerMail(at, []*ledger.Event{&e}, "alice@corp.test", "postmaster@corp.test", "mx.corp.test")
	msg, err := mail.ReadMessage(strings.NewReader(string(m.Text)))
	if err != nil {
		t.Fatal(err)
	}
	if msg.Header.Get("X") != "" || msg.Header.Get("Auto-Submitted") != "auto-generated" || msg.Header.Get("To") != "alice@corp.test" || !strings.HasSuffix(msg.Header.Get("Message-ID"), "@mx.corp.test>") {
		t.Errorf("%v", msg.Header)
	}
	body, _ := io.ReadAll(base64.NewDecoder(base64.StdEncoding, msg.Body))
	text := string(body)
	for _, part := range []string{"this rule leaves nothing in your mailbox", "a\\x0d\\x0aX: y@evil.test", forward.ShortID(e.Entry.ID), "パスワード"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	for line := range strings.SplitSeq(string(m.Text), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\n\r") {
			t.Errorf("line %q", line)
		}
	}
}
