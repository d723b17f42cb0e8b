package history_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// What waits for a second look, and what nobody was told of, outlive the process.
func TestRestartKeepsWhatWaits(t *testing.T) {
	dir := t.TempDir()
	s, err := history.Open(t.Context(), dir, history.Options{Confirm: confirm})
	must(t, err)
	take(t, s, start, nil, listed(zone, ours, hit(2)), listed(zone, other, hit(2)))
	before, err := s.Due(t.Context(), start.Add(confirm))
	must(t, err)
	must(t, s.Close())

	s, err = history.Open(t.Context(), dir, history.Options{Confirm: confirm})
	must(t, err)
	if s.Reset() != "" {
		t.Errorf("put aside: %s", s.Reset())
	}
	after, err := s.Due(t.Context(), start.Add(confirm))
	if err != nil || fmt.Sprint(before) != fmt.Sprint(after) || len(after) != 2 {
		t.Errorf("%v, %v, before %v", after, err, before)
	}
	if early, err := s.Due(t.Context(), start.Add(confirm-time.Second)); err != nil || len(early) != 0 {
		t.Errorf("due too early: %v, %v", early, err)
	}
	take(t, s, start.Add(time.Hour), nil, listed(zone, ours, hit(2)), clean(zone, other))
	must(t, s.Close())

	s = open(t, dir)
	events, err := s.Untold(t.Context())
	if err != nil || len(events) != 1 || events[0].Kind != history.Began || events[0].Listing.Subject != ours || events[0].At != start.Add(time.Hour) {
		t.Errorf("%+v, %v", events, err)
	}
	must(t, s.Told(t.Context(), events[0].ID))
	if again := untold(t, s); again != nil {
		t.Errorf("told again: %v", again)
	}
	if all, err := s.Events(t.Context(), start, start.Add(2*time.Hour)); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if all, err := s.Events(t.Context(), start, start.Add(time.Hour)); err != nil || len(all) != 0 {
		t.Errorf("before it was: %v, %v", all, err)
	}
	if next, err := s.NextDue(t.Context()); err != nil || !next.IsZero() {
		t.Errorf("next due: %v, %v", next, err)
	}
}

// overwrite destroys a database's pages, but for the first if from is large.
func overwrite(t *testing.T, path string, from int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	info, err := file.Stat()
	must(t, err)
	_, err = file.WriteAt([]byte(strings.Repeat("no page of a database ", int(info.Size()-from)/22)), from)
	must(t, errors.Join(err, file.Close()))
}

func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := history.Open(t.Context(), dir, history.Options{})
	must(t, err)
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	must(t, s.Close())
	return dir
}

// A broken database, or one of another version, is put aside, and no more than two
// of them are kept.
func TestBrokenDatabaseIsPutAside(t *testing.T) {
	newer := func(t *testing.T, path string, _ int64) {
		db, err := sql.Open("sqlite3", "file:"+path)
		must(t, err)
		_, err = db.Exec("PRAGMA user_version = 99")
		must(t, errors.Join(err, db.Close()))
	}
	for name, spoil := range map[string]func(*testing.T, string, int64){"header": overwrite, "pages": overwrite, "version": newer} {
		dir := filled(t)
		var asides []string
		for range 3 {
			spoil(t, filepath.Join(dir, "history.db"), map[string]int64{"pages": 4096}[name])
			if _, err := history.Peek(t.Context(), dir); err == nil && name != "pages" {
				t.Errorf("%s: it can be peeked into", name)
			}
			s, err := history.Open(t.Context(), dir, history.Options{})
			must(t, err)
			take(t, s, start, nil, listed(zone, ours, hit(2)))
			if len(listings(t, s, history.Query{})) != 1 || s.Reset() == "" || slices.Contains(asides, s.Reset()) {
				t.Errorf("%s: put aside as %q after %q", name, s.Reset(), asides)
			}
			asides = append(asides, s.Reset())
			must(t, s.Close())
		}
		kept, err := filepath.Glob(filepath.Join(dir, "*.corrupt-*"))
		must(t, err)
		kept = slices.DeleteFunc(kept, func(f string) bool { return strings.HasSuffix(f, "-wal") || strings.HasSuffix(f, "-shm") })
		if !slices.Equal(kept, asides[1:]) {
			t.Errorf("%s: kept %q of %q", name, kept, asides)
		}
	}
}

// One that turns out to be broken while it is written to is put aside, too: the
// round is not lost.
func TestDatabaseThatBreaksLater(t *testing.T) {
	dir := filled(t)
	s := open(t, dir)
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(dir, "history.db"))
	must(t, err)
	_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	must(t, errors.Join(err, db.Close()))
	overwrite(t, filepath.Join(dir, "history.db"), 4096)
	take(t, s, start.Add(time.Hour), nil, listed(zone, ours, hit(2)))
	if got := listings(t, s, history.Query{}); len(got) != 1 || s.Reset() == "" {
		t.Errorf("%v, put aside as %q", got, s.Reset())
	}
}

func TestOpenRefusesWhatIsNoPlainFile(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(t.TempDir(), "elsewhere")
	must(t, os.WriteFile(target, nil, 0o600))
	must(t, os.Symlink(target, filepath.Join(dir, "history.db")))
	if _, err := history.Open(t.Context(), dir, history.Options{}); err == nil || !strings.Contains(err.Error(), "not a plain file") {
		t.Error(err)
	}
	if _, err := history.Peek(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "not a plain file") {
		t.Error(err)
	}
}

func TestPeek(t *testing.T) {
	if _, err := history.Peek(t.Context(), t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "made", "too")
	writer := open(t, dir)
	take(t, writer, start, nil, listed(zone, ours, hit(2)))
	s, err := history.Peek(t.Context(), dir)
	must(t, err)
	if got := listings(t, s, history.Query{}); len(got) != 1 {
		t.Errorf("while it is written: %v", got)
	}
	take(t, writer, start.Add(time.Hour), nil, listed(zone, ours, hit(2)))
	if got := listings(t, s, history.Query{}); got[0].Phase != history.Standing {
		t.Errorf("what was written since: %v", got)
	}
	for what, err := range map[string]error{
		"Take": s.Take(t.Context(), check.Round{Began: start}, nil, nil), "TakeFacts": s.TakeFacts(t.Context(), start, nil),
		"Told": s.Told(t.Context(), 1), "Learn": s.Learn(t.Context(), history.Learnt{Addr: "203.0.113.5"}),
	} {
		if err == nil || !strings.Contains(err.Error(), "for reading only") {
			t.Errorf("%s of one that peeks: %v", what, err)
		}
	}
	must(t, s.Close())
	info, err := os.Stat(filepath.Join(dir, "history.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// What is over is forgotten after its time; what goes on is not, however old.
func TestOldThingsAreForgotten(t *testing.T) {
	s := openWith(t, t.TempDir(), history.Options{Confirm: confirm, Keep: 30 * 24 * time.Hour})
	day := func(d int) time.Time { return start.Add(time.Duration(d) * 24 * time.Hour) }
	for d, a := range []says{listed(zone, ours, hit(2)), listed(zone, ours, hit(2)), clean(zone, ours), clean(zone, ours)} {
		take(t, s, day(d), nil, a, listed(zone, other, hit(2)))
	}
	untold(t, s)
	take(t, s, day(32), nil, clean(zone, ours), listed(zone, other, hit(2)))
	if got := listings(t, s, history.Query{}); len(got) != 2 {
		t.Errorf("29 days after its end: %v", got)
	}
	take(t, s, day(34), nil, clean(zone, ours), listed(zone, other, hit(2)))
	if got := listings(t, s, history.Query{}); len(got) != 1 || got[0].Subject != other || got[0].First != start {
		t.Errorf("31 days after its end: %v", got)
	}
	days, err := s.Days(t.Context(), time.Time{}, time.Time{}, time.UTC)
	if err != nil || len(days) != 4 {
		t.Errorf("%v, %v", days, err)
	}
	n, err := s.Queries(t.Context(), time.Time{}, time.Time{})
	if err != nil || n != 4 {
		t.Errorf("%d queries, %v", n, err)
	}
	if events, err := s.Events(t.Context(), time.Time{}, time.Time{}); err != nil || len(events) != 0 {
		t.Errorf("%v, %v", events, err)
	}
}

// There are no more listings than are allowed: what is over goes first, and what
// finds no room is an error that says so.
func TestListingsAreBounded(t *testing.T) {
	s := openWith(t, t.TempDir(), history.Options{Confirm: confirm, Most: 10})
	round := func(h int, results ...says) error {
		subjects := []rbl.Subject{}
		for i := range 16 {
			subjects = append(subjects, address(fmt.Sprint("203.0.113.", i)))
		}
		return s.Take(t.Context(), roundOf(start.Add(time.Duration(h)*time.Hour), nil, results...), subjects, zonesNamed(zone))
	}
	some := func(from, to int, say func(string, rbl.Subject) says) (all []says) {
		for i := from; i < to; i++ {
			all = append(all, say(zone, address(fmt.Sprint("203.0.113.", i))))
		}
		return all
	}
	list := func(z string, s rbl.Subject) says { return listed(z, s, hit(2)) }
	must(t, round(0, some(0, 8, list)...))
	must(t, round(1, some(0, 8, clean)...)) // withdrawn
	must(t, round(2, some(8, 16, list)...))
	n, err := s.Dropped(t.Context())
	if all := listings(t, s, history.Query{}); len(all) != 10 || err != nil || n != 6 || !slices.Equal([]bool{all[0].Ended.IsZero(), all[7].Ended.IsZero(), all[8].Ended.IsZero()}, []bool{true, true, false}) {
		t.Errorf("%d listings, %d dropped, %v", len(all), n, err)
	}
	if err := round(3, append(some(0, 8, list), some(8, 16, list)...)...); !isFull(err) {
		t.Errorf("six too many: %v", err)
	}
	if n, err = s.Dropped(t.Context()); err != nil || n != 6+2+6 {
		t.Errorf("%d dropped, %v", n, err)
	}
	open := listings(t, s, history.Query{OpenOnly: true})
	standing := slices.DeleteFunc(open, func(l history.Listing) bool { return l.Phase != history.Standing })
	if len(standing) != 8 {
		t.Errorf("the round was not stored: %v", open)
	}
}

// Readers and writers at once see whole rounds.
func TestUseAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				all, err := s.Subjects(t.Context())
				if err != nil || len(all) != 0 && len(all) != 2 {
					t.Errorf("%v, %v", all, err)
					return
				}
				_, err = s.Days(t.Context(), time.Time{}, time.Time{}, time.UTC)
				_, _, lastErr := s.Last(t.Context())
				_, dueErr := s.Due(t.Context(), start)
				if err := errors.Join(err, lastErr, dueErr); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for i := range 30 {
		writers.Go(func() {
			take(t, s, start.Add(time.Duration(i)*time.Hour), nil, listed(zone, ours, hit(2)), clean(zone, other))
		})
		writers.Go(func() {
			must(t, s.TakeFacts(t.Context(), start, []sender.Fact{{Subject: fmt.Sprint(i), Check: sender.PTR, State: sender.Wrong}}))
		})
	}
	writers.Wait()
	cancel()
	readers.Wait()
}
