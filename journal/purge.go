package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// purgeChunk is how many rows one transaction of a purge deletes: some ten
// milliseconds, then rows from the log come first.
const purgeChunk = 500

// retentions are what the clock deletes, each in chunks: its statement takes
// the oldest time that stays and the size of a chunk.
var retentions = [...]struct {
	of   func(*Retention) time.Duration
	text string
}{
	{ofAddresses, `DELETE FROM decision WHERE n IN (SELECT n FROM decision WHERE time < ?1 AND NOT EXISTS
		(SELECT 1 FROM hold WHERE hold.decision_id = decision.id AND hold.decision_id <> '' AND ` + openStates + `) ORDER BY time LIMIT ?2)`},
	{ofAddresses, `DELETE FROM hold WHERE n IN
		(SELECT n FROM hold WHERE changed < ?1 AND state NOT IN ('held', 'releasing', 'deleting') ORDER BY changed LIMIT ?2)`},
	{ofTotals, `DELETE FROM total WHERE (day, account, verdict) IN
		(SELECT day, account, verdict FROM total WHERE day < ?1 / 86400000000 LIMIT ?2)`},
	{ofTotals, `DELETE FROM label_total WHERE (day, site, plugin, plugin_by, account, verdict) IN
		(SELECT day, site, plugin, plugin_by, account, verdict FROM label_total WHERE day < ?1 / 86400000000 LIMIT ?2)`},
	{ofTotals, `DELETE FROM volume WHERE (slot, verdict) IN (SELECT slot, verdict FROM volume WHERE slot < ?1 / 900000000 LIMIT ?2)`},
	{ofTotals, `DELETE FROM trouble WHERE (since, what) IN (SELECT since, what FROM trouble WHERE max(since, until) < ?1 LIMIT ?2)`},
	{ofAddresses, `UPDATE incident SET addresses = '' WHERE id IN
		(SELECT id FROM incident WHERE addresses <> '' AND updated < ?1 LIMIT ?2)`},
	{ofTotals, `DELETE FROM incident WHERE id IN (SELECT id FROM incident WHERE closed <> 0 AND closed < ?1 LIMIT ?2)`},
	{ofActions, `DELETE FROM admin_action WHERE n IN (SELECT n FROM admin_action WHERE time < ?1 LIMIT ?2)`},
}

func ofAddresses(r *Retention) time.Duration { return r.Addresses }
func ofTotals(r *Retention) time.Duration    { return r.Totals }
func ofActions(r *Retention) time.Duration   { return r.Actions }

// purgeAccountStatements forget account ?1 up to time ?2: all but open holds
// with their decisions, and admin actions.
var purgeAccountStatements = [...]string{
	`DELETE FROM decision WHERE account = ?1 AND time <= ?2 AND NOT EXISTS
		(SELECT 1 FROM hold WHERE hold.decision_id = decision.id AND hold.decision_id <> '' AND ` + openStates + `)`,
	`DELETE FROM hold WHERE account = ?1 AND held_at <= ?2 AND state NOT IN ('held', 'releasing', 'deleting')`,
	`DELETE FROM total WHERE account = ?1 AND day <= ?2 / 86400000000`,
	`DELETE FROM label_total WHERE account = ?1 AND day <= ?2 / 86400000000`,
	`DELETE FROM incident WHERE (origin = ?1 OR account = ?1) AND closed <> 0 AND closed <= ?2`,
}

// PurgeNow deletes what is beyond retention at now. The journal does so by
// itself every hour.
func (j *Journal) PurgeNow(ctx context.Context, now time.Time) error {
	for _, r := range retentions {
		oldest := micros(now.Add(-r.of(&j.options.Retention)))
		for {
			var deleted int64
			err := j.filler.ask(ctx, func(d *database) error {
				var err error
				deleted, err = d.delete(r.text, oldest)
				return err
			})
			if err != nil {
				return fmt.Errorf("purge journal: %w", err)
			}
			if deleted == 0 {
				break
			}
		}
	}
	return j.filler.ask(ctx, func(*database) error {
		j.filler.deleteSegments()
		return removeBrokenBefore(j.filler.path, now.Add(-j.options.Retention.Addresses))
	})
}

// delete runs one chunk of a purge.
func (d *database) delete(text string, oldest int64) (deleted int64, err error) {
	err = d.transact(func() error {
		result, err := d.conn.ExecContext(context.Background(), text, oldest, purgeChunk)
		if err != nil {
			return err
		}
		deleted, err = result.RowsAffected()
		return err
	})
	return deleted, err
}

// purge is PurgeNow on the filler's goroutine: between two chunks rows from the
// log come first.
func (f *filler) purge(now time.Time) {
	for _, r := range retentions {
		oldest := micros(now.Add(-r.of(&f.j.options.Retention)))
		for f.purgeSome(r.text, oldest) > 0 {
		}
	}
	f.deleteSegments()
	if err := removeBrokenBefore(f.path, now.Add(-f.j.options.Retention.Addresses)); err != nil {
		f.j.log.Warn("journal database put aside cannot be deleted", "error", err.Error())
	}
}

// purgeSome deletes a chunk and then lets the log in; 0 ends the purge.
func (f *filler) purgeSome(text string, oldest int64) int64 {
	if f.database == nil {
		return 0
	}
	deleted, err := f.database.delete(text, oldest)
	if err != nil {
		_ = f.recover(err)
		return 0
	}
	if deleted > 0 {
		f.catchUp()
	}
	select {
	case <-f.j.stop:
		return 0
	default:
	}
	return deleted
}

// shrink deletes the oldest rows about accepted mail while the database is over
// its bound. The file stays as large: its room is used again.
func (f *filler) shrink() {
	const text = `DELETE FROM decision WHERE n IN
		(SELECT n FROM decision WHERE time < ?1 AND verdict IN ('accept', 'tell') ORDER BY time LIMIT ?2)`
	deleted := int64(0)
	for f.database != nil {
		var inUse int64
		err := f.database.conn.QueryRowContext(context.Background(), `SELECT (page_count - freelist_count) * page_size
			FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&inUse)
		if err != nil || inUse <= f.j.options.MaxDatabaseBytes {
			break
		}
		n := f.purgeSome(text, 1<<62)
		if n == 0 {
			break
		}
		deleted += n
	}
	if deleted > 0 {
		f.purgedEarly.Add(deleted)
		f.j.log.Warn("journal database over its bound: oldest rows about accepted mail deleted before their time",
			"rows", deleted, "most_bytes", f.j.options.MaxDatabaseBytes)
	}
}

// PurgeAccount forgets an account, as of now: its decisions, closed holds with
// what they waited for, totals and closed incidents, in the database and in the
// log; and all databases that were put aside, which may know it. What is counted
// of it is not here.
//
// Open holds with their decisions and open incidents stay until they are closed
// and a purge is asked for again or their time is over, admin actions for their
// time, decisions about other accounts' mail that name it for theirs.
func (j *Journal) PurgeAccount(ctx context.Context, account string) error {
	p := purge{Account: clean(account, maxText), Time: j.options.Now()}
	if err := j.Append(p); err != nil {
		return fmt.Errorf("purge account %s: %w", account, err)
	}
	j.file.rotate() // so that all that may name it is in segments that are done with
	if err := j.Sync(ctx); err != nil {
		return fmt.Errorf("purge account %s: %w", account, err)
	}
	return j.filler.ask(ctx, func(d *database) error {
		err := errors.Join(j.filler.purgeLog(d, p.Account), removeBrokenBefore(j.filler.path, time.Unix(1<<62, 0)))
		if err != nil {
			return fmt.Errorf("purge account %s: %w", account, err)
		}
		// What SQLite has written over is in the WAL until it is a checkpoint.
		_, err = d.conn.ExecContext(context.Background(), "PRAGMA wal_checkpoint(TRUNCATE)")
		return err
	})
}

// purgeLog writes the segments that the database has again, without the lines
// of an account, but for those of its open holds and incidents.
func (f *filler) purgeLog(d *database, account string) error {
	open := make(map[string]bool) // decisions that opened holds, and incidents
	rows, err := d.conn.QueryContext(context.Background(), `SELECT decision_id FROM hold WHERE account = ?1 AND `+openStates+`
		UNION SELECT id FROM incident WHERE (origin = ?1 OR account = ?1) AND closed = 0`, account)
	if err != nil {
		return err
	}
	for rows.Next() {
		var id string
		if err = rows.Scan(&id); err != nil {
			break
		}
		open[id] = true
	}
	if err := closeRows(rows, err); err != nil {
		return err
	}
	about := func(r Record) bool {
		switch r := r.(type) {
		case Decision:
			return r.Account == account && !open[r.ID]
		case Held:
			return r.Account == account && !open[r.DecisionID]
		case Incident:
			return (r.Origin == account || r.Account == account) && !open[r.ID] // all of a closed one: its first lines alone would open it again
		case purge:
			return false // forgets it again when a database is filled anew
		}
		return false
	}
	segments, err := listSegments(f.scan.dir)
	if err != nil {
		return err
	}
	current := f.j.file.writing()
	f.scan.close() // its segment may be replaced
	for _, s := range segments {
		if s.number == current || s.number > d.at.segment {
			continue
		}
		if s.number == d.at.segment && d.at.offset < s.size {
			continue
		}
		removed, err := rewrite(filepath.Join(f.scan.dir, segmentName(s.number)), about)
		if err != nil {
			return err
		}
		f.j.file.bytes.Add(-removed)
	}
	return syncDirectory(f.scan.dir)
}

// writing is the number of the segment that is written to, 0 if there is none.
func (f *logFile) writing() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return 0
	}
	return f.current.number
}

// rewrite leaves lines out of a segment. The file is replaced at once or not at
// all.
func rewrite(path string, without func(Record) bool) (removed int64, err error) {
	in, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	out, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path + ".new")
	defer out.Close()
	w := bufio.NewWriter(out)
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		text, err := r.ReadBytes('\n') // our own file, of at most Options.SegmentBytes
		if len(text) > 0 {
			record, bad := parseLine(bytes.TrimSuffix(text, []byte{'\n'}))
			switch {
			case isPast(text) || bad != nil || record != nil && without(record): // a damaged line may name it as well
				removed += int64(len(text))
			default:
				w.Write(text)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if removed == 0 {
		return 0, nil
	}
	if err := errors.Join(w.Flush(), out.Sync(), os.Chtimes(path+".new", info.ModTime(), info.ModTime())); err != nil {
		return 0, err
	}
	return removed, os.Rename(path+".new", path)
}
