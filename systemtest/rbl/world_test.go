// Package rbl_test asks blocklists that real name servers serve: rbldnsd and NSD,
// behind a real unbound, all on loopback. What real servers do not do, one in the
// test's own process does. make test-rbl runs it.
//
// The trap: lists that have real names here are our own, on loopback. No question
// leaves the machine.
package rbl_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/resolve"
)

// patient is for resolvers that answer: a busy machine must not look like a silent one.
const patient = 30 * time.Second

// The test entries of RFC 5782 §5, as labels.
const (
	listed4 = "2.0.0.127"
	clean4  = "1.0.0.127"
	listed6 = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
	clean6  = "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0"
)

// list is a zone with the usual test entries.
func list(name string, kinds ...rbl.Kind) rbl.Zone {
	if len(kinds) == 0 {
		kinds = []rbl.Kind{rbl.IP4}
	}
	return rbl.Zone{
		Name: name, Kinds: kinds, Severity: rbl.High,
		Test: rbl.Test{
			Listed4: listed4, Clean4: clean4, Listed6: listed6, Clean6: clean6,
			ListedDomain: "test", CleanDomain: "invalid",
		},
	}
}

func lists(names ...string) []rbl.Zone {
	var all []rbl.Zone
	for _, name := range names {
		all = append(all, list(name))
	}
	return all
}

// known is a zone of the built-in table.
func known(t *testing.T, name string) rbl.Zone {
	t.Helper()
	z, ok := rbl.Builtin().Find(name)
	if !ok {
		t.Fatalf("no zone %s in the table", name)
	}
	return z
}

// ip4 are entries of rbldnsd with RFC 5782's among them.
func ip4(zone string, lines ...string) dnstest.Dataset {
	return dnstest.Dataset{Zone: zone, Type: "ip4set", Lines: ":127.0.0.2:listed, $\n127.0.0.2\n" + strings.Join(lines, "\n")}
}

// unbound is a real one that finds these zones at a server; so set up, if u is given.
func unbound(t *testing.T, server string, u dnstest.Unbound, zones ...string) rbl.Resolver {
	t.Helper()
	stubs := map[string]string{}
	for zone, at := range u.Stubs {
		stubs[zone] = at
	}
	for _, zone := range zones {
		stubs[zone] = server
	}
	u.Stubs = stubs
	return resolve.New(dnstest.StartUnbound(t, u).Addr, patient)
}

func subjects(all ...string) []rbl.Subject {
	var out []rbl.Subject
	for _, s := range all {
		var subject rbl.Subject
		if err := subject.UnmarshalText([]byte(s)); err != nil {
			panic(err)
		}
		out = append(out, subject)
	}
	return out
}

func run(t *testing.T, about []rbl.Subject, zones []rbl.Zone, resolvers ...rbl.Resolver) check.Round {
	t.Helper()
	round := check.New(check.Options{Resolvers: resolvers}).Run(t.Context(), about, zones, nil)
	t.Cleanup(func() {
		if t.Failed() {
			raw, _ := json.MarshalIndent(round, "", " ")
			t.Logf("round: %s", raw)
		}
	})
	return round
}

// wantStates compares "zone kind state", in the order of the round.
func wantStates(t *testing.T, r check.Round, want ...string) {
	t.Helper()
	var got []string
	for _, h := range r.Zones {
		got = append(got, fmt.Sprintf("%s %v %v", h.Zone, h.Kind, h.State))
		if h.State != rbl.Healthy && h.Why == "" {
			t.Errorf("%s is %v, and it is not said why", h.Zone, h.State)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("states\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// wantAnswers compares "subject zone result codes", in the order of the round.
func wantAnswers(t *testing.T, r check.Round, want ...string) {
	t.Helper()
	var got []string
	for _, a := range r.Answers {
		line := fmt.Sprintf("%s %s %v", a.Subject, a.Zone, a.Result)
		for _, h := range a.Hits {
			line += " " + h.Code.String()
			if h.Bit != 0 {
				line += fmt.Sprintf("/%d", h.Bit)
			}
		}
		got = append(got, line)
		if (a.Result == rbl.Unknown || a.Result == rbl.Refused) != (a.Why != "") {
			t.Errorf("%s: why %q", line, a.Why)
		}
		if (a.Result == rbl.Listed) != (len(a.Hits) > 0) {
			t.Errorf("%s: hits %v", line, a.Hits)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("answers\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func why(t *testing.T, r check.Round, zone, text string) {
	t.Helper()
	for _, h := range r.Zones {
		if h.Zone == zone && strings.Contains(h.Why, text) {
			return
		}
	}
	t.Errorf("%s: %q is not said why: %+v", zone, text, r.Zones)
}

func code(a string) rbl.Code {
	addr := netip.MustParseAddr(a)
	return rbl.Code{From: addr, To: addr, Means: "code " + a}
}
