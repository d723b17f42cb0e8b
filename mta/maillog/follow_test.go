package maillog

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const deadline = 20 * time.Second

// line is the n-th line of a test's log; its queue id is id(n).
func line(n int) string {
	at := now.Add(time.Duration(n) * time.Millisecond)
	return at.Format("2006-01-02T15:04:05.000000Z07:00") + " mx postfix/qmgr[1]: " + id(n) + ": removed\n"
}

func id(n int) string { return fmt.Sprintf("%08X", n) }

func lines(from, to int) string {
	var b strings.Builder
	for n := from; n <= to; n++ {
		b.WriteString(line(n))
	}
	return b.String()
}

func ids(from, to int) (all []string) {
	for n := from; n <= to; n++ {
		all = append(all, id(n))
	}
	return all
}

// logDir is a directory with a log.
type logDir struct {
	t    *testing.T
	path string
}

func newLog(t *testing.T) logDir { return logDir{t, filepath.Join(t.TempDir(), "mail.log")} }

func (d logDir) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// write appends to the log or, with a suffix, to a rotated one.
func (d logDir) write(suffix, text string) {
	d.t.Helper()
	f, err := os.OpenFile(d.path+suffix, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	d.check(err)
	_, err = f.WriteString(text)
	d.check(errors.Join(err, f.Close()))
}

func (d logDir) rename(from, to string) { d.t.Helper(); d.check(os.Rename(d.path+from, d.path+to)) }

func (d logDir) copy(from, to string) {
	d.t.Helper()
	data, err := os.ReadFile(d.path + from)
	d.check(err)
	d.check(os.WriteFile(d.path+to, data, 0o600))
}

func (d logDir) compress(suffix string) {
	d.t.Helper()
	data, err := os.ReadFile(d.path + suffix)
	d.check(err)
	f, err := os.Create(d.path + suffix + ".gz")
	d.check(err)
	z := gzip.NewWriter(f)
	_, err = z.Write(data)
	d.check(errors.Join(err, z.Close(), f.Close(), os.Remove(d.path+suffix)))
}

// reader is a Follower that runs.
type reader struct {
	*Follower
	t      *testing.T
	events chan string // queue ids
	gaps   chan Gap
	cancel context.CancelFunc
	ended  chan error
}

func (d logDir) follow(change func(*Options)) *reader {
	d.t.Helper()
	return startReader(d.t, Options{Path: d.path, Poll: 20 * time.Millisecond}, change)
}

func startReader(t *testing.T, o Options, change func(*Options)) *reader {
	t.Helper()
	r := &reader{t: t, events: make(chan string, 10_000), gaps: make(chan Gap, 100), ended: make(chan error, 1)}
	o.Zone = time.UTC
	o.Now = func() time.Time { return now.Add(time.Hour) }
	o.Gap = func(g Gap) { r.gaps <- g }
	if change != nil {
		change(&o)
	}
	var err error
	if r.Follower, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() {
		r.ended <- r.Run(ctx, func(e Event, p Position) error { r.events <- e.QueueID; return nil })
	}()
	t.Cleanup(func() { r.stop() })
	return r
}

// stop ends it and returns the checkpoint.
func (r *reader) stop() string {
	r.cancel()
	if err := <-r.ended; !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run ended: %v", err)
	}
	r.ended <- context.Canceled // may be called again
	return r.Position().String()
}

// want waits for exactly these events.
func (r *reader) want(ids ...string) {
	r.t.Helper()
	for i, want := range ids {
		select {
		case got := <-r.events:
			if got != want {
				r.t.Fatalf("event %d: got %s, want %s", i, got, want)
			}
		case <-time.After(deadline):
			r.t.Fatalf("event %d, %s, does not come", i, want)
		}
	}
}

// wantNone checks that nothing else came, neither event nor gap.
func (r *reader) wantNone() {
	r.t.Helper()
	select {
	case got := <-r.events:
		r.t.Fatalf("another event: %s", got)
	case gap := <-r.gaps:
		r.t.Fatalf("a gap: %+v", gap)
	default:
	}
}

func (r *reader) wantGap() Gap {
	r.t.Helper()
	select {
	case gap := <-r.gaps:
		return gap
	case <-time.After(deadline):
		r.t.Fatal("no gap is told")
		return Gap{}
	}
}

// started waits until it knows where it is.
func (r *reader) started() {
	r.t.Helper()
	r.until("the start", func() bool { return r.Position() != Position{} })
}

func (r *reader) until(what string, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(deadline); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s does not come", what)
		}
	}
}

func TestFirstStartIsAtTheEnd(t *testing.T) {
	d := newLog(t)
	d.write("", lines(1, 5)+"2026-11-22T08:00:0") // a line is just being written
	r := d.follow(nil)
	r.started()
	d.write("", "0Z mx postfix/qmgr[1]: "+id(6)+": removed\n"+lines(7, 8))
	r.want(ids(6, 8)...)
	r.stop()
	r.wantNone()
}

func TestFirstStartFromATime(t *testing.T) {
	d := newLog(t)
	d.write(".1", lines(1000, 3999))
	d.write("", lines(4000, 6000))
	r := d.follow(func(o *Options) { o.From = now.Add(3500 * time.Millisecond) })
	r.want(ids(3000, 6000)...) // whole seconds
	r.stop()
	r.wantNone()
}

func TestStoppedWhileItPassesOverOldLines(t *testing.T) {
	d := newLog(t)
	d.write("", lines(1, 10)+lines(5001, 5003))
	f, err := New(Options{Path: d.path, From: now.Add(5 * time.Second), Zone: time.UTC})
	d.check(err)
	stopped := errors.New("stopped")
	if err := f.Run(t.Context(), func(Event, Position) error { return stopped }); err != stopped {
		t.Fatal(err)
	}
	r := d.follow(func(o *Options) { o.Checkpoint, o.From = f.Position().String(), now.Add(5*time.Second) })
	r.want(ids(5001, 5003)...)
	r.stop()
	r.wantNone()
}

func TestLogThatIsMissingAtFirst(t *testing.T) {
	d := newLog(t)
	r := d.follow(nil)
	r.started()
	checkpoint := r.stop()
	d.write("", lines(3_600_000, 3_600_001)) // while nobody looked
	r = d.follow(func(o *Options) { o.Checkpoint = checkpoint })
	r.want(ids(3_600_000, 3_600_001)...)
	d.write("", lines(3_600_002, 3_600_002))
	r.want(id(3_600_002))
	r.stop()
	r.wantNone()
}

func TestPartialLineWaits(t *testing.T) {
	d := newLog(t)
	d.write("", "")
	r := d.follow(nil)
	r.started()
	text := line(1)
	d.write("", text[:30])
	d.write("", text[30:60])
	d.write("", text[60:]+line(2))
	r.want(ids(1, 2)...)
}

func TestRestartGoesOnWhereItWas(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	r.want(ids(1, 10)...)
	checkpoint := r.stop()
	d.write("", lines(11, 20))
	r = d.follow(func(o *Options) { o.Checkpoint = checkpoint })
	r.want(ids(11, 20)...)
	r.stop()
	r.wantNone()
}

func TestRotationByRename(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	d.rename("", ".1")
	d.write(".1", lines(11, 12)) // the log service has not noticed yet
	r.want(ids(1, 12)...)
	d.write("", "")
	d.write(".1", lines(13, 14)) // nor now
	r.want(ids(13, 14)...)
	d.write("", lines(15, 20))
	r.want(ids(15, 20)...)
	// Twice more, the older one compressed.
	d.compress(".1")
	d.rename(".1.gz", ".2.gz")
	d.rename("", ".1")
	d.write("", lines(21, 30))
	r.want(ids(21, 30)...)
	r.stop()
	r.wantNone()
}

func TestRotatedLogRemovedAtOnce(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	d.check(os.Remove(d.path)) // it is still open
	d.write("", lines(11, 20))
	r.want(ids(1, 20)...)
	r.stop()
	r.wantNone()
}

func TestCopyTruncate(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	d.copy("", ".1")
	d.check(os.Truncate(d.path, 0))
	d.write("", lines(11, 40)) // longer than before
	r.want(ids(1, 40)...)
	d.copy("", ".2")
	d.rename(".2", ".1")
	d.check(os.Truncate(d.path, 0))
	d.write("", lines(41, 42))
	r.want(ids(41, 42)...)
	r.stop()
	r.wantNone()
}

func TestEmptiedLogIsAGap(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	r.want(ids(1, 10)...)
	d.check(os.Truncate(d.path, 0))
	gap := r.wantGap()
	if !gap.From.Equal(now.Add(10*time.Millisecond)) || gap.To.Before(gap.From) || gap.Why == "" {
		t.Errorf("gap %+v", gap)
	}
	d.write("", lines(11, 12))
	r.want(ids(11, 12)...)
	r.stop()
	r.wantNone()
	if r.Counts().Gaps != 1 {
		t.Errorf("counts %+v", r.Counts())
	}
}

// While nobody looked the log was rotated, in every usual way.
func TestCatchUp(t *testing.T) {
	for name, rotate := range map[string]func(logDir){
		"once": func(d logDir) {
			d.write("", lines(11, 20))
			d.rename("", ".1")
			d.write("", lines(21, 30))
		},
		"twice": func(d logDir) {
			d.rename("", ".2")
			d.write(".1", lines(11, 20))
			d.write("", lines(21, 30))
		},
		"compressed": func(d logDir) {
			d.write("", lines(11, 15))
			d.rename("", ".2")
			d.compress(".2")
			d.write(".1", lines(16, 25))
			d.write("", lines(26, 30))
		},
		"all compressed": func(d logDir) {
			d.write("", lines(11, 15))
			d.rename("", ".10")
			d.compress(".10")
			d.write(".9", lines(16, 25))
			d.compress(".9")
			d.write("", lines(26, 30))
		},
		"by date": func(d logDir) {
			d.write("", lines(11, 15))
			d.rename("", "-20261122")
			d.compress("-20261122")
			d.write("-20261123", lines(16, 25))
			d.write("", lines(26, 30))
		},
		"by postfix logrotate": func(d logDir) {
			d.write("", lines(11, 15))
			d.rename("", ".20261122-083836")
			d.compress(".20261122-083836")
			d.write(".20261123-083836", lines(16, 25))
			d.compress(".20261123-083836")
			d.write("", lines(26, 30))
		},
		"copied and emptied": func(d logDir) {
			d.write("", lines(11, 20))
			d.copy("", ".1")
			d.check(os.Truncate(d.path, 0))
			d.write("", lines(21, 30))
		},
		"plain and compressed at once": func(d logDir) {
			d.write("", lines(11, 20))
			d.rename("", ".1")
			d.write(".1.gz", "\x1f\x8b half")
			d.write("", lines(21, 30))
		},
		"with other files beside it": func(d logDir) {
			d.write(".1.swp", lines(100, 110))
			d.write(".old", lines(100, 110))
			d.write("x", lines(100, 110))
			d.check(os.Mkdir(d.path+".3", 0o700))
			d.write("", lines(11, 20))
			d.rename("", ".1")
			d.write("", lines(21, 30))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newLog(t)
			d.write("", line(0))
			r := d.follow(nil)
			r.started()
			d.write("", lines(1, 10))
			r.want(ids(1, 10)...)
			checkpoint := r.stop()
			rotate(d)
			r = d.follow(func(o *Options) { o.Checkpoint = checkpoint })
			r.want(ids(11, 30)...)
			d.write("", lines(31, 32))
			r.want(ids(31, 32)...)
			r.stop()
			r.wantNone()
		})
	}
}

func TestLostLogIsAGapAndTheRestIsRead(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	r.want(ids(1, 10)...)
	checkpoint := r.stop()
	d.check(os.Remove(d.path))
	d.write(".1", lines(5000, 5010))
	d.write("", lines(5011, 5020))
	r = d.follow(func(o *Options) { o.Checkpoint = checkpoint })
	r.want(ids(5000, 5020)...)
	gap := r.wantGap()
	if !gap.From.Equal(now.Add(10*time.Millisecond)) || !gap.To.Equal(now.Add(5000*time.Millisecond)) {
		t.Errorf("gap %+v", gap)
	}
	r.stop()
	r.wantNone()
}

func TestDamagedCompressedLogIsAGap(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	d.write("", lines(1, 10))
	r.want(ids(1, 10)...)
	checkpoint := r.stop()
	d.write("", lines(11, 2000))
	d.rename("", ".1")
	d.compress(".1")
	info, err := os.Stat(d.path + ".1.gz")
	d.check(err)
	d.check(os.Truncate(d.path+".1.gz", info.Size()/2))
	d.write("", lines(3000, 3001))
	r = d.follow(func(o *Options) { o.Checkpoint = checkpoint })
	r.wantGap()
	r.until("the next log", func() bool { return strings.HasSuffix(r.Position().String(), fmt.Sprint(len(lines(3000, 3001)))) })
}

func TestLongLinesAreSkipped(t *testing.T) {
	d := newLog(t)
	d.write("", line(0))
	r := d.follow(nil)
	r.started()
	long := "2026-11-22T08:00:00Z mx postfix/qmgr[1]: " + strings.Repeat("x", 300<<10) + "\n"
	d.write("", line(1)+long+line(2)+long[:100<<10])
	d.write("", long[100<<10:]+line(3))
	r.want(ids(1, 3)...)
	checkpoint := r.stop()
	r.wantNone()
	if c := r.Counts(); c.Long != 2 || c.Events != 3 {
		t.Errorf("counts %+v", c)
	}
	d.write("", lines(4, 5))
	r = d.follow(func(o *Options) { o.Checkpoint = checkpoint })
	r.want(ids(4, 5)...)
}

func TestRepeatedLinesRepeatTheEvent(t *testing.T) {
	d := newLog(t)
	d.write("", "")
	var counts []int
	r := d.follow(nil)
	r.started()
	r.stop()
	f, err := New(Options{Path: d.path, Checkpoint: r.Position().String(), Zone: time.UTC})
	d.check(err)
	d.write("", line(1)+"Nov 22 09:00:01 mx last message repeated 3 times\n"+line(2))
	done := errors.New("done")
	err = f.Run(t.Context(), func(e Event, p Position) error {
		counts = append(counts, e.Count)
		if e.QueueID == id(2) {
			return done
		}
		return nil
	})
	if err != done || !slices.Equal(counts, []int{1, 3, 1}) {
		t.Errorf("%v, counts %v", err, counts)
	}
}

// A consumer that dies between an event and storing its position sees the
// events since the stored position again, under the same ids, and no other
// twice; whatever happens to the log meanwhile.
func TestAtLeastOnceOverACrashAtEveryPoint(t *testing.T) {
	const events, every = 24, 3 // a position is stored after every third event
	crash := errors.New("crash")
	for at := 1; at <= events; at++ {
		d := newLog(t)
		d.write("", line(0))
		r := d.follow(nil)
		r.started()
		stored := r.stop()
		d.write("", lines(1, events/2))
		d.rename("", ".1")
		d.write("", lines(events/2+1, events))
		seen := map[string]int{}
		names := map[string]string{}
		handled, sinceStored := 0, 0
		consume := func(crashAt int) error {
			f, err := New(Options{Path: d.path, Checkpoint: stored, Zone: time.UTC})
			d.check(err)
			return f.Run(t.Context(), func(e Event, p Position) error {
				handled++
				seen[e.QueueID]++
				if old, ok := names[e.QueueID]; ok && old != p.ID() {
					t.Errorf("%s has ids %s and %s", e.QueueID, old, p.ID())
				}
				names[e.QueueID] = p.ID()
				if handled == crashAt {
					return crash // processed, not stored
				}
				if sinceStored++; sinceStored == every {
					stored, sinceStored = p.String(), 0
				}
				if e.QueueID == id(events) {
					return crash
				}
				return nil
			})
		}
		if err := consume(at); err != crash {
			t.Fatal(err)
		}
		again := sinceStored + 1
		sinceStored = 0
		if at%2 == 0 { // rotated once more
			d.compress(".1")
			d.rename(".1.gz", ".2.gz")
			d.rename("", ".1")
			d.write("", "")
		}
		if err := consume(-1); err != crash {
			t.Fatal(err)
		}
		twice := 0
		for n := 1; n <= events; n++ {
			if seen[id(n)] == 0 {
				t.Errorf("crash at %d: event %d is lost", at, n)
			}
			if seen[id(n)] > 1 {
				twice++
			}
		}
		if twice > again || len(seen) != events || len(slices.Compact(slices.Sorted(mapValues(names)))) != events {
			t.Errorf("crash at %d: %d events twice, %d were possible; %d events", at, twice, again, len(seen))
		}
	}
}

func mapValues(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

func TestPositionsReadBack(t *testing.T) {
	for _, s := range []string{
		"", "file 1795336713123456 fe01 2a 0123456789abcdef0123456789abcdef 4711", "file 0 0 0 - 0",
		"journal 1795336713123456 s=0639a;i=48;b=dead;m=1;t=62;x=fe",
	} {
		p, err := ParsePosition(s)
		if err != nil || p.String() != s {
			t.Errorf("%q: read back as %q, %v", s, p, err)
		}
	}
	for _, s := range []string{"x", "file", "file 1 2 3 4", "file x 0 0 - 0", "file 1 zz 0 - 0", "file 1 0 0 - -1", "journal 1", "journal 1 a b", "mail 1 c"} {
		if _, err := ParsePosition(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	if _, err := New(Options{Path: "x", Checkpoint: "y"}); err == nil {
		t.Error("a checkpoint that is none was taken")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no source was taken")
	}
}
