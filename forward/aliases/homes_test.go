package aliases_test

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
	"relayguard/forward/aliases"
	"relayguard/forward/files"
	"relayguard/mta/postfix/postfixtest"
)

// needRoot skips a test on a laptop that gives no root, and fails it in CI.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal("this test needs root, and RELAYGUARD_REQUIRE or CI is set")
	}
	t.Skip("needs root: files of several accounts")
}

// homes is a directory where .forward files of system accounts lie.
type homes struct {
	t    *testing.T
	dir  string
	host *forward.Host
}

func newHomes(t *testing.T) *homes {
	needRoot(t)
	dir, err := os.MkdirTemp("", "homes")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	local := files.Local()
	accounts, err := files.ReadAccounts(t.Context(), local)
	if err != nil || len(accounts) == 0 {
		t.Fatalf("accounts: %v", err)
	}
	return &homes{t, dir, &forward.Host{Files: local, Accounts: accounts}}
}

func (h *homes) uid(name string) int {
	if account := h.host.Account(name); account != nil {
		return account.UID
	}
	h.t.Fatalf("no account %s", name)
	return 0
}

func (h *homes) at(name string) string { return filepath.Join(h.dir, name) }

// plant writes a file that an account owns.
func (h *homes) plant(name, owner string, mode os.FileMode, text string) {
	h.t.Helper()
	path := h.at(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	uid := h.uid(owner)
	if err := os.Chown(path, uid, h.host.Account(owner).GID); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		h.t.Fatal(err)
	}
}

// path is the forward_path of these tests.
func (h *homes) path() string {
	return fmt.Sprintf("%[1]s/one/$user${recipient_delimiter}${extension}, %[1]s/one/${user} %[1]s/two/$user/forward,%[1]s/three/$user", h.dir)
}

// read reads all units.
func (h *homes) read(o aliases.HomesOptions) forward.Reading {
	h.t.Helper()
	var all forward.Reading
	for _, unit := range aliases.Homes(h.host, o) {
		reading := unit.Read(context.Background())
		all.Rules = append(all.Rules, reading.Rules...)
		all.Gaps = append(all.Gaps, reading.Gaps...)
		all.Uses = append(all.Uses, reading.Uses...)
	}
	return all
}

// inForce are the addresses of rules that work.
func inForce(rules []forward.Rule) []string {
	var found []string
	for _, rule := range rules {
		if rule.Kind == forward.Address && rule.Dormant == "" && rule.Broken == "" {
			found = append(found, rule.Target)
		}
	}
	return found
}

// plantAll plants what local(8) has rules about. Every name at evil.test tells
// by "yes" or "no" whether mail gets there.
func (h *homes) plantAll() {
	t := h.t
	h.plant("one/daemon", "daemon", 0o644, "yes.own@evil.test\n")
	h.plant("one/bin", "root", 0o600, "no.unreadable@evil.test\n")
	h.plant("three/bin", "bin", 0o644, "no.after.unreadable@evil.test\n")
	h.plant("one/sys", "root", 0o644, "yes.roots@evil.test\n")
	h.plant("elsewhere", "games", 0o644, "no.symlink@evil.test\n")
	if err := os.Symlink(h.at("elsewhere"), h.at("one/games")); err != nil {
		t.Fatal(err)
	}
	h.plant("three/games", "games", 0o644, "no.after.symlink@evil.test\n")
	h.plant("one/man", "man", 0o646, "no.world@evil.test\n")
	h.plant("one/lp", "man", 0o644, "no.owner@evil.test\n")
	h.plant("one/mail", "mail", 0o664, "yes.group@evil.test\n")
	h.plant("one/news", "news", 0, "no.mode.zero@evil.test\n")
	h.plant("two/uucp/forward", "uucp", 0o644, "no.hidden@evil.test\n")
	if err := os.Chmod(h.at("two/uucp"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.plant("three/uucp", "uucp", 0o644, "yes.after.hidden@evil.test\n")
	if err := syscall.Mkfifo(h.at("one/proxy"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(h.at("one/proxy"), h.uid("proxy"), 0); err != nil {
		t.Fatal(err)
	}
	h.plant("one/backup", "backup", 0o644, "# nothing\n\n")
	h.plant("three/backup", "backup", 0o644, "no.after.empty@evil.test\n")
	h.plant("one/list", "list", 0o644, "\\list, yes.copy@evil.test\n")
	h.plant("one/irc", "irc", 0o644, "#"+strings.Repeat("x", aliases.LineLimit-1)+"yes.chunk@evil.test\n"+
		"#"+strings.Repeat("x", aliases.LineLimit-2)+"\n"+"yes.line@evil.test\n #no, yes.indented@evil.test\n"+
		"yes.cr@evil.test\r\nyes.nul@evil.test\x00no.nul@evil.test\n\x00no.nul.first@evil.test\nyes.last@evil.test")
	h.plant("one/www-data", "www-data", 0o644, "\xEF\xBB\xBFyes.bom@evil.test\n\xEF\xBB\xBF#, yes.bom.comment@evil.test\n")
	h.plant("one/daemon+x", "daemon", 0o644, "yes.extension@evil.test\n")
	h.plant("one/daemon+Y", "daemon", 0o644, "no.upper@evil.test\n")
	h.plant("one/daemon+", "daemon", 0o644, "yes.no.extension@evil.test\n")
	h.plant("one/nobody", "nobody", 0o644, ":include:"+h.at("lists/a")+"\n:INCLUDE:"+h.at("lists/link")+"\nyes.beside@evil.test\n")
	h.plant("lists/a", "root", 0o644, "yes.included@evil.test\n:include:"+h.at("lists/a")+"\n:include:"+h.at("lists/b")+"\n")
	h.plant("lists/b", "man", 0o644, "yes.nested@evil.test\n")
	h.plant("lists/c", "man", 0o644, "yes.linked@evil.test\n")
	if err := os.Symlink("c", h.at("lists/link")); err != nil {
		t.Fatal(err)
	}
}

var homesMail = []string{"daemon", "bin", "sys", "games", "man", "lp", "mail", "news", "uucp", "proxy", "backup", "list", "irc",
	"www-data", "daemon+x", "daemon+Y", "daemon+y", "daemon+", "nobody", "sys+ext"}

func TestHomesFindWhatIsInForce(t *testing.T) {
	h := newHomes(t)
	h.plantAll()
	got := h.read(aliases.HomesOptions{ForwardPath: h.path(), Delimiters: "+"})
	for _, name := range names(inForce(got.Rules)) {
		if !strings.HasPrefix(name, "yes") {
			t.Errorf("%s: in force", name)
		}
	}
	dormant := 0
	for _, rule := range got.Rules {
		switch {
		case rule.Dormant != "":
			dormant++
			if strings.HasPrefix(rule.Target, "yes") {
				t.Errorf("%s: dormant: %s", rule.Target, rule.Dormant)
			}
		case rule.Mode != forward.Redirect && rule.Owner != "list":
			t.Errorf("%+v: want a redirect", rule)
		}
		if rule.Owner == "list" && (rule.Mode != forward.Copy || rule.Target != "yes.copy@evil.test") {
			t.Errorf("%+v: want one copy", rule)
		}
	}
	if dormant < 10 {
		t.Errorf("got %d dormant rules, want all that are planted", dormant)
	}
	if len(got.Gaps) > 0 {
		t.Errorf("gaps: %v", got.Gaps)
	}
}

// TestHomesAreDelivered sends a mail to every account of plantAll and finds
// at the sink exactly what is told to be in force.
func TestHomesAreDelivered(t *testing.T) {
	postfixtest.Need(t)
	h := newHomes(t)
	h.plantAll()
	p := localPostfix(t, map[string]string{"forward_path": h.path(), "recipient_delimiter": "+"}, map[string]string{"aliases": ""})
	to := slices.Clone(homesMail)
	for n := range to {
		to[n] += "@corp.test"
	}
	got := deliver(t, p, to)
	want := names(inForce(h.read(aliases.HomesOptions{ForwardPath: h.path(), Delimiters: "+"}).Rules))
	t.Logf("delivered: %q", got)
	if !slices.Equal(got, want) {
		t.Errorf("delivered, not found: %q; found, not delivered: %q", minus(got, want), minus(want, got))
	}
}

// TestNameThatTheDelimiterDivides: an account whose name has the delimiter in
// it gets no mail.
func TestNameThatTheDelimiterDivides(t *testing.T) {
	postfixtest.Need(t)
	h := newHomes(t)
	h.plant("one/www-data", "www-data", 0o644, "no.divided@evil.test\n")
	h.plant("one/mail", "mail", 0o644, "yes.whole@evil.test\n")
	h.plant("one/mail-x.y", "mail", 0o644, "yes.extended@evil.test\n")
	p := localPostfix(t, map[string]string{"forward_path": h.path(), "recipient_delimiter": "-"}, map[string]string{"aliases": ""})
	got := deliver(t, p, []string{"www-data@corp.test", "mail@corp.test", "mail-x.y@corp.test"})
	want := names(inForce(h.read(aliases.HomesOptions{ForwardPath: h.path(), Delimiters: "-"}).Rules))
	if !slices.Equal(got, want) {
		t.Errorf("delivered, not found: %q; found, not delivered: %q", minus(got, want), minus(want, got))
	}
}

// TestForwardPathByDomain: a forward_path that asks for the domain has owners
// at the domain, and is a gap where no domain is known.
func TestForwardPathByDomain(t *testing.T) {
	h := newHomes(t)
	h.plant("corp.test/mail", "mail", 0o644, "x@evil.test\n")
	o := aliases.HomesOptions{ForwardPath: h.dir + "/${domain}/$user", Domains: []string{"other.test", "corp.test"}}
	got := h.read(o)
	if len(got.Rules) != 1 || got.Rules[0].Owner != "mail@corp.test" || got.Rules[0].Target != "x@evil.test" || len(got.Gaps) > 0 {
		t.Errorf("got %+v", got)
	}
	o.Domains = nil
	if got := h.read(o); len(got.Gaps) == 0 {
		t.Errorf("got %+v, want a gap", got)
	}
}

func FuzzForwardPath(f *testing.F) {
	f.Add(aliases.ForwardPath, "+")
	f.Add("/x/${user?{a}:{b}}/${{a}==${extension:none}} $(home)$$/${extension?x${extension}}", "+-")
	f.Add("${${${", "")
	f.Fuzz(func(t *testing.T, path, delimiters string) {
		host := &forward.Host{Accounts: []forward.Account{{Name: "alice", UID: 1000, Home: "/home/alice"}}}
		for _, unit := range aliases.Homes(host, aliases.HomesOptions{ForwardPath: path, Delimiters: delimiters}) {
			for _, path := range unit.Paths {
				if path[0] != '/' {
					t.Errorf("path %q", path)
				}
			}
		}
	})
}
