package journal_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
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
	shut     = journal.Bucket{Limit: "abuse", Value: "login:taro@example.jp", State: json.RawMessage(`{"latched":1}`)}
	counting = journal.Bucket{Limit: "login-hour", Value: "login:taro@example.jp", State: json.RawMessage(`{"used":3}`), Expires: start.Add(time.Hour)}
	trouble  = journal.Incident{ID: "i1", Origin: "login:taro@example.jp", Opened: start, Stops: 3, State: json.RawMessage(`{"id":"i1"}`)}
	ordered  = journal.AdminAction{Time: start, By: "hanako", LoginUID: -1, Verb: "suspend", Target: "login:taro@example.jp", Reason: "abuse"}
)

// precious appends what must outlast a broken database: ids 0 is held, 1 was
// released.
func precious(t *testing.T, j *journal.Journal) {
	t.Helper()
	released := held(1)
	must(t, j.Append(held(0), released,
		journal.HoldChange{QueueID: released.QueueID, DecisionID: released.ID, Time: start, State: journal.StateReleased},
		journal.Held{QueueID: "B0000001", Account: "login:jiro@example.jp", Rule: "suspended", HeldAt: start},
		shut, counting, trouble, ordered, ordered, journal.Value{Name: "place", Value: "42"}))
}

// checkPrecious sees to it that all of it is there, once.
func checkPrecious(t *testing.T, j *journal.Journal) {
	t.Helper()
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	reasons := make(map[string]string)
	for _, h := range holds {
		reasons[h.QueueID] = h.Rule
	}
	same(t, "holds", reasons, map[string]string{held(0).QueueID: "login-hour", "B0000001": "suspended"})
	if len(holds) != 2 {
		t.Errorf("%d holds: %+v", len(holds), holds)
	}
	var buckets []journal.Bucket
	must(t, j.Buckets(t.Context(), func(b journal.Bucket) error { buckets = append(buckets, b); return nil }))
	same(t, "buckets", buckets, []journal.Bucket{shut, counting})
	incidents, err := j.Incidents(t.Context(), true)
	must(t, err)
	same(t, "incidents", incidents, []journal.Incident{trouble})
	actions, err := j.AdminActions(t.Context(), 10)
	must(t, err)
	same(t, "admin actions", actions, []journal.AdminAction{ordered, ordered})
}

// A database that broke lost latches, counters and the reasons of old holds:
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
						if text, err := os.ReadFile(name); err != nil || bytes.Contains(text, []byte("latched")) {
							return false
						}
					}
					return true
				})
			}
			must(t, j.Close())
			spoilTables(t, filepath.Join(dir, "journal.db"), "decision", "value") // each costs only itself
			var resets atomic.Int32
			options.OnReset = func() { resets.Add(1) }
			j = open(t, options)
			must(t, j.Sync(t.Context()))
			if j.Health().Reset == "" || resets.Load() != 1 {
				t.Errorf("health %v, %d calls", j.Health(), resets.Load())
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
	noted := make(chan struct{}, 1)
	again := journal.Bucket{Limit: "again", Value: "server", State: json.RawMessage("{}")}
	var j *journal.Journal
	j = open(t, journal.Options{Dir: dir, SegmentBytes: 10 << 10, KeepLogBytes: 1, AcceptedPerSecond: 1 << 20, OnReset: func() {
		j.Note(again)
		noted <- struct{}{}
	}})
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
	select {
	case <-noted:
	case <-time.After(20 * time.Second):
		t.Fatal("OnReset was not called")
	}
	must(t, j.Sync(t.Context()))
	found := false
	must(t, j.Buckets(t.Context(), func(b journal.Bucket) error { found = found || b.Limit == again.Limit; return nil }))
	if !found {
		t.Error("what OnReset noted is missing")
	}
	j.Note(journal.Bucket{Limit: again.Limit, Value: again.Value})
	checkPrecious(t, j)
}

// A database of the first version was put aside, and most of it lost.
func TestOlderDatabaseIsMigrated(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	precious(t, j)
	must(t, j.Close())
	db, err := sql.Open("sqlite3", filepath.Join(dir, "journal.db"))
	must(t, err)
	_, err = db.Exec("DROP INDEX bucket_expires; ALTER TABLE bucket DROP COLUMN expires; PRAGMA user_version = 1")
	must(t, err)
	must(t, db.Close())
	must(t, os.RemoveAll(filepath.Join(dir, "log")))
	j = open(t, journal.Options{Dir: dir})
	if h := j.Health(); h.Reset != "" || !h.OK() {
		t.Errorf("health: %v", h)
	}
	must(t, j.Append(counting)) // the old row has no time
	checkPrecious(t, j)
	if got := explain(t, j, newID(0)); len(got) != 1 {
		t.Errorf("the decisions: %+v", got)
	}
	must(t, j.PurgeNow(t.Context(), start.Add(2*time.Hour)))
	var left []journal.Bucket
	must(t, j.Buckets(t.Context(), func(b journal.Bucket) error { left = append(left, b); return nil }))
	same(t, "buckets", left, []journal.Bucket{shut})
}

// Buckets were kept for ever.
func TestExpiredBucketsArePurged(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	const n = 1200 // several chunks
	for i := range n {
		j.Note(journal.Bucket{Limit: "domain", Value: fmt.Sprintf("sender_domain:%d.example", i), State: json.RawMessage("{}"), Expires: start.Add(time.Hour)})
	}
	j.Note(shut)
	later := counting
	later.Expires = start.Add(3 * time.Hour)
	j.Note(later)
	count := func() (n int) {
		t.Helper()
		must(t, j.Buckets(t.Context(), func(journal.Bucket) error { n++; return nil }))
		return n
	}
	must(t, j.PurgeNow(t.Context(), start.Add(time.Minute)))
	if got := count(); got != n+2 {
		t.Errorf("%d buckets before their time", got)
	}
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{2 * time.Hour, 2}, {1000 * day, 1}} {
		must(t, j.PurgeNow(t.Context(), start.Add(c.after)))
		if got := count(); got != c.want {
			t.Errorf("%d buckets after %v, want %d", got, c.after, c.want)
		}
	}
}
