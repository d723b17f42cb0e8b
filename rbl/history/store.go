package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Options say how it is kept. Zero values stand for what is in brackets.
type Options struct {
	Confirm time.Duration // between a new result and the second look at it [10 min]
	Keep    time.Duration // of what is over [400 days]
	Most    int           // listings; of more the oldest that are over are forgotten; and times a list was clean for a subject [100,000]
	// Now is by what clock it is that something was stored. Whoever asks for Events of
	// a time while others store wants it; nil: that of what is stored, a round's end.
	Now func() time.Time
}

const (
	fileName       = "history.db"
	brokenMark     = ".corrupt-"
	brokenKept     = 2 // databases put aside
	defaultConfirm = 10 * time.Minute
	defaultKeep    = 400 * 24 * time.Hour
	defaultMost    = 100_000
)

// errBroken is a database whose content cannot be relied on.
var errBroken = errors.New("database is broken")

// Store keeps. Safe for concurrent use.
type Store struct {
	o       Options
	path    string
	peeking bool

	mu    sync.RWMutex // of what follows; queries hold it for reading
	db    *sql.DB      // nil if peeking
	read  *sql.DB
	reset string
	dead  bool // closed, for what was to be done about a broken one went wrong
}

// Open opens or makes the database in dir, which is made too, for this user alone.
// A broken one, or one of another version, is put aside, which Reset tells: what
// was known is lost then, and listings are told of anew. One process may have it
// open. Close it.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	s := &Store{o: withDefaults(o), path: filepath.Join(dir, fileName)}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open history of blocklists: %w", err)
	}
	err := s.open(ctx)
	if err != nil && isBroken(err) {
		err = s.startAnew(ctx)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open history of blocklists %s: %w", s.path, err)
	}
	return s, nil
}

// Peek opens it for reading, whoever writes. fs.ErrNotExist: there is none.
func Peek(ctx context.Context, dir string) (*Store, error) {
	s := &Store{o: withDefaults(Options{}), path: filepath.Join(dir, fileName), peeking: true}
	if err := s.peek(ctx); err != nil {
		return nil, fmt.Errorf("read history of blocklists %s: %w", s.path, err)
	}
	return s, nil
}

func withDefaults(o Options) Options {
	if o.Confirm <= 0 {
		o.Confirm = defaultConfirm
	}
	if o.Keep <= 0 {
		o.Keep = defaultKeep
	}
	if o.Most <= 0 {
		o.Most = defaultMost
	}
	return o
}

// Close closes it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.close()
}

func (s *Store) close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.db} { // the writer last: it tidies up
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Reset says where a database that was broken was put; "" if it was not.
func (s *Store) Reset() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.reset
}

var pragmas = []string{
	"PRAGMA journal_mode = WAL",
	"PRAGMA synchronous = FULL", // a few transactions a day: none is worth losing
	"PRAGMA journal_size_limit = 16777216",
	"PRAGMA temp_store = MEMORY",  // nothing outside our directory
	"PRAGMA trusted_schema = OFF", // the file may have been tampered with
	"PRAGMA cell_size_check = ON", // finds broken pages early
}

func (s *Store) open(ctx context.Context) error {
	if err := plain(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// SQLite would take the umask's rights, and its -wal and -shm the file's.
	file, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	file.Close()
	if s.db, err = sql.Open("sqlite3", source(s.path, "mode=rw", "_txlock=immediate")); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(1)
	if err := s.prepare(ctx); err != nil {
		s.db.Close()
		return err
	}
	if s.read, err = sql.Open("sqlite3", source(s.path, "mode=ro", "_query_only=1")); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(2)
	return nil
}

func (s *Store) prepare(ctx context.Context) error {
	for _, pragma := range pragmas {
		if _, err := s.db.ExecContext(ctx, pragma); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	var found string
	if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found); err != nil {
		return err
	}
	if found != "ok" {
		return fmt.Errorf("%w: %s", errBroken, found)
	}
	version, err := checkVersion(ctx, s.db, 1)
	if err != nil || version == schemaVersion {
		return err
	}
	text := schema
	if version == 1 {
		text = fromFirst
	}
	return transact(ctx, s.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, text+"PRAGMA user_version = "+strconv.Itoa(schemaVersion))
		return err
	})
}

// checkVersion is the version of the tables; 0: they are yet to be made. One before
// oldest, or of the future, is an error.
func checkVersion(ctx context.Context, db *sql.DB, oldest int) (version int, err error) {
	var tables int
	err = db.QueryRowContext(ctx, "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version").Scan(&version, &tables)
	switch {
	case err != nil:
		return 0, err
	case version == 0 && tables == 0 || version >= oldest && version <= schemaVersion:
		return version, nil
	}
	return 0, fmt.Errorf("%w: its version is %d, wanted %d", errBroken, version, schemaVersion)
}

// peek opens for reading. Where the -shm cannot be made, as on a read-only disk,
// nobody writes either, and the file is read as it is.
func (s *Store) peek(ctx context.Context) error {
	if err := plain(s.path); err != nil {
		return err
	}
	var errs []error
	for _, mode := range [][]string{{"mode=ro"}, {"mode=ro", "immutable=1"}} {
		db, err := sql.Open("sqlite3", source(s.path, append(mode, "_query_only=1")...))
		if err != nil {
			return err
		}
		db.SetMaxOpenConns(2)
		version, err := checkVersion(ctx, db, schemaVersion)
		if err == nil && version == 0 {
			err = fs.ErrNotExist // somebody is about to make it
		}
		if err == nil {
			s.read = db
			return nil
		}
		db.Close()
		errs = append(errs, err)
		if isBroken(err) || errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return errors.Join(errs...)
}

// plain: SQLite would follow a link, and wait for a FIFO.
func plain(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("it is %s, not a plain file", info.Mode().Type())
	}
	return err
}

func source(path string, parameters ...string) string {
	parameters = append(parameters, "_busy_timeout=5000") // ms: somebody may peek
	u := url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(parameters, "&")}
	return u.String()
}

// write runs work in a transaction. If the database shows itself broken by that, a
// new one is begun and work runs again, on it.
func (s *Store) write(ctx context.Context, what string, work func(*sql.Tx) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.peeking {
		return fmt.Errorf("%s: history of blocklists is open for reading only", what)
	}
	var err error
	if s.dead {
		err = s.open(ctx)
		s.dead = err != nil
	}
	if err == nil {
		err = transact(ctx, s.db, work)
	}
	if err != nil && isBroken(err) {
		err = s.startAnew(ctx)
		if s.dead = err != nil; err == nil {
			err = transact(ctx, s.db, work)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func transact(ctx context.Context, db *sql.DB, work func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// isBroken reports whether err says that the database cannot be relied on.
func isBroken(err error) bool {
	if errors.Is(err, errBroken) {
		return true
	}
	var e sqlite3.Error
	return errors.As(err, &e) &&
		(e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB || e.ExtendedCode == sqlite3.ErrIoErrShortRead)
}

// startAnew puts a broken database aside and begins another. The caller holds mu,
// or nobody else has the store yet.
func (s *Store) startAnew(ctx context.Context) error {
	_ = s.close()
	old := brokenOnes(s.path)
	at := time.Now().Unix()
	if len(old) > 0 {
		at = max(at, old[len(old)-1]+1)
	}
	aside := s.path + brokenMark + strconv.FormatInt(at, 10)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(s.path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put broken database aside: %w", err)
		}
	}
	for _, n := range old[:max(0, len(old)+1-brokenKept)] {
		for _, suffix := range []string{"-wal", "-shm", ""} { // the name that is looked for last
			_ = os.Remove(s.path + brokenMark + strconv.FormatInt(n, 10) + suffix) // the next time tries again
		}
	}
	s.reset = aside
	return s.open(ctx)
}

// brokenOnes are the times of the databases put aside, oldest first.
func brokenOnes(path string) (times []int64) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries { // by name, and the digits are as many
		if digits, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+brokenMark); ok {
			if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
				times = append(times, n)
			}
		}
	}
	return times
}

// query runs a query and calls scan for each row.
func (s *Store) query(ctx context.Context, what string, scan func(*sql.Rows) error, text string, args ...any) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := each(ctx, s.read, scan, text, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func each(ctx context.Context, q querier, scan func(*sql.Rows) error, text string, args ...any) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// stamp is when something is stored whose own time is at. The caller holds mu: who
// reads after that time waits, and sees it.
func (s *Store) stamp(at time.Time) time.Time {
	if s.o.Now == nil {
		return at
	}
	return s.o.Now()
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
