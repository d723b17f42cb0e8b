package rbl

import (
	"net/netip"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Public reports whether the Internet can see an address: unicast that is routed
// everywhere (RFC 6890), so that a list can know it. Addresses of documentation
// (RFC 5737, 2001:db8::/32) count too: nobody has them, and examples are full of them.
func Public(addr netip.Addr) bool {
	addr = addr.Unmap()
	if addr.Zone() != "" || !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	octets := addr.As16()
	if addr.Is6() {
		// 2000::/3 is all that was ever given out. Of it not: benchmarks (2001:2::/48,
		// RFC 5180) and names of hosts that look like addresses (2001:10::/28, 2001:20::/28).
		four := [4]byte(octets[:4])
		return octets[0]>>5 == 1 &&
			!(four == [4]byte{0x20, 0x01, 0, 2} && octets[4] == 0 && octets[5] == 0) &&
			!(four[0] == 0x20 && four[1] == 1 && four[2] == 0 && (four[3]>>4 == 1 || four[3]>>4 == 2))
	}
	a := addr.As4()
	switch {
	case a[0] == 0, // this network
		a[0] == 100 && a[1]>>6 == 1,               // 100.64.0.0/10, providers' NAT (RFC 6598)
		a[0] == 192 && a[1] == 0 && a[2] == 0,     // protocols
		a[0] == 192 && a[1] == 88 && a[2] == 99,   // relays from 6to4, given up (RFC 7526)
		a[0] == 198 && (a[1] == 18 || a[1] == 19), // benchmarks (RFC 2544)
		a[0] >= 240: // for later
		return false
	}
	return true
}

// Askable reports whether a list can know a domain: a name in lower case, in letters
// of the DNS and without final dot, that somebody can have registered under a suffix of
// the public suffix list, or one below it. A public suffix itself is nobody's.
//
// The list is that of the build: domains of a younger top-level one are not known.
func Askable(name string) bool {
	const longest, longestLabel = 253, 63 // RFC 1035 §2.3.4
	if len(name) > longest {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > longestLabel || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	suffix, icann := publicsuffix.PublicSuffix(name)
	switch top := name[strings.LastIndexByte(name, '.')+1:]; {
	case top == "arpa" || top == "onion": // on the list, and no domains that send mail (RFC 3172, RFC 7686)
		return false
	case !icann && !strings.Contains(suffix, "."): // no such top-level domain: corp, lan, test
		return false
	}
	return name != suffix
}
