package origin_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"relayguard/policy/origin"
)

func network(name string, prefixes ...string) origin.Network {
	n := origin.Network{Name: name, Reason: "web nodes", Owner: "ops"}
	for _, p := range prefixes {
		n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(p))
	}
	return n
}

func TestLongestPrefixWins(t *testing.T) {
	n, errs := origin.NewNetworks([]origin.Network{
		network("ten", "10.0.0.0/8", "2001:db8::/32"),
		network("office", "10.1.0.0/16", "2001:db8:1::/48"),
		network("one", "10.1.2.3/32", "::ffff:198.51.100.0/120"),
		network("host bits", "192.0.2.77/24"),
	})
	if errs != nil {
		t.Fatal(errs)
	}
	for addr, want := range map[string]string{
		"10.9.9.9": "ten", "10.1.9.9": "office", "10.1.2.3": "one", "::ffff:10.1.2.3": "one",
		"2001:db8::1": "ten", "2001:db8:1::1": "office", "2001:db8:1::1%eth0": "office",
		"198.51.100.9": "one", "::ffff:198.51.100.9": "one", "192.0.2.1": "host bits",
		"11.0.0.1": "", "127.0.0.1": "", "::1": "", "::": "", "::10.1.2.3": "",
	} {
		got, ok := n.Find(netip.MustParseAddr(addr))
		if got.Name != want || ok != (want != "") {
			t.Errorf("%s is in %q, want %q", addr, got.Name, want)
		}
	}
	if _, ok := n.Find(netip.Addr{}); ok {
		t.Error("no address at all is in a network")
	}
}

func TestZeroNetworksTrustNobody(t *testing.T) {
	var n origin.Networks
	if _, ok := n.Find(netip.MustParseAddr("10.0.0.1")); ok {
		t.Error("trusted")
	}
}

func TestNetworksReportEveryFaultInOrder(t *testing.T) {
	entries := []origin.Network{
		{Name: "", Reason: "", Owner: ""},
		network("a", "10.0.0.0/8"),
		network("a", "10.9.9.9/8"),
		network("lo", "127.0.0.0/8", "127.0.0.1/32", "::1/128", "::ffff:127.0.0.0/104", "0.0.0.0/0", "::/0", "::ffff:0:0/96"),
		{Name: "none", Reason: "r", Owner: "o", Prefixes: []netip.Prefix{{}}},
	}
	want := []string{
		"network[0]: no name", "network[0]: no reason", "network[0]: no owner", "network[0]: no addresses",
		`network "a": name used twice`, `network "a": 10.0.0.0/8 is also in network "a"`,
		`network "lo": 127.0.0.0/8 includes loopback`, `network "lo": 127.0.0.1/32 includes loopback`, `network "lo": ::1/128 includes loopback`,
		`network "lo": 127.0.0.0/8 includes loopback`, `network "lo": 0.0.0.0/0 includes loopback`, `network "lo": ::/0 includes loopback`, `network "lo": 0.0.0.0/0 includes loopback`,
		`network "none": an address that is none`,
	}
	for range 20 { // the order is the same every time
		n, errs := origin.NewNetworks(entries)
		if !slices.EqualFunc(errs, want, func(err error, w string) bool { return strings.HasPrefix(fmt.Sprint(err), w) }) {
			t.Fatalf("faults:\n%v\nwant\n%v", errs, strings.Join(want, "\n"))
		}
		if _, ok := n.Find(netip.MustParseAddr("10.0.0.1")); ok {
			t.Fatal("faulty networks are in force")
		}
	}
}
