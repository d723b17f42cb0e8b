package journal_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// before5 leads a database of today back to version 4.
const before5 = `DROP TABLE volume; DROP TABLE trouble; DROP INDEX decision_bounced; ALTER TABLE decision DROP COLUMN first_time;
	ALTER TABLE total DROP COLUMN beside; ALTER TABLE label_total DROP COLUMN beside; DROP INDEX decision_template;
	CREATE INDEX decision_template ON decision (template, time, verdict, stage, recipients, repeats, account) WHERE template <> '';`

// before4 leads it back to version 3.
var before4 = func() string {
	text := before5 + "ALTER TABLE hold DROP COLUMN template; DROP TABLE label_total; DROP INDEX decision_site; DROP INDEX decision_plugin; DROP INDEX decision_node; DROP INDEX decision_template;"
	for _, column := range []string{"site", "site_by", "plugin", "plugin_by", "node", "template", "entry", "script", "web_client", "pool", "software"} {
		text += "ALTER TABLE decision DROP COLUMN " + column + ";"
	}
	return text + `ALTER TABLE hold DROP COLUMN site; ALTER TABLE hold DROP COLUMN plugin;
		ALTER TABLE incident DROP COLUMN account; ALTER TABLE incident DROP COLUMN addresses;`
}()

// olderVersions are what leads a database of today back to each version.
var olderVersions = map[int]string{
	1: before4 + `ALTER TABLE hold DROP COLUMN waits; ALTER TABLE hold DROP COLUMN charge_id;
		CREATE TABLE bucket (name TEXT NOT NULL, value TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (name, value)) STRICT, WITHOUT ROWID;
		INSERT INTO bucket VALUES ('login-hour', 'login:hanako@example.jp', '{}')`,
	2: before4 + `ALTER TABLE hold DROP COLUMN waits; ALTER TABLE hold DROP COLUMN charge_id;
		CREATE TABLE bucket (name TEXT NOT NULL, value TEXT NOT NULL, state TEXT NOT NULL, expires INTEGER NOT NULL DEFAULT 0,
			PRIMARY KEY (name, value)) STRICT, WITHOUT ROWID;
		CREATE INDEX bucket_expires ON bucket (expires) WHERE expires <> 0;
		INSERT INTO bucket VALUES ('login-hour', 'login:hanako@example.jp', '{}', 1)`,
	3: before4,
	4: before5,
}

// older makes a journal whose database is of that version, and has all there is.
func older(t *testing.T, version int) (dir string) {
	t.Helper()
	return olderOf(t, version, held(0), held(1))
}

// olderOf makes one of these records, without a log.
func olderOf(t *testing.T, version int, records ...journal.Record) (dir string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(records...))
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

// version3 makes a journal as version 3 left it, without a log.
func version3(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text, err := os.ReadFile("testdata/version3.sql")
	must(t, err)
	db, err := sql.Open("sqlite3", filepath.Join(dir, "journal.db"))
	must(t, err)
	_, err = db.Exec(strings.ReplaceAll(string(text), "@now", fmt.Sprint(start.UnixMicro())))
	must(t, err)
	must(t, db.Close())
	return dir
}

// journalRead is what both a journal and its reader answer.
type journalRead interface {
	Decisions(context.Context, journal.Query) ([]journal.Decision, error)
	Holds(context.Context, journal.HoldQuery) ([]journal.Hold, error)
	Incidents(context.Context, bool) ([]journal.Incident, error)
	Ranks(context.Context, journal.RankQuery) ([]journal.Rank, error)
	Volumes(ctx context.Context, since, until time.Time) ([]journal.Volume, error)
	Troubles(ctx context.Context, since, until time.Time) ([]journal.Trouble, error)
	Activity(context.Context, journal.ActivityQuery) ([]journal.Activity, error)
}

func TestVersion3IsReadAndMigrated(t *testing.T) {
	dir := version3(t)
	check := func(what string, j journalRead) {
		t.Helper()
		want := held(0)
		want.ID, want.Time, want.MessageID, want.QueueID, want.Findings, want.Counters = newID(3), start, "<3@example.jp>", "A0000003", nil, nil
		decisions, err := j.Decisions(t.Context(), journal.Query{Login: "taro@example.jp"})
		must(t, err)
		same(t, what+": decisions", decisions, []journal.Decision{want})
		for _, q := range []journal.Query{{Site: "shop.example.jp"}, {Plugin: "share"}, {Template: "a"}, {Node: "web3"}} {
			if found, err := j.Decisions(t.Context(), q); err != nil || len(found) > 0 {
				t.Errorf("%s: %+v: %+v, %v", what, q, found, err)
			}
		}
		holds, err := j.Holds(t.Context(), journal.HoldQuery{})
		must(t, err)
		incidents, err := j.Incidents(t.Context(), true)
		must(t, err)
		if len(holds) != 1 || holds[0].Site != "" || len(incidents) != 1 || incidents[0].Account != "" || incidents[0].Addresses != nil {
			t.Errorf("%s: holds %+v, incidents %+v", what, holds, incidents)
		}
		ranks, err := j.Ranks(t.Context(), journal.RankQuery{})
		must(t, err)
		same(t, what+": ranks", ranks, []journal.Rank{{Account: "login:taro@example.jp", Accounts: 1, Stops: 1, StoppedRecipients: 2}})
		ranks, err = j.Ranks(t.Context(), journal.RankQuery{By: journal.BySite})
		must(t, err)
		same(t, what+": sites", ranks, nil)
		volumes, err := j.Volumes(t.Context(), time.Time{}, time.Time{})
		must(t, err)
		same(t, what+": volumes", volumes, []journal.Volume{{Start: midnight.Add(12 * time.Hour), Verdict: policy.Hold, Messages: 1, Recipients: 2}})
		active, err := j.Activity(t.Context(), journal.ActivityQuery{Since: start.Add(-time.Hour), Until: start.Add(time.Hour)})
		must(t, err)
		same(t, what+": activity", active, []journal.Activity{{By: journal.ByAccount, Account: "login:taro@example.jp", Stopped: 2, FirstTime: -1, Held: 1, Usual: -1, UsualBounced: -1, UsualMost: -1}})
		if troubles, err := j.Troubles(t.Context(), time.Time{}, time.Time{}); err != nil || len(troubles) > 0 {
			t.Errorf("%s: troubles %+v, %v", what, troubles, err)
		}
	}
	check("reader", reader(t, dir))
	j := open(t, journal.Options{Dir: dir})
	check("journal", j)
	if h := j.Health(); !h.OK() || h.Reset != "" {
		t.Errorf("health: %v", h)
	}
	d := shared(4)
	must(t, j.Append(d))
	if got := explain(t, j, d.ID); len(got) != 1 || got[0].Decision.Plugin != "share-by-mail" {
		t.Errorf("after the migration: %+v", got)
	}
}

// Lines of version 3 have no labels.
func TestOlderLogLinesAreRead(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "log"), 0o700))
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(1)))
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	log, err := os.OpenFile(segments(t, dir)[0], os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	for _, text := range []string{
		fmt.Sprintf(`{"t":"decision","id":"0000000000005","time":%d,"stage":"message","verdict":"hold","account":"local_user:site12","uid":1001,"local_user":"site12","queue_id":"Q5","recipients":3}`, start.UnixMicro()),
		fmt.Sprintf(`{"t":"incident","id":"i-5","origin":"local_user:site12","cause":"day","opened":%d,"updated":%d,"stops":1,"state":{"id":"i-5"}}`, start.UnixMicro(), start.UnixMicro()),
	} {
		_, err := fmt.Fprintf(log, "%08x %s\n", crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)), text)
		must(t, err)
	}
	must(t, log.Close())
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	got := explain(t, j, "0000000000005")
	if len(got) != 1 || got[0].Decision.UID != 1001 || got[0].Decision.Site != "" || len(got[0].Holds) != 1 {
		t.Errorf("the decision: %+v", got)
	}
	incidents, err := j.Incidents(t.Context(), true)
	must(t, err)
	if len(incidents) != 1 || incidents[0].ID != "i-5" || j.Stats().Damaged != 0 {
		t.Errorf("incidents %+v, %+v", incidents, j.Stats())
	}
}
