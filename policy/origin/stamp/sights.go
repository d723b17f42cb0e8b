package stamp

import (
	"hash/maphash"
	"math/bits"
)

// sights is what became of uses. It is one piece of memory without pointers: a map
// that forgets as many as it learns takes more than twice as much. Uses lie by their
// hash or right after it (open addressing with linear probing); a site chooses its
// nonces, so the hash has a key.
type sights struct {
	seed  maphash.Seed
	slots []slot
	n     int
}

// slot has a use if it is taken.
type slot struct {
	use   use
	sight sight
	taken bool
}

type sight struct {
	digest [16]byte
	others uint8 // messages with another digest that followed
}

func newSights() sights { return sights{seed: maphash.MakeSeed()} }

// home is where a use belongs.
func (s *sights) home(u use) int {
	at, _ := bits.Mul64(maphash.Bytes(s.seed, u[:]), uint64(len(s.slots)))
	return int(at)
}

// after is the slot behind another.
func (s *sights) after(at int) int {
	if at++; at == len(s.slots) {
		return 0
	}
	return at
}

// find is what is known of a use; nil: nothing. It is good until the next put or
// remove.
func (s *sights) find(u use) *sight {
	if s.n == 0 {
		return nil
	}
	if at := s.place(u); s.slots[at].taken {
		return &s.slots[at].sight
	}
	return nil
}

// place is where a use is, or would be.
func (s *sights) place(u use) int {
	at := s.home(u)
	for s.slots[at].taken && s.slots[at].use != u {
		at = s.after(at)
	}
	return at
}

// put adds a use that is not there.
func (s *sights) put(u use, is sight) {
	if 5*(s.n+1) > 4*len(s.slots) { // never full: place ends at a free slot
		s.resize(len(s.slots)*5/4 + 8)
	}
	s.slots[s.place(u)] = slot{u, is, true}
	s.n++
}

// remove forgets a use that is there, and moves up those that had to go past it.
func (s *sights) remove(u use) {
	at := s.place(u)
	for next := s.after(at); s.slots[next].taken; next = s.after(next) {
		if s.behind(s.home(s.slots[next].use), next) >= s.behind(at, next) {
			s.slots[at] = s.slots[next]
			at = next
		}
	}
	s.slots[at] = slot{}
	s.n--
	if 4*s.n < len(s.slots) && len(s.slots) > 64 { // after a flood
		s.resize(len(s.slots) / 2)
	}
}

// behind is how far a slot is behind another.
func (s *sights) behind(from, to int) int {
	if to < from {
		to += len(s.slots)
	}
	return to - from
}

func (s *sights) resize(slots int) {
	old := s.slots
	s.slots = make([]slot, slots)
	for i := range old {
		if old[i].taken {
			s.slots[s.place(old[i].use)] = old[i]
		}
	}
}
