package check

import (
	"cmp"
	"context"
	"math/big"
	"net/netip"
	"slices"
	"time"

	"relayguard/rbl"
)

// Neighbour is how a prefix stands on a zone.
type Neighbour struct {
	Prefix  netip.Prefix `json:"prefix"`
	Zone    string       `json:"zone"`
	Asked   int          `json:"asked"`
	Listed  int          `json:"listed"`
	Unknown int          `json:"unknown"` // and refused
	At      time.Time    `json:"at"`
}

// mostAround is how many questions one look around asks a zone at most, and mostNear
// about how many addresses: the rest is for how the zone stands.
const mostAround, mostNear = 1024, 1000

// Neighbours asks zones that list ranges about the addresses of prefixes, at most
// most of each [256], spread over it, our own among them: that of the prefix as given
// (203.0.113.7/24). By prefix, then zone. It returns early when ctx ends: the rest is
// Unknown.
//
// A zone is asked four questions a second, and 1,024 in all: of many prefixes fewer
// addresses each. So it takes minutes.
func (c *Checker) Neighbours(ctx context.Context, prefixes []netip.Prefix, zones []rbl.Zone, most int) []Neighbour {
	if most < 1 {
		most = 256
	}
	var ranges []rbl.Zone
	for _, z := range zones {
		if z.Ranges && !z.Welcome {
			ranges = append(ranges, z)
		}
	}
	order, own := grouped(prefixes)
	share := shares(order, most)
	within := map[netip.Prefix]map[netip.Addr]bool{}
	var subjects []rbl.Subject
	for _, prefix := range order {
		within[prefix] = map[netip.Addr]bool{}
		for _, a := range sample(prefix, own[prefix], share[prefix]) {
			within[prefix][a] = true
			subjects = append(subjects, rbl.Subject{Addr: a})
		}
	}
	p := c.pass(c.resolvers, false)
	p.around = map[string]int{}
	stands := p.stands(ranges, distinct(subjects))
	p.run(ctx, stands, false, func() {})

	var all []Neighbour
	for _, prefix := range order {
		for _, s := range stands {
			n := Neighbour{Prefix: prefix, Zone: s.zone.Name, At: s.ended}
			for k, a := range s.answers {
				if !within[prefix][s.subjects[k].Addr] {
					continue
				}
				n.Asked++
				switch a.Result {
				case rbl.Listed:
					n.Listed++
				case rbl.Unknown, rbl.Refused:
					n.Unknown++
				}
			}
			if n.Asked > 0 {
				all = append(all, n)
			}
		}
	}
	return all
}

// grouped are the prefixes, masked, and our addresses in each.
func grouped(prefixes []netip.Prefix) (order []netip.Prefix, own map[netip.Prefix][]netip.Addr) {
	own = map[netip.Prefix][]netip.Addr{}
	for _, given := range prefixes {
		if !given.IsValid() || given.Addr().Is4In6() {
			continue
		}
		prefix := given.Masked()
		if own[prefix] == nil {
			order = append(order, prefix)
		}
		if !slices.Contains(own[prefix], given.Addr()) {
			own[prefix] = append(own[prefix], given.Addr())
		}
	}
	return order, own
}

// shares are how many addresses of each prefix are asked about: most of each, or as many
// as there are, but of all together mostNear at most, evenly.
func shares(prefixes []netip.Prefix, most int) map[netip.Prefix]int {
	wanted := map[netip.Prefix]int{}
	for _, p := range prefixes {
		wanted[p] = int(capped(size(p), most).Int64())
	}
	small := slices.Clone(prefixes)
	slices.SortStableFunc(small, func(a, b netip.Prefix) int { return cmp.Compare(wanted[a], wanted[b]) })
	share, left := map[netip.Prefix]int{}, mostNear
	for i, p := range small { // what a small one leaves is for the others
		share[p] = min(wanted[p], (left+len(small)-i-1)/(len(small)-i))
		left -= share[p]
	}
	return share
}

func capped(n *big.Int, most int) *big.Int {
	if limit := big.NewInt(int64(most)); n.Cmp(limit) > 0 {
		return limit
	}
	return n
}

// sample are at most most addresses of a prefix, at equal distances, but that each of
// ours takes the place of the one before it.
func sample(prefix netip.Prefix, own []netip.Addr, most int) []netip.Addr {
	if most < 1 {
		return nil
	}
	all := spread(prefix, most)
	taken := map[netip.Addr]bool{}
	for _, a := range own {
		i, found := slices.BinarySearchFunc(all, a, netip.Addr.Compare)
		if !found {
			i-- // the first is the prefix's own, which is below all
		}
		taken[all[i]] = true
	}
	rest := slices.DeleteFunc(all, func(a netip.Addr) bool { return taken[a] })
	together := append(slices.Clone(own), rest...)
	return together[:min(len(together), most)]
}

// spread are at most most addresses of a prefix, at equal distances, in order.
func spread(prefix netip.Prefix, most int) []netip.Addr {
	size := size(prefix)
	count := capped(size, most)
	base := number(prefix.Addr())
	var all []netip.Addr
	for i := int64(0); i < count.Int64(); i++ {
		offset := new(big.Int).Mul(size, big.NewInt(i))
		offset.Div(offset, count)
		all = append(all, address(offset.Add(offset, base), prefix.Addr().Is4()))
	}
	return all
}

func size(p netip.Prefix) *big.Int {
	return new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

func address(n *big.Int, is4 bool) netip.Addr {
	raw := make([]byte, 16)
	if is4 {
		raw = raw[:4]
	}
	a, _ := netip.AddrFromSlice(n.FillBytes(raw))
	return a
}
