package sendmail_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/sendmail/sendmailtest"
)

// Sendmail's account may write in the queue directory, but root does not follow it
// out of there. An admin may have parts of the queue elsewhere.
func TestOnlyRootsLinksLeadOutOfTheQueue(t *testing.T) {
	sendmailtest.Need(t) // root
	const nobody = 65534
	for what, c := range map[string]struct {
		link    string // in the queue directory
		pattern string // of QueueDirectory, below it
		owner   int
	}{
		"control files, planted":      {"qf", "", nobody},
		"bodies, planted":             {"df", "", nobody},
		"transcripts, planted":        {"xf", "", nobody},
		"queue directory, planted":    {"q1", "/q*", nobody},
		"control files, an admin's":   {"qf", "", 0},
		"queue directory, an admin's": {"q1", "/q*", 0},
	} {
		t.Run(what, func(t *testing.T) {
			i, queue := tree(t)
			elsewhere := t.TempDir()
			link := filepath.Join(queue, c.link)
			if err := errors.Join(os.Symlink(elsewhere, link), os.Lchown(link, c.owner, -1)); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(i.ConfigDir, "sendmail.cf"), []byte("V10/Berkeley\nDZ8.17.1\nO QueueDirectory="+queue+c.pattern+"\n"))
			i = loadWith(t, i.ConfigDir, "exit 0\n")
			plant(t, elsewhere, idA, "why")
			if c.link == "qf" {
				os.Rename(filepath.Join(elsewhere, "df"+idA), filepath.Join(queue, "df"+idA))
			}
			found, err := scanAll(t.Context(), i)
			if c.owner == 0 {
				if err != nil || len(found) != 1 {
					t.Errorf("found %+v, %v", found, err)
				}
				results, err := i.DeleteMail(t.Context(), []mta.Target{target(idA)}, &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")})
				all(t, "delete", mta.Done, results, err)
				return
			}
			before := names(t, elsewhere)
			results, actErr := i.DeleteMail(t.Context(), []mta.Target{target(idA)}, nil)
			if err == nil || actErr == nil {
				t.Errorf("found %+v, %v; deleted %+v, %v", found, err, results, actErr)
			}
			if after := names(t, elsewhere); len(after) != len(before) {
				t.Errorf("%v became %v", before, after)
			}
		})
	}
}

// The queue directory itself may be a link, also over others and with a relative
// target.
func TestQueueDirectoryBehindLinks(t *testing.T) {
	i, queue := tree(t)
	moved := filepath.Join(i.ConfigDir, "disk")
	if err := errors.Join(os.Rename(queue, moved), os.Symlink("disk", filepath.Join(i.ConfigDir, "link")), os.Symlink(filepath.Join(i.ConfigDir, "disk", "..", "link"), queue)); err != nil {
		t.Fatal(err)
	}
	plant(t, moved, idA, "why")
	if found, err := scanAll(t.Context(), i); err != nil || len(found) != 1 {
		t.Errorf("found %+v, %v", found, err)
	}
	if err := errors.Join(os.Remove(queue), os.Symlink("queue", queue)); err != nil {
		t.Fatal(err)
	}
	if found, err := scanAll(t.Context(), i); err == nil {
		t.Errorf("found %+v behind a link to itself", found)
	}
}
