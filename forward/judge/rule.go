package judge

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"relayguard/forward"
)

// rule is a rule in the graph, with what is thought of it by itself.
type rule struct {
	forward.Rule // but for its Line, which moves with every line that is added above
	line         atomic.Int64
	unit         string
	key          *key
	dead         bool   // replaced; may still stand in a mailbox' list
	target       string // canonical
	verdict      forward.Verdict
	note         string   // why that verdict, where it is not plain
	to           *mailbox // the inside address that it leads to; nil: it ends here
}

// at is the line of its source; who asks waits for nobody who changes it.
func (r *rule) at() int { return int(r.line.Load()) }

// live reports whether mail goes by the rule at all.
func (r *rule) live() bool { return r.Rule.Broken == "" && r.Rule.Dormant == "" }

// key is an owner, or what could be one: a name under which an address is looked
// up.
type key struct {
	name  string
	owner string // as findings show it
	rules []*rule
	asked []*mailbox // the addresses that are looked up under it
	gone  int        // how many of asked are
	found []*found
}

// sort puts the rules into an order that does not depend on what came first, so
// that what is found does not either.
func (k *key) sort() {
	if len(k.rules) < 2 {
		return
	}
	slices.SortStableFunc(k.rules, func(a, b *rule) int {
		return cmp.Or(strings.Compare(a.unit, b.unit), strings.Compare(string(a.Mechanism), string(b.Mechanism)), strings.Compare(a.target, b.target),
			strings.Compare(string(a.Mode), string(b.Mode)), strings.Compare(a.Source, b.Source), cmp.Compare(a.Kind, b.Kind))
	})
}

// mailbox is an inside address at which rules point.
type mailbox struct {
	addr string
	keys []*key
	ext  []string
	by   []*rule    // rules that lead here, dead ones among them
	dead int        // how many of by are
	gone bool       // not in the graph any more
	from []*mailbox // addresses that become this one by a domain's rule
}

// senderKeys keeps rules about outgoing mail apart from those about incoming.
const senderKeys = "\x00sender "

func keyName(owner string, sender bool) string {
	if sender {
		return senderKeys + owner
	}
	return owner
}

func (g *Graph) key(name string) *key {
	k := g.keys[name]
	if k == nil {
		k = &key{name: name, owner: strings.TrimPrefix(name, senderKeys)}
		g.keys[name] = k
	}
	return k
}

// box is the mailbox of a canonical inside address. Local parts are folded:
// keys are.
func (g *Graph) box(addr string) *mailbox {
	lower := strings.ToLower(addr)
	b := g.boxes[lower]
	if b == nil {
		b = &mailbox{addr: addr}
		var names []string
		names, b.ext = lookups(&g.world, lower)
		for _, name := range names {
			k := g.key(name)
			k.asked = append(k.asked, b)
			b.keys = append(b.keys, k)
		}
		g.boxes[lower] = b
	}
	return b
}

// insert puts a rule into the graph, without judging its owner anew.
func (g *Graph) insert(unit string, fr forward.Rule) *rule {
	r := &rule{Rule: fr, unit: unit}
	r.line.Store(int64(fr.Line))
	r.Line = 0
	if len(r.Target) > forward.MaxTarget {
		r.Target = r.Target[:forward.MaxTarget]
		if r.Rule.Broken == "" {
			r.Rule.Broken = "the target is longer than any address"
		}
	}
	owner := ownerName(fr.Owner)
	r.key = g.key(keyName(owner, fr.Sender))
	r.key.rules = append(r.key.rules, r)
	judgeRule(&g.world, owner, r)
	if r.live() && r.Kind == forward.Address && r.verdict == forward.Inside && !strings.Contains(r.target, forward.Unknown) {
		r.to = g.box(r.target)
		r.to.by = append(r.to.by, r)
	}
	return r
}

// remove takes rules out again, and gives the keys that had them to changed.
func (g *Graph) remove(rules []*rule, changed map[*key]bool) {
	for _, r := range rules {
		r.dead = true
		changed[r.key] = true
		if b := r.to; b != nil {
			if b.dead++; b.dead*2 > len(b.by) {
				b.by = living(b.by)
				b.dead = 0
			}
			g.forget(b)
		}
	}
	for k := range changed {
		k.rules = living(k.rules)
	}
}

// forget drops an address that nothing points at any more, so that a place
// which changes all the time does not fill the memory. One that a domain's rule
// made of another stays until the next Load.
func (g *Graph) forget(b *mailbox) {
	if len(b.by) > 0 || len(b.from) > 0 {
		return
	}
	delete(g.boxes, strings.ToLower(b.addr))
	b.gone = true
	for _, k := range b.keys {
		if k.gone++; k.gone*2 <= len(k.asked) {
			continue
		}
		k.asked = slices.DeleteFunc(k.asked, func(b *mailbox) bool { return b.gone })
		k.gone = 0
		if len(k.asked) == 0 && len(k.rules) == 0 && len(k.found) == 0 {
			delete(g.keys, k.name)
		}
	}
}

func living(list []*rule) []*rule {
	kept := make([]*rule, 0, len(list))
	for _, r := range list {
		if !r.dead {
			kept = append(kept, r)
		}
	}
	return kept
}

// replace makes a unit's rules those of now and returns the keys whose rules are
// others. What is the same but for its line is left as it is.
func (g *Graph) replace(unit string, now []forward.Rule) map[*key]bool {
	was := g.units[unit]
	same := func(a *rule, b *forward.Rule) bool {
		c := *b
		c.Line = 0
		return a.Rule == c
	}
	head := 0
	for head < len(was) && head < len(now) && same(was[head], &now[head]) {
		head++
	}
	tail := 0
	for tail < len(was)-head && tail < len(now)-head && same(was[len(was)-1-tail], &now[len(now)-1-tail]) {
		tail++
	}
	list := make([]*rule, 0, len(now))
	list = append(list, was[:head]...)
	changed := map[*key]bool{}
	list = append(list, g.replaceMiddle(unit, was[head:len(was)-tail], now[head:len(now)-tail], changed)...)
	list = append(list, was[len(was)-tail:]...)
	for i, r := range list {
		r.line.Store(int64(now[i].Line))
	}
	if len(list) == 0 {
		delete(g.units, unit)
	} else {
		g.units[unit] = list
	}
	return changed
}

func (g *Graph) replaceMiddle(unit string, was []*rule, now []forward.Rule, changed map[*key]bool) []*rule {
	have := make(map[forward.Rule][]*rule, len(was))
	for _, r := range was {
		have[r.Rule] = append(have[r.Rule], r)
	}
	list := make([]*rule, len(now))
	for i := range now {
		c := now[i]
		c.Line = 0
		if same := have[c]; len(same) > 0 {
			list[i], have[c] = same[0], same[1:]
		}
	}
	var gone []*rule
	for _, rest := range have {
		gone = append(gone, rest...)
	}
	g.remove(gone, changed)
	for i := range now {
		if list[i] == nil {
			list[i] = g.insert(unit, now[i])
			changed[list[i].key] = true
		}
	}
	return list
}
