package scan

import (
	"maps"
	"slices"
	"strings"

	"relayguard/forward"
)

// maxKnown bounds the addresses that are tried on tables that cannot be listed.
const maxKnown = 50_000

func (s *Scanner) knownAddresses() []string {
	s.asked.Store(true)
	return *s.known.Load()
}

// learnKnown collects the addresses of ours that the readings named.
func (s *Scanner) learnKnown(plan *forward.Plan, readings []forward.Reading) {
	known := map[string]bool{}
	add := func(address string) {
		if len(known) < maxKnown && address != "" && address != forward.Everybody && len(address) < 320 && !strings.Contains(address, forward.Unknown) {
			known[strings.ToLower(address)] = true
		}
	}
	for i := range plan.Units {
		add(plan.Units[i].Owner)
	}
	for i := range readings {
		for j := range readings[i].Rules {
			add(readings[i].Rules[j].Owner)
		}
	}
	var full []string
	for _, name := range slices.Sorted(maps.Keys(known)) {
		switch {
		case strings.HasPrefix(name, "@"):
		case strings.Contains(name, "@"):
			full = append(full, name)
		default:
			for domain := range plan.World.Local {
				full = append(full, name+"@"+domain)
			}
		}
	}
	slices.Sort(full)
	full = slices.Compact(full[:min(len(full), maxKnown)])
	s.known.Store(&full)
}
