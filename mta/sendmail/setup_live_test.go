package sendmail_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"
	"relayguard/mta/probe"
	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/policy"
)

var setupDay = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// attached is a real Sendmail whose guard is a guardStub.
type attached struct {
	*sendmailtest.Sendmail
	guard map[policy.Role]*guardStub
	setup sendmail.Setup
}

func startAttached(t *testing.T, options sendmailtest.Options) attached {
	t.Helper()
	s := sendmailtest.StartTest(t, options)
	p := attached{Sendmail: s, guard: map[policy.Role]*guardStub{}}
	p.setup = sendmail.Setup{Tools: sendmail.Tools{Dir: filepath.Join(s.Dir, "bin")}, ConfigDir: s.ConfigDir,
		SMTP: policy.Relay, LocalPort: unusedPort(t), Backups: filepath.Join(s.Dir, "backups")}
	for _, role := range []policy.Role{policy.Submission, policy.Local, policy.Relay, policy.Inbound} {
		path := s.MilterSocket(role.String())
		p.guard[role] = startGuardStub(t, path, role == policy.Submission)
		p.setup.Listeners = append(p.setup.Listeners, mta.Listener{Role: role, Network: "unix", Address: path})
	}
	p.setup.Verify = p.setup.VerifyBySMTP(probe.SMTP{})
	return p
}

// apply runs where Sendmail lives.
func (p attached) apply(ctx context.Context, now time.Time) (out sendmail.Outcome, err error) {
	p.Inside(func() { out, err = p.setup.Apply(ctx, now) })
	return out, err
}

func (p attached) undo(ctx context.Context, force bool) (out sendmail.Outcome, err error) {
	p.Inside(func() { out, err = p.setup.Undo(ctx, force) })
	return out, err
}

func (p attached) files(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{"sendmail.mc", "sendmail.cf", "submit.mc", "submit.cf"} {
		text, err := os.ReadFile(filepath.Join(p.ConfigDir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	return files
}

// await waits until a service greets: after SIGHUP nobody listens for a moment.
func (p attached) await(t *testing.T, service string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := p.Dial(t.Context(), service)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func unusedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	n, _ := strconv.Atoi(port)
	return n
}

func TestSetupAttachesARunningSendmail(t *testing.T) {
	for name, options := range map[string]sendmailtest.Options{
		"service for sendmail(1)": {Services: []sendmailtest.Service{{Name: "smtp"}, {Name: "submit", Auth: true, Modifiers: "a"}}},
		"no service of its own":   {SubmitTo: "submit", Services: []sendmailtest.Service{{Name: "smtp"}, {Name: "submit", Auth: true, Modifiers: "a"}}},
		"attached by hand":        {Services: []sendmailtest.Service{{Name: "smtp", Milters: []string{"relay"}}, {Name: "submit", Auth: true, Modifiers: "a"}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := startAttached(t, options)
			before := p.files(t)
			out, err := p.apply(t.Context(), setupDay)
			if err != nil {
				t.Fatal(err)
			}
			if !out.Running || !out.Verified || len(out.Changed) == 0 {
				t.Errorf("got %+v", out)
			}
			after := p.files(t)
			for _, f := range p.inspect(t) {
				if f.Severity > mta.Info && f.ID != "local-port" {
					t.Errorf("found %s %s %s: %s", f.ID, f.Severity, f.Where, f.What)
				}
			}
			if out, err := p.apply(t.Context(), setupDay.Add(time.Hour)); err != nil || len(out.Changed) > 0 {
				t.Errorf("second time: got %v, %v", out.Changed, err)
			}
			for file, text := range p.files(t) {
				if text != after[file] {
					t.Errorf("%s changed with the second time", file)
				}
			}
			sent, err := p.Sendmail.Sendmail(t.Context(), os.Getuid(), []string{"-i", "a@example.net"}, strings.NewReader("Subject: x\n\nhello\n"))
			if err != nil || sent.ExitCode != 0 {
				t.Fatalf("%+v, %v", sent, err)
			}
			if !p.guard[policy.Local].saw("end") {
				t.Errorf("mail from sendmail(1) was not shown to the guard")
			}
			if _, err := p.undo(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			for file, text := range p.files(t) {
				if text != before[file] {
					t.Errorf("%s is not as before", file)
				}
			}
			if _, err := p.undo(t.Context(), false); !errors.Is(err, backup.ErrNone) {
				t.Errorf("second undo: %v", err)
			}
		})
	}
}

func TestSetupPutsBackWhatDoesNotWork(t *testing.T) {
	p := startAttached(t, sendmailtest.Options{Services: []sendmailtest.Service{{Name: "smtp"}}})
	before := p.files(t)
	for n := range p.setup.Listeners {
		p.setup.Listeners[n].Address += ".away"
	}
	verify := p.setup.VerifyBySMTP(probe.SMTP{})
	p.setup.Verify = func(ctx context.Context, i *sendmail.Instance) error { // of all that is done this alone is not to succeed
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return verify(ctx, i)
	}
	if _, err := p.apply(t.Context(), setupDay); err == nil || !strings.Contains(err.Error(), "old settings are back") {
		t.Errorf("got %v", err)
	}
	for file, text := range p.files(t) {
		if text != before[file] {
			t.Errorf("%s is not as before", file)
		}
	}
	p.await(t, "smtp")
}
func (p attached) inspect(t *testing.T) (found []mta.Finding) {
	t.Helper()
	i, err := sendmail.Load(t.Context(), p.setup.Tools, p.ConfigDir)
	if err != nil {
		t.Fatal(err)
	}
	p.Inside(func() {
		found = sendmail.Inspect(t.Context(), sendmail.Inspection{Instance: i, Listeners: p.setup.Listeners, Probe: sendmail.RulesProbe{Tools: p.setup.Tools}})
	})
	return found
}
