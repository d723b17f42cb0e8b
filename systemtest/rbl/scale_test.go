package rbl_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
)

// Ten addresses on sixty lists, with nothing cached: each list is asked for its test
// entries and once an address, and no more. How long it takes "make bench" measures.
func TestTenAddressesOnSixtyLists(t *testing.T) {
	var sets []dnstest.Dataset
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("bl%02d.example", i))
		sets = append(sets, ip4(names[i], "192.0.2.1"))
	}
	r := dnstest.StartRBLDNSD(t, sets...)
	u := unbound(t, r.Addr, dnstest.Unbound{}, names...)
	var about []rbl.Subject
	for i := range 10 {
		about = append(about, rbl.Subject{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
	}
	for range 3 {
		round := check.New(check.Options{Resolvers: []rbl.Resolver{u}}).Run(t.Context(), about, lists(names...), nil)
		count := map[rbl.Result]int{}
		for _, a := range round.Answers {
			count[a.Result]++
		}
		if count[rbl.Listed] != 60 || count[rbl.Clean] != 540 {
			t.Fatalf("%v", count)
		}
		t.Logf("%d queries in %v", round.Queries, round.Took)
		const health, text, again = 3, 1, 3 // a list; of each listing; of a list that has one
		if want := int64(60 * (health + 10 + text + again)); round.Queries != want {
			t.Errorf("got %d queries, want %d", round.Queries, want)
		}
	}
}

// The neighbourhood on lists of ranges, told apart from lists that went wild. Of few
// addresses: four a second are asked about.
func TestNeighbourhood(t *testing.T) {
	ranges := func(name string) rbl.Zone {
		z := list(name)
		z.Ranges = true
		return z
	}
	r := dnstest.StartRBLDNSD(t, ip4("ranges.example", "198.51.100.128/25"), ip4("addresses.example"),
		dnstest.Dataset{Zone: "wild.example", Type: "ip4set", Lines: wildLines})
	u := unbound(t, r.Addr, dnstest.Unbound{}, "ranges.example", "addresses.example", "wild.example")
	got := check.New(check.Options{Resolvers: []rbl.Resolver{u}}).Neighbours(t.Context(),
		[]netip.Prefix{netip.MustParsePrefix("198.51.100.77/24"), netip.MustParsePrefix("2001:db8::1/64")},
		[]rbl.Zone{ranges("ranges.example"), list("addresses.example"), ranges("wild.example")}, 8)
	if len(got) != 2 || got[0].Zone != "ranges.example" || got[0].Asked != 8 || got[0].Listed != 4 || got[0].Unknown != 0 ||
		got[1].Zone != "wild.example" || got[1].Listed != 0 || got[1].Unknown != 8 {
		t.Errorf("%+v", got)
	}
	for _, q := range r.Asked() {
		if strings.Contains(q, ".addresses.example") {
			t.Errorf("asked a list of addresses: %s", q)
		}
	}
}
