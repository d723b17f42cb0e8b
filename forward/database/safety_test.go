package database_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"relayguard/forward"
	"relayguard/forward/database"
	"relayguard/forward/database/databasetest"
	"relayguard/forward/files"
)

func cf(t *testing.T, content string) string {
	t.Helper()
	return databasetest.Write(t, filepath.Join(t.TempDir(), "t.cf"), content)
}

const oneRow = "CREATE TABLE t (k VARCHAR(255), v VARCHAR(255)); INSERT INTO t VALUES ('alice@corp.test', 'a@evil.test');\n"

// valueOf lists a table of one key and returns its value.
func valueOf(t *testing.T, kind, cf string) string {
	t.Helper()
	pairs, err := database.New(host()).List(t.Context(), kind, cf)
	if err != nil || len(pairs) != 1 {
		t.Fatalf("list: %v, %v", pairs, err)
	}
	return pairs[0].Value
}

func TestMySQLSessionIsReadOnlyAndBounded(t *testing.T) {
	server := databasetest.StartMySQL(t)
	server.Exec(t, oneRow+"CREATE PROCEDURE put(IN p VARCHAR(255)) MODIFIES SQL DATA INSERT INTO t VALUES (p, 'x')")
	file := cf(t, server.CF()+"query = SELECT CONCAT(@@tx_read_only, ' ', @@max_statement_time) FROM t WHERE k = '%s'\n")
	if got := valueOf(t, "mysql", file); got != "ON 10.000000" {
		t.Errorf("read-only, seconds: %q", got)
	}
	out := filepath.Join(filepath.Dir(server.Socket), "out")
	writes(t, "mysql", server.CF(), map[string]string{
		"CALL put('%s')":                   "READ ONLY transaction",
		"INSERT INTO t VALUES ('%s', 'x')": "only reads",
		"SELECT v FROM t WHERE k = '%s' INTO OUTFILE '" + out + "'":            "writes a file",
		"SELECT v FROM t WHERE k = '%s' /*!50000 INTO OUTFILE '" + out + "'*/": "writes a file",
		"SELECT v FROM t WHERE k = '%s'; DELETE FROM t":                        "more than one statement",
	})
	if _, err := os.Stat(out); err == nil {
		t.Error("a query wrote a file")
	}
	if got := strings.TrimSpace(server.Exec(t, "SELECT COUNT(*) FROM t")); got != "1" {
		t.Errorf("%s rows after the queries", got)
	}
}

func TestPostgreSQLSessionIsReadOnlyAndBounded(t *testing.T) {
	server := databasetest.StartPostgres(t)
	server.Exec(t, oneRow+"CREATE FUNCTION put(p VARCHAR) RETURNS VARCHAR LANGUAGE sql AS 'INSERT INTO t VALUES (p, p) RETURNING v';")
	file := cf(t, server.CF()+"query = SELECT current_setting('transaction_read_only') || ' ' || current_setting('statement_timeout') FROM t WHERE k = '%s'\n")
	if got := valueOf(t, "pgsql", file); got != "on 10s" {
		t.Errorf("read-only, timeout: %q", got)
	}
	writes(t, "pgsql", server.CF(), map[string]string{
		"SELECT put('%s')": "read-only transaction",
		"WITH x AS (INSERT INTO t VALUES ('%s', 'x') RETURNING v) SELECT v FROM x": "read-only transaction",
		"SELECT v FROM t WHERE k = '%s'; COMMIT; DELETE FROM t":                    "more than one statement",
	})
	if got := strings.TrimSpace(server.Exec(t, "SELECT COUNT(*) FROM t")); got != "1" {
		t.Errorf("%s rows after the queries", got)
	}
}

// writes lists tables whose queries write; each has to fail, and to say why.
func writes(t *testing.T, kind, head string, queries map[string]string) {
	t.Helper()
	for query, why := range queries {
		d := database.New(host())
		d.Known = func() []string { return []string{"bob@corp.test"} }
		pairs, err := d.List(t.Context(), kind, cf(t, head+"query = "+query+"\n"))
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v; want %q", query, pairs, err, why)
		}
	}
}

func TestSQLiteIsNotWritten(t *testing.T) {
	file := makeSQLite(t, filepath.Join(t.TempDir(), "m.db"), oneRow)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	writes(t, "sqlite", "dbpath = "+file+"\n", map[string]string{
		"DELETE FROM t WHERE k = '%s'":                    "only reads",
		"WITH x AS (SELECT 1) DELETE FROM t":              "readonly",
		"SELECT v FROM t WHERE k='%s'; DROP TABLE t":      "more than one statement",
		"SELECT load_extension('/x') FROM t WHERE k='%s'": "not authorized",
	})
	after, err := os.ReadFile(file)
	if err != nil || string(after) != string(before) {
		t.Errorf("the file was written: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 1 {
		t.Errorf("files beside it: %v", entries)
	}
}

func TestPasswordsAreInNoError(t *testing.T) {
	const secret = "hunter2-hunter2"
	my, pg := databasetest.StartMySQL(t), databasetest.StartPostgres(t)
	for kind, head := range map[string]string{
		"mysql": strings.Replace(my.CF(), my.Password, secret, 1),
		"pgsql": strings.Replace(pg.CF(), pg.Password, secret, 1),
	} {
		_, err := database.New(host()).List(t.Context(), kind, cf(t, head+"query = SELECT v FROM t WHERE k='%s'\n"))
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, c := range []database.Config{
		{Driver: "pgsql", DSNFile: "postgres://mail:" + secret + "@%zz/mail"},
		{Driver: "pgsql", DSNFile: "host=/nowhere user=mail password=" + secret + " port=x"},
		{Driver: "mysql", DSNFile: "mail:" + secret + "@unix(/nowhere/mail"},
		{Driver: "mysql", DSNFile: "mail:" + secret + "@unix(/nowhere)/mail"},
	} {
		c.Name, c.DSNFile = "p", cf(t, c.DSNFile)
		r := database.Plan(t.Context(), host(), database.Options{Databases: []database.Config{c}}).Units[0].Read(t.Context())
		if len(r.Gaps) != 1 || strings.Contains(fmt.Sprint(r.Gaps), secret) {
			t.Errorf("gaps: %+v", r.Gaps)
		}
	}
	s := database.Secret(secret)
	if text := fmt.Sprintf("%v %s %q %#v %+v %x", s, s, s, s, struct{ S database.Secret }{s}, s); strings.Contains(text, "hunter") || strings.Contains(text, fmt.Sprintf("%x", secret)) {
		t.Errorf("printed as %s", text)
	}
}

// What was committed counts, in the log or not; what was not, does not. Neither
// way of reading leaves a trace.
func TestSQLiteWithWriteAheadLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.db")
	db, err := sql.Open("sqlite3", file+"?_journal_mode=WAL")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, statement := range []string{oneRow, "PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES ('bob@corp.test', 'b@evil.test')",
		"DELETE FROM t WHERE k = 'alice@corp.test'", "BEGIN", "INSERT INTO t VALUES ('carol@corp.test', 'c@evil.test')"} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if info, err := os.Stat(file + "-wal"); err != nil || info.Size() == 0 {
		t.Fatalf("no log: %v", err)
	}
	table := cf(t, "dbpath = "+file+"\nquery = SELECT v FROM t WHERE k = '%s'\n")
	for name, h := range map[string]*forward.Host{"live": host(), "copied disk": {Files: files.Local()}} {
		pairs, err := database.New(h).List(t.Context(), "sqlite", table)
		if err != nil || len(pairs) != 1 || pairs[0].Key != "bob@corp.test" {
			t.Errorf("%s: %v, %v", name, pairs, err)
		}
	}
}

// A database in WAL mode that nobody has open has no files beside it; a reader
// must not make them, least of all as root in a panel's directory.
func TestSQLiteInWALModeIsLeftAsItIs(t *testing.T) {
	file := makeSQLite(t, filepath.Join(t.TempDir(), "m.db"), "PRAGMA journal_mode=WAL;"+oneRow)
	for name, h := range map[string]*forward.Host{"live": host(), "copied disk": {Files: files.Local()}} {
		pairs, err := database.New(h).List(t.Context(), "sqlite", cf(t, "dbpath = "+file+"\nquery = SELECT v FROM t WHERE k = '%s'\n"))
		if err != nil || len(pairs) != 1 {
			t.Errorf("%s: %v, %v", name, pairs, err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(file)); len(entries) != 1 {
			t.Errorf("%s: files beside it: %v", name, entries)
		}
	}
}

func TestWhatCannotBeReadIsSaid(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"a", "b"} {
		if err := os.Symlink(map[string]string{"a": "b", "b": "a"}[link], filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	text := databasetest.Write(t, filepath.Join(dir, "text"), strings.Repeat("no database ", 1000))
	const query = "query = SELECT v FROM t WHERE k = '%s'\n"
	copied := &forward.Host{Files: files.Local()}
	for name, c := range map[string]struct {
		host             *forward.Host
		kind, cf, reason string
	}{
		"a FIFO":           {host(), "sqlite", cf(t, "dbpath = "+fifo+"\n"+query), "not a regular file"},
		"a FIFO, copied":   {copied, "sqlite", cf(t, "dbpath = "+fifo+"\n"+query), "not a regular file"},
		"links in a ring":  {host(), "sqlite", cf(t, "dbpath = "+dir+"/a\n"+query), "symbolic links"},
		"no database":      {host(), "sqlite", cf(t, "dbpath = "+text+"\n"+query), "no SQLite database"},
		"nothing there":    {host(), "sqlite", cf(t, "dbpath = "+dir+"/none\n"+query), "no such file"},
		"a relative path":  {host(), "sqlite", cf(t, "dbpath = mail.db\n"+query), "absolute"},
		"no query":         {host(), "sqlite", cf(t, "dbpath = "+text+"\n"), "neither query nor table"},
		"a bad template":   {host(), "sqlite", cf(t, "dbpath = "+text+"\nquery = SELECT '%x'\n"), "%x is no expansion"},
		"a bad number":     {host(), "sqlite", cf(t, "dbpath = "+text+"\nexpansion_limit = many\n"+query), "want a number"},
		"a copied disk":    {copied, "mysql", cf(t, "hosts = 192.0.2.1\n"+query), "copied disk"},
		"the main.cf form": {host(), "mysql", "aliases", "main.cf"},
		"another kind":     {host(), "mongo", cf(t, query), "no kind of database"},
		"no server":        {host(), "mysql", cf(t, "hosts = unix:"+dir+"/none\n"+query), dir + "/none"},
		"no ldap server":   {host(), "ldap", cf(t, "server_host = ldapi://%2Fnowhere\n"), "ldapi://%2Fnowhere"},
		"a bad filter":     {host(), "ldap", cf(t, "query_filter = (&(mail=%s)\n"), "parentheses"},
	} {
		pairs, err := database.New(c.host).List(t.Context(), c.kind, c.cf)
		if err == nil || len(pairs) > 0 || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s: %v, %v; want %q", name, pairs, err, c.reason)
		}
	}
}

// 100,000 rows: the exact way asks once, not a hundred thousand times.
func TestAHundredThousandRows(t *testing.T) {
	file := makeSQLite(t, filepath.Join(t.TempDir(), "m.db"), oneRow+
		`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) INSERT INTO t SELECT 'u' || i || '@corp.test', 'u' || i || '@evil.test' FROM n`)
	pairs, err := database.New(host()).List(t.Context(), "sqlite", cf(t, "dbpath = "+file+"\nquery = SELECT v FROM t WHERE k = '%s'\n"))
	if err != nil || len(pairs) != 100_000 {
		t.Errorf("%d pairs, %v", len(pairs), err)
	}
}
