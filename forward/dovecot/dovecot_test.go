package dovecot_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
)

// A case is a file of sections, each begun by a line "-- NAME --":
//
//	file PATH [age=SECONDS] [as=FILE of testdata]
//	link PATH TO
//	account NAME UID HOME   (no body)
//	want                    lines "OWNER MECHANISM KIND MODE TARGET [flag]..."
//
// The flags: dormant, broken, differs, dynamic, server; "gap TEXT" is a line of
// its own. U+FFFC is written as *. Files are an hour old, or as old as age says.
type tree struct {
	root     string
	accounts []forward.Account
	want     []string
}

func readTree(t testing.TB, file string) tree {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := tree{root: t.TempDir()}
	now := time.Now()
	for part := range strings.SplitSeq("\n"+string(data), "\n-- ") {
		head, body, ok := strings.Cut(part, " --")
		if !ok {
			continue
		}
		body = strings.TrimPrefix(body, "\n")
		f := strings.Fields(head)
		switch f[0] {
		case "file":
			out.file(t, f[1], f[2:], body, now)
		case "link":
			path := filepath.Join(out.root, f[1])
			mkdir(t, filepath.Dir(path))
			if err := os.Symlink(f[2], path); err != nil {
				t.Fatal(err)
			}
		case "account":
			uid, err := strconv.Atoi(f[2])
			if err != nil {
				t.Fatal(err)
			}
			out.accounts = append(out.accounts, forward.Account{Name: f[1], UID: uid, GID: uid, Home: f[3]})
		case "want":
			for line := range strings.Lines(body) {
				if line = strings.TrimSpace(line); line != "" {
					out.want = append(out.want, line)
				}
			}
		default:
			t.Fatalf("%s: section %q", file, head)
		}
	}
	return out
}

func mkdir(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) file(t testing.TB, name string, options []string, body string, now time.Time) {
	t.Helper()
	age := time.Hour
	data := []byte(body)
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "age":
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			age = time.Duration(n) * time.Second
		case "as":
			var err error
			if data, err = os.ReadFile(filepath.Join("testdata", value)); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(tr.root, name)
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
		t.Fatal(err)
	}
}

func (tr *tree) host(t testing.TB) *forward.Host {
	t.Helper()
	f, err := files.Rooted(tr.root)
	if err != nil {
		t.Fatal(err)
	}
	return &forward.Host{Files: f, Accounts: tr.accounts, Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

func kindName(k forward.Kind) string {
	return [...]string{"address", "nexthop", "program", "file", "asked"}[k]
}

func line(r forward.Rule) string {
	out := fmt.Sprintf("%s %s %s %s %s", r.Owner, r.Mechanism, kindName(r.Kind), r.Mode, strings.ReplaceAll(r.Target, forward.Unknown, "*"))
	for _, f := range []struct {
		name string
		is   bool
	}{{"dormant", r.Dormant != ""}, {"broken", r.Broken != ""}, {"differs", r.Differs != ""}, {"dynamic", r.Dynamic}, {"server", r.Server}} {
		if f.is {
			out += " " + f.name
		}
	}
	return out
}

// lines are what all units of a plan read.
func lines(ctx context.Context, p forward.Plan) []string {
	var out []string
	gap := func(gaps []forward.Gap) {
		for _, g := range gaps {
			out = append(out, "gap "+g.Source+": "+g.Why)
		}
	}
	gap(p.Gaps)
	for _, u := range p.Units {
		r := u.Read(ctx)
		gap(r.Gaps)
		for _, rule := range r.Rules {
			out = append(out, line(rule))
		}
	}
	return out
}

func TestCases(t *testing.T) {
	cases, err := filepath.Glob("testdata/cases/*.txt")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			tr := readTree(t, file)
			p := dovecot.Plan(t.Context(), tr.host(t), dovecot.Options{})
			compare(t, lines(t.Context(), p), tr.want)
		})
	}
}

// compare: a gap is wanted by a part of its text.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	left := slices.Clone(want)
	for _, g := range got {
		i := slices.IndexFunc(left, func(w string) bool {
			text, ok := strings.CutPrefix(w, "gap ")
			return g == w || ok && strings.HasPrefix(g, "gap ") && strings.Contains(g, text)
		})
		if i < 0 {
			t.Errorf("not wanted: %s", g)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, w := range left {
		t.Errorf("missing: %s", w)
	}
}
