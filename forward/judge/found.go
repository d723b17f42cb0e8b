package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"relayguard/forward"
)

// found is a finding that is not written out yet: lines and notes are read from
// its rule when somebody asks.
type found struct {
	id      string
	owner   string
	rule    *rule // the owner's own
	target  string
	verdict forward.Verdict
	chain   []string
	differs string
	note    string
	also    int
	last    *rule // of a derived one: the rule that names the target
}

// equal reports whether two findings are of the same rules and say the same.
func (f *found) equal(o *found) bool {
	return f.id == o.id && f.owner == o.owner && f.rule == o.rule && f.target == o.target && f.verdict == o.verdict &&
		f.differs == o.differs && f.note == o.note && f.also == o.also && f.last == o.last && slices.Equal(f.chain, o.chain)
}

func (f *found) direct() bool { return len(f.chain) <= 1 }

// listed: what ends inside is none of Findings, unless what runs is not what is
// written.
func (f *found) listed() bool { return f.verdict != forward.Inside || f.differs != "" }

func (f *found) digest() string {
	if f.last != nil {
		return f.last.Digest
	}
	return f.rule.Digest
}

func (f *found) finding() forward.Finding {
	r := f.rule
	out := forward.Finding{
		ID: f.id, Owner: f.owner, Mechanism: r.Mechanism, Source: r.Source, Line: r.at(), Target: f.target, Verdict: f.verdict,
		Mode: r.Mode, Chain: slices.Clone(f.chain), Note: f.note, Server: r.Server, Sender: r.Sender, Differs: f.differs,
		Digest: f.digest(), UID: r.UID, Also: f.also, Unit: r.unit,
	}
	if l := f.last; l != nil {
		by := fmt.Sprintf("%s of %s in %s", l.Mechanism, f.chain[len(f.chain)-1], l.Source)
		if line := l.at(); line > 0 {
			by += fmt.Sprintf(":%d", line)
		}
		out.Note = joinNotes("by "+by, out.Note)
	}
	return out
}

func joinNotes(notes ...string) string {
	notes = slices.DeleteFunc(notes, func(s string) bool { return s == "" })
	return strings.Join(slices.Compact(notes), "; ")
}

// gravity orders verdicts for what is stated twice: what counts is the worst.
func gravity(v forward.Verdict) int {
	return slices.Index([]forward.Verdict{forward.Inside, forward.Dormant, forward.Broken, forward.Opaque, forward.Dynamic,
		forward.DynamicOutside, forward.Outside}, v)
}

// ownerJudge collects the findings of one owner.
type ownerJudge struct {
	g      *Graph
	key    *key
	list   []*found
	byID   map[string]int
	count  int // derived ones
	beyond int // derived ones that are not shown
}

// judgeOwner makes the findings of one owner.
func (g *Graph) judgeOwner(k *key) []*found {
	if len(k.rules) == 0 {
		return nil
	}
	j := ownerJudge{g: g, key: k, byID: make(map[string]int, len(k.rules))}
	loop := j.follow()
	for _, r := range k.rules {
		f := &found{owner: k.owner, rule: r, target: r.target, verdict: r.verdict, chain: []string{k.owner}, differs: r.Differs, note: joinNotes(r.Note, r.note)}
		if loop != "" && r.verdict == forward.Inside && r.live() {
			f.verdict, f.note = forward.Broken, joinNotes(loop, f.note)
		}
		j.add(f)
	}
	if j.beyond > 0 {
		for _, f := range j.list {
			if f.direct() {
				f.note = joinNotes(f.note, fmt.Sprintf("%d more targets by way of others are not shown", j.beyond))
			}
		}
	}
	slices.SortFunc(j.list, func(a, b *found) int { return cmp.Compare(a.id, b.id) })
	return j.list
}

// add puts a finding to the others; one with the same id is the same finding.
func (j *ownerJudge) add(f *found) {
	id := j.key.owner
	if j.key.owner != j.key.name {
		id = "sender " + id // an approval of one is none of the other
	}
	f.id = forward.FindingID(id, f.rule.Mechanism, strings.ToLower(f.target), f.rule.Mode)
	i, ok := j.byID[f.id]
	if !ok {
		j.byID[f.id] = len(j.list)
		j.list = append(j.list, f)
		return
	}
	old := j.list[i]
	if gravity(f.verdict) > gravity(old.verdict) || f.direct() && !old.direct() && f.verdict == old.verdict {
		f, old = old, f
		j.list[i] = old
	}
	if f.direct() {
		old.also++
		old.also += f.also
	}
	if old.differs == "" {
		old.differs = f.differs
	}
}

// seedGroup are an owner's inside targets of one mechanism and mode: what is
// reached by way of them is found once for all of them.
type seedGroup struct {
	mechanism forward.Mechanism
	mode      forward.Mode
	rules     []*rule
}

// seeds are the groups, in the order of the rules. ends: some rule of the owner
// leads to a mailbox, a program, outside, or keeps a copy.
func (j *ownerJudge) seeds() (groups []seedGroup, ends bool) {
	for _, r := range j.key.rules {
		if !r.live() {
			continue
		}
		if r.to == nil || r.Mode == forward.Copy {
			ends = true
		}
		if r.to == nil {
			continue
		}
		i := slices.IndexFunc(groups, func(g seedGroup) bool { return g.mechanism == r.Mechanism && g.mode == r.Mode })
		if i < 0 {
			i = len(groups)
			groups = append(groups, seedGroup{mechanism: r.Mechanism, mode: r.Mode})
		}
		groups[i].rules = append(groups[i].rules, r)
	}
	return groups, ends
}

// follow looks where the owner's inside targets lead, and says how they go round
// if they do nothing else.
func (j *ownerJudge) follow() (loop string) {
	w := reach{g: j.g, owner: j.key}
	w.emit = func(v int, s step) { j.derive(&w, v, s) }
	var groups []seedGroup
	groups, w.ends = j.seeds()
	names := []string{j.key.owner}
	for _, group := range groups {
		w.from(group.rules)
		for _, v := range w.visits[:min(len(w.visits), 8)] {
			names = append(names, v.box.addr)
		}
	}
	if len(groups) == 0 || w.ends || w.cut {
		return ""
	}
	return "a loop: " + strings.Join(slices.Compact(names), " > ")
}

// derive makes a finding of what an owner reaches by way of others.
func (j *ownerJudge) derive(w *reach, v int, s step) {
	verdict := s.rule.verdict
	switch verdict {
	case forward.Outside, forward.Dynamic, forward.DynamicOutside:
	default:
		return
	}
	if j.count >= maxDerived {
		j.beyond++
		return
	}
	chain := w.chain(v, s.key)
	if len(chain) < 2 {
		return // its own rule, met again
	}
	j.count++
	j.add(&found{owner: j.key.owner, rule: w.visits[v].first, last: s.rule, target: s.target, verdict: verdict, chain: chain, note: joinNotes(s.rule.Note, s.rule.note)})
}
