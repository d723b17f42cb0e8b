package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
)

// eachPage is how many holds are in memory at a time.
const eachPage = 500

// EachHold calls fn with the holds of q, the longest held first, however many they
// are: Limit 0 is all. It keeps none, and no lock or transaction while fn runs, so
// fn may ask the journal. What changes meanwhile is given as it is then, or left
// out if q no longer means it. fn's error ends it.
func (j *Journal) EachHold(ctx context.Context, q HoldQuery, fn func(*Hold) error) error {
	j.settle(ctx)
	return eachHold(q, func(ask func(store) error) error {
		_, err := searchNow(j, func(s store) (struct{}, error) { return struct{}{}, ask(s) })
		return err
	}, ctx, fn)
}

// EachHold is Journal.EachHold.
func (r *Reader) EachHold(ctx context.Context, q HoldQuery, fn func(*Hold) error) error {
	return eachHold(q, func(ask func(store) error) error { return ask(r.memory) }, ctx, fn)
}

// EachHold is Journal.EachHold; what fn appends is not seen.
func (o *Offline) EachHold(ctx context.Context, q HoldQuery, fn func(*Hold) error) error {
	return eachHold(q, func(ask func(store) error) error {
		r, err := o.read()
		if err != nil {
			return err
		}
		return ask(r.memory)
	}, ctx, fn)
}

// eachHold finds the rows first, as eight octets each, and reads them page by page.
func eachHold(q HoldQuery, with func(func(store) error) error, ctx context.Context, fn func(*Hold) error) error {
	c, err := q.condition()
	if err != nil {
		return err
	}
	q.IDs = nil // there may be very many, and each row is asked for by its number
	still, err := q.condition()
	if err != nil {
		return err
	}
	var rows []int64
	if err := with(func(s store) (err error) {
		rows, err = s.holdRows(ctx, c, q.Limit)
		return err
	}); err != nil {
		return fmt.Errorf("search holds: %w", err)
	}
	for page := range slices.Chunk(rows, eachPage) {
		var holds []Hold
		if err := with(func(s store) (err error) {
			holds, err = s.holdsAt(ctx, still, page)
			return err
		}); err != nil {
			return fmt.Errorf("search holds: %w", err)
		}
		for i := range holds {
			if err := fn(&holds[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// holdRows are the rows of holds, the longest held first.
func (s store) holdRows(ctx context.Context, c condition, limit int) (rows []int64, err error) {
	if limit <= 0 {
		limit = -1 // SQLite: none
	}
	err = s.each(ctx, "SELECT n FROM hold"+c.where()+" ORDER BY held_at, n LIMIT ?", append(slices.Clip(c.args), limit), func(r *sql.Rows) error {
		var n int64
		err := r.Scan(&n)
		rows = append(rows, n)
		return err
	})
	return rows, err
}

// holdsAt reads some rows, if the condition still means them.
func (s store) holdsAt(ctx context.Context, c condition, rows []int64) (holds []Hold, err error) {
	list, err := json.Marshal(rows)
	if err != nil {
		return nil, err
	}
	// The order of the join is fixed: an index would lead through all open holds.
	err = s.each(ctx, "SELECT "+holdColumns+" FROM json_each(?) CROSS JOIN hold ON hold.n = json_each.value"+c.where()+" ORDER BY held_at, n",
		append([]any{string(list)}, c.args...), func(r *sql.Rows) error {
			h, err := scanHold(r)
			holds = append(holds, h)
			return err
		})
	return holds, err
}
