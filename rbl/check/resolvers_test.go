package check_test

import (
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

// What the first resolver cannot tell of a zone, the second is asked.
func TestNextResolver(t *testing.T) {
	good := func() server { return well(entries{"5.2.0.192": addrs("127.0.0.2")}).server() }
	always := func(r rbl.Response) server { return func(string, rbl.Type) rbl.Response { return r } }
	about := func(r rbl.Response) server { return well(entries{"5.2.0.192": r, "6.2.0.192": r}).server() }
	for name, c := range map[string]struct {
		first     server
		elsewhere server // of the first
		next      bool
		state     rbl.State
	}{
		"answers":             {good(), nil, false, rbl.Healthy},
		"times out":           {always(timedOut()), nil, true, rbl.Healthy},
		"SERVFAIL":            {always(servFail()), nil, true, rbl.Healthy},
		"REFUSED":             {always(refused()), nil, true, rbl.Healthy},
		"broken":              {always(broken()), nil, true, rbl.Healthy},
		"refused by the zone": {always(addrs("127.255.255.254")), nil, true, rbl.Healthy},
		"filters":             {entries{listed4: noData()}.server(), nil, true, rbl.Healthy},
		"rewrites":            {always(addrs("192.0.2.80")), always(addrs("192.0.2.80")), true, rbl.Healthy},
		"takes names out":     {entries{}.server(), nil, true, rbl.Healthy},
		"says all is gone":    {always(noName()), nil, true, rbl.Healthy},

		"times out about a subject":       {about(timedOut()), nil, true, rbl.Healthy},
		"SERVFAIL about a subject":        {about(servFail()), nil, true, rbl.Healthy},
		"REFUSED about a subject":         {about(refused()), nil, true, rbl.Healthy},
		"refused by the zone half-way":    {about(addrs("127.255.255.254")), nil, true, rbl.Healthy},
		"outside of 127/8 of all it asks": {about(addrs("192.0.2.80")), nil, true, rbl.Healthy},

		// The list is at fault: to ask on could only find who does not see it yet.
		"wild":   {always(addrs("127.0.0.2")), nil, false, rbl.Wild},
		"parked": {always(addrs("192.0.2.80")), nil, false, rbl.Parked},
	} {
		t.Run(name, func(t *testing.T) {
			first := newFake("first").serve("bl.example", c.first)
			if c.elsewhere != nil {
				first.serve("invalid", c.elsewhere).serve("com", c.elsewhere)
			}
			second := newFake("second").serve("bl.example", good())
			round := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}}).
				Run(t.Context(), []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6")}, []rbl.Zone{zone4("bl.example")}, nil)
			if round.Zones[0].State != c.state {
				t.Errorf("state %+v, want %v", round.Zones[0], c.state)
			}
			if asked := len(second.questions("")) > 0; asked != c.next {
				t.Errorf("second resolver asked: %v", asked)
			}
			by := "first"
			if c.next {
				by = "second"
				if !strings.Contains(round.Zones[0].Why, "through first: ") && !strings.Contains(name, "outside") {
					t.Errorf("why %q does not say what the first did", round.Zones[0].Why)
				}
			}
			if c.state != rbl.Healthy {
				return
			}
			if a := round.Answers[0]; a.Result != rbl.Listed || a.Resolver != by {
				t.Errorf("%+v, want listed by %s", a, by)
			}
			if a := round.Answers[1]; a.Result != rbl.Clean || a.Resolver != by {
				t.Errorf("%+v, want clean by %s", a, by)
			}
		})
	}
}

// The first resolver's listings are thrown away when it turns out to be refused, and
// the second is asked about them once more.
func TestAskedAgainThroughTheNext(t *testing.T) {
	first := newFake("first").serve("bl.example", well(entries{
		"5.2.0.192": addrs("127.0.0.2"), "6.2.0.192": addrs("127.255.255.255"),
	}).server())
	second := newFake("second").serve("bl.example", well(entries{"6.2.0.192": addrs("127.0.0.2")}).server())
	told := 0
	round := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}, PerZone: 1}).
		Run(t.Context(), []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6")}, []rbl.Zone{zone4("bl.example")}, func(int, int) { told++ })
	if a := round.Answers; a[0].Result != rbl.Clean || a[1].Result != rbl.Listed || a[0].Resolver != "second" || a[1].Resolver != "second" || told != 2 {
		t.Errorf("%+v, told %d", a, told)
	}
}

// If a list goes wild through one resolver, what came through the other is void, too.
func TestWildThroughOneIsWild(t *testing.T) {
	wild := false
	first := newFake("first")
	first.serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
		first.mu.Lock()
		defer first.mu.Unlock()
		switch {
		case labels == "5.2.0.192":
			return timedOut() // and so the second is asked
		case labels == "6.2.0.192":
			wild = true
			return addrs("127.0.0.2")
		case labels == listed4 || wild:
			return addrs("127.0.0.2")
		}
		return noName()
	})
	second := newFake("second").serve("bl.example", well(nil).server())
	round := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}, PerZone: 1}).
		Run(t.Context(), []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6")}, []rbl.Zone{zone4("bl.example")}, nil)
	if len(second.questions("5.2.0.192.bl.example A")) != 1 || round.Zones[0].State != rbl.Wild {
		t.Errorf("%+v", round.Zones)
	}
	for _, a := range round.Answers {
		if a.Result != rbl.Unknown {
			t.Errorf("%+v", a)
		}
	}
}

// A second look goes through another resolver and believes nothing from memory.
func TestAgain(t *testing.T) {
	z := zone4("bl.example")
	first := newFake("first").serve("bl.example", well(entries{"5.2.0.192": addrs("127.0.0.2")}).server())
	second := newFake("second").serve("bl.example", well(nil).server())
	c := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}})
	round := c.Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{z}, nil)
	if round.Answers[0].Resolver != "first" {
		t.Fatalf("%+v", round)
	}
	if a, h := c.Again(t.Context(), ip("192.0.2.5"), &z, "first"); a.Result != rbl.Clean || a.Resolver != "second" || h.State != rbl.Healthy {
		t.Errorf("%+v %+v", a, h)
	}
	if a, _ := c.Again(t.Context(), ip("192.0.2.5"), &z, "second"); a.Result != rbl.Listed || a.Resolver != "first" {
		t.Errorf("%+v", a)
	}
	second.serve("bl.example", func(string, rbl.Type) rbl.Response { return timedOut() })
	if a, _ := c.Again(t.Context(), ip("192.0.2.5"), &z, "first"); a.Result != rbl.Listed || a.Resolver != "first" {
		t.Errorf("with a second that is silent: %+v", a)
	}
	first.serve("bl.example", entries{"5.2.0.192": addrs("127.0.0.2")}.server())
	if a, h := c.Again(t.Context(), ip("192.0.2.5"), &z, "first"); a.Result != rbl.Unknown || h.State != rbl.Emptied {
		t.Errorf("emptied since: %+v %+v", a, h)
	}
	if a, h := c.Again(t.Context(), ip("2001:db8::1"), &z, "first"); a.Result != rbl.Unknown || a.Why == "" || h.State != rbl.NotAsked {
		t.Errorf("of a kind that it does not take: %+v %+v", a, h)
	}
}

// The test entry is believed for a while, where nothing is clean that depends on it;
// what nobody lists is asked in each round.
func TestTestEntryIsRemembered(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	f := newFake("r").serve("bl.example", well(entries{"5.2.0.192": addrs("127.0.0.2")}).server())
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}, HealthFor: 10 * time.Minute, Now: func() time.Time { return now }})
	run := func() rbl.Health {
		return c.Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}, nil).Zones[0]
	}
	for i, c := range []struct {
		after               time.Duration
		positives, negative int
	}{{0, 1, 2}, {9 * time.Minute, 1, 4}, {time.Minute, 2, 6}, {-time.Hour, 3, 8}} {
		now = now.Add(c.after)
		if h := run(); h.State != rbl.Healthy {
			t.Errorf("%+v", h)
		}
		if n := len(f.questions(listed4 + ".bl.example A")); n != c.positives {
			t.Errorf("%d: asked %d times for the test entry, want %d", i, n, c.positives)
		}
		if n := len(f.questions(clean4 + ".bl.example A")); n != c.negative {
			t.Errorf("%d: asked %d times for the negative test, want %d", i, n, c.negative)
		}
	}
	canaries := map[string]bool{}
	for _, q := range f.questions(".bl.example A") {
		if labels := strings.TrimSuffix(q, ".bl.example A"); isCanary(labels) {
			canaries[labels] = true
			if strings.Trim(labels, "abcdefghijklmnopqrstuvwxyz234567") != "" {
				t.Errorf("random name %q", labels)
			}
		}
	}
	if len(canaries) != 8 { // a round asks twice, as there is a listing
		t.Errorf("random names %v, want 8", canaries)
	}
	f.serve("bl.example", func(string, rbl.Type) rbl.Response { return addrs("127.0.0.2") })
	if h := run(); h.State != rbl.Wild {
		t.Errorf("%+v", h)
	}
	f.serve("bl.example", entries{}.server())
	if h := run(); h.State != rbl.Emptied {
		t.Errorf("what was wild is asked anew: %+v", h)
	}
}
