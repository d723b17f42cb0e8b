package check_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

// all is a list that lists everybody, but spares its negative tests and single labels.
func all(labels string, _ rbl.Type) rbl.Response {
	switch {
	case labels == "", labels == clean4, labels == clean6, labels != "test" && !strings.Contains(labels, "."):
		return noName()
	}
	return addrs("127.0.0.2")
}

// A list that lists everybody, and spares what it is tested by, is wild as soon as it
// lists one of ours: for a round, and for a second look.
func TestWildListThatSparesItsTests(t *testing.T) {
	z := zone4("bl.example")
	z.Kinds = []rbl.Kind{rbl.IP4, rbl.IP6, rbl.Domain}
	z.Test.Listed6, z.Test.Clean6, z.Test.ListedDomain, z.Test.CleanDomain = listed6, clean6, "test", "invalid"
	for subject, what := range map[rbl.Subject]string{
		ip("192.0.2.5"):                 "root name server",
		ip("2001:db8::1"):               "root name server",
		{Name: "ours.example.com"}:      "a random name below com",
		{Name: "ours.example.co.jp"}:    "a random name below co.jp",
		{Name: "somebody.github.io"}:    "a random name below io",
		{Name: "example.unheard-of"}:    "a random name below unheard-of",
		{Name: "x.s3.amazonaws.com"}:    "a random name below com",
		{Name: "city.kawasaki.jp"}:      "a random name below kawasaki.jp",
		{Name: "a.b.some.kawasaki.jp"}:  "a random name below some.kawasaki.jp",
		{Name: "mail.xn--bcher-kva.de"}: "a random name below de",
	} {
		f := newFake("r").serve("bl.example", all)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})
		round := c.Run(t.Context(), []rbl.Subject{subject}, []rbl.Zone{z}, nil)
		again, health := c.Again(t.Context(), subject, &z, "r")
		for _, h := range []rbl.Health{round.Zones[0], health} {
			if h.State != rbl.Wild || !strings.Contains(h.Why, what) {
				t.Errorf("%s: %+v", subject, h)
			}
		}
		for _, a := range []rbl.Answer{round.Answers[0], again} {
			if a.Result != rbl.Unknown || len(a.Hits) > 0 || a.Why == "" {
				t.Errorf("%+v", a)
			}
		}
	}
}

// Each suffix is looked at once, and only of what is listed; what harms nobody proves
// nothing; nor does a list of a company's whole domain.
func TestWitnessesOfDomains(t *testing.T) {
	z := zone4("bl.example")
	z.Kinds, z.Test = []rbl.Kind{rbl.Domain}, rbl.Test{ListedDomain: "test", CleanDomain: "invalid"}
	z.Codes = []rbl.Code{
		{From: addr("127.0.0.1"), To: addr("127.0.0.1"), Means: "known", Severity: new(rbl.Info)},
		{From: addr("127.0.0.2"), To: addr("127.0.0.2"), Means: "black"},
	}
	f := newFake("r").serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
		switch {
		case labels == "test", strings.HasSuffix(labels, "bad.jp"), strings.HasSuffix(labels, ".github.io"):
			return addrs("127.0.0.2")
		case strings.HasSuffix(labels, ".jp"):
			return addrs("127.0.0.1")
		}
		return noName()
	})
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(),
		[]rbl.Subject{{Name: "bad.jp"}, {Name: "mail.bad.jp"}, {Name: "some.github.io"}, {Name: "good.com"}}, []rbl.Zone{z}, nil)
	if round.Zones[0].State != rbl.Healthy {
		t.Errorf("%+v", round.Zones[0])
	}
	for i, want := range []rbl.Result{rbl.Listed, rbl.Listed, rbl.Listed, rbl.Clean} {
		if round.Answers[i].Result != want {
			t.Errorf("%+v, want %v", round.Answers[i], want)
		}
	}
	below := map[string]int{}
	for _, q := range f.questions(".bl.example A") {
		if random, suffix, ok := strings.Cut(strings.TrimSuffix(q, ".bl.example A"), "."); ok && isCanary(random) {
			below[suffix]++
		}
	}
	if fmt.Sprint(below) != "map[io:1 jp:1]" {
		t.Errorf("asked below %v", below)
	}
}

// scripted is a list of which what it says changes after it was asked about 5.2.0.192.
func scripted(before, after server) (server, *bool) {
	over := new(bool) // by the one goroutine that asks: PerZone is 1
	return func(labels string, t rbl.Type) rbl.Response {
		if *over {
			return after(labels, t)
		}
		*over = labels == "5.2.0.192" && t == rbl.TypeA
		return before(labels, t)
	}, over
}

// A listing counts only if nobody else turns out to be listed, and that was answered.
func TestListingThatCannotBeLookedAtOnceMore(t *testing.T) {
	mine := func() server { return well(entries{"5.2.0.192": addrs("127.0.0.2")}).server() }
	for name, c := range map[string]struct {
		then   rbl.Response
		labels string // about which it is said; "": about all
		result rbl.Result
	}{
		"silence":                          {timedOut(), "", rbl.Unknown},
		"SERVFAIL":                         {servFail(), "", rbl.Unknown},
		"REFUSED":                          {refused(), "", rbl.Refused},
		"silence about the negative test":  {timedOut(), clean4, rbl.Unknown},
		"no answer about a root server":    {broken(), root4, rbl.Unknown},
		"no records, which is an answer":   {noData(), "", rbl.Listed},
		"no such names, which is what was": {noName(), "", rbl.Listed},
	} {
		t.Run(name, func(t *testing.T) {
			after := func(labels string, ty rbl.Type) rbl.Response {
				if c.labels == "" || c.labels == labels {
					return c.then
				}
				return well(nil).server()(labels, ty)
			}
			s, _ := scripted(mine(), after)
			first := newFake("first").serve("bl.example", s)
			o := check.Options{Resolvers: []rbl.Resolver{first}, PerZone: 1}
			subjects, zones := []rbl.Subject{ip("192.0.2.6"), ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}
			round := check.New(o).Run(t.Context(), subjects, zones, nil)
			a, h := round.Answers[1], round.Zones[0]
			if a.Result != c.result || h.State != rbl.Healthy || (a.Result == rbl.Listed) != (a.Why == "") || (a.Result == rbl.Listed) != (len(a.Hits) > 0) {
				t.Errorf("%+v, %+v", a, h)
			}
			if clean := round.Answers[0]; clean.Result != rbl.Clean {
				t.Errorf("%+v", clean)
			}
			if c.result == rbl.Listed {
				return
			}
			// Another resolver says it.
			s, _ = scripted(mine(), after)
			first.serve("bl.example", s)
			o.Resolvers = append(o.Resolvers, newFake("second").serve("bl.example", mine()))
			round = check.New(o).Run(t.Context(), subjects, zones, nil)
			if a := round.Answers[1]; a.Result != rbl.Listed || a.Resolver != "second" {
				t.Errorf("through another: %+v", a)
			}
		})
	}
}

// A list that is emptied while it is asked has called nobody clean, if its test entry
// was believed from memory or was seen some time ago.
func TestEmptiedMeanwhile(t *testing.T) {
	nothing := func() server { return entries{}.server() }
	always := func(r rbl.Response) server { return func(string, rbl.Type) rbl.Response { return r } }
	for name, c := range map[string]struct {
		memory bool
		takes  time.Duration
		test   rbl.Test
		after  server
		state  rbl.State
		result rbl.Result
	}{
		"by memory":                    {true, 0, zone4("").Test, nothing(), rbl.Emptied, rbl.Unknown},
		"by memory, dead":              {true, 0, zone4("").Test, always(noName()), rbl.Dead, rbl.Unknown},
		"by memory, silent":            {true, 0, zone4("").Test, always(timedOut()), rbl.Healthy, rbl.Unknown},
		"by memory, silent about SOA":  {true, 0, zone4("").Test, emptiedWithout(timedOut()), rbl.Healthy, rbl.Unknown},
		"by memory, refuses":           {true, 0, zone4("").Test, always(refused()), rbl.Healthy, rbl.Refused},
		"by memory, refuses by a code": {true, 0, zone4("").Test, always(addrs("127.255.255.254")), rbl.Refusing, rbl.Refused},
		"by memory, somebody else's":   {true, 0, zone4("").Test, always(addrs("192.0.2.80")), rbl.Parked, rbl.Unknown},
		"by memory, filtered":          {true, 0, zone4("").Test, entries{listed4: noData()}.server(), rbl.Filtered, rbl.Unknown},
		"by memory, well":              {true, 0, zone4("").Test, well(nil).server(), rbl.Healthy, rbl.Clean},
		"slowly":                       {false, 6 * time.Second, zone4("").Test, nothing(), rbl.Emptied, rbl.Unknown},
		"slowly, dead":                 {false, time.Hour, zone4("").Test, always(noName()), rbl.Dead, rbl.Unknown},
		"slowly, well":                 {false, time.Hour, zone4("").Test, well(nil).server(), rbl.Healthy, rbl.Clean},
		"the clock goes back":          {false, -time.Hour, zone4("").Test, nothing(), rbl.Emptied, rbl.Unknown},
		"at once":                      {false, time.Second, zone4("").Test, nothing(), rbl.Healthy, rbl.Clean},
		"without a test entry, dead":   {false, time.Hour, rbl.Test{}, always(noName()), rbl.Dead, rbl.Unknown},
		"without a test entry, silent": {false, time.Hour, rbl.Test{}, always(servFail()), rbl.Healthy, rbl.Unknown},
		"without a test entry":         {false, time.Hour, rbl.Test{}, nothing(), rbl.Healthy, rbl.Clean},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
			z := zone4("bl.example")
			z.Test = c.test
			f := newFake("first").serve("bl.example", well(nil).server())
			o := check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1, Now: func() time.Time { return now }}
			checker := check.New(o)
			subjects, zones := []rbl.Subject{ip("192.0.2.4"), ip("192.0.2.5")}, []rbl.Zone{z}
			if c.memory {
				checker.Run(t.Context(), subjects, zones, nil)
			}
			s, _ := scripted(func(labels string, ty rbl.Type) rbl.Response {
				if labels == "5.2.0.192" {
					now = now.Add(c.takes)
				}
				return well(nil).server()(labels, ty)
			}, c.after)
			f.serve("bl.example", s)
			round := checker.Run(t.Context(), subjects, zones, nil)
			if h := round.Zones[0]; h.State != c.state {
				t.Errorf("%+v, want %v", h, c.state)
			}
			for _, a := range round.Answers {
				if a.Result != c.result || (a.Result == rbl.Clean) != (a.Why == "") {
					t.Errorf("%+v, want %v", a, c.result)
				}
			}
			asked := len(f.questions(listed4 + ".bl.example A"))
			if name == "at once" && asked != 1 || name == "by memory, well" && asked != 2 || name == "slowly, well" && asked != 2 {
				t.Errorf("asked %d times for the test entry", asked)
			}
		})
	}
}

// emptiedWithout is an empty list of which this is said in place of its SOA.
func emptiedWithout(soa rbl.Response) server {
	return func(labels string, _ rbl.Type) rbl.Response {
		if labels == "" {
			return soa
		}
		return noName()
	}
}

// What one resolver has of a list that was emptied, another may still have.
func TestEmptiedMeanwhileThroughOne(t *testing.T) {
	first := newFake("first").serve("bl.example", well(nil).server())
	second := newFake("second").serve("bl.example", well(entries{"5.2.0.192": addrs("127.0.0.2")}).server())
	c := check.New(check.Options{Resolvers: []rbl.Resolver{first, second}, PerZone: 1})
	subjects, zones := []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}
	c.Run(t.Context(), subjects, zones, nil)
	first.serve("bl.example", entries{}.server())
	for range 2 { // what is gone is not remembered
		round := c.Run(t.Context(), subjects, zones, nil)
		if a, h := round.Answers[0], round.Zones[0]; a.Result != rbl.Listed || a.Resolver != "second" || h.State != rbl.Healthy ||
			!strings.Contains(h.Why, "through first: its test entry is not there") {
			t.Errorf("%+v %+v", a, h)
		}
	}
}
