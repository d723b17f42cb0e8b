package aliases_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/forward/aliases"
	"relayguard/mta/postfix/postfixtest"
)

// postalias compiles a text with the real program and lists what came of it.
func postalias(t *testing.T, text []byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"main.cf": []byte("compatibility_level = 3.6\n"), "master.cf": nil, "aliases": text,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// postalias does not trust a text of this very second.
	past := time.Now().Add(-time.Minute)
	if err := os.Chtimes(filepath.Join(dir, "aliases"), past, past); err != nil {
		t.Fatal(err)
	}
	table := "hash:" + filepath.Join(dir, "aliases")
	if out, err := exec.Command("postalias", "-c", dir, table).CombinedOutput(); err != nil {
		t.Fatalf("postalias: %v: %s", err, out)
	}
	out, err := exec.Command("postalias", "-c", dir, "-s", table).Output()
	if err != nil {
		t.Fatalf("postalias -s: %v", err)
	}
	stored := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		if key != "YP_LAST_MODIFIED" && key != "YP_MASTER_NAME" && key != "@" {
			stored[key] = value
		}
	}
	return stored
}

// parsed is what ParseFile makes of it; of equal keys the first counts.
func parsed(text []byte) map[string]string {
	entries := map[string]string{}
	for _, entry := range aliases.ParseFile(text, false) {
		if _, twice := entries[entry.Key]; !twice && (entry.Broken == "" || entry.Value == "" && strings.Contains(entry.Broken, "empty")) {
			entries[entry.Key] = entry.Value
		}
	}
	return entries
}

func compare(t *testing.T, text []byte) {
	t.Helper()
	want, got := postalias(t, text), parsed(text)
	for key, value := range want {
		if have, ok := got[key]; !ok || have != value {
			t.Errorf("%q: got %q (%t), postalias stores %q", key, have, ok, value)
		}
	}
	for key, value := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%q: got %q, postalias does not store it", key, value)
		}
	}
}

func TestParseFileAsPostaliasDoes(t *testing.T) {
	postfixtest.Need(t)
	files, err := filepath.Glob("testdata/texts/*.aliases")
	if err != nil || len(files) == 0 {
		t.Fatalf("no texts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel() // postalias waits a second or two for its table to be old
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, text)
		})
	}
}

// TestParseFileAsPostaliasDoesOnNoise compares 3,000 right sides made of the
// octets that mean something.
func TestParseFileAsPostaliasDoesOnNoise(t *testing.T) {
	postfixtest.Need(t)
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "b", " ", "\t", "\\", "\"", "(", ")", "<", ">", "@", ",", ";", ":", ".", "[", "]", "%", "!", "|",
		"/", "#", "+", "=", "evil.test", "\n ", "\n#x\n ", "\r", "\v", "\f", "\x01", "ü", "~", "'"}
	var text bytes.Buffer
	for n := range 3000 {
		fmt.Fprintf(&text, "k%d: ", n)
		for range 1 + random.IntN(12) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		text.WriteString("\n")
	}
	compare(t, text.Bytes())
}
