package sqlite_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/limitstore/sqlite"
)

// smallDisk mounts a file system of that many KiB.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("limits-test", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", size)); err != nil {
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

// wantHealth sees to it that Health and the log say so.
func wantHealth(t *testing.T, s *sqlite.Store, ok bool, texts ...string) {
	t.Helper()
	got, text := s.Health()
	if got != ok {
		t.Errorf("health: %v, %s", got, text)
	}
	for _, want := range texts {
		if !strings.Contains(text, want) {
			t.Errorf("health: got %q, want %q", text, want)
		}
	}
}

func wantSaid(t *testing.T, log *said, times int, text string) {
	t.Helper()
	if got := strings.Count(log.String(), text); got != times {
		t.Errorf("said %d times, want %d: %s\n%s", got, times, text, log.String())
	}
}

const (
	notWritten   = "counters are not written to their file: they are kept in memory"
	writtenAgain = "counters are written to their file again"
	wasBroken    = "limits file was broken: put aside, a new one is made"
)

func TestDiskFull(t *testing.T) {
	dir := smallDisk(t, 4096)
	path := filepath.Join(dir, "limits.db")
	var log said
	s := open(t, sqlite.Options{Path: path, Log: log.log()})
	add(t, s, 1, "login:0")
	must(t, s.Flush(t.Context()))
	free := fill(t, dir)
	defer free()
	const n = 3000
	for round := range 3 {
		for i := range n {
			add(t, s, 1, fmt.Sprint("login:", i))
		}
		if err := s.Flush(t.Context()); err == nil {
			t.Fatalf("round %d: the disk was never full", round)
		}
	}
	wantHealth(t, s, false, "counters are not written to "+path+" since ", "they are kept in memory", "full")
	wantSaid(t, &log, 1, notWritten)
	if got := used(t, s, "login:1"); got != 3 {
		t.Errorf("memory counts %d", got)
	}
	free()
	eventually(t, "it is written again", func() bool { ok, _ := s.Health(); return ok })
	must(t, s.Flush(t.Context()))
	wantHealth(t, s, true, "fine")
	wantSaid(t, &log, 1, writtenAgain)
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path})
	for _, c := range []struct {
		who  string
		want int64
	}{{"login:0", 4}, {"login:1", 3}, {"login:2999", 3}} {
		if got := used(t, s, c.who); got != c.want {
			t.Errorf("%s: read %d, want %d", c.who, got, c.want)
		}
	}
	must(t, s.Close()) // before the disk goes
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := smallDisk(t, 4096)
	path := filepath.Join(dir, "limits.db")
	s := open(t, sqlite.Options{Path: path})
	add(t, s, 3, "login:taro@example.jp")
	must(t, s.Close())
	remount := func(flags uintptr) {
		t.Helper()
		must(t, syscall.Mount("limits-test", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=4096k"))
	}
	remount(syscall.MS_RDONLY)
	var log said
	s = open(t, sqlite.Options{Path: path, Log: log.log()})
	wantHealth(t, s, false, "counters are not written to "+path, "read-only file system")
	wantSaid(t, &log, 1, notWritten)
	add(t, s, 1, "login:taro@example.jp")
	if got := used(t, s, "login:taro@example.jp"); got != 4 {
		t.Errorf("counts %d, want what was there and one more", got)
	}
	remount(0)
	eventually(t, "it is written again", func() bool { ok, _ := s.Health(); return ok })
	wantSaid(t, &log, 1, writtenAgain)
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path})
	if got := used(t, s, "login:taro@example.jp"); got != 4 {
		t.Errorf("read %d", got)
	}
	must(t, s.Close())
}

func TestDirectoryInPlaceOfTheFile(t *testing.T) {
	path := somewhere(t)
	must(t, os.Mkdir(path, 0o700))
	s := open(t, sqlite.Options{Path: path})
	wantHealth(t, s, false, "is a directory")
	add(t, s, 1, "login:taro@example.jp")
	must(t, os.Remove(path))
	must(t, s.Close()) // tries once more
	s = open(t, sqlite.Options{Path: path})
	if got := used(t, s, "login:taro@example.jp"); got != 1 {
		t.Errorf("read %d", got)
	}
}

// spoilPage writes over a page in the middle of a table.
func spoilPage(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	var pages, size int64
	must(t, db.QueryRow("SELECT page_count, page_size FROM pragma_page_count, pragma_page_size").Scan(&pages, &size))
	must(t, db.Close())
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt(bytes.Repeat([]byte{0xa5}, int(size)), pages/2*size)
	must(t, err)
	must(t, file.Close())
}

func rewrite(change func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		text, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, change(text), 0o600))
	}
}

func TestBrokenFile(t *testing.T) {
	const n = 3000
	for name, c := range map[string]struct {
		spoil func(*testing.T, string)
		least int    // what must be read of it
		cause string // as the log has it
	}{
		"not a database":  {rewrite(func([]byte) []byte { return bytes.Repeat([]byte("x"), 8192) }), 0, "file is not a database"},
		"corrupt header":  {rewrite(func(b []byte) []byte { copy(b, make([]byte, 100)); return b }), 0, "file is not a database"},
		"page in between": {spoilPage, n * 9 / 10, "malformed"},
		"truncated":       {rewrite(func(b []byte) []byte { return b[:len(b)/2/4096*4096+100] }), n / 20, "malformed"},
		"another program's": {func(t *testing.T, path string) {
			must(t, os.Remove(path))
			db, err := sql.Open("sqlite3", path)
			must(t, err)
			_, err = db.Exec("CREATE TABLE bucket (name TEXT); INSERT INTO bucket VALUES ('paint')")
			must(t, errors.Join(err, db.Close()))
		}, 0, "it is a database of another program"},
		"later version": {rewrite(func(b []byte) []byte { copy(b[60:], []byte{0, 0, 0, 99}); return b }), n, "its version is 99, wanted 1"},
		"no tables": {func(t *testing.T, path string) {
			db, err := sql.Open("sqlite3", path)
			must(t, err)
			_, err = db.Exec("DROP TABLE known")
			must(t, errors.Join(err, db.Close()))
		}, n, "no such table: known"},
	} {
		t.Run(name, func(t *testing.T) {
			path := somewhere(t)
			s := open(t, sqlite.Options{Path: path})
			for i := range n {
				add(t, s, 2, fmt.Sprintf("login:%05d", i))
			}
			must(t, s.Close())
			c.spoil(t, path)
			var log said
			s = open(t, sqlite.Options{Path: path, Log: log.log()})
			wantSaid(t, &log, 1, wasBroken)
			wantSaid(t, &log, 1, c.cause)
			aside, err := filepath.Glob(path + ".broken-*")
			must(t, err)
			if len(aside) == 0 {
				t.Fatal("nothing was put aside")
			}
			if s.Len() < c.least {
				t.Errorf("%d of %d were read", s.Len(), n)
			}
			wantHealth(t, s, true, path+" was broken and was put aside as "+aside[0], fmt.Sprintf("; %d counters", s.Len()))
			add(t, s, 1, "login:00000")
			want := used(t, s, "login:00000")
			kept := s.Len()
			must(t, s.Close())
			s = open(t, sqlite.Options{Path: path})
			wantHealth(t, s, true, "fine")
			if got := used(t, s, "login:00000"); got != want || s.Len() != kept {
				t.Errorf("then read %d and %d buckets, want %d and %d", got, s.Len(), want, kept)
			}
		})
	}
}

// Killed before the new file had all: what was put aside is read again.
func TestBrokenFileIsReadAgainUntilTheNewOneHasAll(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	add(t, s, 2, "login:taro@example.jp", "login:hanako@example.jp")
	must(t, s.Close())
	aside := path + fmt.Sprint(".broken-", time.Now().Unix())
	must(t, os.Rename(path, aside))
	s = open(t, sqlite.Options{Path: path})
	add(t, s, 5, "login:taro@example.jp")
	must(t, s.Close())
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	_, err = db.Exec("UPDATE whole SET yes = 0")
	must(t, errors.Join(err, db.Close()))
	for range 2 {
		s = open(t, sqlite.Options{Path: path})
		if taro, hanako := used(t, s, "login:taro@example.jp"), used(t, s, "login:hanako@example.jp"); taro != 5 || hanako != 2 {
			t.Errorf("read %d and %d", taro, hanako)
		}
		must(t, s.Close())
		must(t, os.RemoveAll(aside)) // not needed the second time
	}
}

func TestBreaksWhileInUse(t *testing.T) {
	path := somewhere(t)
	var log said
	s := open(t, sqlite.Options{Path: path, Log: log.log()})
	const n = 3000
	for i := range n {
		add(t, s, 1, fmt.Sprint("login:", i))
	}
	must(t, s.Flush(t.Context()))
	for _, name := range []string{path, path + "-wal"} {
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		must(t, err)
		info, err := file.Stat()
		must(t, err)
		_, err = file.WriteAt(bytes.Repeat([]byte{0xa5}, int(info.Size())), 0)
		must(t, errors.Join(err, file.Close()))
	}
	rounds := int64(1)
	eventually(t, "it is put aside", func() bool {
		for i := range n {
			add(t, s, 1, fmt.Sprint("login:", i))
		}
		rounds++
		_ = s.Flush(t.Context())
		return strings.Contains(log.String(), wasBroken)
	})
	must(t, s.Flush(t.Context()))
	wantHealth(t, s, true, "was broken and was put aside; all that is in memory is written to a new file")
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path})
	for _, who := range []string{"login:0", "login:2999"} {
		if got := used(t, s, who); got != rounds {
			t.Errorf("%s: read %d, want %d", who, got, rounds)
		}
	}
}

// What is written to a file that has no name any more, nobody reads again.
func TestTakenAwayWhileInUse(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"removed": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".old") },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+".new", nil, 0o600), os.Rename(path+".new", path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := somewhere(t)
			var log said
			s := open(t, sqlite.Options{Path: path, Log: log.log()})
			for i := range 100 {
				add(t, s, 1, fmt.Sprint("login:", i))
			}
			must(t, s.Flush(t.Context()))
			must(t, take(path))
			add(t, s, 1, "login:7")
			eventually(t, "it is written again", func() bool { return strings.Contains(log.String(), writtenAgain) })
			wantSaid(t, &log, 1, notWritten)
			must(t, s.Close())
			s = open(t, sqlite.Options{Path: path})
			if used(t, s, "login:7") != 2 || used(t, s, "login:99") != 1 {
				t.Errorf("of what was in memory, %d and %d are there, want 2 and 1", used(t, s, "login:7"), used(t, s, "login:99"))
			}
		})
	}
}

func TestBrokenFilesAreKeptTwice(t *testing.T) {
	path := somewhere(t)
	for i := range 4 {
		must(t, os.WriteFile(path, bytes.Repeat([]byte{byte(i + 1)}, 8192), 0o600))
		must(t, open(t, sqlite.Options{Path: path}).Close())
	}
	aside, err := filepath.Glob(path + ".broken-*")
	must(t, err)
	if len(aside) != 2 {
		t.Fatalf("kept: %q", aside)
	}
	s := open(t, sqlite.Options{Path: path, Now: func() time.Time { return time.Now().Add(31 * 24 * time.Hour) }})
	defer s.Close()
	eventually(t, "they are deleted after a month", func() bool {
		aside, err := filepath.Glob(path + ".broken-*")
		return err == nil && len(aside) == 0
	})
}

func TestDamagedRowCostsOnlyItself(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	add(t, s, 1, "login:a", "login:b", "login:c")
	must(t, s.Close())
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	_, err = db.Exec(`UPDATE bucket SET state = x'ff00' WHERE key LIKE '%login:b';
		INSERT INTO bucket VALUES (x'ff', 0, x'00'), (x'', 0, x'00'); INSERT INTO known VALUES (x'', 1, 0, 0)`)
	must(t, errors.Join(err, db.Close()))
	var log said
	s = open(t, sqlite.Options{Path: path, Log: log.log()})
	if s.Len() != 2 || used(t, s, "login:c") != 1 {
		t.Errorf("%d buckets", s.Len())
	}
	wantHealth(t, s, true, "fine")
	wantSaid(t, &log, 1, "some counters could not be read and begin at zero")
}
