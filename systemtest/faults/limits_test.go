package faults_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/systemtest/relay"
)

// What is counted is in memory, and behind it in a file of its own: nothing that
// is wrong with that file stops mail, or lets more through while the guard runs.

func (s *site) limitsFile() string { return filepath.Join(s.StateDir(), "limits.db") }

// counted is how many recipients are charged to a login.
func (s *site) counted(login string) (n int64) {
	s.t.Helper()
	var list struct {
		Buckets []struct{ Used int64 }
	}
	var text json.RawMessage
	if err := s.ask(s.t.Context(), "/v1/limits", url.Values{"account": {"login:" + login}}, nil, &text); err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(text, &list); err != nil {
		s.t.Fatal(err)
	}
	for _, b := range list.Buckets {
		n = max(n, b.Used)
	}
	return n
}

// whom goesOn sends five messages of, each to one.
const counts = "hanako@example.jp"

// goesOnCounting is goesOn, and checks that it is counted.
func (s *site) goesOnCounting(tag string) (holds []string) {
	s.t.Helper()
	before := s.counted(counts)
	holds = s.goesOn(tag)
	if got := s.counted(counts); got != before+5 {
		s.t.Errorf("%s: %d charged, %d were before, and five passed", tag, got, before)
	}
	return holds
}

// waitStore waits until the file of what is counted is well, or not, and returns
// what status says of it.
func (s *site) waitStore(ok bool) (text string) {
	s.t.Helper()
	poll(s.t, patience, fmt.Sprintf("limits.db well: %v", ok), func() error {
		h, err := s.status(s.t.Context())
		if err == nil && (h.Store.OK != ok || h.Store.Kind != "sqlite") {
			err = fmt.Errorf("store: %+v", h.Store)
		}
		text = h.Store.Text
		return err
	})
	return text
}

// saysStore checks what status tells an admin.
func (s *site) saysStore(words ...string) {
	s.t.Helper()
	r, err := s.Relayguard(s.t.Context(), "status")
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.Join(strings.Fields(r.Stdout), " ")
	for _, word := range words {
		if !strings.Contains(text, word) {
			s.t.Errorf("status lacks %q:\n%s", word, r.Stdout)
		}
	}
}

// kept kills the guard, starts it again, and checks that it has counted as much.
func (s *site) kept() {
	s.t.Helper()
	want := s.counted(counts)
	time.Sleep(chargesWithin + chargesSlack)
	s.killGuard()
	s.startGuard(s.t.Context())
	if got := s.counted(counts); got != want {
		s.t.Errorf("%d are charged after kill -9, %d were before", got, want)
	}
}

func TestLimitsDiskFull(t *testing.T) {
	t.Parallel() // most of it is waiting
	s := startSite(t, relay.Options{})
	if err := s.StopGuard(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The journal has another disk, which is well.
	mount(t, s.StateDir(), "size=32m,mode=0750")
	if err := os.Mkdir(s.JournalDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	mount(t, s.JournalDir(), "size=96m,mode=0700")
	s.ownDir(s.StateDir())
	s.ownDir(s.JournalDir())
	s.startGuard(t.Context())
	s.waitStore(true)
	holds := s.goesOnCounting("before")
	s.kept()
	mark := s.Mark()
	remove := ballast(t, s.StateDir(), 0)
	for n := 0; ; n++ { // what a page has left takes some more
		holds = append(holds, s.goesOnCounting(fmt.Sprintf("full%d", n))...)
		h, err := s.status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !h.Store.OK {
			break
		}
		if n == 20 {
			t.Fatalf("the disk is full, and limits.db is well: %+v", h.Store)
		}
	}
	holds = append(holds, s.goesOnCounting("memory")...)
	s.waitStore(false)
	s.saysStore("what is counted may not outlive a restart", "limits.db", "full")
	s.watch(5*time.Second, func() { // it is tried again meanwhile
		if h, err := s.status(t.Context()); err != nil || h.Store.OK {
			t.Fatalf("the disk is full: %+v, %v", h.Store, err)
		}
	})
	if told := s.linesSince(mark, "counters are not written to their file"); len(told) != 1 {
		t.Errorf("the log says %d times that limits.db cannot be written, want once:\n%s", len(told), strings.Join(told, "\n"))
	}
	remove()
	s.waitStore(true)
	if told := s.linesSince(mark, "counters are written to their file again"); len(told) != 1 {
		t.Errorf("the log says %d times that limits.db is written again, want once", len(told))
	}
	s.kept() // what was counted meanwhile, too
	s.explained(append(holds, s.goesOnCounting("after")...))
}

// TestLimitsFileBrokenAtStart: the guard starts, says what was broken, puts it
// aside, and counts on from what can be read of it.
func TestLimitsFileBrokenAtStart(t *testing.T) {
	t.Parallel()
	s := startSite(t, relay.Options{})
	broken := "limits file was broken: put aside"
	for _, test := range []struct {
		name   string
		break_ func(s *site)
		says   string // in the guard's log
	}{
		{"garbage", func(s *site) { s.garble(s.limitsFile()) }, broken},
		{"empty", func(s *site) { s.cut(s.limitsFile(), 0) }, ""},
		{"cut off", func(s *site) { s.cut(s.limitsFile(), 0.5) }, broken},
		{"zeroed pages", func(s *site) { s.zero(s.limitsFile()) }, broken},
		{"gone", func(s *site) { s.remove(s.limitsFile()) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			was := s.t
			s.t = t
			defer func() { s.t = was }()
			tag := strings.ReplaceAll(test.name, " ", "-")
			s.goesOnCounting(tag)
			before := s.counted(counts)
			time.Sleep(chargesWithin + chargesSlack)
			s.killGuard()
			aside := s.putAside()
			test.break_(s)
			s.startGuard(t.Context())
			if got := s.counted(counts); got > before {
				t.Errorf("%d are charged, %d were before the file broke", got, before)
			}
			s.goesOnCounting(tag + "-after")
			s.waitStore(true)
			if test.says != "" {
				s.says(test.says)
				s.saysStore("limits.db was broken and was put aside")
				if now := s.putAside(); now == aside {
					t.Errorf("put aside before: %q, now: %q", aside, now)
				}
			}
			s.kept()
		})
	}
	t.Run("a directory", func(t *testing.T) {
		was := s.t
		s.t = t
		defer func() { s.t = was }()
		s.killGuard()
		s.remove(s.limitsFile())
		if err := os.Mkdir(s.limitsFile(), 0o755); err != nil {
			t.Fatal(err)
		}
		s.startGuard(t.Context())
		s.goesOnCounting("directory")
		s.waitStore(false)
		s.saysStore("what is counted may not outlive a restart", "limits.db")
		if err := os.Remove(s.limitsFile()); err != nil {
			t.Fatal(err)
		}
		s.waitStore(true)
		s.kept()
	})
}

// putAside names the broken files that were put aside.
func (s *site) putAside() string {
	s.t.Helper()
	all, err := filepath.Glob(s.limitsFile() + ".broken-*")
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(all, " ")
}

// TestLimitsFileBreaksWhileRunning: what is in memory counts. A file that was taken
// away is written anew; of one whose content was spoiled SQLite need not tell before
// the next start, and what is counted after that is kept again.
func TestLimitsFileBreaksWhileRunning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		break_ func(s *site)
		anew   bool
	}{
		{"garbage", func(s *site) {
			random := rand.New(rand.NewPCG(3, 4))
			for _, path := range []string{s.limitsFile(), s.limitsFile() + "-wal"} {
				octets := make([]byte, s.size(path))
				for i := range octets {
					octets[i] = byte(random.Uint32())
				}
				s.overwrite(path, 0, octets)
			}
		}, false},
		{"removed", func(s *site) { s.remove(s.limitsFile()) }, true},
		{"emptied", func(s *site) {
			if err := os.Truncate(s.limitsFile(), 0); err != nil {
				s.t.Fatal(err)
			}
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startSite(t, relay.Options{})
			s.goesOnCounting("before")
			time.Sleep(chargesWithin + chargesSlack)
			test.break_(s)
			holds := s.goesOnCounting("broken")
			holds = append(holds, s.goesOnCounting("still")...)
			if test.anew {
				s.says("removed, replaced or emptied while it was in use")
				s.says("counters are written to their file again")
			}
			before := s.counted(counts)
			time.Sleep(chargesWithin + chargesSlack)
			s.killGuard()
			s.startGuard(t.Context())
			got := s.counted(counts)
			t.Logf("%d of %d are charged after kill -9", got, before)
			if got > before || test.anew && got != before {
				t.Errorf("%d are charged, %d were before", got, before)
			}
			s.waitStore(true)
			s.goesOnCounting("after")
			s.kept()
			s.explained(holds)
		})
	}
}
