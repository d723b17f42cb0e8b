package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Reader is the journal read without a daemon. It shows the journal as it was
// when it was opened. It is safe for concurrent use.
//
// It writes nothing. What the database does not have yet is read from the log
// into a database in memory, which first gets a copy of the small tables (holds,
// admin actions, incidents, values, troubles): those answers are exact. Decisions
// are searched for in both; of one that only the file has, repeats and
// deliveries may be behind.
type Reader struct {
	memory store
	file   *sql.DB // nil: it cannot be read
	past   int     // the version of file if it is an older one

	// Remarks say what is missing or damaged, for an admin.
	Remarks []string
	at      position // of the log, up to which it is read
}

// OpenReader opens the journal in dir ("" is DefaultDir) for reading. A broken
// or missing database is a remark: the log alone is read then.
func OpenReader(dir string) (*Reader, error) {
	set(&dir, DefaultDir)
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	r := &Reader{}
	if err := r.open(context.Background(), dir); err != nil {
		r.Close()
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	return r, nil
}

func (r *Reader) open(ctx context.Context, dir string) error {
	memory, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		return err
	}
	memory.SetMaxOpenConns(1)
	r.memory = store{db: memory}
	if _, err := memory.ExecContext(ctx, schema); err != nil {
		return err
	}
	path := filepath.Join(dir, databaseName)
	if r.file, err = openExisting(path); err != nil {
		r.Remarks = append(r.Remarks, fmt.Sprintf("database not read, only the log: %v", err))
	}
	var at position
	if r.file != nil {
		r.past = pastVersion(ctx, r.file)
		if at, err = r.copySmall(ctx); err != nil {
			r.Remarks = append(r.Remarks, fmt.Sprintf("database not read, only the log: %v", err))
			r.file.Close()
			r.file, at = nil, position{}
			if _, err := memory.ExecContext(ctx, "DELETE FROM hold; DELETE FROM admin_action; DELETE FROM incident; DELETE FROM value; DELETE FROM trouble"); err != nil {
				return err
			}
		}
	}
	r.at = at
	return r.readLog(ctx, filepath.Join(dir, logDirectory))
}

// openExisting opens a database for reading. Where its -shm cannot be made, as
// on a read-only disk, nobody writes it either: then it is read as it is
// without its WAL, and the log has the rest.
func openExisting(path string) (*sql.DB, error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = notPlain(path, info) // SQLite would follow a link, and wait for a FIFO
	}
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, mode := range [][]string{{"mode=ro"}, {"mode=ro", "immutable=1"}} {
		db, err := openReading(path, mode...)
		if err == nil {
			var n int
			if err = db.QueryRow("SELECT count(*) FROM checkpoint").Scan(&n); err == nil {
				return db, nil
			}
			db.Close()
		}
		errs = append(errs, err)
		if isBroken(err) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// pastVersion tells an older version by what its tables have; 0: today's.
func pastVersion(ctx context.Context, db *sql.DB) int {
	switch {
	case !hasColumn(ctx, db, "decision", "site"):
		return 3
	case !hasColumn(ctx, db, "trouble", "what"):
		return 4
	}
	return 0
}

// copySmall copies what is small into memory, as of one moment, and says how
// much of the log that is.
func (r *Reader) copySmall(ctx context.Context) (at position, err error) {
	tx, err := r.file.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return at, err
	}
	defer tx.Rollback()
	if err := tx.QueryRowContext(ctx, "SELECT segment, offset FROM checkpoint").Scan(&at.segment, &at.offset); err != nil {
		return at, err
	}
	tables := []string{"hold", "admin_action", "incident", "value"}
	if !r.inFile().lacks(5) {
		tables = append(tables, "trouble")
	}
	for _, table := range tables {
		if err := copyTable(ctx, tx, r.memory.db, table); err != nil {
			return at, fmt.Errorf("read table %s: %w", table, err)
		}
	}
	return at, nil
}

// copyTable copies all rows of a table whose columns are the same.
func copyTable(ctx context.Context, from *sql.Tx, to *sql.DB, table string) error {
	rows, err := from.QueryContext(ctx, "SELECT * FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	for i, name := range columns {
		columns[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
	}
	values := make([]any, len(columns))
	pointers := make([]any, len(columns))
	for i := range values {
		pointers[i] = &values[i]
	}
	tx, err := to.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	// By name: the file may be of an older version, with fewer columns.
	insert, err := tx.PrepareContext(ctx, "INSERT INTO "+table+" ("+strings.Join(columns, ", ")+") VALUES ("+placeholders(len(columns))+")")
	if err != nil {
		return err
	}
	defer insert.Close()
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		if _, err := insert.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return tx.Commit()
}

// readLog applies what the database does not have, and another time what came since.
func (r *Reader) readLog(ctx context.Context, dir string) error {
	segments, err := listSegments(dir)
	if err != nil {
		return fmt.Errorf("read log directory: %w", err)
	}
	if len(segments) == 0 {
		return nil
	}
	newest := segments[len(segments)-1]
	end := position{newest.number, newest.size}
	if end.segment < r.at.segment {
		return nil // the log was emptied
	}
	conn, err := r.memory.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	apply, err := newApplier(ctx, conn)
	if err != nil {
		return err
	}
	defer apply.close()
	d := &database{conn: conn, apply: apply, at: r.at}
	defer func() { r.at = d.at }()
	scan := scanner{dir: dir}
	defer scan.close()
	damaged := 0
	for d.at.before(end) {
		b, err := scan.read(d.at, end)
		if err != nil && b.lines == 0 {
			r.Remarks = append(r.Remarks, fmt.Sprintf("rest of a log segment not read: %v", err))
			b.next = position{segment: b.next.segment + 1}
		}
		faults, err := d.store(&b)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		damaged += b.damaged + faults
	}
	if damaged > 0 {
		r.Remarks = append(r.Remarks, fmt.Sprintf("%d damaged lines in the log", damaged))
	}
	return nil
}

func (r *Reader) inFile() store { return store{r.file, r.past} }

// Close ends it.
func (r *Reader) Close() error {
	var errs []error
	if r.memory.db != nil {
		errs = append(errs, r.memory.db.Close())
	}
	if r.file != nil {
		errs = append(errs, r.file.Close())
	}
	return errors.Join(errs...)
}

// Explain is Journal.Explain.
func (r *Reader) Explain(ctx context.Context, id string) ([]Explanation, error) {
	if id == "" {
		return nil, nil
	}
	found, err := r.memory.explain(ctx, id)
	if err != nil {
		return nil, err
	}
	if r.file != nil {
		older, err := r.inFile().explain(ctx, id)
		if err != nil {
			return nil, err
		}
		found = mergeBy(found, older, func(e Explanation) string { return e.Decision.ID })
	}
	holds, err := r.memory.holdsOf(ctx, id, found)
	if err != nil {
		return nil, err
	}
	return addHolds(found, holds), nil
}

// Decisions is Journal.Decisions.
func (r *Reader) Decisions(ctx context.Context, q Query) ([]Decision, error) {
	stores := []store{r.memory}
	if r.file != nil {
		stores = append(stores, r.inFile())
	}
	before := place{id: q.Before}
	for _, s := range stores {
		if q.Before == "" || !before.time.IsZero() {
			break
		}
		var err error
		if before.time, err = s.timeOf(ctx, q.Before); err != nil {
			return nil, fmt.Errorf("search decisions: %w", err)
		}
	}
	var found []Decision
	for _, s := range stores {
		part, err := s.decisions(ctx, q, before)
		if err != nil {
			return nil, err
		}
		found = mergeBy(found, part, func(d Decision) string { return d.ID })
	}
	slices.SortStableFunc(found, func(a, b Decision) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		if a.ID < b.ID {
			return 1
		}
		return -1
	})
	return found[:min(len(found), bounded(q.Limit, DefaultLimit))], nil
}

// mergeBy adds to a what it does not have.
func mergeBy[T any](a, b []T, name func(T) string) []T {
	known := make(map[string]bool, len(a))
	for _, v := range a {
		known[name(v)] = true
	}
	for _, v := range b {
		if !known[name(v)] {
			a = append(a, v)
		}
	}
	return a
}

// Holds is Journal.Holds.
func (r *Reader) Holds(ctx context.Context, q HoldQuery) ([]Hold, error) {
	return r.memory.holds(ctx, q)
}

// Ranks is Journal.Ranks.
func (r *Reader) Ranks(ctx context.Context, q RankQuery) ([]Rank, error) {
	found, err := r.memory.ranks(ctx, q)
	if err != nil || r.file == nil {
		return ranked(found, q), err
	}
	older, err := r.inFile().ranks(ctx, q) // each decision is in one of them
	return ranked(joinRanks(q.by(), found, older), q), err
}

// AdminActions is Journal.AdminActions.
func (r *Reader) AdminActions(ctx context.Context, limit int) ([]AdminAction, error) {
	return r.memory.actions(ctx, limit)
}

// Incidents is Journal.Incidents.
func (r *Reader) Incidents(ctx context.Context, openOnly bool) ([]Incident, error) {
	return r.memory.incidents(ctx, openOnly)
}

// Value is Journal.Value.
func (r *Reader) Value(ctx context.Context, name string) (value string, found bool, err error) {
	return r.memory.value(ctx, name)
}
