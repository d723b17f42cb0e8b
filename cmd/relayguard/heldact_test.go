package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
)

// pile answers release and delete with so many held messages.
func pile(t *testing.T, n int) *fakeDaemon {
	d := newFakeDaemon(t)
	d.stream("POST /v1/held/act/stream", actOn(n))
	return d
}

func TestBulkNeedsAWordIDsAndSingleMessagesDoNot(t *testing.T) {
	for _, c := range []struct {
		line, typed    string
		terminal       bool
		found          int
		code           int
		acts           bool
		asked, answers string
	}{
		{line: "held delete --login taro", found: 3, code: exitUsage, answers: "this would delete 3 messages (6.9 kB); say --yes to go on"},
		{line: "held delete --login taro --yes", found: 3, acts: true, answers: "deleted 3 messages (6.9 kB)"},
		{line: "held delete --login taro", found: 1, acts: true, answers: "deleted 1 message (2.3 kB)"},
		{line: "held delete --login taro", found: 0, answers: "nothing held is like that; nothing was done"},
		{line: "held delete 4ZJ1k82Vz0 4ZJ1k82Vz1 4ZJ1k82Vz2", found: 3, acts: true, answers: "deleted 3 messages"},
		{line: "held release --all", found: 3, code: exitUsage, answers: "this would release 3 messages"},
		{line: "held release --all --dry-run", found: 3, answers: "would release 3 messages (6.9 kB); nothing was done"},
		{line: "held delete --login taro", found: 3, terminal: true, typed: "y\n", acts: true, answers: "delete 3 messages (6.9 kB)? [y/N] "},
		{line: "held delete --login taro", found: 3, terminal: true, typed: "\n", code: exitFinding, answers: "nothing was done"},
		{line: "held delete --login taro", found: 3, terminal: true, typed: "n\n", code: exitFinding, answers: "login:taro@example.jp  login-volume"},
		{line: "held release 4ZJ1k82Vz0 4ZJ1k82Vz1", found: 2, terminal: true, acts: true, answers: "released 2 messages"},
	} {
		d := pile(t, c.found)
		args := append(strings.Fields(c.line), "--config", d.config)
		var code int
		var stderr string
		if c.terminal {
			code, _, stderr = newTerminal(t, 80).run(t, c.typed, args...)
		} else {
			code, _, stderr = runIn(t, args...)
		}
		acted := strings.Contains(d.lastAsked("POST"), `"dry_run":false`)
		if code != c.code || acted != c.acts || !strings.Contains(stderr, c.answers) {
			t.Errorf("%s with %q of %d: exit %d, acted %v (%s), stderr %q", c.line, c.typed, c.found, code, acted, d.lastAsked("POST"), stderr)
		}
	}
}

func TestWhatIsAgreedToIsWhatWasShown(t *testing.T) {
	d := pile(t, 2)
	before := time.Now()
	code, _, stderr := newTerminal(t, 80).run(t, "yes\n", "held", "release", "--login", "Taro", "--older-than", "2h", "--reason", "fine", "--config", d.config)
	var o desk.HeldOrder
	_, body, _ := strings.Cut(d.lastAsked("POST"), "{")
	if err := json.Unmarshal([]byte("{"+body), &o); err != nil || code != exitFine {
		t.Fatalf("exit %d (%s), asked %s", code, stderr, d.lastAsked("POST"))
	}
	f := o.Filter
	if o.Verb != "release" || o.DryRun || o.Reason != "fine" || f.Login != "taro" || f.Before.Before(before) || f.Before.After(time.Now()) || f.OlderThan <= 2*time.Hour || len(f.IDs) != 2 {
		t.Errorf("%+v", o)
	}
	code, _, stderr = newTerminal(t, 80).run(t, "yes\n", "held", "release", "--login", "taro", "--limit", "2", "--config", d.config)
	if got := d.lastAsked("POST"); code != exitFine || !strings.Contains(got, `"ids":["4ZJ1k82Vz0","4ZJ1k82Vz1"]`) || strings.Contains(got, "limit") {
		t.Errorf("exit %d (%s), asked %s", code, stderr, got)
	}
}

func TestFailuresAndNewIDsAreListed(t *testing.T) {
	d := newFakeDaemon(t)
	outcome := func(id, outcome, newID, why string) desk.Done {
		return desk.Done{Held: someHeld(id, "taro@example.jp"), Outcome: outcome, NewID: newID, Error: why}
	}
	d.lines("POST /v1/held/act/stream", desk.Step{Total: 5, Done: 5, DoneBytes: 4620, Messages: []desk.Done{outcome("A1", "done", "", ""), outcome("A2", "done", "B2", ""), outcome("A3", "failed", "", "postsuper: fatal"), outcome("A4", "gone", "", ""), outcome("A5", "changed", "", "")},
		Counts: map[string]int{"done": 2, "failed": 1, "gone": 1, "changed": 1}, Unknown: []string{"A6"}, End: true})
	code, stdout, stderr := d.run("held", "release", "A1", "A2", "A3", "A4", "A5", "A6")
	want := "QUEUE ID     OUTCOME  NEW ID       WHOSE                  ERROR\nA2           done     B2           login:taro@example.jp  -\nA3           failed   -            login:taro@example.jp  postsuper: fatal\nA4           gone     -            login:taro@example.jp  -\nA5           changed  -            login:taro@example.jp  -\n"
	if code != exitFinding || stdout != want {
		t.Errorf("exit %d, stdout:\n%s", code, stdout)
	}
	for _, part := range []string{"released 2 messages (4.6 kB); 1 failed; 1 had left the queue already; 1 left alone", "relayguard holds nothing under A6; relayguard explain A6"} {
		if !strings.Contains(stderr, part) {
			t.Errorf("no %q in %s", part, stderr)
		}
	}
}

// heldLines is a list of held mail as the daemon tells it.
func heldLines(end desk.HeldEnd, all ...desk.Held) []any {
	lines := []any{}
	for i := range all {
		lines = append(lines, desk.HeldLine{Message: &all[i]})
	}
	return append(lines, desk.HeldLine{End: &end})
}

func TestHeldListNamesForeignHolds(t *testing.T) {
	d := newFakeDaemon(t)
	asked := someHeld("A2", "taro@example.jp")
	asked.State = "releasing"
	d.lines("POST /v1/held/list/stream", heldLines(desk.HeldEnd{Messages: 2, Bytes: 4620, Foreign: 1234}, someHeld("A1", "taro@example.jp"), asked, desk.Held{QueueID: "B1", HeldAt: noon, State: "held", HeldBy: "other"})...)
	code, stdout, stderr := d.run("held", "list")
	goldenIs(t, "held-piped.txt", stdout)
	if code != exitFine || stderr != "2 messages (4.6 kB) held by relayguard, 1234 by others (1 of them listed)\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	for _, columns := range []uint16{80, 200} {
		_, shown, _ := newTerminal(t, columns).run(t, "", "held", "list", "--config", d.config)
		fits(t, "held list", shown, int(columns))
		goldenIs(t, "held-"+number(int(columns))+".txt", shown)
	}
	_, stdout, _ = d.run("held", "list", "--json")
	var l desk.List
	if err := json.Unmarshal([]byte(stdout), &l); err != nil || len(l.Held) != 3 || l.Foreign != 1234 {
		t.Errorf("%v: %s", err, stdout)
	}
}

func TestHeldListOfAQueueThatCannotBeLookedAtCannotTell(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/held/list/stream", heldLines(desk.HeldEnd{Messages: 1, Stale: "root helper not reachable"}, someHeld("A1", "taro@example.jp"))...)
	code, stdout, stderr := d.run("held", "list")
	if code != exitCannotTell || !strings.Contains(stdout, "A1") || !strings.Contains(stderr, "root helper not reachable") || !strings.Contains(stderr, "last looked at: never") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestHeldListSaysThatItIsNotOfNow(t *testing.T) {
	d := newFakeDaemon(t)
	d.lines("POST /v1/held/list/stream", heldLines(desk.HeldEnd{Messages: 1, Older: true}, someHeld("A1", "taro@example.jp"))...)
	if code, stdout, stderr := d.run("held", "list"); code != exitFine || !strings.Contains(stdout, "A1") || !strings.Contains(stderr, "takes long") || !strings.Contains(stderr, "last looked at: never") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestHeldShowKeepsContentToItself(t *testing.T) {
	d := newFakeDaemon(t)
	d.always("POST /v1/held/list", desk.List{Held: []desk.Held{someHeld("A1", "taro@example.jp")}})
	code, stdout, stderr := d.run("held", "show", "A1", "A2")
	if code != exitFinding || !strings.Contains(stdout, "37 recipients: example.net 30, example.org 7") || !strings.Contains(stderr, "relayguard holds nothing under A2") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	if d.lastAsked("POST /v1/held/inspect") != "" {
		t.Error("it looked into the mail")
	}
	raw := "Subject: \x1b[2Jx\r\n\tmore\r\n"
	d.always("POST /v1/held/inspect", desk.Inspected{Text: []byte(raw)})
	if code, stdout, _ := d.run("held", "show", "A1", "--content", "--reason", "complaint"); code != exitFine || stdout != raw {
		t.Errorf("elsewhere than on a terminal: exit %d, %q", code, stdout)
	}
	if got := d.lastAsked("POST"); !strings.Contains(got, `{"id":"A1","part":"content","reason":"complaint"}`) {
		t.Error(got)
	}
	if _, shown, _ := newTerminal(t, 80).run(t, "", "held", "show", "A1", "--headers", "--reason", "complaint", "--config", d.config); shown != "Subject: \\x1b[2Jx\n        more\n" {
		t.Errorf("on a terminal: %q", shown)
	}
}
