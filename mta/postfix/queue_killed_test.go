package postfix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/smtptest"
)

// childVerb has TestQueueChild act on the queue: verb, Postfix's configuration,
// grace folder, directory of the tools.
const childVerb = "RELAYGUARD_TEST_QUEUE"

// TestQueueChild is the process that the others kill; it does nothing by itself.
func TestQueueChild(t *testing.T) {
	words := strings.Split(os.Getenv(childVerb), "\n")
	if len(words) != 4 {
		return
	}
	i, err := Load(t.Context(), Tools{Dir: words[3]}, words[1])
	if err != nil {
		t.Fatal(err)
	}
	keep := &grace.Folder{Dir: words[2]}
	var held []mta.Target
	err = i.ScanQueue(t.Context(), func(f mta.QueueFile) error {
		if f.Queue == "hold" {
			held = append(held, f.Target())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("begun\n")
	switch words[0] {
	case "delete":
		_, err = i.DeleteMail(t.Context(), held, keep)
	case "release":
		_, err = i.ReleaseMail(t.Context(), held, mta.Release{Now: time.Now()})
	case "requeue":
		_, err = i.RequeueMail(t.Context(), held)
	case "restore":
		var kept []grace.Kept
		if kept, err = keep.List(); err != nil {
			t.Fatal(err)
		}
		names := make([]string, len(kept))
		for n, k := range kept {
			names[n] = k.Name
		}
		var results []mta.Result
		results, err = i.RestoreMail(t.Context(), keep, names)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// child starts the process and waits until it has begun.
func (q queueTest) child(verb, dir, tools string) *exec.Cmd {
	q.Helper()
	cmd := exec.CommandContext(q.ctx, os.Args[0], "-test.run", "^TestQueueChild$")
	cmd.Env = append(os.Environ(), childVerb+"="+strings.Join([]string{verb, q.ConfigDir, dir, tools}, "\n"))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		_, err = out.Read(make([]byte, 6))
	}
	if err != nil {
		q.Fatal(err)
	}
	return cmd
}

// killed runs the child and kills it, or its postsuper, after a moment; again until
// it comes to its end by itself.
func (q queueTest) killed(verb, dir string) {
	q.Helper()
	kills := 0
	for round := 0; ; round++ {
		cmd := q.child(verb, dir, "")
		if round < 8 {
			mta.Sleep(q.ctx, time.Duration(rand.IntN(60))*time.Millisecond)
			victim := cmd.Process.Pid
			if supers := children(victim, "postsuper"); len(supers) > 0 && round%2 == 0 {
				victim = supers[0]
			}
			if syscall.Kill(victim, syscall.SIGKILL) == nil {
				kills++
			}
		}
		if cmd.Wait() == nil && round >= 8 {
			q.Logf("%s: %d kills", verb, kills)
			return
		}
		if round > 20 {
			q.Fatalf("%s does not end", verb)
		}
	}
}

// subjects counts the messages by where they are: each is to one recipient.
func (q queueTest) places(keep *grace.Folder) map[string][]string {
	q.Helper()
	if err := q.i.Settle(q.ctx, keep); err != nil {
		q.Fatal(err)
	}
	at := map[string][]string{}
	for _, f := range q.queue() {
		for _, to := range f.Recipients {
			at[to] = append(at[to], f.Queue)
		}
	}
	kept, err := keep.List()
	if err != nil {
		q.Fatal(err)
	}
	for _, k := range kept {
		file, err := os.Open(filepath.Join(keep.Dir, k.Name, "queue"))
		if err != nil {
			q.Fatal(err)
		}
		e, err := readEnvelope(file, true)
		file.Close()
		if err != nil || len(e.recipients) != 1 {
			q.Fatalf("%s: %+v, %v", k.Name, e, err)
		}
		at[e.recipients[0]] = append(at[e.recipients[0]], "grace")
	}
	for _, mail := range q.Sink.All() {
		for _, to := range mail.RcptTo {
			at[to] = append(at[to], "delivered")
		}
	}
	return at
}

func (q queueTest) each(what string, keep *grace.Folder, addresses []string, where ...string) {
	q.Helper()
	at := q.places(keep)
	for _, to := range addresses {
		if len(at[to]) != 1 || !slices.Contains(where, at[to][0]) {
			q.Fatalf("%s: mail to %s is in %v", what, to, at[to])
		}
	}
}

func TestKilledBulkLosesNothingAndDoublesNothing(t *testing.T) {
	q := newQueueTest(t, nil)
	addresses := make([]string, 400)
	for n := range addresses {
		addresses[n] = fmt.Sprintf("r%d@example.jp", n)
	}
	q.send(true, "a@example.org", addresses...)
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}
	q.killed("delete", keep.Dir)
	q.each("deleted", keep, addresses, "grace")
	q.killed("restore", keep.Dir)
	q.each("restored", keep, addresses, "hold")
	q.killed("release", keep.Dir)
	q.wait("delivery", func() bool { return len(q.queue()) == 0 })
	q.each("released", keep, addresses, "delivered")
}

// A delete that is broken off leaves each message in the queue, or in the folder.
func TestKilledDeleteHasEachMessageOnce(t *testing.T) {
	q := newQueueTest(t, nil)
	addresses := make([]string, 300)
	for n := range addresses {
		addresses[n] = fmt.Sprintf("r%d@example.jp", n)
	}
	q.send(true, "a@example.org", addresses...)
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}
	held := q.held()
	for round := range 6 {
		done := make(chan struct{})
		var results []mta.Result
		var err error
		go func() {
			defer close(done)
			results, err = q.i.DeleteMail(q.ctx, held[50*round:50*round+50], keep)
		}()
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			default:
				for _, pid := range children(os.Getpid(), "postsuper") {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
		if err != nil || len(results) != 50 {
			t.Fatalf("%d results, %v", len(results), err)
		}
		q.each("after a kill", keep, addresses, "hold", "grace")
		left := map[string]bool{}
		for _, f := range q.queue() {
			left[f.ID] = true
		}
		for _, r := range results {
			if left[r.ID] != (r.Fate == mta.Failed) {
				t.Fatalf("%+v, but in the queue: %v", r, left[r.ID])
			}
		}
	}
}

func (q queueTest) held() []mta.Target {
	q.Helper()
	var held []mta.Target
	for _, f := range q.queue() {
		if f.Queue == "hold" {
			held = append(held, f.Target())
		}
	}
	return held
}

// copies makes more of a held message, as quickly as files can be made.
func (q queueTest) copies(of string, n int) []mta.Target {
	q.Helper()
	s, err := q.i.openSpool()
	if err != nil {
		q.Fatal(err)
	}
	defer s.Close()
	text, err := s.root.ReadFile("hold/" + of)
	if err != nil {
		q.Fatal(err)
	}
	like := q.queue()[of].Target()
	targets := make([]mta.Target, n)
	for n := range targets {
		half := filepath.Join(q.QueueDir, "hold", fmt.Sprintf("half%d", n))
		if err := os.WriteFile(half, text, 0o600); err != nil {
			q.Fatal(err)
		}
		info, err := os.Stat(half)
		if err == nil {
			err = errors.Join(os.Chown(half, s.uid, s.gid), os.Chmod(half, readyMode))
		}
		targets[n] = like
		targets[n].ID = fmt.Sprintf("%05X%X", n%1_000_000, info.Sys().(*syscall.Stat_t).Ino)
		if err = errors.Join(err, os.Rename(half, filepath.Join(q.QueueDir, "hold", targets[n].ID))); err != nil {
			q.Fatal(err)
		}
	}
	return targets
}

func TestBulkEndsBetweenPartsWhenAskedTo(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	first := q.send(true, "a@example.org", "r@example.jp")[0]
	targets := q.copies(first.ID, 5000)
	ctx, cancel := context.WithCancel(q.ctx)
	defer cancel()
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}
	go func() {
		for ctx.Err() == nil {
			if left, _ := os.ReadDir(filepath.Join(q.QueueDir, "hold")); len(left) < 4500 {
				cancel()
			}
		}
	}()
	results, err := q.i.DeleteMail(ctx, targets, keep)
	if err != nil || len(results) != len(targets) {
		t.Fatalf("%d results, %v", len(results), err)
	}
	left := map[string]bool{}
	for _, h := range q.held() {
		left[h.ID] = true
	}
	done := 0
	for n, r := range results {
		if r.ID != targets[n].ID || left[r.ID] != (r.Fate != mta.Done) || r.Fate == mta.Failed && !errors.Is(r.Err, context.Canceled) {
			t.Fatalf("%+v; in the queue: %v", r, left[r.ID])
		}
		if r.Fate == mta.Done {
			done++
		}
	}
	if done == 0 || done > 4500 {
		t.Errorf("%d of %d were done", done, len(targets))
	}
	kept, err := keep.List()
	if err != nil || len(kept) != done {
		t.Errorf("%d kept of %d, %v", len(kept), done, err)
	}
	results, err = q.i.DeleteMail(q.ctx, targets, keep) // the same again does the rest
	if err != nil || slices.ContainsFunc(results, func(r mta.Result) bool { return r.Fate == mta.Failed }) {
		t.Fatalf("again: %v", err)
	}
	if kept, err := keep.List(); err != nil || len(kept) != len(targets) || len(q.held()) != 1 {
		t.Errorf("%d kept, %d held, %v", len(kept), len(q.held()), err)
	}
}

// A postsuper that was killed may have acted on a message and not said so. Here the
// real one acts, and nobody hears it.
func TestUnconfirmedActsAreLookedFor(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	tools := q.toolsWith(q.i.tools.path("postsuper") + " \"$@\" 2>/dev/null\nkill -9 $$\n")
	mute, err := Load(q.ctx, Tools{Dir: tools}, q.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	held := q.send(true, "a@example.org", "one@example.jp", "two@example.jp")
	q.Sink.Refuse("later@example.jp", smtptest.Reply{Code: 451, Lines: []string{"4.7.1 later"}})
	deferred := q.send(false, "a@example.org", "later@example.jp")
	q.wait("deferred", func() bool { return q.in(deferred[0]) == "deferred" })
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}

	results, err := mute.DeleteMail(q.ctx, held[:1], keep)
	q.fates("delete", results, err, mta.Done)
	if kept, err := keep.List(); err != nil || len(kept) != 1 || kept[0].ID != held[0].ID {
		t.Errorf("kept %+v, %v", kept, err)
	}
	results, err = mute.HoldMail(q.ctx, deferred)
	q.fates("hold", results, err, mta.Done)
	results, err = mute.ReleaseMail(q.ctx, held[1:], mta.Release{Now: time.Now()})
	q.fates("release", results, err, mta.Done)
	if _, err := q.Sink.WaitFor(q.ctx, "two@example.jp"); err != nil {
		t.Error(err)
	}
	q.Sink.Refuse("later@example.jp", smtptest.Reply{})
	results, err = mute.RequeueMail(q.ctx, deferred)
	q.fates("requeue", results, err, mta.Done)
	if _, err := q.Sink.WaitFor(q.ctx, "later@example.jp"); err != nil {
		t.Error(err)
	}
}

// toolsWith is a directory of Postfix's tools with another postsuper.
func (q queueTest) toolsWith(postsuper string) (dir string) {
	q.Helper()
	dir = q.TempDir()
	for _, name := range []string{"postconf", "postqueue", "postkick", "postcat"} {
		if err := os.Symlink(q.i.tools.path(name), filepath.Join(dir, name)); err != nil {
			q.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "postsuper"), []byte("#!/bin/sh\n"+postsuper), 0o755); err != nil {
		q.Fatal(err)
	}
	return dir
}

// A postsuper outlives the program that started it; until it ends nobody takes
// the copies of what it deletes for those of a delete that was broken off.
func TestFolderStaysLockedWhilePostsuperGoesOn(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	addresses := []string{"one@example.jp", "two@example.jp", "three@example.jp"}
	q.send(true, "a@example.org", addresses...)
	dir := q.TempDir()
	begun, goOn := filepath.Join(dir, "begun"), filepath.Join(dir, "go")
	tools := q.toolsWith("ids=$(cat)\n: >" + begun + "\nuntil test -e " + goOn + "; do sleep 0.01; done\necho \"$ids\" | " + q.i.tools.path("postsuper") + " \"$@\"\n")
	keep := &grace.Folder{Dir: filepath.Join(dir, "grace")}
	cmd := q.child("delete", keep.Dir, tools)
	q.wait("postsuper", func() bool { _, err := os.Stat(begun); return err == nil })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	ctx, cancel := context.WithTimeout(q.ctx, 200*time.Millisecond)
	defer cancel()
	if err := q.i.Settle(ctx, keep); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("settled while postsuper goes on: %v", err)
	}
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	q.each("after the kill", keep, addresses, "hold", "grace") // it ends when nobody hears it
}
