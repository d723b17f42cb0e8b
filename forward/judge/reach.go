package judge

import (
	"slices"
	"strings"

	"relayguard/forward"
)

// step is one rule as an address on the way meets it.
type step struct {
	rule   *rule
	key    *key
	target string   // of the rule for that address
	to     *mailbox // nil: the way ends here
}

// steps are the rules that mail to an address meets: of each mechanism those
// under the first key that has any, as the servers look them up. They belong to
// mechanisms that may all be passed one after the other.
func (g *Graph) steps(b *mailbox) []step {
	var all []step
	var done []forward.Mechanism
	for i, k := range b.keys {
		var here []forward.Mechanism
		for _, r := range k.rules {
			if !r.live() || r.Sender || slices.Contains(done, r.Mechanism) || !g.meets(b, r) {
				continue
			}
			if !slices.Contains(here, r.Mechanism) {
				here = append(here, r.Mechanism)
			}
			all = append(all, g.stepOf(b, k, b.ext[i], r))
		}
		done = append(done, here...)
	}
	return all
}

// meets: what rewrites addresses on the wire does not meet what is delivered
// here.
func (g *Graph) meets(b *mailbox, r *rule) bool {
	if r.Mechanism != forward.Generic {
		return true
	}
	at := strings.LastIndexByte(b.addr, '@')
	return at >= 0 && !localDomain(&g.world, b.addr[at+1:])
}

// stepOf is where a rule sends an address: "@dom" keeps its local part, and
// virtual and canonical maps its extension.
func (g *Graph) stepOf(b *mailbox, k *key, ext string, r *rule) step {
	s := step{rule: r, key: k, target: r.target, to: r.to}
	if r.Kind != forward.Address {
		return s
	}
	target := r.target
	if at := strings.LastIndexByte(target, '@'); at == 0 {
		if i := strings.LastIndexByte(b.addr, '@'); i > 0 {
			target = b.addr[:i] + target
		}
	} else if at > 0 && ext != "" && (r.Mechanism == forward.Virtual || r.Mechanism == forward.Canonical || r.Mechanism == forward.SQL) {
		target = target[:at] + ext + target[at:]
	}
	if target == r.target {
		return s
	}
	s.target = target
	if r.to != nil {
		s.to = g.box(target)
		if s.to != b && !slices.Contains(s.to.from, b) {
			s.to.from = append(s.to.from, b)
		}
	}
	return s
}

// visit is one address on the ways from an owner.
type visit struct {
	box    *mailbox
	parent int   // index of the visit before it; -1: the owner's own rule
	via    *key  // whose rule led here
	first  *rule // the owner's own rule that the way began with
	depth  int
}

// reach follows an owner's rules inside, all of one mechanism and mode at a time.
type reach struct {
	g      *Graph
	owner  *key
	visits []visit
	seen   map[*mailbox]bool
	work   int  // rules looked at
	cut    bool // bounds were met: nothing certain can be said of loops
	ends   bool // somewhere mail ends: in a mailbox, outside, in a program
	emit   func(v int, s step)
}

// from follows the given rules of the owner, all of which lead inside.
func (w *reach) from(rules []*rule) {
	w.seen = map[*mailbox]bool{}
	w.visits = w.visits[:0]
	for _, r := range rules {
		if !w.seen[r.to] {
			w.seen[r.to] = true
			w.visits = append(w.visits, visit{r.to, -1, w.owner, r, 1})
		}
	}
	for i := 0; i < len(w.visits); i++ {
		if w.work > maxReach || w.visits[i].depth > maxChain {
			w.cut = true
			return
		}
		w.expand(i)
	}
}

func (w *reach) expand(i int) {
	v := w.visits[i]
	steps := w.g.steps(v.box)
	if len(steps) == 0 {
		w.ends = true
	}
	w.work += 1 + len(steps)
	for _, s := range steps {
		if s.rule.Mode == forward.Copy || s.to == nil || s.to == v.box {
			w.ends = true // a mailbox gets it, or it is no address of ours
		}
		if s.to == nil {
			w.emit(i, s)
			continue
		}
		if !w.seen[s.to] && s.to != v.box {
			w.seen[s.to] = true
			w.visits = append(w.visits, visit{s.to, i, s.key, v.first, v.depth + 1})
		}
	}
}

// chain are the owners on the way to visit i, and the last one.
func (w *reach) chain(i int, end *key) []string {
	back := []string{end.owner}
	for ; i >= 0; i = w.visits[i].parent {
		back = append(back, w.visits[i].via.owner)
	}
	slices.Reverse(back)
	return slices.Compact(back)
}

// affected are the keys whose findings may be others after the rules of changed
// are: these, and all from whom mail comes to them.
func (g *Graph) affected(changed map[*key]bool) []*key {
	var list []*key
	seen := map[*key]bool{}
	boxes := map[*mailbox]bool{}
	add := func(k *key) {
		if !seen[k] {
			seen[k] = true
			list = append(list, k)
		}
	}
	for k := range changed {
		add(k)
	}
	for i := 0; i < len(list); i++ {
		k := list[i]
		for _, b := range k.asked {
			if !b.gone && (changed[k] || g.uses(b, k)) {
				g.sources(b, boxes, add)
			}
		}
	}
	return list
}

// uses reports whether mail to an address meets a rule of a key.
func (g *Graph) uses(b *mailbox, k *key) bool {
	return slices.ContainsFunc(g.steps(b), func(s step) bool { return s.key == k })
}

// sources adds the owners of the rules that lead to an address.
func (g *Graph) sources(b *mailbox, seen map[*mailbox]bool, add func(*key)) {
	todo := []*mailbox{b}
	for len(todo) > 0 {
		b := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[b] {
			continue
		}
		seen[b] = true
		for _, r := range b.by {
			if !r.dead {
				add(r.key)
			}
		}
		todo = append(todo, b.from...)
	}
}
