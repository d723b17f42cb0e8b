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
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0") // else each command takes a second more
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
	probed := r.Mark()
	code, out, errs := command(t, r, "setup", "postfix", "--smtp", "relay", "--apply", "--backups", backups)
	if code != 0 || !strings.Contains(errs, "asks the guard") {
		t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
	}
	wantProbe(t, r, probed)
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

// wantProbe wants a local message judged, and nothing of it left.
func wantProbe(t *testing.T, r *relay.Relay, mark int) {
	t.Helper()
	v, err := r.WaitVerdict(soon(t), mark, func(l relay.Line) bool { return l.Listener == "local" })
	if err != nil || v.Account != "local_user:root" || v.MailFrom != "" {
		t.Errorf("the guard judged no local probe message: %s, %v", v.Raw, err)
	}
	wantUntouched(t, r)
	if checks, err := os.ReadFile(filepath.Join(r.ConfigDir, "relayguard-uid.regexp")); err != nil || strings.Contains(string(checks), "HOLD") {
		t.Errorf("header checks after the probe: %v\n%s", err, checks)
	}
}

func wantUntouched(t *testing.T, r *relay.Relay) {
	t.Helper()
	if queue, err := r.QueueList(soon(t)); err != nil || len(queue) > 0 {
		t.Errorf("left in the queue: %+v, %v", queue, err)
	}
	if mail := r.Sink.All(); len(mail) > 0 {
		t.Errorf("delivered: %+v", mail)
	}
}

// Without --smtp nothing but local mail is attached here: only a message shows
// whether that works.
func TestSetupProbesLocalMail(t *testing.T) {
	r := startDetached(t)
	before, backups := mainCF(t, r), filepath.Join(r.Dir, "backups")
	mark := r.Mark()
	if code, out, errs := command(t, r, "setup", "postfix", "--apply", "--backups", backups); code != 0 || !strings.Contains(errs, "asks the guard") {
		t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
	}
	wantProbe(t, r, mark)
	if code, _, errs := command(t, r, "setup", "postfix", "--undo", "--backups", backups); code != 0 {
		t.Fatalf("undo: exit %d, %s", code, errs)
	}
	if err := r.StopGuard(os.Kill); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, r, "setup", "postfix", "--apply", "--backups", backups); code != 3 || !strings.Contains(errs, "does not find the guard for local mail") || !strings.Contains(errs, "old settings are back") {
		t.Errorf("apply without guard: exit %d, %s", code, errs)
	}
	if after := mainCF(t, r); after != before {
		t.Errorf("main.cf is now\n%s", after)
	}
	wantUntouched(t, r)
}

// What Postfix calls itself stands in the Received line that tells the uid.
func TestSetupShowsTheUIDWhateverPostfixIsCalled(t *testing.T) {
	r := startRelay(t, relay.Options{
		Config: "[local]\ndaemon_name = \"CRON-AND-PHP\"\n",
		Postfix: postfixtest.Options{
			Services: []postfixtest.Service{{Name: "smtp"}},
			Local:    postfixtest.Local{Milters: []string{"inet:127.0.0.1:9"}},
			Main:     map[string]string{"non_smtpd_milters": "", "mail_name": "Mail of ours"},
		},
	})
	if code, out, errs := command(t, r, "setup", "postfix", "--smtp", "relay", "--apply", "--backups", filepath.Join(r.Dir, "backups")); code != 0 {
		t.Fatalf("apply: exit %d\n%s%s", code, out, errs)
	}
	if code, out, _ := command(t, r, "check"); code != 0 {
		t.Errorf("check: exit %d\n%s", code, out)
	}
	mark := r.Mark()
	sendmail(t, r.Postfix, www, letter("named", "X-Relayguard-Uid: 0", "From: shop@example.jp"), "-f", "shop@example.jp", "named@example.net")
	if v, err := r.WaitVerdict(soon(t), mark, func(relay.Line) bool { return true }); err != nil || v.Account != "local_user:www-data" || v.Confidence != "kernel" {
		t.Errorf("verdict %s, %v", v.Raw, err)
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
