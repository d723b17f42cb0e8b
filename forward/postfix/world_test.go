package postfix

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
	"relayguard/mta/postfix/postfixtest"
)

const worldMain = `myorigin = @DIR@/mailname
mydestination = $myhostname, corp.test, !not.test, not.test, @DIR@/names
virtual_alias_maps = texthash:@DIR@/virtual
virtual_mailbox_domains = texthash:@DIR@/boxes
relay_domains = relay.test, .below.test, regexp:@DIR@/pattern
recipient_delimiter = +-
swap_bangpath = no
proxy_interfaces = 198.51.100.7
`

func TestWorldIsWhatPostfixTakesForItsOwn(t *testing.T) {
	postfixtest.Need(t)
	for _, live := range []bool{true, false} {
		dir := plant(t, map[string]string{
			"main.cf": worldMain, "mailname": "corp.test\nsecond line\n", "names": "# names\nfile.test\n  more.test\n",
			"virtual": "Alias.Test anything\nuser@alias.test x@corp.test\nlocalname y@corp.test\n", "boxes": "box.test OK\n", "pattern": "/^x\\.test$/ OK\n/\\.y\\.test$/ OK\n",
		})
		plan := Plan(t.Context(), host(t, live), Options{ConfigDir: dir})
		w := plan.World
		for _, c := range []struct {
			what string
			got  map[string]bool
			want string
		}{
			{"local", w.Local, "corp.test file.test more.test mx.corp.test"},
			{"alias domains", w.AliasDomains, "alias.test"},
			{"mailboxes", w.Mailboxes, "box.test"},
			{"inside", w.Inside, ".below.test alias.test box.test corp.test file.test more.test mx.corp.test relay.test x.test"},
		} {
			if got := strings.Join(slices.Sorted(maps.Keys(c.got)), " "); got != c.want {
				t.Errorf("live %v: %s: got %q, want %q", live, c.what, got, c.want)
			}
		}
		for host, ours := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "mx.corp.test": false, "198.51.100.7": false} {
			if w.Hosts[host] != ours {
				t.Errorf("live %v: host %s is ours: %v, want %v", live, host, !ours, ours)
			}
		}
		if w.Origin != "corp.test" || w.Domain != "corp.test" || w.Delimiters != "+-" || !w.PercentHack || w.SwapBangPath || !w.AppendAtOrigin || w.AppendDotDomain {
			t.Errorf("live %v: %+v", live, w)
		}
		for _, file := range []string{"main.cf", "master.cf", "mailname", "names", "boxes", "virtual"} {
			if !slices.Contains(plan.Uses, filepath.Join(dir, file)) {
				t.Errorf("live %v: a change of %s asks for no other plan: %v", live, file, plan.Uses)
			}
		}
		if len(plan.Gaps) == 0 {
			t.Errorf("live %v: no word of the pattern that cannot be listed", live)
		}
	}
}

func TestHarmlessIsNotOutside(t *testing.T) {
	postfixtest.Need(t)
	files, err := filepath.Glob("testdata/rules/*harmless*.txt")
	if err != nil || len(files) < 2 {
		t.Fatalf("cases: %d found, %v", len(files), err)
	}
	for _, file := range files {
		parts := readCase(t, file)
		plan := Plan(t.Context(), host(t, false), Options{ConfigDir: plant(t, parts)})
		g := judge.New(plan.World)
		for _, u := range plan.Units {
			g.Set(u.ID, u.Read(t.Context()).Rules)
		}
		for _, f := range g.Findings() {
			agent := f.Verdict == forward.Opaque && strings.Contains(f.Note, "delivery agent")
			if f.Leaves() && !agent {
				t.Errorf("%s: %s %s %s: %s: %s", file, f.Owner, f.Mechanism, f.Target, f.Verdict, f.Note)
			}
		}
	}
}

func TestNoPostfixIsNoGap(t *testing.T) {
	dir := t.TempDir()
	plan := Plan(t.Context(), host(t, false), Options{ConfigDir: dir})
	if len(plan.Units) != 0 || len(plan.Gaps) != 0 {
		t.Errorf("got %+v", plan)
	}
	if !slices.Contains(plan.Uses, filepath.Join(dir, "main.cf")) {
		t.Errorf("a Postfix that comes would not be seen: %v", plan.Uses)
	}
}

func TestUnitsNameTheirFiles(t *testing.T) {
	postfixtest.Need(t)
	dir := plant(t, map[string]string{
		"main.cf": "virtual_alias_maps = proxy:hash:@DIR@/virtual.hash, unionmap:{texthash:@DIR@/a, lmdb:@DIR@/b}\n", "virtual.hash": "a@corp.test b@corp.test\n",
	})
	if err := os.Chown(filepath.Join(dir, "virtual.hash"), 4711, 0); err != nil {
		t.Fatal(err)
	}
	for _, u := range Plan(t.Context(), host(t, true), Options{ConfigDir: dir}).Units {
		if !strings.HasPrefix(u.ID, "virtual_alias_maps") {
			continue
		}
		for _, name := range []string{"virtual.hash", "virtual.hash.db", "a", "b.lmdb"} {
			if !slices.Contains(u.Paths, filepath.Join(dir, name)) {
				t.Errorf("%s is not among %v", name, u.Paths)
			}
		}
		if u.Writer != 4711 || !u.Server || u.Poll {
			t.Errorf("got %+v", u)
		}
		return
	}
	t.Error("no unit for virtual_alias_maps")
}

func TestHomesAreReadAsLocalDoes(t *testing.T) {
	postfixtest.Need(t)
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".forward"), []byte("out@evil.test\n|/bin/true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	account := forward.Account{Name: "carol", UID: os.Getuid(), GID: os.Getgid(), Home: home}
	for _, c := range []struct{ main, want string }{
		{"recipient_delimiter = +\n", "carol forward address redirect out@evil.test\ncarol forward program redirect /bin/true"},
		{"allow_mail_to_commands = alias\n", "broken"},
		{"forward_path =\n", ""},
		{"master_service_disable = local.unix\n", ""},
	} {
		dir := plant(t, map[string]string{"main.cf": c.main})
		h := host(t, false)
		h.Accounts = []forward.Account{account}
		if got := found(t, h, dir); !strings.Contains(got, c.want) || c.want == "" && strings.Contains(got, "carol") {
			t.Errorf("%q: got\n%s\nwant\n%s", c.main, got, c.want)
		}
	}
}

func TestRunningInstanceIsInForce(t *testing.T) {
	postfixtest.Need(t)
	parts := readCase(t, "testdata/rules/instances.txt")
	parts["third/queue/pid/master.pid"] = fmt.Sprintf("%*d\n", 20, os.Getpid())
	dir := plant(t, parts)
	got := found(t, host(t, true), dir)
	if !strings.Contains(got+"\n", "third@evil.test +server\n") {
		t.Errorf("an instance that runs, enabled or not: got\n%s", got)
	}
}
