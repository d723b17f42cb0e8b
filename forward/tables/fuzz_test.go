package tables_test

import (
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/tables"
	mta "relayguard/mta/postfix"
)

// reads lists a table over files and holds what is true of every listing.
func reads(t *testing.T, kind, name string, aliases bool, files memory, known ...string) tables.Listing {
	t.Helper()
	r := tables.Reader{
		Host: &forward.Host{Files: files}, Aliases: aliases, Known: func() []string { return known },
	}
	l := r.List(t.Context(), mta.Table{Type: kind, Name: name})
	for _, e := range l.Entries {
		if e.Source == "" || e.Line < 0 {
			t.Fatalf("an entry from nowhere: %+v", e)
		}
		if !e.Pattern && e.Dynamic && kind != "pipemap" {
			t.Fatalf("a fixed key with a dynamic value: %+v", e)
		}
	}
	return l
}

func FuzzText(f *testing.F) {
	f.Add("alice: \\bob, \"c d\"@x (note) # no\n  more\n", "alice\tbob\n@\t@\n")
	f.Add("# c\nA b\n\"k k\" v\nA c\n", "a\tb\nx\ty\n")
	f.Add("a\\", "")
	f.Add("x: y: ; <z@[1.2.3.4]>\n", "x\ty\n")
	f.Add("\x00\n \t\n\"", "\x00\t\x00")
	f.Fuzz(func(t *testing.T, text, compiled string) {
		if strings.HasPrefix(text, "-> ") || text == "!" {
			return
		}
		files := memory{"/t": text, "/t.db": compile(compiled)}
		for _, aliases := range []bool{true, false} {
			l := reads(t, "hash", "/t", aliases, files)
			running := 0
			for _, e := range l.Entries {
				if e.Dormant == "" {
					running++
				}
			}
			if most := strings.Count(compiled, "\n") + 1; running > most {
				t.Fatalf("%d entries in force, compiled are at most %d", running, most)
			}
		}
		reads(t, "texthash", "/t", false, files)
	})
}

// What is compiled out of a text never differs from it.
func FuzzTextAgreesWithItself(f *testing.F) {
	f.Add("alice: bob\ncarol: \"d e\"@x, |\"/bin/x y\"\n", true)
	f.Add("a@b c@d\n\"x y\" z\n", false)
	f.Add("@ @", false)
	f.Fuzz(func(t *testing.T, text string, aliases bool) {
		if strings.HasPrefix(text, "-> ") || text == "!" {
			return
		}
		var lines strings.Builder
		seen := map[string]bool{}
		for _, e := range reads(t, "hash", "/t", aliases, memory{"/t": text}).Entries {
			if strings.ContainsAny(e.Key+e.Value, "\t\n\x00") || seen[e.Key] {
				return
			}
			seen[e.Key] = true
			lines.WriteString(e.Key + "\t" + e.Value + "\n")
		}
		for _, e := range reads(t, "hash", "/t", aliases, memory{"/t": text, "/t.db": compile(lines.String())}).Entries {
			if e.Differs != "" {
				t.Fatalf("%q (aliases %v): %+v", text, aliases, e)
			}
		}
	})
}

func FuzzPatterns(f *testing.F) {
	f.Add("/^(.*)@x$/i $1@y${1}$(1)$$\nif !/a/\n/b/!/c/ d\nendif\n", "a@x")
	f.Add("!/[^]\\]/x v\nENDIF\nIF /x\n", "q")
	f.Add("/^(a|b)c?[d-f]$/ $1\n/(?!x)/ y\n", "ac")
	f.Add("/(((a{1000}){1000}){1000})/ x\n", "a")
	f.Fuzz(func(t *testing.T, text, key string) {
		if len(text) > 4096 || strings.HasPrefix(text, "-> ") || text == "!" {
			return
		}
		files := memory{"/t": text}
		reads(t, "regexp", "/t", false, files, key)
		reads(t, "pcre", "/t", false, files, key)
		reads(t, "cidr", "/t", false, files)
		reads(t, "pipemap", "{regexp:/t,pcre:/t}", false, files, key)
	})
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{
		"inline:{a=b, {c = d}}", "static:{ x }", "randmap:{a,b}", "unionmap:{inline:{a=b},static:c}",
		"pipemap:{inline:{a=b},inline:{b=c}}", "proxy:proxy:static:x", "inline:{{\"a=\\", "unix:passwd.byname",
		"regexp:{{/^a$/ b}, {/(c)/ $1}}", "pcre:{ {if /x/} {/y/ z} {endif} }", "cidr:{{192.0.2.0/24 x}}", "pipemap:{inline:{a=k},regexp:{{/k/ b}}}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := mta.ParseTables(s)
		if err != nil || len(list) > 100 {
			return
		}
		for _, table := range list {
			reads(t, table.Type, table.Name, false, memory{"/etc/passwd": "root:x:0:0::/root:/bin/sh\n"})
		}
	})
}
