package dbfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward/dbfile"
)

// lines has entries as "postmap -s" prints them, in order: that of the file is
// the format's own business.
func lines(entries []dbfile.Entry) []string {
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.Key + "\t" + e.Value
	}
	slices.Sort(list)
	return list
}

func wantLines(text string) []string {
	list := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if text == "" {
		list = nil
	}
	slices.Sort(list)
	return list
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("got %d entries, want %d", len(got), len(want))
	shown := 0
	for i := 0; i < max(len(got), len(want)) && shown < 5; i++ {
		g, w := "(none)", "(none)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("entry %d:\n got %.200q\nwant %.200q", i, g, w)
			shown++
		}
	}
}

// Each fixture is a file that Postfix 3.7.11 (or DB_File for several values of
// a key) made, with its listing in NAME.want.
func TestFixtures(t *testing.T) {
	wants, err := filepath.Glob("testdata/fixtures/*.want")
	if err != nil || len(wants) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, want := range wants {
		name := strings.TrimSuffix(want, ".want")
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := readFile(t, name)
			entries, err := dbfile.Read(name, data)
			if err != nil {
				t.Fatal(err)
			}
			same(t, lines(entries), wantLines(string(readFile(t, want))))
		})
	}
}

func TestCutAndChangedFixturesNeverPanic(t *testing.T) {
	for _, name := range fixtures(t) {
		data := readFile(t, name)
		for _, n := range []int{0, 1, 511, 512, 2047, 2048, 4095, 4096, len(data) / 2, len(data) - 1} {
			if n >= 0 && n < len(data) {
				_, _ = dbfile.Read(name, data[:n])
			}
		}
		if _, err := dbfile.Read(name, data[:len(data)/2]); err == nil {
			t.Errorf("%s: half of it reads without an error", name)
		}
		for at := 0; at < len(data); at += 1 + len(data)/199 {
			changed := slices.Clone(data)
			changed[at] ^= 0xff
			_, _ = dbfile.Read(name, changed)
		}
	}
}

func TestOtherFilesAreNoTables(t *testing.T) {
	for name, data := range map[string]string{
		"empty": "", "text": strings.Repeat("alice: bob@example.org\n", 400), "zeros": strings.Repeat("\x00", 8192),
		"gdbm": "\xcf\x9aW\x13" + strings.Repeat("\x00", 4092),
	} {
		entries, err := dbfile.Read(name, []byte(data))
		if !errors.Is(err, dbfile.ErrFormat) || len(entries) != 0 || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %d entries, %v, want ErrFormat with its name", name, len(entries), err)
		}
	}
}

func fixtures(t testing.TB) []string {
	t.Helper()
	wants, err := filepath.Glob("testdata/fixtures/*.want")
	if err != nil || len(wants) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	var names []string
	for _, want := range wants {
		names = append(names, strings.TrimSuffix(want, ".want"))
	}
	return names
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func FuzzRead(f *testing.F) {
	for _, name := range fixtures(f) {
		if data := readFile(f, name); len(data) <= 24<<10 { // larger ones take the fuzzer too long
			f.Add(data)
		}
	}
	f.Add([]byte("alice: bob\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		entries, err := dbfile.Read("fuzz", data)
		again, err2 := dbfile.Read("fuzz", data)
		if !slices.Equal(entries, again) || (err == nil) != (err2 == nil) {
			t.Fatal("the same octets read otherwise the second time")
		}
		copied := 0
		for _, e := range entries {
			if strings.Contains(e.Value, "\x00") {
				t.Fatalf("value %q has a NUL", e.Value)
			}
			copied++
		}
		if copied > len(data) {
			t.Fatalf("%d entries out of %d octets", copied, len(data))
		}
	})
}

func BenchmarkRead(b *testing.B) {
	for _, name := range fixtures(b) {
		data := readFile(b, name)
		b.Run(filepath.Base(name), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				_, _ = dbfile.Read(name, data)
			}
		})
	}
}
