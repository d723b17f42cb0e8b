package desk

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"relayguard/journal"
)

// once keeps texts that come again and again one time. It is bounded: what strangers
// choose may never come again.
type once map[string]string

const maxTexts = 10_000

// of is the text, kept one time.
func (n once) of(text string) string {
	if text == "" {
		return ""
	}
	if known, ok := n[text]; ok {
		return known
	}
	text = strings.Clone(text) // it may be part of a long line
	if len(n) < maxTexts {
		n[text] = text
	}
	return text
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
