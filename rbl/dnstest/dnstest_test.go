package dnstest_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"relayguard/rbl/dnstest"
)

// ask gives the code and the data of the records of that type, or fails.
func ask(t *testing.T, network, server, name string, qtype uint16) (string, []string) {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 20 * time.Second}
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	question.SetEdns0(1232, false)
	m, _, err := client.ExchangeContext(t.Context(), question, server)
	if err != nil {
		t.Fatalf("ask %s for %s: %v", server, name, err)
	}
	var data []string
	for _, rr := range m.Answer {
		if rr.Header().Rrtype == qtype {
			data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	slices.Sort(data)
	code := dns.RcodeToString[m.Rcode]
	if m.Truncated {
		code += " TC"
	}
	return code, data
}

func want(t *testing.T, server, name string, qtype uint16, code string, data ...string) {
	t.Helper()
	gotCode, got := ask(t, "udp", server, name, qtype)
	if gotCode != code || !slices.Equal(got, data) {
		t.Errorf("%s %s: %s %q, want %s %q", name, dns.TypeToString[qtype], gotCode, got, code, data)
	}
}

const (
	six     = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
	eight   = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"
	sixNone = "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
)

func TestRBLDNSDServesAddressesDomainsAndRefusals(t *testing.T) {
	r := dnstest.StartRBLDNSD(t,
		dnstest.Dataset{Zone: "bl.example", Type: "ip4set", Lines: ":127.0.0.2:why $\n127.0.0.2\n192.0.2.0/24"},
		dnstest.Dataset{Zone: "bl.example", Type: "ip6trie", Lines: ":127.0.0.3:six\n2001:db8::/32"},
		dnstest.Dataset{Zone: "dom.example", Type: "dnset", Lines: ":127.0.1.2:domain\ntest\n.bad.example"},
		dnstest.Dataset{Zone: "wild.example", Type: "ip4set", Lines: ":127.0.0.2:all\n0/1\n128/1"},
		dnstest.Dataset{Zone: "shut.example", Type: "ip4set", Lines: "127.0.0.2"},
		dnstest.Dataset{Zone: "shut.example", Type: "acl", Lines: "127.0.0.0/8 :refuse"},
	)
	want(t, r.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR", "127.0.0.2")
	want(t, r.Addr, "2.0.0.127.bl.example", dns.TypeTXT, "NOERROR", `"why 127.0.0.2"`)
	want(t, r.Addr, "1.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
	want(t, r.Addr, six+".bl.example", dns.TypeA, "NOERROR", "127.0.0.2") // the ip4set knows it as 127.0.0.2
	want(t, r.Addr, eight+".bl.example", dns.TypeA, "NOERROR", "127.0.0.3")
	want(t, r.Addr, sixNone+".bl.example", dns.TypeA, "NXDOMAIN")
	want(t, r.Addr, "test.dom.example", dns.TypeA, "NOERROR", "127.0.1.2")
	want(t, r.Addr, "www.bad.example.dom.example", dns.TypeA, "NOERROR", "127.0.1.2")
	want(t, r.Addr, "invalid.dom.example", dns.TypeA, "NXDOMAIN")
	want(t, r.Addr, "1.0.0.127.wild.example", dns.TypeA, "NOERROR", "127.0.0.2")
	want(t, r.Addr, "2.0.0.127.shut.example", dns.TypeA, "REFUSED")
	want(t, r.Addr, "2.0.0.127.nobody.example", dns.TypeA, "REFUSED")
	if asked := r.Asked(); !slices.Contains(asked, "2.0.0.127.bl.example TXT") || slices.Contains(asked, "2.0.0.127.wild.example A") {
		t.Errorf("asked: %q", asked)
	}
}

func TestRBLDNSDChangesAtOnce(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, dnstest.Dataset{Zone: "bl.example", Type: "ip4set", Lines: "127.0.0.2"})
	for range 3 { // of the same size, within one second
		want(t, r.Addr, "5.2.0.192.bl.example", dns.TypeA, "NXDOMAIN")
		r.Set(t, "bl.example", "ip4set", "192.0.2.5")
		want(t, r.Addr, "5.2.0.192.bl.example", dns.TypeA, "NOERROR", "127.0.0.2")
		r.Set(t, "bl.example", "ip4set", "127.0.0.2")
	}
}

func TestNSDServesWildcardsAndTruncates(t *testing.T) {
	long := `"` + strings.Repeat("x", 250) + `"`
	s := dnstest.StartNSD(t, map[string]string{
		"wild.example": "* A 127.0.0.2",
		"bl.example":   "2.0.0.127 A 127.0.0.2\n2.0.0.127 A 127.0.0.10\nbig TXT " + strings.Repeat(long+" ", 8),
	})
	want(t, s.Addr, "anything.wild.example", dns.TypeA, "NOERROR", "127.0.0.2")
	want(t, s.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR", "127.0.0.10", "127.0.0.2")
	want(t, s.Addr, "3.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
	want(t, s.Addr, "0.0.127.bl.example", dns.TypeA, "NOERROR")
	if code, _ := ask(t, "udp", s.Addr, "big.bl.example", dns.TypeTXT); code != "NOERROR TC" {
		t.Errorf("a TXT that does not fit: %s", code)
	}
	if code, got := ask(t, "tcp", s.Addr, "big.bl.example", dns.TypeTXT); code != "NOERROR" || len(got) != 1 || len(got[0]) < 2000 {
		t.Errorf("a TXT over TCP: %s %.40q", code, got)
	}
}

func TestUnbound(t *testing.T) {
	r := dnstest.StartRBLDNSD(t,
		dnstest.Dataset{Zone: "bl.example", Type: "ip4set", Lines: "127.0.0.2"},
		dnstest.Dataset{Zone: "bl.test", Type: "ip4set", Lines: "127.0.0.2"})
	stubs := map[string]string{"bl.example": r.Addr, "bl.test": r.Addr, "unknown.example": r.Addr}
	t.Run("resolves", func(t *testing.T) {
		u := dnstest.StartUnbound(t, dnstest.Unbound{Stubs: stubs})
		want(t, u.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR", "127.0.0.2")
		want(t, u.Addr, "2.0.0.127.bl.test", dns.TypeA, "NOERROR", "127.0.0.2")
		want(t, u.Addr, "1.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
		want(t, u.Addr, "canary.invalid", dns.TypeA, "NXDOMAIN")
		want(t, u.Addr, "canary.elsewhere", dns.TypeA, "NXDOMAIN")
		want(t, u.Addr, "2.0.0.127.unknown.example", dns.TypeA, "SERVFAIL") // REFUSED by rbldnsd
		r.Set(t, "bl.example", "ip4set", "192.0.2.5")
		want(t, u.Addr, "2.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
		r.Set(t, "bl.example", "ip4set", "127.0.0.2")
		want(t, u.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR", "127.0.0.2")
	})
	t.Run("filters", func(t *testing.T) {
		u := dnstest.StartUnbound(t, dnstest.Unbound{Stubs: stubs, Filters: true})
		want(t, u.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR")
		want(t, u.Addr, "1.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
	})
	t.Run("rewrites", func(t *testing.T) {
		u := dnstest.StartUnbound(t, dnstest.Unbound{Stubs: stubs, Rewrites: "203.0.113.80", But: []string{"2.0.0.127.bl.example"}})
		want(t, u.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR", "127.0.0.2")
		want(t, u.Addr, "1.0.0.127.bl.example", dns.TypeA, "NOERROR", "203.0.113.80")
		want(t, u.Addr, "canary.invalid", dns.TypeA, "NOERROR", "203.0.113.80")
	})
	t.Run("forwards", func(t *testing.T) {
		first := dnstest.StartUnbound(t, dnstest.Unbound{Stubs: stubs})
		u := dnstest.StartUnbound(t, dnstest.Unbound{Forward: first.Addr})
		want(t, u.Addr, "2.0.0.127.bl.test", dns.TypeA, "NOERROR", "127.0.0.2")
		want(t, u.Addr, "2.0.0.127.bl.example", dns.TypeA, "NOERROR", "127.0.0.2")
		want(t, u.Addr, "1.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
	})
}

func TestServerEndsWithTheTest(t *testing.T) {
	var addrs []string
	t.Run("servers", func(t *testing.T) {
		n := dnstest.StartNSD(t, map[string]string{"bl.example": ""})
		u := dnstest.StartUnbound(t, dnstest.Unbound{})
		f := dnstest.StartFake(t, dnstest.Records())
		addrs = []string{n.Addr, u.Addr, f.Addr}
	})
	for _, addr := range addrs {
		if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			conn.Close()
			t.Errorf("%s is still there", addr)
		}
	}
}

func TestRecordsAnswersAsAZoneDoes(t *testing.T) {
	f := dnstest.StartFake(t, dnstest.Records(
		"2.0.0.127.bl.example. A 127.0.0.2", "2.0.0.127.bl.example. A 127.0.0.4",
		"www.bl.example. CNAME host.bl.example.", "host.bl.example. A 192.0.2.1"))
	want(t, f.Addr, "2.0.0.127.BL.example", dns.TypeA, "NOERROR", "127.0.0.2", "127.0.0.4")
	want(t, f.Addr, "2.0.0.127.bl.example", dns.TypeTXT, "NOERROR")
	want(t, f.Addr, "0.127.bl.example", dns.TypeA, "NOERROR")
	want(t, f.Addr, "3.0.0.127.bl.example", dns.TypeA, "NXDOMAIN")
	want(t, f.Addr, "www.bl.example", dns.TypeA, "NOERROR", "192.0.2.1")
}

func TestFakeRemembersAndHoldsBack(t *testing.T) {
	gate := make(chan struct{})
	f := dnstest.StartFake(t, func(q dnstest.Query) dnstest.Reply {
		switch {
		case q.Is("slow.example"):
			return dnstest.Held(gate, dnstest.Addrs("127.0.0.2"))
		case q.Nth == 1:
			return dnstest.ServFail()
		}
		return dnstest.Texts("a\x00\"\\", strings.Repeat("y", 300))
	})
	answered := make(chan error, 1)
	go func() {
		client := dns.Client{Timeout: 20 * time.Second}
		_, _, err := client.ExchangeContext(context.Background(), new(dns.Msg).SetQuestion("a.slow.example.", dns.TypeA), f.Addr)
		answered <- err
	}()
	want(t, f.Addr, "b.example", dns.TypeTXT, "SERVFAIL")
	want(t, f.Addr, "b.example", dns.TypeTXT, "NOERROR",
		`"a\000\"\\"`, `"`+strings.Repeat("y", 255)+`" "`+strings.Repeat("y", 45)+`"`)
	close(gate)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if asked := f.Asked(); len(asked) != 3 || f.Most() < 1 {
		t.Errorf("asked %v, at most %d at once", asked, f.Most())
	}
}
