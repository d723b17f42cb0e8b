package rbl_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"relayguard/rbl"
)

// Answers are decoded by the table that is built in: hits as "code bit severity scope
// means", "refused" or "outside".
func TestDecode(t *testing.T) {
	table := rbl.Builtin()
	for _, c := range []struct {
		zone, addrs string
		want        []string
	}{
		{"zen.spamhaus.org", "127.0.0.2", []string{"127.0.0.2 0 critical ip SBL"}},
		{"zen.spamhaus.org", "127.0.0.3", []string{"127.0.0.3 0 critical ip CSS"}},
		{"zen.spamhaus.org", "127.0.0.6", []string{"127.0.0.6 0 critical ip XBL"}},
		{"zen.spamhaus.org", "127.0.0.11", []string{"127.0.0.11 0 medium range PBL"}},
		{"zen.spamhaus.org", "127.0.0.10 127.0.0.4 127.0.0.2 127.0.0.4", []string{"127.0.0.2", "127.0.0.4", "127.0.0.10"}},
		{"zen.spamhaus.org", "127.0.0.77", []string{"127.0.0.77 0 low ip code not documented"}},
		{"zen.spamhaus.org", "127.255.255.254", []string{"refused asked through a public resolver"}},
		{"zen.spamhaus.org", "127.255.255.1", []string{"refused 127.255.255.1"}},
		{"zen.spamhaus.org", "127.0.0.2 127.255.255.255", []string{"refused too many queries"}},
		{"zen.spamhaus.org", "127.0.0.2 192.0.2.1 127.255.255.255", []string{"outside"}},
		{"zen.spamhaus.org", "::1", []string{"outside"}},
		{"zen.spamhaus.org", "::ffff:127.0.0.2", []string{"outside"}}, // AAAA: no A record
		{"zen.spamhaus.org", "", nil},
		{"pbl.spamhaus.org", "127.0.0.10", []string{"127.0.0.10 0 high range its network"}},
		{"dbl.spamhaus.org", "127.0.1.255", []string{"refused an address was asked for"}},
		{"zrd.dq.spamhaus.net", "127.0.2.7", []string{"127.0.2.7 0 info domain domain first seen 7 hours ago"}},

		// Every answer is a listing, but for 127.0.0.1.
		{"psbl.surriel.com", "127.0.0.2", []string{"127.0.0.2 0 low ip wrote to a spam trap"}},
		{"psbl.surriel.com", "127.9.9.9", []string{"127.9.9.9 0 low ip"}},
		{"psbl.surriel.com", "127.0.0.1", []string{"refused 127.0.0.1"}},
		{"psbl.surriel.com", "127.0.0.1 127.0.0.2", []string{"127.0.0.2"}},
		{"psbl.surriel.com", "127.255.255.255", []string{"refused"}},
		{"psbl.surriel.com", "91.195.240.117", []string{"outside"}}, // a parked domain

		// 127.0.0.1 by zone.
		{"hostkarma.junkemailfilter.com", "127.0.0.1", []string{"127.0.0.1 0 info ip white"}},
		{"hostkarma.junkemailfilter.com", "127.0.1.1 127.0.0.2 127.0.2.3", []string{"127.0.0.2 0 medium ip black", "127.0.1.1 0 info", "127.0.2.3 0 info"}},
		{"multi.surbl.org", "127.0.0.1", []string{"refused access blocked"}},
		{"multi.uribl.com", "127.0.0.1", []string{"refused query refused"}},
		{"multi.uribl.com", "127.0.0.3", []string{"refused query refused"}},
		{"bl.score.senderscore.com", "127.0.0.1", []string{"127.0.0.1 1 high ip botnet"}},
		{"bl.score.senderscore.com", "127.255.255.255", []string{"refused refused"}},

		// Bits.
		{"multi.surbl.org", "127.0.0.72", []string{"127.0.0.72 8 high domain PH", "127.0.0.72 64 high domain ABUSE"}},
		{"multi.surbl.org", "127.0.0.4", []string{"127.0.0.4 4 info domain DM"}},
		{"multi.surbl.org", "127.0.0.18", []string{"127.0.0.18 0 low domain code not documented", "127.0.0.18 16 high"}},
		{"multi.surbl.org", "127.0.1.8", []string{"127.0.1.8 0 low domain code not documented"}},
		{"multi.surbl.org", "127.0.0.0", []string{"127.0.0.0 0 low domain code not documented"}},
		{"bl.score.senderscore.com", "127.0.0.6", []string{"127.0.0.6 2 high", "127.0.0.6 4 high"}},
		{"score.senderscore.com", "127.0.4.93", []string{"127.0.4.93 0 info ip score 93 of 100"}},

		// Welcome lists harm nobody, and what refuses is no welcome.
		{"list.dnswl.org", "127.0.5.2", []string{"127.0.5.2 0 info ip trust: medium"}},
		{"list.dnswl.org", "127.0.10.0", []string{"127.0.10.0 0 info ip trust: none"}},
		{"list.dnswl.org", "127.0.10.3", []string{"refused over the limit"}},
		{"list.dnswl.org", "127.0.0.255", []string{"refused blocked"}},
		{"list.dnswl.org", "127.0.99.1", []string{"127.0.99.1 0 info ip code not documented"}},

		{"dnsbl-3.uceprotect.net", "127.0.0.2", []string{"127.0.0.2 0 info asn"}},
		{"dnsbl-2.uceprotect.net", "127.0.0.2", []string{"127.0.0.2 0 low range"}},
		{"combined.mail.abusix.zone", "127.0.0.3", []string{"127.0.0.3 0 medium range"}},
		{"dnsbl.zapbl.net", "127.0.0.2", []string{"127.0.0.2 0 low ip listed"}},
	} {
		z, found := table.Find(c.zone)
		if !found {
			t.Fatalf("%s: no such zone", c.zone)
		}
		got := decoded(&z, c.addrs)
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s %s:\n got %q\nwant %q", c.zone, c.addrs, got, c.want)
		}
	}
}

func decoded(z *rbl.Zone, addrs string) []string {
	var all []netip.Addr
	for _, a := range strings.Fields(addrs) {
		all = append(all, netip.MustParseAddr(a))
	}
	hits, refused, outside := z.Decode(all)
	switch {
	case outside:
		return []string{"outside"}
	case refused != "":
		return []string{"refused " + refused}
	}
	var got []string
	for _, h := range hits {
		got = append(got, fmt.Sprint(h.Code, " ", h.Bit, " ", h.Severity, " ", h.Scope, " ", h.Means))
	}
	return got
}

// Whatever a server answers: one of the three, in order, inside 127.0.0.0/8, and the
// same for every order of the records.
func FuzzDecode(f *testing.F) {
	zones := rbl.Builtin().Zones()
	f.Add(uint8(0), []byte{127, 0, 0, 2})
	f.Add(uint8(40), []byte{127, 0, 0, 1, 127, 255, 255, 254})
	f.Add(uint8(60), []byte{192, 0, 2, 1, 127, 0, 0, 200})
	f.Add(uint8(81), []byte{})
	f.Fuzz(func(t *testing.T, which uint8, octets []byte) {
		z := &zones[int(which)%len(zones)]
		var addrs []netip.Addr
		for chunk := range slices.Chunk(octets[:min(len(octets), 64*4)], 4) {
			addr, _ := netip.AddrFromSlice(chunk) // invalid if too short
			addrs = append(addrs, addr)
		}
		hits, refused, outside := z.Decode(addrs)
		said := 0
		for _, is := range []bool{len(hits) > 0, refused != "", outside} {
			if is {
				said++
			}
		}
		if said > 1 || said == 0 && len(addrs) > 0 {
			t.Fatalf("%s %v: %v, %q, %t", z.Name, addrs, hits, refused, outside)
		}
		for _, h := range hits {
			if !h.Code.Is4() || h.Code.As4()[0] != 127 || strings.HasPrefix(h.Code.String(), "127.255.255.") || h.Means == "" || z.Welcome && h.Severity > rbl.Info {
				t.Errorf("%s: %+v", z.Name, h)
			}
			z.RemovalOf(h)
		}
		slices.Reverse(addrs)
		if again, why, out := z.Decode(addrs); !slices.Equal(again, hits) || why != refused || out != outside {
			t.Errorf("%s: in another order %v, %q, %t", z.Name, again, why, out)
		}
	})
}
