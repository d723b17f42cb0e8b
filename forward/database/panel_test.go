package database_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/database"
	"relayguard/forward/database/databasetest"
)

// describe puts a rule on one line, as testdata/panels/*.want has them.
func describe(r forward.Rule) string {
	kind := map[forward.Kind]string{forward.NextHop: "nexthop ", forward.Program: "program ", forward.File: "file ", forward.Asked: "asked "}[r.Kind]
	line := fmt.Sprintf("%s %s > %s%s %s [%s]", r.Mechanism, r.Owner, kind, r.Target, r.Mode, r.Source)
	for _, flag := range []struct {
		set  bool
		word string
	}{{r.Server, "server"}, {r.Sender, "sender"}, {r.Dynamic, "dynamic"}, {r.Dormant != "", "dormant"}, {r.Broken != "", "broken"}, {r.Digest != "", "digest"}} {
		if flag.set {
			line += " " + flag.word
		}
	}
	return line
}

type panelCase struct {
	name, sql string
	want      []string
}

func panelCases(t *testing.T) []panelCase {
	t.Helper()
	names, err := filepath.Glob("testdata/panels/*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("no panels: %v", err)
	}
	var all []panelCase
	for _, n := range names {
		script, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(n, ".sql") + ".want")
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(want)), "\n")
		slices.Sort(lines)
		all = append(all, panelCase{name: strings.TrimSuffix(filepath.Base(n), ".sql"), sql: string(script), want: lines})
	}
	return all
}

// readPanel reads one database and compares; the panel is told by its tables.
func readPanel(t *testing.T, c panelCase, config database.Config) {
	t.Helper()
	config.Name = "p"
	plan := database.Plan(t.Context(), host(), database.Options{Databases: []database.Config{config}})
	if len(plan.Gaps) > 0 || len(plan.Units) != 1 || !plan.Units[0].Poll {
		t.Fatalf("plan: %+v", plan)
	}
	reading := plan.Units[0].Read(t.Context())
	var got []string
	for _, r := range reading.Rules {
		got = append(got, describe(r))
	}
	slices.Sort(got)
	if !slices.Equal(got, c.want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
	}
	for _, g := range reading.Gaps {
		if !strings.Contains(g.Why, "dora@corp.test") { // her script is broken
			t.Errorf("gap: %+v", g)
		}
	}
}

func TestPanelsInSQLite(t *testing.T) {
	for _, c := range panelCases(t) {
		t.Run(c.name, func(t *testing.T) {
			file := makeSQLite(t, filepath.Join(t.TempDir(), "p.db"), c.sql)
			readPanel(t, c, database.Config{Driver: "sqlite", DB: file})
		})
	}
}

func TestPanelsInMySQL(t *testing.T) {
	server := databasetest.StartMySQL(t)
	secret := databasetest.Write(t, filepath.Join(t.TempDir(), "pw"), server.Password+"\n")
	for _, c := range panelCases(t) {
		t.Run(c.name, func(t *testing.T) {
			server.Exec(t, "DROP DATABASE mail; CREATE DATABASE mail CHARACTER SET utf8mb4; USE mail;\n"+c.sql)
			readPanel(t, c, database.Config{Driver: "mysql", Panel: c.name, Address: "unix:" + server.Socket, User: server.User, PasswordFile: secret, DB: server.Database})
		})
	}
}

func TestPanelsInPostgreSQL(t *testing.T) {
	server := databasetest.StartPostgres(t)
	dsn := databasetest.Write(t, filepath.Join(t.TempDir(), "dsn"), `host='`+server.Dir+`' user=mail dbname=mail password='s3cret\'of\\pgsql'`)
	for _, c := range panelCases(t) {
		t.Run(c.name, func(t *testing.T) {
			server.Exec(t, "RESET ROLE; DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION mail; SET ROLE mail;\n"+c.sql)
			readPanel(t, c, database.Config{Driver: "pgsql", DSNFile: dsn})
		})
	}
}
