package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"relayguard/cmd/internal/desk"
)

// Review 1, finding 17: on a full disk there is no room for a copy.
func TestDeleteOnAFullDisk(t *testing.T) {
	d := newFakeDaemon(t)
	report := func(m desk.Done) desk.Report {
		return desk.Report{Messages: []desk.Done{m}, Counts: map[string]int{m.Outcome: 1}}
	}
	d.always("POST /v1/held/delete", report(desk.Done{Held: someHeld("A1", "taro"), Outcome: "failed", Error: "keep A1 for the grace time: write: " + syscall.ENOSPC.Error()}))
	d.always("POST /v1/held/delete-for-good", report(desk.Done{Held: someHeld("A1", "taro"), Outcome: "done"}))
	if code, _, stderr := d.run("held", "delete", "A1"); code != exitFinding || !strings.Contains(stderr, "--no-copy") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := d.run("held", "delete", "A1", "--no-copy"); code != exitFine || !strings.Contains(stderr, "deleted 1 message") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if got := d.lastAsked("POST"); !strings.HasPrefix(got, `POST /v1/held/delete-for-good {"filter":{"ids":["A1"]},"dry_run":false`) {
		t.Error(got)
	}
	if code, _, stderr := d.run("held", "release", "A1", "--no-copy"); code != exitUsage {
		t.Errorf("release --no-copy: exit %d: %s", code, stderr)
	}
}

func TestDeleteForGoodIsAskedAboutAsSuch(t *testing.T) {
	d := newFakeDaemon(t)
	d.on("POST /v1/held/delete-for-good", func(body json.RawMessage) (any, error) {
		var o desk.Order
		err := json.Unmarshal(body, &o)
		all := []desk.Done{{Held: someHeld("A1", "taro"), Outcome: "would"}, {Held: someHeld("A2", "taro"), Outcome: "would"}}
		return desk.Report{DryRun: o.DryRun, Messages: all, Counts: map[string]int{"would": 2}}, err
	})
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
	code, stdout, stderr = d.run("held", "restore", "A1", "A9", "--reason", "no spam")
	if code != exitFinding || !strings.Contains(stdout, "B1") || !strings.Contains(stderr, "1 message on hold again") || !strings.Contains(stderr, "no copy of a deleted message A9") {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	if got := d.lastAsked("POST"); got != `POST /v1/held/restore {"ids":["A1","A9"],"reason":"no spam"}` {
		t.Error(got)
	}
	if code, _, stderr := d.run("held", "restore"); code != exitUsage {
		t.Errorf("exit %d: %s", code, stderr)
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
	for _, line := range []string{"held deleted", "held restore A1"} {
		_, shown, stderr := newTerminal(t, 80).run(t, "", append(strings.Fields(line), "--config", d.config)...)
		noTricks(t, line, shown+stderr)
		fits(t, line, shown, 80)
	}
}
