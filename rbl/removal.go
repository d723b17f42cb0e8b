package rbl

import "slices"

// RemovalOf is how a listing of the zone ends: the zone's, unless its code has ways of
// its own. First is empty for the listing that has to go first itself.
func (z *Zone) RemovalOf(h Hit) Removal {
	r := z.Removal
	for _, c := range z.Codes {
		if len(c.How) == 0 || !h.Code.Is4() || !c.matches(h.Code) || c.Bit != h.Bit {
			continue
		}
		r.How = c.How
		if !slices.Contains(c.How, "expires") {
			r.Expires = 0
		}
		break
	}
	if h.Code.String() == r.First {
		r.First = ""
	}
	return r
}
