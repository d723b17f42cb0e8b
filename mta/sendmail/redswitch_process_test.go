package sendmail_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
)

// startRunner starts a queue runner of its own, by that name, in the background.
func (s *stopping) startRunner(name string) {
	s.t.Helper()
	runner := exec.Command(s.Tool("sendmail"), "-Am", "-L", "sm-que", "-O", "PidFile="+filepath.Join(s.Dir, "run", "runner.pid"), "-q1h")
	runner.Args[0] = name
	if err := s.StartCommand(runner); err != nil {
		s.t.Fatal(err)
	}
	if err := runner.Wait(); err != nil {
		s.t.Fatal(err)
	}
	s.waitRunner()
}

// One that was started without its path ends when it is to start anew. Nobody would
// try deferred mail again.
func TestStopOutgoingTellsOfAQueueRunnerThatEnds(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.startRunner("sendmail")
	if out := s.stop(); len(out.Caveats) != 1 || !strings.Contains(out.Caveats[0], "queue runner") {
		t.Errorf("got %+v", out)
	}
	s.startRunner("sendmail")
	if out := s.start(false); len(out.Caveats) != 1 || !strings.Contains(out.Caveats[0], "queue runner") {
		t.Errorf("got %+v", out)
	}
	s.startRunner(s.Tool("sendmail"))
	if out := s.stop(); len(out.Caveats) > 0 {
		t.Errorf("got %+v", out)
	}
	s.waitRunner()
}

// What a client says in a session is in the title of its process, which must not pass
// for a daemon by that.
func TestStopOutgoingEndsSessionsWhateverTheySay(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	old := s.session()
	for _, said := range []string{"x: Queue runner@01:00:00 for /", "x: accepting connections"} {
		if _, err := old.Cmd("HELO %s", said); err != nil {
			t.Fatal(err)
		}
		if _, err := old.Cmd("MAIL FROM:<%q@example.jp>", said); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
	if _, err := old.Cmd("NOOP"); err == nil {
		t.Error("the old session goes on")
	}
}

// A call that was killed while it looked at processes leaves one of them stopped, with
// its locks.
func TestStartOutgoingWakesWhatWasStopped(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.stop()
	session := s.session()
	asleep := s.ChildPIDs()
	for _, pid := range asleep {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(pid, syscall.SIGCONT)
		for end := time.Now().Add(10 * time.Second); !isStopped(t, pid) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	s.start(false)
	for _, pid := range asleep {
		if isStopped(t, pid) {
			t.Fatalf("process %d is not awake", pid)
		}
	}
	if len(asleep) != 1 {
		t.Errorf("%d processes, want the session's", len(asleep))
	}
	if _, err := session.Cmd("NOOP"); err != nil {
		t.Error(err)
	}
}

func isStopped(t *testing.T, pid int) bool {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(status), "State:\tT")
}

// The directory of the pid file is an account's that is not root: a pipe there must not
// hold the switch up.
func TestStopOutgoingIsNotHeldUpByThePIDFile(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	path := s.PIDFile()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	r := s.redSwitch()
	go func() {
		_, err := r.StopOutgoing(t.Context(), time.Now())
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("got %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("it waits")
		f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			f.Close()
			<-done
		}
	}
}

// Sendmail writes its pid file when it has started; till then it may be empty.
func TestStopOutgoingWaitsForThePIDFile(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	text, err := os.ReadFile(s.PIDFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.PIDFile(), 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		done <- s.do(func(r sendmail.RedSwitch) error { _, err := r.StopOutgoing(t.Context(), time.Now()); return err })
	}()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(s.cf(), "# relayguard stop begins") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := os.WriteFile(s.PIDFile(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A queue runner that has just begun has no title yet that says what it is. It is told
// by its arguments, not taken for a delivery that goes on by the old settings.
//
// It has one for some microseconds only, so this is not tried beside others, and a
// machine on which it cannot be met says so.
func TestStopOutgoingLeavesAQueueRunnerWithoutATitle(t *testing.T) {
	s := newStopping(t, sendmailtest.Options{})
	for end := time.Now().Add(time.Minute); !s.startRunnerAndHalt(); {
		if time.Now().After(end) {
			t.Skip("in a minute no queue runner was met before it had its title: this machine is too busy")
		}
	}
	if out := s.stop(); out.Ended != 0 || len(out.Caveats) > 0 {
		t.Errorf("got %+v", out)
	}
	s.waitRunner()
}

// startRunnerAndHalt starts a queue runner and stops it where it has gone to the queue
// and not yet given itself a title. Else it ends it, and returns false.
func (s *stopping) startRunnerAndHalt() bool {
	s.t.Helper()
	runner := exec.Command(s.Tool("sendmail"), "-Am", "-L", "sm-que", "-O", "PidFile="+filepath.Join(s.Dir, "run", "runner.pid"), "-q1h")
	if err := s.StartCommand(runner); err != nil {
		s.t.Fatal(err)
	}
	go runner.Wait()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		for _, pid := range s.ChildPIDs() {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
			if cwd != s.QueueDir || pid == runner.Process.Pid {
				continue
			}
			if strings.Contains(string(line), "-q1h") && syscall.Kill(pid, syscall.SIGSTOP) == nil {
				for !isStopped(s.t, pid) {
					time.Sleep(time.Millisecond)
				}
				line, _ = os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if strings.Contains(string(line), "-q1h") {
					return true
				}
			}
			syscall.Kill(pid, syscall.SIGKILL)
			return false
		}
	}
	return false
}
