package procmail_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/commandline"
)

// need skips a test on a laptop without procmail, and fails it in CI.
func need(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("procmail")
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatalf("real procmail required: %v", err)
	}
	t.Skipf("needs a real procmail: %v", err)
}

// real runs the real procmail as an unprivileged account, with a recorder in
// place of sendmail.
type real struct {
	dir, home, sendmail, log string
	credential               *syscall.Credential
}

func newReal(t testing.TB) *real {
	t.Helper()
	need(t)
	dir, err := os.MkdirTemp("", "procmail")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &real{dir: dir, home: filepath.Join(dir, "home"), sendmail: filepath.Join(dir, "bin/sendmail"), log: filepath.Join(dir, "home/log")}
	for _, sub := range []string{"bin", "home"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// One write for one call: several run at once.
	script := "#!/bin/sh\nall=\nfor a; do all=\"$all$a\x01\"; done\nprintf '%s\\002' \"$all\" >>" + r.log + "\ncat >/dev/null\n"
	r.write(t, r.sendmail, script, 0o755)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		r.credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(r.home, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *real) write(t testing.TB, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 && strings.HasPrefix(name, r.home) {
		if err := os.Chown(name, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
}

// message is what a mail is delivered with.
var messages = []string{
	"From cust@partner.test Thu Jan  1 00:00:00 1970\nFrom: cust@partner.test\nTo: nobody@corp.test\nSubject: match this\n\nbody\n",
	"From cust@partner.test Thu Jan  1 00:00:00 1970\nFrom: cust@partner.test\nTo: nobody@corp.test\nSubject: other\n\nbody\n",
}

// deliver runs an rcfile with all messages, and returns the addresses that
// sendmail was called with.
func (r *real) deliver(t testing.TB, rc string, files map[string]string) []string {
	t.Helper()
	rc = strings.ReplaceAll(rc, "/usr/sbin/sendmail", r.sendmail)
	r.write(t, filepath.Join(r.home, "rc"), rc, 0o600)
	for name, text := range files {
		r.write(t, filepath.Join(r.home, name), strings.ReplaceAll(text, "/usr/sbin/sendmail", r.sendmail), 0o600)
	}
	return r.run(t, filepath.Join(r.home, "rc"))
}

// run runs procmail with all messages.
func (r *real) run(t testing.TB, args ...string) []string {
	t.Helper()
	os.Remove(r.log)
	args = append([]string{"HOME=" + r.home, "MAILDIR=" + r.home, "DEFAULT=/dev/null", "ORGMAIL=/dev/null", "SHELL=/bin/sh",
		"LOGNAME=nobody", "PATH=" + filepath.Dir(r.sendmail) + ":/usr/bin:/bin", "SENDMAIL=" + r.sendmail,
		"TIMEOUT=5", "SUSPEND=1", "NORESRETRY=1", "LOCKSLEEP=1", "LOCKTIMEOUT=2"}, args...)
	for _, message := range messages {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		command := exec.CommandContext(ctx, "procmail", args...)
		command.Dir = r.home
		command.Stdin = strings.NewReader(message)
		command.SysProcAttr = &syscall.SysProcAttr{Credential: r.credential}
		command.WaitDelay = 10 * time.Second // for what procmail does not wait for
		output, err := command.CombinedOutput()
		cancel()
		if err != nil && testing.Verbose() {
			t.Logf("procmail: %v: %s", err, output)
		}
	}
	data, _ := os.ReadFile(r.log)
	var found []string
	for call := range strings.SplitSeq(string(data), "\x02") {
		if call == "" {
			continue
		}
		argv := append([]string{"sendmail"}, strings.Split(strings.TrimSuffix(call, "\x01"), "\x01")...)
		for _, address := range commandline.Argv(argv, commandline.Env{}).Addresses {
			if address != forward.Unknown {
				found = append(found, address)
			}
		}
	}
	return found
}
