package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/mattn/go-sqlite3"

	"relayguard/forward"
)

type sqliteSession struct {
	db   *sql.DB
	conn *sql.Conn
}

// maxLinks bounds the symbolic links to a database file.
const maxLinks = 16

// openSQLite opens a database file for reading. On a live machine SQLite itself
// does, with its locks; where it may not, or the disk is a copy, what Files reads
// is opened in memory, with the write-ahead log that belongs to it.
func (d *Databases) openSQLite(ctx context.Context, file string) (session, error) {
	if !path.IsAbs(file) {
		return nil, fmt.Errorf("open sqlite %q: want an absolute path", file)
	}
	if err := d.regular(ctx, file); err != nil {
		return nil, fmt.Errorf("open sqlite %s: %w", file, err)
	}
	var direct error
	if d.host.Live() {
		var s session
		if s, direct = openLive(ctx, file); direct == nil {
			return s, nil
		}
	}
	image, err := d.sqliteImage(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("open sqlite %s: %w", file, errors.Join(direct, err))
	}
	s, err := connectSQLite(ctx, "file::memory:?_query_only=1", image)
	if err != nil {
		return nil, fmt.Errorf("open sqlite %s: %w", file, err)
	}
	return s, nil
}

// openLive has SQLite open the file itself. In WAL mode it makes files beside the
// database if there are none, and as root they would be root's, in a panel's
// directory: then nobody has it open, and it is read as it lies.
func openLive(ctx context.Context, file string) (session, error) {
	dsn := "file:" + (&url.URL{Path: file}).EscapedPath() + "?mode=ro&_query_only=1&_busy_timeout=5000"
	wal, err := inWALMode(file)
	if err != nil {
		return nil, err
	}
	if wal && !exists(file+"-shm") {
		if exists(file + "-wal") {
			return nil, errors.New("its last writer did not end well (-wal without -shm)")
		}
		dsn += "&immutable=1"
	}
	s, err := connectSQLite(ctx, dsn, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// inWALMode reads it from the header: https://www.sqlite.org/fileformat2.html,
// section 1.3.3.
func inWALMode(file string) (bool, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false, errors.Join(err, forward.ErrNotRegular)
	}
	var head [20]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return false, nil // an empty database
	}
	return head[18] == 2 || head[19] == 2, nil
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

// regular refuses what would make SQLite wait: a FIFO, a device.
func (d *Databases) regular(ctx context.Context, file string) error {
	for range maxLinks {
		info, err := d.host.Files.Lstat(ctx, file)
		if err != nil {
			return err
		}
		switch {
		case info.Mode.IsRegular():
			return nil
		case info.Mode&fs.ModeSymlink == 0:
			return forward.ErrNotRegular
		}
		to, err := d.host.Files.Readlink(ctx, file)
		if err != nil {
			return err
		}
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(file), to)
		}
		file = to
	}
	return fmt.Errorf("more than %d symbolic links: %w", maxLinks, forward.ErrNotRegular)
}

// connectSQLite opens a connection that believes nothing of the file's schema and
// keeps to bounds: who owns the file may not be who reads it.
func connectSQLite(ctx context.Context, dsn string, image []byte) (*sqliteSession, error) {
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	s := &sqliteSession{db: db}
	if s.conn, err = db.Conn(ctx); err != nil {
		db.Close()
		return nil, err
	}
	err = s.conn.Raw(func(raw any) error {
		c := raw.(*sqlite3.SQLiteConn)
		if image != nil {
			if err := c.Deserialize(image, "main"); err != nil {
				return err
			}
		}
		c.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, 4*maxValue)
		c.SetLimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
		return nil
	})
	for _, pragma := range []string{"PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0", "PRAGMA query_only = ON", "BEGIN"} {
		if err == nil {
			_, err = s.conn.ExecContext(ctx, pragma)
		}
	}
	if err == nil { // BEGIN itself reads nothing
		err = s.rows(ctx, "SELECT count(*) FROM sqlite_master", func([]sql.NullString) error { return nil })
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *sqliteSession) rows(ctx context.Context, statement string, each func([]sql.NullString) error) error {
	if err := runnable(statement); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statementFor)
	defer cancel()
	rows, err := s.conn.QueryContext(ctx, statement)
	if err != nil {
		return err
	}
	return collect(rows, each)
}

func (s *sqliteSession) dialect() dialect { return dialect{kind: "sqlite", pipesConcat: true} }

// quote is sqlite3_mprintf("%q").
func (s *sqliteSession) quote(key string) string { return strings.ReplaceAll(key, "'", "''") }

func (s *sqliteSession) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	s.db.Close()
}
