package postfix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// Each state in which a kill -9 may leave a restore: the message comes back once.
func TestRestoreGoesOnWhereAnotherDied(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]struct{ half, note, sent bool }{
		"marked":                     {},
		"written":                    {half: true},
		"written and noted":          {half: true, note: true},
		"back, and has been sent":    {note: true, sent: true},
		"back, and is still on hold": {note: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newQueueTest(t, nil)
			keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
			held := q.send(true, "a@example.org", "one@example.jp")
			results, err := q.i.DeleteMail(q.ctx, held, keep)
			q.fates("delete", results, err, mta.Done)
			kept, err := keep.List()
			if err != nil || len(kept) != 1 {
				t.Fatalf("%+v, %v", kept, err)
			}
			entry, half := filepath.Join(keep.Dir, kept[0].Name), filepath.Join(q.QueueDir, halfOf(kept[0].Name))
			text, err := os.ReadFile(filepath.Join(entry, "queue"))
			if err != nil {
				t.Fatal(err)
			}
			noted := "4ZJ1k82Vz1y" // an id that was never used
			if state.note && !state.half {
				back, err := q.i.RestoreMail(q.ctx, keep, []string{kept[0].Name})
				q.fates("restore", back, err, mta.Done)
				noted = back[0].NewID
				if err := os.MkdirAll(entry+"~back", 0o700); err == nil {
					err = os.WriteFile(filepath.Join(entry+"~back", "queue"), text, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				if state.sent {
					results, err := q.i.DeleteMail(q.ctx, []mta.Target{q.queue()[noted].Target()}, nil)
					q.fates("it leaves", results, err, mta.Done)
				}
			} else if err := os.Rename(entry, entry+"~back"); err != nil {
				t.Fatal(err)
			} else if state.note {
				if err := os.Symlink(noted, entry+"~to"); err != nil {
					t.Fatal(err)
				}
			}
			if state.half {
				if err := os.WriteFile(half, text, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := q.i.TidyRestores(q.ctx, keep); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Lstat(half); err != nil {
					t.Fatalf("tidied away what the restore needs: %v", err)
				}
			}
			back, err := q.i.RestoreMail(q.ctx, keep, []string{kept[0].Name})
			q.fates("restore again", back, err, mta.Done)
			if state.note && !state.half && back[0].NewID != noted || state.half && back[0].NewID == noted {
				t.Errorf("back as %s; %s was noted", back[0].NewID, noted)
			}
			queued := q.queue()
			if _, there := queued[back[0].NewID]; there == state.sent || len(queued) > 1 {
				t.Errorf("in the queue: %+v, want %s: %v", queued, back[0].NewID, !state.sent)
			}
			if err := keep.Forget(q.ctx, []string{kept[0].Name}); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(half); err == nil {
				t.Error("half a message is left")
			}
			if left, _ := filepath.Glob(entry + "*"); len(left) > 0 {
				t.Errorf("left in the folder: %v", left)
			}
		})
	}
}

// Halves that no copy needs are of nobody.
func TestTidyRestoresRemovesWhatNobodyNeeds(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
	held := q.send(true, "a@example.org", "one@example.jp")
	results, err := q.i.DeleteMail(q.ctx, held, keep)
	q.fates("delete", results, err, mta.Done)
	orphan := filepath.Join(q.QueueDir, halfOf(strings.Repeat("x", 20)))
	if err := os.WriteFile(orphan, []byte("half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := q.i.TidyRestores(q.ctx, keep); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(orphan); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

// What cannot be read may be the message itself: nothing comes back beside it.
func TestRestoreBesideWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
	held := q.send(true, "a@example.org", "one@example.jp")
	results, err := q.i.DeleteMail(q.ctx, held, keep)
	q.fates("delete", results, err, mta.Done)
	kept, err := keep.List()
	if err != nil || len(kept) != 1 {
		t.Fatalf("%+v, %v", kept, err)
	}
	broken := filepath.Join(q.QueueDir, "hold", held[0].ID)
	if err := os.WriteFile(broken, []byte("no queue file"), 0o700); err != nil {
		t.Fatal(err)
	}
	names := []string{kept[0].Name}
	back, err := q.i.RestoreMail(q.ctx, keep, names)
	q.fates("restore beside it", back, err, mta.Failed)
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	back, err = q.i.RestoreMail(q.ctx, keep, names)
	q.fates("restore", back, err, mta.Done)
	if queued := q.queue(); len(queued) != 1 || queued[back[0].NewID].Queue != "hold" {
		t.Errorf("in the queue: %+v", queued)
	}
}
