package postfix

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/mta/postfix/postfixtest"
)

const baseMain = `compatibility_level = 3.6
myhostname = mx.corp.test
mydestination = corp.test, localhost
mynetworks = 127.0.0.0/8
alias_maps =
inet_interfaces = 127.0.0.1
`

const baseMaster = `smtp      inet  n - n - - smtpd
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
smtp      unix  - - n - - smtp
relay     unix  - - n - - smtp
error     unix  - - n - - error
discard   unix  - - n - - discard
local     unix  - n n - - local
virtual   unix  - n n - - virtual
lmtp      unix  - - n - - lmtp
`

// TestRules plants each setting and table of testdata/rules in a Postfix of its
// own and compares the rules that are found, live and as on a copied disk.
//
// A case is a file: parts "-- NAME --" are files of its configuration directory
// (@DIR@ stands for that; main.cf and master.cf are added to a base; a file
// FILE.hash is compiled by postmap(1), FILE.aliases by postalias(1), +FILE.hash goes into the
// compiled file alone), and
// "-- want --" has a rule a line: owner mechanism kind mode target, and words
// for what else is said of it. "?" stands for what is not known.
func TestRules(t *testing.T) {
	postfixtest.Need(t)
	files, err := filepath.Glob("testdata/rules/*.txt")
	if err != nil || len(files) < 30 {
		t.Fatalf("cases: %d found, %v", len(files), err)
	}
	for _, file := range files {
		parts := readCase(t, file)
		for _, live := range []bool{true, false} {
			name := strings.TrimSuffix(filepath.Base(file), ".txt")
			if !live {
				name += "/copied disk"
			}
			t.Run(name, func(t *testing.T) {
				dir := plant(t, parts)
				got := found(t, host(t, live), dir)
				want := strings.TrimSpace(strings.ReplaceAll(parts["want"], "@DIR@", dir))
				if got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

func readCase(t *testing.T, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]string{}
	name := ""
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(strings.TrimSpace(n), " --") {
			name = strings.TrimSuffix(strings.TrimSpace(n), " --")
			parts[name] = ""
		} else if name != "" {
			parts[name] += line
		}
	}
	if _, ok := parts["want"]; !ok {
		t.Fatalf("%s: no part want", file)
	}
	return parts
}

func plant(t *testing.T, parts map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "postfix")
	if err := os.MkdirAll(filepath.Join(dir, "queue"), 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"main.cf": baseMain + "queue_directory = " + dir + "/queue\n", "master.cf": baseMaster}
	for name, text := range parts {
		all[name] += strings.ReplaceAll(text, "@DIR@", dir)
	}
	delete(all, "want")
	for name, text := range all {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ageAll(t, dir)
	for name := range all {
		if strings.HasPrefix(name, "+") {
			continue
		}
		tool := map[string]string{".hash": "postmap", ".aliases": "postalias"}[filepath.Ext(name)]
		if tool == "" {
			continue
		}
		if out, err := exec.Command("/usr/sbin/"+tool, "-c", dir, "hash:"+filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s", tool, name, err, out)
		}
	}
	for name, text := range all {
		if compiled, only := strings.CutPrefix(name, "+"); only {
			cmd := exec.Command("/usr/sbin/postmap", "-c", dir, "-i", "hash:"+filepath.Join(dir, compiled))
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("postmap -i %s: %v: %s", compiled, err, out)
			}
		}
	}
	return dir
}

func found(t *testing.T, h *forward.Host, dir string) string {
	t.Helper()
	plan := Plan(t.Context(), h, Options{ConfigDir: dir})
	gaps := plan.Gaps
	seen := map[string]bool{}
	var lines []string
	for _, u := range plan.Units {
		if seen[u.ID] {
			t.Errorf("two units are called %q", u.ID)
		}
		seen[u.ID] = true
		r := u.Read(t.Context())
		gaps = append(gaps, r.Gaps...)
		for _, rule := range r.Rules {
			if rule.Source == "" {
				t.Errorf("rule without a source: %+v", rule)
			}
			lines = append(lines, line(rule))
		}
	}
	for _, g := range gaps {
		lines = append(lines, "gap "+g.Source)
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

var kinds = map[forward.Kind]string{forward.Address: "address", forward.NextHop: "nexthop", forward.Program: "program", forward.File: "file", forward.Asked: "asked"}

func line(r forward.Rule) string {
	s := fmt.Sprintf("%s %s %s %s %s", r.Owner, r.Mechanism, kinds[r.Kind], r.Mode, r.Target)
	for _, word := range []struct {
		name string
		is   bool
	}{{"sender", r.Sender}, {"server", r.Server}, {"dynamic", r.Dynamic}, {"digest", r.Digest != ""}, {"differs", r.Differs != ""}} {
		if word.is {
			s += " +" + word.name
		}
	}
	if r.Dormant != "" {
		s += " +dormant: " + r.Dormant
	}
	if r.Broken != "" {
		s += " +broken: " + r.Broken
	}
	return strings.ReplaceAll(s, forward.Unknown, "?")
}
