package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// fakeQueue is a hold queue.
type fakeQueue struct {
	queue.Operator // what a test does not need
	held           map[string]mta.QueueFile
	stopped        bool
	forbidden      []string // whom sendmail(1) refuses
}

func (q *fakeQueue) List(_ context.Context, fn func(mta.QueueFile) error) error {
	for _, f := range q.held {
		if err := fn(f); err != nil {
			return err
		}
	}
	return nil
}

func (q *fakeQueue) Release(_ context.Context, targets []mta.Target) (all []mta.Result, err error) {
	for _, t := range targets {
		delete(q.held, t.ID)
		all = append(all, mta.Result{ID: t.ID, Fate: mta.Done})
	}
	return all, nil
}

func (q *fakeQueue) Status(context.Context) (queue.Status, error) {
	return queue.Status{Stop: mta.StopStatus{Stopped: q.stopped}, Forbidden: q.forbidden}, nil
}

func (q *fakeQueue) Stop(context.Context) (mta.Stopped, error) {
	q.stopped = true
	return mta.Stopped{}, nil
}

// deadDaemon is the journal of a daemon that died with one message held.
func deadDaemon(t *testing.T) (path string, c *config.Config, q *fakeQueue) {
	t.Helper()
	path, _ = commandDir(t)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(t.Context(), journal.Options{Dir: c.Journal.Directory})
	if err != nil {
		t.Fatal(err)
	}
	id := "4ZJ1k82Vz1y"
	for _, r := range []journal.Record{
		journal.Decision{ID: "0d5kqw3m8x7ya", Time: noon, Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "login-volume", Reason: "over", Phase: policy.Enforce, Role: policy.Submission, Account: "login:taro@example.jp", Login: "taro@example.jp", UID: -1, MailFrom: "taro@example.jp", QueueID: id, Recipients: 3, Size: 2310},
		journal.AdminAction{Time: noon, By: "root", Verb: "deny add", Target: "client:203.0.113.7", Reason: "attack"},
	} {
		if err := j.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return path, c, &fakeQueue{held: map[string]mta.QueueFile{id: {Queue: "hold", ID: id, Arrival: noon.Truncate(time.Second), Size: 2310, Sender: "taro@example.jp"}}}
}

func TestRootReleasesWithoutADaemonWhichLearnsOfIt(t *testing.T) {
	_, c, q := deadDaemon(t)
	cmd := newHeld()
	h, err := newOwnHands(cmd, c, q, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.List(t.Context(), desk.Filter{})
	if err != nil || len(l.Held) != 1 || l.Held[0].Rule != "login-volume" {
		t.Fatalf("%+v, %v", l, err)
	}
	var last desk.Step
	err = h.ActOnHeld(t.Context(), desk.HeldOrder{Verb: "release", Filter: desk.Filter{Login: "taro@example.jp"}, Reason: "known"}, func(step desk.Step) error {
		last = step
		return nil
	})
	if err != nil || !last.End || last.Counts["done"] != 1 || len(q.held) != 0 {
		t.Fatalf("%+v, %v; left %v", last, err, q.held)
	}
	if l, err := h.List(t.Context(), desk.Filter{}); err != nil || len(l.Held) != 0 {
		t.Errorf("after the release: %+v, %v", l, err)
	}
	if _, err := journal.Open(t.Context(), journal.Options{Dir: c.Journal.Directory}); !errors.Is(err, journal.ErrInUse) {
		t.Errorf("a daemon that starts in the midst of it: %v", err)
	}
	h.Close()

	j, err := journal.Open(t.Context(), journal.Options{Dir: c.Journal.Directory})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	e, err := j.Explain(t.Context(), "4ZJ1k82Vz1y")
	if err != nil || len(e) != 1 || len(e[0].Holds) != 1 || e[0].Holds[0].State != journal.StateReleased || e[0].Holds[0].ChangeReason != "known" {
		t.Errorf("the daemon knows %+v, %v", e, err)
	}
	actions, err := j.AdminActions(t.Context(), 1)
	if err != nil || len(actions) != 1 || actions[0].Verb != "held release" || actions[0].Reason != "known" {
		t.Errorf("the daemon knows %+v, %v", actions, err)
	}
}

func TestRedSwitchIsPulledWithoutADaemon(t *testing.T) {
	_, c, q := deadDaemon(t)
	h, err := newOwnHands(newStop(), c, q, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if h.desk.Switches, err = switches.Open(switchesFile(c), &policy.Board{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Stop(t.Context(), stopOrder{Reason: "spam run"}); err != nil || !q.stopped {
		t.Fatal(err)
	}
	h.Close()
	board := &policy.Board{}
	if _, err := switches.Open(switchesFile(c), board, time.Now()); err != nil {
		t.Fatal(err)
	}
	if s := board.Load().Stopped(time.Now()); s == nil || s.Reason != "spam run" {
		t.Errorf("the next daemon finds %+v", s)
	}
}

func TestRootReadsTheJournalOfADeadDaemon(t *testing.T) {
	if !isRoot() {
		t.Skip("needs root")
	}
	path, _, _ := deadDaemon(t)
	for line, want := range map[string]string{
		"decisions --verdict hold --login taro@example.jp": "0d5kqw3m8x7ya",
		"explain 4ZJ1k82Vz1y":                              "login-volume",
		"journal actions":                                  "client:203.0.113.7",
	} {
		code, stdout, stderr := runIn(t, append(strings.Fields(line), "--config", path)...)
		if code != exitFine || !strings.Contains(stdout, want) || !strings.Contains(stderr, "the daemon does not run") || !strings.Contains(stderr, "root reads the journal in") {
			t.Errorf("%s: exit %d, %q, %q", line, code, stdout, stderr)
		}
	}
}

func TestADaemonThatDoesNotAnswerIsNotDead(t *testing.T) {
	socket := filepath.Join(filepath.Dir(first(commandDir(t))), "control.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts
	err = alive(t.Context(), control.NewClient(socket), 50*time.Millisecond)
	if !errors.Is(err, errSilent) || errors.Is(err, control.ErrDead) {
		t.Error(err)
	}
}

func first[A, B any](a A, _ B) A { return a }

// Root does without the daemon what that could not for want of its helper, and
// nothing else: an error of the daemon's own must not turn into success.
func TestOnlyAMissingHelperIsRootsToReplace(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"done":               {nil, false},
		"no helper":          {fmt.Errorf("stop: %w", queue.ErrUnreachable), true},
		"the journal is ill": {errors.New("search holds: disk I/O error"), false},
		"not understood":     {desk.ErrUsage, false},
	} {
		if _, err := asked(nothing{}, c.err); noHelper(err) != c.want {
			t.Errorf("%s: %v is said to be for want of the helper: %v", name, err, !c.want)
		}
	}
}
