package journal_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// spoilTables writes over the first page of each table in the file of a
// database, also of one that is open.
func spoilTables(t *testing.T, path string, tables ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	defer db.Close()
	var busy, inLog, done int
	must(t, db.QueryRow("PRAGMA wal_checkpoint(FULL)").Scan(&busy, &inLog, &done))
	var size int64
	must(t, db.QueryRow("PRAGMA page_size").Scan(&size))
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer file.Close()
	for _, table := range tables {
		var page int64
		must(t, db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = ?", table).Scan(&page))
		_, err := file.WriteAt(bytes.Repeat([]byte{0xa5}, int(size)), (page-1)*size)
		must(t, err)
	}
}

var (
	trouble   = journal.Incident{ID: "i1", Origin: "login:taro@example.jp", Opened: start, Stops: 3, State: json.RawMessage(`{"id":"i1"}`)}
	redisAway = journal.Trouble{What: "redis", Why: "no answer", Since: start, Until: start.Add(time.Minute)}
	ordered   = journal.AdminAction{Time: start, By: "hanako", LoginUID: -1, Verb: "suspend", Target: "login:taro@example.jp", Reason: "abuse"}
)

// waits is what a limit's hold waits for.
const waits = `{"keys":["login-hour/login:taro@example.jp"]}`

// precious appends what must outlast a broken database: ids 0 is held, 1 was
// released.
func precious(t *testing.T, j *journal.Journal) {
	t.Helper()
	released := held(1)
	waiting := held(0)
	waiting.Waits = json.RawMessage(waits)
	must(t, j.Append(waiting, released,
		journal.HoldChange{QueueID: released.QueueID, DecisionID: released.ID, Time: start, State: journal.StateReleased},
		journal.Held{QueueID: "B0000001", Account: "login:jiro@example.jp", Rule: "suspended", HeldAt: start},
		trouble, ordered, ordered, journal.Value{Name: "place", Value: "42"}, redisAway))
}

// checkPrecious sees to it that all of it is there, once.
func checkPrecious(t *testing.T, j *journal.Journal) {
	t.Helper()
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	reasons := make(map[string]string)
	for _, h := range holds {
		reasons[h.QueueID] = h.Rule + string(h.Waits)
	}
	same(t, "holds", reasons, map[string]string{held(0).QueueID: "login-hour" + waits, "B0000001": "suspended"})
	if len(holds) != 2 {
		t.Errorf("%d holds: %+v", len(holds), holds)
	}
	incidents, err := j.Incidents(t.Context(), true)
	must(t, err)
	same(t, "incidents", incidents, []journal.Incident{trouble})
	actions, err := j.AdminActions(t.Context(), 10)
	must(t, err)
	same(t, "admin actions", actions, []journal.AdminAction{ordered, ordered})
	troubles, err := j.Troubles(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	same(t, "troubles", troubles, []journal.Trouble{redisAway})
}

// A database that broke lost the reasons of old holds:
// the log that is left is short.
func TestBrokenDatabaseIsSalvaged(t *testing.T) {
	for name, short := range map[string]bool{"short log": true, "whole log": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			options := journal.Options{Dir: dir, SegmentBytes: 10 << 10, AcceptedPerSecond: 1 << 20}
			if short {
				options.KeepLogBytes = 1
			}
			j := open(t, options)
			precious(t, j)
			for i := range 300 {
				must(t, j.Append(accepted(10+i)))
			}
			must(t, j.Sync(t.Context()))
			if short {
				eventually(t, "the log is deleted", func() bool {
					for _, name := range segments(t, dir) {
						if text, err := os.ReadFile(name); err != nil || bytes.Contains(text, []byte(`"t":"incident"`)) {
							return false
						}
					}
					return true
				})
			}
			must(t, j.Close())
			spoilTables(t, filepath.Join(dir, "journal.db"), "decision", "value") // each costs only itself
			j = open(t, options)
			must(t, j.Sync(t.Context()))
			if j.Health().Reset == "" {
				t.Errorf("health %v", j.Health())
			}
			checkPrecious(t, j)
			if _, found, err := j.Value(t.Context(), "place"); err != nil || found == short {
				t.Errorf("the value of the broken table: found %v, %v", found, err)
			}
			totals, err := j.Totals(t.Context(), "", time.Time{}, time.Time{})
			must(t, err)
			for _, total := range totals {
				if total.Verdict == policy.Hold && total.Messages != 2 {
					t.Errorf("counted twice: %+v", total)
				}
			}
		})
	}
}

func TestDatabaseIsSalvagedWhileInUse(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir, SegmentBytes: 10 << 10, KeepLogBytes: 1, AcceptedPerSecond: 1 << 20})
	precious(t, j)
	for i := range 300 {
		must(t, j.Append(accepted(10+i)))
	}
	must(t, j.Sync(t.Context()))
	spoilTables(t, filepath.Join(dir, "journal.db"), "decision")
	i := 1000
	eventually(t, "the database is found broken", func() bool {
		must(t, j.Append(accepted(i)))
		i++
		_, _ = j.Decisions(t.Context(), journal.Query{Limit: 5000})
		return j.Health().Reset != ""
	})
	must(t, j.Sync(t.Context()))
	checkPrecious(t, j)
}
