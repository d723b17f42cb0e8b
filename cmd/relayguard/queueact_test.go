package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
)

func notFound(text string) error { return control.Errorf(http.StatusNotFound, "%s", text) }

// actOn answers an act on so many messages, in two steps.
func actOn(n int) func(body json.RawMessage, send func(any)) error {
	return func(body json.RawMessage, send func(any)) error {
		var o desk.QueueOrder
		if err := json.Unmarshal(body, &o); err != nil {
			return err
		}
		send(desk.Step{Seen: 10 * n})
		send(desk.Step{Total: n, Bytes: int64(n) * 2310})
		outcome := "done"
		if o.DryRun {
			outcome = "would"
		}
		step := desk.Step{Total: n, Bytes: int64(n) * 2310, Done: n, Counts: map[string]int{outcome: n}, End: true}
		if !o.DryRun {
			step.DoneBytes = int64(n) * 2310
		}
		for i := range n {
			if o.Tell {
				m := desk.Done{Held: someHeld("4ZJ1k82Vz"+number(i), "taro@example.jp"), Outcome: outcome}
				m.Queue, m.HeldBy = "deferred", ""
				step.Messages = append(step.Messages, m)
			}
		}
		send(step)
		return nil
	}
}

func TestQueueActsNeedAWordIDsAndSingleMessagesDoNot(t *testing.T) {
	for _, c := range []struct {
		line, typed string
		terminal    bool
		found       int
		code        int
		acts        bool
		answers     string
	}{
		{line: "queue delete --site x", found: 3, code: exitUsage, answers: "this would delete 3 messages (6.9 kB); say --yes to go on"},
		{line: "queue delete --site x --no-copy", found: 3, code: exitUsage, answers: "this would delete 3 messages (6.9 kB) and keep no copy; say --yes"},
		{line: "queue requeue --site x --foreign", found: 3, code: exitUsage, answers: "this would requeue 3 messages (6.9 kB), those on others' hold, too"},
		{line: "queue delete --site x --yes", found: 3, acts: true, answers: "deleted 3 messages (6.9 kB)\n"},
		{line: "queue hold --site x", found: 1, acts: true, answers: "put on hold: 1 message (2.3 kB)\n"},
		{line: "queue hold --site x", found: 0, answers: "nothing queued is like that; nothing was done\n"},
		{line: "queue requeue A1 A2 A3", found: 3, acts: true, answers: "queued anew: 3 messages (6.9 kB)\n"},
		{line: "queue release --all --queue hold", found: 3, code: exitUsage, answers: "this would release 3 messages"},
		{line: "queue release --all --dry-run", found: 3, answers: "would release 3 messages (6.9 kB); nothing was done\n"},
		{line: "queue delete --login taro", found: 3, terminal: true, typed: "y\n", acts: true, answers: "delete 3 messages (6.9 kB)? [y/N] "},
		{line: "queue delete --login taro", found: 3, terminal: true, typed: "n\n", code: exitFinding, answers: "login:taro@example.jp  login-volume"},
	} {
		d := newFakeDaemon(t)
		d.stream("POST /v1/queue/act", actOn(c.found))
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

func TestWhatIsAgreedToIsWhatWasShownOfTheQueue(t *testing.T) {
	d := newFakeDaemon(t)
	d.stream("POST /v1/queue/act", actOn(2))
	before := time.Now()
	if code, _, stderr := newTerminal(t, 80).run(t, "yes\n", "queue", "hold", "--older-than", "2h", "--newer-than", "3d", "--reason", "why", "--config", d.config); code != exitFine {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	var o desk.QueueOrder
	_, body, _ := strings.Cut(d.lastAsked("POST"), "{")
	if err := json.Unmarshal([]byte("{"+body), &o); err != nil {
		t.Fatal(err)
	}
	f := o.Filter
	if o.DryRun || o.Verb != "hold" || o.Reason != "why" || f.Before.Before(before) || f.Before.After(time.Now()) || f.OlderThan <= 2*time.Hour || f.NewerThan <= 72*time.Hour || len(f.IDs) != 2 {
		t.Errorf("%+v", o)
	}
	if code, _, stderr := newTerminal(t, 80).run(t, "yes\n", "queue", "hold", "--site", "x", "--limit", "2", "--config", d.config); code != exitFine {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	if got := d.lastAsked("POST"); !strings.Contains(got, `"ids":["4ZJ1k82Vz0","4ZJ1k82Vz1"]`) || strings.Contains(got, "limit") {
		t.Error(got)
	}
}

func TestQueueActsListWhatDidNotGoAsUsual(t *testing.T) {
	d := newFakeDaemon(t)
	outcome := func(id, outcome, newID, why string) desk.Done {
		return desk.Done{Held: someHeld(id, "taro@example.jp"), Outcome: outcome, NewID: newID, Error: why}
	}
	d.lines("POST /v1/queue/act",
		desk.Step{Total: 5, Bytes: 11550, Done: 2, DoneBytes: 4620, Counts: map[string]int{"done": 2}, Messages: []desk.Done{outcome("A2", "done", "B2", "")}},
		desk.Step{Total: 5, Bytes: 11550, Done: 5, DoneBytes: 4620, Counts: map[string]int{"done": 2, "failed": 1, "gone": 1, "foreign": 7}, Messages: []desk.Done{outcome("A3", "failed", "", "it is being delivered"), outcome("A4", "gone", "", "")}, Unknown: []string{"A6"}, End: true})
	code, stdout, stderr := d.run("queue", "delete", "A1", "A2", "A3", "A4", "A6")
	goldenIs(t, "act.txt", stdout)
	if code != exitFinding || !strings.Contains(stderr, "deleted 2 messages (4.6 kB); 1 failed; 1 had left the queue already; 7 left alone: on hold by others\n") || !strings.Contains(stderr, "nothing is in the queue under A6") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	code, stdout, _ = d.run("queue", "delete", "A1", "--json")
	var got struct {
		Messages []desk.Done
		Verb     string
		Counts   map[string]int
		Unknown  []string
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitFinding || len(got.Messages) != 3 || got.Verb != "delete" || got.Counts["foreign"] != 7 || len(got.Unknown) != 1 {
		t.Errorf("exit %d, %v, %s", code, err, stdout)
	}
}

func TestAnActThatBreaksOffSaysHowFarItCame(t *testing.T) {
	step := desk.Step{Total: 20_000, Done: 5000, DoneBytes: 11_550_000, Counts: map[string]int{"done": 5000}}
	for name, c := range map[string]struct {
		path, line string
		end        error
		last       desk.Step
		code       int
		says       []string
	}{
		"connection": {"queue/act", "queue delete --all --yes", errHangUp, step, exitCannotTell, []string{"deleted 5000 messages (12 MB)\n", "the messages in hand may be done, too; the same command again goes on with what is left", "unexpected EOF"}},
		"error":      {"queue/act", "queue release --all --yes", errors.New("postsuper: \x1bfatal"), step, exitCannotTell, []string{"released 5000 messages", `postsuper: \x1bfatal`}},
		"no end":     {"held/act/stream", "held delete --all --yes", nil, step, exitCannotTell, []string{"deleted 5000 messages", "the daemon's answer has no end"}},
		"cut":        {"held/act/stream", "held release --all --yes", nil, desk.Step{Total: 20_000, Done: 5000, Counts: step.Counts, Cut: "the root helper is away"}, exitFinding, []string{"ended early: the root helper is away; 15000 messages not touched; the same command again goes on"}},
		"choosing":   {"queue/act", "queue release --all --yes", nil, desk.Step{Cut: "it was interrupted"}, exitFinding, []string{"the queue was not read to its end; nothing was done\n", "ended early: it was interrupted"}},
	} {
		d := newFakeDaemon(t)
		d.stream("POST /v1/"+c.path, func(_ json.RawMessage, send func(any)) error {
			send(c.last)
			return c.end
		})
		code, stdout, stderr := d.run(strings.Fields(c.line)...)
		if code != c.code || stdout != "" {
			t.Errorf("%s: exit %d, %q", name, code, stdout)
		}
		for _, part := range c.says {
			if !strings.Contains(stderr, part) {
				t.Errorf("%s: no %q in %s", name, part, stderr)
			}
		}
	}
}

// ^C lets the daemon end the messages in hand, and tells what came of them.
func TestInterruptedActsSayWhatWasDone(t *testing.T) {
	d := newFakeDaemon(t)
	told := make(chan struct{})
	d.on("POST /v1/acts/cut", func(json.RawMessage) (any, error) {
		close(told)
		return struct{}{}, nil
	})
	control.Converse(d.mux, "POST /v1/queue/act", control.Read, func(_ context.Context, _ control.Peer, _ desk.QueueOrder, send func(desk.Step) error) error {
		counts := map[string]int{"done": 5000}
		if err := send(desk.Step{Total: 20_000, Done: 5000, Counts: counts}); err != nil {
			return err
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			return err
		}
		<-told
		counts["done"] = 10_000
		return send(desk.Step{Total: 20_000, Done: 10_000, Counts: counts, Cut: "it was interrupted"})
	})
	code, _, stderr := d.run("queue", "delete", "--all", "--yes")
	for _, part := range []string{"deleted 10000 messages", "10000 messages not touched; the same command again goes on with what is left"} {
		if code != exitFinding || !strings.Contains(stderr, part) {
			t.Errorf("exit %d, no %q in %s", code, part, stderr)
		}
	}
}

func TestProgressIsOneLineOnATerminal(t *testing.T) {
	d := newFakeDaemon(t)
	seen := make(chan struct{})
	d.stream("POST /v1/queue/act", func(_ json.RawMessage, send func(any)) error {
		send(desk.Step{Total: 20_000, Done: 5000, Counts: map[string]int{"done": 4999, "failed": 1}})
		<-seen
		send(desk.Step{Total: 20_000, Done: 20_000, Counts: map[string]int{"done": 20_000}, End: true})
		return nil
	})
	term := newTerminal(t, 80)
	done := make(chan int)
	go func() {
		done <- run(t.Context(), []string{"queue", "delete", "--all", "--yes", "--config", d.config}, os.NewFile(0, ""), term.screen)
	}()
	var all []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(all), "\r"+"deleting: 5000 of 20000 (25 %), 1 failed\x1b[K") {
		n, err := term.master.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, buf[:n]...)
	}
	close(seen)
	for !strings.Contains(string(all), "deleted 20000 messages") {
		n, err := term.master.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, buf[:n]...)
	}
	if code := <-done; code != exitFine || !strings.Contains(string(all), "\r\x1b[Kdeleted 20000 messages (0 B)") {
		t.Errorf("exit %d, %q", code, all)
	}
}

// Review 1, finding 17: on a full disk there is no room for a copy.
func TestDeleteOnAFullDisk(t *testing.T) {
	d := newFakeDaemon(t)
	d.stream("POST /v1/held/act/stream", func(body json.RawMessage, send func(any)) error {
		m := desk.Done{Held: someHeld("A1", "taro"), Outcome: "done"}
		if !strings.Contains(string(body), `"no_copy":true`) {
			m.Outcome, m.Error = "failed", "keep A1 for the grace time: write: "+syscall.ENOSPC.Error()
		}
		send(desk.Step{Total: 1, Done: 1, Counts: map[string]int{m.Outcome: 1}, Messages: []desk.Done{m}, End: true})
		return nil
	})
	if code, _, stderr := d.run("held", "delete", "A1"); code != exitFinding || !strings.Contains(stderr, "with --no-copy they are deleted for good") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if code, _, stderr := d.run("held", "delete", "A1", "--no-copy"); code != exitFine || !strings.Contains(stderr, "deleted 1 message") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if got := d.lastAsked("POST"); !strings.HasPrefix(got, `POST /v1/held/act/stream {"verb":"delete","filter":{"ids":["A1"]},"no_copy":true,"dry_run":false,"tell":false,"reason":""`) {
		t.Error(got)
	}
	if code, _, stderr := d.run("held", "release", "A1", "--no-copy"); code != exitUsage {
		t.Errorf("release --no-copy: exit %d: %s", code, stderr)
	}
}
