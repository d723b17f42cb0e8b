package faults_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relayguard/systemtest/relay"
)

// TestBrokenAtStart breaks the guard's files while it is dead. It starts, decides,
// says what was broken, and knows of every message that it held before.
func TestBrokenAtStart(t *testing.T) {
	s := startSite(t, relay.Options{})
	for _, test := range []struct {
		name   string
		break_ func(s *site)
		says   string // in the guard's log
	}{
		{"database is garbage", func(s *site) { s.garble(s.database()) }, "journal database was broken"},
		{"database is empty", func(s *site) { s.cut(s.database(), 0) }, ""},
		{"database is cut off", func(s *site) { s.cut(s.database(), 0.5) }, "journal database was broken"},
		{"database has zeroed pages", func(s *site) { s.zero(s.database()) }, "journal database was broken"},
		{"database is gone", func(s *site) { s.remove(s.database()) }, "journal database is new"},
		{"database is a directory", func(s *site) {
			s.remove(s.database())
			if err := os.MkdirAll(filepath.Join(s.database(), "x"), 0o755); err != nil {
				s.t.Fatal(err)
			}
		}, "journal database"},
		{"log is garbage, database is well", func(s *site) { s.garble(s.newestLog()) }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			was := s.t
			s.t = t
			defer func() { s.t = was }()
			tag := strings.ReplaceAll(strings.ReplaceAll(test.name, " ", "-"), ",", "")
			holds := s.goesOn(tag)
			s.explained(holds) // what the journal has, it has in its database
			s.killGuard()
			test.break_(s)
			s.startGuard(t.Context())
			if _, err := s.WaitLine(soon(t), 0, "serving"); err != nil {
				t.Fatal(err)
			}
			after := s.goesOn(tag + "-after")
			s.says(test.says)
			if test.name == "database is a directory" {
				s.waitHealth(false)
				s.saysSick()
				s.killGuard()
				if err := os.RemoveAll(s.database()); err != nil {
					t.Fatal(err)
				}
				s.startGuard(t.Context())
			}
			s.waitHealth(true)
			s.explained(after)
			s.explained(holds)
			s.noStrangers()
		})
	}
}

// TestLogBrokenAtStart takes reasons away for good: then the MTA's log is what
// tells that the guard held the message.
func TestLogBrokenAtStart(t *testing.T) {
	for _, test := range []struct {
		name   string
		break_ func(s *site)
		says   string
	}{
		{"log ends in the middle of a line", func(s *site) { s.cut(s.newestLog(), 0.9); s.remove(s.database()) }, ""},
		{"log has damaged lines", func(s *site) { s.scratch(s.newestLog()); s.remove(s.database()) }, "journal lines could not be read"},
		{"log and database are garbage", func(s *site) {
			for _, path := range s.logFiles() {
				s.garble(path)
			}
			s.garble(s.database())
		}, "journal database was broken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			s := startSite(t, relay.Options{})
			holds := s.goesOn("before")
			s.explained(holds)
			s.killGuard()
			test.break_(s)
			s.startGuard(t.Context())
			after := s.goesOn("after")
			s.says(test.says)
			s.waitHealth(true)
			s.explained(after)
			s.ours(holds)
			s.noStrangers()
		})
	}
}

// says waits until the guard's log says something.
func (s *site) says(text string) {
	s.t.Helper()
	if text == "" {
		return
	}
	poll(s.t, patience, "say what was broken", func() error {
		if len(s.linesSince(0, text)) > 0 {
			return nil
		}
		log, err := os.ReadFile(s.GuardLog())
		return fmt.Errorf("the log lacks %q: %v\n%s", text, err, log)
	})
}

// noStrangers waits until every message in the hold queue is listed as the guard's.
func (s *site) noStrangers() {
	s.t.Helper()
	poll(s.t, patience, "know what is held", func() error {
		all, err := s.listNow(s.t.Context())
		if err != nil {
			return err
		}
		queue := s.inHold(s.t.Context())
		for _, h := range all {
			if h.HeldBy != "relayguard" || h.Reason == "" {
				return fmt.Errorf("%s is listed as %+v; logs:\n%s", h.QueueID, h, s.allLogs(h.QueueID))
			}
			delete(queue, h.QueueID)
		}
		for id := range queue {
			return fmt.Errorf("%s is held and not listed; logs:\n%s", id, s.allLogs(id))
		}
		return nil
	})
}

func TestSwitchesBrokenAtStart(t *testing.T) {
	s := startSite(t, relay.Options{})
	path := filepath.Join(s.StateDir(), "switches.json")
	for _, test := range []struct {
		name   string
		break_ func(text []byte) []byte
		stays  bool // the first switch
	}{
		{"garbage", func([]byte) []byte { return []byte("\x00\xff not JSON") }, false},
		{"cut off", func(text []byte) []byte { return text[:len(text)-len(text)/4] }, true},
		{"empty", func([]byte) []byte { return nil }, false},
		{"one switch makes no sense", func(text []byte) []byte { return bytes.Replace(text, []byte("192.0.2.2"), []byte("192.0.2.bad"), 1) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			was := s.t
			s.t = t
			defer func() { s.t = was }()
			for _, client := range []string{"192.0.2.1", "192.0.2.2"} {
				if r, err := s.Relayguard(t.Context(), "deny", "add", "client", client, "--reason", "fault test"); err != nil || r.ExitCode != 0 {
					t.Fatalf("deny: %v %+v", err, r)
				}
			}
			s.killGuard()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, test.break_(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s.startGuard(t.Context())
			if told := s.linesSince(0, `"msg":"switches"`); len(told) != 1 {
				t.Errorf("the broken file is told %d times, want once:\n%s", len(told), strings.Join(told, "\n"))
			}
			s.explained(s.goesOn(strings.ReplaceAll(test.name, " ", "-")))
			h, err := s.status(t.Context())
			if err != nil || (h.Denied >= 1) != test.stays {
				t.Errorf("%d denials in force, %v; the first is to stay: %v", h.Denied, err, test.stays)
			}
			aside, err := filepath.Glob(path + ".broken-*")
			if err != nil || len(aside) == 0 {
				t.Errorf("the broken file was not put aside: %v, %v", aside, err)
			}
			// What is ordered now outlives the next crash.
			if r, err := s.Relayguard(t.Context(), "suspend", suspect, "--reason", "fault test"); err != nil || r.ExitCode != 0 {
				t.Fatalf("suspend: %v %+v", err, r)
			}
			s.killGuard()
			s.startGuard(t.Context())
			if h, err := s.status(t.Context()); err != nil || len(h.Suspended) != 1 {
				t.Errorf("after the next crash: %+v, %v; want the suspension", h.Suspended, err)
			}
			if r, err := s.Relayguard(t.Context(), "resume", suspect, "--cause", "fault test"); err != nil || r.ExitCode != 0 {
				t.Fatalf("resume: %v %+v", err, r)
			}
		})
	}
}

func (s *site) database() string { return filepath.Join(s.JournalDir(), "journal.db") }

func (s *site) logFiles() []string {
	s.t.Helper()
	all, err := filepath.Glob(filepath.Join(s.JournalDir(), "log", "*.log"))
	if err != nil || len(all) == 0 {
		s.t.Fatalf("no log files: %v", err)
	}
	return all
}

func (s *site) newestLog() string {
	all := s.logFiles()
	return all[len(all)-1]
}

func (s *site) size(path string) int64 {
	s.t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return info.Size()
}

// overwrite puts octets at a place of a file.
func (s *site) overwrite(path string, at int64, octets []byte) {
	s.t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(octets, at); err != nil {
		s.t.Fatal(err)
	}
}

// garble makes rubbish of a file, as large as it was.
func (s *site) garble(path string) {
	octets := make([]byte, max(s.size(path), 100))
	random := rand.New(rand.NewPCG(1, 2))
	for i := range octets {
		octets[i] = byte(random.Uint32())
	}
	s.overwrite(path, 0, octets)
	s.dropWAL(path)
}

// dropWAL takes away what SQLite would mend the database with.
func (s *site) dropWAL(path string) {
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !os.IsNotExist(err) {
			s.t.Fatal(err)
		}
	}
}

func (s *site) cut(path string, part float64) {
	s.t.Helper()
	if filepath.Ext(path) == ".db" {
		s.fold()
	}
	if err := syscall.Truncate(path, int64(float64(s.size(path))*part)); err != nil {
		s.t.Fatal(err)
	}
	s.dropWAL(path)
}

// zero makes zeros of all pages but the first.
func (s *site) zero(path string) {
	s.t.Helper()
	s.fold()
	const page = 4096
	s.overwrite(path, page, make([]byte, s.size(path)-page))
	s.dropWAL(path)
}

// fold brings the write-ahead log of the database into its file, which else has
// next to nothing of what is to be broken. The guard does so by its end.
func (s *site) fold() {
	s.t.Helper()
	s.startGuard(s.t.Context())
	if err := s.StopGuard(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.setLogAside()
}

// scratch damages some lines of a log.
func (s *site) scratch(path string) {
	s.t.Helper()
	size := s.size(path)
	for _, part := range []float64{0.2, 0.5, 0.8} {
		s.overwrite(path, int64(float64(size)*part), []byte("########"))
	}
}

func (s *site) remove(path string) {
	s.t.Helper()
	s.dropWAL(path)
	if err := os.RemoveAll(path); err != nil {
		s.t.Fatal(err)
	}
}
