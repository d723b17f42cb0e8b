package watch

import (
	"fmt"
	"sort"
)

// blindness is what cannot be watched, by reason.
type blindness struct {
	why map[string]map[string]bool
}

// maxBlind is how many places of a reason are remembered; beyond, they are "more".
const maxBlind = 1000

func newBlindness() *blindness { return &blindness{map[string]map[string]bool{}} }

func (b *blindness) add(why, at string) {
	places := b.why[why]
	if places == nil {
		places = map[string]bool{}
		b.why[why] = places
	}
	if len(places) < maxBlind {
		places[at] = true
	}
}

// list is a line for each reason.
func (b *blindness) list() []string {
	var all []string
	for why, places := range b.why {
		first := ""
		for at := range places {
			if first == "" || at < first {
				first = at
			}
		}
		switch {
		case len(places) >= maxBlind:
			first = fmt.Sprintf("%s and %d or more others", first, maxBlind-1)
		case len(places) > 1:
			first = fmt.Sprintf("%s and %d others", first, len(places)-1)
		}
		all = append(all, fmt.Sprintf("%s: %s", first, why))
	}
	sort.Strings(all)
	return all
}
