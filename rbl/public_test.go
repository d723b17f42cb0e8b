package rbl_test

import (
	"net/netip"
	"testing"

	"relayguard/rbl"
)

func TestPublic(t *testing.T) {
	for want, all := range map[bool][]string{
		true: {
			"8.8.8.8", "::ffff:8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "223.255.255.255",
			"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "2400:cb00::1", "2001:200::1", "2001:2:1::1", "2001:30::1", "3000::1",
		},
		false: {
			"0.0.0.0", "0.1.2.3", "10.1.1.1", "127.0.0.1", "100.64.0.1", "100.127.255.255", "169.254.1.1", "172.16.0.1", "192.168.1.1", "::ffff:192.168.1.1", "192.0.0.8", "192.88.99.1",
			"198.18.0.1", "198.19.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
			"::", "::1", "fe80::1", "fe80::1%eth0", "2400:cb00::1%eth0", "fd00::5", "fc00::1", "ff02::1", "64:ff9b::1", "100::1", "2001:2::1", "2001:10::1", "2001:2f::1", "4000::1",
		},
	} {
		for _, text := range all {
			if rbl.Public(netip.MustParseAddr(text)) != want {
				t.Errorf("%s: want %t", text, want)
			}
		}
	}
	if rbl.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestAskable(t *testing.T) {
	for want, all := range map[bool][]string{
		true: {
			"example.jp", "example.com", "example.net", "example.org", "a.b.example.jp", "shop.co.jp", "xn--r8jz45g.jp", "xn--r8jz45g.xn--fiqs8s",
			"me.github.io", "sv1234.xserver.jp", "_spf.example.jp", "city.kawasaki.jp",
		},
		false: {
			"", ".", "jp", "co.jp", "com", "github.io", "x.kawasaki.jp", "localhost", "corp.test", "a.corp", "a.home", "a.lan", "a.internal", "a.example", "a.invalid", "a.local",
			"localhost.localdomain", "a.home.arpa", "2.0.192.in-addr.arpa", "facebookwkhpilnemxj7asaniu7vnjjbiltxjqhye3mhbshg7kx5tfyd.onion",
			"Example.jp", "example.jp.", ".example.jp", "a..example.jp", "a b.example.jp", "例え.jp", "1.2.3.4", "2001:db8::1", "[192.0.2.1]", "a/b.example.jp",
		},
	} {
		for _, name := range all {
			if rbl.Askable(name) != want {
				t.Errorf("%q: want %t", name, want)
			}
		}
	}
}
