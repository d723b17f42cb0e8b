package check

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"relayguard/rbl"
)

// decoy is what nobody lists.
type decoy struct {
	what, name string
	mild       bool // hits without harm prove nothing
}

// usualDecoys are the random name, first, and the negative test.
func (s *stand) usualDecoys() []decoy {
	all := []decoy{{what: "a random name", name: s.zone.TestName(canary(), s.key)}}
	if _, clean := s.tests(); clean != "" {
		return append(all, decoy{what: "its negative test", name: s.zone.TestName(clean, s.key)})
	}
	if s.kind == rbl.Domain {
		return all
	}
	// Without a negative test a list of 0.0.0.0/0 would not show: it has no entry of a
	// random name.
	return append(all, s.rootServer())
}

// witnesses are the usual decoys and those that show a list of everybody which spares
// its negative test: what is like the listed subjects and is on no list.
func (s *stand) witnesses(listed []rbl.Subject) []decoy {
	all := s.usualDecoys()
	if s.kind != rbl.Domain {
		if root := s.rootServer(); !slices.Contains(all, root) {
			all = append(all, root)
		}
		return all
	}
	var beside []string
	for _, subject := range listed {
		if suffix := registry(subject.Name); !slices.Contains(beside, suffix) {
			beside = append(beside, suffix)
			name := rbl.Subject{Name: canary() + "." + suffix}
			all = append(all, decoy{"a random name below " + suffix, s.zone.QueryName(name, s.key), true})
		}
	}
	return all
}

// rootServer is an address that does harm on no list: k.root-servers.net.
func (s *stand) rootServer() decoy {
	at := netip.AddrFrom4([4]byte{193, 0, 14, 129})
	if s.kind == rbl.IP6 {
		at = netip.MustParseAddr("2001:7fd::1")
	}
	return decoy{"the address of a root name server", s.zone.QueryName(rbl.Subject{Addr: at}, s.key), true}
}

// registry is the domain below which a name is registered: "co.jp". Not the suffix of
// a company that gives names away ("github.io"), which a list may list for good.
func registry(name string) string {
	suffix, icann := publicsuffix.PublicSuffix(name)
	for !icann && strings.Contains(suffix, ".") {
		_, above, _ := strings.Cut(suffix, ".")
		suffix, icann = publicsuffix.PublicSuffix(above)
	}
	return suffix
}
