package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"
)

// mostUntold is how many events are told at once.
const mostUntold = 1000

func (t *taking) tell(e Event) error { return putEvent(t.ctx, t.tx, t.stored, e) }

func putEvent(ctx context.Context, tx *sql.Tx, stored time.Time, e Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO event (at, stored, told, body) VALUES (?, ?, 0, ?)", micros(e.At), micros(stored), string(body))
	return err
}

func scanEvent(rows *sql.Rows) (e Event, err error) {
	var id, at int64
	var body string
	if err := rows.Scan(&id, &at, &body); err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		return e, err
	}
	e.ID, e.At = id, timeOf(at)
	return e, nil
}

// Untold are the events nobody was told of yet, oldest first; at most 1,000.
func (s *Store) Untold(ctx context.Context) (all []Event, err error) {
	err = s.query(ctx, "read events to be told", func(rows *sql.Rows) error {
		e, err := scanEvent(rows)
		all = append(all, e)
		return err
	}, "SELECT id, at, body FROM event WHERE told = 0 ORDER BY id LIMIT ?", mostUntold)
	return all, err
}

// Told forgets that an event is to be told.
func (s *Store) Told(ctx context.Context, ids ...int64) error {
	return s.write(ctx, "note events as told", func(tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, "UPDATE event SET told = 1 WHERE id = ?", id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Events are those that were stored in a time, told or not, oldest first; at most
// 10,000, the newest. A zero time is no bound. Kept 400 days once told. Their At is earlier, by
// up to a round's length: chosen by that, those of a round that is under way would be
// missed by who asks now, and by who asks next from now on.
func (s *Store) Events(ctx context.Context, since, until time.Time) (all []Event, err error) {
	err = s.query(ctx, "read events", func(rows *sql.Rows) error {
		e, err := scanEvent(rows)
		all = append(all, e)
		return err
	}, `SELECT * FROM (SELECT id, at, body FROM event WHERE stored >= ?1 AND (?2 = 0 OR stored < ?2) ORDER BY stored DESC, id DESC LIMIT 10000) ORDER BY at, id`, micros(since), micros(until))
	return all, err
}
