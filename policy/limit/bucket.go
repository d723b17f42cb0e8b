package limit

import (
	"slices"
	"time"
)

// shape is what buckets of one limit have in common, and share: the lengths of
// its windows, in order.
type shape struct {
	limit    string
	distinct bool // counts items, in more.set, and has no cells but of attempts
	lengths  []time.Duration
	longest  time.Duration
}

func newShape(limit string, distinct bool, windows []Window) *shape {
	s := &shape{limit: limit, distinct: distinct}
	for _, w := range windows {
		s.lengths = append(s.lengths, w.Length)
		s.longest = max(s.longest, w.Length)
	}
	return s
}

func (s *shape) is(distinct bool, windows []Window) bool {
	if s.distinct != distinct || len(s.lengths) != len(windows) {
		return false
	}
	for i, l := range s.lengths {
		if windows[i].Length != l {
			return false
		}
	}
	return true
}

// length is that of the i-th run: a window's, or the attempts'.
func (s *shape) length(run int) time.Duration {
	if run < len(s.lengths) {
		return s.lengths[run]
	}
	return s.longest
}

// bucket is the state of one limit for one key. A million of them are to fit
// into 200 MB: no counts of windows, one slice, and a pointer to the rest that
// few have.
type bucket struct {
	value string
	shape *shape
	more  *more
	// words are runs, one a window in the order of the shape and one of attempts
	// over the longest.
	words []uint64
	n     [MaxWindows + 1]uint8 // words in each run
	dirty bool                  // in its shard's dirty
}

// more is what most buckets do without.
type more struct {
	latched int64 // since when it is shut, microseconds; 0 is open
	set     distinct
}

// is reports whether there is a bucket, and it is that of the key.
func (b *bucket) is(key Key) bool {
	return b != nil && b.value == key.Value && b.shape.limit == key.Limit
}

func (b *bucket) key() Key { return Key{Limit: b.shape.limit, Value: b.value} }

func (b *bucket) latched() int64 {
	if b.more == nil {
		return 0
	}
	return b.more.latched
}

// grown is the bucket's more, made if need be.
func (b *bucket) grown() *more {
	if b.more == nil {
		b.more = &more{}
	}
	return b.more
}

func (b *bucket) attempts() int { return len(b.shape.lengths) } // their run

// run is the i-th run.
func (b *bucket) run(i int) run {
	from := 0
	for _, n := range b.n[:i] {
		from += int(n)
	}
	return b.words[from : from+int(b.n[i])]
}

// at is now in the time of the bucket, which never runs backwards.
func (b *bucket) at(now int64) int64 { return max(now, b.newest()) }

// newest is the bucket's last event; 0 without one. Cells are dropped only to
// make room for a later one, so that it is not forgotten.
func (b *bucket) newest() int64 {
	newest, end := int64(0), 0
	for _, n := range b.n[:len(b.shape.lengths)+1] {
		end += int(n)
		if n > 0 {
			newest = max(newest, int64(b.words[end-1]>>countBits))
		}
	}
	if b.more != nil {
		newest = max(newest, b.more.set.newest)
	}
	return newest
}

// expired: a bucket that never was would give the same answers at now.
func (b *bucket) expired(now int64) bool {
	return b.latched() == 0 && b.newest() < now-b.shape.longest.Microseconds()
}

// add puts amount into the i-th run at t, which is at(now).
func (b *bucket) add(i int, amount, t int64) {
	if amount == 0 {
		return
	}
	from := 0
	for _, n := range b.n[:i] {
		from += int(n)
	}
	r, length := run(b.words[from:from+int(b.n[i])]), b.shape.length(i)
	if len(r) > 0 {
		if c, n := r.last(); slotOf(c.Last, length) == slotOf(t, length) {
			b.splice(i, from+len(r)-n, n, Cell{Last: t, Count: min(c.Count+amount, MaxCount)})
			return
		}
	}
	end := from + len(r)
	if gone := r.expired(length, t); gone > 0 {
		b.words = slices.Delete(b.words, from, from+gone)
		b.n[i] -= uint8(gone)
		end -= gone
	}
	b.splice(i, end, 0, Cell{Last: t, Count: amount})
}

// splice puts a cell of the i-th run in place of old words.
func (b *bucket) splice(i, at, old int, c Cell) {
	var room [2]uint64
	words := c.pack(&room)
	if len(words) == old {
		copy(b.words[at:], words)
		return
	}
	if need := len(b.words) + len(words) - old; need > cap(b.words) { // append would double it
		b.words = append(make([]uint64, 0, max(len(b.shape.lengths), need, len(b.words)*3/2)), b.words...)
	}
	b.words = slices.Replace(b.words, at, at+old, words...)
	b.n[i] += uint8(len(words) - old)
}

// reshaped is the bucket after its limit got other windows. A window of a
// length that it had goes on; a new one takes over what the shortest window
// that is longer knows, or else the longest: an edited limit is no fresh budget.
// One that counts items now, or does no more, begins anew, but shut if it was.
func (b *bucket) reshaped(s *shape) bucket {
	r := bucket{value: b.value, shape: s, more: b.more, dirty: b.dirty}
	now := b.newest()
	if s.distinct == b.shape.distinct {
		for i, length := range s.lengths {
			r.adopt(i, b.run(b.closest(length)), now)
		}
	} else if b.more != nil {
		r.more = &more{latched: b.more.latched}
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

// adopt makes the i-th run out of another, as far as it counts at now.
func (b *bucket) adopt(i int, r run, now int64) {
	var room [maxCells]Cell
	from := now - b.shape.length(i).Microseconds()
	for _, c := range r.cells(&room) {
		if c.Last >= from {
			b.add(i, c.Count, c.Last)
		}
	}
}
