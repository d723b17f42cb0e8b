package trail

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"relayguard/policy/limit"
)

// maxExpansions bounds the addresses that are known to stand for several.
const maxExpansions = 10_000

// forgetAfter is how long an address is remembered that nobody writes to.
const forgetAfter = 30 * 24 * time.Hour

// Expansion is one address that stands for several recipients.
type Expansion struct {
	Item   limit.Item `json:"item"`   // keyed digest of the address
	Stands int        `json:"stands"` // 2 to 1001
	Seen   time.Time  `json:"seen"`
}

// Expansions knows for how many recipients an address stands, as the MTA's log
// told lately. It keeps no addresses. Safe for concurrent use.
//
// They are saved once a minute: kill -9 forgets what was learnt since, and the
// next message to such an alias is charged for it afterwards again.
type Expansions struct {
	digest func(rcptTo string) limit.Item
	learns func(rcptTo string) bool

	mu      sync.RWMutex
	known   map[limit.Item]Expansion
	changed bool // since it was saved
}

// NewExpansions makes expansions that know nothing. Digest names an address
// (keyed: what is saved tells nothing), and gives all spellings that the MTA
// takes for one alias the same name; learns says of which addresses something
// is learnt, nil: of all. It should be those whose mail this MTA may rewrite:
// a forged line in its log must not make mail to others' mailboxes dear.
func NewExpansions(digest func(rcptTo string) limit.Item, learns func(rcptTo string) bool) *Expansions {
	return &Expansions{digest: digest, learns: learns, known: map[limit.Item]Expansion{}}
}

// Of is how many recipients an address stands for, 1 if nothing is known of it.
func (e *Expansions) Of(rcptTo string) int {
	if e == nil {
		return 1
	}
	e.mu.RLock()
	none := len(e.known) == 0
	e.mu.RUnlock()
	if none {
		return 1
	}
	item := e.digest(rcptTo)
	e.mu.RLock()
	defer e.mu.RUnlock()
	return max(e.known[item].Stands, 1)
}

// item is the digest of an address of which something is learnt.
func (e *Expansions) item(rcptTo string) (limit.Item, bool) {
	if e == nil || e.learns != nil && !e.learns(rcptTo) {
		return 0, false
	}
	return e.digest(rcptTo), true
}

// exactly learns that an address stands for so many.
func (e *Expansions) exactly(now time.Time, item limit.Item, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.learn(now, item, n)
}

// atLeast learns that an address stands for so many, or for more.
func (e *Expansions) atLeast(now time.Time, item limit.Item, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n >= e.known[item].Stands {
		e.learn(now, item, n)
	}
}

func (e *Expansions) learn(now time.Time, item limit.Item, n int) {
	old, known := e.known[item]
	if n <= 1 {
		if known {
			e.forget(item)
		}
		return
	}
	n = min(n, 1+maxGrowth)
	if known && old.Stands == n && now.Sub(old.Seen) < time.Hour { // not worth a write
		return
	}
	if !known && len(e.known) >= maxExpansions {
		e.makeRoom()
	}
	e.known[item], e.changed = Expansion{item, n, now}, true
}

func (e *Expansions) forget(item limit.Item) {
	delete(e.known, item)
	e.changed = true
}

// makeRoom forgets a sixteenth of the addresses, the longest unseen.
func (e *Expansions) makeRoom() {
	all := make([]Expansion, 0, len(e.known))
	for _, x := range e.known {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Expansion) int { return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.Item, b.Item)) })
	for _, x := range all[:len(all)/16] {
		e.forget(x.Item)
	}
}

// Sweep forgets addresses that were not seen for 30 days.
func (e *Expansions) Sweep(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for item, x := range e.known {
		if now.Sub(x.Seen) > forgetAfter {
			e.forget(item)
		}
	}
}

// All are the addresses that are known to stand for several, the longest unseen
// first.
func (e *Expansions) All() []Expansion {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make([]Expansion, 0, len(e.known))
	for _, x := range e.known {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b Expansion) int { return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.Item, b.Item)) })
	return all
}
