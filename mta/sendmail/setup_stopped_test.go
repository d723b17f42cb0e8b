package sendmail_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/mta/sendmail"
	"relayguard/mta/sendmail/sendmailtest"
	"relayguard/policy"
)

// same expects that the files are what they were.
func (p attached) same(t *testing.T, before map[string]string) {
	t.Helper()
	for file, text := range p.files(t) {
		if text != before[file] {
			t.Errorf("%s was changed:\n%s", file, diff(t, before[file], text))
		}
	}
}

// While outgoing mail is stopped the settings stay as they are: a new sendmail.cf, or
// an old one, would let mail out again.
func TestSetupLeavesTheRedSwitchAlone(t *testing.T) {
	p := startAttached(t, sendmailtest.Options{Services: []sendmailtest.Service{{Name: "smtp"}, {Name: "submit", Auth: true, Modifiers: "a"}}})
	load := func() *sendmail.Instance {
		i, err := sendmail.Load(t.Context(), p.setup.Tools, p.ConfigDir)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	state := filepath.Join(t.TempDir(), "queue")
	stop := func() {
		t.Helper()
		p.Inside(func() {
			if _, err := (sendmail.RedSwitch{Instance: load(), StateDir: state}).StopOutgoing(t.Context(), setupDay); err != nil {
				t.Error(err)
			}
		})
	}
	start := func() {
		t.Helper()
		p.Inside(func() {
			if _, err := (sendmail.RedSwitch{Instance: load(), StateDir: state}).StartOutgoing(t.Context(), setupDay, false); err != nil {
				t.Error(err)
			}
		})
	}
	original := p.files(t)
	stop()
	before := p.files(t)
	if _, err := p.apply(t.Context(), setupDay); !errors.Is(err, sendmail.ErrOutgoingStopped) || errors.Is(err, sendmail.ErrByHand) || !strings.Contains(err.Error(), "relayguard start") {
		t.Errorf("apply: %v", err)
	}
	if err := p.setup.Obstacle(t.Context(), load()); !errors.Is(err, sendmail.ErrOutgoingStopped) {
		t.Errorf("obstacle: %v", err)
	}
	p.same(t, before)
	start()
	if _, err := p.apply(t.Context(), setupDay); err != nil {
		t.Fatal(err)
	}
	stop()
	before = p.files(t)
	for _, force := range []bool{false, true} {
		if _, err := p.undo(t.Context(), force); !errors.Is(err, sendmail.ErrOutgoingStopped) {
			t.Errorf("undo: %v", err)
		}
	}
	p.same(t, before)
	// A make takes the lines out: the next stop puts them back, and start still ends it.
	if err := p.Rebuild(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	if text := p.files(t)["sendmail.cf"]; !strings.Contains(text, "# relayguard stop begins") {
		t.Error("the lines are not back")
	}
	start()
	if _, err := p.undo(t.Context(), true); err != nil {
		t.Error(err)
	}
	if after := p.files(t); after["sendmail.cf"] != original["sendmail.cf"] || after["sendmail.mc"] != original["sendmail.mc"] {
		t.Error("the settings are not as they were")
	}
}

// A switch that is pulled at this moment is waited for.
func TestSetupWaitsForTheRedSwitch(t *testing.T) {
	tr := newMCTree(t, debianMTA, debianMSP)
	before := tr.files(t)
	dir, err := os.Open(tr.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	lock := func(how int) {
		if err := syscall.Flock(int(dir.Fd()), how); err != nil {
			t.Fatal(err)
		}
	}
	lock(syscall.LOCK_EX)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := tr.setup.Apply(ctx, setupDay); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another relayguard") {
		t.Errorf("apply: %v", err)
	}
	sameTexts(t, tr.files(t), before)
	lock(syscall.LOCK_UN)
	if _, err := tr.setup.Apply(t.Context(), setupDay); err != nil {
		t.Fatal(err)
	}
	lock(syscall.LOCK_EX)
	before = tr.files(t)
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := tr.setup.Undo(ctx, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("undo: %v", err)
	}
	sameTexts(t, tr.files(t), before)
}

// Sendmail that ended on the new settings is not up again with the old ones.
func TestSetupSaysThatSendmailIsDown(t *testing.T) {
	p := startAttached(t, sendmailtest.Options{Services: []sendmailtest.Service{{Name: "smtp"}}})
	before := p.files(t)
	cause := errors.New("it does not ask")
	p.setup.SMTP = policy.Relay
	p.setup.Verify = func(context.Context, *sendmail.Instance) error {
		return errors.Join(cause, p.Kill(syscall.SIGKILL))
	}
	_, err := p.apply(t.Context(), setupDay)
	if !errors.Is(err, sendmail.ErrDown) || !errors.Is(err, cause) || !strings.Contains(err.Error(), "the old settings are back") {
		t.Errorf("got %v", err)
	}
	p.same(t, before)
}
