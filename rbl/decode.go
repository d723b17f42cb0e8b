package rbl

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Decode says what addresses mean on the zone. They are all A records of one answer.
// refused: it is no listing, but the query was refused, for that reason; outside: an
// answer that is not in 127.0.0.0/8. Of a mixture a refusal counts before a listing,
// outside before both.
//
// A code that the zone does not document is a hit that harms little. 127.0.0.1 is
// none unless the zone says so: alone it counts as a refusal, beside others it says
// nothing. 127.255.255.0/24 is a refusal on every zone.
func (z *Zone) Decode(addrs []netip.Addr) (hits []Hit, refused string, outside bool) {
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	loopback := false
	for _, a := range slices.Compact(addrs) {
		if !a.Is4() || a.As4()[0] != 127 {
			return nil, "", true
		}
		switch why := z.refusal(a); {
		case why != "":
			refused = cmp.Or(refused, why)
		case a == loopbackOne && !z.names(a):
			loopback = true
		default:
			hits = append(hits, z.hits(a)...)
		}
	}
	if refused == "" && loopback && len(hits) == 0 {
		refused = "127.0.0.1, which is no listing here"
	}
	if refused != "" {
		return nil, refused, false
	}
	slices.SortStableFunc(hits, func(a, b Hit) int { return cmp.Or(a.Code.Compare(b.Code), cmp.Compare(a.Bit, b.Bit)) })
	return hits, "", false
}

var (
	loopbackOne = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	bitCodes    = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 0}), 24)
	errorCodes  = netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 255, 255, 0}), 24)
)

// refusal is why an answer refuses the query; "": it does not.
func (z *Zone) refusal(a netip.Addr) string {
	for i := range z.Blocks {
		if z.Blocks[i].matches(a) {
			return z.Blocks[i].meaning(a)
		}
	}
	if errorCodes.Contains(a) {
		return a.String() + ", which refuses queries"
	}
	return ""
}

// names reports whether a code of the zone is for an answer.
func (z *Zone) names(a netip.Addr) bool {
	return slices.ContainsFunc(z.Codes, func(c Code) bool { return c.matches(a) })
}

func (z *Zone) hits(a netip.Addr) []Hit {
	switch {
	case len(z.Codes) == 0:
		return []Hit{z.hit(a, Code{Means: cmp.Or(z.Means, "listed")})}
	case z.Bits && bitCodes.Contains(a):
		return z.bitHits(a)
	}
	for _, c := range z.Codes {
		if c.matches(a) {
			return []Hit{z.hit(a, c)}
		}
	}
	return []Hit{z.unknownHit(a, "code not documented")}
}

func (z *Zone) bitHits(a netip.Addr) []Hit {
	var hits []Hit
	left := a.As4()[3]
	for _, c := range z.Codes {
		if c.matches(a) {
			hits = append(hits, z.hit(a, c))
			left &^= c.Bit
		}
	}
	if left != 0 || len(hits) == 0 {
		hits = append(hits, z.unknownHit(a, "code not documented"))
	}
	return hits
}

func (z *Zone) hit(a netip.Addr, c Code) Hit {
	h := Hit{Code: a, Bit: c.Bit, Means: c.meaning(a), Severity: z.Severity, Scope: z.Scope}
	if c.Severity != nil {
		h.Severity = *c.Severity
	}
	if c.Scope != nil {
		h.Scope = *c.Scope
	}
	if z.Welcome {
		h.Severity = Info
	}
	return h
}

// unknownHit is a listing of which nobody knows what it says.
func (z *Zone) unknownHit(a netip.Addr, means string) Hit {
	h := z.hit(a, Code{Means: means})
	h.Severity = min(h.Severity, Low)
	return h
}

// matches reports whether an address is one of the code's, or has its bit.
func (c *Code) matches(a netip.Addr) bool {
	octets := a.As4()
	if c.Bit != 0 {
		return bitCodes.Contains(a) && octets[3]&c.Bit != 0
	}
	from, to := c.From.As4(), c.To.As4()
	for i, octet := range octets {
		if octet < from[i] || octet > to[i] {
			return false
		}
	}
	return true
}

func (c *Code) meaning(a netip.Addr) string {
	return strings.ReplaceAll(c.Means, "{n}", strconv.Itoa(int(a.As4()[3])))
}
