package evidence

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Options are what a Store is opened with. The zero value is good.
type Options struct {
	Log *slog.Logger     // nil: discarded
	Now func() time.Time // nil: time.Now
	// KeepMails is how long single mails with their addresses are kept, KeepTotals how
	// long their numbers. Zero: 30 and 400 days.
	KeepMails, KeepTotals time.Duration
}

const (
	defaultKeepMails  = 30 * 24 * time.Hour
	defaultKeepTotals = 400 * 24 * time.Hour
)

// Store keeps evidence. Safe for concurrent use; Close it.
type Store struct {
	o    Options
	path string // empty: in memory

	mu   sync.Mutex // of db
	db   *sql.DB
	read *sql.DB // for queries; of memory it is db
}

// errBroken is a database whose content cannot be relied on.
var errBroken = errors.New("database of evidence is broken")

// Open opens or makes the database at path, 0600; "" keeps all in memory, for a
// single look at log files. A broken database, or one of another version, is put
// aside under a name with .corrupt-TIME, and a gap says so.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.KeepMails <= 0 {
		o.KeepMails = defaultKeepMails
	}
	if o.KeepTotals <= 0 {
		o.KeepTotals = defaultKeepTotals
	}
	s := &Store{o: o, path: path}
	err := s.open(ctx)
	if err != nil && path != "" && isBroken(err) {
		err = s.reset(ctx, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open evidence %s: %w", path, err)
	}
	return s, nil
}

var pragmas = []string{
	"PRAGMA journal_mode = WAL",
	"PRAGMA synchronous = NORMAL", // rows and checkpoint go together: what a power failure takes is read again
	"PRAGMA journal_size_limit = 67108864",
	"PRAGMA secure_delete = ON",
	"PRAGMA temp_store = MEMORY",
	"PRAGMA trusted_schema = OFF",
	"PRAGMA cell_size_check = ON",
}

func (s *Store) open(ctx context.Context) error {
	source := ":memory:"
	if s.path != "" {
		// SQLite would take the umask's rights, and follow a link.
		info, err := os.Lstat(s.path)
		if err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("it is %s, not a plain file", info.Mode().Type())
		}
		file, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		file.Close()
		source = (&url.URL{Scheme: "file", Path: s.path, RawQuery: "mode=rw&_busy_timeout=5000&_txlock=immediate"}).String()
	}
	db, err := sql.Open("sqlite3", source)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	db.SetConnMaxLifetime(0)
	s.db, s.read = db, db
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return err
	}
	if s.path == "" {
		return nil
	}
	s.read, err = sql.Open("sqlite3", (&url.URL{Scheme: "file", Path: s.path, RawQuery: "mode=ro&_query_only=1&_busy_timeout=5000"}).String())
	if err != nil {
		db.Close()
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
	var version, tables int
	err := s.db.QueryRowContext(ctx, "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version").Scan(&version, &tables)
	switch {
	case err != nil:
		return err
	case version == schemaVersion:
		return nil
	case version != 0 || tables != 0:
		return fmt.Errorf("%w: its version is %d, wanted %d", errBroken, version, schemaVersion)
	}
	return s.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, schema+"PRAGMA user_version = "+strconv.Itoa(schemaVersion))
		return err
	})
}

// transact runs work in a transaction.
func (s *Store) transact(ctx context.Context, work func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
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

// reset puts a broken database aside and begins another. The caller holds mu, or
// nobody else has the store yet.
func (s *Store) reset(ctx context.Context, cause error) error {
	s.closeAll()
	now := s.o.Now()
	aside := s.path + ".corrupt-" + strconv.FormatInt(now.Unix(), 10)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(s.path+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("put broken database aside: %w", err)
		}
	}
	s.o.Log.Error("database of evidence is broken and put aside; what it held is lost", "path", aside, "err", cause)
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.transact(ctx, func(tx *sql.Tx) error {
		return putGap(ctx, tx, Gap{To: now, Why: "the database of evidence was broken; what it held is lost, but for what the log still has"})
	})
}

func (s *Store) closeAll() {
	if s.read != nil && s.read != s.db {
		s.read.Close()
	}
	if s.db != nil {
		s.db.Close()
	}
}

// Close ends it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeAll()
	return nil
}

// Checkpoint is how far the log was read when the store was last written to: for
// maillog.Options.Checkpoint. Empty: not at all.
func (s *Store) Checkpoint() string { return s.CheckpointOf("") }

// CheckpointOf is the same for a further log, by the name that it was tracked under.
func (s *Store) CheckpointOf(source string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var position string
	err := s.db.QueryRow("SELECT position FROM checkpoint WHERE source = ?", source).Scan(&position)
	if err != nil {
		return ""
	}
	return position
}

// flights are the states that were in flight, by key.
func (s *Store) flights() (map[string]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, err := s.db.Query("SELECT key, state FROM flight")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var key, state string
		if err := rows.Scan(&key, &state); err != nil {
			return nil, err
		}
		all[key] = state
	}
	return all, rows.Err()
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
