// Package systemtest holds the tests of the whole over real servers: a
// private Postfix, Dovecot and the guard as users run them. They need root
// and Debian's packages; make test-postfix runs them.
package systemtest

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/mta/smtptest"
)

// The private Postfix itself, without any milter: what the other tests of
// this package stand on.

func TestHarnessAuth(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Users:    map[string]string{"taro@example.jp": "secret"},
		Services: []postfixtest.Service{{Name: "submission", Auth: true, TLS: true}},
	})
	client := greet(t, p, "submission")
	wantCode(t, "wrong password", 535)(client.Auth("taro@example.jp", "wrong"))
	wantCode(t, "unknown login", 535)(client.Auth("nobody@example.jp", "secret"))
	wantCode(t, "right password", 235)(client.Auth("taro@example.jp", "secret"))

	sent, err := client.Send("taro@example.jp", []string{"a@example.net", "b@example.jp"}, "Subject: hello\n\nWorld\n")
	if err != nil || !sent.Accepted() {
		t.Fatalf("send: %+v, %v", sent, err)
	}
	for _, to := range []string{"a@example.net", "b@example.jp"} {
		mail, err := p.Sink.WaitFor(soon(t), to)
		if err != nil {
			t.Fatal(err)
		}
		if mail.MailFrom != "taro@example.jp" || !strings.Contains(string(mail.Data), "\r\n\r\nWorld\r\n") {
			t.Errorf("to %s arrived %+v", to, mail)
		}
	}
	if _, err := p.WaitLog(soon(t), `postfix/submission/smtpd\[\d+\]: \w+: client=localhost\[127\.0\.0\.1\]:\d+, sasl_method=PLAIN, sasl_username=taro@example\.jp`); err != nil {
		t.Error(err)
	}
}

func TestHarnessMaildir(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Mailboxes: []string{"hanako@example.jp"},
		Services:  []postfixtest.Service{{Name: "inbound"}},
	})
	client := greet(t, p, "inbound")
	if sent, err := client.Send("x@example.org", []string{"hanako@example.jp"}, "Subject: hello\n\nWorld\n"); err != nil || !sent.Accepted() {
		t.Fatalf("send: %+v, %v", sent, err)
	}
	messages, err := p.WaitMaildir(soon(t), "hanako@example.jp", 1)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(messages[0], "\n\nWorld\n") || !strings.Contains(messages[0], "Delivered-To: hanako@example.jp\n") {
		t.Errorf("delivered %q", messages[0])
	}
}

func TestHarnessSendmail(t *testing.T) {
	for _, test := range []struct {
		name  string
		local postfixtest.Local
	}{
		{"plain", postfixtest.Local{}},
		{"uid shown", postfixtest.Local{ShowUID: true, DaemonName: "LOCAL-PICKUP"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := postfixtest.StartTest(t, postfixtest.Options{Local: test.local})
			const uid = 33
			message := "Subject: hello\nX-Relayguard-Uid: 0\n\nWorld\n"
			sent, err := p.Sendmail(soon(t), uid, []string{"-f", "www@example.jp", "a@example.net"}, strings.NewReader(message))
			if err != nil || sent.ExitCode != 0 {
				t.Fatalf("sendmail: %+v, %v", sent, err)
			}
			if _, err := p.WaitLog(soon(t), `pickup\[\d+\]: \w+: uid=33 from=<www@example\.jp>`); err != nil {
				t.Error(err)
			}
			mail, err := p.Sink.WaitFor(soon(t), "a@example.net")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(mail.Data), postfixtest.UIDHeader) {
				t.Errorf("the uid left the house: %q", mail.Data)
			}
		})
	}
}

func TestHarnessTrueUIDComesFirst(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Local: postfixtest.Local{ShowUID: true},
		Main:  map[string]string{"smtp_header_checks": ""}, // leave it on, to be seen
	})
	message := "X-Relayguard-Uid: 0\nReceived: by relay.example.jp (Postfix, from userid 1)\n\tid X; date\n" +
		"Subject: hello\nX-Relayguard-Uid: 2\n\nWorld\n"
	if sent, err := p.Sendmail(soon(t), 33, []string{"a@example.net"}, strings.NewReader(message)); err != nil || sent.ExitCode != 0 {
		t.Fatalf("sendmail: %+v, %v", sent, err)
	}
	mail, err := p.Sink.WaitFor(soon(t), "a@example.net")
	if err != nil {
		t.Fatal(err)
	}
	var shown []string
	for line := range strings.Lines(string(mail.Data)) {
		if uid, ok := strings.CutPrefix(line, postfixtest.UIDHeader+": "); ok {
			shown = append(shown, strings.TrimSpace(uid))
		}
	}
	if len(shown) != 2 || shown[0] != "33" {
		t.Errorf("uids shown %q: want the true one, 33, then what a forged Received line says; message:\n%s", shown, mail.Data)
	}
}

func TestHarnessXClient(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Services: []postfixtest.Service{{Name: "xclient", XClient: true}, {Name: "inbound"}},
	})
	client := greet(t, p, "xclient")
	wantCode(t, "XCLIENT", 220)(client.XClient("ADDR=203.0.113.7", "NAME=[UNAVAILABLE]"))
	wantCode(t, "EHLO", 250)(client.Ehlo("stranger.example.org"))
	wantCode(t, "MAIL", 250)(client.Mail("x@example.org"))
	wantCode(t, "RCPT outside", 554)(client.Rcpt("a@example.net"))
	wantCode(t, "RCPT inside", 250)(client.Rcpt("a@example.jp"))
	if reply, err := greet(t, p, "inbound").XClient("ADDR=203.0.113.7"); err != nil || reply.Positive() {
		t.Errorf("XCLIENT without leave: %v, %v", reply, err)
	}
}

func TestHarnessClientCertificate(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Services: []postfixtest.Service{{Name: "partners", AskClientCert: true}},
	})
	config, err := p.CA.ClientConfig("web1.example.jp")
	if err != nil {
		t.Fatal(err)
	}
	client := greet(t, p, "partners")
	wantCode(t, "STARTTLS", 220)(client.StartTLS(config))
	wantCode(t, "EHLO", 250)(client.Ehlo("web1.example.jp"))
	if _, err := p.WaitLog(soon(t), `Trusted TLS connection established from localhost`); err != nil {
		t.Error(err)
	}
	stranger, err := postfixtest.NewAuthority("somebody else")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := stranger.ClientConfig("web1.example.jp")
	if err != nil {
		t.Fatal(err)
	}
	forged.RootCAs = p.CA.Pool()
	wantCode(t, "STARTTLS", 220)(greet(t, p, "partners").StartTLS(forged))
	if _, err := p.WaitLog(soon(t), `Untrusted TLS connection established from localhost`); err != nil {
		t.Error(err)
	}
}

func TestHarnessHeldAndReleased(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{
		Services: []postfixtest.Service{{Name: "inbound"}},
		Main:     map[string]string{"smtpd_data_restrictions": "check_sender_access static:HOLD"},
	})
	if sent, err := greet(t, p, "inbound").Send("x@example.org", []string{"a@example.jp"}, "x\n"); err != nil || !sent.Accepted() {
		t.Fatalf("send: %+v, %v", sent, err)
	}
	held, err := p.WaitHeld(soon(t), "a@example.jp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Command(soon(t), "postsuper", "-H", held.QueueID); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Command(soon(t), "postqueue", "-i", held.QueueID); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Sink.WaitFor(soon(t), "a@example.jp"); err != nil {
		t.Fatal(err)
	}
	if err := p.WaitEmpty(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestHarnessReloadRestart(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{Services: []postfixtest.Service{{Name: "inbound"}}})
	if err := p.SetMain(soon(t), map[string]string{"smtpd_banner": "changed.example.jp ESMTP"}); err != nil {
		t.Fatal(err)
	}
	if client := greet(t, p, "inbound"); !strings.HasPrefix(client.Greeting.Text(), "changed.example.jp") {
		t.Errorf("banner after reload: %v", client.Greeting)
	}
	if err := p.Restart(soon(t)); err != nil {
		t.Fatal(err)
	}
	greet(t, p, "inbound")
}

func TestHarnessSaysThatAPortIsTaken(t *testing.T) {
	p := postfixtest.StartTest(t, postfixtest.Options{Services: []postfixtest.Service{{Name: "inbound"}}})
	if err := p.StopMaster(); err != nil {
		t.Fatal(err)
	}
	thief, err := net.Listen("tcp", p.Addr("inbound"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Restart(soon(t)); err == nil || !strings.Contains(err.Error(), "taken by somebody else") {
		t.Errorf("restart on a taken port: %v", err)
	}
	thief.Close()
	if err := p.Restart(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestHarnessLeavesNothing(t *testing.T) {
	postfixtest.Need(t)
	p, err := postfixtest.Start(t.Context(), postfixtest.Options{
		Users:    map[string]string{"taro@example.jp": "secret"},
		Services: []postfixtest.Service{{Name: "submission", Auth: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	greet(t, p, "submission") // smtpd runs
	if len(p.Pids()) < 4 {
		t.Errorf("processes %v: want master, smtpd, dovecot and its auth at least", p.Pids())
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if left := p.Pids(); len(left) != 0 {
		t.Errorf("processes left: %v", left)
	}
}

func TestHarnessSideBySide(t *testing.T) {
	postfixtest.Need(t)
	for _, name := range []string{"one", "two", "three"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := postfixtest.StartTest(t, postfixtest.Options{Services: []postfixtest.Service{{Name: "inbound"}}})
			if sent, err := greet(t, p, "inbound").Send("", []string{name + "@example.jp"}, "x\n"); err != nil || !sent.Accepted() {
				t.Fatalf("send: %+v, %v", sent, err)
			}
			if _, err := p.Sink.WaitFor(soon(t), name+"@example.jp"); err != nil {
				t.Error(err)
			}
		})
	}
}

// soon bounds a wait for what should happen at once, on a slow machine too.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// greet opens a session with a service and says EHLO.
func greet(t *testing.T, p *postfixtest.Postfix, service string) *smtptest.Client {
	t.Helper()
	client, err := p.Dial(soon(t), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	wantCode(t, "EHLO", 250)(client.Ehlo("client.example.org"))
	return client
}

// wantCode checks the code of a reply.
func wantCode(t *testing.T, what string, code int) func(smtptest.Reply, error) {
	t.Helper()
	return func(reply smtptest.Reply, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if reply.Code != code {
			t.Errorf("%s: got %v, want %d", what, reply, code)
		}
	}
}
