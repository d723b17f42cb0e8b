package postfix

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/aliases"
	"relayguard/mta/postfix/postfixtest"
)

// What local(8) follows by a table is followed with the rights of the table's
// owner: an include file that he may not read is none.
func TestIncludeIsReadWithTheTablesRights(t *testing.T) {
	needRoot(t)
	dir := plant(t, map[string]string{
		"main.cf": "alias_maps = texthash:@DIR@/root, texthash:@DIR@/other, texthash:@DIR@/nobodys\n",
		"root":    "r :include:@DIR@/secret\n", "other": "o :include:@DIR@/secret, :include:@DIR@/open\n", "nobodys": "n out@evil.test\n",
		"secret": "secret@evil.test\n", "open": "open@evil.test\n",
	})
	h := host(t, false)
	h.Accounts = []forward.Account{{Name: "root"}, {Name: "lists", UID: 4711, GID: 4711, Home: "/nonexistent"}}
	for name, uid := range map[string]int{"other": 4711, "nobodys": 4712} {
		if err := os.Chown(filepath.Join(dir, name), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for d := dir; d != os.TempDir(); d = filepath.Dir(d) { // so that he may come as far as the file
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	want := strings.ReplaceAll(`n aliases address redirect out@evil.test +broken: uid 4712 owns the table, and is no account: local(8) defers the mail
o aliases address redirect open@evil.test
o aliases file redirect :include:@DIR@/secret +broken: lists may not read it: local(8) does not deliver the mail
r aliases address redirect secret@evil.test`, "@DIR@", dir)
	if got := found(t, h, dir); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// The same of a real one: of two tables with the same include file that only root
// may read, the other account's delivers nothing.
func TestPostfixFollowsATableWithItsOwnersRights(t *testing.T) {
	postfixtest.Need(t)
	needRoot(t)
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		t.Fatal(err)
	}
	p := postfixtest.StartTest(t, postfixtest.Options{
		Main: map[string]string{"mydestination": "corp.test", "myorigin": "corp.test", "local_recipient_maps": "",
			"alias_maps": "texthash:$config_directory/root, texthash:$config_directory/other"},
		Files:    map[string]string{"root": "", "other": "", "secret": "secret@evil.test\n", "open": "open@evil.test\n"},
		Services: []postfixtest.Service{{Name: "smtp"}},
	})
	for name, text := range map[string]string{"root": "r :include:@/secret\n", "other": "o :include:@/open\nx :include:@/secret\n"} {
		if err := os.WriteFile(filepath.Join(p.ConfigDir, name), []byte(strings.ReplaceAll(text, "@", p.ConfigDir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chown(filepath.Join(p.ConfigDir, "other"), uid, -1), os.Chmod(filepath.Join(p.ConfigDir, "secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := p.Dial(t.Context(), "smtp")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ehlo("client.test"); err != nil {
		t.Fatal(err)
	}
	sent, err := c.Send("cust@partner.test", []string{"r@corp.test", "o@corp.test", "x@corp.test"}, "Subject: rights\r\n\r\nx\r\n")
	if err != nil || !sent.Accepted() {
		t.Fatalf("%v %v", sent.Refusal(), err)
	}
	for _, line := range []string{`to=<secret@evil\.test>, orig_to=<r@corp\.test>.*status=sent`, `to=<open@evil\.test>, orig_to=<o@corp\.test>.*status=sent`,
		`to=<x@corp\.test>.*status=(deferred|bounced)`} {
		if _, err := p.WaitLog(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range p.Sink.All() {
		if slices.Contains(m.RcptTo, "secret@evil.test") && strings.Contains(p.Log(), "orig_to=<x@corp.test>") {
			t.Errorf("Postfix read what the owner of the table may not read")
		}
	}
}

// needRoot skips a test with files of several accounts; where everything is
// required, it fails.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
		t.Fatal("root required: the test has files of several accounts")
	}
	t.Skip("needs root: the test has files of several accounts")
}

// What merely looks like the owner is not he.
func TestLookAlikesAreNotTheOwner(t *testing.T) {
	postfixtest.Need(t)
	alike := []string{"alice@corp。test", "alice@ｃorp.test", "alice@corp．test", "alice@CORP.test.", "alice@corp.test"}
	dir := plant(t, map[string]string{
		"main.cf": "alias_maps = texthash:@DIR@/aliases\nvirtual_alias_maps = texthash:@DIR@/virtual\nmyorigin = corp.test\n",
		"aliases": "alice " + strings.Join(alike, ", ") + "\n",
		"virtual": "alice@corp.test " + strings.Join(alike, ", ") + "\n",
	})
	got := found(t, host(t, false), dir)
	for i, target := range alike {
		for _, m := range []string{"alice aliases", "alice@corp.test virtual"} {
			if is := strings.Contains(got, m+" address copy "+target+"\n") || strings.HasSuffix(got, m+" address copy "+target); is != (i < 3) {
				t.Errorf("%s to %s: a rule: %v\n%s", m, target, is, got)
			}
		}
	}
}

// A right side of which not everything is read hides nothing behind its end.
func TestLongRightSideIsAGapAndAQuestion(t *testing.T) {
	postfixtest.Need(t)
	for name, right := range map[string]string{
		"octets":    strings.Repeat(" ", 4) + "a@corp.test" + strings.Repeat(",", aliases.MaxRight) + "eve@evil.test",
		"addresses": strings.Repeat("a@corp.test,", maxTargets+1) + "eve@evil.test",
	} {
		t.Run(name, func(t *testing.T) {
			dir := plant(t, map[string]string{"main.cf": "virtual_alias_maps = texthash:@DIR@/virtual\n", "virtual": "x@corp.test " + right + "\n"})
			lines := strings.Split(found(t, host(t, false), dir), "\n")
			for _, want := range []string{"gap " + dir + "/virtual:1", "x@corp.test virtual asked redirect " + dir + "/virtual:1"} {
				if !slices.Contains(lines, want) {
					t.Errorf("no %q in %.1000q", want, lines)
				}
			}
		})
	}
}
