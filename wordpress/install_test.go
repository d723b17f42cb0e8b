package wordpress_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"relayguard/wordpress"
)

// childCommand makes the test program the child.
const childCommand = "site-files"

var hand = wordpress.Hand{"/proc/self/exe", childCommand}

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == childCommand {
		if err := wordpress.Child(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// siteUID is whose site it is: another's than root's.
func siteUID() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return nobody
}

// newSite is a WordPress with nothing in it, the site's own.
func newSite(t *testing.T) string {
	t.Helper()
	root := filepath.Join(openDir(t), "Shop.example.jp", "public_html")
	put(t, filepath.Join(root, "wp-config.php"), []byte("<?php\n"), 0o640)
	put(t, filepath.Join(root, "wp-content", "index.php"), []byte("<?php\n"), 0o644)
	given(t, root)
	return root
}

func find(t *testing.T, root, content, account string) *wordpress.Place {
	t.Helper()
	p, err := wordpress.Find(root, content, account)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// wantFile checks a file's mode and owner.
func wantFile(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Error(err)
		return
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; info.Mode() != mode || int(uid) != siteUID() {
		t.Errorf("%s: mode %v of uid %d, want %v of %d", path, info.Mode(), uid, mode, siteUID())
	}
}

func TestInstallStatusAndRemove(t *testing.T) {
	root := newSite(t)
	p := find(t, root, "", "")
	if p.UID != siteUID() || p.Root != root || p.Content != root+"/wp-content" || p.Name() != "shop.example.jp" {
		t.Errorf("found %+v, name %s", p, p.Name())
	}
	s, err := p.Status(t.Context(), hand)
	if err != nil || s.Plugin != wordpress.Missing || s.Key != wordpress.Missing {
		t.Errorf("status %+v, %v", s, err)
	}
	first, err := p.Install(t.Context(), hand, "shop.example.jp", wordpress.SameKey)
	if err != nil || len(first.Changed) != 2 {
		t.Fatalf("%+v, %v", first, err)
	}
	wantFile(t, filepath.Join(p.Content, wordpress.MustUsePath), 0o444)
	wantFile(t, filepath.Join(p.Content, wordpress.KeyPath), 0o400)
	again, err := p.Install(t.Context(), hand, "shop.example.jp", wordpress.SameKey)
	if err != nil || len(again.Changed) != 0 || again.Key.ID != first.Key.ID || !bytes.Equal(again.Key.Secret, first.Key.Secret) {
		t.Errorf("again: %+v, %v", again, err)
	}
	if s, err = p.Status(t.Context(), hand); err != nil || s.Plugin != wordpress.Current || s.Key != wordpress.Current || s.KeyID != first.Key.ID || len(s.Remarks) > 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	renewed, err := p.Install(t.Context(), hand, "shop.example.jp", wordpress.AnotherKey)
	if err != nil || renewed.Key.ID == first.Key.ID || !slices.Equal(renewed.Changed, []string{"wp-content/" + wordpress.KeyPath}) {
		t.Errorf("with a new key: %+v, %v", renewed, err)
	}
	removed, err := p.Remove(t.Context(), hand)
	if err != nil || len(removed.Changed) != 2 || len(removed.Remarks) > 0 {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if left, err := os.ReadDir(filepath.Join(p.Content, "mu-plugins")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if removed, err = p.Remove(t.Context(), hand); err != nil || len(removed.Changed) > 0 {
		t.Errorf("removed twice: %+v, %v", removed, err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	k := wordpress.NewKey()
	if text := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(text, fmt.Sprint(k.Secret)) || !strings.Contains(text, k.ID+":***") {
		t.Errorf("a key prints as %s", text)
	}
}

// What a site's owner puts in the way, before.
func TestNothingIsWrittenThroughLinksNorOverOthersFiles(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, content, victim string)
		says  string
	}{
		"mu-plugins is a link":        {func(t *testing.T, content, victim string) { link(t, victim, content+"/mu-plugins") }, "symbolic link"},
		"key directory is a link":     {func(t *testing.T, content, victim string) { link(t, victim, content+"/mu-plugins/relayguard") }, "symbolic link"},
		"plugin is a link":            {func(t *testing.T, content, victim string) { link(t, victim+"/file", content+"/"+wordpress.MustUsePath) }, "symbolic link"},
		"plugin is a link to nowhere": {func(t *testing.T, content, victim string) { link(t, victim+"/new", content+"/"+wordpress.MustUsePath) }, "symbolic link"},
		"key is a link":               {func(t *testing.T, content, victim string) { link(t, victim+"/file", content+"/"+wordpress.KeyPath) }, "symbolic link"},
		"plugin is a directory":       {func(t *testing.T, content, victim string) { os.MkdirAll(content+"/"+wordpress.MustUsePath, 0o755) }, "no plain file"},
		"plugin is a FIFO": {func(t *testing.T, content, victim string) {
			os.MkdirAll(content+"/mu-plugins", 0o755)
			if err := unix.Mkfifo(content+"/"+wordpress.MustUsePath, 0o666); err != nil {
				t.Fatal(err)
			}
		}, "no plain file"},
		"plugin is another's": {func(t *testing.T, content, victim string) {
			put(t, content+"/"+wordpress.MustUsePath, []byte("<?php // somebody else's"), 0o644)
		}, "not relayguard's"},
		"key is another's": {func(t *testing.T, content, victim string) {
			put(t, content+"/"+wordpress.KeyPath, []byte("<?php // somebody else's"), 0o644)
		}, "not relayguard's"},
	} {
		t.Run(name, func(t *testing.T) {
			root, victim := newSite(t), openDir(t)
			put(t, victim+"/file", []byte("precious"), 0o666)
			os.Chmod(victim, 0o777) // even where the site could
			c.spoil(t, root+"/wp-content", victim)
			given(t, root)
			before := listing(t, root)
			p := find(t, root, "", "")
			if _, err := p.Install(t.Context(), hand, "shop.example.jp", wordpress.SameKey); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("install: %v, want %q", err, c.says)
			}
			p.Remove(t.Context(), hand)
			p.Status(t.Context(), hand)
			if text, err := os.ReadFile(victim + "/file"); err != nil || string(text) != "precious" {
				t.Errorf("the victim's file: %q, %v", text, err)
			}
			if all, err := os.ReadDir(victim); err != nil || len(all) != 1 {
				t.Errorf("the victim's directory: %v, %v", all, err)
			}
			for _, was := range before {
				if !slices.Contains(listing(t, root), was) {
					t.Errorf("%s is gone or changed", was)
				}
			}
		})
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// listing is all that lies below a directory.
func listing(t *testing.T, dir string) (all []string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			text, _ := []byte(nil), 0
			if d.Type().IsRegular() {
				text, _ = os.ReadFile(path)
			}
			all = append(all, fmt.Sprint(path, d.Type(), string(text)))
		}
		return nil
	})
	return all
}

// A site's owner swaps directories for links all the time, to a directory that
// only root may write to.
func TestSwappedDirectoriesGiveNobodyARootWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "only root can write where a site cannot")
	}
	root, victim := newSite(t), openDir(t) // the victim is root's, mode 0755
	content := root + "/wp-content"
	for _, dir := range []string{"/mu-plugins/relayguard", "/other/relayguard"} {
		if err := os.MkdirAll(content+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, victim, content+"/link")
	given(t, root)
	stop := make(chan struct{})
	swapped := make(chan int)
	go func() {
		n := 0
		defer func() { swapped <- n }()
		for {
			for _, swap := range [][2]string{{"/mu-plugins", "/link"}, {"/mu-plugins/relayguard", "/link"}} {
				select {
				case <-stop:
					return
				default:
				}
				if unix.Renameat2(unix.AT_FDCWD, content+swap[0], unix.AT_FDCWD, content+swap[1], unix.RENAME_EXCHANGE) == nil {
					n++
				}
			}
		}
	}()
	p := find(t, root, "", "")
	for range 25 {
		p.Install(t.Context(), hand, "shop.example.jp", wordpress.AnotherKey)
		p.Remove(t.Context(), hand)
	}
	close(stop)
	if n := <-swapped; n < 25 {
		t.Errorf("swapped only %d times", n)
	}
	if all, err := os.ReadDir(victim); err != nil || len(all) > 0 {
		t.Errorf("written into root's directory: %v, %v", all, err)
	}
	for _, f := range listing(t, root) {
		if strings.Contains(f, "relayguard:") {
			path, _, _ := strings.Cut(f, ".php")
			wantOwner(t, path+".php")
		}
	}
}

func wantOwner(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil || info.Sys().(*syscall.Stat_t).Uid != nobody {
		t.Errorf("%s: %v, %v; want it to be the site's", path, info, err)
	}
}

// The child works with the rights of the site, and no more.
func TestWhereTheSiteMayNotWriteNothingIsWritten(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "needs root, to give files away")
	}
	root := newSite(t)
	os.Chown(root+"/wp-content", 0, 0)
	p := find(t, root, "", "nobody")
	if _, err := p.Install(t.Context(), hand, "shop.example.jp", wordpress.SameKey); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("install: %v", err)
	}
	if _, err := os.Lstat(root + "/wp-content/mu-plugins"); err == nil {
		t.Error("mu-plugins was made")
	}
}

func TestTheChildRefusesToBeRootAndStrangeOrders(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for order, says := range map[string]string{
		`{"act":"install","uid":0}`: "this is uid", `{"act":"install","uid":12345678}`: "this is uid", `{`: "read the order", ``: "read the order",
	} {
		var out bytes.Buffer
		if err := wordpress.Serve(strings.NewReader(order), &out, dir); err == nil || !strings.Contains(err.Error(), says) || out.Len() > 0 {
			t.Errorf("%s: %v, %s", order, err, &out)
		}
	}
}

// What the child answers is the site's word: it may be anything.
func TestAChildThatLiesHarmsNobody(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "needs root: without, there is no child")
	}
	p := find(t, newSite(t), "", "")
	for name, script := range map[string]string{
		"no JSON":        "echo nonsense",
		"too much":       "yes",
		"an exit code":   "exit 3",
		"no key":         "echo '{}'",
		"a strange key":  `echo '{"key_id":"x'"'"'y","secret":"AAAA"}'`,
		"a strange id":   `echo '{"key_id":"\u001b[2Jabcd","secret":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}'`,
		"a report of it": `echo '{"error":"no"}'`,
	} {
		lying := wordpress.Hand{"/bin/sh", "-c", script}
		if got, err := p.Install(t.Context(), lying, "shop.example.jp", wordpress.SameKey); err == nil {
			t.Errorf("%s: install says %+v", name, got)
		}
		if s, err := p.Status(t.Context(), lying); err == nil && (s.Plugin == wordpress.Current || s.KeyID != "") {
			t.Errorf("%s: status says %+v", name, s)
		}
	}
}

func TestStatusTellsOldForeignAndOpenFiles(t *testing.T) {
	root := newSite(t)
	p := find(t, root, "", "")
	if _, err := p.Install(t.Context(), hand, "shop.example.jp", wordpress.SameKey); err != nil {
		t.Fatal(err)
	}
	plugin, key := filepath.Join(p.Content, wordpress.MustUsePath), filepath.Join(p.Content, wordpress.KeyPath)
	put(t, plugin, append(wordpress.MustUse(), '\n'), 0o644)
	given(t, root)
	os.Chmod(key, 0o644)
	s, err := p.Status(t.Context(), hand)
	if err != nil || s.Plugin != wordpress.Other || s.Key != wordpress.Current || len(s.Remarks) != 1 || !strings.Contains(s.Remarks[0], "mode 0644") {
		t.Errorf("status %+v, %v", s, err)
	}
	put(t, plugin, []byte("<?php // foreign"), 0o644)
	put(t, key, bytes.ReplaceAll(wordpress.KeyFile("x", wordpress.NewKey()), []byte("'key'"), []byte("'no'")), 0o400)
	given(t, root)
	s, err = p.Status(t.Context(), hand)
	if err != nil || s.Plugin != wordpress.Foreign || s.Key != wordpress.Other || s.KeyID != "" {
		t.Errorf("status %+v, %v", s, err)
	}
	removed, err := p.Remove(t.Context(), hand)
	if err != nil || len(removed.Changed) != 1 || len(removed.Remarks) != 1 {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if _, err := os.Stat(plugin); err != nil {
		t.Errorf("the foreign file: %v", err)
	}
}

func TestFindSaysWhatIsNoSite(t *testing.T) {
	root := newSite(t)
	for name, c := range map[string]struct {
		config  string
		prepare func()
		root    string
		says    string
	}{
		"nothing there":       {root: root + "/nothing", says: "no such file"},
		"no WordPress":        {root: root + "/wp-content", says: "is " + root + "/wp-content a WordPress?"},
		"a file":              {root: root + "/wp-config.php", says: "no directory"},
		"the root directory":  {root: "/", says: "/ is none"},
		"content by a riddle": {config: "define( 'WP_CONTENT_DIR', realpath('..') );", root: root, says: "say --content"},
		"content relative":    {config: "define('WP_CONTENT_DIR', 'content');", root: root, says: "say --content"},
		"content is gone":     {config: "define('WP_CONTENT_DIR', __DIR__ . '/gone');", root: root, says: "gone"},
	} {
		put(t, root+"/wp-config.php", []byte("<?php\n"+c.config+"\n"), 0o644)
		given(t, root)
		if p, err := wordpress.Find(c.root, "", ""); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want %q", name, p, err, c.says)
		}
	}
	put(t, root+"/wp-config.php", []byte("<?php\n"), 0o644)
	given(t, root)
	if os.Geteuid() == 0 {
		os.Chown(root+"/wp-config.php", 0, 0)
		if _, err := wordpress.Find(root, "", ""); err == nil || !strings.Contains(err.Error(), "say --user") {
			t.Errorf("wp-config.php is root's: %v", err)
		}
		if _, err := wordpress.Find(root, "", "root"); err == nil || !strings.Contains(err.Error(), "root runs no site") {
			t.Errorf("--user root: %v", err)
		}
		os.Chown(root+"/wp-config.php", 1, 1)
		if _, err := wordpress.Find(root, "", ""); err == nil || !strings.Contains(err.Error(), "say --user") {
			t.Errorf("wp-config.php is another's than wp-content: %v", err)
		}
	}
	if _, err := wordpress.Find(root, "", "no-such-account"); err == nil || !strings.Contains(err.Error(), "no such account") {
		t.Errorf("--user no-such-account: %v", err)
	}
}

// A site must not lead root to another's directory.
func TestADocumentRootThatIsASitesLinkIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "needs root, to give links away")
	}
	root := newSite(t)
	at := filepath.Join(openDir(t), "www")
	link(t, root, at)
	for _, path := range []string{at, at + "/", at + "/."} {
		if err := os.Lchown(at, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		if _, err := wordpress.Find(path, "", ""); err == nil || !strings.Contains(err.Error(), "symbolic link of uid") {
			t.Errorf("%s: %v", path, err)
		}
		if err := os.Lchown(at, 0, 0); err != nil {
			t.Fatal(err)
		}
		if p := find(t, path, "", ""); p.Root != root {
			t.Errorf("root's link: found %s", p.Root)
		}
	}
}

func TestContentThatWasMovedIsFound(t *testing.T) {
	for _, define := range []string{
		"define( 'WP_CONTENT_DIR', __DIR__ . '/app' );",
		`define("WP_CONTENT_DIR", dirname(__FILE__) . "/app");`,
		"define('WP_CONTENT_DIR',ABSPATH.'app');",
		"define('WP_CONTENT_DIR', '%s/app');",
	} {
		root := newSite(t)
		put(t, root+"/wp-config.php", []byte("<?php\n// define('WP_CONTENT_DIR', '/x');\n"+strings.ReplaceAll(define, "%s", root)+"\n"), 0o644)
		put(t, root+"/app/index.php", nil, 0o644)
		given(t, root)
		if p := find(t, root, "", ""); p.Content != root+"/app" {
			t.Errorf("%s: content %s", define, p.Content)
		}
	}
	root := newSite(t)
	elsewhere := openDir(t)
	given(t, elsewhere)
	if p := find(t, root, elsewhere, ""); p.Content != elsewhere {
		t.Errorf("--content: %s", p.Content)
	}
	// As WordPress has it: the configuration above the document root.
	put(t, root+"/wp-settings.php", nil, 0o644)
	if err := os.Rename(root+"/wp-config.php", filepath.Dir(root)+"/wp-config.php"); err != nil {
		t.Fatal(err)
	}
	if p := find(t, root, "", ""); p.UID != siteUID() {
		t.Errorf("configuration above: %+v", p)
	}
}

func TestPHPFilesSayWhoseTheyAre(t *testing.T) {
	for _, text := range [][]byte{wordpress.Prepend(), wordpress.PrependWith("/x", "/y")} {
		if !wordpress.IsPrepend(text) {
			t.Error("a prepend does not know itself")
		}
	}
	if wordpress.IsPrepend(wordpress.MustUse()) || wordpress.IsPrepend(nil) {
		t.Error("another file is taken for a prepend")
	}
	for _, text := range [][]byte{wordpress.Prepend(), wordpress.MustUse()} {
		if bytes.Contains(text, []byte("relayguard:include")) || bytes.Count(text, []byte("<?php")) != 1 {
			t.Error("the common part is not in, or with its first line")
		}
	}
	if _, err := exec.LookPath("php"); err == nil {
		file := filepath.Join(t.TempDir(), "prepend.php")
		put(t, file, wordpress.PrependWith(`/it's\`, "/y'"), 0o644)
		if out, err := exec.Command("php", "-l", file).CombinedOutput(); err != nil {
			t.Errorf("%s", out)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(wordpress.KeyFile("shop.example.jp", wordpress.Key{ID: "0a1b2c3d", Secret: make([]byte, 32)}))
	f.Add([]byte("<?php return array('id' => '0a1b2c3d', 'key' => '');"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, ok := wordpress.ParseKey(text)
		if !ok {
			return
		}
		if again, ok := wordpress.ParseKey(wordpress.KeyFile("x", k)); !ok || again.ID != k.ID || !bytes.Equal(again.Secret, k.Secret) {
			t.Errorf("%q is read as %v, and that as %v", text, k, again)
		}
	})
}
