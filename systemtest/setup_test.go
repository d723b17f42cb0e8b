package systemtest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/relay"
)

// command runs relayguard as an admin would.
func command(t *testing.T, r *relay.Relay, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(soon(t), guardBinary, append(args, "--config", r.ConfigPath)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// startDetached is a running guard beside a running Postfix that does not know
// of it yet.
func startDetached(t *testing.T) *relay.Relay {
	t.Helper()
	return startRelay(t, relay.Options{Postfix: postfixtest.Options{
		Services: []postfixtest.Service{{Name: "smtp"}},
		Local:    postfixtest.Local{Milters: []string{"inet:127.0.0.1:9"}},
		Main:     map[string]string{"non_smtpd_milters": ""},
	}})
}

func mainCF(t *testing.T, r *relay.Relay) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.ConfigDir, "main.cf"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestSetupAttachesAndDetachesARunningPostfix(t *testing.T) {
	r := startDetached(t)
	backups := filepath.Join(r.Dir, "backups")
	before := mainCF(t, r)

	if code, out, _ := command(t, r, "setup", "postfix", "--smtp", "relay"); code != 1 || !strings.Contains(out, "smtpd_milters = unix:relayguard/relay.sock") {
		t.Fatalf("plan: exit %d\n%s", code, out)
	}
	code, out, errs := command(t, r, "setup", "postfix", "--smtp", "relay", "--apply", "--backups", backups)
	if code != 0 || !strings.Contains(errs, "asks the guard") {
		t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
	}
	if code, out, errs := command(t, r, "setup", "postfix", "--smtp", "relay", "--apply", "--backups", backups); code != 0 || out != "" || !strings.Contains(errs, "nothing changed") {
		t.Errorf("second apply: exit %d, %q %q", code, out, errs)
	}
	if code, out, _ := command(t, r, "check"); code != 0 {
		t.Errorf("check after apply: exit %d\n%s", code, out)
	}

	mark := r.Mark()
	if sent, err := r.Sendmail(soon(t), 33, []string{"-f", "www-data@example.jp", "a@example.net"}, strings.NewReader("X-Relayguard-Uid: 0\nSubject: hello\n\nWorld\n")); err != nil || sent.ExitCode != 0 {
		t.Fatalf("sendmail: %+v, %v", sent, err)
	}
	v, err := r.WaitVerdict(soon(t), mark, func(relay.Line) bool { return true })
	if err != nil || v.Account != "local_user:www-data" || v.Confidence != "kernel" {
		t.Errorf("local mail after setup: %s, %v", v.Raw, err)
	}
	mail, err := r.Sink.WaitFor(soon(t), "a@example.net")
	if err != nil || strings.Contains(string(mail.Data), "X-Relayguard-Uid") {
		t.Errorf("delivered %q, %v", mail.Data, err)
	}

	if code, _, errs := command(t, r, "setup", "postfix", "--undo", "--backups", backups); code != 0 || !strings.Contains(errs, "old settings are back") {
		t.Fatalf("undo: exit %d, %s", code, errs)
	}
	if after := mainCF(t, r); after != before {
		t.Errorf("main.cf after undo:\n%s\nwant\n%s", after, before)
	}
	if code, out, _ := command(t, r, "check", "--json"); code != 1 || !strings.Contains(out, `"id": "local-unguarded"`) {
		t.Errorf("check after undo: exit %d\n%s", code, out)
	}
}

func TestSetupPutsTheOldSettingsBackWhenTheGuardIsDead(t *testing.T) {
	r := startDetached(t)
	if err := r.StopGuard(os.Kill); err != nil {
		t.Fatal(err)
	}
	before := mainCF(t, r)
	code, _, errs := command(t, r, "setup", "postfix", "--smtp", "relay", "--apply", "--backups", filepath.Join(r.Dir, "backups"))
	if code != 3 || !strings.Contains(errs, "old settings are back") {
		t.Errorf("apply without guard: exit %d, %s", code, errs)
	}
	if after := mainCF(t, r); after != before {
		t.Errorf("main.cf is now\n%s", after)
	}
}
