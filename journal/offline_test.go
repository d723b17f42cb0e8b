package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"relayguard/journal"
)

func TestWhatIsAppendedOfflineIsInTheNextJournal(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	j, err := journal.Open(t.Context(), journal.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.OpenOffline(dir); !errors.Is(err, journal.ErrInUse) {
		t.Errorf("beside a living daemon: %v", err)
	}
	if err := j.Append(journal.Held{QueueID: "A1", Account: "login:a", Rule: "r", HeldAt: at, Arrival: at}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // the second has another's segment before it
		o, err := journal.OpenOffline(dir)
		if err != nil {
			t.Fatal(err)
		}
		state := []journal.State{journal.StateReleasing, journal.StateReleased}[round]
		if err := o.Append(journal.HoldChange{QueueID: "A1", Time: at.Add(time.Duration(round+1) * time.Minute), State: state, By: "root"}, journal.AdminAction{Time: at, By: "root", Verb: "held release", Target: "A1"}); err != nil {
			t.Fatal(err)
		}
		e, err := o.Explain(t.Context(), "A1")
		if err != nil || len(e) != 1 || e[0].Holds[0].State != state {
			t.Errorf("it does not see what it appended: %+v, %v", e, err)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if j, err = journal.Open(t.Context(), journal.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append(journal.AdminAction{Time: at.Add(time.Hour), By: "root", Verb: "later"}); err != nil {
		t.Fatal(err)
	}
	held, err := j.Holds(t.Context(), journal.HoldQuery{})
	if err != nil || len(held) != 0 {
		t.Errorf("still held: %+v, %v", held, err)
	}
	actions, err := j.AdminActions(t.Context(), 10)
	if err != nil || len(actions) != 3 || actions[0].Verb != "later" {
		t.Errorf("actions %+v, %v", actions, err)
	}
}

func TestOfflineSegmentsBelongToTheDirectorysOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	const daemon = 54321
	if err := os.Chown(dir, daemon, daemon); err != nil {
		t.Fatal(err)
	}
	o, err := journal.OpenOffline(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Append(journal.AdminAction{Time: time.Now(), By: "root", Verb: "stop"}); err != nil {
		t.Fatal(err)
	}
	made, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	if err != nil || len(made) != 1 {
		t.Fatalf("%v, %v", made, err)
	}
	for _, name := range []string{filepath.Join(dir, "log"), made[0]} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != daemon || s.Gid != daemon || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %d:%d %v", name, s.Uid, s.Gid, info.Mode())
		}
	}
}
