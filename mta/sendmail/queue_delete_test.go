package sendmail_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// unfinished leaves a copy as a delete does that is killed before it deletes.
func unfinished(t *testing.T, queue string, keep *grace.Folder) grace.Kept {
	t.Helper()
	box, err := keep.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var parts []grace.Part
	for name, path := range map[string]string{"qf": "hf" + idA, "df": "df" + idA} {
		f, err := os.Open(filepath.Join(queue, path))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		parts = append(parts, grace.Part{Name: name, File: f})
	}
	if err := box.Put(time.Now(), mta.QueueFile{ID: idA, Arrival: target(idA).Arrival}, parts...); err != nil {
		t.Fatal(err)
	}
	box.Lock().Close()
	return onlyKept(t, keep)
}

func onlyKept(t *testing.T, keep *grace.Folder) grace.Kept {
	t.Helper()
	kept, err := keep.List()
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	return kept[0]
}

func TestCopyOfWhatIsStillQueuedIsNoSecondMessage(t *testing.T) {
	for what, meanwhile := range map[string]func(t *testing.T, release, requeue func()){
		"nothing":  func(*testing.T, func(), func()) {},
		"released": func(_ *testing.T, release, _ func()) { release() },
		"requeued": func(_ *testing.T, _, requeue func()) { requeue() },
	} {
		t.Run(what, func(t *testing.T) {
			i, queue := tree(t)
			plant(t, queue, idA, "why")
			keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
			copied := unfinished(t, queue, keep)
			meanwhile(t, func() {
				results, err := acts(i, nil)["release"](t.Context(), []mta.Target{target(idA)})
				all(t, "release", mta.Done, results, err)
			}, func() {
				results, err := i.RequeueMail(t.Context(), []mta.Target{target(idA)})
				all(t, "requeue", mta.Done, results, err)
			})
			if id, err := i.Restore(t.Context(), keep, copied.Name); err == nil {
				t.Errorf("there are two of it now: %s, queue %v", id, names(t, queue))
			}
			if kept, err := keep.List(); err != nil || len(kept) > 0 {
				t.Errorf("kept %+v, %v", kept, err)
			}
		})
	}
}

// A copy whose message cannot be read any more, or has lost its body, is all that
// there is of it.
func TestCopyOutlivesADamagedMessage(t *testing.T) {
	for what, damage := range map[string]func(queue string) error{
		"cut":     func(queue string) error { return os.Truncate(filepath.Join(queue, "hf"+idA), 200) },
		"no body": func(queue string) error { return os.Remove(filepath.Join(queue, "df"+idA)) },
	} {
		i, queue := tree(t)
		plant(t, queue, idA, "why")
		keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
		copied := unfinished(t, queue, keep)
		os.Rename(filepath.Join(queue, "hf"+idA), filepath.Join(queue, "old"))
		write(t, filepath.Join(queue, "hf"+idA), readFile(t, filepath.Join(queue, "old"))) // another inode than the copy's
		if err := damage(queue); err != nil {
			t.Fatal(err)
		}
		if err := i.Settle(t.Context(), keep); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if kept, err := keep.List(); err != nil || len(kept) != 1 || kept[0].Name != copied.Name {
			t.Errorf("%s: kept %+v, %v", what, kept, err)
		}
	}
}

func TestRestoreTwiceFindsWhatItPutBack(t *testing.T) {
	for _, requeued := range []bool{false, true} {
		i, queue := tree(t)
		plant(t, queue, idA, "why")
		keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
		results, err := i.DeleteMail(t.Context(), []mta.Target{target(idA)}, keep)
		all(t, "delete", mta.Done, results, err)
		entry := filepath.Join(keep.Dir, onlyKept(t, keep).Name)
		saved := filepath.Join(t.TempDir(), "saved")
		if err := os.CopyFS(saved, os.DirFS(entry)); err != nil {
			t.Fatal(err)
		}
		id, err := i.Restore(t.Context(), keep, filepath.Base(filepath.Dir(entry))+"/"+filepath.Base(entry))
		if err != nil {
			t.Fatal(err)
		}
		os.MkdirAll(filepath.Dir(entry), 0o700)
		if err := os.CopyFS(entry+"~back", os.DirFS(saved)); err != nil { // as if killed before the copy went
			t.Fatal(err)
		}
		if requeued {
			again := target(id)
			results, err := i.RequeueMail(t.Context(), []mta.Target{again})
			all(t, "requeue", mta.Done, results, err)
		}
		before := names(t, queue)
		body, _ := os.Stat(filepath.Join(queue, "df"+id))
		second, err := i.Restore(t.Context(), keep, onlyKept(t, keep).Name)
		if after := names(t, queue); err != nil || second != id || !slices.Equal(before, after) {
			t.Errorf("restored as %s and as %s, %v: %v became %v", id, second, err, before, after)
		}
		if now, err := os.Stat(filepath.Join(queue, "df"+id)); err != nil || !os.SameFile(body, now) {
			t.Errorf("the body of a message in the queue was made anew: %v", err)
		}
	}
}

// Once a message is out of the queue its copy stays, whatever fails then.
func TestDeleteThatFailsHalfwayKeepsTheCopy(t *testing.T) {
	for _, again := range []bool{true, false} { // else a scan removes the rest
		i, queue := tree(t)
		plant(t, queue, idA, "why")
		obstacle := filepath.Join(queue, "xf"+idA)
		if err := os.Mkdir(obstacle, 0o700); err != nil { // no file: an error at its removal
			t.Fatal(err)
		}
		keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
		results, err := i.DeleteMail(t.Context(), []mta.Target{target(idA)}, keep)
		all(t, "delete", mta.Failed, results, err)
		if results[0].Err == nil || !strings.Contains(results[0].Err.Error(), "copy is kept") {
			t.Errorf("got %v", results[0].Err)
		}
		if err := os.Remove(obstacle); err != nil {
			t.Fatal(err)
		}
		if again {
			results, err = i.DeleteMail(t.Context(), []mta.Target{target(idA)}, keep)
			all(t, "delete again", mta.Done, results, err)
		}
		if found, err := scanAll(t.Context(), i); err != nil || len(found) > 0 || len(names(t, queue)) > 0 {
			t.Errorf("again %v: found %v, left %v, %v", again, found, names(t, queue), err)
		}
		if _, err := i.Restore(t.Context(), keep, onlyKept(t, keep).Name); err != nil {
			t.Error(err)
		}
		if found, err := scanAll(t.Context(), i); err != nil || len(found) != 1 {
			t.Errorf("again %v: restored %v, %v", again, found, err)
		}
	}
}

// sendmail -Q that was killed leaves both files: whoever holds the message then
// leaves the reason alone.
func TestHoldLeavesAnothersReason(t *testing.T) {
	for reason, want := range map[string]mta.Fate{"a virus scanner's": mta.Gone, "relayguard: ours": mta.Done} {
		i, queue := tree(t)
		plant(t, queue, idA, reason)
		plant(t, queue, idA, "")
		results, err := i.HoldMail(t.Context(), []mta.Target{target(idA)}, "relayguard: ours")
		all(t, reason, want, results, err)
		if found, err := scanAll(t.Context(), i); err != nil || found[idA].Queue != "hold" || found[idA].HoldReason != reason {
			t.Errorf("%s: %+v, %v", reason, found, err)
		}
	}
	i, queue := tree(t)
	plant(t, queue, idA, "somebody's")
	write(t, filepath.Join(queue, "qf"+idA), []byte(strings.Replace(control, "sender@", "other@", 1)))
	other := target(idA)
	other.Sender = "other@example.jp"
	results, err := i.HoldMail(t.Context(), []mta.Target{other}, "relayguard: ours")
	all(t, "beside another message", mta.Failed, results, err)
}

// A bulk delete holds many messages at a time, but not what they say.
func TestDeleteOfHugeControlFilesNeedsLittleMemory(t *testing.T) {
	const messages, most = 60, 128 << 20
	i, queue := tree(t)
	recipient := strings.Repeat("x", 60) + "@example.net"
	text := strings.Replace(control, "\nS<", "\nqwhy\nS<", 1)
	text = strings.Replace(text, "\nrRFC822; x@example.net\n", "\n"+strings.Repeat("rRFC822; "+recipient+"\nRPFD:<"+recipient+">\n", 27_000), 1)
	var targets []mta.Target
	for n := range messages {
		id := fmt.Sprintf("6AN18P39%06d", n)
		write(t, filepath.Join(queue, "df"+id), []byte("body\n"))
		write(t, filepath.Join(queue, "hf"+id), []byte(text))
		targets = append(targets, target(id))
	}
	runtime.GC()
	done, peak := make(chan bool), make(chan uint64)
	go func() {
		var highest uint64
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			highest = max(highest, now.HeapInuse)
			select {
			case <-done:
				peak <- highest
				return
			case <-tick.C:
			}
		}
	}()
	results, err := i.DeleteMail(t.Context(), targets, &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")})
	close(done)
	all(t, "delete", mta.Done, results, err)
	if highest := <-peak; highest > most {
		t.Errorf("%d control files of %d octets took %d octets", messages, len(text), highest)
	}
}

// A restore that was killed after its message was back, which has been sent since:
// the note says so, and nothing comes back a second time.
func TestRestoreOfWhatHasLeftSinceIsNotDoneTwice(t *testing.T) {
	i, queue := tree(t)
	plant(t, queue, idA, "why")
	keep := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
	results, err := i.DeleteMail(t.Context(), []mta.Target{target(idA)}, keep)
	all(t, "delete", mta.Done, results, err)
	name := onlyKept(t, keep).Name
	entry, saved := filepath.Join(keep.Dir, name), filepath.Join(t.TempDir(), "saved")
	if err := os.CopyFS(saved, os.DirFS(entry)); err != nil {
		t.Fatal(err)
	}
	first, err := i.RestoreMail(t.Context(), keep, []string{name})
	all(t, "restore", mta.Done, first, err)
	if err := os.CopyFS(entry+"~back", os.DirFS(saved)); err != nil { // as if killed before the copy went
		t.Fatal(err)
	}
	for _, left := range names(t, queue) { // sent
		if err := os.Remove(filepath.Join(queue, left)); err != nil {
			t.Fatal(err)
		}
	}
	second, err := i.RestoreMail(t.Context(), keep, []string{name})
	all(t, "restore again", mta.Done, second, err)
	if second[0].NewID != first[0].NewID || len(names(t, queue)) > 0 {
		t.Errorf("restored as %s and as %s: %v", first[0].NewID, second[0].NewID, names(t, queue))
	}
	if kept, err := keep.List(); err != nil || len(kept) > 0 {
		t.Errorf("kept %+v, %v", kept, err)
	}
}
