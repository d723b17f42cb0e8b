package sendmail_test

import (
	"errors"
	"fmt"
	"net"
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
	s.beginRunner(name)
	s.waitRunner()
}

// beginRunner does not wait until it has come so far as to say what it is.
func (s *stopping) beginRunner(name string, more ...string) {
	s.t.Helper()
	runner := exec.CommandContext(s.ctx(), s.Tool("sendmail"), "-Am", "-L", "sm-que", "-O", "PidFile="+filepath.Join(s.Dir, "run", "runner.pid"), "-q1h")
	runner.Args = append(runner.Args, more...)
	runner.Args[0] = name
	if err := s.StartCommand(runner); err != nil {
		s.t.Fatal(err)
	}
	if err := runner.Wait(); err != nil {
		s.t.Fatal(err)
	}
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
		for end := time.Now().Add(30 * time.Second); !isStopped(t, pid) && time.Now().Before(end); {
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
	for end := time.Now().Add(30 * time.Second); !strings.Contains(s.cf(), "# relayguard stop begins") && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if err := os.WriteFile(s.PIDFile(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A queue runner that has just begun has no title yet that says what it is, and cannot
// start anew. It is told by its arguments, not taken for a delivery that goes on by the
// old settings: the admin hears of a queue runner.
//
// It is so for some microseconds, in which it tells the log that it starts: here it
// waits for room there.
func TestStopOutgoingLeavesAQueueRunnerWithoutATitle(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.fillLog()
	s.beginRunner(s.Tool("sendmail"), "-O", "LogLevel=9") // that it starts is all that it logs then
	if out := s.stop(); out.Ended != 0 || len(out.Caveats) != 1 || !strings.Contains(out.Caveats[0], "the queue runner, process ") {
		t.Errorf("got %+v", out)
	}
}

// fillLog has whoever opens the log from now on wait, until the end of the test.
func (s *stopping) fillLog() {
	s.t.Helper()
	path := filepath.Join(s.Dir, "full.sock")
	full, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}) // nobody reads it
	if err != nil {
		s.t.Fatal(err)
	}
	for sent := true; sent; { // one socket may send less than there is room for
		sent = sendAll(s.t, path)
	}
	s.t.Cleanup(func() { full.Close() })
	s.Inside(func() { err = errors.Join(os.Remove("/dev/log"), os.Symlink(path, "/dev/log")) })
	if err != nil {
		s.t.Fatal(err)
	}
}

// sendAll sends to a socket what it takes from one sender; false: nothing.
func sendAll(t *testing.T, path string) (sent bool) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	for {
		switch err := syscall.Sendto(fd, []byte("x"), 0, &syscall.SockaddrUnix{Name: path}); err {
		case nil:
			sent = true
		case syscall.EAGAIN:
			return sent
		default:
			t.Fatal(err)
		}
	}
}
