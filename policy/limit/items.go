package limit

import "math/bits"

// items is a set of recipients, each with the times of its first and its last
// event. It is one piece of memory, which Distinct reads from end to end at each
// step; a map would be several times larger and slower. Items lie by their hash
// or right after it (open addressing with linear probing).
type items struct {
	slots []KnownItem // a power of two; Since 0 is empty
	n     int
}

// home is where an item belongs. Stores that sample keep items alike in their
// low bits: they must not all have one home.
func (s *items) home(i Item) int {
	return int(uint64(i) * 0x9E3779B97F4A7C15 >> (64 - bits.Len(uint(len(s.slots)-1))))
}

// find is where the item is, or -1.
func (s *items) find(i Item) int {
	if s.n == 0 {
		return -1
	}
	for at := s.home(i); ; at = (at + 1) & (len(s.slots) - 1) {
		switch {
		case s.slots[at].Since == 0:
			return -1
		case s.slots[at].Item == i:
			return at
		}
	}
}

// put sets an item, of which Since is not 0.
func (s *items) put(k KnownItem) {
	if at := s.find(k.Item); at >= 0 {
		s.slots[at] = k
		return
	}
	if 4*(s.n+1) > 3*len(s.slots) { // never full: find ends at an empty slot
		s.resize(max(2*len(s.slots), 2))
	}
	s.place(k)
}

func (s *items) place(k KnownItem) {
	at := s.home(k.Item)
	for s.slots[at].Since != 0 {
		at = (at + 1) & (len(s.slots) - 1)
	}
	s.slots[at] = k
	s.n++
}

func (s *items) resize(slots int) {
	old := s.slots
	s.slots, s.n = make([]KnownItem, slots), 0
	for _, k := range old {
		if k.Since != 0 {
			s.place(k)
		}
	}
}

// remove empties a slot, and moves up those that had to go past it.
func (s *items) remove(at int) {
	mask := len(s.slots) - 1
	for next := (at + 1) & mask; s.slots[next].Since != 0; next = (next + 1) & mask {
		if home := s.home(s.slots[next].Item); (next-home)&mask >= (next-at)&mask {
			s.slots[at] = s.slots[next]
			at = next
		}
	}
	s.slots[at] = KnownItem{}
	s.n--
}

// removeIf removes items of the slots from and up to, but not with, to.
func (s *items) removeIf(from, to int, gone func(KnownItem) bool) {
	for at := from; at < min(to, len(s.slots)); {
		if k := s.slots[at]; k.Since != 0 && gone(k) {
			s.remove(at) // another may be here now
		} else {
			at++
		}
	}
}

// shrink gives back memory that a much larger set has left.
func (s *items) shrink() {
	switch {
	case s.n == 0:
		s.slots = nil
	case s.n < len(s.slots)/8:
		s.resize(len(s.slots) / 4)
	}
}
