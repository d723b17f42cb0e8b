package watchhelper_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/cmd/internal/watchhelper"
	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/files/wire"
)

func TestSecrets(t *testing.T) {
	for p, secret := range map[string]bool{
		"": true, "etc/aliases": true, "/etc/passwd": false, "/etc/aliases": false, "/etc/aliases.db": false,
		"/etc/shadow": true, "/etc/shadow-": true, "/etc/gshadow": true, "/var/spool/postfix/etc/shadow": true, "/srv/chroot/etc/shadow": true,
		"/var/backups/shadow.bak": true, "/var/lib/docker/overlay2/1f/diff/etc/shadow": true, "/proc/1/environ": true,
		"/home/a/.ssh/id_rsa": true, "/home/a/.pgpass": true, "/home/a/.aws/credentials": true, "/home/a/.bash_history": true, "/root/.my.cnf": true,
		"/etc/mysql/debian.cnf": true, "/etc/postfix/mysql.cf": false, "/etc/dovecot/dovecot-sql.conf.ext": false, "/etc/postfix/mysql.cnf": false,
		"/etc/postfix/sasl_passwd": true, "/etc/exim4/passwd.client": true, "/etc/postfix/sasl_passwd.db": true, "/etc/postfix/server.key": true, "/etc/dovecot/private/dovecot.pem": true,
		"/etc/ssl/private/mail.crt": true, "/var/www/shop/wp-config.php": true, "/swapfile": true,
		"/home/a/Maildir/new/1.2.h": true, "/home/a/Maildir/tmp/1.2.h": true, "/var/vmail/d/a/.Sent/tmp/1.2": true, "/home/a/mbox": true, "/var/mail/alice": true,
		"/var/vmail/d/a/mdbox/storage/m.1": true, "/tmp/list": false, "/home/a/.forward": false, "/home/a/sieve/new.sieve": false,
		"/var/vmail/corp.test/alice/.dovecot.sieve": false,
		"/var/spool/postfix/active/4B1":             true, "/var/spool/postfix/hold/4B1": true, "/var/spool/postfix/incoming/4B1": true, "/var/spool/postfix/deferred/4/4B1": true,
		"/var/spool/postfix-out/maildrop/4B1": true, "/var/spool/postfix/corrupt/4B1": true, "/var/spool/exim4/input/x-H": true, "/var/spool/mqueue/qfx": true,
		"/var/spool/postfix/etc/aliases": false, "/var/spool/postfix/pid/master.pid": false, "/var/spool/postfix/plesk/virtual.db": false,
	} {
		if watchhelper.Secret(p) != secret {
			t.Errorf("%s: secret=%v", p, !secret)
		}
	}
}

// A link leads to what it leads to, also for root.
func TestLinkToAKey(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(dir+"/.ssh", 0o755), os.WriteFile(dir+"/.ssh/id", []byte("secret"), 0o644), os.Symlink(".ssh/id", dir+"/.forward"))
	if text, _, err := remote(t).Read(t.Context(), dir+"/.forward", forward.ReadOptions{}); !errors.Is(err, fs.ErrPermission) || text != nil {
		t.Errorf("a link to a key: %q, %v", text, err)
	}
	// "The account may not read it" would be another thing: that its rules are
	// not in force.
	as := &forward.Account{UID: 5001, GID: 5001}
	must(t, os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755))
	if _, _, err := remote(t).Read(t.Context(), dir+"/.forward", forward.ReadOptions{As: as}); err == nil || errors.Is(err, fs.ErrPermission) {
		t.Errorf("as an account that could read it: %v", err)
	}
}

// shown is a file, whose it is, and whether the daemon gets it.
type shown struct {
	path string
	uid  int
	mode fs.FileMode
	as   *forward.Account
	want bool
}

// What the daemon could not read by itself it gets by purpose, and of a person's
// files what that person could read.
func TestShownByPurpose(t *testing.T) {
	needRoot(t)
	const daemon, www, alice, bob = 901, 33, 5001, 5002
	root, asAlice, asBob := &forward.Account{}, &forward.Account{UID: alice, GID: alice}, &forward.Account{UID: bob, GID: bob}
	dir, err := os.MkdirTemp("", "wh")
	must(t, err, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	accounts := []forward.Account{{Name: "root", Home: dir + "/root"}, {Name: "relayguard", UID: daemon, GID: daemon, Home: dir + "/state"},
		{Name: "www-data", UID: www, GID: www, Home: dir + "/www"}, {Name: "alice", UID: alice, GID: alice, Home: dir + "/home/alice"},
		{Name: "bob", UID: bob, GID: bob, Home: dir + "/home/bob"}}
	cases := []shown{
		{"home/alice/.forward", alice, 0o600, asAlice, true}, {"home/alice/.forward+x", alice, 0o600, nil, true}, {"home/alice/.procmailrc", 0, 0o600, nil, true},
		{"home/alice/sieve/a.sieve", alice, 0o600, asAlice, true}, {"home/alice/.sieve/parts", alice, 0o600, asAlice, true},
		{"home/alice/list", alice, 0o600, asAlice, true}, {"home/alice/list2", alice, 0o600, root, true}, {"home/alice/.procmail/rc.lists", alice, 0o600, nil, true},
		{"home/alice/notmine", bob, 0o600, asBob, false}, {"home/alice/roots", 0, 0o600, nil, false}, {"home/alice/roots2", 0, 0o600, root, false},
		{"home/alice/.pgpass", alice, 0o600, asAlice, false}, {"home/alice/.config/token", alice, 0o600, asAlice, false}, {"home/alice/.npmrc", alice, 0o644, asAlice, false},
		{"home/alice/mail/Sent", alice, 0o600, asAlice, false}, {"home/alice/mbox", alice, 0o600, nil, false}, {"home/alice/Inbox/12", alice, 0o600, asAlice, false},
		{"home/alice/box/tmp/12.sieve", alice, 0o600, asAlice, false}, {"home/alice/tmp/list", alice, 0o600, asAlice, true},
		{"root/.forward", 0, 0o600, nil, true}, {"root/.my.cnf", 0, 0o600, nil, false}, {"root/notes", 0, 0o600, nil, false}, {"root/prog", 0, 0o700, root, false},
		{"etc/postfix/mysql.cf", 0, 0o600, nil, true}, {"etc/postfix/sasl_passwd", 0, 0o600, nil, false}, {"etc/dovecot/users", 0, 0o600, nil, true},
		{"etc/aliases.db", 0, 0o600, nil, true}, {"etc/mysql/debian.cnf", 0, 0o600, nil, false}, {"etc/mysql/my.cnf", 0, 0o644, nil, true},
		{"etc/app/secret.conf", 0, 0o600, nil, false}, {"etc/app/open.conf", 0, 0o644, nil, true}, {"etc/ssl/ca.pem", 0, 0o644, nil, true}, {"etc/ssl/own.pem", 0, 0o600, nil, false},
		{"srv/maps/virtual_aliases.cdb", 0, 0o600, nil, true}, {"srv/maps/other", 0, 0o600, nil, false}, {"srv/maps/other2", 0, 0o600, root, false}, {"srv/bin/filter", 0, 0o700, nil, true},
		{"www/shop/config", www, 0o600, nil, false}, {"www/shop/wp-config.php", www, 0o644, nil, false}, {"srv/lists/members", bob, 0o600, nil, true},
		{"vmail/corp.test/a/.dovecot.sieve", www, 0o600, nil, true}, {"vmail/corp.test/a/mail/x", www, 0o600, nil, false},
	}
	must(t, os.MkdirAll(dir+"/home/alice/box/cur", 0o700), os.MkdirAll(dir+"/home/alice/box/new", 0o700))
	for _, c := range cases {
		p := dir + "/" + c.path
		must(t, os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte("text"), 0o600), os.Chown(p, c.uid, c.uid), os.Chmod(p, c.mode))
	}
	must(t, filepath.WalkDir(dir+"/home/alice", func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			err = errors.Join(err, os.Chown(p, alice, alice), os.Chmod(p, 0o700))
		}
		return err
	}), os.Chmod(dir+"/home", 0o755), os.Chmod(dir+"/home/alice", 0o711), os.Chmod(dir+"/root", 0o700))
	h := serve(t, socketIn(t), watchhelper.Options{AllowedUID: daemon, Accounts: func(context.Context) ([]forward.Account, error) { return accounts, nil }})
	for _, c := range cases {
		text, err := readAs(t, h.socket, daemon, dir+"/"+c.path, c.as)
		if c.want && (text != "text" || err != nil) || !c.want && (text != "" || err == nil) {
			t.Errorf("%s of %d, %o: %q, %v", c.path, c.uid, c.mode, text, err)
		}
		if !c.want && errors.Is(err, fs.ErrPermission) != (c.as == nil) {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	if n := strings.Count(h.log.String(), "home/alice/mbox"); n != 1 {
		t.Errorf("told %d times", n)
	}
	readAs(t, h.socket, daemon, dir+"/home/alice/mbox", nil)
	if n := strings.Count(h.log.String(), "home/alice/mbox"); n != 1 {
		t.Errorf("told %d times", n)
	}
	self := fmt.Sprintf("/proc/%d/", os.Getpid())
	if text, err := readAs(t, h.socket, daemon, self+"cmdline", nil); err != nil || !strings.Contains(text, "watchhelper.test") {
		t.Errorf("a command line: %q, %v", text, err)
	}
	for _, name := range []string{"environ", "maps", "task/1/environ"} {
		if text, err := readAs(t, h.socket, daemon, self+name, nil); err == nil || text != "" {
			t.Errorf("%s: %d octets", name, len(text))
		}
	}
	// Names are no secret.
	if infos, err := files.Dial(h.socket).ReadDir(t.Context(), dir+"/root", forward.ReadOptions{}); len(infos) != 4 || err != nil {
		t.Errorf("%v, %v", infos, err)
	}
}

// readAs reads a file as a peer of that uid.
func readAs(t *testing.T, socket string, uid int, p string, as *forward.Account) (string, error) {
	t.Helper()
	conn := connectAs(t, socket, uid)
	defer conn.Close()
	q := wire.Request{ID: 1, Verb: wire.Read, Paths: []string{p}, Max: 1 << 20, As: as}
	if _, err := conn.Write(q.Append(nil)); err != nil {
		t.Fatal(err)
	}
	var buf []byte
	text := ""
	for {
		b, err := wire.ReadFrame(conn, &buf)
		must(t, err)
		r, err := wire.ParseResponse(b)
		must(t, err)
		if r.Kind == wire.End {
			return text, r.Err()
		}
		text += string(r.Data)
	}
}

// What is in the place of a file a moment later is judged, too.
func TestReplacedWhileRead(t *testing.T) {
	needRoot(t)
	const daemon, alice = 901, 5001
	dir := filepath.Dir(socketIn(t))
	home := dir + "/alice"
	accounts := []forward.Account{{Name: "alice", UID: alice, GID: alice, Home: home}}
	must(t, os.Mkdir(home, 0o755), os.WriteFile(home+"/mine", []byte("mine"), 0o600), os.Chown(home+"/mine", alice, alice), os.WriteFile(home+"/roots", []byte("secret"), 0o600),
		os.Symlink("mine", home+"/list"), os.Chown(home, alice, alice))
	h := serve(t, socketIn(t), watchhelper.Options{AllowedUID: daemon, Accounts: func(context.Context) ([]forward.Account, error) { return accounts, nil }})
	done := make(chan bool)
	go func() {
		defer close(done)
		for n := range 2000 {
			os.Remove(home + "/next")
			if os.Symlink([]string{"mine", "roots"}[n%2], home+"/next") == nil {
				os.Rename(home+"/next", home+"/list")
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if text, err := readAs(t, h.socket, daemon, home+"/list", nil); text == "secret" || text != "mine" && err == nil {
			t.Fatalf("%q, %v", text, err)
		}
	}
}
