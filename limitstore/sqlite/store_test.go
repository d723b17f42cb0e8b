package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/limitstore/sqlite"
	"relayguard/policy/limit"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// said collects what a store says.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) log() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// open opens a store that ends with the test.
func open(t testing.TB, o sqlite.Options) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, sqlite.ErrClosed) && !t.Failed() {
			t.Error(err)
		}
	})
	return s
}

func somewhere(t testing.TB) string { return filepath.Join(t.TempDir(), "limits.db") }

// eventually waits for what is done in the background.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to pass: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func charge(value string, amount int64) limit.Charge {
	return limit.Charge{
		Key: limit.Key{Limit: "login-volume", Value: value}, Kind: limit.Volume, Counts: limit.Recipients, Amount: amount,
		Windows: []limit.Window{{Count: limit.MaxCount, Length: time.Hour}, {Count: limit.MaxCount, Length: 24 * time.Hour}},
	}
}

// add has so much counted for each value.
func add(t testing.TB, s limit.Store, amount int64, values ...string) {
	t.Helper()
	for _, v := range values {
		must(t, s.Add(context.Background(), time.Now(), &limit.Step{Charges: []limit.Charge{charge(v, amount)}}))
	}
}

// used is what is counted for a value.
func used(t testing.TB, s limit.Store, value string) int64 {
	t.Helper()
	var out limit.Outcome
	must(t, s.Peek(context.Background(), time.Now(), &limit.Step{Charges: []limit.Charge{charge(value, 0)}}, &out))
	return out.Uses[1].Used
}

// entries are all that a store knows, in order.
func entries(t testing.TB, k limit.Keeper) []string {
	t.Helper()
	var all []string
	must(t, k.Each(context.Background(), func(e limit.Entry) error {
		if e.Known != nil {
			slices.SortFunc(e.Known.Items, func(a, b limit.KnownItem) int {
				if a.Item < b.Item {
					return -1
				}
				return 1
			})
		}
		text, err := json.Marshal(e)
		all = append(all, string(text))
		return err
	}))
	slices.Sort(all)
	return all
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got\n%v\nwant\n%v", what, got, want)
	}
}

// rowsOf counts the rows of a table in the file.
func rowsOf(t testing.TB, path, table string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	must(t, err)
	defer db.Close()
	must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// mixed leaves one of each in a store: counts, a shut bucket, distinct and known
// recipients, and what was forgotten.
func mixed(t testing.TB, s limit.Store) {
	t.Helper()
	now := time.Now()
	add(t, s, 7, "login:taro@example.jp", "login:hanako@example.jp", "local_user:a\x00b \xff")
	add(t, s, 1, "login:gone@example.jp")
	must(t, s.Reset(t.Context(), now, charge("login:gone@example.jp", 0).Key))
	step := limit.Step{
		Charges: []limit.Charge{
			{Key: limit.Key{Limit: "d", Value: "server"}, Kind: limit.Volume, Counts: limit.Distinct, Items: []limit.Item{1, 2, 1<<64 - 1},
				Windows: []limit.Window{{Count: 10, Length: time.Hour}}},
			{Key: limit.Key{Limit: "f", Value: "login:taro@example.jp"}, Kind: limit.Abuse, Counts: limit.FirstTime, Items: []limit.Item{1, 2, 1<<64 - 1},
				Windows: []limit.Window{{Count: 3, Length: time.Hour}}},
		},
		Known: limit.Known{Account: "login:taro@example.jp", Items: []limit.Item{1, 2, 1<<64 - 1}},
	}
	var out limit.Outcome
	must(t, s.Spend(t.Context(), now, &step, &out))
	if !out.Taken {
		t.Fatalf("%+v", out)
	}
	step.Charges, step.Known.Items = step.Charges[1:], []limit.Item{3}
	step.Charges[0].Items = []limit.Item{3}
	must(t, s.Spend(t.Context(), now, &step, &out))
	if out.Taken || !out.Latched[0] {
		t.Fatalf("%+v", out)
	}
}

func TestReopenedKnowsAll(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	mixed(t, s)
	want := entries(t, s)
	if len(want) != 6 {
		t.Fatalf("%d entries: %s", len(want), want)
	}
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path})
	same(t, "entries", entries(t, s), want)
	same(t, "buckets", s.Len(), 5)
	if ok, text := s.Health(); !ok || text != "fine" {
		t.Errorf("health: %v, %s", ok, text)
	}
	add(t, s, 5, "login:taro@example.jp")
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path})
	same(t, "used", used(t, s, "login:taro@example.jp"), int64(12))
}

// What another store knew goes into this one and out again.
func TestPutIsKept(t *testing.T) {
	from := limit.NewMemory()
	mixed(t, from)
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	add(t, s, 100, "login:taro@example.jp", "login:here@example.jp")
	must(t, from.Each(t.Context(), func(e limit.Entry) error {
		text, err := json.Marshal(e)
		must(t, err)
		var read limit.Entry
		must(t, json.Unmarshal(text, &read))
		return s.Put(t.Context(), read)
	}))
	same(t, "used", used(t, s, "login:taro@example.jp"), int64(7))
	must(t, s.Put(t.Context(), limit.Entry{State: &limit.State{Key: charge("login:here@example.jp", 0).Key}}))
	want := entries(t, from)
	same(t, "entries", entries(t, s), want)
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path})
	same(t, "entries read again", entries(t, s), want)
	must(t, s.Put(t.Context(), limit.Entry{Known: &limit.KnownState{Account: "login:taro@example.jp"}}))
	must(t, s.Close())
	if n := rowsOf(t, path, "known"); n != 0 {
		t.Errorf("%d recipients known after they were forgotten", n)
	}
	if err := s.Put(t.Context(), limit.Entry{}); err == nil {
		t.Error("an entry of nothing was taken")
	}
}

func TestOneProcess(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	_, err := sqlite.Open(t.Context(), sqlite.Options{Path: path})
	if !errors.Is(err, sqlite.ErrInUse) || !strings.Contains(err.Error(), path+": another process has it open; end that one first") {
		t.Errorf("got %v", err)
	}
	add(t, s, 1, "login:taro@example.jp")
	must(t, s.Close())
	open(t, sqlite.Options{Path: path})
	if _, err := sqlite.Open(t.Context(), sqlite.Options{}); err == nil {
		t.Error("opened without a path")
	}
}

func TestClosed(t *testing.T) {
	s := open(t, sqlite.Options{Path: somewhere(t)})
	must(t, s.Close())
	if err := s.Close(); !errors.Is(err, sqlite.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if err := s.Flush(t.Context()); !errors.Is(err, sqlite.ErrClosed) {
		t.Errorf("flush: %v", err)
	}
	add(t, s, 1, "login:taro@example.jp") // the last of the mail
}

func TestWrittenByItself(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	add(t, s, 1, "login:taro@example.jp")
	eventually(t, "a row is in the file", func() bool { return rowsOf(t, path, "bucket") == 1 })
}

func TestExpiredLeaveTheFile(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	const n = 12_000 // several goes
	for i := range n {
		add(t, s, 1, fmt.Sprint("login:", i))
	}
	mixed(t, s)
	must(t, s.Close())
	s = open(t, sqlite.Options{Path: path, Now: func() time.Time { return time.Now().Add(25 * time.Hour) }})
	if s.Len() != 1 { // the one that is shut
		t.Errorf("%d buckets were read", s.Len())
	}
	eventually(t, "they are deleted", func() bool { return rowsOf(t, path, "bucket") == 1 })
}

// Review 5, finding 3: a clock that was wrong once is told at the next start, and
// until somebody has done something.
func TestCountersOfTheFutureAreTold(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path})
	add(t, s, 1, "login:taro@example.jp")
	key := limit.Key{}
	must(t, s.Each(t.Context(), func(e limit.Entry) error { key = e.State.Key; return nil }))
	must(t, s.Close())
	var log said
	s = open(t, sqlite.Options{Path: path, Log: log.log(), Now: func() time.Time { return time.Now().Add(-2 * time.Hour) }})
	ok, text := s.Health()
	if !ok || !strings.Contains(text, "1 counters") || !strings.Contains(text, "relayguard limits reset ACCOUNT") || !strings.Contains(text, key.Value) {
		t.Errorf("%v, %q", ok, text)
	}
	s.Sweep(time.Now().Add(-2 * time.Hour))
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "counters=1") {
		t.Errorf("told %d times: %s", n, log.String())
	}
	must(t, s.Reset(t.Context(), time.Now(), key))
	s.Sweep(time.Now().Add(-2 * time.Hour))
	if _, text := s.Health(); text != "fine" {
		t.Errorf("after a reset: %q", text)
	}
}

// Memory forgets the oldest and tells nobody.
func TestFileIsBoundedAsMemoryIs(t *testing.T) {
	path := somewhere(t)
	s := open(t, sqlite.Options{Path: path, Memory: limit.MemoryOptions{Buckets: 640}})
	for i := range 3000 {
		add(t, s, 1, fmt.Sprint("login:", i))
		if i%500 == 0 {
			must(t, s.Flush(t.Context()))
		}
	}
	must(t, s.Flush(t.Context()))
	if s.Evicted() == 0 {
		t.Fatal("nothing was evicted")
	}
	eventually(t, "the file is as small", func() bool { return rowsOf(t, path, "bucket") <= s.Len()*5/4 })
	if got := used(t, s, "login:2999"); got != 1 {
		t.Errorf("the newest counts %d", got)
	}
}
