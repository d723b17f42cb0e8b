package limit

import "time"

// run is one window's cells, oldest first and one a slot, packed: a million
// buckets are to fit into 200 MB. A cell is one word, its last event in the
// upper bits and its count in the lower ten. A larger count has the word before
// it, and the ten bits are 0. So a run is read from its end.
type run []uint64

const (
	countBits = 10
	countMask = 1<<countBits - 1
)

// last is the newest cell and how many words it has. The run is not empty.
func (r run) last() (c Cell, words int) {
	w := r[len(r)-1]
	if count := w & countMask; count != 0 {
		return Cell{Last: int64(w >> countBits), Count: int64(count)}, 1
	}
	return Cell{Last: int64(w >> countBits), Count: int64(r[len(r)-2])}, 2
}

// pack is the cell's words, in room for two.
func (c Cell) pack(room *[2]uint64) []uint64 {
	if c.Count <= countMask {
		room[0] = uint64(c.Last)<<countBits | uint64(c.Count)
		return room[:1]
	}
	room[0], room[1] = uint64(c.Count), uint64(c.Last)<<countBits
	return room[:2]
}

// expired is how many words, the oldest, do not count at t.
func (r run) expired(length time.Duration, t int64) int {
	from := t - length.Microseconds()
	for len(r) > 0 {
		c, n := r.last()
		if c.Last < from {
			break
		}
		r = r[:len(r)-n]
	}
	return len(r)
}

// used is what the run counts at t.
func (r run) used(length time.Duration, t int64) int64 {
	from, sum := t-length.Microseconds(), int64(0)
	for len(r) > 0 {
		c, n := r.last()
		if c.Last < from {
			break
		}
		sum += c.Count // at most maxCells times MaxCount: no overflow
		r = r[:len(r)-n]
	}
	return sum
}

// cells unpacks the run into room.
func (r run) cells(room *[maxCells]Cell) []Cell {
	at := len(room)
	for len(r) > 0 {
		c, n := r.last()
		at--
		room[at] = c
		r = r[:len(r)-n]
	}
	return room[at:]
}

// freeAt is the first time, t or later, at which amount fits into the window
// if nothing else comes. The amount is at most w.Count.
func (r run) freeAt(w Window, amount, t int64) int64 {
	var room [maxCells]Cell
	over := r.used(w.Length, t) + amount - w.Count
	for _, c := range r[r.expired(w.Length, t):].cells(&room) {
		if over <= 0 {
			break
		}
		over -= c.Count
		t = c.Last + w.Length.Microseconds() + 1 // the window is closed
	}
	return t
}
