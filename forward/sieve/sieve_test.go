package sieve_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/sieve"
)

// A case is a file of sections, each begun by a line "-- NAME --": script, or
// "script quoted" (a Go string, for octets that an editor would not keep); mail,
// that the real interpreter gets; "include NAME" and "global NAME"; "compile only"; want.
//
// A line of want is "KIND MODE LINE TARGET [dormant|broken|unseen]..." (U+FFFC is
// written as *; unseen: the mail does not come there), or "broken: TEXT".
type testCase struct {
	name     string
	script   []byte
	mail     string
	includes map[string]string // "personal x", "global x"
	want     []string
	broken   string
	// compileOnly: Pigeonhole 0.5.19 panics when it runs it.
	compileOnly bool
}

const defaultMail = "From: x@q.test\nSubject: xuser\nTo: b@corp.test\n\nbody\n"

func readCases(t testing.TB) []testCase {
	t.Helper()
	files, err := filepath.Glob("testdata/cases/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []testCase
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, parseCase(t, strings.TrimSuffix(filepath.Base(file), ".txt"), string(data)))
	}
	return out
}

func parseCase(t testing.TB, name, text string) testCase {
	c := testCase{name: name, mail: defaultMail, includes: map[string]string{}}
	for part := range strings.SplitSeq("\n"+text, "\n-- ") {
		head, body, ok := strings.Cut(part, " --\n")
		if !ok {
			continue
		}
		if !strings.HasSuffix(body, "\n") {
			body += "\n"
		}
		switch kind, arg, _ := strings.Cut(head, " "); kind {
		case "script":
			c.script = []byte(body)
			if arg == "quoted" {
				s, err := strconv.Unquote(strings.TrimSpace(body))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				c.script = []byte(s)
			}
		case "mail":
			c.mail = body
		case "include":
			c.includes["personal "+arg] = body
		case "global":
			c.includes["global "+arg] = body
		case "compile":
			c.compileOnly = true
		case "want":
			for line := range strings.Lines(body) {
				line = strings.TrimSpace(line)
				if text, ok := strings.CutPrefix(line, "broken: "); ok {
					c.broken = text
				} else if line != "" {
					c.want = append(c.want, line)
				}
			}
		default:
			t.Fatalf("%s: section %q", name, head)
		}
	}
	if c.script == nil {
		t.Fatalf("%s: no script", name)
	}
	return c
}

func (c *testCase) options() sieve.Options {
	return sieve.Options{Include: func(name string, global bool) ([]byte, error) {
		kind := "personal "
		if global {
			kind = "global "
		}
		if text, ok := c.includes[kind+name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}}
}

func kindName(k forward.Kind) string {
	return [...]string{"address", "nexthop", "program", "file", "asked"}[k]
}

func line(t sieve.Target) string {
	target := strings.ReplaceAll(t.Target, forward.Unknown, "*")
	s := fmt.Sprintf("%s %s %d %s", kindName(t.Kind), t.Mode, t.Line, target)
	if t.Dormant != "" {
		s += " dormant"
	}
	if t.Broken != "" {
		s += " broken"
	}
	return s
}

func TestCases(t *testing.T) {
	for _, c := range readCases(t) {
		t.Run(c.name, func(t *testing.T) {
			r := sieve.Targets(c.script, c.options())
			var got, want []string
			for _, n := range r.Targets {
				got = append(got, line(n))
				if dynamic := strings.Contains(n.Target, forward.Unknown); dynamic != n.Dynamic {
					t.Errorf("%s: dynamic is %v", line(n), n.Dynamic)
				}
			}
			for _, w := range c.want {
				want = append(want, strings.TrimSuffix(w, " unseen"))
			}
			if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
			if c.broken == "" && r.Broken != "" || !strings.Contains(r.Broken, c.broken) {
				t.Errorf("broken: got %q, want %q", r.Broken, c.broken)
			}
		})
	}
}
