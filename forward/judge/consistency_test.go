package judge_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"relayguard/forward"
	"relayguard/forward/judge"
)

// After any changes, in any order, a graph says what one says that loads the
// same; and the deltas add up to the findings.
func TestChangesAddUp(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 6))
		g := judge.New(corpWorld())
		units := map[string][]forward.Rule{}
		held := map[string]forward.Finding{}
		for range 40 {
			unit := fmt.Sprint("u", r.IntN(5))
			rules := randomRules(r)
			units[unit] = rules
			d := g.Set(unit, rules)
			for _, f := range d.Gone {
				delete(held, f.ID)
			}
			for _, f := range d.Appeared {
				held[f.ID] = f
			}
		}
		fresh := judge.New(corpWorld())
		fresh.Load(units)
		got, want := say(g.Findings()), say(fresh.Findings())
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: by changes\n%q\nloaded\n%q", seed, got, want)
		}
		for _, f := range append(fresh.All(), g.All()...) { // what is asked while mail waits, too
			if a, b := g.Targets(f.Target), fresh.Targets(f.Target); !slices.Equal(a, b) {
				t.Fatalf("seed %d: %s is led to by %q, loaded %q", seed, f.Target, a, b)
			}
			a, ok := g.Find(f.ID)
			if b, is := fresh.Find(f.ID); ok != is || a.Verdict != b.Verdict || a.Line != b.Line {
				t.Fatalf("seed %d: by changes %+v, loaded %+v", seed, a, b)
			}
		}
		if len(held) != len(want) {
			t.Fatalf("seed %d: the deltas leave %d findings, there are %d", seed, len(held), len(want))
		}
		for _, f := range g.Findings() {
			if held[f.ID].Verdict != f.Verdict {
				t.Fatalf("seed %d: %+v was told as %+v", seed, f, held[f.ID])
			}
		}
	}
}

// What no change concerns is known at every moment, whatever changes meanwhile.
func TestAskingDuringChanges(t *testing.T) {
	g := judge.New(corpWorld())
	stays := []forward.Rule{{Owner: "alice@corp.test", Mechanism: forward.Virtual, Target: "eve@evil.test", Mode: forward.Redirect}}
	g.Set("stays", stays)
	id := g.Targets("eve@evil.test")[0]
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := rand.New(rand.NewPCG(1, 6))
		for i := range 2000 {
			g.Set(fmt.Sprint("u", i%5), randomRules(r))
		}
		g.Load(map[string][]forward.Rule{"stays": stays, "u": randomRules(r)})
	}()
	for asked := false; ; asked = true {
		f, found := g.Find(id)
		got, matched := g.Match("alice@corp.test", "eve@evil.test")
		if !found || f.Target != "eve@evil.test" || !matched || got != id || !slices.Contains(g.Targets("eve@evil.test"), id) {
			t.Fatalf("%v %+v, matched %v %s", found, f, matched, got)
		}
		if !slices.ContainsFunc(g.Findings(), func(f forward.Finding) bool { return f.ID == id }) {
			t.Fatal("not among the findings")
		}
		select {
		case <-done:
			if asked {
				return
			}
		default:
		}
	}
}

func randomRules(r *rand.Rand) []forward.Rule {
	names := []string{"a", "b", "c", "d+x", "d", "a@virt.test", "b@virt.test", "b+x@virt.test", "@virt.test", "@corp.test", "*"}
	targets := []string{"a", "b", "c", "d", "d+x", "a@virt.test", "b+x@virt.test", "b@virt.test", "@virt.test", "@corp.test", "@evil.test", "e@evil.test", "f@evil.test"}
	mechanisms := []forward.Mechanism{forward.Aliases, forward.Virtual, forward.DotForward, forward.Sieve}
	rules := make([]forward.Rule, r.IntN(5))
	for i := range rules {
		rules[i] = forward.Rule{Owner: names[r.IntN(len(names))], Target: targets[r.IntN(len(targets))], Mechanism: mechanisms[r.IntN(len(mechanisms))], Mode: forward.Redirect, Line: i}
		switch r.IntN(8) {
		case 0:
			rules[i].Mode = forward.Copy
		case 1:
			rules[i].Dormant = "not active"
		}
	}
	return rules
}
