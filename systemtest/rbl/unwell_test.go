package rbl_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/resolve"
)

// direct is a server in a resolver's place.
func direct(addr string) rbl.Resolver { return resolve.New(addr, patient) }

// Lists that are gone, empty, mad or somebody else's: nothing that they say is
// "listed", and nothing that they do not say is "clean".
func TestUnwellLists(t *testing.T) {
	r := dnstest.StartRBLDNSD(t,
		dnstest.Dataset{Zone: "emptied.example", Type: "ip4set", Lines: ""},
		dnstest.Dataset{Zone: "emptied6.example", Type: "ip6trie", Lines: "2001:db8:77::/48"},
		dnstest.Dataset{Zone: "emptied-names.example", Type: "dnset", Lines: "somebody.example"},
		dnstest.Dataset{Zone: "wild.example", Type: "ip4set", Lines: ":127.0.0.2:all\n0/1\n128/1"},
		dnstest.Dataset{Zone: "wild6.example", Type: "ip6trie", Lines: ":127.0.0.2:all\n::/0"},
		dnstest.Dataset{Zone: "shut.example", Type: "ip4set", Lines: "127.0.0.2"},
		dnstest.Dataset{Zone: "shut.example", Type: "acl", Lines: "0/0 :refuse"},
	)
	n := dnstest.StartNSD(t, map[string]string{
		"everything.example": "* A 127.0.0.2\n* TXT \"closed, remove us\"",
		"names.example":      "* A 127.0.1.2",
		"parked.example":     "@ A 192.0.2.80\n* A 192.0.2.80",
		"half.example":       listed4 + " A 127.0.0.2\n* A 192.0.2.80",
		"code.example":       "* A 127.255.255.254\n* TXT \"public resolver\"",
		"shell.example":      "* TXT \"closed\"",
	})
	u := unbound(t, r.Addr, dnstest.Unbound{Stubs: map[string]string{
		"everything.example": n.Addr, "names.example": n.Addr, "parked.example": n.Addr, "half.example": n.Addr,
		"code.example": n.Addr, "shell.example": n.Addr,
		"refused.example": r.Addr, // rbldnsd does not have it
	}}, "emptied.example", "emptied6.example", "emptied-names.example", "wild.example", "wild6.example", "shut.example")
	zones := append(lists("dead.example", "emptied.example", "wild.example", "shut.example", "everything.example", "parked.example",
		"half.example", "code.example", "shell.example", "refused.example"),
		list("emptied6.example", rbl.IP6), list("wild6.example", rbl.IP6), list("emptied-names.example", rbl.Domain), list("names.example", rbl.Domain))
	round := run(t, subjects("192.0.2.5", "2001:db8::1", "somebody.example"), zones, u)
	wantStates(t, round,
		"code.example ip4 refusing",
		"dead.example ip4 dead",
		"emptied-names.example domain emptied",
		"emptied.example ip4 emptied",
		"emptied6.example ip6 emptied",
		"everything.example ip4 wild",
		"half.example ip4 parked",
		"names.example domain wild",
		"parked.example ip4 parked",
		"refused.example ip4 silent", // REFUSED, of which unbound makes SERVFAIL
		"shell.example ip4 emptied",
		"shut.example ip4 silent",
		"wild.example ip4 wild",
		"wild6.example ip6 wild")
	for _, a := range round.Answers {
		want := rbl.Unknown
		if a.Zone == "code.example" {
			want = rbl.Refused
		}
		if a.Result != want || len(a.Hits) > 0 || a.Why == "" {
			t.Errorf("%+v, want %v", a, want)
		}
	}
	why(t, round, "shut.example", "SERVFAIL")
	why(t, round, "parked.example", "192.0.2.80")
	why(t, round, "wild.example", "negative test")
	// None of them is asked about a subject.
	for _, q := range r.Asked() {
		if strings.HasPrefix(q, "5.2.0.192.") {
			t.Errorf("asked %s", q)
		}
	}
}

// Lists of everybody that spare what they are tested by: each shows when it lists one of
// ours, in a round and at a second look.
func TestWildListsThatSpareTheirTests(t *testing.T) {
	r := dnstest.StartRBLDNSD(t,
		dnstest.Dataset{Zone: "wild.example", Type: "ip4set", Lines: ":127.0.0.2:all\n0/1\n128/1\n!127.0.0.1"},
		dnstest.Dataset{Zone: "wild6.example", Type: "ip6trie", Lines: ":127.0.0.2:all\n2000::/3\n::ffff:7f00:2"},
		dnstest.Dataset{Zone: "names.example", Type: "dnset", Lines: ":127.0.1.2:all\ntest\n.com\n.jp"},
		ip4("well.example", "192.0.2.5"),
		dnstest.Dataset{Zone: "well6.example", Type: "ip6trie", Lines: "2001:db8::/32\n::ffff:7f00:2"},
		dnstest.Dataset{Zone: "well-names.example", Type: "dnset", Lines: "test\n.ours.co.jp"},
	)
	zones := append(lists("wild.example", "well.example"), list("wild6.example", rbl.IP6), list("well6.example", rbl.IP6),
		list("names.example", rbl.Domain), list("well-names.example", rbl.Domain))
	var names []string
	for _, z := range zones {
		names = append(names, z.Name)
	}
	u := unbound(t, r.Addr, dnstest.Unbound{}, names...)
	round := run(t, subjects("192.0.2.5", "2001:db8::1", "mail.ours.co.jp"), zones, u)
	wantStates(t, round,
		"names.example domain wild", "well-names.example domain healthy", "well.example ip4 healthy",
		"well6.example ip6 healthy", "wild.example ip4 wild", "wild6.example ip6 wild")
	wantAnswers(t, round,
		"192.0.2.5 well.example listed 127.0.0.2", "192.0.2.5 wild.example unknown",
		"2001:db8::1 well6.example listed 127.0.0.2", "2001:db8::1 wild6.example unknown",
		"mail.ours.co.jp names.example unknown", "mail.ours.co.jp well-names.example listed 127.0.0.2")
	why(t, round, "names.example", "below co.jp")
	why(t, round, "wild.example", "root name server")
	c := check.New(check.Options{Resolvers: []rbl.Resolver{u}})
	for _, a := range round.Answers {
		zone := zones[slices.IndexFunc(zones, func(z rbl.Zone) bool { return z.Name == a.Zone })]
		again, health := c.Again(t.Context(), a.Subject, &zone, u.Name())
		if again.Result != a.Result || (again.Result == rbl.Listed) != (health.State == rbl.Healthy) {
			t.Errorf("at a second look: %+v %+v", again, health)
		}
	}
}

// A list that is emptied after its test entry was seen, and before it is asked again,
// calls nobody clean.
func TestEmptiedListByMemory(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example", "192.0.2.6"))
	c := check.New(check.Options{Resolvers: []rbl.Resolver{direct(r.Addr)}}) // no cache
	about, zones := subjects("192.0.2.5"), lists("bl.example")
	if a := c.Run(t.Context(), about, zones, nil).Answers[0]; a.Result != rbl.Clean {
		t.Fatalf("%+v", a)
	}
	r.Set(t, "bl.example", "ip4set", "")
	round := c.Run(t.Context(), about, zones, nil)
	wantStates(t, round, "bl.example ip4 emptied")
	wantAnswers(t, round, "192.0.2.5 bl.example unknown")
}

// Nobody listens, and REFUSED that comes as such: by a server in a resolver's place.
func TestResolverThatDoesNotServe(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("bl.example", "192.0.2.5"))
	for name, c := range map[string]struct {
		addr   string
		state  string
		result rbl.Result
	}{
		"refuses": {r.Addr, "other.example ip4 refusing", rbl.Refused},
		"nobody":  {closedPort(t), "other.example ip4 silent", rbl.Unknown},
	} {
		round := run(t, subjects("192.0.2.5"), lists("other.example"), direct(c.addr))
		wantStates(t, round, c.state)
		if a := round.Answers[0]; a.Result != c.result {
			t.Errorf("%s: %+v", name, a)
		}
	}
	// The next one is asked.
	round := run(t, subjects("192.0.2.5"), lists("bl.example"), direct(closedPort(t)), direct(r.Addr))
	wantAnswers(t, round, "192.0.2.5 bl.example listed 127.0.0.2")
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	n := dnstest.StartNSD(t, map[string]string{"nobody.example": ""})
	n.Stop()
	return n.Addr
}

// The answers in 127.0.0.0/8 that are none, by the table's own lists under their own
// names.
func TestRefusalsOfKnownLists(t *testing.T) {
	for _, c := range []struct{ zone, answer, state string }{
		{"zen.spamhaus.org", "127.255.255.252", "refusing"},
		{"zen.spamhaus.org", "127.255.255.254", "refusing"},
		{"zen.spamhaus.org", "127.255.255.255", "refusing"},
		{"dbl.spamhaus.org", "127.0.1.255", "refusing"},
		{"bl.score.senderscore.com", "127.255.255.255", "refusing"},
		{"multi.uribl.com", "127.0.0.1", "refusing"},
		{"multi.surbl.org", "127.0.0.1", "refusing"},
		{"list.dnswl.org", "127.0.0.255", "refusing"},
		{"bl.spamcop.net", "192.0.2.80", "parked"}, // 2021-01-31: for a day everybody was "listed"
		{"psbl.surriel.com", "127.0.0.2", "wild"},
	} {
		t.Run(c.zone+" "+c.answer, func(t *testing.T) {
			z := known(t, c.zone)
			n := dnstest.StartNSD(t, map[string]string{c.zone: "* A " + c.answer})
			round := run(t, subjects("192.0.2.5", "good.example"), []rbl.Zone{z}, unbound(t, n.Addr, dnstest.Unbound{}, c.zone))
			if len(round.Zones) == 0 || len(round.Answers) == 0 {
				t.Fatalf("nothing was asked: %+v", round)
			}
			for _, h := range round.Zones {
				if h.State.String() != c.state {
					t.Errorf("%+v, want %s", h, c.state)
				}
			}
			for _, a := range round.Answers {
				if (a.Result == rbl.Refused) != (c.state == "refusing") || a.Result == rbl.Listed || a.Result == rbl.Clean {
					t.Errorf("%+v", a)
				}
			}
		})
	}
}

// The table's own lists are healthy when they serve what the table says of them,
// among them those that do not go by RFC 5782.
func TestKnownListsAreHealthy(t *testing.T) {
	for _, c := range []struct {
		zone, body, subject string
		result              rbl.Result
		severity            rbl.Severity
	}{
		{"hostkarma.junkemailfilter.com", "2.0.0.127 A 127.0.0.2\n1.0.0.127 A 127.0.0.1\n5.2.0.192 A 127.0.0.1\n5.2.0.192 A 127.0.1.1", "192.0.2.5", rbl.Listed, rbl.Info},
		{"bogons.cymru.com", "5.2.0.192 A 127.0.0.2", "192.0.2.5", rbl.Listed, rbl.Info},
		{"list.dnswl.org", "2.0.0.127 A 127.0.10.0\n5.2.0.192 A 127.0.5.2", "192.0.2.5", rbl.Listed, rbl.Info},
	} {
		z := known(t, c.zone)
		n := dnstest.StartNSD(t, map[string]string{c.zone: c.body})
		round := run(t, subjects(c.subject), []rbl.Zone{z}, unbound(t, n.Addr, dnstest.Unbound{}, c.zone))
		if h, a := round.Zones[0], round.Answers[0]; h.State != rbl.Healthy || a.Result != c.result || a.Worst() > c.severity {
			t.Errorf("%s: %+v %+v", c.zone, h, a)
		}
	}
}

// An answer of a healthy list that is none: outside of 127.0.0.0/8, or without
// records.
func TestStrangeAnswersOfHealthyLists(t *testing.T) {
	n := dnstest.StartNSD(t, map[string]string{"bl.example": listed4 + " A 127.0.0.2\n" +
		"5.2.0.192 A 192.0.2.80\n" + "6.2.0.192 A 127.0.0.2\n6.2.0.192 A 192.0.2.80\n" +
		"7.2.0.192 TXT \"was listed\"\n" + "x.8.2.0.192 A 127.0.0.2\n" + "9.2.0.192 CNAME listed\nlisted A 127.0.0.2\n"})
	round := run(t, subjects("192.0.2.5", "192.0.2.6", "192.0.2.7", "192.0.2.8", "192.0.2.9"), lists("bl.example"),
		unbound(t, n.Addr, dnstest.Unbound{}, "bl.example"))
	wantStates(t, round, "bl.example ip4 healthy")
	wantAnswers(t, round, "192.0.2.5 bl.example unknown", "192.0.2.6 bl.example unknown",
		"192.0.2.7 bl.example clean", "192.0.2.8 bl.example clean", "192.0.2.9 bl.example listed 127.0.0.2")
}

// A list that does not answer holds up no other, and is unknown at the end.
func TestSlowList(t *testing.T) {
	r := dnstest.StartRBLDNSD(t, ip4("a.example", "192.0.2.5"), ip4("b.example"))
	gate := make(chan struct{})
	slow := dnstest.StartFake(t, func(q dnstest.Query) dnstest.Reply {
		return dnstest.Held(gate, dnstest.ServFail())
	})
	u := unbound(t, r.Addr, dnstest.Unbound{Stubs: map[string]string{"slow.example": slow.Addr}}, "a.example", "b.example")
	// The gate opens when all answers of the others are there: were they held up,
	// the test would not end.
	c := check.New(check.Options{Resolvers: []rbl.Resolver{u}, Parallel: 8, PerZone: 3})
	round := c.Run(t.Context(), subjects("192.0.2.5", "192.0.2.6"), lists("a.example", "b.example", "slow.example"), func(done, _ int) {
		if done == 4 {
			close(gate)
		}
	})
	wantStates(t, round, "a.example ip4 healthy", "b.example ip4 healthy", "slow.example ip4 silent")
	wantAnswers(t, round,
		"192.0.2.5 a.example listed 127.0.0.2", "192.0.2.5 b.example clean", "192.0.2.5 slow.example unknown",
		"192.0.2.6 a.example clean", "192.0.2.6 b.example clean", "192.0.2.6 slow.example unknown")
}

// A time-out is neither "clean" nor "listed".
func TestTimeout(t *testing.T) {
	silent := dnstest.StartFake(t, func(dnstest.Query) dnstest.Reply { return dnstest.Silence() })
	round := run(t, subjects("192.0.2.5"), lists("bl.example"), resolve.New(silent.Addr, 200*time.Millisecond))
	wantStates(t, round, "bl.example ip4 silent")
	wantAnswers(t, round, "192.0.2.5 bl.example unknown")
	why(t, round, "bl.example", "no answer in time")
}
