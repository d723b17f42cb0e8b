package history

import (
	"context"
	"database/sql"
	"time"
)

// eventsPerListing bounds events: what is told of facts and zones is rare.
const eventsPerListing = 3

// forget deletes what is older than is kept, and of what is over whatever is too
// much, the oldest first.
func (s *Store) forget(ctx context.Context, tx *sql.Tx, now time.Time) error {
	oldest := now.Add(-s.o.Keep)
	for _, d := range []struct {
		text string
		arg  int64
	}{
		{"DELETE FROM listing WHERE ended <> 0 AND ended < ?", micros(oldest)},
		{"DELETE FROM event WHERE stored < ?", micros(oldest)},
		{"DELETE FROM slot WHERE slot < ?", slotOf(oldest)},
		{"DELETE FROM named WHERE last < ?", slotOf(oldest)},
		{"DELETE FROM queries WHERE slot < ?", slotOf(oldest)},
		{"DELETE FROM clean WHERE at < ?", micros(oldest)},
		{"DELETE FROM zone_queries WHERE day < ?", dayOf(oldest)},
		{"DELETE FROM event WHERE told = 1 AND id IN (SELECT id FROM event ORDER BY id DESC LIMIT -1 OFFSET ?)", int64(s.o.Most * eventsPerListing)},
	} {
		if _, err := tx.ExecContext(ctx, d.text, d.arg); err != nil {
			return err
		}
	}
	result, err := tx.ExecContext(ctx, `DELETE FROM listing WHERE id IN (SELECT id FROM listing WHERE ended <> 0 ORDER BY ended, first
		LIMIT max(0, (SELECT count(*) FROM listing) - ?))`, s.o.Most)
	if err != nil {
		return err
	}
	dropped, err := result.RowsAffected()
	if err != nil || dropped == 0 {
		return err
	}
	return addMark(ctx, tx, markDropped, dropped)
}
