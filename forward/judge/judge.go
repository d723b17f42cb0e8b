// Package judge says of every forwarding rule where its mail ends: inside, at
// exactly our own domains and hosts, or outside. It brings addresses into the
// form in which Postfix uses them (Canonical), follows rules from owner to owner
// across mechanisms, and keeps what it thinks up to date when one place changes.
//
// It reads no files, and knows nothing of approvals.
//
// The trap: "user@evil.test" has many spellings that look like somebody of our
// own ("user%evil.test@corp.test"), and our own have spellings that only look
// like them (another script's letters, other dots). What counts is what the MTA
// does with the spelling: the tests ask a real one.
package judge

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"relayguard/forward"
)

// Bounds of what is followed. Direct findings are never left out: beyond these a
// chain is not shown as a whole, its last link still is.
const (
	maxDerived = 100    // findings of one owner by way of others
	maxChain   = 64     // owners on the way
	maxReach   = 20_000 // rules looked at for one owner
)

// Delta is what a change of one unit changed: findings that Findings lists, new
// ones and ones whose verdict, digest, difference or chain is another now; and what was
// listed before and is not so any more.
type Delta struct{ Appeared, Gone []forward.Finding }

// Graph holds all rules. Safe for concurrent use. Time that a change takes
// depends on how many owners reach what changed, not on how many there are. Nobody
// who asks waits for a change.
type Graph struct {
	world forward.World
	index atomic.Pointer[index]

	mu    sync.Mutex // of who changes
	units map[string][]*rule
	keys  map[string]*key     // by name, Sender rules apart: see keyName
	boxes map[string]*mailbox // inside addresses that something points at
}

// New makes an empty graph. The world is not changed, and must not be.
func New(w forward.World) *Graph {
	g := &Graph{world: w}
	g.clear()
	g.index.Store(&index{})
	return g
}

func (g *Graph) clear() {
	g.units = map[string][]*rule{}
	g.keys = map[string]*key{}
	g.boxes = map[string]*mailbox{}
}

// Load replaces all rules by those of units, by the units' ids.
func (g *Graph) Load(units map[string][]forward.Rule) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clear()
	for _, name := range slices.Sorted(maps.Keys(units)) {
		list := make([]*rule, len(units[name]))
		for i := range list {
			list[i] = g.insert(name, units[name][i])
		}
		g.units[name] = list
	}
	owners := make([]*key, 0, len(g.keys)) // following rules makes further keys
	for _, k := range g.keys {
		if len(k.rules) > 0 {
			k.sort()
			owners = append(owners, k)
		}
	}
	changed := make([]replaced, len(owners))
	for i, k := range owners {
		k.found = g.judgeOwner(k)
		changed[i] = replaced{key: k.name, now: k.found}
	}
	x := &index{}
	x.put(changed)
	g.index.Store(x)
}

// Set replaces the rules of one unit; none removes it.
func (g *Graph) Set(unit string, rules []forward.Rule) Delta {
	g.mu.Lock()
	defer g.mu.Unlock()
	changed := g.replace(unit, rules)
	if len(changed) == 0 {
		return Delta{}
	}
	for k := range changed {
		k.sort()
	}
	var d Delta
	var edits []replaced
	for _, k := range g.affected(changed) {
		was := k.found
		now := g.judgeOwner(k)
		if !slices.EqualFunc(was, now, (*found).equal) {
			k.found = now
			edits = append(edits, replaced{k.name, was, now})
			g.compare(&d, was, now)
		}
		if len(k.rules) == 0 && len(k.asked) == 0 {
			delete(g.keys, k.name)
		}
	}
	g.index.Load().put(edits)
	sortFindings(d.Appeared)
	sortFindings(d.Gone)
	return d
}

// compare adds to d what is new in now, and what of was is not there any more.
func (g *Graph) compare(d *Delta, was, now []*found) {
	same := func(a, b *found) bool {
		return a.id == b.id && a.verdict == b.verdict && a.digest() == b.digest() && a.differs == b.differs && slices.Equal(a.chain, b.chain)
	}
	lacks := func(list []*found, f *found) bool {
		return f.listed() && !slices.ContainsFunc(list, func(o *found) bool { return o.listed() && same(o, f) })
	}
	if len(was)*len(now) > 1<<16 { // an owner with thousands: by id
		g.compareMany(d, was, now, same)
		return
	}
	for _, f := range now {
		if lacks(was, f) {
			d.Appeared = append(d.Appeared, f.finding())
		}
	}
	for _, f := range was {
		if lacks(now, f) {
			d.Gone = append(d.Gone, f.finding())
		}
	}
}

func (g *Graph) compareMany(d *Delta, was, now []*found, same func(a, b *found) bool) {
	byID := func(list []*found) map[string]*found {
		m := make(map[string]*found, len(list))
		for _, f := range list {
			if f.listed() {
				m[f.id] = f
			}
		}
		return m
	}
	old, current := byID(was), byID(now)
	for id, f := range current {
		if o := old[id]; o == nil || !same(o, f) {
			d.Appeared = append(d.Appeared, f.finding())
		}
	}
	for id, f := range old {
		if o := current[id]; o == nil || !same(o, f) {
			d.Gone = append(d.Gone, f.finding())
		}
	}
}

// Findings are all but Inside, by owner, mechanism and target. A rule that ends
// inside but whose source differs from what runs is among them.
func (g *Graph) Findings() []forward.Finding {
	return g.collect(func(f *found) bool { return f.listed() })
}

// All are the findings with those that end inside.
func (g *Graph) All() []forward.Finding {
	return g.collect(func(*found) bool { return true })
}

func (g *Graph) collect(want func(*found) bool) []forward.Finding {
	list := g.index.Load().all(want)
	all := make([]forward.Finding, len(list))
	for i, f := range list {
		all[i] = f.finding()
	}
	sortFindings(all)
	return all
}

func sortFindings(list []forward.Finding) {
	slices.SortFunc(list, func(a, b forward.Finding) int {
		if c := strings.Compare(a.Owner, b.Owner); c != 0 {
			return c
		}
		if c := strings.Compare(string(a.Mechanism), string(b.Mechanism)); c != 0 {
			return c
		}
		if c := strings.Compare(a.Target, b.Target); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
}
