package judge

import (
	"slices"
	"strings"
	"sync"

	"relayguard/forward"
)

// index is what is asked while mail waits: findings by what they name. Reading it
// waits for nobody, neither for a unit that is being judged nor for a load. While a
// change is put in, some owners are as before it and some as after it. Only who
// holds Graph.mu writes.
//
// What lies in it is not changed any more: findings and lists are replaced.
type index struct {
	owners  sync.Map // name of a key -> []*found
	ids     sync.Map // id -> *found
	targets sync.Map // lower-case target -> []*found that leave there, best first
}

func (x *index) of(key string) []*found {
	list, _ := x.owners.Load(key)
	all, _ := list.([]*found)
	return all
}

func (x *index) find(id string) *found {
	one, _ := x.ids.Load(id)
	f, _ := one.(*found)
	return f
}

func (x *index) to(target string) []*found {
	list, _ := x.targets.Load(strings.ToLower(target))
	all, _ := list.([]*found)
	return all
}

// all are the findings of all owners, in no order.
func (x *index) all(want func(*found) bool) []*found {
	var list []*found
	x.owners.Range(func(_, value any) bool {
		all, _ := value.([]*found)
		for _, f := range all {
			if want(f) {
				list = append(list, f)
			}
		}
		return true
	})
	return list
}

// edit is what a change does to the lists of targets, which are rebuilt once each.
type edit struct {
	gone map[*found]bool
	come []*found
}

// put makes findings of owners those of now: all that changed in one step.
func (x *index) put(changed []replaced) {
	edits := map[string]*edit{}
	of := func(f *found) *edit {
		t := strings.ToLower(f.target)
		e := edits[t]
		if e == nil {
			e = &edit{}
			edits[t] = e
		}
		return e
	}
	for _, c := range changed {
		for _, f := range c.now {
			x.ids.Store(f.id, f)
			if f.leads() {
				e := of(f)
				e.come = append(e.come, f)
			}
		}
		if len(c.now) == 0 {
			x.owners.Delete(c.key)
		} else {
			x.owners.Store(c.key, c.now)
		}
		for _, f := range c.was {
			if f.leads() {
				e := of(f)
				if e.gone == nil {
					e.gone = map[*found]bool{}
				}
				e.gone[f] = true
			}
		}
	}
	for target, e := range edits {
		x.edit(target, e)
	}
	for _, c := range changed {
		for _, f := range c.was {
			if x.find(f.id) == f { // nobody states it any more
				x.ids.Delete(f.id)
			}
		}
	}
}

// edit replaces the list of one target.
func (x *index) edit(target string, e *edit) {
	was := x.to(target)
	slices.SortFunc(e.come, byRank)
	list := make([]*found, 0, len(was)+len(e.come))
	for _, f := range was { // two lists in order become one
		for len(e.come) > 0 && byRank(e.come[0], f) <= 0 {
			list, e.come = append(list, e.come[0]), e.come[1:]
		}
		if !e.gone[f] {
			list = append(list, f)
		}
	}
	if list = append(list, e.come...); len(list) == 0 {
		x.targets.Delete(target)
		return
	}
	x.targets.Store(target, list)
}

// byRank orders what leads to one target: direct ones first, then by owner.
func byRank(a, b *found) int {
	if a.direct() != b.direct() {
		if a.direct() {
			return -1
		}
		return 1
	}
	if c := strings.Compare(a.owner, b.owner); c != 0 {
		return c
	}
	return strings.Compare(a.id, b.id)
}

// replaced are the findings of one owner before and after a change.
type replaced struct {
	key      string
	was, now []*found
}

// leads reports whether mail leaves by it, as far as is known.
func (f *found) leads() bool { return f.listed() && f.leaves() }

func (f *found) leaves() bool {
	l := forward.Finding{Verdict: f.verdict}
	return l.Leaves()
}

// Find returns the finding of an id, one that ends inside too. Like Targets and Match it
// waits for nobody, whatever is being judged meanwhile.
func (g *Graph) Find(id string) (forward.Finding, bool) {
	f := g.index.Load().find(id)
	if f == nil {
		return forward.Finding{}, false
	}
	return f.finding(), true
}

// Targets are the ids of all findings by which mail leaves to a target (an
// address, or a next hop as findings show it): direct ones first, by owner.
func (g *Graph) Targets(target string) []string {
	x := g.index.Load()
	list := x.to(target)
	if len(list) == 0 {
		addr, ok := Canonical(&g.world, target)
		if !ok {
			return nil
		}
		list = x.to(addr)
	}
	ids := make([]string, len(list))
	for i, f := range list {
		ids[i] = f.id
	}
	return ids
}

// Inside reports whether an address is one of ours.
func (g *Graph) Inside(addr string) bool {
	a, ok := Canonical(&g.world, addr)
	return ok && insideAddress(&g.world, a)
}

// Match tells which finding explains that mail which was addressed to origTo left
// to rcpt: one of origTo's owner, else one that concerns everybody. An empty
// origTo (blind copies have none) asks for everybody's, and for the target's if
// there is one owner only.
func (g *Graph) Match(origTo, rcpt string) (id string, ok bool) {
	to, ok := Canonical(&g.world, rcpt)
	if !ok {
		return "", false
	}
	to = strings.ToLower(to)
	x := g.index.Load()
	if from, ok := Canonical(&g.world, origTo); ok {
		keys, _ := lookups(&g.world, from)
		if id := x.best(&g.world, keys, to); id != "" {
			return id, true
		}
	}
	if id := x.best(&g.world, []string{forward.Everybody}, to); id != "" {
		return id, true
	}
	if list := x.to(to); origTo == "" && len(list) == 1 {
		return list[0].id, true
	}
	return "", false
}

// best is the finding of the given keys that fits an outside recipient best.
func (x *index) best(w *forward.World, keys []string, to string) string {
	id, most := "", 0
	for _, name := range keys {
		for _, f := range x.of(name) {
			if n := fits(w, f, to); n > most {
				id, most = f.id, n
			}
		}
	}
	return id
}

// fits says how well a finding explains mail to an address: 0 not at all.
func fits(w *forward.World, f *found, to string) int {
	target := strings.ToLower(f.target)
	at := strings.LastIndexByte(target, '@')
	domain := to[strings.LastIndexByte(to, '@')+1:]
	switch {
	case f.rule.Kind != forward.Address && f.last == nil || !f.leaves():
		return 0
	case target == to:
		return 6
	case withoutExtension(w, target) == withoutExtension(w, to):
		return 5
	case at == 0 && target[1:] == domain:
		return 4
	case f.verdict == forward.DynamicOutside && at >= 0 && target[at+1:] == domain:
		return 3
	case f.verdict == forward.Dynamic:
		return 1
	}
	return 0
}

func withoutExtension(w *forward.World, addr string) string {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 || w.Delimiters == "" {
		return addr
	}
	if i := strings.IndexAny(addr[:at], w.Delimiters); i > 0 {
		return addr[:i] + addr[at:]
	}
	return addr
}
