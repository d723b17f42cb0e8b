package limit

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

const (
	// DefaultBuckets is how many buckets NewMemory keeps: under 250 MB.
	DefaultBuckets = 1_000_000

	shards = 64 // as many as a mask has bits
)

// Memory keeps buckets in memory. It is a Store that never waits and fails only
// on charges that are none, or when it is full of shut buckets. Buckets are lost
// with the process; Dirty and Load carry them over.
//
// It keeps a bounded number. When that is reached, expired buckets go first,
// then those whose last event is longest ago: Evicted counts them, since each
// may have been a budget half used. A shut bucket is never evicted: when all
// are, a charge of a new key is an error.
//
// Keys that one step takes are locked in the order of their shards, so that
// steps cannot wait for each other in a circle.
type Memory struct {
	seed    maphash.Seed
	most    int // buckets in a shard
	shards  [shards]shard
	evicted atomic.Uint64
	telling sync.Mutex // one Dirty at a time
	next    int        // where the next Dirty begins

	shapesLock sync.Mutex
	shapes     []*shape // shared by all buckets of the same lengths; few
}

type shard struct {
	mu      sync.Mutex
	buckets map[Key]*bucket
	dirty   map[Key]struct{} // changed since they were last told
	oldest  []candidate      // for eviction, the oldest last
}

// NewMemory makes an empty store for DefaultBuckets.
func NewMemory() *Memory { return NewMemoryOf(DefaultBuckets) }

// NewMemoryOf makes an empty store for so many buckets. They are spread over
// 64 parts that fill up one by one, so that it may be full a little earlier.
func NewMemoryOf(buckets int) *Memory {
	m := &Memory{seed: maphash.MakeSeed(), most: max(1, buckets/shards)}
	for i := range m.shards {
		m.shards[i].buckets, m.shards[i].dirty = map[Key]*bucket{}, map[Key]struct{}{}
	}
	return m
}

// Spend is Store's. It does not look at the context: it never waits.
func (m *Memory) Spend(_ context.Context, now time.Time, charges []Charge) (Outcome, error) {
	if err := CheckCharges(charges); err != nil {
		return Outcome{}, err
	}
	t, out := micros(now), newOutcome(charges)
	locked := m.lock(charges)
	defer m.unlock(locked)
	var few [8]*bucket
	buckets, err := m.open(few[:0], charges, t)
	if err != nil {
		return Outcome{}, err
	}
	weighAll(t, charges, buckets, &out)
	at := 0
	for i, b := range buckets {
		c, uses := &charges[i], out.Uses[at:at+len(charges[i].Windows)]
		at += len(uses)
		if out.Taken {
			b.take(t, c, uses)
		} else {
			b.stop(t, c, out.Latched[i])
		}
		m.mark(b, c.Key)
	}
	return out, nil
}

// Peek is Store's.
func (m *Memory) Peek(_ context.Context, now time.Time, charges []Charge) (Outcome, error) {
	if err := CheckCharges(charges); err != nil {
		return Outcome{}, err
	}
	out := newOutcome(charges)
	locked := m.lock(charges)
	defer m.unlock(locked)
	var few [8]*bucket
	buckets := few[:0]
	for i := range charges {
		buckets = append(buckets, m.glance(&charges[i]))
	}
	weighAll(micros(now), charges, buckets, &out)
	return out, nil
}

// glance is the charge's bucket, or what it would be; not to be changed.
func (m *Memory) glance(c *Charge) *bucket {
	b := m.shardOf(c.Key).buckets[c.Key]
	switch {
	case b == nil:
		return &bucket{shape: m.shapeOf(c.Windows)}
	case !b.shape.is(c.Windows):
		r := b.reshaped(m.shapeOf(c.Windows))
		return &r
	}
	return b
}

// Add is Store's.
func (m *Memory) Add(_ context.Context, now time.Time, charges []Charge) error {
	if err := CheckCharges(charges); err != nil {
		return err
	}
	t := micros(now)
	locked := m.lock(charges)
	defer m.unlock(locked)
	buckets, err := m.open(nil, charges, t)
	if err != nil {
		return err
	}
	for i, b := range buckets {
		at := b.at(t)
		for j := range charges[i].Windows {
			b.add(j, charges[i].Amount, at)
		}
		m.mark(b, charges[i].Key)
	}
	return nil
}

// Resume is Store's.
func (m *Memory) Resume(_ context.Context, _ time.Time, key Key) error {
	s := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[key]; b != nil && b.latched != 0 {
		b.latched = 0
		m.mark(b, key)
	}
	return nil
}

// Reset is Store's.
func (m *Memory) Reset(_ context.Context, _ time.Time, key Key) error {
	s := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.buckets, key)
	s.dirty[key] = struct{}{} // whoever keeps its state forgets it, too
	return nil
}

// Len is the number of buckets, expired ones that were not swept included.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.buckets)
		s.mu.Unlock()
	}
	return n
}

// newOutcome has room for the answers. Those of a usual message are one
// allocation.
func newOutcome(charges []Charge) Outcome {
	uses, n := 0, len(charges)
	for i := range charges {
		uses += len(charges[i].Windows)
	}
	switch {
	case uses <= 9 && n <= 3:
		room := &struct {
			uses     [9]Use
			attempts [3]int64
			latched  [3]bool
		}{}
		return Outcome{Uses: room.uses[:uses:uses], Attempts: room.attempts[:n:n], Latched: room.latched[:n:n]}
	case uses <= 18 && n <= 6:
		room := &struct {
			uses     [18]Use
			attempts [6]int64
			latched  [6]bool
		}{}
		return Outcome{Uses: room.uses[:uses:uses], Attempts: room.attempts[:n:n], Latched: room.latched[:n:n]}
	}
	return Outcome{Uses: make([]Use, uses), Attempts: make([]int64, n), Latched: make([]bool, n)}
}

// weighAll answers for all charges. A key that comes twice is spent one after
// the other.
func weighAll(now int64, charges []Charge, buckets []*bucket, out *Outcome) {
	out.Taken = true
	at := 0
	for i, b := range buckets {
		c := &charges[i]
		uses := out.Uses[at : at+len(c.Windows)]
		var taken [MaxWindows]int64
		takenBefore(charges[:i], c, out.Uses, &taken)
		for j := range uses {
			uses[j].Charge = i
		}
		fits := b.weigh(now, c, uses, &taken)
		out.Taken = out.Taken && fits
		out.Attempts[i] = used(b.run(b.attempts()), b.shape.longest, b.at(now))
		out.Latched[i] = b.latched != 0 || c.Kind == Abuse && c.Amount > 0 && !fits
		at += len(uses)
	}
	if !out.Taken {
		latchTwins(charges, out.Latched)
	}
}

// latchTwins carries over what one charge does to the bucket of another.
func latchTwins(charges []Charge, latched []bool) {
	for i := range charges {
		for j := range charges {
			latched[i] = latched[i] || latched[j] && charges[i].Key == charges[j].Key
		}
	}
}

// takenBefore is what earlier charges of the step take from the windows of c's
// bucket.
func takenBefore(earlier []Charge, c *Charge, uses []Use, taken *[MaxWindows]int64) {
	at := 0
	for j := range earlier {
		if e := &earlier[j]; e.Key == c.Key {
			for i := range e.Windows {
				if u := &uses[at+i]; !u.Over {
					taken[i] += e.Amount
				}
			}
		}
		at += len(earlier[j].Windows)
	}
}

// take takes a charge that fits; a soft window without room stays as it is.
func (b *bucket) take(now int64, c *Charge, uses []Use) {
	t := b.at(now)
	for i := range uses {
		if !uses[i].Over {
			b.add(i, c.Amount, t)
		}
	}
}

// stop counts a charge that was not taken.
func (b *bucket) stop(now int64, c *Charge, shut bool) {
	t := b.at(now)
	b.add(b.attempts(), c.Amount, t)
	if shut && b.latched == 0 {
		b.latched = max(t, 1) // 0 is open
	}
}

func (m *Memory) indexOf(key Key) uint64 { return maphash.String(m.seed, key.Value) % shards }

// shardOf is where a key's bucket is. All limits of one sender are in one shard.
func (m *Memory) shardOf(key Key) *shard { return &m.shards[m.indexOf(key)] }

// lock locks the charges' shards, each once and in order.
func (m *Memory) lock(charges []Charge) (mask uint64) {
	for i := range charges {
		mask |= 1 << m.indexOf(charges[i].Key)
	}
	for rest := mask; rest != 0; rest &= rest - 1 {
		m.shards[bits.TrailingZeros64(rest)].mu.Lock()
	}
	return mask
}

func (m *Memory) unlock(mask uint64) {
	for ; mask != 0; mask &= mask - 1 {
		m.shards[bits.TrailingZeros64(mask)].mu.Unlock()
	}
}

// open appends the charges' buckets, making those that are missing. All are
// there, or there is an error.
func (m *Memory) open(buckets []*bucket, charges []Charge, now int64) ([]*bucket, error) {
	for i := range charges {
		c := &charges[i]
		s := m.shardOf(c.Key)
		b := s.buckets[c.Key]
		switch {
		case b == nil:
			if err := m.makeRoom(s, charges, now); err != nil {
				return nil, fmt.Errorf("open bucket %q: %w", c.Key, err)
			}
			b = &bucket{shape: m.shapeOf(c.Windows)}
			s.buckets[c.Key.own()] = b
		case !b.shape.is(c.Windows):
			*b = b.reshaped(m.shapeOf(c.Windows))
		}
		buckets = append(buckets, b)
	}
	return buckets, nil
}

// own is the key with memory of its own, the limit's name shared.
func (k Key) own() Key {
	return Key{Limit: unique.Make(k.Limit).Value(), Value: strings.Clone(k.Value)}
}

// mark has the bucket told by the next Dirty. Its shard is locked.
func (m *Memory) mark(b *bucket, key Key) {
	if !b.dirty {
		b.dirty = true
		m.shardOf(key).dirty[key] = struct{}{}
	}
}

// shapeOf is the shape of windows, shared as far as there are not too many:
// the states of a damaged file may each have their own.
func (m *Memory) shapeOf(windows []Window) *shape {
	m.shapesLock.Lock()
	defer m.shapesLock.Unlock()
	for _, s := range m.shapes {
		if s.is(windows) {
			return s
		}
	}
	s := newShape(windows)
	if len(m.shapes) < 256 {
		m.shapes = append(m.shapes, s)
	}
	return s
}
