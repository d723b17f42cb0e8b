package sqlite

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/policy/limit"
)

const (
	smallTable  = 10_000 // rows that one goroutine reads
	mostReaders = 4
	salvageTime = 10 * time.Second // Postfix waits 30 s for a milter
)

// open opens the file at start and reads it into memory. What is broken is put
// aside, and what can be read of it taken over.
func (s *Store) open(ctx context.Context) (err error) {
	var l loader
	began := time.Now()
	if s.file, err = openFile(ctx, s.options.Path, false); err == nil {
		if s.afresh = !s.file.whole; s.afresh { // killed before the new file had all
			s.salvage(ctx, &l, newestAside(s.options.Path))
		}
		err = s.load(ctx, &l, s.file.side)
	}
	if isBroken(err) {
		var aside string
		if aside, err = s.replace(ctx, err); aside != "" {
			s.salvage(ctx, &l, aside)
			s.health.reset(fmt.Sprintf("%s was broken and was put aside as %s; %d counters and %d known recipients could be read of it",
				s.options.Path, aside, l.buckets.Load(), l.known.Load()))
		}
	}
	s.tellLoaded(&l, began)
	return err
}

// peruse reads a file that cannot be written, if it can.
func (s *Store) peruse(ctx context.Context) {
	if s.memory.Len() > 0 {
		return
	}
	var l loader
	began := time.Now()
	s.salvage(ctx, &l, s.options.Path)
	s.tellLoaded(&l, began)
}

func (s *Store) tellLoaded(l *loader, began time.Time) {
	s.log.Info("counters read", "file", s.options.Path, "buckets", l.buckets.Load(), "known", l.known.Load(), "took", time.Since(began))
	if bad := l.bad.Load(); bad > 0 {
		s.log.Warn("some counters could not be read and begin at zero", "file", s.options.Path, "rows", bad, "first", oneLine(l.first()))
	}
}

// loader counts what came into memory.
type loader struct {
	buckets, known, bad atomic.Int64

	mu  sync.Mutex
	why error // of the first bad row
}

func (l *loader) refuse(err error) {
	l.bad.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == nil {
		l.why = err
	}
}

func (l *loader) first() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// table is how a table is read, in the order of its key.
type table struct {
	name, key, columns string
	// read reads rows, and returns the key of the last.
	read func(*Store, *loader, *sql.Rows) ([]byte, error)
}

var tables = [...]table{
	{"bucket", "key", "key, state", (*Store).readBuckets},
	{"known", "account", "account, item, since, last", (*Store).readKnown},
}

// load reads all of it, large tables in several parts at once.
func (s *Store) load(ctx context.Context, l *loader, db *sql.DB) error {
	for _, t := range tables {
		bounds, err := t.bounds(ctx, db)
		if err != nil {
			return err
		}
		errs := make([]error, len(bounds)+1)
		var all sync.WaitGroup
		for i := range errs {
			from, to := []byte{}, any(nil)
			if i > 0 {
				from = bounds[i-1]
			}
			if i < len(bounds) {
				to = bounds[i]
			}
			all.Go(func() {
				_, errs[i] = s.query(ctx, l, db, t, " WHERE "+t.key+" >= ?1 AND (?2 IS NULL OR "+t.key+" < ?2)", from, to)
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("read %s: %w", t.name, err)
		}
	}
	return nil
}

// bounds are the keys that cut a table into parts.
func (t table) bounds(ctx context.Context, db *sql.DB) (bounds [][]byte, err error) {
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&n); err != nil {
		return nil, fmt.Errorf("count %s: %w", t.name, err)
	}
	parts := min(runtime.GOMAXPROCS(0), mostReaders)
	if n < smallTable {
		parts = 1
	}
	for i := 1; i < parts; i++ {
		var at []byte
		err := db.QueryRowContext(ctx, "SELECT "+t.key+" FROM "+t.name+" ORDER BY "+t.key+" LIMIT 1 OFFSET ?", i*n/parts).Scan(&at)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.name, err)
		}
		if len(bounds) == 0 || !bytes.Equal(at, bounds[len(bounds)-1]) { // one account may be most of a table
			bounds = append(bounds, at)
		}
	}
	return bounds, nil
}

func (s *Store) query(ctx context.Context, l *loader, db *sql.DB, t table, rest string, args ...any) (last []byte, err error) {
	rows, err := db.QueryContext(ctx, "SELECT "+t.columns+" FROM "+t.name+rest, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if last, err = t.read(s, l, rows); err != nil {
		return last, err
	}
	return last, rows.Err()
}

func (s *Store) readBuckets(l *loader, rows *sql.Rows) (last []byte, err error) {
	now := s.options.Now()
	var key, data sql.RawBytes
	state := &limit.State{} // its room is used again
	for rows.Next() {
		if err := rows.Scan(&key, &data); err != nil {
			return last, err
		}
		last = append(last[:0], key...)
		err := decode(state, key, data)
		if err == nil && state.Expired(now) {
			continue
		}
		if err == nil {
			err = s.memory.Put(context.Background(), limit.Entry{State: state})
		}
		if err != nil {
			l.refuse(err)
			continue
		}
		l.buckets.Add(1)
	}
	return last, nil
}

var errKey = errors.New("bucket's key is damaged")

// decode reads a row of buckets.
func decode(state *limit.State, key, data []byte) error {
	n, used := binary.Uvarint(key)
	if used <= 0 || n > uint64(len(key)-used) {
		return errKey
	}
	name, value := key[used:used+int(n)], key[used+int(n):]
	if state.Key.Limit != string(name) { // rows lie by limit
		state.Key.Limit = string(name)
	}
	state.Key.Value = string(value)
	return state.UnmarshalBinary(data)
}

// readKnown reads rows that are in the order of accounts.
func (s *Store) readKnown(l *loader, rows *sql.Rows) (last []byte, err error) {
	state := &limit.KnownState{}
	done := func() {
		if len(state.Items) == 0 {
			return
		}
		slices.SortFunc(state.Items, byUse)
		if err := s.memory.Put(context.Background(), limit.Entry{Known: state}); err != nil {
			l.refuse(err)
			return
		}
		l.known.Add(int64(len(state.Items)))
	}
	var account sql.RawBytes
	for rows.Next() {
		var item int64
		var k limit.KnownItem
		if err := rows.Scan(&account, &item, &k.Since, &k.Last); err != nil {
			return last, err
		}
		last = append(last[:0], account...)
		if string(account) != state.Account {
			done()
			state = &limit.KnownState{Account: string(account)}
		}
		k.Item = limit.Item(item)
		state.Items = append(state.Items, k)
	}
	done()
	return last, nil
}

// byUse orders items as a KnownState has them.
func byUse(a, b limit.KnownItem) int {
	return cmp.Or(cmp.Compare(a.Last, b.Last), cmp.Compare(a.Item, b.Item))
}

// salvage reads what can be read of a file that is broken or cannot be written.
// A broken page costs what is on it: behind it reading goes on.
func (s *Store) salvage(ctx context.Context, l *loader, path string) {
	ctx, cancel := context.WithTimeout(ctx, salvageTime)
	defer cancel()
	db := openBroken(ctx, path)
	if db == nil {
		return
	}
	defer db.Close()
	for _, t := range tables {
		skipped := false // a broken page lies before from
		for from := []byte{}; from != nil && ctx.Err() == nil; {
			last, err := s.query(ctx, l, db, t, " WHERE "+t.key+" >= ? ORDER BY "+t.key, from)
			if skipped && last != nil {
				_, _ = s.query(ctx, l, db, t, " WHERE "+t.key+" < ? ORDER BY "+t.key+" DESC", from) // back to that page
			}
			if err == nil {
				break
			}
			if skipped = last == nil; skipped {
				last = from
			}
			from = after(last)
		}
	}
}

// after is the least key of the same length that is greater; else a shorter one,
// nil if there is none. Small steps: where the broken page ends nobody knows.
func after(key []byte) []byte {
	for i := len(key) - 1; i >= 0; i-- {
		if key[i] < 0xff {
			next := bytes.Clone(key[:i+1])
			next[i]++
			return next
		}
	}
	return nil
}

// openBroken opens a file for reading, nil if there is nothing to read.
func openBroken(ctx context.Context, path string) *sql.DB {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	for _, mode := range [][]string{{"mode=ro"}, {"mode=ro", "immutable=1"}} { // without its WAL if that is what is broken
		db, err := openPool(path, 1, append(mode, "_query_only=1")...)
		if err != nil {
			continue
		}
		var n int
		if _, err = db.ExecContext(ctx, "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON"); err == nil {
			err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'bucket'").Scan(&n)
		}
		if err == nil && n > 0 {
			return db
		}
		db.Close()
	}
	return nil
}
