package journal

import (
	"context"
	"database/sql"
	"os"
	"slices"
	"strings"
	"time"
)

// salvageTime bounds the reading of a broken database: the log waits meanwhile.
const salvageTime = 10 * time.Second

// salvages are the tables whose rows a new database takes from the broken one
// before it: what the log that is left may be too short for. Decisions, totals
// and closed holds are not among them: the log would count them twice.
//
// Rows are read in the order in which they lie in the file, from both ends, so
// that a broken page costs what is on it only. What the log has of them as well
// it says again, to the same end.
var salvages = [...]struct{ table, columns, from, where, order string }{
	{
		"hold", `n, queue_id, decision_id, account, rule, reason, mail_from, arrival, held_at, size, recipients, domains, state,
			changed, changed_by, change_reason, new_queue_id, waits, charge_id, site, plugin, template`,
		"hold NOT INDEXED", openStates, "n",
	},
	{"value", "name, value", "value", "true", "name"},
	{
		"incident", "id, origin, cause, noticed, opened, updated, closed, stops, recipients, state, account, addresses",
		"incident", "state = '' OR json_valid(state)", "id",
	},
	{"trouble", "what, why, since, until", "trouble", "true", "since, what"},
	{"admin_action", "n, time, by, uid, login_uid, verb, target, reason, outcome", "admin_action NOT INDEXED", "true", "n"},
}

// salvage copies what can be read of the broken database old into d, inside the
// transaction that makes its tables. A table that cannot be read costs only
// itself; an error is about d. The report is attributes for the log: rows by
// table, and which tables were not read to the end.
func (d *database) salvage(ctx context.Context, old string) (report []any, err error) {
	ctx, cancel := context.WithTimeout(ctx, salvageTime)
	defer cancel()
	from := openBroken(ctx, old)
	if from == nil {
		return []any{"broken", "all"}, nil
	}
	defer from.Close()
	var broken []string
	for _, s := range salvages {
		if s.table == "trouble" && pastVersion(ctx, from) != 0 {
			continue // that version had none
		}
		columns := readable(ctx, from, s.table, s.columns)
		insert, err := d.conn.PrepareContext(context.Background(),
			"INSERT OR IGNORE INTO "+s.table+" ("+s.columns+") VALUES ("+placeholders(strings.Count(s.columns, ",")+1)+")")
		if err != nil {
			return nil, err
		}
		saved, whole := int64(0), false
		for _, way := range []string{" ASC", " DESC"} {
			order := strings.ReplaceAll(s.order, ",", way+",") + way
			n, read, err := copyReadable(ctx, from, "SELECT "+columns+" FROM "+s.from+" WHERE "+s.where+" ORDER BY "+order, insert)
			if err != nil {
				insert.Close()
				return nil, err
			}
			if saved += n; read == nil {
				whole = true
				break
			}
		}
		insert.Close()
		report = append(report, s.table, saved)
		if !whole {
			broken = append(broken, s.table)
		}
	}
	return append(report, "broken", strings.Join(broken, " ")), nil
}

// openBroken opens a database that was put aside for reading, nil if there is
// nothing to read.
func openBroken(ctx context.Context, path string) *sql.DB {
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	for _, mode := range [][]string{{"mode=ro"}, {"mode=ro", "immutable=1"}} { // without its WAL if that is what is broken
		db, err := openReading(path, mode...)
		if err != nil {
			continue
		}
		db.SetMaxOpenConns(1)
		var tables int
		if _, err = db.ExecContext(ctx, "PRAGMA trusted_schema = OFF"); err == nil {
			err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
		}
		if err == nil && tables > 0 {
			return db
		}
		db.Close()
	}
	return nil
}

// readable are the columns as they are read from a broken database: those that an
// older version does not have are empty, and what is to be JSON is.
func readable(ctx context.Context, db *sql.DB, table, columns string) string {
	names := strings.Split(columns, ",")
	for i := range names {
		name := strings.TrimSpace(names[i])
		switch {
		case table == "admin_action" && name == "n":
			names[i] = "n - 1099511627776" // see insertAction; 2^40 is above any n
		case slices.Contains(lateColumns[table], name) && !hasColumn(ctx, db, table, name):
			names[i] = "''"
		case name == "waits" || name == "addresses":
			names[i] = "iif(json_valid(" + name + "), " + name + ", '')"
		}
	}
	return strings.Join(names, ", ")
}

// lateColumns are those that not every version has.
var lateColumns = map[string][]string{"hold": {"waits", "charge_id", "site", "plugin", "template"}, "incident": {"account", "addresses"}}

func hasColumn(ctx context.Context, db *sql.DB, table, column string) bool {
	var n int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?", table, column).Scan(&n)
	return err == nil && n > 0
}

// copyReadable inserts the rows of query until one cannot be read; unread says
// why that was. Rows that do not fit are left out.
func copyReadable(ctx context.Context, from *sql.DB, query string, insert *sql.Stmt) (copied int64, unread, err error) {
	rows, err := from.QueryContext(ctx, query)
	if err != nil {
		return 0, err, nil
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err, nil
	}
	values := make([]any, len(columns))
	pointers := make([]any, len(columns))
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return copied, err, nil
		}
		if slices.Contains(values, nil) {
			continue // our tables have no NULL
		}
		result, err := insert.Exec(values...)
		if isRecordFault(err) {
			continue
		}
		if err != nil {
			return copied, nil, err
		}
		n, _ := result.RowsAffected()
		copied += n
	}
	return copied, rows.Err(), nil
}
