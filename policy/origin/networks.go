package origin

import (
	"fmt"
	"net/netip"
	"slices"
)

// Network is a set of addresses whose mail somebody answers for without AUTH.
type Network struct {
	Name     string
	Prefixes []netip.Prefix
	Reason   string // why it is trusted
	Owner    string // whom to call
}

// Networks finds the entry an address belongs to. The zero value trusts nobody.
type Networks struct {
	entries []Network
	byBits  []prefixEntry // longest prefix first
}

type prefixEntry struct {
	prefix netip.Prefix
	entry  int
}

// NewNetworks checks the entries: each with name, reason, owner and at least
// one prefix; names and prefixes once only; no loopback, which is a local
// account and not a network. It returns every error found.
func NewNetworks(entries []Network) (Networks, []error) {
	var errs []error
	n := Networks{entries: entries}
	names, seen := map[string]bool{}, map[netip.Prefix]string{}
	for i, e := range entries {
		at := fmt.Sprintf("network[%d]", i)
		if e.Name != "" {
			at = fmt.Sprintf("network %q", e.Name)
		}
		for _, told := range []struct{ what, got string }{{"name", e.Name}, {"reason", e.Reason}, {"owner", e.Owner}} {
			if told.got == "" {
				errs = append(errs, fmt.Errorf("%s: no %s; say it, so that the next admin knows", at, told.what))
			}
		}
		if names[e.Name] && e.Name != "" {
			errs = append(errs, fmt.Errorf("%s: name used twice; join the two entries", at))
		}
		names[e.Name] = true
		if len(e.Prefixes) == 0 {
			errs = append(errs, fmt.Errorf("%s: no addresses; add some or delete the entry", at))
		}
		for _, p := range e.Prefixes {
			if !p.IsValid() {
				errs = append(errs, fmt.Errorf("%s: an address that is none; write it as 192.0.2.0/24 or 2001:db8::/32", at))
				continue
			}
			p = unmapped(p)
			switch other, dup := seen[p]; {
			case p.Overlaps(loopback4) || p.Overlaps(loopback6):
				errs = append(errs, fmt.Errorf("%s: %s includes loopback, where every local account is; local mail is judged by its Unix account", at, p))
			case dup:
				errs = append(errs, fmt.Errorf("%s: %s is also in network %q; an address has one owner", at, p, other))
			}
			seen[p] = e.Name
			n.byBits = append(n.byBits, prefixEntry{p, i})
		}
	}
	slices.SortStableFunc(n.byBits, func(a, b prefixEntry) int { return b.prefix.Bits() - a.prefix.Bits() })
	if len(errs) > 0 {
		return Networks{}, errs
	}
	return n, nil
}

// unmapped is the prefix without host bits; IPv4 in IPv6 becomes IPv4, in which
// form Find looks for it.
func unmapped(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

var loopback4, loopback6 = netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")

// Find returns the entry with the longest prefix that holds ip. IPv4 in IPv6
// counts as IPv4. Its time grows with the number of prefixes, which are few.
func (n *Networks) Find(ip netip.Addr) (Network, bool) {
	ip = ip.Unmap().WithZone("")
	for _, p := range n.byBits {
		if p.prefix.Contains(ip) {
			return n.entries[p.entry], true
		}
	}
	return Network{}, false
}
