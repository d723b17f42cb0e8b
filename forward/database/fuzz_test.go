package database

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// seeds adds the queries, filters and settings of the test cases.
func seeds(f *testing.F, prefix string, add func(string)) {
	f.Helper()
	names, err := filepath.Glob("testdata/*/*.case")
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, n := range names {
		data, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(line, prefix); ok {
				add(strings.TrimSpace(v))
			}
		}
	}
}

func FuzzCF(f *testing.F) {
	f.Add("# x\nquery = SELECT 1\n  FROM t\n# y\n\tWHERE k='%s'\nhosts= a, b\n", "alice@corp.test", "v@x.y")
	f.Add("select_field = v\ntable = t\nwhere_field = k\nresult_format = %U%1%%\n", "a@b.c", "v")
	seeds(f, "result_format = ", func(s string) { f.Add("result_format = "+s+"\nquery=x", "k@a.b", "v@c") })
	f.Fuzz(func(t *testing.T, text, key, value string) {
		s, err := parseCF([]byte(text))
		if err != nil {
			return
		}
		query, err := s.sqlQuery("pgsql")
		if err != nil {
			return
		}
		templates, err := newTemplates(s.or("result_format", "%s"), query)
		if err != nil {
			return
		}
		quoted, asked := templates.query(query, key, func(string) string { return "" })
		if asked && len(quoted) > len(query) {
			t.Errorf("%q grew without a key: %q", query, quoted)
		}
		var a answer
		a.add(templates, value, key, 0)
		_ = list(s["hosts"])
		_ = mysqlHosts(s["hosts"], myOptions{})
		pgTargets(s["hosts"], login{})
	})
}

func FuzzTurn(f *testing.F) {
	kinds := []string{"mysql", "pgsql", "sqlite"}
	seeds(f, "query = ", func(q string) {
		for i := range kinds {
			f.Add(q, uint8(i))
		}
	})
	f.Add("SELECT a FROM b WHERE ((((c = '%s'))))", uint8(3))
	f.Add(strings.Repeat("(", 80)+"SELECT", uint8(0))
	f.Add("SELECT a FROM b WHERE "+strings.Repeat("a='%s' OR b='%u' AND ", 30)+"c=1", uint8(0))
	f.Fuzz(func(t *testing.T, query string, flags uint8) {
		d := dialect{kind: kinds[flags%3], noBackslash: flags&4 != 0, ansiQuotes: flags&8 != 0, pipesConcat: flags&16 != 0}
		turned, err := turn(query, d)
		if len(turned.tables) > maxTables || err != nil {
			return
		}
		if len(turned.ways) == 0 || len(turned.ways) > maxWays {
			t.Errorf("%q: %d ways", query, len(turned.ways))
		}
		for _, w := range turned.ways {
			if len(w.equations) == 0 {
				t.Errorf("%q: no equation in %q", query, w.sql)
			}
			if strings.Contains(outsideQuotes(query), ";") != strings.Contains(outsideQuotes(w.sql), ";") && !strings.Contains(query, ";") {
				t.Errorf("%q became two statements: %q", query, w.sql)
			}
		}
	})
}

func FuzzSolve(f *testing.F) {
	f.Add(markWhole, "alice@corp.test")
	f.Add("x"+markUser+"-"+markDomain+"\x10.\x11y", "xa-b@c.dy")
	f.Add("@"+markDomain, "@corp.test")
	f.Add("\x11.\x10", "corp.test")
	f.Fuzz(func(t *testing.T, pattern, value string) {
		s, ok := solve([]equation{{}}, []string{value, pattern})
		if !ok {
			return
		}
		key, anyUser := s.key()
		if key == "" || anyUser != strings.HasPrefix(key, "@") && s.whole == "" && s.user == "" {
			t.Errorf("%q = %q: key %q, any user %v", pattern, value, key, anyUser)
		}
		_ = put(pattern, key, "?")
	})
}

func FuzzFilter(f *testing.F) {
	seeds(f, "query_filter = ", func(s string) { f.Add(s, "ou=%d,dc=x") })
	f.Add("(&(a=%s)(|(b=%u)(!(c=%d))))", `cn=a\,b,o=%s`)
	f.Add(strings.Repeat("(!", 100), ",,")
	f.Fuzz(func(t *testing.T, text, base string) {
		if _, err := newTemplates("%s", text, base); err != nil {
			return
		}
		openBase(base)
		parsed, err := readFilter(text)
		if err != nil {
			return
		}
		o := parsed.open()
		if strings.Count(o.text, "(") < 1 || o.exact && len(o.assertions) != 1 {
			t.Errorf("%q: %+v", text, o)
		}
	})
}

func FuzzMyCnf(f *testing.F) {
	f.Add("[client]\nuser = a\npassword='b # c'\n!includedir /etc/x\n[other]\nuser=z\n")
	f.Fuzz(func(t *testing.T, text string) {
		var o myOptions
		if n := len(parseMyCnf([]byte(text), []string{"client"}, &o)); n > maxMyFiles {
			t.Errorf("%d includes", n)
		}
	})
}

func FuzzPlainKey(f *testing.F) {
	for _, s := range []string{"alicé@corp.test", "al\u200bice@corp.test", "ALICE@corp.test ", "\xff\xfe@x", "ﬃ@x", strings.Repeat("e\u0301", 50)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := plainKey(s)
		if utf8.ValidString(s) && !utf8.ValidString(p) {
			t.Errorf("%q became %q", s, p)
		}
		if _, ascii := strings.CutPrefix(s, " "); !ascii && plainKey(p) != p && plainKey(plainKey(p)) != plainKey(p) {
			t.Errorf("%q -> %q -> %q: not stable", s, p, plainKey(p))
		}
	})
}

// FuzzSQLite opens whatever bytes as a database, as those of a copied disk are.
func FuzzSQLite(f *testing.F) {
	image, err := os.ReadFile("testdata/sqlite/wal.db")
	if err != nil {
		f.Fatal(err)
	}
	wal, err := os.ReadFile("testdata/sqlite/wal.db-wal")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image, wal)
	f.Add(image, wal[:len(wal)/2])
	f.Add(image[:200], []byte{})
	f.Fuzz(func(t *testing.T, image, wal []byte) {
		out, err := applyWAL(image, wal)
		if err != nil {
			return
		}
		if len(out) > len(image)+len(wal)*2+1<<17 && len(out) > 64<<20+1<<17 {
			t.Errorf("%d and %d octets became %d", len(image), len(wal), len(out))
		}
		s, err := connectSQLite(t.Context(), "file::memory:?_query_only=1", out)
		if err != nil {
			return
		}
		defer s.close()
		_, _ = readSchema(t.Context(), s)
	})
}

func FuzzUserQuery(f *testing.F) {
	f.Add("SELECT home, 8 AS uid FROM u WHERE user = '%Ln' AND domain='%{domain}'")
	f.Add("SELECT '%%', a.`b` FROM u WHERE x = '%{user | username}%d'")
	f.Fuzz(func(t *testing.T, query string) {
		turned, err := postfixVariables(query)
		if err != nil {
			return
		}
		for _, kind := range []string{"mysql", "pgsql", "sqlite"} {
			names, err := columnNames(turned, dialect{kind: kind})
			if err == nil && (len(names) == 0 || len(names) > len(turned)) {
				t.Errorf("%q has the columns %q", query, names)
			}
		}
	})
}
