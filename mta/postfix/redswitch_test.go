package postfix_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/postfix"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// stopping is a red switch over a private Postfix.
type stopping struct {
	*postfixtest.Postfix
	t        *testing.T
	stateDir string
}

func newStopping(t *testing.T, options postfixtest.Options) stopping {
	t.Helper()
	postfixtest.Need(t)
	t.Parallel() // Postfix's tools wait two seconds after each change
	// Below /tmp, which is sticky; t.TempDir is too, but others may name it.
	return stopping{postfixtest.StartTest(t, options), t, filepath.Join(t.TempDir(), "queue")}
}

func (s stopping) redSwitch() postfix.RedSwitch {
	s.t.Helper()
	i, err := postfix.Load(s.t.Context(), postfix.Tools{}, s.ConfigDir)
	if err != nil {
		s.t.Fatal(err)
	}
	return postfix.RedSwitch{Instance: i, StateDir: s.stateDir}
}

func (s stopping) stop() mta.Stopped {
	s.t.Helper()
	began := time.Now()
	out, err := s.redSwitch().StopOutgoing(s.t.Context(), began)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("it took %v; the goal is 5s", time.Since(began))
	return out
}

func (s stopping) start(keep bool) mta.Started {
	s.t.Helper()
	out, err := s.redSwitch().StartOutgoing(s.t.Context(), time.Now(), keep)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s stopping) status() mta.StopStatus {
	s.t.Helper()
	status, err := s.redSwitch().OutgoingStopped(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

func (s stopping) send(to ...string) {
	s.t.Helper()
	sent, err := s.Sendmail(s.t.Context(), 33, append([]string{"-f", "hanako@example.jp"}, to...), strings.NewReader("Subject: hello\n\nhello\n"))
	if err != nil || sent.ExitCode != 0 {
		s.t.Fatalf("send to %q: %+v, %v", to, sent, err)
	}
}

func (s stopping) waitQueued(queue, to, reason string) {
	s.t.Helper()
	_, err := s.WaitQueue(s.ctx(), func(q postfixtest.Queued) bool {
		return q.QueueName == queue && q.To(to) && strings.Contains(q.Recipients[0].DelayReason, reason)
	})
	if err != nil {
		s.t.Fatalf("%s in %s: %v", to, queue, err)
	}
}

func (s stopping) waitSink(to string) {
	s.t.Helper()
	if _, err := s.Sink.WaitFor(s.ctx(), to); err != nil {
		s.t.Fatalf("mail to %s: %v", to, err)
	}
}

func (s stopping) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	s.t.Cleanup(cancel)
	return ctx
}

func (s stopping) mainCF() string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.ConfigDir, "main.cf"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s stopping) postconf(args ...string) string {
	s.t.Helper()
	out, err := s.Command(s.t.Context(), "postconf", args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// tarpit is a mail server that takes all and answers no final dot, until
// release is closed. got is told of each message.
func tarpit(t *testing.T) (addr string, got chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	got = make(chan string, 10)
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
						got <- line
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
	return ln.Addr().String(), got
}

func transport(addr string) string {
	return "smtp:[127.0.0.1]" + addr[strings.LastIndexByte(addr, ':'):]
}

// The private Postfix sends inside and outside by the same transport, and has
// a transport table.
func TestStopOutgoingStopsTheOutsideAlone(t *testing.T) {
	addr, got := tarpit(t)
	s := newStopping(t, postfixtest.Options{
		Mailboxes: []string{"taro@example.jp"},
		Files:     map[string]string{"transport": "taro@example.jp virtual:\nexample.net " + transport(addr) + "\n.example.net " + transport(addr) + "\n"},
	})
	before := s.mainCF()
	s.Sink.Refuse("later@example.org", smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}})
	s.send("later@example.org")
	s.waitQueued("deferred", "later@example.org", "later")
	s.send("slow@example.net")
	<-got // and it gets no answer

	out := s.stop()
	if out.Already || !out.Running || out.Ended != 1 || len(out.Failed) > 0 || len(out.Caveats) > 0 {
		t.Errorf("got %+v", out)
	}
	for _, to := range []string{"later@example.org", "slow@example.net"} {
		s.waitQueued("hold", to, "")
	}
	s.send("new@example.org")
	s.send("slow@www.example.net")
	s.send("other@example.jp")
	s.send("taro@example.jp")
	s.send("both@example.org", "third@example.jp")
	s.waitSink("other@example.jp")
	s.waitSink("third@example.jp")
	if _, err := s.WaitMaildir(s.ctx(), "taro@example.jp", 1); err != nil {
		t.Error(err)
	}
	outside := []string{"new@example.org", "slow@www.example.net", "both@example.org"}
	for _, to := range outside {
		s.waitQueued("deferred", to, mta.StopText)
	}
	mark := s.LogMark()
	if _, err := s.Command(t.Context(), "postqueue", "-f"); err != nil {
		t.Fatal(err)
	}
	for range outside {
		if _, err := s.WaitLogAfter(s.ctx(), mark, `status=deferred \(`+mta.StopText); err != nil {
			t.Error(err)
		}
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
		s.waitQueued("hold", to, "")
		if len(s.Sink.To(to)) > 0 {
			t.Errorf("%s got mail", to)
		}
	}
	s.send("last@example.org")
	s.waitQueued("deferred", "last@example.org", mta.StopText)

	started := s.start(false)
	if len(started.Released) != 5 || started.Retried != 1 || len(started.Caveats) > 0 || !started.Running {
		t.Errorf("got %+v", started)
	}
	for _, to := range []string{"new@example.org", "both@example.org", "last@example.org"} {
		s.waitSink(to)
	}
	<-got // slow@example.net
	<-got // slow@www.example.net
	s.waitQueued("deferred", "later@example.org", "")
	if len(s.Sink.To("third@example.jp")) != 1 {
		t.Error("mail to third@example.jp came twice")
	}
	if after := s.mainCF(); after != before {
		t.Errorf("main.cf was\n%s\nand is\n%s", before, after)
	}
	if names, _ := filepath.Glob(filepath.Join(s.ConfigDir, "*stop*")); len(names) > 0 {
		t.Errorf("%q was left", names)
	}
	if status := s.status(); status.Stopped {
		t.Errorf("got status %+v", status)
	}
	if _, err := s.redSwitch().StartOutgoing(t.Context(), time.Now(), false); !errors.Is(err, mta.ErrNotStopped) {
		t.Errorf("started twice: %v", err)
	}
}

func TestStartOutgoingKeepsWhatIsHeld(t *testing.T) {
	s := newStopping(t, postfixtest.Options{})
	s.Sink.Refuse("later@example.org", smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}})
	s.send("later@example.org")
	s.waitQueued("deferred", "later@example.org", "later")
	s.stop()
	if out := s.start(true); len(out.Kept) != 1 || len(out.Released) > 0 {
		t.Errorf("got %+v", out)
	}
	s.waitQueued("hold", "later@example.org", "")
	s.send("new@example.org")
	s.waitSink("new@example.org")
}

// What an admin changed while mail was stopped stays, and is told.
func TestStartOutgoingLeavesWhatOthersChanged(t *testing.T) {
	s := newStopping(t, postfixtest.Options{Main: map[string]string{"sender_dependent_default_transport_maps": "inline:{hanako@example.jp=smtp:}"}})
	want := s.postconf("-n")
	s.stop()
	s.postconf("-e", "default_transport=lmtp:[127.0.0.1]:9", "message_size_limit=4096")
	if status := s.status(); !slices.Equal(status.Missing, []string{"default_transport"}) {
		t.Errorf("got status %+v", status)
	}
	out := s.start(false)
	if len(out.Caveats) != 1 || !strings.Contains(out.Caveats[0], "default_transport") {
		t.Errorf("got %q", out.Caveats)
	}
	s.postconf("-e", "default_transport="+transport(s.Sink.Addr()), "message_size_limit=104857600")
	if got := s.postconf("-n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A change undone by hand is done again, and what came in its place comes back
// in the end.
func TestStopOutgoingRepairs(t *testing.T) {
	s := newStopping(t, postfixtest.Options{})
	s.stop()
	s.postconf("-e", "default_transport=smtp:[127.0.0.1]:9", "transport_maps=")
	s.stop()
	if status := s.status(); len(status.Missing) > 0 {
		t.Errorf("got status %+v", status)
	}
	s.start(false)
	if got := s.postconf("-h", "default_transport"); got != "smtp:[127.0.0.1]:9" {
		t.Errorf("got default_transport %s", got)
	}
	if got := s.postconf("-h", "transport_maps"); got != "" {
		t.Errorf("got transport_maps %s", got)
	}
}

// Whatever point a stop was cut off at: a start gives the settings back, and a
// second stop stops.
func TestStopOutgoingCutShort(t *testing.T) {
	s := newStopping(t, postfixtest.Options{})
	before := s.mainCF()
	s.stop()
	stopped := s.mainCF()
	for name, text := range map[string]string{"before main.cf": before, "after main.cf": stopped} {
		if err := os.WriteFile(filepath.Join(s.ConfigDir, "main.cf"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s.stop()
		if status := s.status(); !status.Stopped || len(status.Missing) > 0 {
			t.Errorf("%s: got status %+v", name, status)
		}
	}
	s.start(false)
	if after := s.postconf("-n"); strings.Contains(after, "relayguard") {
		t.Errorf("got\n%s", after)
	}
}

// What other settings take from default_transport goes on.
func TestStopOutgoingKeepsWhatIsDerived(t *testing.T) {
	s := newStopping(t, postfixtest.Options{
		Inside: []string{"example.jp"},
		Main: map[string]string{
			"virtual_transport": "$default_transport", "transport_maps": "",
			"own":                          "${default_transport}",
			"relay_transport":              "$own",
			"relay_domains":                "relayed.example",
			"smtpd_recipient_restrictions": "permit_mynetworks, reject_unverified_sender",
		},
	})
	before := s.mainCF()
	if out := s.stop(); len(out.Caveats) > 0 {
		t.Errorf("got caveats %q", out.Caveats)
	}
	if got := s.postconf("-xh", "address_verify_default_transport"); got != transport(s.Sink.Addr()) {
		t.Errorf("got address_verify_default_transport %s", got)
	}
	for _, to := range []string{"a@example.jp", "b@relayed.example", "c@below.relayed.example"} {
		s.send(to)
		s.waitSink(to)
	}
	s.send("new@example.org")
	s.waitQueued("deferred", "new@example.org", mta.StopText)
	s.start(false)
	s.waitSink("new@example.org")
	if after := s.mainCF(); after != before {
		t.Errorf("main.cf was\n%s\nand is\n%s", before, after)
	}
}

// Where domains of ours cannot be listed, nothing of theirs is held.
func TestStopOutgoingWithDomainsThatCannotBeListed(t *testing.T) {
	s := newStopping(t, postfixtest.Options{
		Main: map[string]string{"virtual_mailbox_domains": "regexp:$config_directory/domains", "transport_maps": ""},
		Files: map[string]string{
			"domains": "/^inside[0-9]+\\.example$/ ok\n",
		},
	})
	refusal := smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}}
	for _, to := range []string{"a@inside1.example", "later@example.org"} {
		s.Sink.Refuse(to, refusal)
		s.send(to)
		s.waitQueued("deferred", to, "later")
	}
	if out := s.stop(); len(out.Held) > 0 {
		t.Errorf("got %+v", out)
	}
	s.send("b@inside2.example")
	s.waitSink("b@inside2.example")
	s.send("new@example.org")
	s.waitQueued("deferred", "new@example.org", mta.StopText)
	s.waitQueued("deferred", "a@inside1.example", "later")
	if out := s.stop(); len(out.Held) != 1 {
		t.Errorf("got %+v", out)
	}
	s.start(false)
	s.waitSink("new@example.org")
}

func TestStopOutgoingTellsWhatItDoesNotReach(t *testing.T) {
	s := newStopping(t, postfixtest.Options{
		Main: map[string]string{
			"virtual_mailbox_domains": "regexp:$config_directory/domains",
			"content_filter":          "smtp:[filter.example.net]:10025",
		},
		Files:  map[string]string{"domains": "/^inside[0-9]+\\.example$/ ok\n"},
		Master: []string{"second unix - - y - - trivial-rewrite", "  -o default_transport=smtp"},
	})
	var all string
	for _, c := range s.stop().Caveats {
		all += c + "\n"
	}
	for _, want := range []string{"second/unix", "filter.example.net", "regexp:"} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing of %s in %q", want, all)
		}
	}
}

func TestStopOutgoingWhilePostfixIsDown(t *testing.T) {
	s := newStopping(t, postfixtest.Options{})
	s.Sink.Refuse("later@example.org", smtptest.Reply{Code: 451, Lines: []string{"4.3.0 later"}})
	s.send("later@example.org")
	s.waitQueued("deferred", "later@example.org", "later")
	if err := s.StopMaster(); err != nil {
		t.Fatal(err)
	}
	if out := s.stop(); out.Running || len(out.Held) != 1 {
		t.Errorf("got %+v", out)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.send("new@example.org")
	s.waitQueued("deferred", "new@example.org", mta.StopText)
}

func TestRedSwitchTrustsNobodysState(t *testing.T) {
	s := newStopping(t, postfixtest.Options{})
	s.stop()
	path := filepath.Join(s.stateDir, "stopped.json")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	if err := os.Chown(path, 33, 33); err != nil {
		t.Fatal(err)
	}
	if _, err := s.redSwitch().StartOutgoing(t.Context(), time.Now(), false); !errors.Is(err, backup.ErrUntrusted) {
		t.Errorf("got %v", err)
	}
	if err := os.Chown(path, 0, 0); err != nil {
		t.Fatal(err)
	}
	other := s.redSwitch()
	other.Instance.ConfigDir = "/etc/postfix"
	if _, err := other.OutgoingStopped(t.Context()); err == nil {
		t.Error("another instance's state was taken")
	}
	s.start(false)
}

// Two at a time do not get into each other's way.
func TestStopOutgoingTwiceAtOnce(t *testing.T) {
	s := newStopping(t, postfixtest.Options{})
	before := s.mainCF()
	errs := make(chan error)
	for range 2 {
		go func() {
			_, err := s.redSwitch().StopOutgoing(t.Context(), time.Now())
			errs <- err
		}()
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s.start(false)
	if after := s.mainCF(); after != before {
		t.Errorf("main.cf was\n%s\nand is\n%s", before, after)
	}
}
