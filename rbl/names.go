package rbl

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// QueryName is the name to ask for a subject on a zone; key "" if the zone has none.
// It has no final dot. With a key it is a secret: messages say the zone's name.
func (z *Zone) QueryName(s Subject, key string) string {
	if s.Addr.IsValid() {
		return z.TestName(reversed(s.Addr), key)
	}
	return z.TestName(s.Name, key)
}

// TestName is the name of a test entry or canary (labels) on the zone.
func (z *Zone) TestName(labels, key string) string {
	if key != "" {
		return labels + "." + key + "." + z.Name
	}
	return labels + "." + z.Name
}

// reversed is an address as labels (RFC 5782 §2.1, §2.4): octets of IPv4, nibbles of
// IPv6. Of a 4-in-6 address it is nibbles: the test point ::FFFF:7F00:2 is one.
func reversed(a netip.Addr) string {
	var labels []string
	if a.Is4() {
		for _, octet := range a.As4() {
			labels = append(labels, strconv.Itoa(int(octet)))
		}
	} else {
		for _, octet := range a.As16() {
			labels = append(labels, strconv.FormatUint(uint64(octet>>4), 16), strconv.FormatUint(uint64(octet&15), 16))
		}
	}
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}

// usualTest is what a list answers to by RFC 5782 §5.
func usualTest(kinds []Kind) Test {
	var t Test
	for _, k := range kinds {
		switch k {
		case IP4:
			t.Listed4, t.Clean4 = "2.0.0.127", "1.0.0.127"
		case IP6:
			t.Listed6, t.Clean6 = reversed(netip.MustParseAddr("::ffff:7f00:2")), reversed(netip.MustParseAddr("::ffff:7f00:1"))
		case Domain:
			t.ListedDomain, t.CleanDomain = "test", "invalid"
		}
	}
	return t
}
