package journal_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

const day = 24 * time.Hour

func TestRetention(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir()})
	for i := range 1200 { // several chunks
		must(t, j.Append(accepted(i)))
	}
	open, closed := held(2000), held(2001)
	must(t, j.Append(open, closed,
		journal.HoldChange{QueueID: closed.QueueID, DecisionID: closed.ID, Time: start.Add(day), State: journal.StateDeleted},
		journal.AdminAction{Time: start, Verb: "suspend"},
		journal.Incident{ID: "i1", Opened: start, Closed: start.Add(time.Hour)},
		journal.Incident{ID: "i2", Opened: start}))
	must(t, j.Sync(t.Context()))
	type left struct{ decisions, holds, totals, actions, incidents int }
	count := func() (n left) {
		t.Helper()
		decisions, err := j.Decisions(t.Context(), journal.Query{Limit: 5000})
		must(t, err)
		holds, err := j.Holds(t.Context(), journal.HoldQuery{States: []journal.State{journal.StateHeld, journal.StateDeleted}})
		must(t, err)
		totals, err := j.Totals(t.Context(), "", time.Time{}, time.Time{})
		must(t, err)
		actions, err := j.AdminActions(t.Context(), 10)
		must(t, err)
		incidents, err := j.Incidents(t.Context(), false)
		must(t, err)
		return left{len(decisions), len(holds), len(totals), len(actions), len(incidents)}
	}
	for _, c := range []struct {
		after time.Duration
		want  left
	}{
		{29 * day, left{1202, 2, 2, 1, 2}},
		{30*day + time.Hour, left{1, 2, 2, 1, 2}}, // the decision of the open hold stays
		{31*day + time.Hour, left{1, 1, 2, 1, 2}},
		{399 * day, left{1, 1, 2, 1, 2}},
		{402 * day, left{1, 1, 0, 1, 1}},
		{3*365*day - time.Hour, left{1, 1, 0, 1, 1}},
		{3*365*day + time.Hour, left{1, 1, 0, 0, 1}},
	} {
		must(t, j.PurgeNow(t.Context(), start.Add(c.after)))
		same(t, fmt.Sprintf("after %v", c.after), count(), c.want)
	}
	if got := explain(t, j, open.ID); len(got) != 1 || len(got[0].Holds) != 1 {
		t.Errorf("the open hold: %+v", got)
	}
}

func TestLogIsDeletedWithRetention(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(1)))
	must(t, j.Close())
	log := segments(t, dir)
	old := time.Now().Add(-31 * day)
	must(t, os.Chtimes(log[0], old, old))
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(2)))
	must(t, j.Sync(t.Context()))
	must(t, j.PurgeNow(t.Context(), time.Now()))
	if _, err := os.Stat(log[0]); !os.IsNotExist(err) {
		t.Errorf("the old segment: %v", err)
	}
	if n := len(segments(t, dir)); n != 1 {
		t.Errorf("%d segments", n)
	}
}

func TestPurgeAccount(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	mine := []journal.Decision{accepted(1), held(2), held(3)}
	for i := range mine {
		mine[i].Account, mine[i].Login, mine[i].MailFrom, mine[i].HeaderFrom = "login:hanako@example.jp", "hanako@example.jp", "hanako@example.jp", "hanako@example.jp"
		mine[i].MessageID = fmt.Sprintf("<secret%d>", i)
		must(t, j.Append(mine[i]))
	}
	other := accepted(4)
	must(t, j.Append(other,
		journal.HoldChange{QueueID: mine[1].QueueID, DecisionID: mine[1].ID, Time: mine[1].Time, State: journal.StateReleased},
		journal.AdminAction{Time: start, Verb: "release", Target: "login:hanako@example.jp"}))
	must(t, j.PurgeAccount(t.Context(), "login:hanako@example.jp"))
	check := func() {
		t.Helper()
		decisions, err := j.Decisions(t.Context(), journal.Query{})
		must(t, err)
		if len(decisions) != 2 || decisions[0].ID != other.ID || decisions[1].ID != mine[2].ID {
			t.Errorf("left: %+v", decisions)
		}
		holds, err := j.Holds(t.Context(), journal.HoldQuery{States: []journal.State{journal.StateHeld, journal.StateReleased}})
		must(t, err)
		if len(holds) != 1 || holds[0].DecisionID != mine[2].ID {
			t.Errorf("left: %+v", holds)
		}
		totals, err := j.Totals(t.Context(), "login:hanako@example.jp", time.Time{}, time.Time{})
		must(t, err)
		for _, total := range totals {
			if total.Verdict != policy.Hold || total.Messages > 1 {
				t.Errorf("left: %+v", total)
			}
		}
		actions, err := j.AdminActions(t.Context(), 10)
		must(t, err)
		if len(actions) != 1 {
			t.Errorf("admin actions: %+v", actions)
		}
	}
	check()
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(name)
		must(t, err)
		for i, left := range []bool{false, false, true} {
			if got := bytes.Contains(text, []byte(fmt.Sprintf("<secret%d>", i))); got && !left {
				t.Errorf("%s has the Message-ID of a decision that was purged", name)
			}
		}
	}
	// A database that is filled again knows no more.
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	check()
}

// A purge left closed incidents in the log and in the database, and whatever was
// put aside.
func TestPurgeAccountLeavesNothing(t *testing.T) {
	const account = "login:hanako@example.jp"
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "journal.db"), bytes.Repeat([]byte("of hanako@example.jp "), 1000), 0o600))
	j := open(t, journal.Options{Dir: dir})
	incident := journal.Incident{ID: "i1", Origin: account, Opened: start}
	waiting := held(1)
	waiting.Account, waiting.Login, waiting.MailFrom, waiting.HeaderFrom = account, "hanako@example.jp", "hanako@example.jp", "hanako@example.jp"
	waiting.Counters = nil
	waiting.Waits = json.RawMessage(`{"known":{"account":"` + account + `","items":[4711471147114711]}}`)
	must(t, j.Append(incident, waiting, journal.HoldChange{QueueID: waiting.QueueID, DecisionID: waiting.ID, Time: waiting.Time, State: journal.StateGone}))
	incident.Closed = start.Add(time.Microsecond)
	must(t, j.Append(incident))
	must(t, j.PurgeAccount(t.Context(), account))
	check := func() {
		t.Helper()
		incidents, err := j.Incidents(t.Context(), false)
		must(t, err)
		if len(incidents) != 0 {
			t.Errorf("incidents: %+v", incidents)
		}
	}
	check()
	for _, name := range files(t, dir) {
		text, err := os.ReadFile(name)
		must(t, err)
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte("4711471147114711")) || bytes.Contains(line, []byte("hanako")) && !bytes.Contains(line, []byte(`"t":"purge"`)) {
				t.Errorf("%s: %.200q", name, line)
			}
		}
	}
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	check()
}

// They stayed for ever, with all addresses.
func TestDatabasesPutAsideAreDeletedWithRetention(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "journal.db"), bytes.Repeat([]byte("x"), 8192), 0o600))
	j := open(t, journal.Options{Dir: dir})
	for _, c := range []struct{ days, want int }{{29, 1}, {31, 0}} {
		must(t, j.PurgeNow(t.Context(), start.Add(time.Duration(c.days)*day)))
		aside, err := filepath.Glob(filepath.Join(dir, "journal.db.corrupt-*"))
		must(t, err)
		if len(aside) != c.want {
			t.Errorf("after %d days: %q", c.days, aside)
		}
	}
}

func TestDatabaseIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the look at the size, ten seconds")
	}
	j := open(t, journal.Options{Dir: t.TempDir(), AcceptedPerSecond: 1 << 20, MaxDatabaseBytes: 1 << 20})
	const n = 3000
	for i := range n {
		must(t, j.Append(accepted(i)))
	}
	must(t, j.Append(held(n)))
	eventually(t, "the oldest rows are deleted", func() bool { return j.Stats().PurgedEarly > 0 })
	decisions, err := j.Decisions(t.Context(), journal.Query{Limit: n + 1})
	must(t, err)
	if len(decisions) >= n || len(decisions) < 100 || decisions[0].ID != newID(n) || decisions[1].ID != newID(n-1) {
		t.Errorf("%d decisions left", len(decisions))
	}
}
