package faults_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// longest is how long a message may take while something is broken.
const longest = 10 * time.Second

// ballast fills the file system of dir but for so many octets.
func ballast(t testing.TB, dir string, leave int64) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	want := int64(s.Bavail)*s.Bsize - leave
	zeros := make([]byte, 64<<10)
	for written := int64(0); written < want; {
		n, err := file.Write(zeros[:min(int64(len(zeros)), want-written)])
		written += int64(n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// onOwnDisk restarts the guard with its journal on a small disk.
func (s *site) onOwnDisk() {
	s.t.Helper()
	if err := s.StopGuard(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	mount(s.t, s.JournalDir(), "size=96m,mode=0700")
	s.ownDir(s.JournalDir())
	s.startGuard(s.t.Context())
	s.waitHealth(true)
}

func (s *site) ownDir(dir string) {
	s.t.Helper()
	if err := os.Chown(dir, guardUID, -1); err != nil {
		s.t.Fatal(err)
	}
}

// waitHealth waits until the journal is well, or not.
func (s *site) waitHealth(ok bool) {
	s.t.Helper()
	poll(s.t, patience, fmt.Sprintf("journal well: %v", ok), func() error {
		h, err := s.status(s.t.Context())
		if err == nil && h.Journal.OK != ok {
			err = fmt.Errorf("journal: %+v", h.Journal)
		}
		return err
	})
}

// goesOn checks that mail is taken and held as ever, without waiting. It returns
// the queue ids of what is held.
func (s *site) goesOn(tag string) (holds []string) {
	s.t.Helper()
	for i := range 5 {
		began := time.Now()
		token := fmt.Sprintf("%s-a%d", tag, i)
		if sent := s.send("hanako@example.jp", "hanako@example.jp", token); !sent.Accepted() {
			s.t.Fatalf("%s: want 250, got %v; logs:\n%s", token, sent.Refusal(), s.allLogs(token))
		}
		holds = append(holds, s.hold(fmt.Sprintf("%s-h%d", tag, i)))
		if took := time.Since(began); took > longest {
			s.t.Errorf("%s and one to hold took %v", token, took)
		}
		if _, err := s.Sink.WaitFor(soon(s.t), token+"@example.net"); err != nil {
			s.t.Errorf("%s: %v; logs:\n%s", token, err, s.allLogs(token))
		}
	}
	return holds
}

// saysSick checks what status tells an admin.
func (s *site) saysSick(words ...string) {
	s.t.Helper()
	r, err := s.Relayguard(s.t.Context(), "status")
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.Join(strings.Fields(r.Stdout), " ") // however it is broken into lines
	for _, word := range append(words, "not well: mail is decided all the same") {
		if !strings.Contains(text, word) {
			s.t.Errorf("status lacks %q:\n%s", word, r.Stdout)
		}
	}
	if r.ExitCode != 1 {
		s.t.Errorf("status ends with %d, want 1", r.ExitCode)
	}
}

// watch looks again and again for that long.
func (s *site) watch(during time.Duration, look func()) {
	s.t.Helper()
	end := time.After(during)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-end:
			return
		case <-tick.C:
			look()
		}
	}
}

// linesSince are those lines of the guard's log since a mark that have a text.
func (s *site) linesSince(mark int, text string) (found []string) {
	s.t.Helper()
	log, err := os.ReadFile(s.GuardLog())
	if err != nil {
		s.t.Fatal(err)
	}
	for n, line := range strings.Split(string(log), "\n") {
		if n >= mark && strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// explained waits until the guard says why each is held, and lists it: on a busy
// machine its answers are behind by moments.
func (s *site) explained(holds []string) {
	s.t.Helper()
	left := holds // that it has not explained yet
	poll(s.t, patience, "explain and list what is held", func() error {
		for len(left) > 0 {
			told, err := s.explain(s.t.Context(), left[0])
			if err != nil || len(told) == 0 || told[0].Decision == nil || told[0].Decision.Rule != "envelope-address" || told[0].Decision.Reason == "" {
				return fmt.Errorf("explain %s: %+v, %v; logs:\n%s", left[0], told, err, s.allLogs(left[0]))
			}
			left = left[1:]
		}
		all, _, err := s.list(s.t.Context()) // stale while the journal is not well
		if err != nil {
			s.t.Fatal(err)
		}
		listed := map[string]held{}
		for _, h := range all {
			if twice, ok := listed[h.QueueID]; ok {
				s.t.Fatalf("listed twice: %+v and %+v", twice, h)
			}
			listed[h.QueueID] = h
		}
		for _, id := range holds {
			if h := listed[id]; h.HeldBy != "relayguard" || h.Rule != "envelope-address" || h.Reason == "" || h.State != "held" {
				return fmt.Errorf("%s is listed as %+v; logs:\n%s", id, h, s.allLogs(id))
			}
		}
		return nil
	})
}

func TestJournalDiskFull(t *testing.T) {
	s := startSite(t, relay.Options{})
	s.onOwnDisk()
	holds := s.goesOn("before")
	mark := s.Mark()
	remove := ballast(t, s.JournalDir(), 0)
	for n := 0; ; n++ { // what a page has left takes some more
		holds = append(holds, s.goesOn(fmt.Sprintf("full%d", n))...)
		h, err := s.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !h.Journal.OK && h.Journal.Backlog > 0 {
			break
		}
		if n == 10 {
			t.Fatalf("the disk is full, and the journal is well: %+v", h.Journal)
		}
	}
	holds = append(holds, s.goesOn("full")...)
	s.saysSick("no space left on device", "in memory only")
	poll(t, patience, "held list says that it may be out of date", func() error { // what was looked at just before counts for a moment
		r, err := s.Relayguard(t.Context(), "held", "list")
		if err == nil && (r.ExitCode != 3 || !strings.Contains(r.Stderr, "not up to date")) {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	s.watch(8*time.Second, func() { // the writer tries again meanwhile, the MTA's log is read, the queue looked at
		if h, err := s.status(t.Context()); err != nil || h.Journal.OK {
			t.Fatalf("the disk is full: %+v, %v", h.Journal, err)
		}
		if _, _, err := s.list(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if told := s.linesSince(mark, "journal log cannot be written"); len(told) != 1 {
		t.Errorf("the log says %d times that the journal cannot be written, want once:\n%s", len(told), strings.Join(told, "\n"))
	}
	remove()
	s.waitHealth(true)
	for _, text := range []string{"journal log is written again", "journal database takes no rows", "journal database takes rows again"} {
		if told := s.linesSince(mark, text); len(told) > 1 || len(told) == 0 && text == "journal log is written again" {
			t.Errorf("%q is logged %d times, want once:\n%s", text, len(told), strings.Join(told, "\n"))
		}
	}
	s.explained(holds)
	s.explained(s.goesOn("after"))
	poll(t, patience, "nothing is in memory only", func() error { // deliveries are still noted
		h, err := s.status(t.Context())
		if err == nil && h.Journal.Lost != 0 {
			t.Fatalf("journal: %+v", h.Journal)
		}
		if err == nil && h.Journal.Backlog != 0 {
			err = fmt.Errorf("journal: %+v", h.Journal)
		}
		return err
	})
}

// TestKillWithJournalDiskFull loses the reasons, as kill -9 with nowhere to
// write must, but no message: what the guard held is listed as lost.
func TestKillWithJournalDiskFull(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := startSite(t, relay.Options{})
	s.onOwnDisk()
	before := s.goesOn("before")
	s.explained(before)
	remove := ballast(t, s.JournalDir(), 0)
	var holds []string
	poll(t, 30*time.Second, "fill the journal's disk", func() error {
		holds = append(holds, s.goesOn(fmt.Sprintf("full%d", len(holds)))...)
		if h, err := s.status(t.Context()); err != nil || h.Journal.OK {
			return fmt.Errorf("%+v, %v", h.Journal, err)
		}
		return nil
	})
	holds = append(holds, s.goesOn("memory")...)
	s.killGuard()
	s.startGuard(t.Context()) // the disk is still full
	s.waitHealth(false)
	holds = append(holds, s.goesOn("again")...)
	s.killGuard()
	remove()
	s.startGuard(t.Context())
	s.waitHealth(true)
	s.explained(before)
	s.ours(holds)
}

// ours waits until each is listed as the guard's, with its reason or as lost,
// which takes a minute, and says how many are lost.
func (s *site) ours(holds []string) {
	s.t.Helper()
	lost := 0
	poll(s.t, 100*time.Second, "list what is held", func() error {
		all, err := s.listNow(s.t.Context())
		if err != nil {
			return err
		}
		listed := map[string]held{}
		for _, h := range all {
			listed[h.QueueID] = h
		}
		lost = 0
		for _, id := range holds {
			h := listed[id]
			if h.HeldBy != "relayguard" || h.Reason == "" || h.State != "held" {
				return fmt.Errorf("%s is listed as %+v; logs:\n%s", id, h, s.allLogs(id))
			}
			if strings.HasPrefix(h.Reason, "lost") {
				lost++
			}
		}
		return nil
	})
	s.t.Logf("of %d held messages the reason of %d is lost", len(holds), lost)
}

func TestJournalReadOnly(t *testing.T) {
	s := startSite(t, relay.Options{})
	s.onOwnDisk()
	before := s.goesOn("before")
	s.explained(before)
	s.killGuard()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", s.JournalDir(), "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatalf("remount %s: %v", s.JournalDir(), err)
		}
	}
	remount(syscall.MS_RDONLY)
	s.startGuard(t.Context())
	s.waitHealth(false)
	holds := s.goesOn("readonly")
	s.saysSick("read-only file system")
	s.explained(before)
	s.watch(4*time.Second, func() {
		if _, _, err := s.list(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if told := s.linesSince(0, "journal log cannot be written"); len(told) != 1 {
		t.Errorf("the log says %d times that the journal cannot be written, want once:\n%s", len(told), strings.Join(told, "\n"))
	}
	remount(0)
	s.waitHealth(true)
	s.explained(holds)
	s.explained(before)
	s.explained(s.goesOn("after"))
}

func TestQueueDiskFull(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "rgq") // short, for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	mount(t, dir, "size=64m,mode=0755")
	s := startSite(t, relay.Options{
		Config:  "[hold]\nmin_free = 24000000\nmin_free_inodes = 100\n",
		Postfix: postfixtest.Options{Dir: dir, Main: map[string]string{"message_size_limit": "1000000"}},
	})
	holds := s.goesOn("before")
	mark := s.Mark()
	remove := ballast(t, dir, 20<<20)
	if _, err := s.WaitLine(soon(t), mark, "nothing more is held, for want of room"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		token := fmt.Sprintf("full-%d", i)
		sent := s.send("taro@example.jp", "somebody@example.org", token)
		r := sent.Refusal()
		if r.Code != 452 || r.Enhanced() != "4.3.1" && r.Enhanced() != "4.2.2" || idOf(r.String()) == "" {
			t.Fatalf("%s: want 452 with an id, got %+v; logs:\n%s", token, sent, s.allLogs(token))
		}
		told, err := s.explain(t.Context(), idOf(r.String()))
		if err != nil || len(told) != 1 || told[0].Decision == nil || !strings.Contains(told[0].Decision.Reason, "as much as may be held is held already") {
			t.Errorf("explain %s: %+v, %v", r, told, err)
		}
		// Others flow.
		token = fmt.Sprintf("full-a%d", i)
		if sent := s.send("hanako@example.jp", "hanako@example.jp", token); !sent.Accepted() {
			t.Errorf("%s: %v", token, sent.Refusal())
		}
		if _, err := s.Sink.WaitFor(soon(t), token+"@example.net"); err != nil {
			t.Error(err)
		}
	}
	if queue := s.inHold(t.Context()); len(queue) != len(holds) {
		t.Errorf("%d messages are held, want %d as before", len(queue), len(holds))
	}
	remove()
	if _, err := s.WaitLine(soon(t), mark, "mail can be held again"); err != nil {
		t.Fatal(err)
	}
	s.explained(append(holds, s.goesOn("after")...))
	if told := s.linesSince(mark, "nothing more is held"); len(told) != 1 {
		t.Errorf("told %d times, want once", len(told))
	}
	all, err := s.decisions(t.Context(), url.Values{"rule": {"hold-cap"}})
	if err != nil || len(all) == 0 {
		t.Errorf("decisions --rule hold-cap: %+v, %v", all, err)
	}
}
