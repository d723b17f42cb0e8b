package check_test

import (
	"strings"
	"testing"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

// A zone is what its test entry, its negative test, a random name, its SOA and names
// elsewhere say together.
func TestZoneStates(t *testing.T) {
	type probe = rbl.Response
	there := addrs("127.0.0.2")
	for name, c := range map[string]struct {
		positive, negative, canary probe
		soa                        *probe // nil: it is there
		elsewhere                  *probe // nil: NXDOMAIN
		state                      rbl.State
		why                        string
	}{
		"healthy":                             {there, noName(), noName(), nil, nil, rbl.Healthy, ""},
		"healthy, names without addresses":    {there, noData(), noData(), nil, nil, rbl.Healthy, ""},
		"emptied":                             {noName(), noName(), noName(), nil, nil, rbl.Emptied, "test entry is not there"},
		"emptied, every name without records": {noData(), noData(), noData(), nil, nil, rbl.Emptied, "random name"},
		"a name without an SOA":               {noName(), noName(), noName(), new(noData()), nil, rbl.Emptied, ""},
		"dead":                                {noName(), noName(), noName(), new(noName()), nil, rbl.Dead, "not exist"},
		"dead or emptied":                     {noName(), noName(), noName(), new(servFail()), nil, rbl.Silent, "SERVFAIL"},
		"filtered":                            {noData(), noName(), noName(), nil, nil, rbl.Filtered, "rebinding"},
		"wild, by its negative test":          {there, there, noName(), nil, nil, rbl.Wild, "negative test"},
		"wild, by a random name":              {there, noName(), there, nil, nil, rbl.Wild, "random name"},
		"wild, without a test entry":          {noName(), there, there, nil, nil, rbl.Wild, ""},
		"wild, elsewhere silent":              {there, there, there, nil, new(timedOut()), rbl.Wild, ""},
		"parked":                              {addrs("192.0.2.80"), addrs("192.0.2.80"), addrs("192.0.2.80"), nil, nil, rbl.Parked, "192.0.2.80"},
		"parked, with its test entry":         {there, noName(), addrs("192.0.2.80"), nil, nil, rbl.Parked, "192.0.2.80"},
		"parked, by its test entry alone":     {addrs("192.0.2.80"), noName(), noName(), nil, nil, rbl.Parked, ""},
		"parked or rewritten":                 {there, noName(), addrs("192.0.2.80"), nil, new(servFail()), rbl.Silent, "elsewhere"},
		"rewritten":                           {there, noName(), addrs("192.0.2.80"), nil, new(addrs("192.0.2.80")), rbl.Rewritten, "do not exist"},
		"rewritten to 127.0.0.1":              {there, addrs("127.0.0.1"), addrs("127.0.0.1"), nil, new(addrs("127.0.0.1")), rbl.Rewritten, ""},
		"rewritten to 127.0.0.5":              {there, addrs("127.0.0.5"), addrs("127.0.0.5"), nil, new(addrs("127.0.0.5")), rbl.Rewritten, ""},
		"refusing, by a code":                 {addrs("127.255.255.254"), noName(), noName(), nil, nil, rbl.Refusing, "public resolver"},
		"refusing, by a code to everything":   {addrs("127.255.255.254"), addrs("127.255.255.254"), addrs("127.255.255.254"), nil, nil, rbl.Refusing, "public resolver"},
		"refusing, by a code that is new":     {addrs("127.255.255.7"), noName(), noName(), nil, nil, rbl.Refusing, ""},
		"refusing, by the random name":        {there, noName(), addrs("127.255.255.254"), nil, nil, rbl.Refusing, ""},
		"refusing, by its code":               {refused(), refused(), refused(), nil, nil, rbl.Refusing, "REFUSED"},
		"refusing before silent":              {timedOut(), refused(), noName(), nil, nil, rbl.Refusing, "REFUSED"},
		"silent":                              {timedOut(), timedOut(), timedOut(), nil, nil, rbl.Silent, "no answer in time"},
		"silent about the test entry":         {servFail(), noName(), noName(), nil, nil, rbl.Silent, "SERVFAIL"},
		"silent about the negative test":      {there, timedOut(), noName(), nil, nil, rbl.Silent, "negative test"},
		"silent about the random name":        {there, noName(), broken(), nil, nil, rbl.Silent, "random name"},
		"silent about all but a missing one":  {noName(), servFail(), noName(), nil, nil, rbl.Silent, ""},
	} {
		t.Run(name, func(t *testing.T) {
			z := zone4("bl.example")
			z.Blocks = []rbl.Code{{From: addr("127.255.255.254"), To: addr("127.255.255.254"), Means: "public resolver"}}
			f := newFake("r").serve("bl.example", func(labels string, ty rbl.Type) rbl.Response {
				switch {
				case labels == "" && c.soa != nil:
					return *c.soa
				case labels == "":
					return rbl.Response{Outcome: rbl.Answered}
				case labels == listed4:
					return c.positive
				case labels == clean4:
					return c.negative
				case isCanary(labels):
					return c.canary
				case ty == rbl.TypeTXT, labels == root4:
					return noName()
				}
				return there
			})
			if c.elsewhere != nil {
				all := func(string, rbl.Type) rbl.Response { return *c.elsewhere }
				f.serve("invalid", all).serve("com", all).serve("net", all)
			}
			round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).
				Run(t.Context(), []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6")}, []rbl.Zone{z}, nil)
			if h := round.Zones[0]; h.State != c.state || !strings.Contains(h.Why, c.why) {
				t.Errorf("state %v %q, want %v %q", h.State, h.Why, c.state, c.why)
			}
			want := rbl.Unknown
			switch c.state {
			case rbl.Healthy:
				want = rbl.Listed
			case rbl.Refusing:
				want = rbl.Refused
			}
			for _, a := range round.Answers {
				if a.Result != want || want != rbl.Listed && (a.Why == "" || len(a.Hits) > 0) {
					t.Errorf("%v, want %v", a, want)
				}
			}
			if asked := f.questions("5.2.0.192.bl.example A"); c.state != rbl.Healthy && len(asked) > 0 {
				t.Errorf("asked about subjects: %v", asked)
			}
		})
	}
}

// Each kind has its state: a list can work for IPv4 and be empty for IPv6.
func TestStateIsByKind(t *testing.T) {
	z := zone4("bl.example")
	z.Kinds = []rbl.Kind{rbl.IP4, rbl.IP6, rbl.Domain}
	z.Test.Listed6, z.Test.Clean6, z.Test.ListedDomain, z.Test.CleanDomain = listed6, clean6, "test", "invalid"
	f := newFake("r").serve("bl.example", entries{
		listed4: addrs("127.0.0.2"), "test": addrs("127.0.1.2"), "bad.example": addrs("127.0.1.2"),
	}.server())
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).
		Run(t.Context(), []rbl.Subject{{Name: "bad.example"}, ip("2001:db8::1"), ip("192.0.2.5")}, []rbl.Zone{z}, nil)
	var got []string
	for _, h := range round.Zones {
		got = append(got, h.Kind.String()+" "+h.State.String())
	}
	if want := "ip4 healthy, ip6 emptied, domain healthy"; strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	got = nil
	for _, a := range round.Answers {
		got = append(got, a.Subject.String()+" "+a.Result.String())
	}
	if want := "bad.example listed, 2001:db8::1 unknown, 192.0.2.5 clean"; strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// The test entry of IPv6 is asked for by nibbles, never as IPv4's: a list that has
// only the latter is empty for IPv6.
func TestIPv6TestEntryIsNibbles(t *testing.T) {
	z := zone4("bl.example")
	z.Kinds, z.Test = []rbl.Kind{rbl.IP6}, rbl.Test{Listed6: listed6, Clean6: clean6}
	for name, c := range map[string]struct {
		has   entries
		state rbl.State
	}{
		"as IPv4":    {entries{listed4: addrs("127.0.0.2")}, rbl.Emptied},
		"by groups":  {entries{"0002.7f00.ffff.0.0.0.0.0": addrs("127.0.0.2")}, rbl.Emptied},
		"by nibbles": {entries{listed6: addrs("127.0.0.2")}, rbl.Healthy},
	} {
		f := newFake("r").serve("bl.example", c.has.server())
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), []rbl.Subject{ip("2001:db8::1")}, []rbl.Zone{z}, nil)
		if got := round.Zones[0].State; got != c.state {
			t.Errorf("%s: %v, want %v", name, got, c.state)
		}
		if asked := f.questions(listed4 + ".bl.example A"); len(asked) > 0 {
			t.Errorf("%s: asked %v", name, asked)
		}
	}
}

// A list without a negative test is wild if it lists a root name server; that it
// says something harmless of it proves nothing.
func TestWildWithoutNegativeTest(t *testing.T) {
	for name, c := range map[string]struct {
		code  string
		state rbl.State
	}{
		"as black": {"127.0.0.2", rbl.Wild},
		"as white": {"127.0.0.1", rbl.Healthy},
	} {
		z := zone4("bl.example")
		z.Test.Clean4 = ""
		z.Codes = []rbl.Code{
			{From: addr("127.0.0.1"), To: addr("127.0.0.1"), Means: "white", Severity: new(rbl.Info)},
			{From: addr("127.0.0.2"), To: addr("127.0.0.2"), Means: "black"},
		}
		f := newFake("r").serve("bl.example", func(labels string, ty rbl.Type) rbl.Response {
			switch {
			case labels == listed4:
				return addrs("127.0.0.2")
			case strings.Count(labels, ".") == 3:
				return addrs(c.code)
			}
			return noName()
		})
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{z}, nil)
		if got := round.Zones[0]; got.State != c.state {
			t.Errorf("%s: %v, want %v", name, got, c.state)
		}
	}
}

// Without a test entry it cannot be seen whether the list is empty, but whether it
// is there.
func TestZoneWithoutTestEntry(t *testing.T) {
	z := zone4("bl.example")
	z.Test = rbl.Test{}
	for name, c := range map[string]struct {
		s     server
		state rbl.State
	}{
		"there": {entries{}.server(), rbl.Healthy},
		"gone":  {func(string, rbl.Type) rbl.Response { return noName() }, rbl.Dead},
	} {
		f := newFake("r").serve("bl.example", c.s)
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{z}, nil)
		if got := round.Zones[0]; got.State != c.state {
			t.Errorf("%s: %v, want %v", name, got, c.state)
		}
	}
}

// A zone that is filtered alone may be at fault itself; if all are emptied and none
// is well, the resolver may.
func TestOtherZonesTellOfTheResolver(t *testing.T) {
	for name, c := range map[string]struct {
		lists map[string]rbl.Response // their test entries
		why   string                  // in that of the zone a
	}{
		"filtered alone":   {map[string]rbl.Response{"a": noData(), "b": addrs("127.0.0.2")}, "this list alone, so that it may be the list"},
		"the only one":     {map[string]rbl.Response{"a": noData()}, "this list alone, none shows the contrary"},
		"filtered like b":  {map[string]rbl.Response{"a": noData(), "b": noData()}, "(rebinding protection)"},
		"all are emptied":  {map[string]rbl.Response{"a": noName(), "b": noName(), "c": noName()}, "which may take them out"},
		"many are emptied": {map[string]rbl.Response{"a": noName(), "b": noName(), "c": noName(), "d": addrs("127.0.0.2")}, "its test entry is not there"},
	} {
		f := newFake("r")
		var zones []rbl.Zone
		for zone, test := range c.lists {
			zones = append(zones, zone4(zone))
			f.serve(zone, entries{listed4: test}.server())
		}
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, zones, nil)
		if h, a := round.Zones[0], round.Answers[0]; !strings.HasSuffix(h.Why, c.why) || a.Why != h.Why {
			t.Errorf("%s: %q and %q, want %q", name, h.Why, a.Why, c.why)
		}
	}
}
