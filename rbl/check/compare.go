package check

import "relayguard/rbl"

// compare adds to what was found of a resolver what other lists show of it: one that
// filters does so on all of them.
func compare(stands []*stand) {
	if len(stands) == 0 {
		return
	}
	for i := range stands[0].tries {
		zones := map[rbl.State]map[string]bool{}
		for _, s := range stands {
			if t := &s.tries[i]; t.examined && s.noKey == "" {
				if zones[t.state] == nil {
					zones[t.state] = map[string]bool{}
				}
				zones[t.state][s.zone.Name] = true
			}
		}
		for _, s := range stands {
			t := &s.tries[i]
			switch {
			case !t.examined:
			case t.state == rbl.Filtered && len(zones[rbl.Filtered]) == 1 && len(zones[rbl.Healthy]) > 0:
				t.why += "; this list alone, so that it may be the list"
			case t.state == rbl.Filtered && len(zones[rbl.Filtered]) == 1:
				t.why += "; this list alone, none shows the contrary"
			case t.state == rbl.Emptied && len(zones[rbl.Emptied]) >= severalLists && len(zones[rbl.Healthy]) == 0:
				t.why += "; no list shows its test entry through this resolver, which may take them out"
			}
		}
	}
}

// severalLists: that so many are emptied and none is well is rather the resolver's doing.
const severalLists = 3
