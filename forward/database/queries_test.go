package database_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"relayguard/forward"
	"relayguard/forward/database"
	"relayguard/forward/database/databasetest"
	"relayguard/forward/files"
)

// queryCase is a file of testdata/queries: tables, a .cf file's rest, keys on
// which the listing and postmap -q have to agree, and what it has to contain.
type queryCase struct {
	name, sql, cf string
	kinds, known  []string
	keys          []string
	want          map[string]string
	incomplete    bool
	whole         bool // "@domain" is for every address there, by itself
}

func readCase(t *testing.T, file string) queryCase {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := queryCase{name: strings.TrimSuffix(filepath.Base(file), ".case"), want: map[string]string{}}
	section := ""
	for line := range strings.Lines(string(data)) {
		text := strings.TrimRight(line, "\n")
		name, isHead := strings.CutPrefix(text, "== ")
		switch {
		case isHead:
			section = name
		case section == "":
			c.kinds = strings.Fields(text)[1:]
		case section == "sql":
			c.sql += line
		case section == "cf" && strings.HasPrefix(text, "known = "):
			c.known = strings.Fields(text)[2:]
		case section == "cf" && text == "whole = yes":
			c.whole = true
		case section == "cf" && text == "incomplete = yes":
			c.incomplete = true
		case section == "cf":
			c.cf += line
		case section == "keys":
			c.keys = append(c.keys, text)
		case section == "want":
			key, value, _ := strings.Cut(text, "\t")
			c.want[key] = strings.ReplaceAll(value, "<user>", forward.Unknown)
		default:
			t.Fatalf("%s: section %q", file, section)
		}
	}
	if len(c.kinds) == 0 || c.cf == "" || len(c.keys) == 0 {
		t.Fatalf("%s: not all is there", file)
	}
	return c
}

func cases(t *testing.T, kind string) []queryCase {
	t.Helper()
	names, err := filepath.Glob("testdata/queries/*.case")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var all []queryCase
	for _, n := range names {
		if c := readCase(t, n); slices.Contains(c.kinds, kind) {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		t.Fatalf("no cases for %s", kind)
	}
	return all
}

// host is this machine; its programs are not run by what is tested here.
func host() *forward.Host {
	return &forward.Host{Files: files.Local(), Run: func(context.Context, []byte, string, ...string) ([]byte, error) {
		return nil, errors.New("nothing is to be run")
	}}
}

// sorted brings a value's parts into an order: databases promise none.
func sorted(value string) string {
	parts := strings.Split(value, ",")
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// compare checks a case's listing against postmap -q.
func compare(t *testing.T, c queryCase, kind, cf string) {
	d := database.New(host())
	d.Known = func() []string { return c.known }
	pairs, err := d.List(t.Context(), kind, cf)
	var partly *database.Incomplete
	if err != nil && !(c.incomplete && errors.As(err, &partly)) || err == nil && c.incomplete {
		t.Fatalf("list: %v (incomplete is to be expected: %v)", err, c.incomplete)
	}
	have := map[string]string{}
	for _, p := range pairs {
		if _, twice := have[p.Key]; twice {
			t.Errorf("%q is there twice", p.Key)
		}
		have[p.Key] = p.Value
	}
	for key, want := range c.want {
		if sorted(have[key]) != sorted(want) {
			t.Errorf("%q: listed %q, want %q", key, have[key], want)
		}
	}
	postmap := databasetest.NewPostmap(t, kind)
	table := kind + ":" + cf
	keys := slices.Clone(c.keys)
	for key := range have {
		if !strings.HasPrefix(key, "@") && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		want, err := postmap.Try(table, key)
		if err != nil {
			want = "" // the lookup fails: no mail goes there
		}
		if got := answerOf(have, key, c.whole); sorted(got) != sorted(want) {
			t.Errorf("%q: listed %q, postmap -q says %q (%v)", key, got, want, err)
		}
	}
}

// answerOf is what the listing says of a key: its own entry, else that of its
// whole domain.
func answerOf(have map[string]string, key string, whole bool) string {
	key = strings.ToLower(key)
	if v, ok := have[key]; ok && !strings.Contains(v, forward.Unknown) {
		return v
	}
	user, domain, found := strings.Cut(key, "@")
	if !found || user == "" || !whole {
		return ""
	}
	return strings.ReplaceAll(have["@"+domain], forward.Unknown, user)
}

func TestListIsWhatSQLiteMapsAnswer(t *testing.T) {
	for _, c := range cases(t, "sqlite") {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			db := makeSQLite(t, filepath.Join(dir, "mail.db"), c.sql)
			compare(t, c, "sqlite", databasetest.Write(t, filepath.Join(dir, "t.cf"), "dbpath = "+db+"\n"+c.cf))
		})
	}
}

func makeSQLite(t *testing.T, file, script string) string {
	t.Helper()
	db, err := sql.Open("sqlite3", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestListIsWhatMySQLMapsAnswer(t *testing.T) {
	server := databasetest.StartMySQL(t)
	for _, c := range cases(t, "mysql") {
		t.Run(c.name, func(t *testing.T) {
			server.Exec(t, "DROP DATABASE mail; CREATE DATABASE mail CHARACTER SET utf8mb4; USE mail;\nSET sql_mode = 'NO_BACKSLASH_ESCAPES';\n"+c.sql)
			compare(t, c, "mysql", databasetest.Write(t, filepath.Join(t.TempDir(), "t.cf"), server.CF()+c.cf))
		})
	}
}

func TestListIsWhatPostgreSQLMapsAnswer(t *testing.T) {
	server := databasetest.StartPostgres(t)
	for _, c := range cases(t, "pgsql") {
		t.Run(c.name, func(t *testing.T) {
			server.Exec(t, "RESET ROLE; DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION mail; SET ROLE mail;\n"+c.sql)
			compare(t, c, "pgsql", databasetest.Write(t, filepath.Join(t.TempDir(), "t.cf"), server.CF()+c.cf))
		})
	}
}
