package journal_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"relayguard/journal"
)

// olderVersions are what leads a database of today back to each version.
var olderVersions = map[int]string{
	1: `ALTER TABLE hold DROP COLUMN waits; ALTER TABLE hold DROP COLUMN charge_id;
		CREATE TABLE bucket (name TEXT NOT NULL, value TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (name, value)) STRICT, WITHOUT ROWID;
		INSERT INTO bucket VALUES ('login-hour', 'login:hanako@example.jp', '{}')`,
	2: `ALTER TABLE hold DROP COLUMN waits; ALTER TABLE hold DROP COLUMN charge_id;
		CREATE TABLE bucket (name TEXT NOT NULL, value TEXT NOT NULL, state TEXT NOT NULL, expires INTEGER NOT NULL DEFAULT 0,
			PRIMARY KEY (name, value)) STRICT, WITHOUT ROWID;
		CREATE INDEX bucket_expires ON bucket (expires) WHERE expires <> 0;
		INSERT INTO bucket VALUES ('login-hour', 'login:hanako@example.jp', '{}', 1)`,
}

// older makes a journal whose database is of that version, and has all there is.
func older(t *testing.T, version int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(0), held(1)))
	must(t, j.Close())
	db, err := sql.Open("sqlite3", filepath.Join(dir, "journal.db"))
	must(t, err)
	_, err = db.Exec(olderVersions[version] + fmt.Sprintf("; PRAGMA user_version = %d", version))
	must(t, err)
	must(t, db.Close())
	must(t, os.RemoveAll(filepath.Join(dir, "log")))
	return dir
}

// A database of the first version was put aside, and most of it lost.
func TestOlderDatabaseIsMigrated(t *testing.T) {
	for version := range olderVersions {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			dir := older(t, version)
			j := open(t, journal.Options{Dir: dir})
			if h := j.Health(); h.Reset != "" || !h.OK() {
				t.Errorf("health: %v", h)
			}
			must(t, j.Append(journal.HoldChange{QueueID: held(0).QueueID, DecisionID: newID(0), Time: start, State: journal.StateReleasing, ChargeID: "release:0"}))
			holds, err := j.Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			if len(holds) != 2 || holds[0].Waits != nil || holds[1].ChargeID != "release:0" {
				t.Errorf("holds: %+v", holds)
			}
			if got := explain(t, j, newID(0)); len(got) != 1 {
				t.Errorf("the decisions: %+v", got)
			}
			must(t, j.Close())
			for _, name := range files(t, dir) {
				if text, err := os.ReadFile(name); err != nil || bytes.Contains(text, []byte("hanako")) {
					t.Errorf("%s still has a counter; %v", name, err)
				}
			}
		})
	}
}

func TestOlderDatabaseIsReadAndSalvaged(t *testing.T) {
	for version := range olderVersions {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			dir := older(t, version)
			holds, err := reader(t, dir).Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			if len(holds) != 2 {
				t.Errorf("reader: %+v", holds)
			}
			spoilTables(t, filepath.Join(dir, "journal.db"), "decision")
			j := open(t, journal.Options{Dir: dir})
			holds, err = j.Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			if len(holds) != 2 || j.Health().Reset == "" {
				t.Errorf("health %v, holds %+v", j.Health(), holds)
			}
		})
	}
}

// The log of an earlier version is full of counters.
func TestCountersInAnOlderLogArePassedOver(t *testing.T) {
	dir := unfilled(t, 2)
	log, err := os.OpenFile(segments(t, dir)[0], os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	for _, text := range []string{
		`{"t":"bucket","limit":"login-hour","key":"login:hanako@example.jp","state":{"cells":[1,2,3]}}`,
		`{"t":"bucket","limit":"login-hour","key":"login:hanako@example.jp"}`,
	} {
		_, err := fmt.Fprintf(log, "%08x %s\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)), text)
		must(t, err)
	}
	must(t, log.Close())
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(2)))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if s := j.Stats(); len(holds) != 3 || s.Damaged != 0 {
		t.Errorf("%d holds, %+v", len(holds), s)
	}
	must(t, j.PurgeAccount(t.Context(), "login:hanako@example.jp"))
	for _, name := range segments(t, dir) {
		text, err := os.ReadFile(name)
		must(t, err)
		if bytes.Contains(text, []byte(`"t":"bucket"`)) {
			t.Errorf("%s has a counter after a purge", name)
		}
	}
}
