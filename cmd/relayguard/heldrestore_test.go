package main

import (
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
	d.always("GET /v1/held/deleted", []desk.Deleted{deleted})
	code, stdout, stderr := d.run("held", "deleted")
	if code != exitFine || !strings.Contains(stdout, "A1") || !strings.Contains(stdout, "ann") || !strings.Contains(stdout, "login:taro@example.jp") || !strings.Contains(stderr, "1 message can be restored") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	d.always("POST /v1/held/restore", desk.Report{Messages: []desk.Done{{Held: someHeld("A1", "taro@example.jp"), Outcome: "done", NewID: "B1"}}, Counts: map[string]int{"done": 1}, Unknown: []string{"A9"}})
	code, stdout, stderr = d.run("held", "undelete", "A1", "A9", "--reason", "no spam")
	if code != exitFinding || !strings.Contains(stdout, "B1") || !strings.Contains(stderr, "1 message on hold again") || !strings.Contains(stderr, "no copy of a deleted message A9") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	if got := d.lastAsked("POST"); got != `POST /v1/held/restore {"ids":["A1","A9"],"reason":"no spam"}` {
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
	d.always("GET /v1/held/deleted", []desk.Deleted{deleted})
	d.always("POST /v1/held/restore", desk.Report{Messages: []desk.Done{{Held: someHeld("A1", hostile), Outcome: "failed", Error: hostile}}, Counts: map[string]int{"failed": 1}, Unknown: []string{"A9"}})
	for _, line := range []string{"held deleted", "held undelete A1"} {
		_, shown, stderr := newTerminal(t, 80).run(t, "", append(strings.Fields(line), "--config", d.config)...)
		noTricks(t, line, shown+stderr)
		fits(t, line, shown, 80)
	}
}
