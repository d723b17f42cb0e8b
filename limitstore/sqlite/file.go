package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"

	"relayguard/policy/limit"
)

// Marks of our files: "rgli", and what the tables look like.
const (
	applicationID = 0x72676c69
	schemaVersion = 1
)

// A bucket's key is the length of its limit's name (a varint), that name and the
// value, as they are: values need not be text. Expired is what has a time in
// expires, microseconds, that is over; a shut bucket has 0.
//
// Rows lie in the order of keys: so they are as small as with numbers for keys,
// and as fast to read, and no two keys can be taken for one.
const schema = `
CREATE TABLE bucket (
	key BLOB PRIMARY KEY,
	expires INTEGER NOT NULL,
	state BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE known (
	account BLOB NOT NULL,
	item INTEGER NOT NULL,
	since INTEGER NOT NULL,
	last INTEGER NOT NULL,
	PRIMARY KEY (account, item)
) STRICT, WITHOUT ROWID;
CREATE TABLE whole ( -- 0 while a new file does not yet have all that the one before it had
	id INTEGER PRIMARY KEY CHECK (id = 1),
	yes INTEGER NOT NULL
) STRICT;
`

var pragmas = []string{
	"PRAGMA journal_mode = WAL",
	"PRAGMA synchronous = NORMAL",           // a commit waits for no disk; sync tells it each second
	"PRAGMA wal_autocheckpoint = 0",         // tidy does it: a batch waits for none
	"PRAGMA journal_size_limit = 134217728", // of a WAL that grew behind a slow disk
	"PRAGMA cache_size = -32000",            // KiB
	"PRAGMA secure_delete = ON",             // keys are people's addresses
	"PRAGMA temp_store = MEMORY",            // nothing outside our directory
	"PRAGMA trusted_schema = OFF",           // the file may have been tampered with
	"PRAGMA cell_size_check = ON",           // finds broken pages early
}

const (
	putBucket = iota
	deleteBucket
	putKnown
	deleteKnown
	deleteAccount
)

var statements = [...]string{
	putBucket: `INSERT INTO bucket (key, expires, state) VALUES (?,?,?)
		ON CONFLICT DO UPDATE SET expires = excluded.expires, state = excluded.state`,
	deleteBucket: `DELETE FROM bucket WHERE key = ?`,
	putKnown: `INSERT INTO known (account, item, since, last) VALUES (?,?,?,?)
		ON CONFLICT DO UPDATE SET since = excluded.since, last = excluded.last`,
	deleteKnown:   `DELETE FROM known WHERE account = ? AND item = ?`,
	deleteAccount: `DELETE FROM known WHERE account = ?`,
}

// errBroken is a file whose content cannot be relied on.
var errBroken = errors.New("file is broken")

// isBroken reports whether err says so.
func isBroken(err error) bool {
	if errors.Is(err, errBroken) {
		return true
	}
	var e sqlite3.Error
	return errors.As(err, &e) &&
		(e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB || e.ExtendedCode == sqlite3.ErrIoErrShortRead)
}

// openPool opens what is at path. SQLite looks at it when it is first used.
func openPool(path string, connections int, parameters ...string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(append(parameters, "_busy_timeout=5000"), "&")}
	db, err := sql.Open("sqlite3", u.String())
	if err == nil {
		db.SetMaxOpenConns(connections)
	}
	return db, err
}

// file is the file opened for writing. Its methods are called one at a time.
type file struct {
	path     string
	info     os.FileInfo // as it was opened
	db       *sql.DB
	side     *sql.DB // for what others do meanwhile: reading at start, checkpoints
	conn     *sql.Conn
	prepared [len(statements)]*sql.Stmt
	whole    bool
	key      []byte
	state    []byte
}

// openFile opens or makes the file. One that is made is whole, if it does not
// replace another.
func openFile(ctx context.Context, path string, replaces bool) (*file, error) {
	// SQLite would take the umask's rights, and its -wal and -shm the file's.
	made, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	made.Close()
	f := &file{path: path}
	if f.db, err = openPool(path, 1, "mode=rw"); err == nil {
		f.side, err = openPool(path, 8, "mode=rw", "_synchronous=NORMAL", "_secure_delete=ON", "_cell_size_check=1")
	}
	if err == nil {
		err = f.prepare(ctx, replaces)
	}
	if err == nil {
		f.info, err = os.Stat(path)
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// away reports whether somebody removed, replaced or emptied the file: what is
// written to it then, nobody reads again, and SQLite says nothing.
func (f *file) away() bool {
	now, err := os.Stat(f.path)
	return err != nil || !os.SameFile(now, f.info) || now.Size() == 0 && f.info.Size() > 0
}

func (f *file) prepare(ctx context.Context, replaces bool) (err error) {
	if f.conn, err = f.db.Conn(ctx); err != nil {
		return err
	}
	for _, pragma := range pragmas {
		if _, err := f.conn.ExecContext(ctx, pragma); err != nil {
			return fmt.Errorf("%s: %w", pragma, err)
		}
	}
	if err := f.claim(ctx, replaces); err != nil {
		return err
	}
	for i, text := range statements {
		if f.prepared[i], err = f.conn.PrepareContext(ctx, text); err != nil {
			return fmt.Errorf("%w: prepare %.30q: %w", errBroken, text, err)
		}
	}
	if err := f.conn.QueryRowContext(ctx, "SELECT yes FROM whole").Scan(&f.whole); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}

// claim makes the tables of an empty file, and sees to it that another is ours.
func (f *file) claim(ctx context.Context, replaces bool) error {
	var id, version, tables int
	err := f.conn.QueryRowContext(ctx, `SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
		FROM pragma_application_id, pragma_user_version`).Scan(&id, &version, &tables)
	switch {
	case err != nil:
		return err
	case id == 0 && version == 0 && tables == 0:
	case id != applicationID:
		return fmt.Errorf("%w: it is a database of another program", errBroken)
	case version != schemaVersion:
		return fmt.Errorf("%w: its version is %d, wanted %d", errBroken, version, schemaVersion)
	default:
		return nil
	}
	return f.transact(func() error {
		text := fmt.Sprintf("%s INSERT INTO whole VALUES (1, %t); PRAGMA application_id = %d; PRAGMA user_version = %d",
			schema, !replaces, applicationID, schemaVersion)
		_, err := f.conn.ExecContext(ctx, text)
		return err
	})
}

func (f *file) close() error {
	for _, s := range f.prepared {
		if s != nil {
			s.Close()
		}
	}
	if f.conn != nil {
		f.conn.Close()
	}
	var errs []error
	for _, db := range []*sql.DB{f.side, f.db} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close %s: %w", f.path, err)
	}
	return nil
}

// transact runs work in a transaction.
func (f *file) transact(work func() error) error {
	ctx := context.Background() // a batch is bounded, the driver's watching of a context is not free
	if _, err := f.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := work()
	if err == nil {
		_, err = f.conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, _ = f.conn.ExecContext(ctx, "ROLLBACK") // SQLite may have done so by itself
	}
	return err
}

// change is an entry to be written: what changed of it, or all there is.
type change struct {
	limit.Entry
	all bool
}

// rows is about how many rows changes are.
func rows(changes []change) (n int) {
	for _, c := range changes {
		n++
		if c.Known != nil {
			n += len(c.Known.Items)
		}
	}
	return n
}

// store writes changes, all or none.
func (f *file) store(changes []change) error {
	return f.transact(func() error {
		for _, c := range changes {
			err := error(nil)
			if c.State != nil {
				err = f.storeBucket(c.State)
			} else {
				err = f.storeKnown(c.Known, c.all)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// touch writes what makes no difference.
func (f *file) touch(ctx context.Context) error {
	_, err := f.conn.ExecContext(ctx, "UPDATE whole SET yes = yes")
	return err
}

func (f *file) storeBucket(s *limit.State) (err error) {
	f.key = appendKey(f.key[:0], s.Key)
	if s.Gone() {
		_, err = f.prepared[deleteBucket].Exec(f.key)
		return err
	}
	if f.state, err = s.AppendBinary(f.state[:0]); err != nil {
		return err
	}
	_, err = f.prepared[putBucket].Exec(f.key, micros(s.Expires()), f.state)
	return err
}

func (f *file) storeKnown(k *limit.KnownState, all bool) error {
	account := []byte(k.Account)
	if all {
		if _, err := f.prepared[deleteAccount].Exec(account); err != nil {
			return err
		}
	}
	for _, i := range k.Items {
		var err error
		if i.Since == 0 { // forgotten
			_, err = f.prepared[deleteKnown].Exec(account, int64(i.Item))
		} else {
			_, err = f.prepared[putKnown].Exec(account, int64(i.Item), i.Since, i.Last)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func appendKey(b []byte, k limit.Key) []byte {
	b = binary.AppendUvarint(b, uint64(len(k.Limit)))
	return append(append(b, k.Limit...), k.Value...)
}

// micros is a time as it is stored, 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
