package redis

import (
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"relayguard/policy/limit"
)

// debt is that of one bucket. Whatever was done to it before its last reset or
// resume is forgotten with that.
type debt struct {
	charge        limit.Charge // its key, kind, unit and windows
	reset, resume time.Time    // zero: not
	shut          time.Time
	tried         limit.Charge // which shut it
	cells         []owedCell   // oldest first
}

// owedCell is what passed from one time to another, where all of it counts.
type owedCell struct {
	from    time.Time
	at      time.Time
	amount  int64
	charges int64
	items   map[limit.Item]struct{} // of a Distinct charge
}

// size is what the bucket takes of the room for cells and for items.
func (d *debt) size() (cells, items int) {
	for _, c := range d.cells {
		items += len(c.items)
	}
	return len(d.cells), items
}

// add notes so much at now. A slot is a sixteenth of the shortest window. When
// there are too many, those are joined that are closest together for their age,
// so that windows of every length err alike. Without room, all goes into the
// last one.
func (d *debt) add(now time.Time, amount int64, items []limit.Item, room bool) {
	longest, slot := d.charge.Windows[0].Length, d.charge.Windows[0].Length/16
	for _, w := range d.charge.Windows {
		longest, slot = max(longest, w.Length), min(slot, w.Length/16)
	}
	for len(d.cells) > 0 && d.cells[0].at.Before(now.Add(-longest)) {
		d.cells = d.cells[1:]
	}
	c := owedCell{from: now, at: now, amount: amount, charges: 1}
	c.know(slices.Values(items))
	n := len(d.cells)
	if n > 0 && (!room || !now.Truncate(slot).After(d.cells[n-1].at.Truncate(slot))) {
		d.cells[n-1].join(c)
		return
	}
	if d.cells = append(d.cells, c); n == mostPerBucket {
		d.thin(now, slot)
	}
}

// thin joins two cells.
func (d *debt) thin(now time.Time, slot time.Duration) {
	best, least := 0, math.MaxFloat64
	for i := range len(d.cells) - 1 {
		a, b := d.cells[i], d.cells[i+1]
		if cost := float64(b.at.Sub(a.from)) / float64(now.Sub(b.at)+slot); cost < least {
			best, least = i, cost
		}
	}
	d.cells[best].join(d.cells[best+1])
	d.cells = slices.Delete(d.cells, best+1, best+2)
}

// join adds a cell to one before it.
func (c *owedCell) join(next owedCell) {
	if c.at.Before(next.at) {
		c.at = next.at
	}
	c.amount, c.charges = min(c.amount+next.amount, limit.MaxCount), c.charges+next.charges
	c.know(maps.Keys(next.items))
}

func (c *owedCell) know(items iter.Seq[limit.Item]) {
	for it := range items {
		if c.items == nil {
			c.items = map[limit.Item]struct{}{}
		}
		c.items[it] = struct{}{}
	}
}

func (d *debt) acts() (list []payment) {
	if !d.reset.IsZero() {
		list = append(list, payment{op: opReset, key: d.charge.Key, at: d.reset})
	}
	if !d.resume.IsZero() {
		list = append(list, payment{op: opResume, key: d.charge.Key, at: d.resume})
	}
	return list
}

func (d *debt) adds(newID func() string) (list []payment) {
	for _, cell := range d.cells {
		c := d.charge
		c.Amount, c.Items = cell.amount, slices.Sorted(maps.Keys(cell.items))
		list = append(list, payment{op: opAdd, step: limit.Step{ID: newID(), Charges: []limit.Charge{c}}, at: cell.at, charges: cell.charges})
	}
	return list
}

func (d *debt) shuts(newID func() string) []payment {
	if d.shut.IsZero() {
		return nil
	}
	return []payment{{op: opShut, step: limit.Step{ID: newID(), Charges: []limit.Charge{d.tried}}, at: d.shut}}
}
