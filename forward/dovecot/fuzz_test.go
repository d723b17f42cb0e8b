package dovecot_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
)

// FuzzConfig plans a host with any configuration and any passwd-file: it ends
// and nothing is read twice as long as it is.
func FuzzConfig(f *testing.F) {
	cases, err := filepath.Glob("testdata/cases/*.txt")
	if err != nil || len(cases) == 0 {
		f.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		tr := readTree(f, file)
		conf, err := os.ReadFile(filepath.Join(tr.root, "etc/dovecot/dovecot.conf"))
		if err != nil {
			f.Fatal(err)
		}
		users, _ := os.ReadFile(filepath.Join(tr.root, "etc/dovecot/users"))
		f.Add(conf, users)
	}
	f.Add([]byte("!include dovecot.conf\n!include *\nuserdb {\n driver = passwd-file\n args = /etc/dovecot/users\n}\n"), []byte("a:b:c:d:e:f:g:userdb_home=/x\n"))
	dir := f.TempDir()
	mkdir(f, filepath.Join(dir, "etc/dovecot"))
	rooted, err := files.Rooted(dir)
	if err != nil {
		f.Fatal(err)
	}
	h := &forward.Host{Files: rooted, Accounts: []forward.Account{{Name: "a", UID: 1, GID: 1, Home: "/home/a"}}, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	f.Fuzz(func(t *testing.T, conf, users []byte) {
		for name, data := range map[string][]byte{"dovecot.conf": conf, "users": users} {
			if err := os.WriteFile(filepath.Join(dir, "etc/dovecot", name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		p := dovecot.Plan(t.Context(), h, dovecot.Options{})
		if len(p.Gaps) > 10_000 {
			t.Errorf("%d gaps", len(p.Gaps))
		}
		seen := map[string]bool{}
		for _, u := range p.Units {
			if seen[u.ID] {
				t.Errorf("unit %s twice", u.ID)
			}
			seen[u.ID] = true
			for _, path := range u.Paths {
				if path == "" || path[0] != '/' {
					t.Errorf("unit %s: path %q", u.ID, path)
				}
			}
			u.Read(t.Context())
		}
	})
}

// FuzzAnswers plans a host whose doveadm prints anything: nobody gets what is
// another's, and it ends.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("field\tvalue\nuid\t8\nhome\t/x\nuid\t9\nhome\t/y\n"))
	f.Add([]byte("uid\nuid\t\n\nsieve\t/x.sieve\nplugin/sieve_before\t%x\nmail\timapc:x\n"))
	f.Add([]byte("home\t/x\n"))
	root := f.TempDir()
	plant(f, root, map[string]string{"etc/dovecot/dovecot.conf": sqlConf})
	rooted, err := files.Rooted(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		runs := 0
		h := &forward.Host{Files: rooted, Log: slog.New(slog.DiscardHandler), Now: time.Now,
			Run: func(_ context.Context, _ []byte, name string, args ...string) ([]byte, error) {
				switch {
				case name == "doveconf":
					return nil, errors.New("not here")
				case args[3] == "*":
					return []byte("a@x\nb@x\nc@x\n"), nil
				}
				runs++
				return out, nil
			}}
		p := dovecot.Plan(t.Context(), h, dovecot.Options{})
		if runs > 10 {
			t.Errorf("asked %d times", runs)
		}
		for _, u := range p.Units {
			u.Read(t.Context())
		}
	})
}
