package check_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

// many are lists that work, and addresses.
func many(f *fake, lists, subjects int) (zones []rbl.Zone, all []rbl.Subject) {
	for i := range lists {
		name := fmt.Sprintf("bl%02d.example", i)
		f.serve(name, well(entries{"1.2.0.192": addrs("127.0.0.2")}).server())
		zones = append(zones, zone4(name))
	}
	for i := range subjects {
		all = append(all, ip(fmt.Sprintf("192.0.2.%d", i+1)))
	}
	return zones, all
}

// No zone is asked more than PerZone questions at once, by all rounds together, and
// no more than Parallel are under way in all.
func TestBounds(t *testing.T) {
	const parallel = 7
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		f.delay = 10 * time.Millisecond
		zones, subjects := many(f, 12, 20)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{f}, Parallel: parallel, PerZone: 2})
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() {
				if round := c.Run(t.Context(), subjects, zones, nil); len(round.Answers) != 12*20 || round.Answers[0].Result != rbl.Listed {
					t.Errorf("%+v", round.Answers[0])
				}
			})
		}
		wait.Wait()
		for _, z := range zones {
			if f.most[z.Name] > 2 {
				t.Errorf("%s: %d at once, want 2", z.Name, f.most[z.Name])
			}
		}
		if f.allMax != parallel {
			t.Errorf("%d at once, want %d", f.allMax, parallel)
		}
		// With room for it, one zone has all that it may.
		if c.Run(t.Context(), subjects, zones[:1], nil); f.most[zones[0].Name] != 2 {
			t.Errorf("%d at once, want 2", f.most[zones[0].Name])
		}
	})
}

// Ten addresses on sixty lists that are 20 ms away take less than 3 s.
func TestRoundIsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		f.delay = 20 * time.Millisecond
		zones, subjects := many(f, 60, 10)
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), subjects, zones, nil)
		if round.Took > time.Second || len(round.Answers) != 600 {
			t.Errorf("took %v for %d answers and %d queries", round.Took, len(round.Answers), round.Queries)
		}
	})
}

// A list that does not answer costs its own time-outs and nobody else's.
func TestSlowZoneHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		f.delay = 20 * time.Millisecond
		zones, subjects := many(f, 20, 10)
		for i := range 8 {
			name := fmt.Sprintf("slow%d.example", i)
			zones = append(zones, zone4(name))
			f.serve(name, func(string, rbl.Type) rbl.Response {
				time.Sleep(5 * time.Second)
				return timedOut()
			})
		}
		began := time.Now()
		var last time.Duration // when the last of the well ones was there
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), subjects, zones, func(done, _ int) {
			if done == 200 {
				last = time.Since(began)
			}
		})
		if last == 0 || last > time.Second || round.Took > 6*time.Second {
			t.Errorf("others were there after %v, the round took %v", last, round.Took)
		}
		for _, a := range round.Answers {
			if strings.HasPrefix(a.Zone, "slow") != (a.Result == rbl.Unknown) {
				t.Errorf("%+v", a)
			}
		}
	})
}

// The end of ctx ends a round, whoever is waited for.
func TestContextEndsRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		f.delay = time.Hour
		zones, subjects := many(f, 60, 10)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(ctx, subjects, zones, nil)
		if round.Took != 3*time.Second || len(round.Answers) != 600 {
			t.Errorf("took %v, %d answers", round.Took, len(round.Answers))
		}
		for _, a := range round.Answers {
			if a.Result != rbl.Unknown || a.Why == "" {
				t.Errorf("%+v", a)
			}
		}
		for _, h := range round.Zones {
			if h.State != rbl.Silent || h.Why == "" {
				t.Errorf("%+v", h)
			}
		}
	})
}

// What a list's terms allow a day is not passed by any number of rounds; the next
// day (UTC) it is asked again.
func TestBudget(t *testing.T) {
	now := time.Date(2026, 3, 2, 23, 0, 0, 0, time.UTC)
	f := newFake("r").serve("other.example", well(nil).server()).serve("bl.example", well(nil).server())
	z := zone4("bl.example")
	z.Terms.PerDay = 10
	zones, subjects := []rbl.Zone{z, zone4("other.example")}, []rbl.Subject{ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3")}
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1, Now: func() time.Time { return now }})

	count := func(r check.Round) (clean, unknown int) {
		for _, a := range r.Answers {
			switch {
			case a.Zone == "other.example":
				if a.Result != rbl.Clean {
					t.Errorf("%+v", a)
				}
			case a.Result == rbl.Clean:
				clean++
			case a.Result == rbl.Unknown && strings.Contains(a.Why, "10 a day"):
				unknown++
			}
		}
		return clean, unknown
	}
	for i, want := range []struct {
		clean, unknown int
		state          rbl.State
	}{{3, 0, rbl.Healthy}, {0, 3, rbl.Healthy}, {0, 3, rbl.NotAsked}, {0, 3, rbl.NotAsked}} {
		// 3 of health and 3 of subjects. In the second round 2 of health, as the test
		// entry is remembered, 2 of subjects, and nothing is left to see if it is still
		// there: then nothing is clean.
		round := c.Run(t.Context(), subjects, zones, nil)
		if clean, unknown := count(round); clean != want.clean || unknown != want.unknown || round.Zones[0].State != want.state {
			t.Errorf("round %d: %d clean, %d unknown, %+v", i, clean, unknown, round.Zones[0])
		}
	}
	if n := len(f.questions(".bl.example A")); n != 10 {
		t.Errorf("%d questions, want 10", n)
	}
	now = now.Add(2 * time.Hour)
	if clean, _ := count(c.Run(t.Context(), subjects, zones, nil)); clean != 3 {
		t.Errorf("next day: %d clean", clean)
	}
}

// Another Checker goes on where one was: what was sent that day, by rounds, second
// looks and looks around, counts.
func TestBudgetOutlivesChecker(t *testing.T) { synctest.Test(t, budgetOutlivesChecker) }

func budgetOutlivesChecker(t *testing.T) {
	now := time.Date(2026, 3, 2, 23, 0, 0, 0, time.UTC)
	f := newFake("r").serve("other.example", well(nil).server()).serve("bl.example", well(nil).server())
	z := zone4("bl.example")
	z.Terms.PerDay, z.Ranges = 20, true
	zones, one := []rbl.Zone{z, zone4("other.example")}, []rbl.Subject{ip("192.0.2.1")}
	used := map[string]int64{}
	next := func() *check.Checker {
		return check.New(check.Options{Resolvers: []rbl.Resolver{f}, Used: used, Now: func() time.Time { return now }})
	}
	for _, ask := range []func(c *check.Checker){
		func(c *check.Checker) { c.Run(t.Context(), one, zones, nil) },
		func(c *check.Checker) { c.Again(t.Context(), one[0], &z, "r") },
		func(c *check.Checker) {
			c.Neighbours(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.1/30")}, zones, 4)
		},
	} {
		before := len(f.questions(".bl.example A"))
		c := next()
		ask(c)
		n := int64(len(f.questions(".bl.example A")) - before)
		sent := c.Sent()
		if sent["bl.example"] != n || n == 0 || len(c.Sent()) != 0 {
			t.Errorf("sent %v, asked %d", sent, n)
		}
		for zone, n := range sent {
			used[zone] += n
		}
	}
	if n := len(f.questions(".other.example A")); used["other.example"] != int64(n) {
		t.Errorf("used %v, asked the other %d", used, n)
	}
	used["bl.example"] += 20 - used["bl.example"] - 4 // health takes three, one is left
	c := next()
	round := c.Run(t.Context(), append(one, ip("192.0.2.2")), zones, nil)
	if sent := c.Sent()["bl.example"]; sent != 4 || round.Zones[0].State != rbl.Healthy {
		t.Errorf("%d sent of 4, %+v", sent, round.Zones[0])
	}
	if round := c.Run(t.Context(), one, zones, nil); round.Zones[0].State != rbl.NotAsked || round.Zones[1].State != rbl.Healthy {
		t.Errorf("%+v", round.Zones)
	}
	now = now.Add(2 * time.Hour)
	if round := c.Run(t.Context(), one, zones, nil); round.Zones[0].State != rbl.Healthy {
		t.Errorf("the next day: %+v", round.Zones[0])
	}
}

// What belongs to no zone is counted, too: all that a round sent.
func TestSentIsAll(t *testing.T) {
	f := newFake("r").serve("wild.example", func(string, rbl.Type) rbl.Response { return addrs("127.0.0.2") })
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})
	round := c.Run(t.Context(), []rbl.Subject{ip("192.0.2.1")}, []rbl.Zone{zone4("wild.example")}, nil)
	sent := c.Sent()
	if sent[""] == 0 || sent[""]+sent["wild.example"] != round.Queries {
		t.Errorf("%v of %d", sent, round.Queries)
	}
}

func TestRoundsAtOnce(t *testing.T) {
	f := newFake("r")
	zones, subjects := many(f, 10, 10)
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { c.Run(t.Context(), subjects, zones, nil) })
		wait.Go(func() { c.Again(t.Context(), subjects[0], &zones[0], "r") })
	}
	wait.Wait()
}
