package limit

import (
	"slices"
	"time"
)

// shape is the lengths of a bucket's windows, in order. Buckets share it.
type shape struct {
	lengths []time.Duration
	longest time.Duration
}

func newShape(windows []Window) *shape {
	s := &shape{}
	for _, w := range windows {
		s.lengths = append(s.lengths, w.Length)
		s.longest = max(s.longest, w.Length)
	}
	return s
}

func (s *shape) is(windows []Window) bool {
	if len(s.lengths) != len(windows) {
		return false
	}
	for i, l := range s.lengths {
		if windows[i].Length != l {
			return false
		}
	}
	return true
}

// length is that of the i-th run of cells: a window's, or the attempts'.
func (s *shape) length(run int) time.Duration {
	if run < len(s.lengths) {
		return s.lengths[run]
	}
	return s.longest
}

// bucket is the state of one limit for one key. A million of them are to fit
// into 200 MB: no key, no counts of windows, one slice.
type bucket struct {
	shape   *shape
	latched int64 // since when it is shut, microseconds; 0 is open
	// cells are runs, one a window in the order of the shape and one of attempts
	// over the longest; each run oldest first, one cell a slot.
	cells []Cell
	n     [MaxWindows + 1]uint8 // cells in each run
	dirty bool                  // in its shard's dirty
}

func (b *bucket) attempts() int { return len(b.shape.lengths) } // their run

// run is the cells of the i-th run.
func (b *bucket) run(i int) []Cell {
	from := 0
	for _, n := range b.n[:i] {
		from += int(n)
	}
	return b.cells[from : from+int(b.n[i])]
}

// at is now in the time of the bucket, which never runs backwards.
func (b *bucket) at(now int64) int64 { return max(now, b.newest()) }

// newest is the bucket's last event; 0 without one. Cells are dropped only to
// make room for a later one, so that it is not forgotten.
func (b *bucket) newest() int64 {
	newest, end := int64(0), 0
	for _, n := range b.n {
		end += int(n)
		if n > 0 {
			newest = max(newest, b.cells[end-1].Last)
		}
	}
	return newest
}

// expired: a bucket that never was would give the same answers at now.
func (b *bucket) expired(now int64) bool {
	return b.latched == 0 && b.newest() < now-b.shape.longest.Microseconds()
}

// add puts amount into the i-th run at t, which is at(now).
func (b *bucket) add(i int, amount, t int64) {
	if amount == 0 {
		return
	}
	run, length := b.run(i), b.shape.length(i)
	if fold(run, length, amount, t) {
		return
	}
	end := len(run)
	for _, n := range b.n[:i] {
		end += int(n)
	}
	if gone := expired(run, length, t); gone > 0 {
		b.cells = slices.Delete(b.cells, end-len(run), end-len(run)+gone)
		b.n[i] -= uint8(gone)
		end -= gone
	}
	if len(b.cells) == cap(b.cells) { // append would double it
		b.cells = append(make([]Cell, 0, max(len(b.shape.lengths), len(b.cells)*3/2+1)), b.cells...)
	}
	b.cells = slices.Insert(b.cells, end, Cell{Last: t, Count: amount})
	b.n[i]++
}

// reshaped is the bucket after its limit got other windows. A window of a
// length that it had goes on; a new one takes over what the shortest window
// that is longer knows, or else the longest: an edited limit is no fresh budget.
func (b *bucket) reshaped(s *shape) bucket {
	r := bucket{shape: s, latched: b.latched, dirty: b.dirty}
	now := b.newest()
	for i, length := range s.lengths {
		r.adopt(i, b.run(b.closest(length)), now)
	}
	r.adopt(len(s.lengths), b.run(b.attempts()), now)
	return r
}

// closest is the run from which a window of this length is best made.
func (b *bucket) closest(length time.Duration) int {
	best := 0
	for i, l := range b.shape.lengths {
		switch was := b.shape.lengths[best]; {
		case l >= length && (was < length || l < was), l < length && was < l:
			best = i
		}
	}
	return best
}

// adopt makes the i-th run out of another's cells, as far as they count at now.
func (b *bucket) adopt(i int, cells []Cell, now int64) {
	from := now - b.shape.length(i).Microseconds()
	for _, c := range cells {
		if c.Last >= from {
			b.add(i, c.Count, c.Last)
		}
	}
}

// weigh fills in how the windows of a charge stand, of which earlier charges of
// this step have already taken some. It returns whether the charge fits.
func (b *bucket) weigh(now int64, c *Charge, uses []Use, taken *[MaxWindows]int64) bool {
	fits, t := b.latched == 0, b.at(now)
	for i, w := range c.Windows {
		run := b.run(i)
		u := &uses[i]
		u.Window, u.Used = w, used(run, w.Length, t)+taken[i]
		wanted := c.Amount + taken[i]
		switch {
		case b.latched != 0:
			u.Over, u.Never = true, true
		case u.Used+c.Amount <= w.Count:
			continue
		case wanted > w.Count:
			u.Over, u.Never = true, true
		default:
			u.Over, u.FreeAt = true, fromMicros(freeAt(run, w, wanted, t))
		}
		fits = fits && w.Soft
	}
	return fits
}
