package main

import (
	"encoding/json"
	"strings"
	"testing"

	"relayguard/cmd/internal/desk"
)

func TestDeleteForGoodIsAskedAboutAsSuch(t *testing.T) {
	d := pile(t, 2)
	code, _, stderr := d.run("held", "delete", "--all", "--no-copy")
	if code != exitUsage || !strings.Contains(stderr, "and keep no copy") || strings.Contains(d.lastAsked("POST"), `"dry_run":false`) {
		t.Errorf("exit %d: %s; asked %s", code, stderr, d.lastAsked("POST"))
	}
}

func TestDeletedMailIsListedAndRestored(t *testing.T) {
	d := newFakeDaemon(t)
	deleted := desk.Deleted{Held: someHeld("A1", "taro@example.jp"), DeletedAt: noon}
	deleted.By = "ann"
	d.lines("POST /v1/held/deleted/stream", desk.DeletedLine{Message: &deleted}, desk.DeletedLine{End: &desk.DeletedEnd{Messages: 1, Bytes: deleted.Size}})
	code, stdout, stderr := d.run("held", "deleted")
	if code != exitFine || !strings.Contains(stdout, "A1") || !strings.Contains(stdout, "ann") || !strings.Contains(stdout, "login:taro@example.jp") || !strings.Contains(stderr, "1 message (2.3 kB) can be restored") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	d.lines("POST /v1/held/undelete/stream", desk.Step{Total: 1, Done: 1, Messages: []desk.Done{{Held: someHeld("A1", "taro@example.jp"), Outcome: "done", NewID: "B1"}}, Counts: map[string]int{"done": 1}, Unknown: []string{"A9"}, End: true})
	code, stdout, stderr = d.run("held", "undelete", "A1", "A9", "--reason", "no spam")
	if code != exitFinding || !strings.Contains(stdout, "B1") || !strings.Contains(stderr, "on hold again: 1 message") || !strings.Contains(stderr, "no copy of a deleted message A9") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	if got := d.lastAsked("POST"); !strings.HasPrefix(got, `POST /v1/held/undelete/stream {"filter":{"ids":["A1","A9"]},"dry_run":false,"tell":false,"reason":"no spam","ticket":"`) {
		t.Error(got)
	}
	for _, name := range []string{"undelete", "restore"} { // restore is what it was called before
		if code, _, stderr := d.run("held", name); code != exitUsage {
			t.Errorf("exit %d: %s", code, stderr)
		}
	}
}

// Review 1, finding 20: what --limit takes are the oldest, and the help says so.
func TestLimitOfHeldMailIsWhatItsHelpSays(t *testing.T) {
	if _, stdout, _ := runIn(t, "held", "list", "--help"); !strings.Contains(stdout, "at most so many, the ones held longest") {
		t.Error(stdout)
	}
}

func TestDeletedMailDoesNotTrickATerminal(t *testing.T) {
	d := newFakeDaemon(t)
	deleted := desk.Deleted{Held: someHeld("A1", hostile), DeletedAt: noon}
	deleted.By = hostile
	d.lines("POST /v1/held/deleted/stream", desk.DeletedLine{Message: &deleted}, desk.DeletedLine{End: &desk.DeletedEnd{Messages: 1}})
	d.lines("POST /v1/held/undelete/stream", desk.Step{Total: 1, Done: 1, Messages: []desk.Done{{Held: someHeld("A1", hostile), Outcome: "failed", Error: hostile}}, Counts: map[string]int{"failed": 1}, Unknown: []string{"A9"}, End: true})
	for _, line := range []string{"held deleted", "held undelete A1"} {
		_, shown, stderr := newTerminal(t, 80).run(t, "", append(strings.Fields(line), "--config", d.config)...)
		noTricks(t, line, shown+stderr)
		fits(t, line, shown, 80)
	}
}

func TestBulkUndeleteNeedsAWord(t *testing.T) {
	for _, c := range []struct {
		line, typed string
		terminal    bool
		code        int
		acts        bool
		says        string
	}{
		{line: "held undelete --by root --deleted-since 2h", code: exitUsage, says: "this would undelete 3 messages (6.9 kB); say --yes to go on"},
		{line: "held undelete --by root --yes", acts: true, says: "on hold again: 3 messages (6.9 kB)"},
		{line: "held undelete --all --dry-run", says: "would undelete 3 messages (6.9 kB); nothing was done"},
		{line: "held undelete --login taro", terminal: true, typed: "y\n", acts: true, says: "undelete 3 messages (6.9 kB)? [y/N] "},
		{line: "held undelete --login taro", terminal: true, typed: "n\n", code: exitFinding, says: "nothing was done"},
		{line: "held undelete --limit 2", code: exitUsage, says: "nothing chooses among the deleted mail"},
		{line: "held undelete --all --site shop.example.jp", code: exitUsage, says: "--all goes with nothing else"},
		{line: "held undelete 4ZJ1k82Vz0 4ZJ1k82Vz1 4ZJ1k82Vz2", acts: true, says: "on hold again: 3 messages"},
	} {
		d := newFakeDaemon(t)
		d.stream("POST /v1/held/undelete/stream", actOn(3))
		args := append(strings.Fields(c.line), "--config", d.config)
		var code int
		var stderr string
		if c.terminal {
			code, _, stderr = newTerminal(t, 80).run(t, c.typed, args...)
		} else {
			code, _, stderr = runIn(t, args...)
		}
		acted := strings.Contains(d.lastAsked("POST"), `"dry_run":false`)
		if code != c.code || acted != c.acts || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, acted %v (%s), stderr %q", c.line, code, acted, d.lastAsked("POST"), stderr)
		}
		if c.acts && len(c.typed) > 0 && !strings.Contains(d.lastAsked("POST"), `"before":"`) {
			t.Errorf("what is deleted since it was shown is restored, too: %s", d.lastAsked("POST"))
		}
	}
}

func TestDeletedMailAsJSONIsAList(t *testing.T) {
	for n, want := range []string{"[]\n", "[\n    {", "[\n    {"} {
		d := newFakeDaemon(t)
		d.stream("POST /v1/held/deleted/stream", func(_ json.RawMessage, send func(any)) error {
			for range n {
				send(desk.DeletedLine{Message: &desk.Deleted{Held: someHeld("A1", "taro@example.jp"), DeletedAt: noon}})
			}
			send(desk.DeletedLine{End: &desk.DeletedEnd{Messages: n}})
			return nil
		})
		code, stdout, _ := d.run("held", "deleted", "--json", "--by", "ann")
		var all []desk.Deleted
		if err := json.Unmarshal([]byte(stdout), &all); err != nil || code != exitFine || len(all) != n || !strings.HasPrefix(stdout, want) {
			t.Errorf("exit %d, %v: %s", code, err, stdout)
		}
		if got := d.lastAsked("POST"); got != `POST /v1/held/deleted/stream {"by":"ann"}` {
			t.Error(got)
		}
		d = newFakeDaemon(t)
		d.stream("POST /v1/held/deleted/stream", func(_ json.RawMessage, send func(any)) error {
			send(desk.DeletedLine{Message: &desk.Deleted{Held: someHeld("A1", "taro@example.jp"), DeletedAt: noon}})
			return errHangUp
		})
		if code, stdout, _ := d.run("held", "deleted", "--json"); code != exitCannotTell || json.Valid([]byte(stdout)) {
			t.Errorf("cut short: exit %d: %s", code, stdout)
		}
	}
}
