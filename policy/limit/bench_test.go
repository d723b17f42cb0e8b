package limit_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

var threeWindows = []limit.Window{{Count: limit.MaxCount, Length: 10 * time.Minute, Burst: true}, {Count: limit.MaxCount, Length: time.Hour}, {Count: limit.MaxCount, Length: 24 * time.Hour}}

const senders = 10_000

// stepsOf makes a step of n charges for each of the senders.
func stepsOf(n int) []limit.Step {
	steps := make([]limit.Step, senders)
	for i := range steps {
		for j := range n {
			steps[i].Charges = append(steps[i].Charges, limit.Charge{Key: limit.Key{Limit: "login-volume", Value: fmt.Sprintf("login:user%d.%d@example.jp", i, j)}, Kind: limit.Volume, Counts: limit.Recipients, Windows: threeWindows, Amount: 1})
		}
	}
	return steps
}

func BenchmarkSpend(b *testing.B) {
	for _, n := range []int{1, 3, 6} {
		b.Run(fmt.Sprint("keys", n), func(b *testing.B) {
			m, steps, out := limit.NewMemory(), stepsOf(n), &limit.Outcome{}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := m.Spend(b.Context(), now.Add(time.Duration(i)*time.Millisecond), &steps[i%senders], out); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkPlainMap is what Spend is compared with: a sharded map of counters.
func BenchmarkPlainMap(b *testing.B) {
	for _, n := range []int{1, 3, 6} {
		b.Run(fmt.Sprint("keys", n), func(b *testing.B) {
			type counter struct{ n, last int64 }
			var shards [64]struct {
				sync.Mutex
				counters map[limit.Key]*counter
			}
			for i := range shards {
				shards[i].counters = map[limit.Key]*counter{}
			}
			steps, i := stepsOf(n), 0
			for b.Loop() {
				for _, c := range steps[i%senders].Charges {
					s := &shards[c.Key.Value[len(c.Key.Value)/2]%64]
					s.Lock()
					k := s.counters[c.Key]
					if k == nil {
						k = &counter{}
						s.counters[c.Key] = k
					}
					k.n, k.last = k.n+c.Amount, int64(i)
					s.Unlock()
				}
				i++
			}
		})
	}
}

func BenchmarkSpendDistinct(b *testing.B) {
	m, out, items := limit.NewMemory(), &limit.Outcome{}, limittest.Items(1, 20_000)
	step := &limit.Step{Charges: []limit.Charge{{Key: limit.Key{Limit: "d", Value: "login:taro@example.jp"}, Kind: limit.Volume, Counts: limit.Distinct, Windows: threeWindows}}}
	i := 0
	for b.Loop() {
		step.Charges[0].Items = items[i%20_000:][:1]
		if err := m.Spend(b.Context(), now.Add(time.Duration(i)*time.Second), step, out); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkSpendFirstTime(b *testing.B) {
	m, out, items := limit.NewMemoryOf(limit.MemoryOptions{KnownPerAccount: 50_000}), &limit.Outcome{}, limittest.Items(1, 200_000)
	step := &limit.Step{Known: limit.Known{Account: "taro"}, Charges: []limit.Charge{{Key: limit.Key{Limit: "f", Value: "login:taro@example.jp"}, Kind: limit.Volume, Counts: limit.FirstTime, Windows: threeWindows}}}
	i := 0
	for b.Loop() { // each of them is new: the account forgets one for each
		step.Known.Items = items[i%200_000:][:1]
		step.Charges[0].Items = step.Known.Items
		if err := m.Spend(b.Context(), now.Add(time.Duration(i)*time.Second), step, out); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// heap is the memory in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A million buckets, of three windows with one cell each, then with two, are to
// fit into 200 MB. A quarter fills maps and slices as full, in a quarter of the
// time.
func TestBucketsAreSmall(t *testing.T) {
	const n = limit.DefaultBuckets / 4
	before := heap()
	m, out := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 2 * n}), &limit.Outcome{}
	windows := []limit.Window{threeWindows[0], threeWindows[1], {Count: 2000, Length: 2 * time.Hour}}
	step := &limit.Step{Charges: []limit.Charge{{Kind: limit.Volume, Counts: limit.Recipients, Windows: windows, Amount: 3}}}
	for cells := 1; cells <= 2; cells++ {
		for i := range n {
			step.Charges[0].Key = limit.Key{Limit: "login-volume", Value: fmt.Sprintf("login:user%07d@example.jp", i)}
			if err := m.Spend(t.Context(), now.Add(time.Duration(cells)*9*time.Minute), step, out); err != nil || !out.Taken {
				t.Fatal(out, err)
			}
		}
		for m.Dirty(10_000, func(limit.Entry) {}) > 0 {
		}
		used := heap() - before
		t.Logf("%d buckets with %d cells in each window: %d MB, %d octets each", m.Len(), cells, used>>20, used/n)
		if used > 200*n {
			t.Errorf("%d octets a bucket, want at most 200", used/n)
		}
	}
	s := states(t, m)[0]
	for _, w := range s.Windows {
		if len(w.Cells) != 2 {
			t.Fatalf("%+v: the test shows nothing", s)
		}
	}
}
