package history

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"time"

	"relayguard/rbl/check"
)

// TakeNeighbours takes the weekly look around.
func (s *Store) TakeNeighbours(ctx context.Context, now time.Time, all []check.Neighbour) error {
	return s.write(ctx, "store a look at neighbours", func(tx *sql.Tx) error {
		type place struct{ prefix, zone string }
		before := map[place]int{}
		err := each(ctx, tx, func(rows *sql.Rows) error {
			var p place
			var listed int
			err := rows.Scan(&p.prefix, &p.zone, &listed)
			before[p] = listed
			return err
		}, "SELECT prefix, zone, listed FROM neighbour WHERE unknown < asked")
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM neighbour"); err != nil {
			return err
		}
		for _, n := range all {
			listed, known := before[place{n.Prefix.String(), n.Zone}]
			if !known {
				listed = -1
			}
			at := n.At
			if at.IsZero() {
				at = now
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO neighbour (prefix, zone, asked, listed, unknown, at, before) VALUES (?, ?, ?, ?, ?, ?, ?)",
				n.Prefix.String(), n.Zone, n.Asked, n.Listed, n.Unknown, micros(at), listed); err != nil {
				return err
			}
		}
		return setMark(ctx, tx, markNeighbours, micros(now))
	})
}

// Neighbours are those of the last look, with what was Listed the time before (-1: nothing is known).
func (s *Store) Neighbours(ctx context.Context) (now []check.Neighbour, before []int, err error) {
	err = s.query(ctx, "read the look at neighbours", func(rows *sql.Rows) error {
		var n check.Neighbour
		var prefix string
		var at int64
		var listed int
		err := rows.Scan(&prefix, &n.Zone, &n.Asked, &n.Listed, &n.Unknown, &at, &listed)
		if err != nil {
			return err
		}
		if n.Prefix, err = netip.ParsePrefix(prefix); err != nil {
			return fmt.Errorf("prefix %q: %w", prefix, err)
		}
		n.At = timeOf(at)
		now, before = append(now, n), append(before, listed)
		return nil
	}, "SELECT prefix, zone, asked, listed, unknown, at, before FROM neighbour ORDER BY n")
	return now, before, err
}
