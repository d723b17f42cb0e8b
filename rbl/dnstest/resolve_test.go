package dnstest_test

import (
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/resolve"
)

func TestResolveAsksRealServers(t *testing.T) {
	dnstest.Need(t)
	lists := dnstest.StartRBLDNSD(t, dnstest.Dataset{Zone: "bl.example", Type: "ip4set", Lines: ":127.0.0.2:see $\n127.0.0.2"})
	nsd := dnstest.StartNSD(t, map[string]string{
		"big.example": bigTexts(21) + "many A 127.0.0.2\nmany A 127.0.0.3\nmany A 127.0.0.4\nalias CNAME many\n",
	})
	unbound := dnstest.StartUnbound(t, dnstest.Unbound{Stubs: map[string]string{
		"bl.example": lists.Addr, "big.example": nsd.Addr, "refused.example": lists.Addr,
	}})
	filter := dnstest.StartUnbound(t, dnstest.Unbound{Filters: true, Stubs: map[string]string{"bl.example": lists.Addr}})
	for _, c := range []struct {
		server, name string
		t            rbl.Type
		want         rbl.Outcome
		n            int
	}{
		{lists.Addr, "2.0.0.127.bl.example", rbl.TypeA, rbl.Answered, 1},
		{lists.Addr, "1.0.0.127.bl.example", rbl.TypeA, rbl.NoName, 0},
		{lists.Addr, "2.0.0.127.refused.example", rbl.TypeA, rbl.QueryRefused, 0},
		{unbound.Addr, "2.0.0.127.bl.example", rbl.TypeA, rbl.Answered, 1},
		{unbound.Addr, "2.0.0.127.bl.example", rbl.TypeTXT, rbl.Answered, 1},
		{unbound.Addr, "2.0.0.127.bl.example", rbl.TypeAAAA, rbl.NoData, 0},
		{unbound.Addr, "1.0.0.127.bl.example", rbl.TypeA, rbl.NoName, 0},
		{unbound.Addr, "bl.example", rbl.TypeSOA, rbl.Answered, 0},
		{unbound.Addr, "2.0.0.127.refused.example", rbl.TypeA, rbl.ServFail, 0}, // so unbound says it
		{unbound.Addr, "many.big.example", rbl.TypeA, rbl.Answered, 3},
		{unbound.Addr, "alias.big.example", rbl.TypeA, rbl.Answered, 3},
		{nsd.Addr, "big.example", rbl.TypeTXT, rbl.Answered, 21},     // over TCP
		{unbound.Addr, "big.example", rbl.TypeTXT, rbl.Answered, 21}, // over TCP, twice
		{filter.Addr, "2.0.0.127.bl.example", rbl.TypeA, rbl.NoData, 0},
		{filter.Addr, "1.0.0.127.bl.example", rbl.TypeA, rbl.NoName, 0},
	} {
		r := resolve.New(c.server, 20*time.Second).Ask(t.Context(), c.name, c.t)
		if n := len(r.Addrs) + len(r.Texts) + len(r.Names); r.Outcome != c.want || n != c.n {
			t.Errorf("%s, type %d: %s with %d (%v), want %s with %d", c.name, c.t, r.Outcome, n, r.Err, c.want, c.n)
		}
	}
}

func bigTexts(n int) string {
	var out strings.Builder
	for i := range n {
		out.WriteString("@ TXT \"" + strings.Repeat(string(rune('a'+i)), 200) + "\"\n")
	}
	return out.String()
}
