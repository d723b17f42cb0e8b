package rbl_test

import (
	"slices"
	"strings"
	"testing"

	"relayguard/rbl"
	"relayguard/rbl/dnstest"
)

func TestHealthyLists(t *testing.T) {
	r := dnstest.StartRBLDNSD(t,
		ip4("four.example", "192.0.2.5 :127.0.0.4:infected, see https://four.example/?$", "198.51.100.0/24"),
		dnstest.Dataset{Zone: "six.example", Type: "ip6trie", Lines: ":127.0.0.2:six $\n::ffff:7f00:2\n2001:db8:1::/48"},
		dnstest.Dataset{Zone: "names.example", Type: "dnset", Lines: ":127.0.1.2:domain\ntest\n.bad.example"},
		ip4("both.example", "192.0.2.5"),
		dnstest.Dataset{Zone: "both.example", Type: "ip6trie", Lines: "::ffff:7f00:2\n2001:db8:2::/64"},
	)
	u := unbound(t, r.Addr, dnstest.Unbound{}, "four.example", "six.example", "names.example", "both.example")
	round := run(t,
		subjects("192.0.2.5", "192.0.2.6", "198.51.100.77", "2001:db8:1::25", "2001:db8:2::1", "bad.example", "mail.bad.example", "good.example"),
		[]rbl.Zone{list("four.example"), list("six.example", rbl.IP6), list("names.example", rbl.Domain), list("both.example", rbl.IP4, rbl.IP6)}, u)
	wantStates(t, round,
		"both.example ip4 healthy", "both.example ip6 healthy", "four.example ip4 healthy",
		"names.example domain healthy", "six.example ip6 healthy")
	wantAnswers(t, round,
		"192.0.2.5 both.example listed 127.0.0.2", "192.0.2.5 four.example listed 127.0.0.4",
		"192.0.2.6 both.example clean", "192.0.2.6 four.example clean",
		"198.51.100.77 both.example clean", "198.51.100.77 four.example listed 127.0.0.2",
		"2001:db8:1::25 both.example clean", "2001:db8:1::25 six.example listed 127.0.0.2",
		"2001:db8:2::1 both.example listed 127.0.0.2", "2001:db8:2::1 six.example clean",
		"bad.example names.example listed 127.0.1.2",
		"mail.bad.example names.example listed 127.0.1.2",
		"good.example names.example clean")
	if got := round.Answers[1].Reasons; !slices.Equal(got, []string{"infected, see https://four.example/?192.0.2.5"}) {
		t.Errorf("reasons %q", got)
	}
	for _, a := range round.Answers {
		if a.Resolver != u.Name() {
			t.Errorf("%+v is not by %s", a, u.Name())
		}
	}
}

// IPv6 is asked for by 32 nibbles, in reverse; the test entries too, never as those of
// IPv4. Others reverse groups of 16 bits, or send 127.0.0.2.
func TestIPv6IsAskedByNibbles(t *testing.T) {
	r := dnstest.StartRBLDNSD(t,
		dnstest.Dataset{Zone: "six.example", Type: "ip6trie", Lines: "::ffff:7f00:2\n2001:db8::25"},
		ip4("four.example"))
	u := unbound(t, r.Addr, dnstest.Unbound{}, "six.example", "four.example")
	round := run(t, subjects("2001:db8::25"), []rbl.Zone{list("six.example", rbl.IP6)}, u)
	wantAnswers(t, round, "2001:db8::25 six.example listed 127.0.0.2")
	asked := r.Asked()
	for _, want := range []string{
		"5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.six.example A",
		"5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.six.example TXT",
		listed6 + ".six.example A", clean6 + ".six.example A",
	} {
		if !slices.Contains(asked, want) {
			t.Errorf("%s was not asked; %q", want, asked)
		}
	}
	for _, q := range asked {
		if strings.HasPrefix(q, listed4) || strings.HasPrefix(q, clean4) {
			t.Errorf("asked as IPv4: %s", q)
		}
	}
}

// A list of IPv4 that the table says takes IPv6 is empty for it. (An ip4set answers
// for the 4-in-6 test entry; NSD has names only.)
func TestListOfIPv4IsEmptyForIPv6(t *testing.T) {
	n := dnstest.StartNSD(t, map[string]string{"bl.example": listed4 + " A 127.0.0.2\n5.2.0.192 A 127.0.0.2"})
	round := run(t, subjects("192.0.2.5", "2001:db8::1"), []rbl.Zone{list("bl.example", rbl.IP4, rbl.IP6)},
		unbound(t, n.Addr, dnstest.Unbound{}, "bl.example"))
	wantStates(t, round, "bl.example ip4 healthy", "bl.example ip6 emptied")
	wantAnswers(t, round, "192.0.2.5 bl.example listed 127.0.0.2", "2001:db8::1 bl.example unknown")
}

// All A records are read, in whatever order they come, and bits are taken apart.
func TestAllRecordsAndBits(t *testing.T) {
	several := list("several.example")
	several.Codes = []rbl.Code{code("127.0.0.2"), code("127.0.0.4"), code("127.0.0.9"), code("127.0.0.10")}
	several.Codes[3].Severity = new(rbl.Info)
	bits := list("bits.example")
	bits.Bits, bits.Codes = true, []rbl.Code{{Bit: 2, Means: "spam"}, {Bit: 4, Means: "trap"}, {Bit: 64, Means: "abuse"}}
	bits.Blocks = []rbl.Code{code("127.0.0.1")}
	n := dnstest.StartNSD(t, map[string]string{
		"several.example": listed4 + " A 127.0.0.2\n5.2.0.192 A 127.0.0.10\n5.2.0.192 A 127.0.0.2\n5.2.0.192 A 127.0.0.9\n5.2.0.192 A 127.0.0.77",
		"bits.example":    listed4 + " A 127.0.0.2\n5.2.0.192 A 127.0.0.70",
	})
	round := run(t, subjects("192.0.2.5"), []rbl.Zone{several, bits}, unbound(t, n.Addr, dnstest.Unbound{Lines: []string{"rrset-roundrobin: yes"}}, "several.example", "bits.example"))
	wantAnswers(t, round,
		"192.0.2.5 bits.example listed 127.0.0.70/2 127.0.0.70/4 127.0.0.70/64",
		"192.0.2.5 several.example listed 127.0.0.2 127.0.0.9 127.0.0.10 127.0.0.77")
	if h := round.Answers[1].Hits; h[2].Severity != rbl.Info || h[0].Severity != rbl.High || h[3].Severity != rbl.Low {
		t.Errorf("severities %+v", h)
	}
}

// What does not fit in a datagram comes over TCP: reasons, and records.
func TestTruncatedAnswers(t *testing.T) {
	var records, texts strings.Builder
	for i := range 12 {
		texts.WriteString("5.2.0.192 TXT \"" + strings.Repeat(string(rune('a'+i)), 250) + "\"\n")
	}
	for i := range 60 {
		records.WriteString("6.2.0.192 A 127.0.1." + string(rune('0'+i/10)) + string(rune('0'+i%10)) + "\n")
	}
	body := strings.ReplaceAll(listed4+" A 127.0.0.2\n5.2.0.192 A 127.0.0.2\n"+texts.String()+records.String(), " A 127.0.1.0", " A 127.0.1.10")
	n := dnstest.StartNSD(t, map[string]string{"bl.example": body})
	// Through unbound, and with NSD itself in a resolver's place.
	for _, resolver := range []rbl.Resolver{unbound(t, n.Addr, dnstest.Unbound{}, "bl.example"), direct(n.Addr)} {
		round := run(t, subjects("192.0.2.5", "192.0.2.6"), lists("bl.example"), resolver)
		wantStates(t, round, "bl.example ip4 healthy")
		if a := round.Answers[0]; a.Result != rbl.Listed || len(a.Reasons) != 12 {
			t.Errorf("%d reasons: %+v", len(a.Reasons), a)
		}
		if a := round.Answers[1]; a.Result != rbl.Listed || len(a.Hits) < 40 {
			t.Errorf("%d hits: %+v", len(a.Hits), a.Result)
		}
	}
}
