package tables_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/tables"
	mta "relayguard/mta/postfix"
)

var update = flag.Bool("update", false, "write what is found into testdata/cases")

// A case is a file: settings ("table", "aliases", "known"), then the files of a
// copied disk, then what is to be found. A file "NAME (compiled)" has the entries
// of a compiled table.
func TestCases(t *testing.T) {
	names, err := filepath.Glob("testdata/cases/*.case")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".case"), func(t *testing.T) {
			c := readCase(t, name)
			got := describe(c.reader.List(t.Context(), c.table))
			if *update {
				writeCase(t, name, got)
			} else if got != c.want {
				t.Errorf("%s\n got:\n%s\nwant:\n%s", c.table, got, c.want)
			}
		})
	}
}

type tableCase struct {
	table  mta.Table
	reader tables.Reader
	want   string
}

func readCase(t *testing.T, name string) tableCase {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	files := memory{}
	c := tableCase{reader: tables.Reader{Host: &forward.Host{Files: files}}}
	section, compiled := "", false
	parts := map[string]*strings.Builder{"": {}}
	for line := range strings.Lines(string(data)) {
		if head, found := strings.CutPrefix(line, "-- "); found {
			section, compiled = strings.CutSuffix(strings.TrimSuffix(strings.TrimSpace(head), " --"), " (compiled)")
			if compiled {
				section += "\x00"
			}
			parts[section] = &strings.Builder{}
			continue
		}
		parts[section].WriteString(line)
	}
	for name, text := range parts {
		switch file, compiled := strings.CutSuffix(name, "\x00"); {
		case name == "":
			c.settings(t, text.String())
		case name == "want":
			c.want = text.String()
		case compiled:
			files[file] = compile(text.String())
		default:
			files[file] = strings.TrimSuffix(text.String(), "(no newline)\n")
			if s := text.String(); strings.HasPrefix(s, "-> ") || s == "!\n" {
				files[file] = strings.TrimSuffix(s, "\n")
			}
		}
	}
	return c
}

func (c *tableCase) settings(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "table":
			var err error
			if c.table, err = mta.ParseTable(rest); err != nil {
				t.Fatal(err)
			}
		case "aliases":
			c.reader.Aliases = true
		case "known":
			c.reader.Known = func() []string { return strings.Fields(rest) }
		case "database":
			c.reader.Databases = fixedRows(strings.Fields(rest))
		case "#", "":
		default:
			t.Fatalf("unknown setting %q", line)
		}
	}
}

func writeCase(t *testing.T, name, got string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(data), "-- want --\n")
	if err := os.WriteFile(name, []byte(head+"-- want --\n"+got), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fixedRows is a database that has rows "key=value"; "!" fails.
type fixedRows []string

func (f fixedRows) List(_ context.Context, kind, cf string) ([]tables.Pair, error) {
	var pairs []tables.Pair
	for _, row := range f {
		if row == "!" {
			return pairs, errors.New("connect: refused")
		}
		key, value, _ := strings.Cut(row, "=")
		pairs = append(pairs, tables.Pair{Key: key, Value: value})
	}
	return pairs, nil
}

// describe has one line an entry, in order.
func describe(l tables.Listing) string {
	var b strings.Builder
	for _, e := range l.Entries {
		fmt.Fprintf(&b, "%s => %s  [%s:%d]", e.Key, strings.ReplaceAll(e.Value, forward.Unknown, "<?>"), e.Source, e.Line)
		if e.Pattern {
			b.WriteString(" pattern")
		}
		if e.Dynamic {
			b.WriteString(" dynamic")
		}
		if e.Differs != "" {
			b.WriteString(" DIFFERS: " + e.Differs)
		}
		if e.Dormant != "" {
			b.WriteString(" DORMANT: " + e.Dormant)
		}
		b.WriteByte('\n')
	}
	for _, g := range l.Gaps {
		fmt.Fprintf(&b, "gap %s: %s\n", g.Source, g.Why)
	}
	if l.Opaque {
		b.WriteString("opaque")
		if l.Digest != "" {
			b.WriteString(" " + l.Digest[:8])
		}
		b.WriteByte('\n')
	}
	if l.Poll {
		b.WriteString("poll\n")
	}
	fmt.Fprintf(&b, "paths %s\nwriter %d\n", strings.Join(l.Paths, " "), l.Writer)
	return b.String()
}

func TestAGapAndNoPanicWithoutFiles(t *testing.T) {
	for _, table := range []string{
		"hash:/x", "btree:/x", "lmdb:/x", "cdb:/x", "dbm:/x", "sdbm:/x", "texthash:/x", "regexp:/x", "pcre:/x", "cidr:/x",
		"mysql:/x", "sqlite:/x", "ldap:old", "unix:passwd.byname", "unix:other", "proxy:x", "proxy:hash:/x", "unionmap:{hash:/x}",
		"unionmap:x", "pipemap:{x}", "inline:{x}", "inline:x", "randmap:x", "static:{x", "nis:mail.aliases", "wonder:ful",
	} {
		kind, name, _ := strings.Cut(table, ":")
		r := tables.Reader{Host: &forward.Host{Files: memory{}}}
		l := r.List(t.Context(), mta.Table{Type: kind, Name: name})
		if len(l.Gaps) == 0 && !l.Opaque {
			t.Errorf("%s: nothing is said of it: %+v", table, l)
		}
		if len(l.Entries) > 0 {
			t.Errorf("%s: got %v, want no entries", table, l.Entries)
		}
	}
}

func TestTablesWithinTablesEnd(t *testing.T) {
	name := "hash:/x"
	for range 50 {
		name = "unionmap:{" + name + "}"
	}
	kind, inner, _ := strings.Cut(name, ":")
	r := tables.Reader{Host: &forward.Host{Files: memory{}}}
	if l := r.List(t.Context(), mta.Table{Type: kind, Name: inner}); !l.Opaque || len(l.Gaps) == 0 {
		t.Errorf("got %+v, want it opaque", l)
	}
}

func TestAHundredThousandAliasesCompare(t *testing.T) {
	var text, compiled strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "user%06d:  \\user%06d,box%06d@example.test\n", i, i, i)
		fmt.Fprintf(&compiled, "user%06d\tuser%06d, box%06d@example.test\n", i, i, i)
	}
	compiled.WriteString("planted\tx@evil.test\n")
	files := memory{"/etc/aliases": text.String(), "/etc/aliases.db": compile(compiled.String())}
	r := tables.Reader{Host: &forward.Host{Files: files}, Aliases: true}
	l := r.List(t.Context(), mta.Table{Type: "hash", Name: "/etc/aliases"})
	different := slices.DeleteFunc(slices.Clone(l.Entries), func(e tables.Entry) bool { return e.Differs == "" })
	if len(l.Entries) != 100_001 || len(different) != 1 || different[0].Key != "planted" {
		t.Errorf("got %d entries, %d that differ: %+v", len(l.Entries), len(different), different)
	}
}

func BenchmarkCompare100000(b *testing.B) {
	var text, compiled strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "user%06d:  \\user%06d,box%06d@example.test\n", i, i, i)
		fmt.Fprintf(&compiled, "user%06d\tuser%06d, box%06d@example.test\n", i, i, i)
	}
	files := memory{"/etc/aliases": text.String(), "/etc/aliases.db": compile(compiled.String())}
	r := tables.Reader{Host: &forward.Host{Files: files}, Aliases: true}
	for b.Loop() {
		r.List(b.Context(), mta.Table{Type: "hash", Name: "/etc/aliases"})
	}
}
