package tables

import (
	"context"
	"fmt"
	"strings"

	mta "relayguard/mta/postfix"
)

// Bounds of how often a rule is tried on a key: some seconds at the worst.
const (
	maxTries      = 100_000_000 // for keys that are known
	maxFixedTries = 4_000_000   // to find out which rules are no patterns
)

// patterns lists a regexp or pcre table: each rule as a pattern, and what the
// table says to the keys that are known. A rule that matches a few keys only is
// listed as those.
func (r *Reader) patterns(ctx context.Context, t mta.Table, out *table) {
	text, path, ok := r.rulesText(ctx, t, out)
	if !ok {
		return
	}
	out.rules = parseRules(text, dialects[t.Type])
	probes := out.patternEntries(path)
	foreign := undecided(out.rules)
	known := r.known(maxProbes, out, t)
	for key, a := range r.answers(ctx, t, out, append(probes, known...), len(foreign) > 0) {
		line := 0
		if a.rule >= 0 {
			line = out.rules[a.rule].line
		}
		out.Entries = append(out.Entries, Entry{Key: key, Value: a.value, Source: path, Line: line})
	}
	if len(foreign) > 0 && !r.Host.Live() {
		out.gap(path, fmt.Sprintf("%d patterns that only Postfix can match, the first in line %d: which addresses they concern is not known",
			len(foreign), out.rules[foreign[0]].line))
	}
	sortEntries(out.Entries)
}

// patternEntries adds an entry a rule, and returns the keys of rules that are
// fixed in truth.
func (t *table) patternEntries(path string) (probes []string) {
	var conditions []string
	budget := maxFixedTries
	for i := range t.rules {
		r := &t.rules[i]
		switch r.op {
		case opIf:
			conditions = append(conditions, "if "+r.first.text)
			continue
		case opEndif:
			conditions = conditions[:len(conditions)-1]
			continue
		}
		entry := Entry{
			Key: strings.Join(append(conditions[:len(conditions):len(conditions)], r.first.text), " "), Value: r.value.pattern(),
			Source: path, Line: r.line, Pattern: true, Dynamic: r.value.most > 0, Dormant: r.skipped,
		}
		if r.second != nil {
			entry.Key += r.second.text
		}
		if r.skipped == "" && len(entry.Key) < 4096 {
			if keys, all := r.fixedKeys(t.rules, i, &budget); all {
				probes = append(probes, keys...)
				continue
			}
		}
		t.Entries = append(t.Entries, entry)
	}
	return probes
}

// fixedKeys lists the keys of a rule that is no pattern in truth: of each, it is
// the rule that answers.
func (r *rule) fixedKeys(rules []rule, index int, budget *int) ([]string, bool) {
	if *budget <= 0 || r.second != nil {
		return nil, false
	}
	keys, all := r.first.keys()
	if !all {
		return nil, false
	}
	*budget -= len(keys) * len(rules)
	for _, key := range keys {
		if a, found, sure := ask(rules, key); !sure || !found || a.rule != index {
			return nil, false
		}
	}
	return keys, true
}

// answers asks a pattern table for keys: Postfix itself where some rule cannot
// be decided here and it can be run.
func (r *Reader) answers(ctx context.Context, t mta.Table, out *table, keys []string, foreign bool) map[string]answer {
	answers := make(map[string]answer)
	if most := maxTries / max(len(out.rules), 1); len(keys) > most {
		out.gap(t.String(), fmt.Sprintf("tried with %d of %d known addresses, for it has %d rules", most, len(keys), len(out.rules)))
		keys = keys[:most]
	}
	for _, key := range keys {
		if a, found, sure := ask(out.rules, key); found {
			if !sure {
				a.rule = -1
			}
			answers[key] = a
		}
	}
	if !foreign || !r.Host.Live() || len(keys) == 0 {
		return answers
	}
	asked := t
	if !strings.HasPrefix(t.Name, "{") {
		asked.Name = r.path(t.Name)
	}
	said, err := r.query(ctx, asked, keys)
	if err != nil {
		out.gap(t.String(), err.Error())
		return answers
	}
	real := make(map[string]answer, len(said))
	for key, value := range said {
		a := answer{value, -1}
		if ours, found := answers[key]; found && ours.value == value {
			a.rule = ours.rule
		}
		real[key] = a
	}
	return real
}
