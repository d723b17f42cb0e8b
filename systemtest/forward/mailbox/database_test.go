package mailbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-ldap/ldap/v3"
	_ "github.com/mattn/go-sqlite3"

	"relayguard/forward/database/databasetest"
	"relayguard/mta/postfix/postfixtest"
	"relayguard/systemtest/forward/forwardtest"
)

// Tables as PostfixAdmin makes them, so far as mail goes by them, and the queries
// that its documentation gives for Postfix.
const (
	adminTables = `CREATE TABLE alias (address VARCHAR(255) NOT NULL PRIMARY KEY, goto TEXT NOT NULL, domain VARCHAR(255) NOT NULL, active INT NOT NULL DEFAULT 1);
CREATE TABLE alias_domain (alias_domain VARCHAR(255) NOT NULL PRIMARY KEY, target_domain VARCHAR(255) NOT NULL, active INT NOT NULL DEFAULT 1);
INSERT INTO alias VALUES ('user@vbox.test', 'user@vbox.test', 'vbox.test', 1);
INSERT INTO alias VALUES ('%[1]soff@vbox.test', '%[1]soffout@evil.test', 'vbox.test', 0);
`
	aliasQuery       = "query = SELECT goto FROM alias WHERE address='%s' AND active = '1'\n"
	aliasDomainQuery = "query = SELECT goto FROM alias,alias_domain WHERE alias_domain.alias_domain = '%d' and alias.address = CONCAT('%u', '@', alias_domain.target_domain) AND alias.active = '1' AND alias_domain.active='1'\n"
)

// sqliteFile is a database with a panel's tables.
type sqliteFile struct{ path string }

func newSQLite(t *testing.T, path string) *sqliteFile {
	s := &sqliteFile{path}
	s.Exec(t, fmt.Sprintf(adminTables, "sq"))
	return s
}

// Exec runs SQL as another process would that has the file open for a moment.
func (s *sqliteFile) Exec(t testing.TB, text string) string {
	t.Helper()
	db, err := sql.Open("sqlite3", s.path)
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), text)
	must(t, err)
	return ""
}

const (
	ldapBase = `dn: ou=people,dc=corp,dc=test
objectClass: organizationalUnit
ou: people

dn: cn=ld1,ou=people,dc=corp,dc=test
objectClass: inetOrgPerson
objectClass: mailuser
cn: ld1
sn: x
mail: ld1@vbox.test
`
	ldapQuery = "query_filter = (&(objectClass=mailuser)(mail=%s))\nresult_attribute = maildrop\n"
)

// forwardByLDAP has the mail of an entry go elsewhere.
func forwardByLDAP(t *testing.T, s *databasetest.Slapd, name, target string) {
	t.Helper()
	conn, err := ldap.DialURL(s.URL)
	must(t, err)
	defer conn.Close()
	must(t, conn.Bind("cn=admin,dc=corp,dc=test", "admin"))
	change := ldap.NewModifyRequest("cn="+name+",ou=people,dc=corp,dc=test", nil)
	change.Add("maildrop", []string{target})
	must(t, conn.Modify(change))
}

// servers are started side by side.
type servers struct {
	mysql    *databasetest.MySQL
	postgres *databasetest.Postgres
	sqlite   *sqliteFile
	slapd    *databasetest.Slapd
}

func startServers(t *testing.T, dir string) *servers {
	t.Helper()
	for _, kind := range []string{"mysql", "pgsql", "sqlite", "ldap"} {
		databasetest.NeedPostmap(t, kind)
	}
	var s servers
	var all sync.WaitGroup
	all.Go(func() { s.mysql = databasetest.StartMySQL(t); s.mysql.Exec(t, fmt.Sprintf(adminTables, "my")) })
	all.Go(func() { s.postgres = databasetest.StartPostgres(t); s.postgres.Exec(t, fmt.Sprintf(adminTables, "pg")) })
	all.Go(func() { s.slapd = databasetest.StartSlapd(t, ldapBase) })
	all.Wait()
	if t.Failed() || s.mysql == nil || s.postgres == nil || s.slapd == nil {
		t.FailNow()
	}
	s.sqlite = newSQLite(t, filepath.Join(dir, "admin.db"))
	return &s
}

// maps writes the .cf files and names the tables, through proxymap as a Postfix with
// a chroot needs it.
func (s *servers) maps(t *testing.T, dir string) string {
	t.Helper()
	var tables []string
	for name, text := range map[string]string{
		"mysql:alias": s.mysql.CF() + aliasQuery, "mysql:aliasdomain": s.mysql.CF() + aliasDomainQuery,
		"pgsql:alias": s.postgres.CF() + aliasQuery, "sqlite:alias": "dbpath = " + s.sqlite.path + "\n" + aliasQuery,
		"ldap:alias": s.slapd.CF() + ldapQuery,
	} {
		kind, file, _ := strings.Cut(name, ":")
		tables = append(tables, "proxy:"+kind+":"+databasetest.Write(t, filepath.Join(dir, kind+"-"+file+".cf"), text))
	}
	return strings.Join(tables, ", ")
}

func databaseRules(s *servers) []mailRule {
	insert := func(db interface {
		Exec(testing.TB, string) string
	}, owner, target string) func(*testing.T, *world) {
		return func(t *testing.T, _ *world) {
			db.Exec(t, fmt.Sprintf("INSERT INTO alias VALUES ('%s', '%s', 'vbox.test', 1);", owner, target))
		}
	}
	return []mailRule{
		{name: "PostgreSQL", plant: insert(s.postgres, "pg1@vbox.test", "pg1out@evil.test"),
			want: "pg1@vbox.test virtual pg1out@evil.test outside redirect", how: "orig_to"},
		{name: "SQLite", plant: insert(s.sqlite, "sq1@vbox.test", "sq1out@evil.test"),
			want: "sq1@vbox.test virtual sq1out@evil.test outside redirect", how: "orig_to"},
		{name: "LDAP", plant: func(t *testing.T, _ *world) { forwardByLDAP(t, s.slapd, "ld1", "ld1out@evil.test") },
			want: "ld1@vbox.test virtual ld1out@evil.test outside redirect", how: "orig_to"},
		{name: "a copy beside the mailbox", plant: insert(s.postgres, "pg2@vbox.test", "pg2@vbox.test,pg2out@evil.test"),
			want: "pg2@vbox.test virtual pg2out@evil.test outside copy", how: "orig_to"},
	}
}

// TestDatabases: a panel's tables that Postfix asks, and a directory. Nobody tells of
// their changes: they are asked every forward.poll.
func TestDatabases(t *testing.T) {
	postfixtest.Need(t)
	dir := directory(t)
	s := startServers(t, dir)
	password := write(t, filepath.Join(dir, "panel.password"), s.mysql.Password+"\n", 0o600)
	w := start(t, dir, options{
		main:    map[string]string{"virtual_alias_maps": s.maps(t, dir)},
		forward: `dovecot = ""`,
		config: fmt.Sprintf("[[database]]\nname = \"admin\"\npanel = \"postfixadmin\"\ndriver = \"mysql\"\ndatabase = %q\naddress = %q\nuser = %q\npassword_file = %q\n",
			s.mysql.Database, s.mysql.Socket, s.mysql.User, password),
	})
	for _, gap := range forwardtest.Scan(t, w.Relay).Gaps {
		t.Errorf("%s: %s", gap.Source, gap.Why)
	}
	proveAll(t, w, databaseRules(s))
	for name, c := range map[string]struct{ sql, owner, target string }{
		"new in the panel":         {"INSERT INTO alias VALUES ('my1@vbox.test', 'my1out@evil.test', 'vbox.test', 1);", "my1@vbox.test", "my1out@evil.test"},
		"made active in the panel": {"UPDATE alias SET active = 1 WHERE address = 'myoff@vbox.test';", "myoff@vbox.test", "myoffout@evil.test"},
		"by a domain's alias":      {"INSERT INTO alias_domain VALUES ('other.test', 'vbox.test', 1); INSERT INTO alias VALUES ('my2@vbox.test', 'my2out@evil.test', 'vbox.test', 1);", "my2@vbox.test", "my2out@evil.test"},
	} {
		t.Run(name, func(t *testing.T) {
			mailRule{plant: func(t *testing.T, _ *world) { s.mysql.Exec(t, c.sql) },
				want: c.owner + " sql " + c.target + " outside redirect", also: "virtual", how: "orig_to"}.prove(t, w)
		})
	}
	t.Run("in use by Postfix", func(t *testing.T) { inUse(t.Context(), t, w) })
}

// inUse shows that Postfix itself finds in the tables what the guard told of.
func inUse(ctx context.Context, t *testing.T, w *world) {
	for key, want := range map[string]string{"my1@vbox.test": "my1out@evil.test", "pg2@vbox.test": "pg2@vbox.test,pg2out@evil.test", "ld1@vbox.test": "ld1out@evil.test"} {
		found := ""
		maps, err := w.Command(ctx, "postconf", "-h", "virtual_alias_maps")
		must(t, err)
		for table := range strings.FieldsFuncSeq(maps, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
			out, err := w.Command(ctx, "postmap", "-q", key, table)
			if err == nil {
				found += out
			}
		}
		if strings.TrimSpace(found) != want {
			t.Errorf("postmap -q %s: %q, want %q", key, found, want)
		}
	}
}
