package scan

import (
	"maps"
	"slices"

	"relayguard/forward"
)

// differences compares two scans' findings, by unit.
func differences(before, after []forward.Finding) []Change {
	had := make(map[string]*forward.Finding, len(before))
	for i := range before {
		had[before[i].ID] = &before[i]
	}
	by := map[string]*Change{}
	of := func(unit string) *Change {
		c := by[unit]
		if c == nil {
			c = &Change{Unit: unit}
			by[unit] = c
		}
		return c
	}
	for i := range after {
		f := &after[i]
		if old := had[f.ID]; old == nil || !same(old, f) {
			c := of(f.Unit)
			c.Appeared = append(c.Appeared, *f)
		}
		delete(had, f.ID)
	}
	for _, id := range slices.Sorted(maps.Keys(had)) {
		c := of(had[id].Unit)
		c.Gone = append(c.Gone, *had[id])
	}
	changes := make([]Change, 0, len(by))
	for _, unit := range slices.Sorted(maps.Keys(by)) {
		changes = append(changes, *by[unit])
	}
	return changes
}

// same reports whether two findings with one ID say the same to people.
func same(a, b *forward.Finding) bool {
	return a.Verdict == b.Verdict && a.Digest == b.Digest && a.Differs == b.Differs && slices.Equal(a.Chain, b.Chain)
}
