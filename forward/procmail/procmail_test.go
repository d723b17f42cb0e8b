package procmail_test

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/procmail"
)

// rcCase is one file of testdata/rc: an rcfile, further files, and what is wanted.
// "␍" stands for a carriage return, "?" for what is not known.
// " maybe" after a wanted line: no message of these tests makes it happen.
type rcCase struct {
	name  string
	rc    string
	files map[string]string
	want  []string
	maybe map[string]bool
}

func rcCases(t testing.TB) []rcCase {
	t.Helper()
	names, err := filepath.Glob("testdata/rc/*.txt")
	if err != nil || len(names) < 30 {
		t.Fatalf("%d cases: %v", len(names), err)
	}
	var cases []rcCase
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c := rcCase{name: strings.TrimSuffix(filepath.Base(name), ".txt"), files: map[string]string{}, maybe: map[string]bool{}}
		for n, part := range strings.Split(strings.ReplaceAll(string(data), "␍", "\r"), "\n==== ") {
			head, body, _ := strings.Cut(part, "\n")
			switch {
			case n == 0:
				c.rc = part + "\n"
			case head == "want":
				for line := range strings.Lines(body) {
					line, maybe := strings.CutSuffix(strings.TrimSpace(line), " maybe")
					c.want = append(c.want, line)
					c.maybe[line] = maybe
				}
			default:
				c.files[head] = body + "\n"
			}
		}
		cases = append(cases, c)
	}
	return cases
}

const home = "/home/nobody"

func (c rcCase) options(dir string) procmail.Options {
	return procmail.Options{
		Name: path.Join(dir, ".procmailrc"), Hostname: "mail.corp.test",
		Account: &forward.Account{Name: "nobody", UID: 65534, Home: dir, Shell: "/bin/sh"},
		Read: func(name string) ([]byte, error) {
			if data, have := c.files[strings.TrimPrefix(name, dir+"/")]; have {
				return []byte(data), nil
			}
			return nil, fs.ErrNotExist
		},
		Look: func(name string) (bool, bool) { return false, false },
	}
}

var kinds = map[forward.Kind]string{forward.Address: "address", forward.Program: "program", forward.Asked: "asked", forward.File: "file"}

func said(targets []procmail.Target, main string) []string {
	lines := []string{}
	for _, t := range targets {
		line := fmt.Sprintf("%s %s %s %d", kinds[t.Kind], t.Mode, strings.ReplaceAll(t.Target, forward.Unknown, "?"), t.Line)
		if t.Source != main {
			line += " " + path.Base(t.Source)
		}
		if t.Dormant != "" {
			line += " dormant"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func TestTargetsOfRcfiles(t *testing.T) {
	for _, c := range rcCases(t) {
		t.Run(c.name, func(t *testing.T) {
			o := c.options(home)
			got := procmail.Targets([]byte(c.rc), o)
			slices.Sort(c.want)
			if lines := said(got.Targets, o.Name); strings.Join(lines, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(c.want, "\n"))
			}
			if len(got.Gaps) > 0 {
				t.Errorf("gaps: %v", got.Gaps)
			}
		})
	}
}
