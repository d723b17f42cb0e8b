package database_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"relayguard/forward/database"
)

const usersScript = `CREATE TABLE u (user, domain, home, sieve, active);
INSERT INTO u VALUES ('alice', 'corp.test', '/m/a', NULL, 1);
INSERT INTO u VALUES ('bob', 'corp.test', '/m/b', '/x.sieve', 1);
INSERT INTO u VALUES ('gone', 'corp.test', '/m/g', NULL, 0);
CREATE TABLE w (username, home);
INSERT INTO w VALUES ('alice@corp.test', '/m/a');
`

// TestUsersOfSQLite: every user has the columns that Dovecot would get; a query of
// which that cannot be said is refused.
func TestUsersOfSQLite(t *testing.T) {
	file := makeSQLite(t, filepath.Join(t.TempDir(), "u.db"), usersScript)
	for query, want := range map[string][]string{
		"SELECT home, 8 AS uid, sieve FROM u WHERE user = '%n' AND domain='%d' AND active=1": {
			"alice@corp.test home=/m/a uid=8", "bob@corp.test home=/m/b sieve=/x.sieve uid=8"},
		"SELECT '/v/%d/%n' AS \"home\", u.sieve FROM u WHERE user || '@' || domain = '%Lu' AND sieve IS NOT NULL": {
			"bob@corp.test home=/v/corp.test/bob sieve=/x.sieve"},
		"SELECT home AS HOME FROM w WHERE username = '%{user | lower}'": {"alice@corp.test home=/m/a"},
		"SELECT * FROM w WHERE username = '%u'":                         nil,
		"SELECT home || 'x' FROM w WHERE username = '%u'":               nil,
		"SELECT home FROM w WHERE username = '%u' LIMIT 1":              nil,
		"SELECT home FROM w WHERE username = '%u' OR '%u' = 'x@y'":      nil,
		"SELECT home FROM w WHERE username = '%u' AND '%s' = 'imap'":    nil,
		"SELECT '/v/%n' AS home FROM u WHERE domain = '%d'":             nil,
		"DELETE FROM w WHERE username = '%u'":                           nil,
	} {
		users, err := database.New(host()).Users(t.Context(), database.UserQuery{Kind: "sqlite", Query: query, Settings: map[string]string{"dbpath": file}})
		var got []string
		for _, u := range users {
			line := u.Name
			for _, k := range slices.Sorted(maps.Keys(u.Fields)) {
				line += fmt.Sprintf(" %s=%s", k, u.Fields[k])
			}
			got = append(got, line)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s:\n got %q, %v\nwant %q", query, got, err, want)
		}
	}
}
