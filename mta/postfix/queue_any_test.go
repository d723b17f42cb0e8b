package postfix

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
	"relayguard/mta/smtptest"
)

func TestDeleteAndRequeueOfMailThatIsNotHeld(t *testing.T) {
	t.Parallel()
	port, answer, taken := slowServer(t)
	q := newQueueTest(t, map[string]string{"transport_maps": "inline:{ {slow.example = smtp:[127.0.0.1]:" + port + "} }"})
	ctx := q.ctx
	for _, to := range []string{"one@example.jp", "two@example.jp", "three@example.jp"} {
		q.Sink.Refuse(to, smtptest.Reply{Code: 451, Lines: []string{"4.7.1 later"}})
	}
	deferred := q.send(false, "a@example.org", "one@example.jp", "two@example.jp", "three@example.jp")
	active := q.send(false, "a@example.org", "x@slow.example")[0]
	held := q.send(true, "a@example.org", "held@example.jp")[0]
	q.wait("deferred", func() bool {
		seen := q.queue()
		return seen[deferred[0].ID].Queue == "deferred" && seen[deferred[1].ID].Queue == "deferred" && seen[deferred[2].ID].Queue == "deferred"
	})
	<-taken
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}

	reused := deferred[0]
	reused.Sender = "b@example.org"
	absent := mta.Target{ID: "00000ABCDEF", Sender: "a@example.org", Arrival: time.Now()}
	elsewhere := deferred[0]
	elsewhere.Instance = "postfix-out"
	wrong := []mta.Target{reused, absent, elsewhere, {ID: "ALL"}}
	fates := []mta.Fate{mta.Changed, mta.Gone, mta.Gone, mta.Failed}
	results, err := q.i.DeleteQueued(ctx, wrong, keep)
	q.fates("delete of wrong ids", results, err, fates...)
	results, err = q.i.RequeueQueued(ctx, wrong)
	q.fates("requeue of wrong ids", results, err, fates...)

	results, err = q.i.DeleteMail(ctx, deferred[:1], keep)
	q.fates("delete of what is not held", results, err, mta.Gone)
	results, err = q.i.DeleteQueued(ctx, deferred[:1], &grace.Folder{Dir: keep.Dir, Bytes: 10})
	q.fates("delete that does not fit", results, err, mta.Failed)
	if !errors.Is(results[0].Err, grace.ErrFull) || q.in(deferred[0]) != "deferred" {
		t.Errorf("got %v, in %q", results[0].Err, q.in(deferred[0]))
	}

	results, err = q.i.RequeueQueued(ctx, []mta.Target{active, deferred[1]})
	q.fates("requeue", results, err, mta.Failed, mta.Done)
	if f := q.queue()[results[1].NewID]; f.ID == "" || f.ID == deferred[1].ID || f.Recipients[0] != "two@example.jp" {
		t.Errorf("requeued as %q: %+v", results[1].NewID, f)
	}
	results, err = q.i.DeleteQueued(ctx, []mta.Target{deferred[0], held, active, absent}, keep)
	q.fates("delete", results, err, mta.Done, mta.Done, mta.Failed, mta.Gone)
	if q.in(active) != "active" || !errors.Is(results[2].Err, errBusy) {
		t.Errorf("what is being delivered: in %q, %v", q.in(active), results[2].Err)
	}
	results, err = q.i.HoldMail(ctx, []mta.Target{active})
	q.fates("hold of what is being delivered", results, err, mta.Done)
	results, err = q.i.DeleteMail(ctx, []mta.Target{active}, keep) // its copy would not know who got it
	q.fates("delete of what is held and being delivered", results, err, mta.Failed)
	if q.in(active) != "hold" || !errors.Is(results[0].Err, errBusy) {
		t.Errorf("held while it is being delivered: in %q, %v", q.in(active), results[0].Err)
	}
	close(answer)
	q.wait("the delivery's end", func() bool { return strings.Contains(q.log(), active.ID+": to=<x@slow.example>") })
	q.wait("the end of what was delivered", func() bool {
		results, err = q.i.DeleteMail(ctx, []mta.Target{active}, nil)
		return err == nil && results[0].Fate != mta.Failed
	})
	seen := q.queue()
	for _, target := range []mta.Target{deferred[0], held, active} {
		if f, there := seen[target.ID]; there {
			t.Errorf("still there: %+v", f)
		}
	}
	kept, err := keep.List()
	if err != nil || len(kept) != 2 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	for _, k := range kept {
		if k.ID == held.ID {
			if id, err := q.i.Restore(ctx, keep, k.Name); err != nil || q.queue()[id].Recipients[0] != "held@example.jp" {
				t.Errorf("restored as %q, %v", id, err)
			}
		}
	}
	results, err = q.i.DeleteQueued(ctx, deferred[2:], nil)
	q.fates("delete without a copy", results, err, mta.Done)
}

// Two instances; the same id and the same mail in both.
func TestInstances(t *testing.T) {
	t.Parallel()
	first, second := newQueueTest(t, nil), newQueueTest(t, nil)
	ctx := first.ctx
	if all, err := Instances(ctx, Tools{}, first.ConfigDir); err != nil || len(all) != 1 || all[0].Name != "" {
		t.Fatalf("one: got %+v, %v", all, err)
	}
	first.postconf("multi_instance_directories=" + second.ConfigDir + " /nowhere " + first.ConfigDir)
	all, err := Instances(ctx, Tools{}, first.ConfigDir)
	if err == nil || !strings.Contains(err.Error(), "/nowhere") || len(all) != 2 || all[1].Name != filepath.Base(second.ConfigDir) {
		t.Fatalf("got %d, %v", len(all), err)
	}
	first.postconf("multi_instance_directories=" + second.ConfigDir)
	second.postconf("multi_instance_name=postfix-out")
	if all, err = Instances(ctx, Tools{}, first.ConfigDir); err != nil || len(all) != 2 || all[0].Name != "" || all[1].Name != "postfix-out" {
		t.Fatalf("two: got %d, %v", len(all), err)
	}
	first.i, second.i = all[0], all[1]

	held := first.send(true, "a@example.org", "r@example.jp")[0]
	from, _, err := first.spool().open("hold", held.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	second.put(held.ID, from)
	a, b := first.queue()[held.ID].Target(), second.queue()[held.ID].Target()
	if a.Instance != "" || b.Instance != "postfix-out" || a.ID != b.ID {
		t.Fatalf("got %+v, %+v", a, b)
	}

	keep, others := &grace.Folder{Dir: filepath.Join(first.TempDir(), "grace")}, &grace.Folder{Dir: filepath.Join(first.TempDir(), "grace")}
	results, err := first.i.DeleteMail(ctx, []mta.Target{b}, keep)
	first.fates("delete in the wrong instance", results, err, mta.Gone)
	results, err = first.i.ReleaseMail(ctx, []mta.Target{b}, mta.Release{Now: time.Now()})
	first.fates("release in the wrong instance", results, err, mta.Gone)
	results, err = second.i.DeleteMail(ctx, []mta.Target{b}, others)
	second.fates("delete", results, err, mta.Done)
	if first.in(a) != "hold" || second.in(b) != "" {
		t.Fatalf("in %q, in %q", first.in(a), second.in(b))
	}
	results, err = first.i.DeleteMail(ctx, []mta.Target{a}, keep)
	first.fates("delete", results, err, mta.Done)
	kept, err := others.List()
	if err != nil || len(kept) != 1 || kept[0].Instance != "postfix-out" {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	second.i.Name = "postfix-renamed" // what lies in its folder is its own all the same
	id, err := second.i.Restore(ctx, others, kept[0].Name)
	if err != nil || second.queue()[id].Queue != "hold" || len(first.queue()) != 0 {
		t.Errorf("restored as %q, %v", id, err)
	}
}

// The only instance gets a name when it becomes one of several, and Settle and
// Restore know what it deleted before.
func TestCopiesStayWithAnInstanceThatIsNamed(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	sent := q.send(true, "a@example.org", "gone@example.jp", "there@example.jp")
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}
	results, err := q.i.DeleteMail(q.ctx, sent[:1], keep)
	q.fates("delete", results, err, mta.Done)
	q.brokenOff(keep, sent[1])
	q.postconf("multi_instance_name=postfix-web")
	if q.i, err = Load(q.ctx, Tools{}, q.ConfigDir); err != nil || q.i.Name != "postfix-web" {
		t.Fatalf("got %+v, %v", q.i, err)
	}
	if err := q.i.Settle(q.ctx, keep); err != nil {
		t.Fatal(err)
	}
	kept, err := keep.List()
	if err != nil || len(kept) != 1 || kept[0].ID != sent[0].ID {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	if id, err := q.i.Restore(q.ctx, keep, kept[0].Name); err != nil || q.queue()[id].Queue != "hold" {
		t.Errorf("restored as %q, %v", id, err)
	}
}

// brokenOff leaves the folder as a delete does that is killed before postsuper.
func (q queueTest) brokenOff(keep *grace.Folder, t mta.Target) {
	q.Helper()
	dir := filepath.Join(q.TempDir(), "copy")
	box, err := (&grace.Folder{Dir: dir}).Open(q.ctx)
	if err != nil {
		q.Fatal(err)
	}
	file, _, err := q.spool().open("hold", t.ID)
	if err == nil {
		err = box.Put(time.Now(), q.queue()[t.ID], grace.Part{Name: "queue", File: file})
		file.Close()
	}
	box.Lock().Close() // it never comes to Close
	open, bad := filepath.Glob(filepath.Join(dir, "*", "*~open"))
	if err = errors.Join(err, bad); err != nil || len(open) != 1 {
		q.Fatalf("%q, %v", open, err)
	}
	to := filepath.Join(keep.Dir, strings.TrimPrefix(open[0], dir))
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Rename(open[0], to)); err != nil {
		q.Fatal(err)
	}
}

func (q queueTest) spool() *spool {
	q.Helper()
	s, err := q.i.openSpool()
	if err != nil {
		q.Fatal(err)
	}
	q.Cleanup(s.Close)
	return s
}

// put makes a held message of that id.
func (q queueTest) put(id string, from io.Reader) {
	q.Helper()
	s := q.spool()
	text, err := io.ReadAll(from)
	path := filepath.Join(q.QueueDir, s.dirOf("hold", id), id)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err = errors.Join(err, os.Chown(path, s.uid, s.gid), os.Chmod(path, readyMode)); err != nil {
		q.Fatal(err)
	}
}

func (q queueTest) postconf(setting string) {
	q.Helper()
	if _, err := q.Command(q.ctx, "postconf", "-e", setting); err != nil {
		q.Fatal(err)
	}
}

// What older versions deleted lies flat in the folder.
func TestRestoreOfOldCopies(t *testing.T) {
	t.Parallel()
	q := newQueueTest(t, nil)
	held := q.send(true, "a@example.org", "r@example.jp")[0]
	f := q.queue()[held.ID]
	keep := &grace.Folder{Dir: filepath.Join(q.TempDir(), "grace")}
	results, err := q.i.DeleteMail(q.ctx, []mta.Target{held}, keep)
	q.fates("delete", results, err, mta.Done)
	kept, err := keep.List()
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	name := strings.Join(strings.Split(filepath.Base(kept[0].Name), ".")[:2], ".")
	if err := os.Rename(filepath.Join(keep.Dir, kept[0].Name, "queue"), filepath.Join(keep.Dir, name)); err != nil {
		t.Fatal(err)
	}
	kept, err = keep.List()
	if err != nil || len(kept) != 1 || kept[0].Name != name || kept[0].ID != held.ID || !kept[0].Arrival.Equal(f.Arrival) || time.Since(kept[0].Deleted) > time.Minute || !grace.ValidName(name) {
		t.Fatalf("kept %+v, %v", kept, err)
	}
	id, err := q.i.Restore(q.ctx, keep, name)
	if err != nil || q.queue()[id].Recipients[0] != "r@example.jp" {
		t.Errorf("restored as %q, %v", id, err)
	}
	if _, err := q.i.Restore(q.ctx, keep, name); !errors.Is(err, mta.ErrGone) {
		t.Errorf("second restore: %v", err)
	}
}
