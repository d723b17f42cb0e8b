package redis_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
)

// BenchmarkSpend compares steps of a store with a script that does nothing,
// called one by one by the same client with as many keys of the same names: of
// that rate they reach so much. Named steps have an id and are remembered.
func BenchmarkSpend(b *testing.B) {
	for _, keys := range []int{1, 3, 6} {
		b.Run(fmt.Sprint("keys", keys), func(b *testing.B) {
			s := open(b, redistest.Server(b))
			charges := warmed(b, s, keys)
			for _, callers := range []int{1, 16, 64} {
				b.Run(fmt.Sprint("callers", callers), func(b *testing.B) {
					var empty float64
					b.Run("empty", func(b *testing.B) { empty = rate(b, callers, emptyScript(b, s.Client(), keys)) })
					b.Run("spend", func(b *testing.B) { b.ReportMetric(rate(b, callers, spends(s, charges, false))/empty, "of-empty") })
					b.Run("named", func(b *testing.B) { b.ReportMetric(rate(b, callers, spends(s, charges, true))/empty, "of-empty") })
				})
			}
		})
	}
}

const senders = 300

// warmed are charges of so many buckets each, all with cells in every window.
func warmed(b *testing.B, s *redis.Store, keys int) [][]limit.Charge {
	windows := []limit.Window{{Count: limit.MaxCount, Length: 10 * time.Minute, Burst: true}, {Count: limit.MaxCount, Length: time.Hour}, {Count: limit.MaxCount, Length: 24 * time.Hour}}
	charges := make([][]limit.Charge, senders)
	for i := range charges {
		for j := range keys {
			charges[i] = append(charges[i], limit.Charge{Key: limit.Key{Limit: "login-volume", Value: fmt.Sprintf("login:user%d.%d@example.jp", i, j)}, Kind: limit.Volume, Counts: limit.Recipients, Windows: windows, Amount: 1})
		}
	}
	for _, step := range []time.Duration{90 * time.Minute, 4 * time.Minute, 40 * time.Second} {
		for i := range 15 {
			at := time.Now().Add(-time.Duration(16-i) * step)
			for j := range charges {
				if err := s.Add(b.Context(), at, &limit.Step{Charges: charges[j]}); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	return charges
}

func emptyScript(b *testing.B, client goredis.UniversalClient, keys int) func(int) error {
	sha, err := client.ScriptLoad(b.Context(), "return 1").Result()
	if err != nil {
		b.Fatal(err)
	}
	names := make([][]string, senders)
	for i := range names {
		for j := range keys {
			names[i] = append(names[i], fmt.Sprintf("{relayguard}:b:12:login-volumelogin:user%d.%d@example.jp", i, j))
		}
	}
	return func(i int) error { return client.EvalSha(b.Context(), sha, names[i%senders]).Err() }
}

var ids atomic.Int64 // no step is a repeat

func spends(s *redis.Store, charges [][]limit.Charge, named bool) func(int) error {
	outs := sync.Pool{New: func() any { return &limit.Outcome{} }}
	return func(i int) error {
		out := outs.Get().(*limit.Outcome)
		defer outs.Put(out)
		step := limit.Step{Charges: charges[i%senders]}
		if named {
			step.ID = fmt.Sprint("relay1-", ids.Add(1))
		}
		return s.Spend(context.Background(), time.Now(), &step, out)
	}
}

// rate has so many callers do b.N calls, and says how many that is a second.
func rate(b *testing.B, callers int, do func(i int) error) float64 {
	var next atomic.Int64
	var all sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	start := time.Now()
	for range callers {
		all.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := do(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	steps := float64(b.N) / time.Since(start).Seconds()
	b.ReportMetric(steps, "steps/s")
	return steps
}
