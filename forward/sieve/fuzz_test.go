package sieve_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/sieve"
)

// FuzzTargets: whatever a script is, text or compiled, reading it ends, within
// the caps, and says the same twice.
func FuzzTargets(f *testing.F) {
	for _, c := range readCases(f) {
		f.Add(c.script)
	}
	files, err := filepath.Glob("testdata/compiled/*.svbin")
	if err != nil || len(files) == 0 {
		f.Fatalf("no compiled cases: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		o := sieve.Options{Include: func(string, bool) ([]byte, error) { return script, nil }}
		r := sieve.Targets(script, o)
		if len(r.Targets) > 20_000 {
			t.Errorf("%d targets", len(r.Targets))
		}
		for _, n := range r.Targets {
			if n.Mode != forward.Copy && n.Mode != forward.Redirect {
				t.Errorf("bad target %+v", n)
			}
			if n.Dynamic != strings.Contains(n.Target, forward.Unknown) {
				t.Errorf("dynamic of %+v", n)
			}
		}
		if again := sieve.Targets(script, o); len(again.Targets) != len(r.Targets) || again.Broken != r.Broken {
			t.Errorf("not the same twice: %+v, %+v", r, again)
		}
	})
}

// FuzzAddress: an address that was read is read again as itself.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"a@b.test", `"a b"@c.test`, "Name <a@b.test>", `"x" <a.b@c(d).test>`, "a@[192.0.2.1]", "a..b.@c.test", "@", "<a@b", "a@b.test."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once, err := sieve.Address(s)
		if err != nil {
			return
		}
		twice, err := sieve.Address(once)
		if err != nil || twice != once {
			t.Errorf("%q is read as %q, and that as %q, %v", s, once, twice, err)
		}
	})
}
