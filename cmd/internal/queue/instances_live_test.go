package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// two are two instances of Postfix under one Direct: "-" and "postfix-out".
type two struct {
	*testing.T
	d           *Direct
	first, next *postfixtest.Postfix
}

func startTwo(t *testing.T) two {
	t.Helper()
	dir := t.TempDir()
	s := two{T: t, first: postfixtest.StartTest(t, postfixtest.Options{}), next: postfixtest.StartTest(t, postfixtest.Options{})}
	s.postconf(s.first, "multi_instance_directories="+s.next.ConfigDir)
	s.postconf(s.next, "multi_instance_name=postfix-out")
	s.d = &Direct{ConfigDir: s.first.ConfigDir, StateDir: filepath.Join(dir, "state"), Grace: &grace.Folder{Dir: filepath.Join(dir, "grace")}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	return s
}

func (s two) postconf(p *postfixtest.Postfix, setting string) {
	s.Helper()
	if _, err := p.Command(s.Context(), "postconf", "-e", setting); err != nil {
		s.Fatal(err)
	}
}

// defers sends a message that the next hop does not take yet.
func (s two) defers(p *postfixtest.Postfix, to ...string) {
	s.Helper()
	for _, one := range to {
		p.Sink.Refuse(one, smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}})
	}
	if _, err := p.Sendmail(s.Context(), 33, append([]string{"-f", "hanako@example.jp"}, to...), strings.NewReader("Subject: hello\n\nlines\n")); err != nil {
		s.Fatal(err)
	}
}

// all is the queue by instance and id.
func (s two) all() map[string]mta.QueueFile {
	s.Helper()
	seen := map[string]mta.QueueFile{}
	if err := s.d.List(s.Context(), func(f mta.QueueFile) error { seen[f.Instance+" "+f.ID] = f; return nil }); err != nil {
		s.Fatal(err)
	}
	return seen
}

// queued waits for a message of an instance that it is in a queue.
func (s two) queued(instance, queue string) mta.Target {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		for _, f := range s.all() {
			if f.Instance == instance && f.Queue == queue {
				return f.Target()
			}
		}
	}
	s.Fatalf("nothing in %s of instance %q: %+v", queue, instance, s.all())
	return mta.Target{}
}

func (s two) in(t mta.Target) string { s.Helper(); return s.all()[t.Instance+" "+t.ID].Queue }

// copyHeld makes a message that the first holds one of the next, under the same id.
func (s two) copyHeld(id string) {
	s.Helper()
	at := filepath.Join("hold", id)
	text, err := os.ReadFile(filepath.Join(s.first.QueueDir, at))
	if err != nil {
		s.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.first.QueueDir, at))
	if err != nil {
		s.Fatal(err)
	}
	st, to := info.Sys().(*syscall.Stat_t), filepath.Join(s.next.QueueDir, at)
	if err := errors.Join(os.WriteFile(to, text, 0o600), os.Chown(to, int(st.Uid), int(st.Gid)), os.Chmod(to, info.Mode())); err != nil {
		s.Fatal(err)
	}
}

func TestActsOverTwoRealInstances(t *testing.T) {
	s := startTwo(t)
	ctx := t.Context()
	s.defers(s.first, "one@example.net")
	a := s.queued("-", "deferred")
	results, err := s.d.Hold(ctx, []mta.Target{a}, "a test")
	want(t, results, err, mta.Done)
	s.copyHeld(a.ID)
	b := s.queued("postfix-out", "hold")
	if a.ID != b.ID || !a.Arrival.Equal(b.Arrival) || len(s.all()) != 2 {
		t.Fatalf("got %+v, %+v of %+v", a, b, s.all())
	}

	results, err = s.d.Delete(ctx, []mta.Target{b})
	want(t, results, err, mta.Done)
	if s.in(a) != "hold" || s.in(b) != "" {
		t.Fatalf("in %q and %q", s.in(a), s.in(b))
	}
	results, err = s.d.Delete(ctx, []mta.Target{a})
	want(t, results, err, mta.Done)
	kept, err := keptBy(ctx, s.d)
	if err != nil || len(kept) != 2 || len(s.all()) != 0 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	for _, k := range kept {
		id, err := restoreOne(ctx, s.d, k.Name)
		if err != nil || s.in(mta.Target{Instance: k.Instance, ID: id}) != "hold" {
			t.Fatalf("%+v restored as %q, %v: %+v", k, id, err, s.all())
		}
	}
	for instance, p := range map[string]*postfixtest.Postfix{"-": s.first, "postfix-out": s.next} {
		p.Sink.Refuse("one@example.net", smtptest.Reply{})
		results, err := s.d.Release(ctx, []mta.Target{s.queued(instance, "hold")})
		want(t, results, err, mta.Done)
		wait, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if _, err := p.Sink.WaitFor(wait, "one@example.net"); err != nil {
			t.Fatalf("instance %q: %v", instance, err)
		}
	}

	var many []string
	for n := range 60 {
		many = append(many, fmt.Sprintf("r%d@example.net", n))
	}
	s.defers(s.next, many...)
	s.queued("postfix-out", "deferred")
	stopped, err := s.d.Stop(ctx)
	if err != nil || len(stopped.Held) != 1 || stopped.Held[0].Instance != "postfix-out" || len(stopped.Held[0].Recipients) != 50 || stopped.Held[0].More != 10 {
		t.Fatalf("stopped: got %+v, %v", stopped, err)
	}
	started, err := s.d.Start(ctx, true)
	if err != nil || len(started.Kept) != 1 || started.Kept[0].Instance != "postfix-out" {
		t.Fatalf("started: got %+v, %v", started, err)
	}
	results, err = s.d.DeleteQueued(ctx, started.Kept)
	want(t, results, err, mta.Done)
}

// A message keeps the name of its instance, and is not said to be gone, while
// another instance cannot be read.
func TestUnreadableInstanceDoesNotHideMail(t *testing.T) {
	s := startTwo(t)
	ctx := t.Context()
	s.defers(s.first, "one@example.net")
	s.defers(s.next, "two@example.net")
	a, b := s.queued("-", "deferred"), s.queued("postfix-out", "deferred")
	s.defers(s.next, "gone@example.net")
	for n := 0; n < 2; {
		n = 0
		for _, f := range s.all() {
			if f.Instance == "postfix-out" && f.Queue == "deferred" {
				n++
			}
		}
	}
	var deleted mta.Target
	for _, f := range s.all() {
		if f.Recipients[0] == "gone@example.net" {
			deleted = f.Target()
		}
	}
	results, err := s.d.DeleteQueued(ctx, []mta.Target{deleted})
	want(t, results, err, mta.Done)
	kept, err := keptBy(ctx, s.d)
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %+v, %v", kept, err)
	}

	main := filepath.Join(s.next.ConfigDir, "main.cf")
	if err := os.Rename(main, main+".away"); err != nil {
		t.Fatal(err)
	}
	back := func() {
		if err := os.Rename(main+".away", main); err != nil {
			t.Fatal(err)
		}
	}
	nameless := b
	nameless.Instance = ""
	results, err = s.d.Hold(ctx, []mta.Target{a, b, nameless}, "a test")
	if err == nil || len(results) != 3 || results[0].Fate != mta.Done || results[1].Fate != mta.Failed || results[1].Err == nil || results[2].Fate != mta.Failed {
		back()
		t.Fatalf("hold: got %+v, %v", results, err)
	}
	listed := 0
	if err := s.d.List(ctx, func(f mta.QueueFile) error {
		if listed++; f.Instance != "-" || f.ID != a.ID {
			t.Errorf("listed %+v", f)
		}
		return nil
	}); err == nil || listed != 1 {
		t.Errorf("listed %d, %v", listed, err)
	}
	if _, err := s.d.Headers(ctx, b); err == nil || errors.Is(err, mta.ErrGone) {
		t.Errorf("headers: %v", err)
	}
	if _, err := restoreOne(ctx, s.d, kept[0].Name); err == nil || errors.Is(err, mta.ErrGone) {
		t.Errorf("restore: %v", err)
	}
	back()
	results, err = s.d.Hold(ctx, []mta.Target{b}, "a test")
	want(t, results, err, mta.Done)
	if id, err := restoreOne(ctx, s.d, kept[0].Name); err != nil || id == "" {
		t.Errorf("restore: %q, %v", id, err)
	}
}

// A delete that is killed before postsuper leaves a second name of the held file,
// and Postfix does not deliver such a file when it is asked to.
func TestReleaseAfterADeleteThatWasKilled(t *testing.T) {
	s := startTwo(t)
	ctx := t.Context()
	s.defers(s.first, "one@example.net")
	a := s.queued("-", "deferred")
	results, err := s.d.Hold(ctx, []mta.Target{a}, "a test")
	want(t, results, err, mta.Done)
	box, err := s.d.Grace.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(filepath.Join(s.first.QueueDir, "hold", a.ID))
	if err == nil {
		err = box.Put(time.Now(), mta.QueueFile{ID: a.ID, Arrival: a.Arrival}, grace.Part{Name: "queue", File: file})
	}
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	box.Lock().Close() // it never comes to Close
	if kept, err := keptBy(ctx, s.d); err != nil || len(kept) != 1 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	s.first.Sink.Refuse("one@example.net", smtptest.Reply{})
	results, err = s.d.Release(ctx, []mta.Target{a})
	want(t, results, err, mta.Done)
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := s.first.Sink.WaitFor(wait, "one@example.net"); err != nil {
		t.Fatal(err)
	}
	if kept, err := keptBy(ctx, s.d); err != nil || len(kept) != 0 {
		t.Errorf("kept %+v, %v", kept, err)
	}
}
