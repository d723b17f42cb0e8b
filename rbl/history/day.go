package history

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"relayguard/rbl"
)

// slotLength is what days are made of: no time zone's midnight lies within one.
const slotLength = 15 * time.Minute

// What a slot says, the worst is the greatest.
const (
	worstClean = 1 + iota
	worstUnknown
	worstListed
)

var worstResults = map[int]rbl.Result{worstClean: rbl.Clean, worstUnknown: rbl.Unknown, worstListed: rbl.Listed}

func slotOf(t time.Time) int64 {
	length := int64(slotLength / time.Second)
	n := t.Unix() / length
	if t.Unix()%length < 0 {
		n--
	}
	return n * length
}

// putSlot adds to what a quarter of an hour says of a subject.
func putSlot(ctx context.Context, tx *sql.Tx, subject string, at time.Time, worst int) error {
	if _, err := tx.ExecContext(ctx, "INSERT INTO named (subject, last) VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET last = max(last, excluded.last)", subject, slotOf(at)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO slot (slot, subject, worst) SELECT ?1, id, ?3 FROM named WHERE subject = ?2
		ON CONFLICT (slot, subject) DO UPDATE SET worst = max(worst, excluded.worst)`, slotOf(at), subject, worst)
	return err
}

func addQueries(ctx context.Context, tx *sql.Tx, at time.Time, n int64) error {
	if n <= 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO queries (slot, sent) VALUES (?, ?) ON CONFLICT (slot) DO UPDATE SET sent = sent + excluded.sent", slotOf(at), n)
	return err
}

// AddQueries counts queries that were sent for something else than a round.
func (s *Store) AddQueries(ctx context.Context, at time.Time, n int64) error {
	return s.write(ctx, "count queries", func(tx *sql.Tx) error { return addQueries(ctx, tx, at, n) })
}

// Queries are how many were sent in a time, by quarters of an hour. A zero time is
// no bound.
func (s *Store) Queries(ctx context.Context, since, until time.Time) (n int64, err error) {
	first, last := bounds(since, until)
	err = s.query(ctx, "read numbers of queries", func(rows *sql.Rows) error { return rows.Scan(&n) },
		"SELECT coalesce(sum(sent), 0) FROM queries WHERE slot >= ? AND slot < ?", first, last)
	return n, err
}

// bounds are the slots of a time, the last one exclusive.
func bounds(since, until time.Time) (first, last int64) {
	first, last = -1<<62, 1<<62
	if !since.IsZero() {
		first = slotOf(since)
	}
	if !until.IsZero() {
		last = until.Unix()
	}
	return first, last
}

// Day is the worst of a subject's day: Listed (confirmed, scope not wide, severity
// above Info) before Unknown (fewer than half of the zones asked gave an answer)
// before Clean.
type Day struct {
	Subject rbl.Subject
	Day     time.Time // its first instant in loc: midnight, but where that does not exist
	Worst   rbl.Result
}

// Days are those of a time, by subject and day; days without a round are left out.
// Rounds are kept by quarter of an hour at the finest. A zero time is no bound.
func (s *Store) Days(ctx context.Context, since, until time.Time, loc *time.Location) ([]Day, error) {
	all, err := s.days(ctx, since, until, loc)
	if err != nil {
		return nil, fmt.Errorf("read days of blocklists: %w", err)
	}
	slices.SortFunc(all, func(a, b Day) int {
		return cmp.Or(compareSubjects(a.Subject, b.Subject), a.Day.Compare(b.Day))
	})
	return all, nil
}

func (s *Store) days(ctx context.Context, since, until time.Time, loc *time.Location) (all []Day, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	subjects := map[int64]rbl.Subject{}
	err = each(ctx, tx, func(rows *sql.Rows) error {
		var id int64
		var name string
		if err := rows.Scan(&id, &name); err != nil {
			return err
		}
		var subject rbl.Subject
		err := subject.UnmarshalText([]byte(name))
		subjects[id] = subject
		return err
	}, "SELECT id, subject FROM named")
	if err != nil {
		return nil, err
	}
	first, last := bounds(since, until)
	next := func() (slot int64, found bool, err error) {
		var at sql.NullInt64
		err = tx.QueryRowContext(ctx, "SELECT min(slot) FROM slot WHERE slot >= ? AND slot < ?", first, last).Scan(&at)
		return at.Int64, at.Valid, err
	}
	slot, found, err := next()
	for ; found; slot, found, err = next() { // a day without any round costs nothing
		y, m, d := time.Unix(slot, 0).In(loc).Date()
		end := dayBegin(y, m, d+1, loc).Unix()
		for ; slot >= end; end = dayBegin(y, m, d+1, loc).Unix() { // a clock put back over midnight goes on with the day
			d++
		}
		day := dayBegin(y, m, d, loc)
		err = each(ctx, tx, func(rows *sql.Rows) error {
			var subject int64
			var worst int
			err := rows.Scan(&subject, &worst)
			all = append(all, Day{Subject: subjects[subject], Day: day, Worst: worstResults[worst]})
			return err
		}, "SELECT subject, max(worst) FROM slot WHERE slot >= ? AND slot < ? GROUP BY subject", slot, min(end, last))
		if err != nil {
			return nil, err
		}
		first = max(end, slot+1)
	}
	return all, err
}

// dayBegin is the first instant of a day. time.Date would give an hour of the day
// before where clocks go forward at midnight.
func dayBegin(y int, m time.Month, d int, loc *time.Location) time.Time {
	wanted := time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
	for t := wanted.Add(-48 * time.Hour).In(loc); ; { // before it in any time zone
		_, offset := t.Zone()
		_, end := t.ZoneBounds()
		begins := later(t, wanted.Add(-time.Duration(offset)*time.Second))
		if end.IsZero() || begins.Before(end) {
			return begins.In(loc)
		}
		t = end
	}
}
