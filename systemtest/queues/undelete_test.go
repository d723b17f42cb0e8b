package queues_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

// TestUndeleteInterruptedOnPostfix breaks off the way back of what was deleted, in
// every way, and goes it again.
func TestUndeleteInterruptedOnPostfix(t *testing.T) {
	h := startPostfix(t, racing, relay.Options{Config: holdTaro, Postfix: postfixtest.Options{Main: map[string]string{"service_throttle_time": "1s"}}})
	s := &stock{house: h}
	s.undeletes(600, killCLI, interruptCLI, killDaemon, killHelper, killHelper, killHelper, killMTA)
}

// TestUndeleteInterruptedOnSendmail does it there, with less mail.
func TestUndeleteInterruptedOnSendmail(t *testing.T) {
	s := &stock{house: startSendmail(t, racing, relay.Options{Config: holdTaro})}
	s.undeletes(150, killCLI, killDaemon, killHelper, killHelper, killMTA)
}

// undeletes does it, with mail of its own each time.
func (s *stock) undeletes(n int, strikes ...*strike) {
	for range strikes {
		s.group(n, true)
	}
	s.fill()
	for i, strike := range strikes {
		if !s.t.Run(fmt.Sprint(i, " ", strike.name), func(t *testing.T) {
			old := s.t
			s.house.t = t
			defer func() { s.house.t = old }()
			s.undeleteBrokenOff(strike, s.groups[i], i%2 == 1)
			s.exactly(nil, s.all)
		}) {
			s.t.FailNow()
		}
	}
}

// undeleteBrokenOff deletes a group's mail, has its undelete cut off, and does that
// again. What was back by then may have been sent meanwhile: nothing of it comes
// back a second time.
func (s *stock) undeleteBrokenOff(strike *strike, g *group, sent bool) {
	t := s.t
	s.untilDone("held", "delete", "--yes", "--from", g.from, "--reason", "a test")
	s.wantAt("grace", g.to)
	order := []string{"held", "undelete", "--yes", "--from", g.from, "--deleted-since", "1h", "--reason", "a test"}
	cli, wait := s.start(order...)
	for len(s.filesOf("hold", g)) == 0 && alive(cli.Process.Pid) {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // each time it is elsewhere
	s.must(strike.hit(s, cli.Process.Pid))
	said := wait()
	t.Logf("broken off after %v (status %d) with %d files in hold, %d copies", said.took.Round(time.Millisecond), said.code, len(s.filesOf("hold", g)), s.copiesOf(g))
	if strike == interruptCLI && said.code != 0 && (said.code != 1 || !strings.Contains(said.stderr, "ended early")) {
		t.Errorf("interrupted it ends with %d:\n%s%s", said.code, said.stdout, said.stderr)
	}
	s.none(g.to)
	s.must(strike.after(s))
	if sent {
		for _, to := range g.to {
			s.sink.Refuse(to, smtptest.Reply{})
		}
		s.untilDone("queue", "release", "--foreign", "--yes", "--from", g.from, "--queue", "hold")
		s.eventually("what is back is sent", func() string {
			for _, queue := range []string{"hold", "deferred", "active", "incoming"} {
				for _, f := range s.files(queue) {
					if isMessage(f.id) && slices.Contains(g.to, tokenOf(f.path)) {
						return f.id + " is in " + queue
					}
				}
			}
			return ""
		})
	}
	began := time.Now()
	s.untilDone(order...)
	s.exactly(&act{to: []string{"hold", "sent"}}, g.to)
	by, _ := sum(s.ledger(), g.to)
	if !sent && by["hold"] != len(g.to) {
		t.Errorf("got %v", by)
	}
	t.Logf("whole again after %v: %v", time.Since(began).Round(time.Millisecond), by)
	s.eventually("what is back is the guard's hold", func() string {
		said := s.command("held", "list", "--from", g.from)
		if said.code != 0 { // the queue could not be looked at while the helper was away
			return said.stderr
		}
		held := max(0, strings.Count(said.stdout, "\n")-1) // the titles
		if held != by["hold"] {
			return fmt.Sprintf("%d of %d", held, by["hold"])
		}
		return ""
	})
}

// isMessage tells a message's file from one that is being written.
func isMessage(id string) bool { return !strings.ContainsAny(id, "_.") }

func (s *stock) copiesOf(g *group) (n int) {
	for name, k := range s.copies() {
		if slices.Contains(g.to, name) {
			n += k
		}
	}
	return n
}

// TestUndeleteOfVeryMany lists and restores many copies, RELAYGUARD_UNDELETE of them,
// and bounds what that takes.
func TestUndeleteOfVeryMany(t *testing.T) {
	many := 3000
	if text := os.Getenv("RELAYGUARD_UNDELETE"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("RELAYGUARD_UNDELETE: got %q, want a number from 1", text)
		}
		many = n
	}
	for _, server := range []struct {
		name  string
		start func(*testing.T, func(*testing.T) string, relay.Options) *house
	}{{"Postfix", startPostfix}, {"Sendmail", startSendmail}} {
		t.Run(server.name, func(t *testing.T) {
			s := &stock{house: server.start(t, plain, relay.Options{Config: holdTaro})}
			g := s.group(1, true)
			s.fill()
			s.untilDone("held", "delete", "--yes", "--from", g.from)
			s.multiply(many)
			s.listsDeleted(many)
			began := time.Now()
			order := []string{"held", "undelete", "--all", "--yes", "--reason", "all of it"}
			said := s.command(order...)
			for n := 0; said.code != 0 && n < 20; n++ { // killed, for it took longer than a command of a test may; or what was in hand then is gone
				t.Logf("status %d after %v; it is given again", said.code, said.took.Round(time.Second))
				said = s.command(order...)
			}
			if said.code != 0 {
				t.Fatalf("status %d\n%.2000s%.2000s", said.code, said.stdout, said.stderr)
			}
			t.Logf("%d restored in %v, %v each", many, time.Since(began).Round(time.Millisecond), (time.Since(began) / time.Duration(many)).Round(time.Microsecond))
			held := len(slices.DeleteFunc(s.files("hold"), func(f file) bool { return !isMessage(f.id) }))
			if held != many || len(s.copies()) != 0 {
				t.Errorf("%d on hold, copies %v", held, s.copies())
			}
			s.small()
			if again := s.command("held", "undelete", "--all", "--yes"); again.code != 0 || !strings.Contains(again.stderr, "nothing deleted is like that") {
				t.Errorf("again: status %d\n%s", again.code, again.stderr)
			}
		})
	}
}

// multiply makes many copies of the only one: as of other messages.
func (s *stock) multiply(many int) {
	s.t.Helper()
	only, err := filepath.Glob(filepath.Join(filepath.Dir(s.ConfigPath), "queue-state", "deleted", "*", "*"))
	if err != nil || len(only) != 1 {
		s.t.Fatalf("copies: %v, %v", only, err)
	}
	day, base := filepath.Split(only[0])
	parts := strings.SplitN(base, ".", 3)
	deleted, err := strconv.ParseInt(parts[2], 10, 64)
	s.must(err)
	entries, err := os.ReadDir(only[0])
	s.must(err)
	for n := 1; n < many; n++ {
		id := parts[0][:len(parts[0])-6] + fmt.Sprintf("%06d", n)
		to := filepath.Join(day, fmt.Sprintf("%s.%s.%d", id, parts[1], deleted+int64(n)))
		s.must(os.Mkdir(to, 0o700))
		for _, e := range entries {
			from, err := os.Open(filepath.Join(only[0], e.Name()))
			s.must(err)
			copied, err := os.OpenFile(filepath.Join(to, e.Name()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			s.must(err)
			_, err = io.Copy(copied, from)
			s.must(err)
			s.must(copied.Close())
			from.Close()
		}
	}
}

// listsDeleted reads the list as it comes, and looks how soon that is.
func (s *stock) listsDeleted(many int) {
	s.t.Helper()
	s.small()
	for _, filter := range [][]string{nil, {"--account", "unknown", "--newer-than", "1h"}} {
		want := many
		if filter != nil {
			want-- // the one that the journal knows
		}
		said := s.command(append([]string{"held", "deleted"}, filter...)...)
		lines := 0
		for in := bufio.NewScanner(strings.NewReader(said.stdout)); in.Scan(); lines++ {
		}
		if said.code != 0 || lines != want+1 {
			s.t.Errorf("status %d, %d lines, want %d and the titles\n%.1000s", said.code, lines, want, said.stderr)
		}
		s.t.Logf("held deleted %v: %d in %v", filter, want, said.took.Round(time.Millisecond))
	}
	s.small()
}

// small fails if the daemon or the root helper has grown beyond 100 MB.
func (s *stock) small() {
	s.t.Helper()
	for name, pid := range map[string]int{"the daemon": s.GuardPID(), "the root helper": s.HelperPID()} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		s.must(err)
		_, rest, _ := strings.Cut(string(text), "VmHWM:")
		var kib int64
		fmt.Sscanf(rest, "%d kB", &kib)
		s.t.Logf("%s: at most %d MB, %v of processor time", name, kib>>10, processorTime(pid))
		if kib > 100<<10 {
			s.t.Errorf("%s took %d MB", name, kib>>10)
		}
	}
}

// processorTime is what a process has used: on a busy machine it says more than the
// clock.
func processorTime(pid int) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	var sum time.Duration
	for n, field := range strings.Fields(rest) {
		if n == 11 || n == 12 { // utime and stime, proc(5)
			k, _ := strconv.Atoi(field)
			sum += time.Duration(k) * tick
		}
	}
	return sum
}
