package rbl_test

import (
	"net/netip"
	"strings"
	"testing"

	"relayguard/rbl"
)

func TestQueryName(t *testing.T) {
	zone := rbl.Zone{Name: "bl.example.org"}
	for _, c := range []struct{ subject, key, want string }{
		{"192.0.2.17", "", "17.2.0.192.bl.example.org"},
		{"192.0.2.17", "SECRET", "17.2.0.192.SECRET.bl.example.org"},
		// RFC 5782 §2.4: nibbles, not groups of 16 bits.
		{"2001:db8:1:2:3:4:567:89ab", "", "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example.org"},
		{"2001:db8::1", "K", "1." + strings.Repeat("0.", 23) + "8.b.d.0.1.0.0.2.K.bl.example.org"},
		{"mail.example.jp", "", "mail.example.jp.bl.example.org"},
		{"mail.example.jp", "K", "mail.example.jp.K.bl.example.org"},
	} {
		s := rbl.Subject{Name: c.subject}
		if addr, err := netip.ParseAddr(c.subject); err == nil {
			s = rbl.Subject{Addr: addr}
		}
		if got := zone.QueryName(s, c.key); got != c.want {
			t.Errorf("%s: %s, want %s", c.subject, got, c.want)
		}
	}
}

// The test point ::FFFF:7F00:2 is an address of IPv6, however much Go's net.IP takes
// it for 127.0.0.2.
func TestIPv6TestPointHasNibbles(t *testing.T) {
	zen, _ := rbl.Builtin().Find("zen.spamhaus.org")
	want := "2.0.0.0.0.0.f.7.f.f.f.f." + strings.TrimSuffix(strings.Repeat("0.", 20), ".")
	if zen.Test.Listed6 != want {
		t.Errorf("listed: %s", zen.Test.Listed6)
	}
	if zen.Test.Clean6 != "1"+want[1:] {
		t.Errorf("clean: %s", zen.Test.Clean6)
	}
	if got := zen.QueryName(rbl.Subject{Addr: netip.MustParseAddr("::FFFF:7F00:2")}, ""); got != want+".zen.spamhaus.org" {
		t.Errorf("as a subject: %s", got)
	}
}

func TestTestEntries(t *testing.T) {
	table := rbl.Builtin()
	for _, c := range []struct{ zone, listed, clean string }{
		{"psbl.surriel.com", "2.0.0.127", "1.0.0.127"},
		{"hostkarma.junkemailfilter.com", "2.0.0.127", ""}, // lists 127.0.0.1 on purpose
		{"bogons.cymru.com", "", ""},                       // lists 127.0.0.0/8
		{"rep.mailspike.net", "", ""},
		{"exploit.mail.abusix.zone", "4.0.0.127", "1.0.0.127"},
	} {
		if z, _ := table.Find(c.zone); z.Test.Listed4 != c.listed || z.Test.Clean4 != c.clean {
			t.Errorf("%s: %+v", c.zone, z.Test)
		}
	}
	for _, c := range []struct{ zone, listed, clean string }{
		{"dbl.spamhaus.org", "test", "invalid"},
		{"uribl.spameatingmonkey.net", "_DNSBL_.test", "_DNSBLNEG_.test"},
		{"multi.uribl.com", "2.0.0.127", "invalid"},
	} {
		if z, _ := table.Find(c.zone); z.Test.ListedDomain != c.listed || z.Test.CleanDomain != c.clean {
			t.Errorf("%s: %+v", c.zone, z.Test)
		}
	}
}

func TestTestName(t *testing.T) {
	zone := rbl.Zone{Name: "bl.example.org"}
	if got := zone.TestName("2.0.0.127", "K"); got != "2.0.0.127.K.bl.example.org" {
		t.Error(got)
	}
	if got := zone.TestName("invalid", ""); got != "invalid.bl.example.org" {
		t.Error(got)
	}
}
