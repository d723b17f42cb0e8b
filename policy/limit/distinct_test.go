package limit_test

import (
	"math"
	"testing"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

func distinct(value string, items []limit.Item, windows ...limit.Window) limit.Charge {
	return limit.Charge{Key: limit.Key{Limit: "d", Value: value}, Kind: limit.Volume, Counts: limit.Distinct, Windows: windows, Items: items}
}

// The package's comment states the error of a sample; twice it is never passed
// on the average of many.
func TestDistinctErrorIsAsStated(t *testing.T) {
	const exact, buckets = 1000, 40
	window := limit.Window{Count: limit.MaxCount, Length: time.Hour}
	for _, real := range []int{900, 1500, 3000, 20_000} {
		m, squares := limit.NewMemoryOf(limit.MemoryOptions{DistinctExact: exact}), 0.0
		for b := range uint64(buckets) {
			items := limittest.Items(b*100_000+uint64(real), real)
			for len(items) > 0 {
				n := min(500, len(items))
				spend(t, m, now, distinct("login:taro@example.jp", items[:n], window))
				items = items[n:]
			}
			off := float64(spend(t, m, now, distinct("login:taro@example.jp", nil, window)).Uses[0].Used)/float64(real) - 1
			squares += off * off
			if err := m.Reset(t.Context(), now, limit.Key{Limit: "d", Value: "login:taro@example.jp"}); err != nil {
				t.Fatal(err)
			}
		}
		got, stated := math.Sqrt(squares/buckets), 1.2/math.Sqrt(exact)
		t.Logf("%d recipients: standard error %.2f %%, stated %.2f %%", real, 100*got, 100*stated)
		if got > 1.5*stated || real <= exact && got > 0 {
			t.Errorf("%d recipients: standard error %.4f, stated %.4f", real, got, stated)
		}
	}
}

func TestSweepLeavesDistinctAnswers(t *testing.T) {
	m, other := limit.NewMemory(), limit.NewMemory()
	items, windows := limittest.Items(1, 3000), []limit.Window{{Count: limit.MaxCount, Length: time.Minute}, {Count: limit.MaxCount, Length: time.Hour}}
	for i := range 300 {
		at := now.Add(time.Duration(i) * time.Minute)
		c := distinct("login:taro@example.jp", items[10*i:10*i+10], windows...)
		if i%7 == 0 {
			m.Sweep(at)
		}
		a, b := spend(t, m, at, c), spend(t, other, at, c)
		if a.Uses[1] != b.Uses[1] || a.Uses[1].Used != int64(10*min(i, 60)) {
			t.Fatalf("%d: %+v, without a sweep %+v", i, a.Uses[1], b.Uses[1])
		}
	}
	kept := func(m *limit.Memory) int { return len(states(t, m)[0].Distinct.Items) }
	m.Sweep(now.Add(299 * time.Minute))
	if kept(m) != 610 || kept(other) <= 610 {
		t.Errorf("%d items kept, %d without a sweep; want 610 of them", kept(m), kept(other))
	}
}
