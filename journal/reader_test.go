package journal_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"relayguard/journal"
)

func reader(t *testing.T, dir string) *journal.Reader {
	t.Helper()
	r, err := journal.OpenReader(dir)
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r
}

// behind makes a journal whose database has the first records only, as when the
// daemon was killed before it was filled.
func behind(t *testing.T, first, then []journal.Record) (dir string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(first...))
	must(t, j.Close())
	aside := t.TempDir()
	must(t, exec.Command("cp", "-a", dir+"/.", aside).Run())
	j = open(t, journal.Options{Dir: dir})
	must(t, j.Append(then...))
	must(t, j.Close())
	for _, name := range segments(t, dir) {
		text, err := os.ReadFile(name)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(aside, "log", filepath.Base(name)), text, 0o600))
	}
	return aside
}

func TestReaderSeesWhatTheDatabaseDoesNotHave(t *testing.T) {
	one, two, three := held(1), held(2), accepted(3)
	dir := behind(t,
		[]journal.Record{one, two, journal.Value{Name: "a", Value: "1"}, journal.AdminAction{Time: start, Verb: "stop"}, journal.Incident{ID: "i", Opened: start}},
		[]journal.Record{
			journal.HoldChange{QueueID: one.QueueID, DecisionID: one.ID, Time: start, State: journal.StateReleased}, three,
			journal.Held{QueueID: three.QueueID, DecisionID: three.ID, Account: three.Account, Rule: "suspend", HeldAt: three.Time.Add(time.Second)},
			journal.Value{Name: "a", Value: "2"}, journal.AdminAction{Time: start.Add(time.Second), Verb: "start"},
		})
	r := reader(t, dir)
	if len(r.Remarks) > 0 {
		t.Errorf("remarks: %q", r.Remarks)
	}
	holds, err := r.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != 2 || holds[0].DecisionID != three.ID || holds[1].DecisionID != two.ID {
		t.Errorf("holds: %+v", holds)
	}
	decisions, err := r.Decisions(t.Context(), journal.Query{})
	must(t, err)
	var ids []string
	for _, d := range decisions {
		ids = append(ids, d.ID)
	}
	same(t, "decisions", ids, []string{three.ID, two.ID, one.ID})
	page, err := r.Decisions(t.Context(), journal.Query{Before: three.ID, Limit: 1})
	must(t, err)
	if len(page) != 1 || page[0].ID != two.ID {
		t.Errorf("page: %+v", page)
	}
	for id, state := range map[string]journal.State{one.QueueID: journal.StateReleased, three.ID: journal.StateHeld} {
		found, err := r.Explain(t.Context(), id)
		must(t, err)
		if len(found) != 1 || len(found[0].Holds) != 1 || found[0].Holds[0].State != state || found[0].Decision.ID == "" {
			t.Errorf("explain %s: %+v", id, found)
		}
	}
	value, _, err := r.Value(t.Context(), "a")
	must(t, err)
	if value != "2" {
		t.Errorf("value: %q", value)
	}
	actions, err := r.AdminActions(t.Context(), 10)
	must(t, err)
	if len(actions) != 2 || actions[0].Verb != "start" {
		t.Errorf("actions: %+v", actions)
	}
	incidents, err := r.Incidents(t.Context(), true)
	must(t, err)
	if len(incidents) != 1 {
		t.Errorf("incidents: %+v", incidents)
	}
	// It wrote nothing: the daemon fills the rest, once.
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Sync(t.Context()))
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 2 {
		t.Errorf("the daemon afterwards: %+v, %v", holds, err)
	}
}

func TestReaderWithoutDatabase(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":    os.Remove,
		"garbage": func(path string) error { return os.WriteFile(path, []byte(fmt.Sprintf("%5000d", 1)), 0o600) },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, journal.Options{Dir: dir})
			must(t, j.Append(held(1)))
			must(t, j.Close())
			must(t, spoil(filepath.Join(dir, "journal.db")))
			r := reader(t, dir)
			holds, err := r.Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			found, err := r.Explain(t.Context(), newID(1))
			must(t, err)
			if len(holds) != 1 || len(found) != 1 || len(r.Remarks) == 0 {
				t.Errorf("%d holds, %d decisions, remarks %q", len(holds), len(found), r.Remarks)
			}
		})
	}
	if _, err := journal.OpenReader(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error for a directory that is not there")
	}
}

func TestReaderBesideTheDaemon(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(1)))
	r := reader(t, dir)
	must(t, j.Append(held(2)))
	if holds, err := r.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 1 {
		t.Errorf("reader: %d holds, %v", len(holds), err)
	}
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 2 {
		t.Errorf("daemon: %d holds, %v", len(holds), err)
	}
}
