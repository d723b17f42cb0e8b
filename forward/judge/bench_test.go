package judge_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/judge"
)

// hosting are the rules of a large server: 100,000 aliases, 50,000 homes and
// 10,000 scripts; one in ten leads outside.
func hosting() map[string][]forward.Rule {
	units := map[string][]forward.Rule{}
	for i := range 100_000 {
		target := fmt.Sprintf("user%d@virt.test", i%60_000)
		if i%10 == 0 {
			target = fmt.Sprintf("phone%d@carrier.test", i)
		}
		if i%1000 < 300 && i < 50_000 { // lists
			target = fmt.Sprintf("user%d", i)
		}
		owner := fmt.Sprintf("alias%d@virt.test", i)
		if i%1000 < 300 && i < 50_000 {
			owner = fmt.Sprintf("list%d", i/1000)
		}
		units["aliases"] = append(units["aliases"], forward.Rule{Owner: owner, Mechanism: forward.Virtual, Target: target, Mode: forward.Redirect, Source: "/etc/postfix/virtual", Line: i + 1})
	}
	for i := range 60_000 {
		unit, mechanism, owner := fmt.Sprint("forward user", i), forward.DotForward, fmt.Sprint("user", i)
		if i >= 50_000 {
			unit, mechanism, owner = fmt.Sprint("sieve user", i), forward.Sieve, fmt.Sprintf("user%d@virt.test", i)
		}
		target := fmt.Sprintf("user%d@corp.test", (i+1)%50_000)
		if i%10 == 0 {
			target = fmt.Sprintf("me%d@gmail.test", i)
		}
		units[unit] = []forward.Rule{{Owner: owner, Mechanism: mechanism, Target: target, Mode: forward.Redirect, Source: "/home/x/.forward", Line: 1}}
	}
	return units
}

func BenchmarkLoad(b *testing.B) {
	units := hosting()
	for b.Loop() {
		judge.New(corpWorld()).Load(units)
	}
}

func BenchmarkSet(b *testing.B) {
	units := hosting()
	g := judge.New(corpWorld())
	g.Load(units)
	b.Run("home", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			g.Set("forward user7", []forward.Rule{{Owner: "user7", Mechanism: forward.DotForward, Target: fmt.Sprintf("e%d@evil.test", i), Mode: forward.Redirect}})
		}
	})
	b.Run("alias table", func(b *testing.B) {
		table := units["aliases"]
		for i := 0; b.Loop(); i++ {
			changed := append([]forward.Rule{{Owner: "new@virt.test", Mechanism: forward.Virtual, Target: fmt.Sprintf("e%d@evil.test", i), Mode: forward.Redirect}}, table...)
			for i := range changed {
				changed[i].Line = i + 1
			}
			g.Set("aliases", changed)
		}
	})
	b.Run("catch-all", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			g.Set("catch", []forward.Rule{{Owner: "@corp.test", Mechanism: forward.Virtual, Target: fmt.Sprintf("e%d@evil.test", i), Mode: forward.Redirect}})
		}
	})
}

// What is asked while mail waits, while a whole domain's rule and a table of 100,000
// aliases change again and again, each of which takes long. longest-us is the longest
// that one question took, p99.9-us what all but one in a thousand took at most.
func BenchmarkAskDuringSet(b *testing.B) {
	units := hosting()
	g := judge.New(corpWorld())
	g.Load(units)
	id := g.Targets("me10@gmail.test")[0]
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		sets := 0
		for i := 0; !stop.Load(); i++ {
			g.Set("catch", []forward.Rule{{Owner: "@corp.test", Mechanism: forward.Virtual, Target: fmt.Sprintf("e%d@evil.test", i), Mode: forward.Redirect}})
			g.Set("aliases", units["aliases"][i%2:])
			sets += 2
		}
		done <- sets
	}()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		g.Find(id)
		g.Targets("me10@gmail.test")
		if _, ok := g.Match("user10@corp.test", "me10@gmail.test"); !ok {
			b.Fatal("a rule that never changed is not known")
		}
		took = append(took, time.Since(began))
	}
	stop.Store(true)
	sets := <-done
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "longest-us")
	b.ReportMetric(float64(took[len(took)*999/1000].Microseconds()), "p99.9-us")
	b.ReportMetric(float64(sets), "sets")
}

func BenchmarkFindings(b *testing.B) {
	g := judge.New(corpWorld())
	g.Load(hosting())
	for b.Loop() {
		if len(g.Findings()) == 0 {
			b.Fatal("none")
		}
	}
}

func BenchmarkCanonical(b *testing.B) {
	w := corpWorld()
	for _, s := range []string{"user@evil.test", `"user%evil.test"@corp.test`} {
		b.Run(s, func(b *testing.B) {
			for b.Loop() {
				judge.Canonical(&w, s)
			}
		})
	}
}
