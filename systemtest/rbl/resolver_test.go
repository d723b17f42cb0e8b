package rbl_test

import (
	"testing"

	"relayguard/rbl"
	"relayguard/rbl/dnstest"
)

// A resolver that takes answers in 127.0.0.0/8 out makes every list void: nothing is
// "clean" through it. One that does not is asked in its place.
func TestFilteringResolver(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("a.example", "192.0.2.5"), ip4("b.example"),
		dnstest.Dataset{Zone: "names.example", Type: "dnset", Lines: ":127.0.1.2:domain\ntest"})
	zones := append(lists("a.example", "b.example"), list("names.example", rbl.Domain))
	names := []string{"a.example", "b.example", "names.example"}
	filters := unbound(t, r.Addr, dnstest.Unbound{Filters: true}, names...)
	about := subjects("192.0.2.5", "good.example")

	round := run(t, about, zones, filters)
	wantStates(t, round, "a.example ip4 filtered", "b.example ip4 filtered", "names.example domain filtered")
	wantAnswers(t, round, "192.0.2.5 a.example unknown", "192.0.2.5 b.example unknown", "good.example names.example unknown")
	why(t, round, "a.example", "rebinding protection")

	honest := unbound(t, r.Addr, dnstest.Unbound{}, names...)
	round = run(t, about, zones, filters, honest)
	wantStates(t, round, "a.example ip4 healthy", "b.example ip4 healthy", "names.example domain healthy")
	wantAnswers(t, round, "192.0.2.5 a.example listed 127.0.0.2", "192.0.2.5 b.example clean", "good.example names.example clean")
	for _, a := range round.Answers {
		if a.Resolver != honest.Name() {
			t.Errorf("%+v, want by %s", a, honest.Name())
		}
	}
	why(t, round, "a.example", "through "+filters.Name()+": ")
}

// A resolver that makes addresses up for names that do not exist: by an address of
// its own, or by one in 127.0.0.0/8, which looks like lists that went wild.
func TestRewritingResolver(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("a.example", "192.0.2.5"), ip4("b.example"))
	names := []string{"a.example", "b.example"}
	for _, to := range []string{"203.0.113.80", "127.0.0.1", "127.0.0.2"} {
		t.Run(to, func(t *testing.T) {
			rewrites := unbound(t, r.Addr, dnstest.Unbound{
				Rewrites: to, But: []string{listed4 + ".a.example", listed4 + ".b.example", "5.2.0.192.a.example"},
			}, names...)
			round := run(t, subjects("192.0.2.5", "192.0.2.6"), lists(names...), rewrites)
			wantStates(t, round, "a.example ip4 rewritten", "b.example ip4 rewritten")
			wantAnswers(t, round, "192.0.2.5 a.example unknown", "192.0.2.5 b.example unknown",
				"192.0.2.6 a.example unknown", "192.0.2.6 b.example unknown")

			round = run(t, subjects("192.0.2.5"), lists(names...), rewrites, unbound(t, r.Addr, dnstest.Unbound{}, names...))
			wantStates(t, round, "a.example ip4 healthy", "b.example ip4 healthy")
			wantAnswers(t, round, "192.0.2.5 a.example listed 127.0.0.2", "192.0.2.5 b.example clean")
		})
	}
}

// Resolvers that are refused by the list, or fail: the other one is asked.
func TestSecondResolver(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example", "192.0.2.5"))
	refusing := dnstest.StartNSD(t, map[string]string{"bl.example": "* A 127.255.255.254"})
	good := unbound(t, r.Addr, dnstest.Unbound{}, "bl.example")
	for name, first := range map[string]rbl.Resolver{
		"refused by the list": unbound(t, refusing.Addr, dnstest.Unbound{}, "bl.example"),
		"SERVFAIL":            unbound(t, withAnotherList(t), dnstest.Unbound{}, "bl.example"),
		"nobody listens":      direct(closedPort(t)),
		"REFUSED":             direct(withAnotherList(t)),
		"takes the list away": unbound(t, r.Addr, dnstest.Unbound{Lines: []string{"local-zone: bl.example. always_nxdomain"}}, "bl.example"),
	} {
		t.Run(name, func(t *testing.T) {
			round := run(t, subjects("192.0.2.5"), lists("bl.example"), first, good)
			wantStates(t, round, "bl.example ip4 healthy")
			wantAnswers(t, round, "192.0.2.5 bl.example listed 127.0.0.2")
			why(t, round, "bl.example", "through "+first.Name()+": ")
			if a := round.Answers[0]; a.Resolver != good.Name() {
				t.Errorf("%+v, want by %s", a, good.Name())
			}
		})
	}
}

// withAnotherList is a server that has another list only.
func withAnotherList(t *testing.T) string {
	t.Helper()
	return dnstest.StartRBLDNSD(t, ip4("other.example")).Addr
}
