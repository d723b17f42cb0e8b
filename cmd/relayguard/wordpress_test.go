package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/cmd/internal/sites"
	"relayguard/wordpress"
)

// TestMain lets this program be the child that works on a site's files.
func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], siteHand[1:]) {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// newShop is a document root of an account that is not root.
func newShop(t *testing.T) (root string, uid int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, uid = filepath.Join(dir, "shop.example.jp"), os.Geteuid()
	if uid == 0 {
		uid = 65534
	}
	if err := os.MkdirAll(root+"/wp-content", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/wp-config.php", []byte("<?php\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{root, root + "/wp-content", root + "/wp-config.php"} {
		if err := os.Chown(path, uid, -1); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			os.Chown(path, uid, uid)
		}
	}
	return root, uid
}

// registering answers as the daemon does that keeps a register.
func registering(t *testing.T, known ...sites.Info) (d *fakeDaemon, register *[]sites.Info) {
	t.Helper()
	d = newFakeDaemon(t)
	all := append([]sites.Info{}, known...)
	d.on("GET /v1/sites", func(json.RawMessage) (any, error) { return all, nil })
	d.on("POST /v1/sites", func(in json.RawMessage) (any, error) {
		var r sites.Registration
		if err := json.Unmarshal(in, &r); err != nil {
			return nil, err
		}
		s := r.Site()
		all = slices.DeleteFunc(all, func(i sites.Info) bool { return i.Name == s.Name })
		all = append(all, sites.InfoOf(s))
		return sites.InfoOf(s), nil
	})
	d.on("DELETE /v1/sites/{name}", func(json.RawMessage) (any, error) {
		all = nil
		return sites.Removed{Was: true}, nil
	})
	return d, &all
}

func TestWordPressInstallStatusRemove(t *testing.T) {
	root, uid := newShop(t)
	d, register := registering(t)
	code, stdout, stderr := d.run("wordpress", "install", root)
	if code != exitFine || len(*register) != 1 || !strings.Contains(stdout, "shop.example.jp (by its directory; --site NAME says otherwise)") || stderr != "" {
		t.Fatalf("install: exit %d, %s, %s; registered %+v", code, stdout, stderr, *register)
	}
	first := (*register)[0]
	if first.Name != "shop.example.jp" || first.UID != uid || first.Root != root || len(first.KeyID) != 8 || !strings.Contains(stdout, first.KeyID) {
		t.Errorf("registered %+v", first)
	}
	if info, err := os.Stat(root + "/wp-content/" + wordpress.KeyPath); err != nil || info.Mode() != 0o400 {
		t.Errorf("key %v, %v", info, err)
	}
	for _, args := range [][]string{{"wordpress", "status"}, {"wordpress", "status", root}} {
		if code, stdout, stderr = d.run(args...); code != exitFine || !strings.Contains(stdout, "current  current  yes") || stderr != "" {
			t.Errorf("%q: exit %d, %s, %s", args, code, stdout, stderr)
		}
	}
	if code, stdout, _ = d.run("wordpress", "install", root, "--site", "shop.example.jp"); code != exitFine || (*register)[0] != first || !strings.Contains(stdout, "as they were") {
		t.Errorf("again: exit %d, %s, %+v", code, stdout, *register)
	}
	if code, _, stderr = d.run("wordpress", "install", root, "--new-key"); code != exitFine || (*register)[0].KeyID == first.KeyID {
		t.Errorf("a new key: exit %d, %s, %+v", code, stderr, *register)
	}
	code, stdout, stderr = d.run("wordpress", "remove", root)
	if code != exitFine || len(*register) != 0 || d.lastAsked("DELETE") != "DELETE /v1/sites/shop.example.jp " || !strings.Contains(stdout, "shop.example.jp is forgotten") {
		t.Errorf("remove: exit %d, %s, %s, asked %q", code, stdout, stderr, d.lastAsked("DELETE"))
	}
	if _, err := os.Stat(root + "/wp-content/" + wordpress.MustUsePath); !os.IsNotExist(err) {
		t.Errorf("the plugin: %v", err)
	}
	if code, stdout, _ = d.run("wordpress", "status", root); code != exitFinding || !strings.Contains(stdout, "missing  missing  no") {
		t.Errorf("status of what was removed: exit %d, %s", code, stdout)
	}
	if code, stdout, _ = d.run("wordpress", "remove", root); code != exitFine || !strings.Contains(stdout, "it was not") {
		t.Errorf("removed twice: exit %d, %s", code, stdout)
	}
}

func TestWordPressInstallWithoutTheDaemonDoesHalfAndSaysSo(t *testing.T) {
	root, _ := newShop(t)
	config, _ := commandDir(t)
	code, stdout, stderr := runIn(t, "wordpress", "install", root, "--site", "blog.example.jp", "--config", config)
	if code != exitCannotTell || !strings.Contains(stdout, "blog.example.jp") || !strings.Contains(stderr, "counts as unattributed until this command was run again") || !strings.Contains(stderr, startHint) {
		t.Errorf("install: exit %d, %s, %s", code, stdout, stderr)
	}
	if _, err := os.Stat(root + "/wp-content/" + wordpress.MustUsePath); err != nil {
		t.Error(err)
	}
	code, stdout, stderr = runIn(t, "wordpress", "status", root, "--config", config)
	if code != exitCannotTell || !strings.Contains(stdout, "current  current  not known") || !strings.Contains(stderr, startHint) {
		t.Errorf("status: exit %d, %s, %s", code, stdout, stderr)
	}
	if code, stdout, _ = runIn(t, "wordpress", "status", "--config", config); code != exitCannotTell || stdout != "" {
		t.Errorf("status of all: exit %d, %s", code, stdout)
	}
	code, stdout, stderr = runIn(t, "wordpress", "remove", root, "--config", config)
	if code != exitCannotTell || !strings.Contains(stdout, "removed: wp-content/"+wordpress.MustUsePath) || !strings.Contains(stderr, "may still have the site's key") {
		t.Errorf("remove: exit %d, %s, %s", code, stdout, stderr)
	}
}

func TestWordPressStatusTellsWhatIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *sites.Info)
		says   string
	}{
		"other key":     {func(s *sites.Info) { s.KeyID = "00000000" }, "other key"},
		"other account": {func(s *sites.Info) { s.UID = 4711 }, "other account"},
		"not there":     {func(s *sites.Info) { s.Root = "" }, "no"},
	} {
		t.Run(name, func(t *testing.T) {
			root, _ := newShop(t)
			d, register := registering(t)
			d.run("wordpress", "install", root)
			c.change(&(*register)[0])
			code, stdout, stderr := d.run("wordpress", "status", root, "--json")
			var got []siteState
			if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got) != 1 {
				t.Fatalf("%v: %s", err, stdout)
			}
			if code != exitFinding || got[0].Registered != c.says || len(got[0].Remarks) != 1 || !strings.Contains(got[0].Remarks[0], "relayguard wordpress install "+root) {
				t.Errorf("exit %d, %s, %s", code, stdout, stderr)
			}
		})
	}
}

func TestWordPressNamesAreEachSitesOwn(t *testing.T) {
	root, uid := newShop(t)
	other := sites.Info{Name: "shop.example.jp", UID: uid, KeyID: "11111111", Root: "/srv/www/other"}
	d, register := registering(t, other)
	code, _, stderr := d.run("wordpress", "install", root)
	if code != exitUsage || !strings.Contains(stderr, "site shop.example.jp is registered with /srv/www/other") {
		t.Errorf("another's name: exit %d, %s", code, stderr)
	}
	code, _, stderr = d.run("wordpress", "install", root, "--site", "two.example.jp")
	if code != exitFine || !strings.Contains(stderr, "also runs shop.example.jp: these sites can read each other's keys") {
		t.Errorf("two sites of one account: exit %d, %s", code, stderr)
	}
	code, _, stderr = d.run("wordpress", "install", root, "--site", "three.example.jp")
	if code != exitUsage || !strings.Contains(stderr, "is registered as two.example.jp") || len(*register) != 2 {
		t.Errorf("a second name: exit %d, %s, %+v", code, stderr, *register)
	}
}

func TestWordPressRemoveForgetsASiteThatIsGone(t *testing.T) {
	d, register := registering(t, sites.Info{Name: "shop.example.jp", UID: 4711, KeyID: "11111111", Root: "/srv/www/gone"})
	code, stdout, stderr := d.run("wordpress", "remove", "/srv/www/gone/")
	if code != exitFine || len(*register) != 0 {
		t.Errorf("exit %d, %s, %s", code, stdout, stderr)
	}
	if code, _, stderr = d.run("wordpress", "remove", "/srv/www/never"); code != exitUsage || !strings.Contains(stderr, "no site is registered there") {
		t.Errorf("never there: exit %d, %s", code, stderr)
	}
}

func TestWordPressRemoveTakesASitesNameAndPathsInAnyForm(t *testing.T) {
	root, _ := newShop(t)
	t.Chdir(filepath.Dir(root))
	away := sites.Info{Name: "away.example.jp", UID: -1, Login: "away", KeyID: "11111111"}
	for _, c := range [][2]string{{"shop.example.jp/", "."}, {"../" + filepath.Base(filepath.Dir(root)) + "/./shop.example.jp", "."}, {"shop.example.jp", "/"}} {
		t.Chdir(filepath.Join(filepath.Dir(root), c[1]))
		if c[1] == "/" {
			t.Chdir("/")
		}
		d, register := registering(t)
		if code, _, stderr := d.run("wordpress", "install", root); code != exitFine {
			t.Fatalf("install: exit %d, %s", code, stderr)
		}
		code, stdout, stderr := d.run("wordpress", "remove", c[0])
		if code != exitFine || len(*register) != 0 || !strings.Contains(stdout, "removed: wp-content/"+wordpress.MustUsePath) {
			t.Errorf("%q: exit %d, %s, %s", c, code, stdout, stderr)
		}
	}
	gone := filepath.Join(filepath.Dir(root), "gone")
	t.Chdir(filepath.Dir(root))
	for arg, site := range map[string]sites.Info{
		"away.example.jp":   away,
		"gone/":             {Name: "gone.example.jp", UID: 4711, KeyID: "11111111", Root: gone},
		"./x/../gone":       {Name: "gone.example.jp", UID: 4711, KeyID: "11111111", Root: gone},
		"gone.example.jp":   {Name: "gone.example.jp", UID: 4711, KeyID: "11111111", Root: gone},
		gone + "/":          {Name: "gone.example.jp", UID: 4711, KeyID: "11111111", Root: gone},
		"gone-2.example.jp": {Name: "gone-2.example.jp", UID: 4711, KeyID: "11111111", Root: "/nonexistent/shop"},
	} {
		d, register := registering(t, site)
		if code, stdout, stderr := d.run("wordpress", "remove", arg); code != exitFine || len(*register) != 0 || !strings.Contains(stdout, site.Name+" is forgotten") {
			t.Errorf("%s: exit %d, %s, %s", arg, code, stdout, stderr)
		}
	}
}

// A site that is no WordPress is installed with --user and --content once.
func TestWordPressContentAndAccountAreSaidOnce(t *testing.T) {
	root, uid := newShop(t)
	if err := os.Remove(root + "/wp-config.php"); err != nil {
		t.Fatal(err)
	}
	d, register := registering(t)
	if code, _, stderr := d.run("wordpress", "install", root, "--user", fmt.Sprint(uid), "--content", root+"/wp-content"); code != exitFine {
		t.Fatalf("install: exit %d, %s", code, stderr)
	}
	if first := (*register)[0]; first.Content != root+"/wp-content" || first.UID != uid {
		t.Errorf("registered %+v", first)
	}
	for _, args := range [][]string{{"status"}, {"status", root}} {
		if code, stdout, stderr := d.run(append([]string{"wordpress"}, args...)...); code != exitFine || !strings.Contains(stdout, "current  current  yes") {
			t.Errorf("%q: exit %d, %s, %s", args, code, stdout, stderr)
		}
	}
	if code, stdout, stderr := d.run("wordpress", "install", root); code != exitFine || !strings.Contains(stdout, "as they were") || (*register)[0].Content == "" {
		t.Errorf("again: exit %d, %s, %s", code, stdout, stderr)
	}
	if code, stdout, stderr := d.run("wordpress", "remove", root); code != exitFine || !strings.Contains(stdout, "removed: wp-content/"+wordpress.MustUsePath) || len(*register) != 0 {
		t.Errorf("remove: exit %d, %s, %s", code, stdout, stderr)
	}
}

func TestWordPressCopyOfASiteNeedsAKeyOfItsOwn(t *testing.T) {
	root, _ := newShop(t)
	d, register := registering(t)
	d.run("wordpress", "install", root)
	key := root + "/wp-content/" + wordpress.KeyPath
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	original := (*register)[0]
	(*register)[0].Root = "/srv/www/original" // and this is the copy
	code, _, stderr := d.run("wordpress", "install", root, "--site", "copy.example.jp")
	if code != exitUsage || !strings.Contains(stderr, "is that of site shop.example.jp (/srv/www/original)") || !strings.Contains(stderr, "--new-key makes one for copy.example.jp") || len(*register) != 1 {
		t.Errorf("exit %d, %s, %+v", code, stderr, *register)
	}
	if text, err := os.ReadFile(key); err != nil || string(text) != string(before) {
		t.Errorf("the key's file: %q, %v", text, err)
	}
	if code, _, stderr = d.run("wordpress", "install", root, "--site", "copy.example.jp", "--new-key"); code != exitFine || len(*register) != 2 || (*register)[1].KeyID == original.KeyID {
		t.Errorf("--new-key: exit %d, %s, %+v", code, stderr, *register)
	}
	before, _ = os.ReadFile(key)
	config, _ := commandDir(t)
	if code, _, _ = runIn(t, "wordpress", "install", root, "--site", "third.example.jp", "--config", config); code != exitCannotTell {
		t.Errorf("without the daemon: exit %d", code)
	}
	if text, err := os.ReadFile(key); err != nil || string(text) != string(before) {
		t.Errorf("without the daemon, the key's file: %q, %v", text, err)
	}
}

func TestWordPressLeavesForeignFiles(t *testing.T) {
	root, _ := newShop(t)
	foreign := root + "/wp-content/" + wordpress.MustUsePath
	if err := os.MkdirAll(filepath.Dir(foreign), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(foreign, []byte("<?php // theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	d, register := registering(t)
	if code, _, stderr := d.run("wordpress", "install", root); code != exitCannotTell || len(*register) != 0 || !strings.Contains(stderr, "not relayguard's") {
		t.Errorf("install: exit %d, %s, %+v", code, stderr, *register)
	}
	if code, stdout, _ := d.run("wordpress", "status", root); code != exitFinding || !strings.Contains(stdout, "foreign") {
		t.Errorf("status: exit %d, %s", code, stdout)
	}
	if code, _, stderr := d.run("wordpress", "remove", root); code != exitFinding || !strings.Contains(stderr, "not relayguard's") {
		t.Errorf("remove: exit %d, %s", code, stderr)
	}
	if text, err := os.ReadFile(foreign); err != nil || string(text) != "<?php // theirs" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestWordPressWrongCommandLines(t *testing.T) {
	root, _ := newShop(t)
	d, _ := registering(t)
	for _, c := range []struct {
		args string
		says string
	}{
		{"wordpress", "Usage:"},
		{"wordpress nope", `no command "nope"`},
		{"wordpress install", "PATH is missing"},
		{"wordpress install a b", `"b" is one argument too many`},
		{"wordpress install /nonexistent/shop", "/nonexistent/shop"},
		{"wordpress install /usr", "is /usr a WordPress?"},
		{"wordpress install " + root + " --user no-such-account", "no such account"},
		{"wordpress install " + root + " --site Shop!", "want letters, digits"},
		{"wordpress status a b", "one argument too many"},
		{"wordpress remove", "PATH is missing"},
		{"wordpress site-files x", "takes no argument"},
	} {
		code, stdout, stderr := d.run(strings.Fields(c.args)...)
		if code != exitUsage || !strings.Contains(stderr, c.says) || stdout != "" {
			t.Errorf("%s: exit %d, %q, %q; want %q", c.args, code, stdout, stderr, c.says)
		}
	}
	if d.lastAsked("POST") != "" || d.lastAsked("DELETE") != "" {
		t.Error("something was registered or forgotten")
	}
}

func TestWordPressShowsNothingOfAStrangersUnescaped(t *testing.T) {
	root, uid := newShop(t)
	d, _ := registering(t, sites.Info{Name: hostile, UID: uid, KeyID: hostile, Root: "/" + hostile}, sites.Info{Name: "x", UID: uid, Root: root})
	moved := filepath.Dir(root) + "/" + strings.NewReplacer("/", "", "\x00", "").Replace(hostile)
	if err := os.Mkdir(moved, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"install", root}, {"status"}, {"status", root}, {"remove", "/" + hostile}, {"remove", "/no" + hostile}, {"remove", moved}, {"install", moved}, {"install", moved, "--site", "x", "--user", fmt.Sprint(uid), "--content", root + "/wp-content"}, {"install", root, "--site", "y"}} {
		_, stdout, stderr := d.run(append([]string{"wordpress"}, args...)...)
		noTricks(t, fmt.Sprint(args), stdout+stderr)
	}
}
