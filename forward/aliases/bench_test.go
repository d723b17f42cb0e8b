package aliases_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/forward/files"
)

// BenchmarkHomes reads 1,000 homes, every tenth with a .forward.
func BenchmarkHomes(b *testing.B) {
	dir := b.TempDir()
	host := &forward.Host{Files: files.Local()}
	for n := range 1000 {
		home := filepath.Join(dir, fmt.Sprint("u", n))
		if err := os.Mkdir(home, 0o755); err != nil {
			b.Fatal(err)
		}
		for _, name := range []string{".bashrc", ".profile", "Maildir"} {
			if err := os.WriteFile(filepath.Join(home, name), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
		if n%10 == 0 {
			if err := os.WriteFile(filepath.Join(home, ".forward"), []byte("x@evil.test\n"), 0o644); err != nil {
				b.Fatal(err)
			}
		}
		host.Accounts = append(host.Accounts, forward.Account{Name: fmt.Sprint("u", n), UID: os.Getuid(), GID: os.Getgid(), Home: home})
	}
	for b.Loop() {
		rules := 0
		for _, unit := range aliases.Homes(host, aliases.HomesOptions{ForwardPath: aliases.ForwardPath, Delimiters: "+"}) {
			rules += len(unit.Read(b.Context()).Rules)
		}
		if rules != 100 {
			b.Fatalf("got %d rules", rules)
		}
	}
}

// BenchmarkExpand makes rules of 1,000 plain aliases.
func BenchmarkExpand(b *testing.B) {
	host := &forward.Host{Files: files.Local()}
	for b.Loop() {
		for n := range 1000 {
			reading := aliases.Expand(b.Context(), host, forward.Rule{Owner: fmt.Sprint("a", n)}, "bob, carol@evil.test", nil)
			if len(reading.Rules) != 2 {
				b.Fatal(reading)
			}
		}
	}
}
