package commandline_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/commandline"
)

var known = map[string]string{"SENDMAIL": "/usr/sbin/sendmail", "FLAGS": "-oi", "FWD": "evil@evil.test", "TWO": "a@evil.test b@evil.test", "EMPTY": ""}

func lookup(name string) (string, bool) {
	value, set := known[name]
	return value, set
}

// TestShellCases reads testdata/shell.txt: "$ " a command, then its addresses and
// "harmless"; "?" stands for what is not known.
func TestShellCases(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "shell.txt"))
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split("\n"+string(data), "\n$ ")[1:]
	if len(cases) < 40 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, c := range cases {
		lines := strings.Split(strings.TrimSpace(c), "\n")
		command := strings.ReplaceAll(lines[0], "␤", "\n")
		got := commandline.Shell(command, commandline.Env{Lookup: lookup})
		said := slices.Clone(got.Addresses)
		for n := range said {
			said[n] = strings.ReplaceAll(said[n], forward.Unknown, "?")
		}
		if got.Harmless {
			said = append(said, "harmless")
		}
		if !slices.Equal(said, lines[1:]) && len(said)+len(lines[1:]) > 0 {
			t.Errorf("%s\n got %q\nwant %q", command, said, lines[1:])
		}
	}
}

func FuzzShell(f *testing.F) {
	data, err := os.ReadFile(filepath.Join("testdata", "shell.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range strings.Split("\n"+string(data), "\n$ ")[1:] {
		command, _, _ := strings.Cut(c, "\n")
		f.Add(strings.ReplaceAll(command, "␤", "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := commandline.Shell(text, commandline.Env{Lookup: lookup})
		if len(got.Addresses) > 1000 {
			t.Errorf("%d addresses", len(got.Addresses))
		}
		if got.Harmless && len(got.Addresses) > 0 {
			t.Errorf("harmless, and sends to %q", got.Addresses)
		}
	})
}
