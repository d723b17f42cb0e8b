package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayguard/journal"
)

// smallDisk mounts a file system of that many KiB.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("journal-test", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", size)); err != nil {
		const text = "needs root, to mount a small file system: %v"
		if os.Getenv("CI") != "" || os.Getenv("RELAYGUARD_REQUIRE") != "" {
			t.Fatalf(text, err)
		}
		t.Skipf(text, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return dir
}

// fill takes all room on the disk of dir.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	file, err := os.Create(name)
	must(t, err)
	defer file.Close()
	for size := 64 << 10; size > 0; size /= 2 {
		for err == nil {
			_, err = file.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	return func() {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, 4096)
	var said logged
	j := open(t, journal.Options{Dir: filepath.Join(dir, "journal"), SegmentBytes: 256 << 10, Log: slog.New(slog.NewTextHandler(&said, nil))})
	must(t, j.Append(held(0)))
	must(t, j.Sync(t.Context()))
	free := fill(t, dir)
	defer free()
	failed := 0
	const n = 500
	for i := 1; i <= n; i++ {
		if j.Append(held(i)) != nil {
			failed++
		}
		j.Note(accepted(100_000 + i))
	}
	if failed == 0 {
		t.Fatal("the disk was never full")
	}
	if h := j.Health(); h.Log == "" || h.OK() {
		t.Errorf("health: %v", h)
	}
	if s := j.Stats(); s.Backlog < failed || s.Lost != 0 {
		t.Errorf("stats: %+v, %d failed", s, failed)
	}
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) == 0 {
		t.Errorf("searching on a full disk: %d holds, %v", len(holds), err)
	}
	free()
	eventually(t, "writes again", func() bool { return j.Health().OK() && j.Stats().Backlog == 0 })
	must(t, j.Sync(t.Context()))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != n+1 {
		t.Errorf("got %d holds, want %d", len(holds), n+1)
	}
	if s := j.Stats(); s.Damaged != 0 {
		t.Errorf("damaged lines: %+v", s)
	}
	for _, text := range []string{"journal log cannot be written", "journal log is written again"} {
		if !strings.Contains(said.String(), text) {
			t.Errorf("not said: %s\n%s", text, said.String())
		}
	}
	must(t, j.Close())
}

func TestDatabaseDiskFullLogGoesOn(t *testing.T) {
	dir := smallDisk(t, 4096)
	path := filepath.Join(dir, "journal")
	// The log is elsewhere: only the database's disk is full.
	must(t, os.MkdirAll(path, 0o700))
	must(t, os.Symlink(t.TempDir(), filepath.Join(path, "log")))
	var said logged
	j := open(t, journal.Options{Dir: path, Log: slog.New(slog.NewTextHandler(&said, nil))})
	must(t, j.Append(held(0)))
	must(t, j.Sync(t.Context()))
	free := fill(t, dir)
	defer free()
	const n = 2000
	for i := 1; i <= n; i++ {
		must(t, j.Append(held(i)))
	}
	eventually(t, "says that the database takes no rows", func() bool { return j.Health().Database != "" })
	if s := j.Stats(); s.Backlog != 0 {
		t.Errorf("stats: %+v", s)
	}
	// It is tried again meanwhile: that a database on a full disk can be opened is no
	// sign that it takes rows.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if j.Health().OK() {
			t.Fatalf("the disk is full, and the journal is well:\n%s", said.String())
		}
	}
	free()
	eventually(t, "fills again", func() bool { return j.Health().OK() })
	for _, text := range []string{"database takes no rows", "database takes rows again"} {
		if n := strings.Count(said.String(), text); n != 1 {
			t.Errorf("%q is said %d times, want once:\n%s", text, n, said.String())
		}
	}
	must(t, j.Sync(t.Context()))
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != n+1 {
		t.Errorf("got %d holds, %v", len(holds), err)
	}
	must(t, j.Close())
}

func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t, 8192)
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(0)))
	must(t, j.Close())
	remount := func(flags uintptr) {
		t.Helper()
		must(t, syscall.Mount("journal-test", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=8192k"))
	}
	remount(syscall.MS_RDONLY)
	j = open(t, journal.Options{Dir: dir})
	if h := j.Health(); h.Database == "" {
		t.Errorf("health: %v", h)
	}
	if err := j.Append(held(1)); !errors.Is(err, syscall.EROFS) {
		t.Errorf("append: got %v", err)
	}
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 1 {
		t.Errorf("searching on a read-only disk: %d holds, %v", len(holds), err)
	}
	r, err := journal.OpenReader(dir)
	must(t, err)
	if holds, err := r.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 1 {
		t.Errorf("reader on a read-only disk: %d holds, %v (%q)", len(holds), err, r.Remarks)
	}
	must(t, r.Close())
	remount(0)
	eventually(t, "writes again", func() bool { return j.Health().OK() })
	must(t, j.Sync(t.Context()))
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 2 {
		t.Errorf("got %d holds, %v", len(holds), err)
	}
	must(t, j.Close())
}

// Each attempt made a segment when the error was another than a full disk.
func TestWriteErrorsMakeNoSegments(t *testing.T) {
	dir := t.TempDir()
	var clock atomic.Int64 // each look at it is an attempt
	j := open(t, journal.Options{Dir: dir, Log: slog.New(slog.DiscardHandler), Now: func() time.Time {
		return start.Add(time.Duration(clock.Add(1)) * 10 * time.Second)
	}})
	must(t, j.Append(held(0)))
	var was syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was))
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 0, Max: was.Max}))
	const n = 30
	failed := 0
	for i := 1; i <= n; i++ {
		if errors.Is(j.Append(held(i)), syscall.EFBIG) {
			failed++
		}
	}
	log := segments(t, dir)
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was))
	if failed != n || len(log) > 2 {
		t.Errorf("%d of %d writes failed, segments: %q", failed, n, log)
	}
	eventually(t, "writes again", func() bool { return j.Health().OK() && j.Stats().Backlog == 0 })
	must(t, j.Sync(t.Context()))
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != n+1 || j.Stats().Damaged != 0 {
		t.Errorf("%d holds, %v, %+v", len(holds), err, j.Stats())
	}
}

func TestDirectoryThatCannotBeMade(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "in-the-way", "journal")
	must(t, os.WriteFile(filepath.Join(parent, "in-the-way"), nil, 0o600))
	j := open(t, journal.Options{Dir: dir})
	if j.Append(held(1)) == nil {
		t.Error("append has no error")
	}
	if j.Health().OK() {
		t.Error("health is fine")
	}
	must(t, os.Remove(filepath.Join(parent, "in-the-way")))
	eventually(t, "makes the directory", func() bool { return j.Health().OK() })
	if len(explain(t, j, newID(1))) != 1 {
		t.Error("the record is lost")
	}
}

func TestBacklogIsBounded(t *testing.T) {
	parent := t.TempDir()
	must(t, os.WriteFile(filepath.Join(parent, "in-the-way"), nil, 0o600))
	j := openOnly(t, journal.Options{Dir: filepath.Join(parent, "in-the-way", "journal"), BacklogRecords: 10})
	lost := 0
	for i := range 25 {
		if errors.Is(j.Append(held(i)), journal.ErrLost) {
			lost++
		}
		j.Note(accepted(1000 + i))
	}
	if s := j.Stats(); lost != 15 || s.Lost != 15 || s.Backlog != 10 || s.DroppedAccepted != 25 {
		t.Errorf("%d lost, %+v", lost, s)
	}
	if err := j.Close(); err == nil || !strings.Contains(err.Error(), "10 records lost") {
		t.Errorf("close: got %v", err)
	}
}

func TestBrokenDatabase(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"garbage": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("no database"), 10_000), 0o600))
		},
		"empty": func(t *testing.T, path string) { must(t, os.Truncate(path, 0)) },
		"gone":  func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"cut": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			must(t, err)
			must(t, os.Truncate(path, info.Size()/2/4096*4096))
		},
		"cut in the header": func(t *testing.T, path string) { must(t, os.Truncate(path, 50)) },
		"flipped pages": func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			must(t, err)
			for i := 4096; i < len(text); i += 4096 {
				copy(text[i:], bytes.Repeat([]byte{0xa5}, 64))
			}
			must(t, os.WriteFile(path, text, 0o600))
		},
		"other schema": func(t *testing.T, path string) {
			text, err := os.ReadFile(path)
			must(t, err)
			copy(text[60:], []byte{0, 0, 0, 99}) // user_version
			must(t, os.WriteFile(path, text, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, journal.Options{Dir: dir})
			const n = 300
			for i := range n {
				must(t, j.Append(held(i)))
			}
			must(t, j.Append(journal.HoldChange{QueueID: held(0).QueueID, DecisionID: newID(0), State: journal.StateReleased, Time: start}))
			must(t, j.Close())
			path := filepath.Join(dir, "journal.db")
			spoil(t, path)
			var said logged
			j = open(t, journal.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&said, nil))})
			must(t, j.Append(held(n)))
			holds, err := j.Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			if len(holds) != n {
				t.Errorf("got %d open holds, want %d", len(holds), n)
			}
			if said.String() == "" {
				t.Error("nothing was said")
			}
			totals, err := j.Totals(t.Context(), "", time.Time{}, time.Time{})
			must(t, err)
			if len(totals) != 1 || totals[0].Messages != n+1 {
				t.Errorf("totals: got %+v", totals)
			}
			if !j.Health().OK() {
				t.Errorf("health: %v", j.Health())
			}
		})
	}
}

func TestDatabaseBreaksWhileInUse(t *testing.T) {
	dir := t.TempDir()
	var said logged
	j := open(t, journal.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&said, nil))})
	const n = 2000
	for i := range n {
		must(t, j.Append(held(i)))
	}
	must(t, j.Sync(t.Context()))
	for _, name := range []string{"journal.db", "journal.db-wal"} {
		file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
		must(t, err)
		info, err := file.Stat()
		must(t, err)
		_, err = file.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())), 0)
		must(t, err)
		must(t, file.Close())
	}
	i := n
	eventually(t, "the broken database is put aside and filled again", func() bool {
		must(t, j.Append(held(i)))
		i++
		holds, err := j.Holds(t.Context(), journal.HoldQuery{})
		return err == nil && len(holds) == i && j.Health().Reset != ""
	})
	aside, err := filepath.Glob(filepath.Join(dir, "journal.db.corrupt-*"))
	must(t, err)
	if len(aside) == 0 || !strings.Contains(said.String(), "journal database was broken") {
		t.Errorf("aside: %q, said: %s", aside, said.String())
	}
}

func TestBrokenDatabasesAreKeptTwice(t *testing.T) {
	dir := t.TempDir()
	for i := range 4 {
		must(t, os.WriteFile(filepath.Join(dir, "journal.db"), bytes.Repeat([]byte{byte(i + 1)}, 8192), 0o600))
		j := open(t, journal.Options{Dir: dir})
		must(t, j.Append(held(i)))
		must(t, j.Close())
	}
	aside, err := filepath.Glob(filepath.Join(dir, "journal.db.corrupt-*"))
	must(t, err)
	if len(aside) != 2 {
		t.Fatalf("kept: %q", aside)
	}
	text, err := os.ReadFile(slices.Max(aside))
	must(t, err)
	if text[0] != 4 {
		t.Errorf("the newest is not among them: %q", aside)
	}
}

// segments are the files of the log, oldest first.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	must(t, err)
	slices.Sort(names)
	return names
}

// unfilled makes a journal whose database has nothing of its log.
func unfilled(t *testing.T, n int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	for i := range n {
		must(t, j.Append(held(i)))
	}
	must(t, j.Close())
	for _, name := range []string{"journal.db", "journal.db-wal", "journal.db-shm"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDamagedLinesCostOnlyThemselves(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(lines [][]byte) [][]byte
		damaged int64
		left    int
	}{
		"none":         {func(l [][]byte) [][]byte { return l }, 0, 10},
		"flipped":      {func(l [][]byte) [][]byte { l[3][40] ^= 1; return l }, 1, 9},
		"checksum":     {func(l [][]byte) [][]byte { l[3][0] ^= 1; return l }, 1, 9},
		"torn tail":    {func(l [][]byte) [][]byte { l[9] = l[9][:50]; return l }, 1, 9},
		"no newline":   {func(l [][]byte) [][]byte { l[9] = bytes.TrimSuffix(l[9], []byte("\n")); return l }, 1, 9},
		"torn within":  {func(l [][]byte) [][]byte { l[3] = l[3][:50]; return l }, 1, 8},
		"empty line":   {func(l [][]byte) [][]byte { l[3] = []byte("\n"); return l }, 1, 9},
		"zeros":        {func(l [][]byte) [][]byte { l[9] = make([]byte, 5000); return l }, 1, 9},
		"endless line": {func(l [][]byte) [][]byte { l[3] = append(bytes.Repeat([]byte("x"), 5<<20), '\n'); return l }, 1, 9},
		"newer record": {func(l [][]byte) [][]byte { l[3] = []byte("5ebfbc2d {\"t\":\"of-tomorrow\"}\n"); return l }, -1, 9},
	} {
		t.Run(name, func(t *testing.T) {
			dir := unfilled(t, 10)
			log := segments(t, dir)[0]
			text, err := os.ReadFile(log)
			must(t, err)
			lines := bytes.SplitAfter(text, []byte("\n"))[:10]
			must(t, os.WriteFile(log, bytes.Join(c.spoil(lines), nil), 0o600))
			r, err := journal.OpenReader(dir)
			must(t, err)
			holds, err := r.Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			must(t, r.Close())
			if len(holds) != c.left {
				t.Errorf("reader: got %d holds, want %d", len(holds), c.left)
			}
			j := open(t, journal.Options{Dir: dir})
			must(t, j.Append(held(100)))
			holds, err = j.Holds(t.Context(), journal.HoldQuery{})
			must(t, err)
			if s := j.Stats(); len(holds) != c.left+1 || c.damaged >= 0 && s.Damaged != c.damaged {
				t.Errorf("got %d holds, want %d; %+v", len(holds), c.left+1, s)
			}
		})
	}
}

func TestLogThatWasEmptied(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(1)))
	must(t, j.Close())
	must(t, os.RemoveAll(filepath.Join(dir, "log")))
	j = open(t, journal.Options{Dir: dir, Now: func() time.Time { return start.Add(-1000 * time.Hour) }}) // and the clock went back
	must(t, j.Append(held(2)))
	holds, err := j.Holds(t.Context(), journal.HoldQuery{})
	must(t, err)
	if len(holds) != 2 {
		t.Errorf("got %d holds", len(holds))
	}
	// Emptied while we write to it.
	must(t, os.RemoveAll(filepath.Join(dir, "log")))
	i := 3
	eventually(t, "a new segment is made", func() bool {
		must(t, j.Append(held(i)))
		i++
		found, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
		must(t, err)
		return len(found) > 0
	})
	must(t, j.Append(held(i)))
	if len(explain(t, j, newID(i))) != 1 {
		t.Error("what was appended afterwards is not found")
	}
}

func TestSegmentsAreDeletedWhenTheyAreInTheDatabase(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir, SegmentBytes: 10 << 10, KeepLogBytes: 30 << 10})
	for i := range 500 {
		must(t, j.Append(held(i)))
	}
	must(t, j.Sync(t.Context()))
	eventually(t, "old segments are deleted", func() bool { return j.Stats().Log <= 50<<10 })
	if n := len(segments(t, dir)); n < 3 || n > 6 {
		t.Errorf("%d segments are left", n)
	}
	if got := j.Stats().Lag; got != 0 {
		t.Errorf("lag: %d", got)
	}
}

func TestLongLogDropsAcceptedFirst(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "journal.db"), 0o700)) // a database that cannot be opened
	var said logged
	j := openOnly(t, journal.Options{Dir: dir, MaxLogBytes: 50 << 10, Log: slog.New(slog.NewTextHandler(&said, nil))})
	eventually(t, "accepted rows are dropped", func() bool {
		j.Note(accepted(1000))
		must(t, j.Append(held(1)))
		return j.Stats().DroppedAccepted > 0
	})
	before := j.Stats()
	must(t, j.Append(held(2)))
	if s := j.Stats(); s.Log <= before.Log || s.DroppedAccepted != before.DroppedAccepted {
		t.Errorf("%+v, then %+v", before, s)
	}
	// Rows are dropped a moment before it is said, and the filler finds out by itself.
	eventually(t, "it is said", func() bool {
		return strings.Contains(said.String(), "journal log too long") && j.Health().Database != ""
	})
	eventually(t, "the lag is counted", func() bool { return j.Stats().Lag > 0 })
	must(t, j.Close())
	must(t, os.Remove(filepath.Join(dir, "journal.db")))
	j = open(t, journal.Options{Dir: dir})
	if holds, err := j.Holds(t.Context(), journal.HoldQuery{}); err != nil || len(holds) != 2 {
		t.Errorf("got %d holds, %v", len(holds), err)
	}
}

func TestNearlyFullDiskDropsAccepted(t *testing.T) {
	j := open(t, journal.Options{Dir: t.TempDir(), MinFree: 1 << 60})
	j.Note(accepted(1))
	must(t, j.Append(held(2)))
	if s := j.Stats(); s.DroppedAccepted != 1 || s.Appended != 1 {
		t.Errorf("%+v", s)
	}
	if len(explain(t, j, newID(2))) != 1 {
		t.Error("a stop is missing")
	}
}

func TestNoteIsBounded(t *testing.T) {
	at := start
	j := open(t, journal.Options{Dir: t.TempDir(), AcceptedPerSecond: 10, Now: func() time.Time { return at }})
	for i := range 1000 {
		j.Note(accepted(i))
		j.Note(refused(10_000 + i)) // a stop is not limited
	}
	if s := j.Stats(); s.DroppedAccepted != 990 || s.Noted != 1010 {
		t.Errorf("%+v", s)
	}
	must(t, j.Sync(t.Context()))
	decisions, err := j.Decisions(t.Context(), journal.Query{Limit: 5000})
	must(t, err)
	if len(decisions) != 1010 {
		t.Errorf("got %d decisions", len(decisions))
	}
}

func TestNoteIsWrittenByItself(t *testing.T) {
	dir := t.TempDir()
	j := open(t, journal.Options{Dir: dir})
	j.Note(accepted(1))
	eventually(t, "the note is in the log", func() bool { return j.Stats().Backlog == 0 })
	eventually(t, "the note is in the database", func() bool { return j.Stats().Filled == 1 })
}

func TestSyncEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "journal.db"), 0o700))
	j := open(t, journal.Options{Dir: dir})
	must(t, j.Append(held(1)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if j.Sync(ctx) == nil {
		t.Error("no error without a database")
	}
	if _, err := j.Holds(t.Context(), journal.HoldQuery{}); err == nil {
		t.Error("a search without a database has an answer")
	}
}
