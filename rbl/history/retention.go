package history

import (
	"context"
	"database/sql"
	"time"
)

const (
	// eventsPerListing bounds events: what is told of facts and zones is rare.
	eventsPerListing = 3
	// keepClean is how long it is remembered when a subject that is no longer checked
	// was clean.
	keepClean = 60 * 24 * time.Hour
)

// forget deletes what is older than is kept, and of what is over whatever is too
// much, the oldest first. Never an event that nobody was told of.
func (s *Store) forget(ctx context.Context, tx *sql.Tx, now time.Time) error {
	oldest := now.Add(-s.o.Keep)
	for _, d := range []struct {
		text string
		arg  int64
	}{
		{"DELETE FROM listing WHERE ended <> 0 AND ended < ?", micros(oldest)},
		{"DELETE FROM event WHERE told = 1 AND stored < ?", micros(oldest)},
		{"DELETE FROM slot WHERE slot < ?", slotOf(oldest)},
		{"DELETE FROM named WHERE last < ?", slotOf(oldest)},
		{"DELETE FROM queries WHERE slot < ?", slotOf(oldest)},
		{"DELETE FROM clean WHERE subject NOT IN (SELECT subject FROM named WHERE last >= ?)", slotOf(now.Add(-keepClean))},
		{"DELETE FROM clean WHERE (subject, zone) IN (SELECT subject, zone FROM clean ORDER BY at LIMIT max(0, (SELECT count(*) FROM clean) - ?))", int64(s.o.Most)},
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
