package journal_test

import (
	"errors"
	"io/fs"
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
	if j, err = journal.Open(t.Context(), journal.Options{Dir: dir, Settle: patience}); err != nil {
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

// From here on: review 1, finding 13. The directory is the daemon's, and root
// follows nothing that the daemon's account put there.

const daemonUID = 54321

func chownAll(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, daemonUID, daemonUID))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// aJournal is the journal of a daemon that ended, below a directory of root's.
func aJournal(t *testing.T) (dir, beside string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	beside = t.TempDir()
	dir = filepath.Join(beside, "journal")
	j, err := journal.Open(t.Context(), journal.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.Append(journal.AdminAction{Time: time.Now(), By: "root", Verb: "first"}), j.Close()); err != nil {
		t.Fatal(err)
	}
	chownAll(t, dir)
	return dir, beside
}

func TestRootWritesNothingWhereALinkOfTheDaemonLeads(t *testing.T) {
	dir, beside := aJournal(t)
	victim := filepath.Join(beside, "etc")
	if err := errors.Join(os.Mkdir(victim, 0o755), os.RemoveAll(filepath.Join(dir, "log")), os.Symlink(victim, filepath.Join(dir, "log"))); err != nil {
		t.Fatal(err)
	}
	chownAll(t, dir)
	o, err := journal.OpenOffline(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Append(journal.AdminAction{Time: time.Now(), By: "root", Verb: "stop"}); err == nil {
		t.Error("it was appended somewhere")
	}
	if made, err := os.ReadDir(victim); err != nil || len(made) != 0 {
		t.Errorf("there is %v, %v", made, err)
	}
}

func TestRootFollowsItsOwnLinksToTheJournalAndNoOthers(t *testing.T) {
	dir, beside := aJournal(t)
	link := filepath.Join(beside, "link")
	if err := os.Symlink("./journal", link); err != nil {
		t.Fatal(err)
	}
	o, err := journal.OpenOffline(link)
	if err != nil {
		t.Fatalf("root's own link: %v", err)
	}
	if err := errors.Join(o.Append(journal.AdminAction{Time: time.Now(), By: "root", Verb: "stop"}), o.Close()); err != nil {
		t.Fatal(err)
	}
	if made, err := filepath.Glob(filepath.Join(dir, "log", "*.log")); err != nil || len(made) != 2 {
		t.Errorf("segments %v, %v", made, err)
	}
	if err := os.Lchown(link, daemonUID, daemonUID); err != nil {
		t.Fatal(err)
	}
	if o, err := journal.OpenOffline(link); err == nil {
		o.Close()
		t.Error("it follows a link of another account")
	}
}

func TestRootWaitsForNothingInTheJournal(t *testing.T) {
	for _, name := range []string{"journal.db", "log/0000000001.log", "log/9999999999.log"} {
		dir, _ := aJournal(t)
		fifo := filepath.Join(dir, name)
		if err := os.RemoveAll(fifo); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		chownAll(t, dir)
		done := make(chan error, 1)
		go func() {
			o, err := journal.OpenOffline(dir)
			if err == nil {
				err = o.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("root waits for the FIFO %s", name)
		}
	}
}
