package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

const (
	openCheck   = 2 * time.Second // quick_check at open; what it has no time for shows itself later
	brokenKept  = 2               // databases put aside
	brokenMark  = ".corrupt-"
	busyTimeout = "5000" // ms: somebody else may look into the database
)

// errBroken is a database whose content cannot be relied on.
var errBroken = errors.New("database is broken")

// isBroken reports whether err says so.
func isBroken(err error) bool {
	if errors.Is(err, errBroken) {
		return true
	}
	var e sqlite3.Error
	return errors.As(err, &e) &&
		(e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB || e.ExtendedCode == sqlite3.ErrIoErrShortRead)
}

// isRecordFault reports whether err is about one row, not the database.
func isRecordFault(err error) bool {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case sqlite3.ErrConstraint, sqlite3.ErrMismatch, sqlite3.ErrTooBig, sqlite3.ErrRange:
		return true
	}
	return false
}

// sourceName is the driver's name for a database file.
func sourceName(path string, parameters ...string) string {
	u := url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(parameters, "&")}
	return u.String()
}

// database is the writing side.
type database struct {
	db    *sql.DB
	conn  *sql.Conn
	apply *applier
	at    position // how far the log is in it
	saved []any    // of a broken one before it; see salvage
}

// openDatabase opens or makes the database at path for writing. One that is made
// takes what can be read of the database old, if that is not empty.
func openDatabase(ctx context.Context, path, old string) (*database, error) {
	// SQLite would take the umask's rights, and its -wal and -shm the file's.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	file.Close()
	db, err := sql.Open("sqlite3", sourceName(path, "mode=rw", "_busy_timeout="+busyTimeout, "_txlock=immediate"))
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(1)
	d := &database{db: db}
	if err := d.prepare(ctx, old); err != nil {
		d.close()
		return nil, fmt.Errorf("open database: %w", err)
	}
	return d, nil
}

var pragmas = []string{
	"PRAGMA journal_mode = WAL",
	"PRAGMA synchronous = NORMAL",          // the log is what survives a power failure
	"PRAGMA journal_size_limit = 67108864", // of a WAL that grew behind a slow reader
	"PRAGMA wal_autocheckpoint = 4000",     // pages of 4 KiB: less than KeepLogBytes of log, from which a lost WAL is filled again
	"PRAGMA cache_size = -16000",           // KiB
	"PRAGMA secure_delete = ON",            // deleted addresses are overwritten
	"PRAGMA temp_store = MEMORY",           // nothing outside our directory
	"PRAGMA trusted_schema = OFF",          // the file may have been tampered with
	"PRAGMA cell_size_check = ON",          // finds broken pages early
}

func (d *database) prepare(ctx context.Context, old string) error {
	var err error
	if d.conn, err = d.db.Conn(ctx); err != nil {
		return err
	}
	for _, pragma := range pragmas {
		if _, err := d.conn.ExecContext(ctx, pragma); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	if err := d.check(ctx, openCheck); err != nil {
		return err
	}
	if err := d.migrate(ctx, old); err != nil {
		return err
	}
	if d.apply, err = newApplier(ctx, d.conn); err != nil {
		return strange(err)
	}
	err = d.conn.QueryRowContext(ctx, "SELECT segment, offset FROM checkpoint").Scan(&d.at.segment, &d.at.offset)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: no checkpoint", errBroken)
	}
	return err
}

// check looks for damage, for at most that long.
func (d *database) check(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var found string
	err := d.conn.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found)
	switch {
	case ctx.Err() != nil:
		return nil // large; nothing found so far
	case err != nil:
		return err
	case found != "ok":
		return fmt.Errorf("%w: %s", errBroken, found)
	}
	return nil
}

// strange makes of an error about tables that are not as they should be one that
// says the database is broken.
func strange(err error) error {
	var e sqlite3.Error
	if errors.As(err, &e) && e.Code == sqlite3.ErrError { // no such table
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return err
}

// migrate makes the tables of an empty database, with what can be saved of old,
// or brings those of an older version up to date: all of it or nothing.
func (d *database) migrate(ctx context.Context, old string) error {
	var version, tables int
	err := d.conn.QueryRowContext(ctx, "SELECT user_version, (SELECT count(*) FROM sqlite_schema) FROM pragma_user_version").Scan(&version, &tables)
	switch {
	case err != nil:
		return err
	case version == schemaVersion:
		return nil
	case version < 0 || version > schemaVersion || version == 0 && tables != 0:
		return fmt.Errorf("%w: its version is %d, wanted %d", errBroken, version, schemaVersion)
	}
	return d.transact(func() error {
		if version == 0 {
			if _, err := d.conn.ExecContext(ctx, schema); err != nil {
				return err
			}
			if old != "" {
				if d.saved, err = d.salvage(ctx, old); err != nil {
					return fmt.Errorf("save rows of %s: %w", old, err)
				}
			}
		} else {
			for _, text := range migrations[version:] {
				if _, err := d.conn.ExecContext(ctx, text); err != nil {
					return strange(fmt.Errorf("migrate from version %d: %w", version, err))
				}
			}
		}
		_, err := d.conn.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(schemaVersion))
		return err
	})
}

func (d *database) close() error {
	if d.apply != nil {
		d.apply.close()
	}
	if d.conn != nil {
		d.conn.Close()
	}
	return d.db.Close()
}

// transact runs work in a transaction.
func (d *database) transact(work func() error) error {
	ctx := context.Background() // a batch is bounded, the driver's watching of a context is not free
	if _, err := d.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := work()
	if err == nil {
		_, err = d.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = d.conn.ExecContext(ctx, "ROLLBACK") // SQLite may have done so by itself
	}
	return err
}

// store writes a batch and how far the log is read by it.
func (d *database) store(b *batch) (faults int, err error) {
	err = d.transact(func() error {
		faults = 0
		for _, r := range b.records {
			if err := d.apply.apply(r); err != nil {
				if !isRecordFault(err) {
					return err
				}
				faults++
			}
		}
		_, err := d.apply.exec(setCheckpoint, b.next.segment, b.next.offset)
		return err
	})
	if err == nil {
		d.at = b.next
	}
	return faults, err
}

// openReading opens a pool for queries on a database that exists.
func openReading(path string, parameters ...string) (*sql.DB, error) {
	db, err := sql.Open("sqlite3", sourceName(path, append(parameters, "_query_only=1", "_busy_timeout="+busyTimeout)...))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	return db, nil
}

// putAside renames a broken database and keeps the newest few of those.
func putAside(path string, now time.Time) (string, error) {
	old := brokenOnes(path)
	at := now.Unix()
	if len(old) > 0 {
		at = max(at, old[len(old)-1]+1)
	}
	aside := path + brokenMark + strconv.FormatInt(at, 10)
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("put broken database aside: %w", err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("put broken database aside: %w", err)
		}
	}
	for _, n := range old[:max(0, len(old)+1-brokenKept)] {
		_ = removeBroken(path, n) // the purge tries again
	}
	return aside, nil
}

// removeBroken deletes the database that was put aside at n.
func removeBroken(path string, n int64) error {
	var errs []error
	for _, suffix := range []string{"-wal", "-shm", ""} { // the name that is looked for last
		err := os.Remove(path + brokenMark + strconv.FormatInt(n, 10) + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("delete database put aside: %w", err)
	}
	return nil
}

// removeBrokenBefore deletes those that were put aside before oldest.
func removeBrokenBefore(path string, oldest time.Time) error {
	var errs []error
	for _, n := range brokenOnes(path) {
		if n < oldest.Unix() {
			errs = append(errs, removeBroken(path, n))
		}
	}
	return errors.Join(errs...)
}

// brokenOnes are the times of the databases put aside, oldest first.
func brokenOnes(path string) []int64 {
	var times []int64
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if digits, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+brokenMark); ok {
			if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
				times = append(times, n)
			}
		}
	}
	slices.Sort(times)
	return times
}
