package sendmail_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
)

// stopping is a red switch over a private Sendmail.
type stopping struct {
	*sendmailtest.Sendmail
	t        *testing.T
	stateDir string
	inside   []string
}

func newStopping(t *testing.T, options sendmailtest.Options) *stopping {
	t.Helper()
	sendmailtest.Need(t)
	options.Services = append(options.Services, sendmailtest.Service{Name: "relay"})
	return &stopping{Sendmail: startWithTools(t, options), t: t, stateDir: filepath.Join(t.TempDir(), "queue")}
}

// startWithTools has makemap beside sendmail, as a package installs them.
func startWithTools(t *testing.T, options sendmailtest.Options) *sendmailtest.Sendmail {
	t.Helper()
	s := sendmailtest.StartTest(t, options)
	if err := os.Symlink(s.Tool("makemap"), filepath.Join(s.Dir, "bin", "makemap")); err != nil {
		t.Fatal(err)
	}
	return s
}

// makeMap compiles a table in the configuration directory.
func makeMap(t *testing.T, s *sendmailtest.Sendmail, class, name, text string) {
	t.Helper()
	cmd := exec.Command(s.Tool("makemap"), class, filepath.Join(s.ConfigDir, name))
	cmd.Stdin = strings.NewReader(text)
	if err := s.StartCommand(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
}

func (s *stopping) redSwitch() sendmail.RedSwitch {
	s.t.Helper()
	i, err := sendmail.Load(s.t.Context(), sendmail.Tools{Dir: filepath.Join(s.Dir, "bin")}, s.ConfigDir)
	if err != nil {
		s.t.Fatal(err)
	}
	return sendmail.RedSwitch{Instance: i, StateDir: s.stateDir, Inside: s.inside}
}

// do runs where Sendmail lives, with settings that are read there.
func (s *stopping) do(act func(sendmail.RedSwitch) error) (err error) {
	s.Inside(func() { err = act(s.redSwitch()) })
	return err
}

func (s *stopping) stop() (out mta.Stopped) {
	s.t.Helper()
	began := time.Now()
	err := s.do(func(r sendmail.RedSwitch) (err error) { out, err = r.StopOutgoing(s.t.Context(), began); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("it took %v; the goal is 5s", time.Since(began))
	return out
}

func (s *stopping) start(keep bool) (out mta.Started) {
	s.t.Helper()
	err := s.do(func(r sendmail.RedSwitch) (err error) {
		out, err = r.StartOutgoing(s.t.Context(), time.Now(), keep)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stopping) status() (status mta.StopStatus) {
	s.t.Helper()
	err := s.do(func(r sendmail.RedSwitch) (err error) { status, err = r.OutgoingStopped(s.t.Context()); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

// session is an SMTP session, as soon as the daemon listens.
func (s *stopping) session() *smtptest.Client {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		client, err := s.Dial(s.ctx(), "relay")
		if err == nil {
			s.t.Cleanup(func() { client.Close() })
			if _, err = client.Ehlo("client.example.jp"); err == nil {
				return client
			}
		}
		if time.Now().After(end) {
			s.t.Fatal(err)
		}
	}
}

func (s *stopping) send(to ...string) {
	s.t.Helper()
	client := s.session()
	defer client.Quit()
	sent, err := client.Send("hanako@example.jp", to, "Subject: hello\r\n\r\nhello\r\n")
	if err != nil || !sent.Accepted() {
		s.t.Fatalf("send to %q: %+v, %v", to, sent, err)
	}
}

func (s *stopping) waitDeferred(to, reason string) {
	s.t.Helper()
	_, err := s.WaitQueue(s.ctx(), func(q sendmailtest.Queued) bool {
		return !q.Held && q.To(to) && strings.Contains(q.Delay, reason)
	})
	if err != nil {
		s.t.Fatalf("%s: %v", to, err)
	}
}

func (s *stopping) waitHeld(to string) {
	s.t.Helper()
	if q, err := s.WaitHeld(s.ctx(), to); err != nil || !strings.HasPrefix(q.Reason, "held by relayguard stop of 20") {
		s.t.Fatalf("%s is held for %q: %v", to, q.Reason, err)
	}
}

func (s *stopping) waitSink(to string) {
	s.t.Helper()
	if _, err := s.Sink.WaitFor(s.ctx(), to); err != nil {
		s.t.Fatalf("mail to %s: %v", to, err)
	}
}

func (s *stopping) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *stopping) cf() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.ConfigDir, "sendmail.cf"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// later has the sink put off mail to an address.
func (s *stopping) later(to string) {
	s.Sink.Refuse(to, smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}})
}

// tarpit is a mail server that takes all and answers no final dot until answer is
// closed. got is told of each message.
func tarpit(t *testing.T) (port string, got chan string, answer chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	got, answer = make(chan string, 10), make(chan struct{})
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				lines := bufio.NewScanner(conn)
				conn.Write([]byte("220 tarpit\r\n"))
				data := false
				for lines.Scan() {
					switch line := lines.Text(); {
					case data && line == ".":
						data = false
						got <- line
						<-answer
						conn.Write([]byte("250 ok\r\n"))
					case data:
					case strings.HasPrefix(line, "DATA"):
						data = true
						conn.Write([]byte("354 go on\r\n"))
					default:
						conn.Write([]byte("250 ok\r\n"))
					}
				}
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port, got, answer
}

// smtpTo is a mailer of that name that delivers to a port here.
func smtpTo(name, port string) string {
	return "M" + name + ", P=[IPC], F=mDFMuXa8, S=EnvFromSMTP/HdrFromSMTP, R=MasqSMTP, E=\\r\\n, L=2040, T=DNS/RFC822/SMTP, A=TCP [127.0.0.1] " + port
}

const withMailertable = "FEATURE(`mailertable', `hash -o /etc/mail/mailertable')dnl"

// Inside and outside go by the same mailer and hub.
func TestStopOutgoingStopsTheOutsideAlone(t *testing.T) {
	t.Parallel()
	port, got, answer := tarpit(t)
	s := newStopping(t, sendmailtest.Options{
		Mailboxes: []string{"taro@example.jp"},
		MC:        []string{withMailertable, "RELAY_DOMAIN(`relayed.example')dnl"},
		CF:        []string{smtpTo("tarpit", port)},
		Files:     map[string]string{"aliases": "postmaster: root\nmailer-daemon: root\nroot: /dev/null\nmbox-0: /dev/null\n"},
	})
	s.inside = []string{"own.example"}
	makeMap(t, s.Sendmail, "hash", "mailertable", "example.net tarpit:x\n.example.net tarpit:x\n")
	if err := s.Reload(s.ctx()); err != nil {
		t.Fatal(err)
	}
	before := s.cf()
	s.later("later@example.org")
	s.send("later@example.org")
	s.waitDeferred("later@example.org", "later")
	s.send("slow@example.net")
	<-got // and it gets no answer

	out := s.stop()
	if out.Already || !out.Running || out.Ended != 1 || len(out.Failed) > 0 || len(out.Caveats) > 0 || len(out.Held) != 2 {
		t.Errorf("got %+v", out)
	}
	for _, to := range []string{"later@example.org", "slow@example.net"} {
		s.waitHeld(to)
	}
	s.send("new@example.org")
	s.send("slow@www.example.net")
	s.send("Other@Example.JP", "below@sub.Relayed.example", "a@relayed.example", "b@own.example")
	s.send("taro@example.jp")
	s.send("both@example.org", "third@example.jp")
	for _, to := range []string{"Other@Example.JP", "below@sub.Relayed.example", "a@relayed.example", "b@own.example", "third@example.jp"} {
		s.waitSink(to)
	}
	outside := []string{"new@example.org", "slow@www.example.net", "both@example.org"}
	for _, to := range outside {
		s.waitDeferred(to, mta.StopText)
	}
	if err := s.RunQueue(s.ctx()); err != nil {
		t.Fatal(err)
	}
	status := s.status()
	if !status.Stopped || status.Held != 2 || len(status.Missing) > 0 || !status.Since.Equal(out.Since) {
		t.Errorf("got status %+v", status)
	}

	out = s.stop()
	if !out.Already || len(out.Held) != len(outside) || out.Ended != 0 {
		t.Errorf("the second time: %+v", out)
	}
	for _, to := range outside {
		s.waitHeld(to)
		if len(s.Sink.To(to)) > 0 {
			t.Errorf("%s got mail", to)
		}
	}
	s.send("last@example.org")
	s.waitDeferred("last@example.org", mta.StopText)

	close(answer)
	started := s.start(false)
	if len(started.Released) != 5 || started.Retried != 1 || len(started.Caveats) > 0 || !started.Running {
		t.Errorf("got %+v", started)
	}
	for _, to := range []string{"new@example.org", "both@example.org", "last@example.org"} {
		s.waitSink(to)
	}
	<-got // slow@example.net
	<-got // slow@www.example.net
	s.waitDeferred("later@example.org", "later")
	if len(s.Sink.To("third@example.jp")) != 1 {
		t.Error("mail to third@example.jp came twice")
	}
	if after := s.cf(); after != before {
		t.Error("sendmail.cf is another one than before")
	}
	if status := s.status(); status.Stopped {
		t.Errorf("got status %+v", status)
	}
	err := s.do(func(r sendmail.RedSwitch) error {
		_, err := r.StartOutgoing(t.Context(), time.Now(), false)
		return err
	})
	if !errors.Is(err, mta.ErrNotStopped) {
		t.Errorf("started twice: %v", err)
	}
}

func TestStartOutgoingKeepsWhatIsHeld(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.later("later@example.org")
	s.later("others@example.org")
	s.send("others@example.org")
	s.waitDeferred("others@example.org", "later")
	q, err := s.WaitQueue(s.ctx(), func(q sendmailtest.Queued) bool { return q.To("others@example.org") })
	if err != nil {
		t.Fatal(err)
	}
	for held := []sendmailtest.Queued(nil); len(held) == 0; held, _ = s.Held(t.Context()) { // it passes over what is locked
		if _, err := s.Command(s.ctx(), "sendmail", "-Am", "-Qan admin's", "-qI"+q.QueueID); err != nil {
			t.Fatal(err)
		}
	}
	s.send("later@example.org")
	s.waitDeferred("later@example.org", "later")
	s.stop()
	if out := s.start(true); len(out.Kept) != 1 || len(out.Released) > 0 {
		t.Errorf("got %+v", out)
	}
	s.waitHeld("later@example.org")
	if q, err := s.WaitHeld(s.ctx(), "others@example.org"); err != nil || q.Reason != "an admin's" {
		t.Errorf("got %+v, %v", q, err)
	}
	s.send("new@example.org")
	s.waitSink("new@example.org")

	// What was kept is not the next stop's.
	s.later("second@example.org")
	s.send("second@example.org")
	s.waitDeferred("second@example.org", "later")
	s.stop()
	if out := s.start(false); len(out.Released) != 1 || len(out.Kept) > 0 {
		t.Errorf("got %+v", out)
	}
	s.waitHeld("later@example.org")
}

// Whoever pulls the switch back and forth ends no daemon that way: a second SIGHUP
// does, until Sendmail handles it again.
func TestStopAndStartAtOnceEndNoDaemon(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	runner := exec.Command(s.Tool("sendmail"), "-Am", "-L", "sm-que", "-O", "PidFile="+filepath.Join(s.Dir, "run", "runner.pid"), "-q1h")
	if err := s.StartCommand(runner); err != nil {
		t.Fatal(err)
	}
	if err := runner.Wait(); err != nil { // it goes on in the background
		t.Fatal(err)
	}
	s.waitRunner()
	for n := range 12 {
		s.stop()
		time.Sleep(time.Duration(n) * 5 * time.Millisecond) // another moment of its start each time
		s.start(false)
	}
	s.waitRunner()
	s.session().Close()
}

// The daemon writes its pid file anew whenever it starts; for a moment it is empty.
func TestStopOutgoingWhileTheDaemonWritesItsPid(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	path := s.PIDFile()
	pid := readFile(t, path)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() {
		time.Sleep(300 * time.Millisecond) // the stop looks meanwhile
		written <- os.WriteFile(path, pid, 0o644)
	}()
	s.stop()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

// waitRunner waits for a queue runner in the queue's directory that has come so far
// as to say what it is.
func (s *stopping) waitRunner() {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range all {
			title, _ := os.ReadFile(path)
			cwd, _ := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
			if strings.Contains(string(title), "Queue runner@") && strings.HasPrefix(cwd, s.QueueDir) {
				return
			}
		}
	}
	s.t.Fatal("there is no queue runner")
}

// A make in /etc/mail takes the lines away: that is told, and repaired.
func TestStopOutgoingRepairs(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.stop()
	if err := s.Rebuild(s.ctx()); err != nil {
		t.Fatal(err)
	}
	rebuilt := s.cf() + "# by somebody\n"
	if err := os.WriteFile(filepath.Join(s.ConfigDir, "sendmail.cf"), []byte(rebuilt), 0o644); err != nil {
		t.Fatal(err)
	}
	if status := s.status(); !slices.Equal(status.Missing, []string{"sendmail.cf"}) {
		t.Errorf("got status %+v", status)
	}
	s.stop()
	if status := s.status(); len(status.Missing) > 0 {
		t.Errorf("got status %+v", status)
	}
	s.send("new@example.org")
	s.waitDeferred("new@example.org", mta.StopText)
	s.start(false)
	s.waitSink("new@example.org")
	if s.cf() != rebuilt {
		t.Error("sendmail.cf is not as somebody made it")
	}
}

// What an admin changed while mail was stopped stays, and is told; also where he cut
// into the lines.
func TestStartOutgoingLeavesWhatOthersChanged(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	path := filepath.Join(s.ConfigDir, "sendmail.cf")
	for name, change := range map[string][2]string{
		"beside":  {"\nO MaxMessageSize=", "\n#O MaxMessageSize="},
		"its end": {"# relayguard stop ends.\n", ""},
	} {
		before := s.cf()
		s.stop()
		during := s.cf()
		if name == "beside" {
			during = "# of an admin\n" + during
		} else {
			during = strings.ReplaceAll(during, change[0], change[1])
		}
		if err := os.WriteFile(path, []byte(during), 0o644); err != nil {
			t.Fatal(err)
		}
		out := s.start(false)
		if len(out.Caveats) == 0 {
			t.Errorf("%s: no caveat", name)
		}
		want := before
		if name == "beside" {
			want = "# of an admin\n" + before
		}
		if s.cf() != want {
			t.Errorf("%s: got\n%s", name, diff(t, want, s.cf()))
		}
	}
}

func diff(t *testing.T, want, got string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"want": want, "got": got} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := exec.Command("diff", filepath.Join(dir, "want"), filepath.Join(dir, "got")).CombinedOutput()
	return string(out)
}

// Whatever point a stop was cut off at: a second stop stops, and a start gives the
// settings back.
func TestStopOutgoingCutShort(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	path := filepath.Join(s.ConfigDir, "sendmail.cf")
	before := s.cf()
	s.stop()
	stopped := s.cf()
	for name, text := range map[string]string{"before the file": before, "after it": stopped} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		state := filepath.Join(s.stateDir, "stopped.json")
		noted, err := os.ReadFile(state)
		if err != nil {
			t.Fatal(err)
		}
		noted = []byte(strings.Replace(string(noted), `"reloaded":true`, `"reloaded":false`, 1))
		if err := os.WriteFile(state, noted, 0o600); err != nil {
			t.Fatal(err)
		}
		if status := s.status(); !status.Stopped || len(status.Missing) == 0 {
			t.Errorf("%s: got status %+v", name, status)
		}
		s.stop()
		if status := s.status(); !status.Stopped || len(status.Missing) > 0 {
			t.Errorf("%s: got status %+v", name, status)
		}
	}
	s.start(false)
	if s.cf() != before {
		t.Error("sendmail.cf is another one than before")
	}
}

// A session that had begun with the old settings would go on sending by them.
func TestStopOutgoingEndsSessions(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	old := s.session()
	out := s.stop()
	if len(out.Caveats) > 0 || out.Ended != 0 { // the client tries again
		t.Errorf("got %+v", out)
	}
	if sent, err := old.Send("hanako@example.jp", []string{"leak@example.org"}, "Subject: x\r\n\r\nx\r\n"); err == nil && sent.Accepted() {
		t.Error("the old session takes mail")
	}
	s.send("in@example.jp")
	s.waitSink("in@example.jp")
	if len(s.Sink.To("leak@example.org")) > 0 {
		t.Error("mail leaked")
	}
}

// A queue run goes through many messages; the one that began before must not go on.
func TestStopOutgoingEndsQueueRuns(t *testing.T) {
	t.Parallel()
	port, got, answer := tarpit(t)
	s := newStopping(t, sendmailtest.Options{
		DeliveryMode: "queueonly", MC: []string{withMailertable}, CF: []string{smtpTo("tarpit", port)},
	})
	makeMap(t, s.Sendmail, "hash", "mailertable", "example.net tarpit:x\n")
	for n := range 5 {
		s.send(fmt.Sprintf("a%d@example.net", n))
		s.send(fmt.Sprintf("b%d@example.org", n))
	}
	run := exec.Command(s.Tool("sendmail"), "-Am", "-q")
	if err := s.StartCommand(run); err != nil {
		t.Fatal(err)
	}
	<-got
	out := s.stop()
	if out.Ended == 0 || len(out.Failed) > 0 {
		t.Errorf("got %+v", out)
	}
	run.Wait() // whatever it says
	if len(s.ChildPIDs()) > 0 {
		t.Errorf("processes %d go on", s.ChildPIDs())
	}
	arrived := len(s.Sink.All())
	if len(out.Held)+arrived != 10 {
		t.Errorf("%d held and %d arrived of 10", len(out.Held), arrived)
	}
	close(answer)
	s.start(false)
	for n := range 5 {
		s.waitSink(fmt.Sprintf("b%d@example.org", n))
	}
}

// A program that reads a message from Sendmail must not take half of it for all.
func TestStopOutgoingLeavesLocalDeliveriesAlone(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	room := filepath.Join(s.Dir, "room")
	if err := os.Mkdir(room, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(room, 0o777); err != nil {
		t.Fatal(err)
	}
	fifo, result := filepath.Join(room, "go"), filepath.Join(room, "result")
	if err := exec.Command("mkfifo", "-m", "666", fifo).Run(); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(s.Dir, "slow")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread word < "+fifo+"\ncat > "+result+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "postmaster: root\nmailer-daemon: root\nroot: /dev/null\nslow: \"|" + script + "\"\n"
	if err := os.WriteFile(filepath.Join(s.ConfigDir, "aliases"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Rebuild(s.ctx()); err != nil {
		t.Fatal(err)
	}
	sent, err := s.Sendmail.Sendmail(s.ctx(), 0, []string{"-Am", "-odb", "slow"}, strings.NewReader("Subject: x\n\n"+strings.Repeat("line\n", 50000)+"last\n"))
	if err != nil || sent.ExitCode != 0 {
		t.Fatalf("got %+v, %v", sent, err)
	}
	writer, err := os.OpenFile(fifo, os.O_WRONLY, 0) // until the script reads
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	out := s.stop()
	if len(out.Caveats) == 0 || out.Ended != 0 {
		t.Errorf("got %+v", out)
	}
	if status := s.status(); len(status.Missing) != 1 {
		t.Errorf("got status %+v", status)
	}
	if _, err := writer.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitEmpty(s.ctx()); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(result); err != nil || !strings.HasSuffix(string(got), "last\n\n") && !strings.HasSuffix(string(got), "last\n") {
		t.Errorf("the program read %d octets, %v", len(got), err)
	}
	s.stop()
	if status := s.status(); len(status.Missing) != 0 {
		t.Errorf("got status %+v", status)
	}
}

func TestStopOutgoingWhileSendmailIsDown(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.later("later@example.org")
	s.send("later@example.org")
	s.waitDeferred("later@example.org", "later")
	if err := s.Kill(15); err != nil {
		t.Fatal(err)
	}
	if out := s.stop(); out.Running || len(out.Held) != 1 {
		t.Errorf("got %+v", out)
	}
	if err := s.StartAgain(s.ctx()); err != nil {
		t.Fatal(err)
	}
	s.send("new@example.org")
	s.waitDeferred("new@example.org", mta.StopText)
}

func TestRedSwitchTrustsNobodysState(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	s.stop()
	path := filepath.Join(s.stateDir, "stopped.json")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := os.Chown(path, 33, 33); err != nil {
		t.Fatal(err)
	}
	err := s.do(func(r sendmail.RedSwitch) error {
		_, err := r.StartOutgoing(t.Context(), time.Now(), false)
		return err
	})
	if !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("got %v", err)
	}
	if err := os.Chown(path, 0, 0); err != nil {
		t.Fatal(err)
	}
	other := s.redSwitch()
	other.Instance.ConfigDir = "/etc/elsewhere"
	if _, err := other.OutgoingStopped(t.Context()); err == nil {
		t.Error("another instance's state was taken")
	}
	s.start(false)
}

// Two at a time do not get into each other's way.
func TestStopOutgoingTwiceAtOnce(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{})
	before := s.cf()
	errs := make(chan error)
	for range 2 {
		r := s.redSwitch()
		go func() {
			_, err := r.StopOutgoing(t.Context(), time.Now())
			errs <- err
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s.start(false)
	if s.cf() != before {
		t.Error("sendmail.cf is another one than before")
	}
}

// Where a local user's mail goes to an address outside, it is outgoing; where it goes
// to a hub, it is not.
func TestStopOutgoingFollowsLocalUsers(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{
		MC:    []string{"undefine(`MAIL_HUB')dnl", "define(`LUSER_RELAY', `relay:catchall@luser.example.org')dnl"},
		Hosts: []string{"127.0.0.1 luser.example.org"},
	})
	hub := newStopping(t, sendmailtest.Options{})
	for _, s := range []*stopping{s, hub} {
		s.stop()
		s.submit(0, "-Am", "-odb", "nobody-of-that-name")
	}
	s.waitDeferred("nobody-of-that-name", mta.StopText)
	if _, err := hub.Sink.Wait(s.ctx(), func(m smtptest.Mail) bool { return strings.HasPrefix(m.RcptTo[0], "nobody-of-that-name@") }); err != nil {
		t.Error(err)
	}
	s.start(false)
	s.waitSink("catchall@luser.example.org")
}

// submit runs sendmail(1).
func (s *stopping) submit(uid int, args ...string) {
	s.t.Helper()
	sent, err := s.Sendmail.Sendmail(s.ctx(), uid, args, strings.NewReader("Subject: x\n\nx\n"))
	if err != nil || sent.ExitCode != 0 {
		s.t.Fatalf("sendmail %q: %+v, %v", args, sent, err)
	}
}

// Where sendmail(1) hands its mail to another machine it does not pass this MTA.
func TestStopOutgoingStopsSubmissionToOtherMachines(t *testing.T) {
	t.Parallel()
	s := newStopping(t, sendmailtest.Options{Hosts: []string{"127.0.0.1 hub.example.org"}})
	path := filepath.Join(s.ConfigDir, "submit.cf")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, sink, _ := net.SplitHostPort(s.Sink.Addr())
	_, local, _ := net.SplitHostPort(s.Addr(sendmailtest.LocalService))
	before := strings.Replace(string(text), "D{MTAHost}[127.0.0.1]", "D{MTAHost}hub.example.org", 1)
	before = strings.ReplaceAll(before, "TCP $h "+local, "TCP $h "+sink)
	if err := os.WriteFile(path, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	s.submit(33, "first@example.org")
	s.waitSink("first@example.org")
	s.stop()
	s.submit(33, "second@example.org")
	s.submit(33, "third@example.jp")
	s.waitSink("third@example.jp")
	queue, err := s.ClientQueue(t.Context())
	if err != nil || len(queue) != 1 || !queue[0].To("second@example.org") || !strings.Contains(queue[0].Delay, mta.StopText) {
		t.Errorf("got %+v, %v", queue, err)
	}
	s.start(false)
	if err := s.RunClientQueue(s.ctx()); err != nil {
		t.Error(err)
	}
	s.waitSink("second@example.org")
	if after, err := os.ReadFile(path); err != nil || string(after) != before {
		t.Errorf("submit.cf is another one than before: %v", err)
	}
}
