package limit

import (
	"cmp"
	"errors"
	"runtime"
	"time"
)

// breath is how many buckets, or as many times 16 items, are looked at before
// others get the lock.
const breath = 256

var errShut = errors.New("no room: every bucket kept is shut and waits for an admin")

// candidate is a bucket that may be evicted if nothing has come since.
type candidate struct {
	hash   uint64
	bucket *bucket
	newest int64
}

// tooFar is how far the clocks of those who count may be apart. A bucket whose
// last event is further ahead was charged while a clock was wrong.
const tooFar = time.Hour

// Ahead is how many buckets have an event that is more than an hour in the
// future. None heals before that time, so it may stop mail for as long as a clock
// was once ahead; Reset ends that.
type Ahead struct {
	Buckets int
	Key     Key       // of the one that is furthest ahead
	Until   time.Time // its last event
}

// Ahead is what the last Sweep found.
func (m *Memory) Ahead() Ahead {
	if a := m.ahead.Load(); a != nil {
		return *a
	}
	return Ahead{}
}

// Sweep removes buckets that make no difference at now, and returns their
// number; also items, of Distinct buckets and of what accounts know. Mail waits
// for it some microseconds at most.
func (m *Memory) Sweep(now time.Time) int {
	removed, t := 0, micros(now)
	var ahead Ahead
	for i := range m.shards {
		s := &m.shards[i]
		removed += s.sweep(t, &ahead)
		m.sweepKnown(s, t)
	}
	m.ahead.Store(&ahead)
	return removed
}

// pause counts what was looked at under a lock, and now and then lets others
// have it.
type pause struct {
	s    *shard
	seen int
}

func (p *pause) after(n int) {
	if p.seen += n; p.seen >= breath {
		p.seen = 0
		p.s.mu.Unlock()
		runtime.Gosched()
		p.s.mu.Lock()
	}
}

func (s *shard) sweep(now int64, ahead *Ahead) (removed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, wrong := pause{s: s}, now+tooFar.Microseconds()
	s.all(func(hash uint64, b *bucket) bool {
		newest := b.newest()
		if newest > wrong {
			ahead.add(b, newest)
		}
		if b.expired(now) {
			s.remove(hash, b.key())
			removed++
		} else if b.shape.distinct && b.more != nil {
			set := &b.more.set
			set.expire(b.at(now) - b.shape.longest.Microseconds())
			set.items.shrink()
			p.after(len(set.items.slots) / 16)
		}
		p.after(1) // the maps may change meanwhile; range goes on in what they are then
		return true
	})
	return removed
}

func (a *Ahead) add(b *bucket, newest int64) {
	a.Buckets++
	if at := fromMicros(newest); at.After(a.Until) {
		a.Key, a.Until = b.key(), at
	}
}

// sweepKnown removes what was not written to for longer than its term.
func (m *Memory) sweepKnown(s *shard, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := pause{s: s}
	for _, a := range s.accounts {
		const some = 16 * breath
		for at := 0; at < len(a.items.slots) && s.accounts[a.name] == a; at += some {
			from, had := a.knownFrom(now), a.items.n
			a.items.removeIf(at, at+some, func(k KnownItem) bool {
				if k.Last < from {
					a.change(k.Item)
				}
				return k.Last < from
			})
			if a.items.n < had {
				m.known.Add(int64(a.items.n - had))
				s.changed[a] = struct{}{}
			}
			p.after(min(some, len(a.items.slots)) / 16)
		}
		a.items.shrink()
		if a.items.n == 0 && (a.empty || len(a.changed) == 0) { // nobody has asked since the last sweep
			m.drop(s, a)
		}
		a.empty = a.items.n == 0
		p.after(1)
	}
}

// Evicted is how many buckets were forgotten before their time, for want of
// room. It should be 0.
func (m *Memory) Evicted() uint64 { return m.evicted.Load() }

// makeRoom sees to it that a bucket can be added to a locked shard. It evicts
// none of the places'; for these a shard may hold a few too many.
func (m *Memory) makeRoom(s *shard, places []place, now int64) error {
	for s.len() >= m.most {
		if m.evict(s, places, now) {
			continue
		}
		s.findOldest(len(places))
		if m.evict(s, places, now) {
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
func (m *Memory) evict(s *shard, places []place, now int64) bool {
	for len(s.oldest) > 0 {
		c := s.oldest[len(s.oldest)-1]
		s.oldest = s.oldest[:len(s.oldest)-1]
		b := c.bucket
		if s.find(c.hash, b.key()) != b || b.latched() != 0 || b.newest() != c.newest || has(places, c.hash) {
			continue
		}
		if !b.expired(now) {
			m.evicted.Add(1)
		}
		s.remove(c.hash, b.key())
		return true
	}
	return false
}

func has(places []place, hash uint64) bool {
	for i := range places {
		if places[i].hash == hash {
			return true
		}
	}
	return false
}

// findOldest notes the oldest sixteenth of the open buckets, which the shard
// then can do without one by one: whatever is used meanwhile is newer. At least
// one more than a step can protect.
func (s *shard) findOldest(protected int) {
	byUse := func(a, b candidate) int { return cmp.Compare(a.newest, b.newest) }
	s.oldest = oldest(max(s.len()/16, protected+1), byUse, func(yield func(candidate) bool) {
		s.all(func(hash uint64, b *bucket) bool {
			return b.latched() != 0 || yield(candidate{hash, b, b.newest()})
		})
	})
}

func (s *shard) anyOpen() bool {
	any := false
	s.all(func(_ uint64, b *bucket) bool {
		any = b.latched() == 0
		return !any
	})
	return any
}
