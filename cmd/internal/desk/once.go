package desk

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"relayguard/journal"
)

// once keeps texts that come again and again one time. It is bounded: what strangers
// choose may never come again.
type once struct {
	texts map[string]string
	sets  map[string]map[string]int // recipient domains by their text
	most  int                       // sets
}

const (
	maxTexts = 50_000
	maxSets  = 10_000
)

// newOnce keeps so many sets of domains.
func newOnce(most int) *once {
	return &once{map[string]string{}, map[string]map[string]int{}, most}
}

// of is the text, kept one time.
func (n *once) of(text string) string {
	if text == "" {
		return ""
	}
	if known, ok := n.texts[text]; ok {
		return known
	}
	text = strings.Clone(text) // it may be part of a long line
	if len(n.texts) < maxTexts {
		n.texts[text] = text
	}
	return text
}

// set keeps recipients by domain one time; the map is shared. Beyond what is kept, all
// domains are others: "".
func (n *once) set(all map[string]int) map[string]int {
	name := textOf(all)
	if known, ok := n.sets[name]; ok {
		return known
	}
	if len(n.sets) >= n.most && (len(all) > 1 || all[""] == 0) {
		others := 0
		for _, k := range all {
			others += k
		}
		return n.set(map[string]int{"": others})
	}
	if len(n.sets) < 2*n.most {
		n.sets[name] = all
	}
	return all
}

func textOf(all map[string]int) string {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b = append(append(b, name...), ' ')
		b = append(strconv.AppendInt(b, int64(all[name]), 10), ' ')
	}
	return string(b)
}

// fewDomains keeps the journal's number of domains, and counts the others under "".
func fewDomains(all map[string]int) map[string]int {
	if len(all) <= journal.MaxDomains {
		return all
	}
	order := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(all[b], all[a]), strings.Compare(a, b))
	})
	few := make(map[string]int, journal.MaxDomains+1)
	for i, name := range order {
		if i >= journal.MaxDomains {
			few[""] += all[name]
			continue
		}
		few[name] = all[name]
	}
	return few
}
