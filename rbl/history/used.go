package history

import (
	"context"
	"database/sql"
	"time"
)

// dayOf is a day of UTC, as lists count them.
func dayOf(t time.Time) int64 {
	const length = 24 * 60 * 60
	n := t.Unix() / length
	if t.Unix()%length < 0 {
		n--
	}
	return n
}

// AddSent counts queries by zone, which are among Queries from then on; those under
// "" belong to none.
func (s *Store) AddSent(ctx context.Context, at time.Time, sent map[string]int64) error {
	return s.write(ctx, "count queries", func(tx *sql.Tx) error {
		all := int64(0)
		for zone, n := range sent {
			all += n
			if zone == "" || n <= 0 {
				continue
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO zone_queries (day, zone, sent) VALUES (?, ?, ?)
				ON CONFLICT (day, zone) DO UPDATE SET sent = sent + excluded.sent`, dayOf(at), zone, n); err != nil {
				return err
			}
		}
		return addQueries(ctx, tx, at, all)
	})
}

// Used is how many queries each zone was sent on the day (UTC) of now.
func (s *Store) Used(ctx context.Context, now time.Time) (map[string]int64, error) {
	used := map[string]int64{}
	err := s.query(ctx, "read how much each blocklist was asked", func(rows *sql.Rows) error {
		var zone string
		var n int64
		err := rows.Scan(&zone, &n)
		used[zone] = n
		return err
	}, "SELECT zone, sent FROM zone_queries WHERE day = ?", dayOf(now))
	return used, err
}
