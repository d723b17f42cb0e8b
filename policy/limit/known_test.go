package limit_test

import (
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// write is a step that has an account write to items.
func write(t *testing.T, m *limit.Memory, at time.Time, account string, items []limit.Item) {
	t.Helper()
	var out limit.Outcome
	if err := m.Spend(t.Context(), at, &limit.Step{Known: limit.Known{Account: account, Items: items}}, &out); err != nil || !out.Taken {
		t.Fatal(out, err)
	}
}

// knownOf is what accounts know, as Each tells it.
func knownOf(t *testing.T, m *limit.Memory) map[string]*limit.KnownState {
	t.Helper()
	all := map[string]*limit.KnownState{}
	if err := m.Each(t.Context(), func(e limit.Entry) error {
		if e.Known != nil {
			all[e.Known.Account] = e.Known
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// In all there is a bound, too; who wrote last keeps what he knows.
func TestKnownIsBoundedInAll(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Known: 10_000, KnownPerAccount: 2000})
	for i := range 1000 {
		write(t, m, now.Add(time.Duration(i)*time.Second), fmt.Sprint("login:", i), limittest.Items(uint64(i), 100))
	}
	total, last := 0, 0
	for name, k := range knownOf(t, m) {
		total += len(k.Items)
		if name == "login:999" {
			last = len(k.Items)
		}
	}
	if total > 10_000 || total < 9000 || last != 100 {
		t.Errorf("%d known in all, want at most 10,000; %d of the last account, want 100", total, last)
	}
	// One account alone keeps within the bound of its own.
	for i := range 30 {
		write(t, m, now.Add(time.Hour), "login:big", limittest.Items(uint64(5000+i), 300))
	}
	if k := knownOf(t, m)["login:big"]; len(k.Items) != 2000 {
		t.Errorf("the big account knows %d, want 2,000", len(k.Items))
	}
}

// What Dirty tells is enough to make the same memory again.
func TestDirtyTellsWhatIsKnown(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{KnownPerAccount: 1000})
	copies := map[string]map[limit.Item]limit.KnownItem{}
	told := 0
	drain := func() {
		told = 0
		for m.Dirty(3, func(e limit.Entry) {
			c := copies[e.Known.Account]
			if c == nil {
				c = map[limit.Item]limit.KnownItem{}
				copies[e.Known.Account] = c
			}
			if len(e.Known.Items) > 256 || len(e.Known.Items) == 0 {
				t.Fatalf("%d items at once", len(e.Known.Items))
			}
			for _, k := range e.Known.Items {
				told++
				if c[k.Item] = k; k.Since == 0 {
					delete(c, k.Item)
				}
			}
		}) > 0 {
		}
	}
	for i := range 40 {
		write(t, m, now.Add(time.Duration(i)*time.Hour), fmt.Sprint("login:", i%3), limittest.Items(uint64(i%25), 100))
		if i%5 == 0 {
			drain()
		}
	}
	write(t, m, now, "login:swept", limittest.Items(1, 10))
	drain()
	m.Sweep(now.Add(limit.KnownTerm + time.Second))
	drain()
	if drain(); told != 0 {
		t.Errorf("%d told without a change", told)
	}
	if len(copies["login:swept"]) != 0 {
		t.Errorf("what was swept is still known: %v", copies["login:swept"])
	}
	delete(copies, "login:swept")
	for name, k := range knownOf(t, m) {
		want := map[limit.Item]limit.KnownItem{}
		for _, i := range k.Items {
			want[i.Item] = i
		}
		if !reflect.DeepEqual(copies[name], want) {
			t.Errorf("%s: told of %d, knows %d", name, len(copies[name]), len(want))
		}
		delete(copies, name)
	}
	if len(copies) > 0 {
		t.Errorf("told of accounts that are gone: %d", len(copies))
	}
}

// Spenders, a sweeper and two readers at once; then all is swept.
func TestItemsWhileSweeping(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 640, DistinctExact: 50, KnownPerAccount: 200, Known: 3000})
	window := limit.Window{Count: 100, Length: time.Hour}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			var out limit.Outcome
			for i := range 1500 {
				at, items := now.Add(time.Duration(i)*time.Minute), limittest.Items(uint64(i%300), 1+i%20)
				account := fmt.Sprint("login:", (g+i)%40)
				f := distinct(account, items, window)
				f.Key.Limit, f.Counts = "f", limit.FirstTime
				step := &limit.Step{Charges: []limit.Charge{distinct(account, items, window), f}, Known: limit.Known{Account: account, Items: items}}
				if err := m.Spend(t.Context(), at, step, &out); err != nil {
					t.Error(err)
				}
				switch i % 200 {
				case 0:
					m.Sweep(at)
				case 50:
					m.Dirty(100, func(limit.Entry) {})
				case 100:
					m.Each(t.Context(), func(e limit.Entry) error { return e.Check() })
				case 150:
					m.Reset(t.Context(), at, f.Key)
				}
			}
		})
	}
	all.Wait()
	total := 0
	for _, k := range knownOf(t, m) {
		total += len(k.Items)
	}
	if total == 0 || total > 3000 {
		t.Errorf("%d known, want at most 3,000", total)
	}
	m.Sweep(now.Add(2 * limit.MaxLength))
	for m.Dirty(1000, func(limit.Entry) {}) > 0 {
	}
	m.Sweep(now.Add(2 * limit.MaxLength))
	if n := m.Len(); n != 0 || len(knownOf(t, m)) != 0 {
		t.Errorf("%d buckets and %d accounts are left", n, len(knownOf(t, m)))
	}
}
