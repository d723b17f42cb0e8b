package limit

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// KnownTerm is how long after the last message a recipient is known.
const KnownTerm = MaxLength

// account is whom an account has written to.
type account struct {
	name    string
	newest  int64 // its last event; its time never runs backwards
	items   items
	oldest  []KnownItem       // the next to forget, the oldest last
	changed map[Item]struct{} // since they were last told
	empty   bool              // a sweep found it without items
}

// strangers is how many of the items the account, which may be nil, does not
// know since before that time.
func (a *account) strangers(charge []Item, now, before int64) int64 {
	if a == nil {
		return int64(len(charge))
	}
	n, from := int64(0), a.knownFrom(now)
	for _, i := range charge {
		if at := a.items.find(i); at < 0 || a.items.slots[at].Last < from || a.items.slots[at].Since >= before {
			n++
		}
	}
	return n
}

// knownFrom is the last event that a known item must have had at now.
func (a *account) knownFrom(now int64) int64 {
	return max(now, a.newest) - KnownTerm.Microseconds()
}

// learn notes that the account wrote to items, and forgets those for which
// there is no room.
func (a *account) learn(written []Item, now int64, most int) {
	from := a.knownFrom(now)
	a.newest = max(now, a.newest, 1) // 0 is never
	for _, i := range written {
		k := KnownItem{Item: i, Since: a.newest, Last: a.newest}
		if at := a.items.find(i); at >= 0 && a.items.slots[at].Last >= from {
			k.Since = a.items.slots[at].Since
		}
		a.items.put(k)
		a.change(i)
	}
	a.forget(a.items.n - most)
}

func (a *account) change(i Item) {
	if a.changed == nil {
		a.changed = map[Item]struct{}{}
	}
	if a.changed[i] = struct{}{}; len(a.changed) > 2*a.items.n+breath { // nobody asks: only what is there stays to be told
		maps.DeleteFunc(a.changed, func(i Item, _ struct{}) bool { return a.items.find(i) < 0 })
	}
}

// forget drops the n items that were written to longest ago; of those of one
// microsecond, the smallest.
func (a *account) forget(n int) {
	for fresh := false; n > 0; {
		last := len(a.oldest) - 1
		if last < 0 || a.oldest[last].Last >= a.newest && !fresh { // as old may be what came since
			a.oldest, fresh = oldest(a.items.n/64+n, compareUse, func(yield func(KnownItem) bool) {
				for _, k := range a.items.slots {
					if k.Since != 0 && !yield(k) {
						return
					}
				}
			}), true
			continue
		}
		k := a.oldest[last]
		a.oldest = a.oldest[:last]
		if at := a.items.find(k.Item); at >= 0 && a.items.slots[at].Last == k.Last {
			a.items.remove(at)
			a.change(k.Item)
			n--
		}
	}
}

// compareUse orders items by their last event.
func compareUse(a, b KnownItem) int {
	return cmp.Or(cmp.Compare(a.Last, b.Last), cmp.Compare(a.Item, b.Item))
}

// oldest is the n smallest of all, the smallest last. Usually it sorts a few of
// them only.
func oldest[T any](n int, compare func(a, b T) int, all func(yield func(T) bool)) []T {
	var some []T
	cut := func() {
		slices.SortFunc(some, compare)
		some = some[:min(n, len(some))]
	}
	full := false // some[n-1] is then the largest that may stay
	for v := range all {
		if full && compare(v, some[n-1]) >= 0 {
			continue
		}
		if some = append(some, v); len(some) >= 2*n {
			cut()
			full = true
		}
	}
	cut()
	slices.Reverse(some)
	return some
}

// learn notes whom the step's account wrote to. The account's shard is locked.
func (m *Memory) learn(s *shard, a *account, step *Step, now int64) {
	k := &step.Known
	if len(k.Items) == 0 {
		return
	}
	if a == nil {
		a = s.newAccount(k.Account)
	}
	had := a.items.n
	a.learn(k.Items, now, m.perAccount)
	s.changed[a] = struct{}{}
	m.known.Add(int64(a.items.n - had))
	m.forgetSome(s, a)
}

// forgetSome keeps within the bound for all accounts. In one shard after the
// other, of which home is locked, the account that wrote longest ago forgets a
// sixteenth of its items; if nobody else can, but does.
func (m *Memory) forgetSome(home *shard, but *account) {
	for range 2 * shards {
		if m.known.Load() <= m.mostKnown {
			return
		}
		s := &m.shards[m.turn.Add(1)%shards]
		if s != home && !s.mu.TryLock() { // others may wait for each other in order only
			continue
		}
		if a := s.idlest(but); a != nil {
			m.forget(s, a, a.items.n/16+1)
		}
		if s != home {
			s.mu.Unlock()
		}
	}
	if over := m.known.Load() - m.mostKnown; over > 0 {
		m.forget(home, but, int(min(over, int64(but.items.n))))
	}
}

func (m *Memory) forget(s *shard, a *account, n int) {
	had := a.items.n
	a.forget(n)
	m.known.Add(int64(a.items.n - had))
	s.changed[a] = struct{}{}
}

// idlest is the account, but for one, that wrote longest ago; nil of none.
func (s *shard) idlest(but *account) *account {
	for searched := false; ; {
		last := len(s.idle) - 1
		if last < 0 {
			if searched {
				return nil
			}
			s.idle, searched = s.findIdle(but), true
			continue
		}
		if a := s.idle[last]; s.accounts[a.name] == a.account && a.newest == a.account.newest && a.items.n > 0 && a.account != but {
			return a.account
		}
		s.idle = s.idle[:last]
	}
}

// idler is an account that may forget if it has not written since.
type idler struct {
	*account
	newest int64
}

func (s *shard) findIdle(but *account) []idler {
	byUse := func(a, b idler) int { return cmp.Compare(a.newest, b.newest) }
	return oldest(len(s.accounts)/16+1, byUse, func(yield func(idler) bool) {
		for _, a := range s.accounts {
			if a != but && a.items.n > 0 && !yield(idler{a, a.newest}) {
				return
			}
		}
	})
}

// account is the one of a name, or nil; also of no shard.
func (s *shard) account(name string) *account {
	if s == nil {
		return nil
	}
	return s.accounts[name]
}

func (s *shard) newAccount(name string) *account {
	a := &account{name: strings.Clone(name)}
	s.accounts[a.name] = a
	return a
}

// drop forgets an account without telling.
func (m *Memory) drop(s *shard, a *account) {
	if s.accounts[a.name] == a {
		m.known.Add(-int64(a.items.n))
		delete(s.accounts, a.name)
		delete(s.changed, a)
	}
}
