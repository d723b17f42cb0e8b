package limit

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	DefaultBuckets         = 1_000_000 // of three windows with one cell: 160 MB; with two, under 200
	DefaultDistinctExact   = 1000      // 24 octets each, or up to thrice as much
	DefaultKnownPerAccount = 50_000
	DefaultKnown           = 2_000_000 // under 200 MB, if accounts have more than a few

	shards = 64 // as many as a mask has bits
)

// Memory keeps buckets in memory. It is a Store that never waits and fails only
// on a step that is none, or when it is full of shut buckets. Buckets are lost
// with the process; Dirty, or Each, and Put carry them over.
//
// It keeps a bounded number. When that is reached, expired buckets go first,
// then those whose last event is longest ago: Evicted counts them, since each
// may have been a budget half used. A shut bucket is never evicted: when all
// are, a charge of a new key is an error. Of known items the accounts that wrote
// longest ago forget some.
//
// Keys that one step takes are locked in the order of their shards, so that
// steps cannot wait for each other in a circle.
type Memory struct {
	seed       maphash.Seed
	most       int // buckets in a shard
	exact      int // items of a Distinct bucket at one level
	perAccount int // known items
	mostKnown  int64
	shards     [shards]shard
	known      atomic.Int64  // items of all accounts
	turn       atomic.Uint64 // whose shard's accounts forget next
	evicted    atomic.Uint64
	ahead      atomic.Pointer[Ahead] // nil: never swept
	telling    sync.Mutex            // one Dirty at a time
	next       int                   // where the next Dirty begins

	shapesLock sync.Mutex
	shapes     []*shape // shared by all buckets of one limit; few
}

// MemoryOptions bounds a Memory. Of each, 0 is the default.
type MemoryOptions struct {
	Buckets         int // DefaultBuckets
	DistinctExact   int // items up to which a Distinct bucket is exact: DefaultDistinctExact
	KnownPerAccount int // items known of one account: DefaultKnownPerAccount
	Known           int // items known in all: DefaultKnown
}

// NewMemory makes an empty store with the default bounds.
func NewMemory() *Memory { return NewMemoryOf(MemoryOptions{}) }

// NewMemoryOf makes an empty store. Its buckets are spread over 64 parts by
// chance. Each part has room for five standard deviations more than its share, so
// that all fit; at most that is how many more there are, 4 % of a million.
func NewMemoryOf(o MemoryOptions) *Memory {
	m := &Memory{
		seed:       maphash.MakeSeed(),
		most:       roomFor(cmp.Or(o.Buckets, DefaultBuckets)),
		exact:      cmp.Or(o.DistinctExact, DefaultDistinctExact),
		perAccount: cmp.Or(o.KnownPerAccount, DefaultKnownPerAccount),
		mostKnown:  int64(cmp.Or(o.Known, DefaultKnown)),
	}
	for i := range m.shards {
		s := &m.shards[i]
		s.buckets, s.twins, s.gone = map[uint64]*bucket{}, map[Key]*bucket{}, map[Key]struct{}{}
		s.accounts, s.changed = map[string]*account{}, map[*account]struct{}{}
	}
	return m
}

// roomFor is how many of so many buckets one shard may have to keep.
func roomFor(buckets int) int {
	share := float64(buckets) / shards
	return max(1, int(share+5*math.Sqrt(share)))
}

// Spend is Store's. It does not look at the context: it never waits.
func (m *Memory) Spend(_ context.Context, now time.Time, step *Step, out *Outcome) error {
	twins, err := step.check()
	if err != nil {
		return err
	}
	var room [few]place
	w := weighing{now: micros(now), step: step, twins: twins, places: m.places(room[:0], step.Charges), out: out}
	home, locked := m.lock(w.places, &step.Known)
	defer m.unlock(locked)
	if err := m.open(&w); err != nil {
		return err
	}
	account := home.account(step.Known.Account)
	w.account = account // and not the other way round: then w would be on the heap
	out.reset(step.Charges)
	w.all()
	w.settle(m)
	if out.Taken && home != nil {
		m.learn(home, account, step, w.now)
	}
	return nil
}

// Peek is Store's.
func (m *Memory) Peek(_ context.Context, now time.Time, step *Step, out *Outcome) error {
	twins, err := step.check()
	if err != nil {
		return err
	}
	var room [few]place
	w := weighing{now: micros(now), step: step, twins: twins, places: m.places(room[:0], step.Charges), out: out}
	home, locked := m.lock(w.places, &step.Known)
	defer m.unlock(locked)
	for i := range w.places {
		m.glance(&w, i)
	}
	w.account = home.account(step.Known.Account)
	out.reset(step.Charges)
	w.all()
	return nil
}

// glance finds the i-th charge's bucket, or what it would be; not to be changed.
func (m *Memory) glance(w *weighing, i int) {
	p, c := &w.places[i], &w.step.Charges[i]
	p.bucket = p.shard.find(p.hash, c.Key)
	switch {
	case p.bucket == nil && w.twins:
		for j := range i {
			if w.step.Charges[j].Key == c.Key {
				p.bucket = w.places[j].bucket
				return
			}
		}
		fallthrough
	case p.bucket == nil:
		p.bucket = &bucket{shape: m.shapeOf(c.Key.Limit, c.Counts == Distinct, c.Windows)}
	case !p.bucket.shape.is(c.Counts == Distinct, c.Windows):
		r := p.bucket.reshaped(m.shapeOf(c.Key.Limit, c.Counts == Distinct, c.Windows))
		p.bucket = &r
	}
}

// Add is Store's.
func (m *Memory) Add(_ context.Context, now time.Time, step *Step) error {
	if err := step.Check(); err != nil {
		return err
	}
	var room [few]place
	w := weighing{now: micros(now), step: step, places: m.places(room[:0], step.Charges)}
	home, locked := m.lock(w.places, &step.Known)
	defer m.unlock(locked)
	if err := m.open(&w); err != nil {
		return err
	}
	account := home.account(step.Known.Account)
	w.account = account
	for i := range w.places {
		p, c := &w.places[i], &step.Charges[i]
		amount := c.Amount
		switch c.Counts {
		case Distinct:
			p.bucket.grown().set.take(c.Items, p.bucket.at(w.now), p.bucket.shape.longest, m.exact)
			amount = 0
		case FirstTime:
			amount = w.account.strangers(c.Items, w.now, math.MaxInt64)
		}
		at := p.bucket.at(w.now)
		for j := range c.Windows {
			p.bucket.add(j, amount, at)
		}
		p.shard.mark(p.bucket)
	}
	if home != nil {
		m.learn(home, account, step, w.now)
	}
	return nil
}

// Resume is Store's.
func (m *Memory) Resume(_ context.Context, _ time.Time, key Key) error {
	s, hash := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.find(hash, key); b != nil && b.latched() != 0 {
		b.more.latched = 0
		s.mark(b)
	}
	return nil
}

// Reset is Store's.
func (m *Memory) Reset(_ context.Context, _ time.Time, key Key) error {
	s, hash := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(hash, key)
	s.gone[key] = struct{}{} // whoever keeps its state forgets it, too
	return nil
}

// Len is the number of buckets, expired ones that were not swept included.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += s.len()
		s.mu.Unlock()
	}
	return n
}

// reset makes room for the answers, out of what there is.
func (o *Outcome) reset(charges []Charge) {
	uses := 0
	for i := range charges {
		uses += len(charges[i].Windows)
	}
	o.Uses = slices.Grow(o.Uses[:0], uses)[:uses]
	o.Latched = slices.Grow(o.Latched[:0], len(charges))[:len(charges)]
	o.Attempts = slices.Grow(o.Attempts[:0], len(charges))[:len(charges)]
}

// shardOf is where a key's bucket is, and under which hash.
func (m *Memory) shardOf(key Key) (*shard, uint64) {
	hash := maphash.String(m.seed, key.Value) + 3*maphash.String(m.seed, key.Limit)
	return &m.shards[hash%shards], hash
}

// places appends where the charges' buckets are.
func (m *Memory) places(to []place, charges []Charge) []place {
	to = slices.Grow(to, len(charges))[:len(charges)]
	for i := range charges {
		to[i].shard, to[i].hash = m.shardOf(charges[i].Key)
	}
	return to
}

// lock locks the shards of charges and account, each once and in order. Of the
// account, if there is one, it returns which.
func (m *Memory) lock(places []place, known *Known) (home *shard, mask uint64) {
	for i := range places {
		mask |= 1 << (places[i].hash % shards)
	}
	if known.Account != "" {
		i := m.homeOf(known.Account)
		mask |= 1 << i
		home = &m.shards[i]
	}
	for rest := mask; rest != 0; rest &= rest - 1 {
		m.shards[bits.TrailingZeros64(rest)].mu.Lock()
	}
	return home, mask
}

// homeOf is the number of an account's shard.
func (m *Memory) homeOf(account string) uint64 { return maphash.String(m.seed, account) % shards }

func (m *Memory) unlock(mask uint64) {
	for ; mask != 0; mask &= mask - 1 {
		m.shards[bits.TrailingZeros64(mask)].mu.Unlock()
	}
}

// open finds the charges' buckets, making those that are missing. All are
// there, or there is an error.
func (m *Memory) open(w *weighing) error {
	w.fetch()
	for i := range w.places {
		p, c := &w.places[i], &w.step.Charges[i]
		if !p.bucket.is(c.Key) { // new, perhaps made by an earlier charge
			p.bucket = p.shard.find(p.hash, c.Key)
		}
		switch {
		case p.bucket == nil:
			if err := m.makeRoom(p.shard, w.places, w.now); err != nil {
				return fmt.Errorf("open bucket %q: %w", c.Key, err)
			}
			p.bucket = &bucket{value: strings.Clone(c.Key.Value), shape: m.shapeOf(c.Key.Limit, c.Counts == Distinct, c.Windows)}
			p.shard.insert(p.hash, p.bucket)
		case !p.bucket.shape.is(c.Counts == Distinct, c.Windows):
			*p.bucket = p.bucket.reshaped(m.shapeOf(c.Key.Limit, c.Counts == Distinct, c.Windows))
		}
	}
	return nil
}

// shapeOf is the shape of a limit's buckets, shared as far as there are not too
// many: the states of a damaged file may each have their own.
func (m *Memory) shapeOf(limit string, distinct bool, windows []Window) *shape {
	m.shapesLock.Lock()
	defer m.shapesLock.Unlock()
	for _, s := range m.shapes {
		if s.limit == limit && s.is(distinct, windows) {
			return s
		}
	}
	s := newShape(strings.Clone(limit), distinct, windows)
	if len(m.shapes) < 1024 {
		m.shapes = append(m.shapes, s)
	}
	return s
}
