package grace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
)

var now = time.Date(2026, 11, 23, 1, 2, 3, 4000, time.UTC)

func message(n int) mta.QueueFile {
	return mta.QueueFile{ID: fmt.Sprintf("12A5D9840%03X", n), Arrival: time.Unix(1795336393, 0)}
}

// file makes a queue file in dir.
func file(t *testing.T, dir, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(dir, "queue")
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
	return f
}

func open(t *testing.T, f *grace.Folder) *grace.Box {
	t.Helper()
	b, err := f.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// take puts a message back as who needs no note does.
func take(t *testing.T, f *grace.Folder, name string, put func(map[string]*os.File) error) error {
	t.Helper()
	r, err := f.Return(t.Context())
	if err != nil {
		return err
	}
	defer r.Close()
	c, err := r.Begin(name)
	if err != nil {
		return err
	}
	parts, err := r.Files(c)
	for _, p := range parts {
		defer p.Close()
	}
	if err == nil {
		err = put(parts)
	}
	if err != nil {
		return errors.Join(err, r.Undo(c))
	}
	return r.Done(c)
}

// died leaves a box as a kill -9 does.
func died(t *testing.T, b *grace.Box) {
	t.Helper()
	if err := b.Lock().Close(); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, f *grace.Folder) (names []string) {
	t.Helper()
	kept, err := f.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kept {
		names = append(names, k.Name)
	}
	return names
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"2026-11-23/12A5D98404C.1795336393.1795400000000000":             true,
		"2026-11-23/12A5D98404C.1795336393.1795400000000000.postfix-out": true,
		"2026-11-23/12A5D98404C.1795336393.1795400000000000.a.b":         true,
		"2026-11-23/4ANMLsk1012345.0.0":                                  true,
		"12A5D98404C.1795336393":                                         true,
		"12A5D98404C.1795336393.1":                                       false,
		"2026-11-23/12A5D98404C.1795336393":                              false,
		"2026-11-23/12A5D98404C.1795336393.1795400000000000.":            false,
		"2026-11-23/12A5D98404C.1795336393.1795400000000000.a/b":         false,
		"2026-11-23/12A5D98404C.1795336393.1795400000000000~open":        false,
		"2026-11-23/12A5D98404C.01795336393.1795400000000000":            false,
		"2026-11-23/12A5D98404C.-1.1795400000000000":                     false,
		"2026-02-30/12A5D98404C.1795336393.1795400000000000":             false,
		"../12A5D98404C.1795336393.1795400000000000":                     false,
		"2026-11-23/../12A5D98404C.1795336393.1":                         false,
		"2026-11-23/..":                                                  false,
		"/etc/passwd.1":                                                  false,
		"../passwd.1":                                                    false,
		"":                                                               false,
		"12A5D98404C.1 ":                                                 false,
		"2026-11-23/12A5D98404C.1.1." + strings.Repeat("a", 65):          false,
	} {
		if got := grace.ValidName(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

func TestPutListTake(t *testing.T) {
	for what, dir := range map[string]string{"linked": t.TempDir(), "copied from another file system": "/dev/shm"} {
		t.Run(what, func(t *testing.T) { putListTake(t, dir) })
	}
}

func putListTake(t *testing.T, spool string) {
	f := &grace.Folder{Dir: filepath.Join(t.TempDir(), "deep", "grace")}
	if kept, err := f.List(); err != nil || len(kept) != 0 {
		t.Fatalf("of nothing: %v, %v", kept, err)
	}
	if _, err := os.Stat(f.Dir); err == nil {
		t.Fatal("List made the folder")
	}
	b := open(t, f)
	qf, df := file(t, spool, "qf"), file(t, spool, "body")
	q := message(1)
	q.Instance, q.ID = "postfix-out", "4ANMLsk1012345"
	err := errors.Join(b.Put(now, q, grace.Part{Name: "qf", File: qf}, grace.Part{Name: "df", File: df}), b.Put(now, q, grace.Part{Name: "queue", File: qf}),
		b.Put(now.Add(time.Second), message(2), grace.Part{Name: "queue", File: df}), b.Put(now, message(3), grace.Part{Name: "queue", File: df}), b.Drop(message(3)), b.Drop(message(4)), b.Sync())
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a part of that name": b.Put(now, message(5), grace.Part{Name: "../x", File: df}),
		"that id":             b.Put(now, mta.QueueFile{ID: "../../x"}, grace.Part{Name: "queue", File: df}),
		"that instance":       b.Put(now, mta.QueueFile{ID: "12A5D98404C", Instance: "a/b"}, grace.Part{Name: "queue", File: df}),
	} {
		if err == nil {
			t.Errorf("%s passed", what)
		}
	}
	errors.Join(os.Remove(qf.Name()), os.Remove(df.Name()))
	b.Close()

	kept, err := f.List()
	if err != nil || len(kept) != 2 {
		t.Fatalf("got %+v, %v", kept, err)
	}
	want := grace.Kept{Name: "2026-11-23/4ANMLsk1012345.1795336393." + fmt.Sprint(now.UnixMicro()) + ".postfix-out", Instance: "postfix-out", ID: q.ID, Arrival: q.Arrival.UTC(), Deleted: now, Size: 6}
	if kept[0] != want || kept[1].Size != 4 || !grace.ValidName(kept[1].Name) {
		t.Errorf("got %+v, want %+v", kept[0], want)
	}
	for path, mode := range map[string]os.FileMode{"": os.ModeDir | 0o700, "2026-11-23": os.ModeDir | 0o700, want.Name: os.ModeDir | 0o700, want.Name + "/qf": 0o600, want.Name + "/df": 0o600} {
		if info, err := os.Stat(filepath.Join(f.Dir, path)); err != nil || info.Mode() != mode {
			t.Errorf("%q: %v, %v", path, info.Mode(), err)
		}
	}

	bad := errors.New("no")
	if err := take(t, f, want.Name, func(map[string]*os.File) error { return bad }); !errors.Is(err, bad) || len(names(t, f)) != 2 {
		t.Errorf("got %v, left %v", err, names(t, f))
	}
	err = take(t, f, want.Name, func(parts map[string]*os.File) error {
		head, err1 := io.ReadAll(parts["qf"])
		body, err2 := io.ReadAll(parts["df"])
		if string(head) != "qf" || string(body) != "body" || len(parts) != 2 {
			t.Errorf("got %q, %q", head, body)
		}
		return errors.Join(err1, err2)
	})
	if err != nil || len(names(t, f)) != 1 {
		t.Errorf("got %v, left %v", err, names(t, f))
	}
	for _, name := range []string{want.Name, "2025-01-01/12A5D98404C.1.1", "12A5D98404C.1"} {
		if err := take(t, f, name, func(map[string]*os.File) error { return nil }); !errors.Is(err, mta.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := take(t, f, "../../etc/passwd.1", func(map[string]*os.File) error { return nil }); err == nil || errors.Is(err, mta.ErrGone) {
		t.Errorf("of a path: %v", err)
	}
}

func TestNothingYoungLeavesForMore(t *testing.T) {
	f := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace"), Count: 3, Bytes: 100, Age: time.Hour}
	from := grace.Part{Name: "queue", File: file(t, t.TempDir(), strings.Repeat("x", 30))}
	big := grace.Part{Name: "queue", File: file(t, t.TempDir(), strings.Repeat("x", 50))}
	b := open(t, f)
	for n := range 3 {
		if err := b.Put(now, message(n), from); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(now.Add(time.Hour), message(3), from); !errors.Is(err, grace.ErrFull) || !strings.Contains(err.Error(), "hold.grace_bytes") {
		t.Errorf("the fourth: %v", err)
	}
	if err := errors.Join(b.Drop(message(0)), b.Put(now, message(3), big)); !errors.Is(err, grace.ErrFull) {
		t.Errorf("over the octets: %v", err)
	}
	b.Close()
	if got := names(t, f); len(got) != 2 {
		t.Errorf("left %v", got)
	}
	later := now.Add(time.Hour + time.Second)
	b = open(t, f)
	for n := range 3 { // what is past its time makes room
		if err := b.Put(later, message(n), from); err != nil {
			t.Error(err)
		}
	}
	b.Close()
	if removed, err := f.Sweep(t.Context(), later.Add(time.Hour)); removed != 0 || err != nil {
		t.Errorf("swept %d, %v", removed, err)
	}
	if removed, err := f.Sweep(t.Context(), later.Add(2*time.Hour)); removed != 3 || err != nil {
		t.Errorf("swept %d, %v", removed, err)
	}
	if left, err := os.ReadDir(f.Dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestAfterAKill(t *testing.T) {
	f := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
	spool := t.TempDir()
	b := open(t, f)
	for n := range 3 {
		if err := b.Put(now, message(n), grace.Part{Name: "queue", File: file(t, spool, "text")}); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(f.Dir, "2026-11-23", "12A5D98404C.1.1~half")
	if err := os.Mkdir(half, 0o700); err != nil {
		t.Fatal(err)
	}
	died(t, b)
	all := names(t, f)
	if len(all) != 3 {
		t.Fatalf("got %v", all) // deleted or not, they can be had
	}
	b = open(t, f)
	unfinished := b.Unfinished()
	if len(unfinished) != 3 {
		t.Fatalf("got %+v", unfinished)
	}
	if err := errors.Join(b.Finish(unfinished[0], true), b.Finish(unfinished[1], false)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b = open(t, f)
	if again := b.Unfinished(); len(again) != 1 || again[0] != unfinished[2] {
		t.Errorf("got %+v", again)
	}
	b.Close()

	// One of them is put back, and that is broken off at each step.
	name := unfinished[2].Name
	for n, step := range []struct {
		do    func(*grace.Return, *grace.Copy) error
		again bool
		newID string
		gone  bool
		left  int
	}{
		{func(*grace.Return, *grace.Copy) error { return nil }, false, "", false, 2},
		{func(r *grace.Return, c *grace.Copy) error { return r.Note(c, "12A5D98404D") }, true, "", false, 2},
		{func(r *grace.Return, c *grace.Copy) error { return errors.Join(r.Undo(c), r.Done(c)) }, true, "12A5D98404D", false, 1},
		{func(r *grace.Return, c *grace.Copy) error { return nil }, true, "12A5D98404D", true, 1},
	} {
		r, err := f.Return(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c, err := r.Begin(name)
		if err != nil || c.Again != step.again || c.NewID != step.newID || c.Gone != step.gone || c.ID != unfinished[2].ID {
			t.Errorf("%d: %+v, %v", n, c, err)
		}
		if err := step.do(r, c); err != nil {
			t.Error(err)
		}
		r.Close()
		if got := names(t, f); len(got) != step.left {
			t.Errorf("%d: left %v", n, got)
		}
	}
	var notes []string
	if err := f.Each(func(k grace.Kept) error {
		if k.NewID != "" {
			notes = append(notes, k.Name+" "+k.NewID)
		}
		return nil
	}); err != nil || len(notes) != 1 || notes[0] != name+" 12A5D98404D" {
		t.Errorf("notes %v, %v", notes, err)
	}
	if b = open(t, f); len(b.Returning()) != 0 {
		t.Errorf("returning %+v", b.Returning())
	}
	b.Close()
	if err := f.Forget(t.Context(), []string{name, unfinished[1].Name}); err != nil || len(names(t, f)) != 1 {
		t.Errorf("%v, left %v", err, names(t, f))
	}
	for _, name := range []string{name, unfinished[0].Name} {
		if err := take(t, f, name, func(map[string]*os.File) error { return nil }); !errors.Is(err, mta.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := take(t, f, unfinished[1].Name, func(map[string]*os.File) error { return nil }); err != nil || len(names(t, f)) != 0 {
		t.Errorf("%v, left %v", err, names(t, f))
	}
	if _, err := f.Sweep(t.Context(), now); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("half a copy was left")
	}
}

func TestFolderIsOnesAlone(t *testing.T) {
	f := &grace.Folder{Dir: filepath.Join(t.TempDir(), "grace")}
	b := open(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("opened twice: %v", err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, err := f.Sweep(t.Context(), now); err != nil {
			t.Error(err)
		}
	})
	b.Close()
	wait.Wait()
	if err := os.Chmod(filepath.Dir(f.Dir), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Open(t.Context()); err == nil {
		t.Error("opened below a directory that others may write to")
	}
}
