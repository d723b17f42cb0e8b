package desk

import (
	"hash/maphash"
	"iter"
)

// idShelf is a Shelf that finds messages by their queue ids, which several instances
// may have at a time.
type idShelf struct {
	Shelf
	slots []int32 // by the hash of the id: a number and one; 0: free, and the next ones are not of that hash
	marks []bool  // for whoever has it
}

// put keeps a message, and returns its number. One that moves during a scan comes
// twice: the later counts.
func (s *idShelf) put(m *Queued) int {
	if n := s.find(m.Instance, m.QueueID); n >= 0 {
		s.Set(n, m)
		return n
	}
	return s.keep(m)
}

// keep is put of what may have the id of another.
func (s *idShelf) keep(m *Queued) int {
	n := s.Len()
	s.Add(m)
	s.marks = append(s.marks, false)
	if 4*s.Len() <= 3*len(s.slots) {
		s.enter(n)
		return n
	}
	s.slots = make([]int32, max(64, 2*len(s.slots)))
	for n := range s.Len() {
		s.enter(n)
	}
	return n
}

// enter puts a number into its slot.
func (s *idShelf) enter(n int) {
	i := s.slot(s.id(n))
	for s.slots[i] != 0 {
		i = (i + 1) % len(s.slots)
	}
	s.slots[i] = int32(n + 1)
}

// slot is where the search for an id begins.
func (s *idShelf) slot(id []byte) int { return int(maphash.Bytes(seed, id) % uint64(len(s.slots))) }

// find is the number of a message; -1: it is not there.
func (s *idShelf) find(instance, id string) int {
	for n := range s.withID(id) {
		if s.At(n).Instance == instance {
			return n
		}
	}
	return -1
}

// withID are the numbers of the messages that have an id.
func (s *idShelf) withID(id string) iter.Seq[int] {
	return func(yield func(int) bool) {
		if len(s.slots) == 0 {
			return
		}
		for i := s.slot([]byte(id)); s.slots[i] != 0; i = (i + 1) % len(s.slots) {
			if n := int(s.slots[i] - 1); string(s.id(n)) == id && !yield(n) {
				return
			}
		}
	}
}

// count is how many messages have an id.
func (s *idShelf) count(id string) (n int) {
	for range s.withID(id) {
		n++
	}
	return n
}
