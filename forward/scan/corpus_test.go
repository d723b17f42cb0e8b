package scan_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/database"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
	"relayguard/forward/maildrop"
	"relayguard/forward/mailfiles"
	"relayguard/forward/postfix"
	"relayguard/forward/procmail"
	"relayguard/forward/scan"
	"relayguard/forward/sendmail"
)

// finders are all that put a plan together on a copied disk.
var finders = []func(context.Context, *forward.Host, func() []string) forward.Plan{
	func(ctx context.Context, h *forward.Host, known func() []string) forward.Plan {
		tables := database.New(h)
		tables.Known = known
		return postfix.Plan(ctx, h, postfix.Options{Databases: tables, Known: known})
	},
	func(ctx context.Context, h *forward.Host, _ func() []string) forward.Plan {
		return dovecot.Plan(ctx, h, dovecot.Options{})
	},
	func(ctx context.Context, h *forward.Host, _ func() []string) forward.Plan {
		return sendmail.Plan(ctx, h, sendmail.Options{})
	},
	func(ctx context.Context, h *forward.Host, _ func() []string) forward.Plan {
		return procmail.Plan(ctx, h)
	},
	func(ctx context.Context, h *forward.Host, _ func() []string) forward.Plan {
		return maildrop.Plan(ctx, h)
	},
	func(ctx context.Context, h *forward.Host, _ func() []string) forward.Plan {
		return mailfiles.Plan(ctx, h)
	},
}

// TestEvasions: what delivers to the outside although it looks harmless, and
// what looks like it and does not.
func TestEvasions(t *testing.T) { runCorpus(t, "evasions", 120) }

// TestHarmless: nothing of what an ordinary server has may be taken for a way out.
func TestHarmless(t *testing.T) {
	for _, c := range runCorpus(t, "harmless", 50) {
		for _, line := range c.want {
			if strings.Contains(line, " outside ") || strings.Contains(line, " dynamic") || strings.Contains(line, " opaque ") {
				t.Errorf("%s: a harmless case wants %q", c.name, line)
			}
		}
	}
}

// runCorpus reads the cases of a directory of testdata and scans each as a
// copied disk. A case is a file:
//
//	# what it shows
//	base: postfix dovecot        trees of testdata/base that it stands on
//	-- etc/postfix/main.cf + --  a file; "+" adds to the base's
//	-- home/alice/.forward mode=0666 owner=bob --
//	-- home/ann/.dovecot.sieve -> sieve/main.sieve --
//	-- etc/aliases.db base64 --  made by postalias(1) or postmap(1) 3.7
//	-- want --                   findings: owner mechanism target verdict mode [via a>b]
func runCorpus(t *testing.T, dir string, least int) []corpusCase {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(paths) < least {
		t.Fatalf("%s: %d cases, want at least %d (%v)", dir, len(paths), least, err)
	}
	var cases []corpusCase
	for _, path := range paths {
		c := readCase(t, path)
		cases = append(cases, c)
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := findingsOf(t, c)
			if !slices.Equal(got, c.want) {
				t.Errorf("%s\ngot\n  %s\nwant\n  %s", c.about, strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
		})
	}
	return cases
}

type corpusCase struct {
	name, about string
	bases       []string
	parts       []part
	want        []string
}

type part struct {
	path, text, link, owner string
	add                     bool
	mode                    fs.FileMode
}

func readCase(t *testing.T, path string) corpusCase {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := corpusCase{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	var p *part
	wants := false
	for line := range strings.Lines(string(data)) {
		header, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "-- ")
		header, closed := strings.CutSuffix(header, " --")
		switch {
		case ok && closed && header == "want":
			p, wants = nil, true
		case ok && closed:
			c.parts = append(c.parts, readHeader(t, path, header))
			p = &c.parts[len(c.parts)-1]
		case p != nil:
			p.text += line
		case wants:
			if line = strings.TrimSpace(line); line != "" {
				c.want = append(c.want, line)
			}
		case strings.HasPrefix(line, "base:"):
			c.bases = strings.Fields(line)[1:]
		default:
			c.about += strings.TrimPrefix(line, "# ")
		}
	}
	if !wants || len(c.bases) == 0 || c.about == "" {
		t.Fatalf("%s: no want, base or description", path)
	}
	slices.Sort(c.want)
	for i := range c.parts {
		c.parts[i].decode(t, path)
	}
	return c
}

func readHeader(t *testing.T, path, header string) part {
	t.Helper()
	words := strings.Fields(header)
	p := part{path: words[0], mode: 0o644}
	for i, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "+":
			p.add = true
		case "base64":
			p.mode |= fs.ModeTemporary // taken off by decode
		case "mode":
			n, err := strconv.ParseUint(value, 8, 32)
			if err != nil {
				t.Fatalf("%s: %s", path, header)
			}
			p.mode = fs.FileMode(n)
		case "owner":
			p.owner = value
		case "->":
			p.link = words[i+2]
		default:
			if p.link == "" {
				t.Fatalf("%s: %s", path, header)
			}
		}
	}
	return p
}

func (p *part) decode(t *testing.T, path string) {
	t.Helper()
	if p.mode&fs.ModeTemporary == 0 {
		return
	}
	p.mode &^= fs.ModeTemporary
	data, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(p.text, "\n", ""))
	if err != nil {
		t.Fatalf("%s: %s: %v", path, p.path, err)
	}
	p.text = string(unpack(t, data))
}

// findingsOf plants a case and scans it.
func findingsOf(t *testing.T, c corpusCase) []string {
	t.Helper()
	root := t.TempDir()
	owners := plant(t, root, c)
	f, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	accounts, err := files.ReadAccounts(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	handOver(t, root, c, accounts, owners)
	host := &forward.Host{Files: f, Accounts: accounts, Hostname: "mx.corp.test", Log: discard(), Now: now}
	s := scan.New(func(ctx context.Context, known func() []string) forward.Plan {
		var plan forward.Plan
		for _, find := range finders {
			plan.Add(find(ctx, host, known))
		}
		return plan
	}, scan.Options{Workers: 2})
	if _, err := s.All(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, g := range s.Gaps() {
		t.Logf("gap: %s: %s", g.Source, g.Why)
	}
	var all []string
	for _, f := range s.Graph().Findings() {
		line := fmt.Sprintf("%s %s %s %s %s", f.Owner, f.Mechanism, f.Target, f.Verdict, f.Mode)
		if !f.Direct() {
			line += " via " + strings.Join(f.Chain, ">")
		}
		if f.Differs != "" {
			line += " differs"
		}
		all = append(all, line)
		t.Logf("%s (%s:%d) %s %s", line, f.Source, f.Line, f.Note, f.Differs)
	}
	slices.Sort(all)
	return all
}
