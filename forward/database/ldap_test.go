package database_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/forward/database"
	"relayguard/forward/database/databasetest"
)

func TestListIsWhatLDAPMapsAnswer(t *testing.T) {
	base, err := os.ReadFile("testdata/ldap/base.ldif")
	if err != nil {
		t.Fatal(err)
	}
	server := databasetest.StartSlapd(t, string(base))
	names, err := filepath.Glob("testdata/ldap/*.case")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, n := range names {
		c := readCase(t, n)
		t.Run(c.name, func(t *testing.T) {
			compare(t, c, "ldap", databasetest.Write(t, filepath.Join(t.TempDir(), "t.cf"), server.CF()+c.cf))
		})
	}
}

// More entries than the server gives at once, and than one page has.
func TestLDAPIsReadPageByPage(t *testing.T) {
	const people = 1700
	var ldif strings.Builder
	for i := range people {
		fmt.Fprintf(&ldif, "dn: uid=u%d,dc=corp,dc=test\nobjectClass: account\nobjectClass: mailuser\nuid: u%d\nmail: u%d@corp.test\nmaildrop: u%d@evil.test\n\n", i, i, i, i)
	}
	server := databasetest.StartSlapd(t, ldif.String())
	cf := databasetest.Write(t, filepath.Join(t.TempDir(), "t.cf"), server.CF()+"query_filter = (mail=%s)\n")
	pairs, err := database.New(host()).List(t.Context(), "ldap", cf)
	if err != nil || len(pairs) != people {
		t.Errorf("%d pairs, %v; want %d", len(pairs), err, people)
	}
}

func TestLDAPRefusesToBind(t *testing.T) {
	server := databasetest.StartSlapd(t, "")
	cf := databasetest.Write(t, filepath.Join(t.TempDir(), "t.cf"), strings.Replace(server.CF(), server.Password, "wr0ng-s3cret", 1)+"query_filter = (mail=%s)\n")
	_, err := database.New(host()).List(t.Context(), "ldap", cf)
	if err == nil || strings.Contains(err.Error(), "wr0ng-s3cret") || !strings.Contains(err.Error(), "ldapi://") {
		t.Errorf("got %v", err)
	}
}
