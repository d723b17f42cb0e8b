package forward_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// restart ends the daemon, does something, and starts it again.
func (w *world) restart(s syscall.Signal, meanwhile func()) {
	w.t.Helper()
	w.must(w.StopGuard(s))
	meanwhile()
	w.must(w.StartGuard(soon(w.t)))
}

// rotate does to Postfix's log what logrotate does; gone: and takes the old one away.
func (w *world) rotate(gone bool) {
	w.t.Helper()
	old := w.LogPath() + ".1"
	w.must(os.Rename(w.LogPath(), old))
	_, err := w.Command(soon(w.t), "postfix", "reload")
	w.must(err)
	until(w.t, "a new log", func() bool { // its logger opens it for the next line
		c, err := w.Dial(soon(w.t), inbound)
		w.must(err)
		c.Close()
		_, err = os.Stat(w.LogPath())
		return err == nil
	})
	if gone {
		w.must(os.Remove(old))
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	w := startWorld(t, worldOptions{})
	mark := w.hook.mark()
	w.plant("virtual", "v1@vbox.test v1out@evil.test\n")
	id := w.hook.waitRule(t, mark, "appeared", "v1out@evil.test").ID
	send := func() { w.arrives(w.send("v1@vbox.test", "", "x"), "v1out@evil.test") }
	send()
	w.proven(id, 1)

	mark = w.hook.mark()
	w.restart(syscall.SIGKILL, func() { // and the log is rotated while nobody reads it
		send()
		w.rotate(false)
		send()
		w.plant("canonical", "away@corp.test awayout@evil.test\n")
	})
	w.hook.waitRule(t, mark, "appeared", "awayout@evil.test")
	s := w.proven(id, 3)
	seen := map[string]bool{}
	for _, m := range s.Mails {
		seen[m.MessageID] = true
	}
	if len(s.Mails) != 3 || len(seen) != 3 || s.Report.Mails != 3 || s.Report.DistinctSenders != 1 || len(s.Report.Gaps) != 0 {
		t.Errorf("after a restart: %+v, %+v, want 3 mails, each once, and no gap", s.Mails, s.Report)
	}
	if kinds := w.told(mark, "v1out@evil.test"); len(kinds) != 0 {
		t.Errorf("told again of what is known: %v", kinds)
	}
	for _, a := range w.hook.since(mark) {
		if a.Detail.Kind == "baseline" {
			t.Errorf("a second baseline: %+v", a)
		}
	}
	w.restart(syscall.SIGTERM, func() {})
	send()
	if s = w.proven(id, 4); len(s.Mails) != 4 {
		t.Errorf("after another restart: %+v, want 4 mails", s.Mails)
	}

	// Lines that are gone before they were read are not passed over in silence.
	w.restart(syscall.SIGTERM, func() {
		send()
		w.rotate(true)
		send()
	})
	s = w.proven(id, 5)
	if len(s.Mails) != 5 || len(s.Report.Gaps) == 0 || len(s.Evidence.Gaps) == 0 || !slices.ContainsFunc(s.Report.NotKnown, func(n string) bool { return strings.HasPrefix(n, "evidence incomplete from ") }) {
		t.Errorf("a log that is gone: %+v, %+v, want 5 mails and a gap", s.Mails, s.Report)
	}
}

// A heartbeat carries the head of the ledger's chain, which only grows; and who
// changes the ledger is told of.
func TestHeadAndTampering(t *testing.T) {
	t.Parallel()
	w := startWorld(t, worldOptions{})
	alive := func(mark int) alert {
		t.Helper()
		a, err := w.hook.wait(soon(t), mark, func(a *alert) bool { return a.Event == "alive" })
		w.must(err)
		return a
	}
	first := alive(0)
	if first.Detail.Records == 0 || len(first.Detail.Hash) != 64 || first.Detail.Method == "" {
		t.Errorf("heartbeat: %+v", first)
	}
	mark := w.hook.mark()
	w.plant("virtual", "v1@vbox.test v1out@evil.test\n")
	told := w.hook.waitRule(t, mark, "appeared", "v1out@evil.test")
	mark = w.hook.mark()
	w.restart(syscall.SIGTERM, func() {})
	second := alive(mark)
	if second.Detail.Records <= first.Detail.Records || second.Detail.Hash == first.Detail.Hash {
		t.Errorf("heartbeats %+v, then %+v: want more records", first, second)
	}

	mark = w.hook.mark()
	w.restart(syscall.SIGTERM, func() {
		files, err := filepath.Glob(filepath.Join(w.ledgerDir(), "*"))
		w.must(err)
		changed := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil || !bytes.Contains(text, []byte(`"status":"new"`)) {
				continue
			}
			changed++
			w.must(os.WriteFile(file, bytes.ReplaceAll(text, []byte(`"status":"new"`), []byte(`"status":"approved"`)), 0o600))
		}
		if changed != 1 {
			t.Fatalf("%d of %v are the ledger", changed, files)
		}
	})
	_, err := w.hook.wait(soon(t), mark, func(a *alert) bool { return a.Detail.Kind == "broken" })
	w.must(err)
	if l := ask[listed](w, []int{1}, "forwards", "list"); l.Broken == "" {
		t.Error("the list does not say that the ledger was changed")
	}
	if again := w.hook.waitRule(t, mark, "appeared", "v1out@evil.test"); again.ID != told.ID { // its record counts no more
		t.Errorf("told of %+v, want %s", again, told.ID)
	}
	if r := only(t, w.known(), "v1out@evil.test"); r.Approved || r.Status != "new" {
		t.Errorf("%+v, want it new", r)
	}
}
