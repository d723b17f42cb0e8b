package journal

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// Trouble says that something of the guard was not well. What and Since name it:
// a later one with the same replaces it, as when it is over. One that the daemon
// did not live to end stays open until somebody says its end.
type Trouble struct {
	What  string // "redis", "queue helper"
	Why   string
	Since time.Time
	Until time.Time // zero: it still is
}

func (Trouble) class() class { return ordinary }

func (t Trouble) encode(l *line) {
	l.open("trouble")
	l.text("what", t.What)
	l.prose("why", t.Why)
	l.time("since", t.Since)
	l.time("until", t.Until)
	l.close()
}

// Troubles gives those that were at any time from since until before until, oldest
// first; of more than MaxLimit the newest. Zero times have no bound. They are kept
// as long as totals.
func (j *Journal) Troubles(ctx context.Context, since, until time.Time) ([]Trouble, error) {
	return search(ctx, j, func(s store) ([]Trouble, error) { return s.troubles(ctx, since, until) })
}

// Troubles is Journal.Troubles.
func (r *Reader) Troubles(ctx context.Context, since, until time.Time) ([]Trouble, error) {
	return r.memory.troubles(ctx, since, until)
}

func (s store) troubles(ctx context.Context, since, until time.Time) ([]Trouble, error) {
	var c condition
	if !since.IsZero() {
		c.add("(until = 0 OR until >= ?)", micros(since))
	}
	c.until("since", until)
	var found []Trouble
	err := s.each(ctx, "SELECT what, why, since, until FROM trouble"+c.where()+" ORDER BY since DESC, what DESC LIMIT ?",
		append(c.args, MaxLimit), func(rows *sql.Rows) error {
			var t Trouble
			var began, ended int64
			err := rows.Scan(&t.What, &t.Why, &began, &ended)
			t.Since, t.Until = moment(began), moment(ended)
			found = append(found, t)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read troubles: %w", err)
	}
	slices.Reverse(found)
	return found, nil
}
