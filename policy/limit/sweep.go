package limit

import (
	"cmp"
	"errors"
	"runtime"
	"slices"
	"time"
)

// breath is how many buckets are looked at before others get the lock.
const breath = 256

var errShut = errors.New("no room: every bucket kept is shut and waits for an admin")

// candidate is a bucket that may be evicted if nothing has come since.
type candidate struct {
	key    Key
	newest int64
}

// Sweep removes buckets that make no difference at now and returns their
// number. Mail waits for it some microseconds at most.
func (m *Memory) Sweep(now time.Time) int {
	removed, t := 0, micros(now)
	for i := range m.shards {
		removed += m.shards[i].sweep(t)
	}
	return removed
}

func (s *shard) sweep(now int64) (removed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := 0
	for key, b := range s.buckets {
		if b.expired(now) {
			s.remove(key)
			removed++
		}
		if seen++; seen%breath == 0 { // the map may change meanwhile; range goes on in what it is then
			s.mu.Unlock()
			runtime.Gosched()
			s.mu.Lock()
		}
	}
	return removed
}

func (s *shard) remove(key Key) {
	delete(s.buckets, key)
	delete(s.dirty, key) // what expired or was evicted need not be told
}

// Evicted is how many buckets were forgotten before their time, for want of
// room. It should be 0.
func (m *Memory) Evicted() uint64 { return m.evicted.Load() }

// makeRoom sees to it that a bucket can be added to a locked shard. It evicts
// none that the charges are of; for these a shard may hold a few too many.
func (m *Memory) makeRoom(s *shard, charges []Charge, now int64) error {
	for len(s.buckets) >= m.most {
		if m.evict(s, charges, now) {
			continue
		}
		s.findOldest(len(charges))
		if m.evict(s, charges, now) {
			continue
		}
		if !s.anyOpen() {
			return errShut
		}
		return nil
	}
	return nil
}

// evict removes the oldest candidate that is still one.
func (m *Memory) evict(s *shard, charges []Charge, now int64) bool {
	for len(s.oldest) > 0 {
		c := s.oldest[len(s.oldest)-1]
		s.oldest = s.oldest[:len(s.oldest)-1]
		b := s.buckets[c.key]
		if b == nil || b.latched != 0 || b.newest() != c.newest || slices.ContainsFunc(charges, func(ch Charge) bool { return ch.Key == c.key }) {
			continue
		}
		if !b.expired(now) {
			m.evicted.Add(1)
		}
		s.remove(c.key)
		return true
	}
	return false
}

// findOldest notes the oldest sixteenth of the open buckets, which the shard
// then can do without one by one: whatever is used meanwhile is newer. At least
// one more than a step can protect.
func (s *shard) findOldest(protected int) {
	all := make([]candidate, 0, len(s.buckets))
	for key, b := range s.buckets {
		if b.latched == 0 {
			all = append(all, candidate{key, b.newest()})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(b.newest, a.newest) })
	s.oldest = slices.Clone(all[len(all)-min(len(all), max(len(all)/16, protected+1)):])
}

func (s *shard) anyOpen() bool {
	for _, b := range s.buckets {
		if b.latched == 0 {
			return true
		}
	}
	return false
}
