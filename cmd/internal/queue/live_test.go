package queue

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// live is a private Postfix with its root helper.
type live struct {
	*postfixtest.Postfix
	t *testing.T
	c *Client
}

func startLive(t *testing.T) live {
	t.Helper()
	p := postfixtest.StartTest(t, postfixtest.Options{})
	dir := t.TempDir()
	d := &Direct{ConfigDir: p.ConfigDir, StateDir: filepath.Join(dir, "state"), Grace: &grace.Folder{Dir: filepath.Join(dir, "grace")}}
	ln, err := Listen(filepath.Join(p.Dir, "helper.sock"), -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		s := &Server{Operator: d, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		done <- s.Serve(ctx, ln)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return live{p, t, &Client{Path: ln.Addr().String()}}
}

func (l live) send(uid int, to string) postfixtest.Sent {
	l.t.Helper()
	sent, err := l.Sendmail(l.t.Context(), uid, []string{"-f", "hanako@example.jp", to}, strings.NewReader("Subject: hello\n\nlines of content\n"))
	if err != nil {
		l.t.Fatal(err)
	}
	return sent
}

// queued waits for a message in a queue, and returns it as the helper lists it.
func (l live) queued(queue, to string) mta.QueueFile {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for {
		var found *mta.QueueFile
		err := l.c.List(ctx, func(q mta.QueueFile) error {
			if q.Queue == queue && slices.Contains(q.Recipients, to) {
				found = &q
			}
			return nil
		})
		if err != nil {
			l.t.Fatalf("%s in %s: %v", to, queue, err)
		}
		if found != nil {
			return *found
		}
	}
}

func (l live) arrives(to string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	if _, err := l.Sink.WaitFor(ctx, to); err != nil {
		l.t.Fatal(err)
	}
}

func want(t *testing.T, results []mta.Result, err error, fate mta.Fate) {
	t.Helper()
	if err != nil || len(results) != 1 || results[0].Fate != fate || results[0].Err != nil {
		t.Fatalf("got %+v, %v, want %v", results, err, fate)
	}
}

func TestHelperOverARealPostfix(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	later := smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}}
	for _, to := range []string{"one@example.net", "two@example.net", "three@example.net"} {
		l.Sink.Refuse(to, later)
		l.send(33, to)
	}
	one := l.queued("deferred", "one@example.net").Target()
	if text, err := l.c.Headers(ctx, one); !errors.Is(err, mta.ErrGone) {
		t.Errorf("headers of mail that is on its way: got %q, %v", text, err)
	}
	results, err := l.c.Hold(ctx, []mta.Target{one}, "a test")
	want(t, results, err, mta.Done)
	l.queued("hold", "one@example.net")
	results, err = l.c.Hold(ctx, []mta.Target{one}, "a test")
	want(t, results, err, mta.Gone)
	headers, err := l.c.Headers(ctx, one)
	if err != nil || !strings.Contains(string(headers), "Subject: hello") || strings.Contains(string(headers), "lines of content") {
		t.Errorf("got headers %q, %v", headers, err)
	}
	content, err := l.c.Content(ctx, one)
	if err != nil || !strings.Contains(string(content), "lines of content") || strings.Contains(string(content), "Subject") {
		t.Errorf("got content %q, %v", content, err)
	}
	another := one
	another.Sender = "somebody@example.jp"
	results, err = l.c.Delete(ctx, []mta.Target{another})
	want(t, results, err, mta.Changed)
	if _, err := l.c.Content(ctx, another); !errors.Is(err, mta.ErrChanged) {
		t.Errorf("got %v", err)
	}
	l.Sink.Refuse("one@example.net", smtptest.Reply{Code: 250, Lines: []string{"2.1.5 ok"}})
	results, err = l.c.Release(ctx, []mta.Target{one})
	want(t, results, err, mta.Done)

	two := l.queued("deferred", "two@example.net").Target()
	results, err = l.c.Hold(ctx, []mta.Target{two}, "a test")
	want(t, results, err, mta.Done)
	results, err = l.c.Delete(ctx, []mta.Target{two})
	want(t, results, err, mta.Done)
	results, err = l.c.Delete(ctx, []mta.Target{two})
	want(t, results, err, mta.Gone)

	kept, err := keptBy(ctx, l.c)
	if err != nil || len(kept) != 1 || kept[0].ID != two.ID {
		t.Fatalf("kept: got %+v, %v", kept, err)
	}
	id, err := restoreOne(ctx, l.c, kept[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	if back := l.queued("hold", "two@example.net"); back.ID != id || !back.Arrival.Equal(two.Arrival) {
		t.Errorf("restored as %s: got %+v", id, back)
	}
	if again, err := restoreOne(ctx, l.c, kept[0].Name); again != id || err != nil {
		t.Errorf("before it is forgotten: %q, %v, want %s", again, err, id)
	}
	if err := l.c.Forget(ctx, []string{kept[0].Name}); err != nil {
		t.Error(err)
	}
	if _, err := restoreOne(ctx, l.c, kept[0].Name); !errors.Is(err, mta.ErrGone) {
		t.Errorf("the second time: %v", err)
	}
	results, err = l.c.DeleteForGood(ctx, []mta.Target{l.queued("hold", "two@example.net").Target()})
	want(t, results, err, mta.Done)
	if kept, err := keptBy(ctx, l.c); err != nil || len(kept) != 0 {
		t.Errorf("kept: got %+v, %v", kept, err)
	}
}

func TestSwitchesOverARealPostfix(t *testing.T) {
	l := startLive(t)
	ctx := t.Context()
	before, err := os.ReadFile(filepath.Join(l.ConfigDir, "main.cf"))
	if err != nil {
		t.Fatal(err)
	}
	l.Sink.Refuse("later@example.net", smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}})
	l.send(33, "later@example.net")
	l.queued("deferred", "later@example.net")
	stopped, err := l.c.Stop(ctx)
	if err != nil || len(stopped.Held) != 1 || !slices.Equal(stopped.Held[0].Recipients, []string{"@example.net"}) {
		t.Fatalf("got %+v, %v", stopped, err)
	}
	if err := l.c.ForbidSubmit(ctx, "www-data"); err != nil {
		t.Fatal(err)
	}
	status, err := l.c.Status(ctx)
	if err != nil || !status.Stop.Stopped || status.Stop.Held != 1 || len(status.Stop.Missing) > 0 || !slices.Equal(status.Forbidden, []string{"www-data"}) {
		t.Errorf("status: got %+v, %v", status, err)
	}
	const nobody, tempFail = 65534, 75
	if sent := l.send(33, "new@example.net"); sent.ExitCode != tempFail {
		t.Errorf("got %+v", sent)
	}
	if sent := l.send(nobody, "new@example.net"); sent.ExitCode != 0 {
		t.Errorf("got %+v", sent)
	}
	l.send(nobody, "inside@example.jp")
	l.arrives("inside@example.jp")
	if q := l.queued("deferred", "new@example.net"); q.Reason != mta.StopText {
		t.Errorf("got %+v", q)
	}
	started, err := l.c.Start(ctx, false)
	if err != nil || len(started.Released) != 1 || started.Released[0].Fate != mta.Done || len(started.Caveats) > 0 {
		t.Errorf("got %+v, %v", started, err)
	}
	l.arrives("new@example.net")
	if err := l.c.AllowSubmit(ctx, "www-data"); err != nil {
		t.Fatal(err)
	}
	if sent := l.send(33, "last@example.net"); sent.ExitCode != 0 {
		t.Errorf("got %+v", sent)
	}
	l.arrives("last@example.net")
	if status, err := l.c.Status(ctx); err != nil || status.Stop.Stopped || len(status.Forbidden) > 0 {
		t.Errorf("status: got %+v, %v", status, err)
	}
	after, err := l.Command(ctx, "postconf", "-n")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"relayguard", "authorized_submit_users", "retry:"} {
		if strings.Contains(after, name) {
			t.Errorf("%s is left in\n%s\nwhich was\n%s", name, after, before)
		}
	}
	if _, err := l.c.Start(ctx, false); !errors.Is(err, mta.ErrNotStopped) {
		t.Errorf("got %v", err)
	}
}
