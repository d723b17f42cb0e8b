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

// paced are lists of one operator, with its terms, and addresses.
func paced(f *fake, operator string, perSecond float64, lists, subjects int) ([]rbl.Zone, []rbl.Subject) {
	var zones []rbl.Zone
	for i := range lists {
		z := zone4(fmt.Sprintf("bl%d.%s", i, operator))
		z.Operator, z.Ranges = operator, true
		if i == 0 { // that one list says it is enough
			z.Terms.PerSecond = perSecond
		}
		f.serve(z.Name, well(entries{"1.2.0.192": addrs("127.0.0.2")}).server())
		zones = append(zones, z)
	}
	_, all := many(newFake(""), 0, subjects)
	return zones, all
}

func of(operator string) func(string) bool {
	return func(question string) bool { return strings.Contains(question, "."+operator+" ") }
}

// What an operator's terms say is kept for all its lists together, by all that a
// Checker does at once; who says nothing is asked 50 times a second at most.
func TestOperatorsPace(t *testing.T) {
	for name, c := range map[string]struct {
		perSecond float64
		so        int // in so long: one more takes longer
		long      time.Duration
	}{
		"five a second":    {5, 5, time.Second},
		"nothing is said":  {0, 50, time.Second},
		"one in two":       {0.5, 1, 2 * time.Second},
		"two and a half":   {2.5, 2, 800 * time.Millisecond},
		"a great many":     {1e6, 50, 50 * time.Microsecond},
		"a hundred, by 50": {100, 50, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake("r")
				f.delay = time.Millisecond
				zones, subjects := paced(f, "op.example", c.perSecond, 3, 30)
				checker := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 40})
				var wait sync.WaitGroup
				for range 2 {
					wait.Go(func() {
						for _, a := range checker.Run(t.Context(), subjects, zones, nil).Answers {
							if (a.Result == rbl.Listed) != (a.Subject == subjects[0]) || a.Result == rbl.Unknown {
								t.Errorf("%+v", a)
							}
						}
					})
				}
				wait.Go(func() { checker.Again(t.Context(), subjects[0], &zones[1], "r") })
				wait.Go(func() {
					checker.Neighbours(t.Context(), []netip.Prefix{netip.MustParsePrefix("203.0.113.7/24")}, zones, 16)
				})
				wait.Wait()
				if got := f.tightest(c.so+1, of("op.example")); got < c.long {
					t.Errorf("%d questions in %v, want at most %d in %v", c.so+1, got, c.so, c.long)
				}
			})
		})
	}
}

// Lists without an operator are each asked by themselves.
func TestPaceWithoutOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		zones, subjects := paced(f, "nobody.example", 0, 20, 30)
		for i := range zones {
			zones[i].Operator = ""
		}
		if took := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), subjects, zones, nil).Took; took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// An operator that is to be asked slowly holds up nobody else, however little room
// there is.
func TestPacedOperatorHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		f.delay = time.Millisecond
		slow, subjects := paced(f, "slow.example", 0.1, 5, 10)
		quick, _ := many(f, 20, 0)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{f}, Parallel: 2})
		began := time.Now()
		var last time.Duration
		round := c.Run(t.Context(), subjects, append(slow, quick...), func(done, _ int) {
			if done == 200 {
				last = time.Since(began)
			}
		})
		if last == 0 || last > time.Second || round.Took < 5*time.Minute {
			t.Errorf("others were there after %v, the round took %v", last, round.Took)
		}
	})
}

// Who waits for his turn does not outlive ctx, and does not keep it from others.
func TestContextEndsWaitForTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		zones, subjects := paced(f, "op.example", 0.01, 2, 10)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		round := c.Run(ctx, subjects, zones, nil)
		if round.Took != time.Second || round.Queries != 1 {
			t.Errorf("took %v for %d queries", round.Took, round.Queries)
		}
		for _, a := range round.Answers {
			if a.Result != rbl.Unknown || a.Why == "" {
				t.Errorf("%+v", a)
			}
		}
		if a, _ := c.Again(t.Context(), subjects[0], &zones[1], "r"); a.Result != rbl.Listed {
			t.Errorf("%+v", a)
		}
		if got := f.tightest(2, of("op.example")); got != 100*time.Second {
			t.Errorf("two in %v, want 100 s", got)
		}
	})
}

// Terms that change with the table are kept from then on.
func TestTermsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("r")
		zones, subjects := paced(f, "op.example", 1, 1, 20)
		c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})
		if took := c.Run(t.Context(), subjects, zones, nil).Took; took < 20*time.Second {
			t.Errorf("took %v", took)
		}
		zones[0].Terms.PerSecond = 0
		if took := c.Run(t.Context(), subjects, zones, nil).Took; took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}
