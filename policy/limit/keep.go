package limit

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// state is the bucket as data of its own.
func (b *bucket) state() *State {
	s := &State{Key: b.key(), Attempts: b.run(b.attempts()).own(), Windows: make([]WindowState, len(b.shape.lengths))}
	if l := b.latched(); l != 0 {
		s.Latched = fromMicros(l)
	}
	for i, length := range b.shape.lengths {
		s.Windows[i] = WindowState{Length: length, Cells: b.run(i).own()}
	}
	if b.shape.distinct {
		s.Distinct = &DistinctState{}
		if b.more != nil {
			s.Distinct = b.more.set.state()
		}
	}
	return s
}

// own is the run's cells; nil of none.
func (r run) own() []Cell {
	var room [maxCells]Cell
	return append([]Cell(nil), r.cells(&room)...)
}

func (d *distinct) state() *DistinctState {
	s := &DistinctState{Level: int(d.level), Thrown: d.thrown}
	for _, k := range d.items.slots {
		if k.Since != 0 {
			s.Items = append(s.Items, DistinctItem{k.Item, k.Last})
		}
	}
	slices.SortFunc(s.Items, compareItems)
	return s
}

// bucketOf is the bucket of a state that was checked.
func (m *Memory) bucketOf(s *State) *bucket {
	var room [MaxWindows]Window
	windows := room[:len(s.Windows)]
	b := &bucket{value: strings.Clone(s.Key.Value)}
	words := make([]uint64, 0, 2*maxCells)
	for i, w := range s.Windows {
		windows[i].Length = w.Length
		words = b.append(words, i, w.Cells)
	}
	b.words = slices.Clone(b.append(words, len(windows), s.Attempts))
	b.shape = m.shapeOf(s.Key.Limit, s.Distinct != nil, windows)
	if !s.Latched.IsZero() {
		b.grown().latched = micros(s.Latched)
	}
	if d := s.Distinct; d != nil {
		set := &b.grown().set
		set.level, set.thrown, set.newest = uint8(d.Level), d.Thrown, d.Thrown
		for _, i := range d.Items {
			set.items.put(KnownItem{Item: i.Item, Since: 1, Last: i.Last})
			set.newest = max(set.newest, i.Last)
		}
	}
	return b
}

// append packs the i-th run.
func (b *bucket) append(words []uint64, i int, cells []Cell) []uint64 {
	var room [2]uint64
	had := len(words)
	for _, c := range cells {
		words = append(words, c.pack(&room)...)
	}
	b.n[i] = uint8(len(words) - had)
	return words
}

// fewStates is how many are made under a lock: some 20 microseconds.
const fewStates = 32

// Dirty hands over what changed since it was last handed over, and returns how
// many entries that was, at most max. Of a bucket that is its state, one that is
// Gone if it was Reset; of an account up to 256 items that changed, with Since 0
// those that were forgotten. It holds no lock of mail's meanwhile, but a second
// Dirty waits. Expired and evicted buckets are not told.
func (m *Memory) Dirty(max int, fn func(Entry)) int {
	m.telling.Lock()
	defer m.telling.Unlock()
	told := 0
	for range shards {
		for {
			batch := m.tellSome(&m.shards[m.next], min(fewStates, max-told))
			runtime.Gosched() // mail that waited for the lock has it now
			for _, e := range batch {
				fn(e)
			}
			if told += len(batch); len(batch) == 0 || told == max {
				break
			}
		}
		if told == max {
			return told // goes on in this shard
		}
		m.next = (m.next + 1) % shards
	}
	return told
}

func (m *Memory) tellSome(s *shard, max int) (told []Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.gone {
		if len(told) == max {
			return told
		}
		delete(s.gone, key)
		told = append(told, Entry{State: &State{Key: key}})
	}
	for len(s.dirty) > 0 {
		if len(told) == max {
			return told
		}
		b := s.dirty[0]
		if s.dirty = s.dirty[1:]; b.dirty {
			b.dirty = false
			told = append(told, Entry{State: b.state()})
		}
	}
	s.dirty = nil
	for a := range s.changed {
		if len(told) == max {
			return told
		}
		told = append(told, Entry{Known: a.tell()})
		if len(a.changed) > 0 {
			break // a long one is a batch of its own
		}
		delete(s.changed, a)
		if a.items.n == 0 {
			m.drop(s, a)
		}
	}
	return told
}

// tell is some of what changed.
func (a *account) tell() *KnownState {
	k := &KnownState{Account: a.name}
	for i := range a.changed {
		if len(k.Items) == breath {
			break
		}
		delete(a.changed, i)
		item := KnownItem{Item: i}
		if at := a.items.find(i); at >= 0 {
			item = a.items.slots[at]
		}
		k.Items = append(k.Items, item)
	}
	slices.SortFunc(k.Items, compareUse)
	return k
}

func (a *account) state() *KnownState {
	k := &KnownState{Account: a.name}
	for _, item := range a.items.slots {
		if item.Since != 0 {
			k.Items = append(k.Items, item)
		}
	}
	slices.SortFunc(k.Items, compareUse)
	return k
}

// Put is Keeper's. What it sets is not told by Dirty.
func (m *Memory) Put(_ context.Context, e Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	if e.Known != nil {
		m.putKnown(e.Known)
		return nil
	}
	key := e.State.Key
	s, hash := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.gone, key)
	if e.State.Gone() {
		s.remove(hash, key)
		return nil
	}
	if s.find(hash, key) == nil {
		if err := m.makeRoom(s, nil, micros(e.State.Newest())); err != nil {
			return fmt.Errorf("put bucket %q: %w", key, err)
		}
	}
	s.remove(hash, key)
	s.insert(hash, m.bucketOf(e.State))
	return nil
}

func (m *Memory) putKnown(k *KnownState) {
	s := &m.shards[m.homeOf(k.Account)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.accounts[k.Account]; old != nil {
		m.drop(s, old)
	}
	if len(k.Items) == 0 {
		return
	}
	a := s.newAccount(k.Account)
	for _, item := range k.Items[max(0, len(k.Items)-m.perAccount):] {
		a.newest = max(a.newest, item.Last)
		a.items.put(item)
	}
	m.known.Add(int64(a.items.n))
	m.forgetSome(s, a)
}

// Each is Keeper's. It holds no lock while fn runs.
func (m *Memory) Each(ctx context.Context, fn func(Entry) error) error {
	for i := range m.shards {
		s := &m.shards[i]
		for _, key := range s.keys() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if st := m.stateOf(s, key); st != nil {
				if err := fn(Entry{State: st}); err != nil {
					return err
				}
			}
		}
		for _, name := range s.names() {
			if k := s.knownOf(name); k != nil {
				if err := fn(Entry{Known: k}); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

func (s *shard) keys() (keys []Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all(func(_ uint64, b *bucket) bool {
		keys = append(keys, b.key())
		return true
	})
	return keys
}

func (m *Memory) stateOf(s *shard, key Key) *State {
	_, hash := m.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.find(hash, key); b != nil {
		return b.state()
	}
	return nil
}

func (s *shard) names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, a := range s.accounts {
		if a.items.n > 0 {
			names = append(names, name)
		}
	}
	return names
}

func (s *shard) knownOf(name string) *KnownState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[name]; a != nil && a.items.n > 0 {
		return a.state()
	}
	return nil
}
