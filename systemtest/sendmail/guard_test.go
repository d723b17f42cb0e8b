package sendmail

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/mta/smtptest"
	"relayguard/systemtest/relay"
)

const (
	wwwData  = 33    // many sites share it
	news     = 9     // another Unix account of Debian
	nameless = 54321 // a uid without an account
)

// What sendmail(1) ends with: sysexits.h.
const (
	exFine        = 0
	exUnavailable = 69
)

// start is a Sendmail with a guard.
func start(t *testing.T, o relay.Options) *relay.SendmailRelay {
	t.Helper()
	sendmailtest.Need(t)
	o.Binary = guardBinary
	if o.Sendmail.Users == nil {
		o.Sendmail.Users = map[string]string{"taro@example.jp": "secret"}
	}
	return relay.StartSendmailTest(t, o)
}

// soon bounds a wait for what should happen at once, on a slow machine too.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// greet opens a session with a service and says EHLO.
func greet(t *testing.T, r *relay.SendmailRelay, service string) *smtptest.Client {
	t.Helper()
	c, err := r.Dial(soon(t), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	wantCode(t, "EHLO", 250)(c.Ehlo("client.example.org"))
	return c
}

// loggedIn is greet with AUTH.
func loggedIn(t *testing.T, r *relay.SendmailRelay, service string) *smtptest.Client {
	t.Helper()
	c := greet(t, r, service)
	wantCode(t, "AUTH", 235)(c.Auth("taro@example.jp", "secret"))
	return c
}

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

// letter is a message with a Message-ID of its own.
func letter(id string, fields ...string) string {
	return strings.Join(append(fields, "Message-ID: <"+id+">", "Subject: "+id, "", "Hello", ""), "\n")
}

// hand has sendmail(1) send a letter as an account and returns its exit status.
func hand(t *testing.T, r *relay.SendmailRelay, uid int, message string, args ...string) int {
	t.Helper()
	sent, err := r.Sendmail.Sendmail(soon(t), uid, append([]string{"-oi"}, args...), strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	return sent.ExitCode
}

// handAll hands in a letter that must be taken.
func handAll(t *testing.T, r *relay.SendmailRelay, uid int, message string, args ...string) {
	t.Helper()
	if code := hand(t, r, uid, message, args...); code != exFine {
		t.Errorf("sendmail(1) as uid %d %q ends with %d", uid, args, code)
	}
}

// verdictOn waits for the verdict on the whole message with that Message-ID.
func verdictOn(t *testing.T, r *relay.SendmailRelay, id string) relay.Line {
	t.Helper()
	v, err := r.WaitVerdict(soon(t), 0, func(l relay.Line) bool { return l.Stage == "message" && l.MessageID == "<"+id+">" })
	if err != nil {
		t.Fatalf("verdict on %s: %v", id, err)
	}
	return v
}

func wantVerdict(t *testing.T, r *relay.SendmailRelay, id, verdict, rule, account string) relay.Line {
	t.Helper()
	v := verdictOn(t, r, id)
	if v.Verdict != verdict || v.Rule != rule || v.Account != account {
		t.Errorf("%s: got %s by rule %q for %s, want %s by %q for %s; %s", id, v.Verdict, v.Rule, v.Account, verdict, rule, account, v.Raw)
	}
	return v
}

func wantArrived(t *testing.T, r *relay.SendmailRelay, to string) smtptest.Mail {
	t.Helper()
	mail, err := r.Sink.WaitFor(soon(t), to)
	if err != nil {
		t.Fatal(err)
	}
	return mail
}

// wantNothing checks, once the queue has run empty, that nobody got anything.
func wantNothing(t *testing.T, r *relay.SendmailRelay, to ...string) {
	t.Helper()
	if err := r.WaitEmpty(soon(t)); err != nil {
		t.Fatal(err)
	}
	for _, address := range to {
		if mails := r.Sink.To(address); len(mails) > 0 {
			t.Errorf("%s got %d mails, want none:\n%s", address, len(mails), mails[0].Data)
		}
	}
}

func wantHeld(t *testing.T, r *relay.SendmailRelay, to string) sendmailtest.Queued {
	t.Helper()
	held, err := r.WaitHeld(soon(t), to)
	if err != nil {
		t.Fatal(err)
	}
	wantNothing(t, r, to)
	return held
}

// limit is one on each local user or login.
func limit(name, per, windows, more string) string {
	return fmt.Sprintf("\n[[limit]]\nname = %q\nper = %q\nwindows = [%q]\n%s\n", name, per, windows, more)
}

// tcp is an SMTP client that runs as an account: each line is sent when the one
// before is answered. It returns the answers.
func tcp(t *testing.T, uid int, addr string, lines ...string) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	script := `exec 3<>/dev/tcp/$0/$1; shift; read -r -u 3 a; for l in "$@"; do printf '%s\r\n' "$l" >&3; read -r -u 3 a; printf '%s\n' "$a"; done`
	cmd := exec.CommandContext(soon(t), "/bin/bash", append([]string{"-c", script, host, port}, lines...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &out, "/"
	if err := cmd.Run(); err != nil {
		t.Fatalf("SMTP as uid %d: %v: %s", uid, err, &out)
	}
	return slices.Collect(strings.Lines(out.String()))
}

// transaction is an SMTP session for one letter.
func transaction(from, to, message string) []string {
	return []string{"HELO localhost", "MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA", strings.ReplaceAll(strings.TrimSuffix(message, "\n"), "\n", "\r\n") + "\r\n.", "QUIT"}
}

// run runs a program as an account.
func run(t *testing.T, uid int, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(soon(t), name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s as uid %d: %v: %s", name, uid, err, out)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx := soon(t)
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("it does not come to this: %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
