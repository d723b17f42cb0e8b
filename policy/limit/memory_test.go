package limit_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func open(*testing.T) limit.Store { return limit.NewMemoryOf(limittest.Options()) }

func TestMemory(t *testing.T) { limittest.Store(t, open) }

func TestMemoryAtLength(t *testing.T) { limittest.Random(t, 100, open) }

// states are the buckets of a memory.
func states(t *testing.T, m *limit.Memory) (all []*limit.State) {
	t.Helper()
	if err := m.Each(t.Context(), func(e limit.Entry) error {
		if e.State != nil {
			all = append(all, e.State)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestKeysSurviveJSON(t *testing.T) {
	for _, value := range []string{"login:taro@example.jp", "login:\xff", "login:\xfe", "login:\ufffd", "login:\x00\u2028<&>", "login:あ"} {
		s := limit.State{Key: limit.Key{Limit: "l", Value: value}, Windows: []limit.WindowState{{Length: time.Hour}}}
		data, err := json.Marshal(s)
		var read limit.State
		if err2 := json.Unmarshal(data, &read); err != nil || err2 != nil || read.Key != s.Key {
			t.Errorf("%q: %s reads as %q, %v, %v", s.Key, data, read.Key, err, err2)
		}
	}
}

// bucket is a charge of the bucket with this number.
func bucket(i int, kind limit.Kind, amount int64) limit.Charge {
	return limit.Charge{Key: limit.Key{Limit: "l", Value: fmt.Sprint("login:", i)}, Kind: kind, Windows: []limit.Window{{Count: 10, Length: time.Hour}}, Amount: amount}
}

func spend(t *testing.T, m *limit.Memory, at time.Time, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	out, err := limittest.Spend(t.Context(), m, at, charges)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBucketsAreBounded(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 6400})
	for i := range 50_000 {
		spend(t, m, now.Add(time.Duration(i)*time.Millisecond), bucket(i, limit.Volume, 1))
	}
	if n := m.Len(); n > 9600 || n < 6400 {
		t.Errorf("%d buckets, want 6,400 and a headroom of the root of each part's 100, five times", n)
	}
	if m.Evicted() != uint64(50_000-m.Len()) {
		t.Errorf("%d evicted, %d there", m.Evicted(), m.Len())
	}
}

// Review 5, finding 5: which part a bucket comes into is chance.
func TestAsManyBucketsFitAsAreAskedFor(t *testing.T) {
	for _, n := range []int{1000, 64_000} {
		m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: n})
		for i := range n {
			spend(t, m, now, bucket(i, limit.Volume, 1))
		}
		if m.Evicted() != 0 || m.Len() != n {
			t.Errorf("of %d buckets %d are there, %d were evicted", n, m.Len(), m.Evicted())
		}
	}
}

// Review 5, finding 3: a clock that was wrong once.
func TestBucketsOfTheFutureAreFound(t *testing.T) {
	m := limit.NewMemory()
	if a := m.Ahead(); a != (limit.Ahead{}) {
		t.Errorf("of nothing: %+v", a)
	}
	last := now.Add(3 * 365 * 24 * time.Hour)
	for i, at := range []time.Time{now, now.Add(time.Hour), now.Add(time.Hour + time.Microsecond), last, last.Add(-time.Second)} {
		spend(t, m, at, bucket(i, limit.Volume, 1))
	}
	stopped := bucket(9, limit.Abuse, 99) // only its attempts are
	spend(t, m, now.Add(2*time.Hour), stopped)
	m.Sweep(now)
	if a := m.Ahead(); a.Buckets != 4 || a.Key != bucket(3, 0, 0).Key || !a.Until.Equal(last) {
		t.Errorf("%+v", a)
	}
	for _, i := range []int{2, 3, 4, 9} {
		if err := m.Reset(t.Context(), now, bucket(i, 0, 0).Key); err != nil {
			t.Fatal(err)
		}
	}
	if m.Sweep(now); m.Ahead().Buckets != 0 {
		t.Errorf("after a reset: %+v", m.Ahead())
	}
}

func TestTheOldestGoFirstAndWhoGoesOnStays(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 640})
	busy, quiet := bucket(-1, limit.Volume, 1), bucket(-2, limit.Volume, 10)
	busy.Windows = []limit.Window{{Count: 1_000_000, Length: 24 * time.Hour}}
	spend(t, m, now, quiet)
	const others = 20_000
	for i := range others {
		spend(t, m, now.Add(time.Duration(i+1)*time.Millisecond), bucket(i, limit.Volume, 1), busy)
	}
	at := now.Add(time.Minute)
	if out := spend(t, m, at, busy); out.Uses[0].Used != others {
		t.Errorf("the busy bucket knows of %d, want %d", out.Uses[0].Used, others)
	}
	if out := spend(t, m, at, bucket(others-1, limit.Volume, 0)); out.Uses[0].Used != 1 {
		t.Errorf("the newest bucket was evicted")
	}
	if out := spend(t, m, at, quiet); out.Uses[0].Used != 0 {
		t.Errorf("the oldest bucket was not evicted; the test shows nothing")
	}
}

func TestExpiredBucketsAreNotEvictions(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 640})
	for i := range 20_000 {
		spend(t, m, now.Add(time.Duration(i)*time.Minute), bucket(i, limit.Volume, 1))
	}
	if n := m.Evicted(); n > 0 {
		t.Errorf("%d evicted, want 0: all had expired", n)
	}
}

func TestShutBucketsAreNeverForgotten(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 64})
	const most = 64 * 6 // one a part, with its headroom
	var full error
	shut := 0
	for i := range 4000 {
		switch out, err := limittest.Spend(t.Context(), m, now.Add(time.Duration(i)*time.Hour), []limit.Charge{bucket(i, limit.Abuse, 11)}); {
		case err != nil:
			full = err
		case out.Latched[0]:
			shut++
		}
	}
	if full == nil || shut != most {
		t.Fatalf("%d shut, then %v", shut, full)
	}
	if n := m.Sweep(now.Add(1000 * 24 * time.Hour)); n != 0 || m.Len() != most {
		t.Errorf("swept %d shut buckets, %d left", n, m.Len())
	}
	for _, s := range states(t, m) {
		if s.Latched.IsZero() {
			t.Errorf("%+v is open", s)
		}
	}
}

func TestShutBucketsLeaveTheOthersBounded(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 6400})
	for i := range 1000 { // the oldest of all
		spend(t, m, now, bucket(-i, limit.Abuse, 11))
	}
	for i := range 20_000 {
		spend(t, m, now.Add(time.Second+time.Duration(i)*time.Millisecond), bucket(i+1, limit.Volume, 1))
	}
	shut := 0
	for _, s := range states(t, m) {
		if !s.Latched.IsZero() {
			shut++
		}
	}
	if n := m.Len(); n > 9600 || shut != 1000 {
		t.Errorf("%d buckets, want at most 9,600; %d shut, want 1,000", n, shut)
	}
}

func TestStepLargerThanTheMemory(t *testing.T) {
	m := limit.NewMemoryOf(limit.MemoryOptions{Buckets: 1})
	for round := range 20 {
		var charges []limit.Charge
		for i := range limit.MaxCharges {
			charges = append(charges, bucket(round*limit.MaxCharges+i, limit.Volume, 4))
		}
		for i := range 3 {
			if out := spend(t, m, now.Add(time.Duration(round)*time.Second), charges...); out.Taken != (i < 2) {
				t.Fatalf("%d: %+v", i, out)
			}
		}
	}
	if n := m.Len(); n > limit.MaxCharges+64*3 { // those of the last step are protected
		t.Errorf("%d buckets", n)
	}
}

func TestSweep(t *testing.T) {
	m := limit.NewMemory()
	for i := range 3000 {
		spend(t, m, now.Add(time.Duration(i)*time.Second), bucket(i, limit.Volume, 1))
	}
	if n := m.Sweep(now.Add(time.Hour)); n != 0 {
		t.Errorf("swept %d buckets that count", n)
	}
	if n := m.Sweep(now.Add(time.Hour + 999*time.Second + time.Microsecond)); n != 1000 || m.Len() != 2000 {
		t.Errorf("swept %d, %d left; want 1000, 2000", n, m.Len())
	}
}

func TestSweepWhileSpending(t *testing.T) {
	m := limit.NewMemory()
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 5000 {
				at := now.Add(time.Duration(i) * time.Minute)
				if _, err := limittest.Spend(t.Context(), m, at, []limit.Charge{bucket(g*10_000+i, limit.Volume, 1), bucket(i%7, limit.Volume, 1)}); err != nil {
					t.Error(err)
				}
				if i%500 == 0 {
					m.Sweep(at)
					m.Dirty(100, func(limit.Entry) {})
					m.Each(t.Context(), func(limit.Entry) error { return nil })
				}
			}
		})
	}
	all.Wait()
}

func TestDirtyTellsEachChangeOnce(t *testing.T) {
	m := limit.NewMemory()
	told := map[limit.Key]int{}
	drain := func() {
		clear(told)
		for m.Dirty(7, func(e limit.Entry) { told[e.State.Key]++ }) > 0 {
		}
	}
	for i := range 1000 {
		spend(t, m, now, bucket(i, limit.Volume, 1))
		spend(t, m, now, bucket(i, limit.Volume, 1))
	}
	drain()
	if len(told) != 1000 {
		t.Errorf("%d told, want 1000", len(told))
	}
	for key, n := range told {
		if n != 1 {
			t.Errorf("%q told %d times", key, n)
		}
	}
	if drain(); len(told) > 0 {
		t.Errorf("told without a change: %v", told)
	}
	if _, err := limittest.Peek(t.Context(), m, now, []limit.Charge{bucket(3, limit.Volume, 1), bucket(-1, limit.Volume, 1)}); err != nil {
		t.Fatal(err)
	}
	if drain(); len(told) > 0 {
		t.Errorf("told after a look: %v", told)
	}
	if err := m.Reset(t.Context(), now, bucket(3, limit.Volume, 1).Key); err != nil {
		t.Fatal(err)
	}
	spend(t, m, now, bucket(4, limit.Abuse, 100)) // an attempt, and a latch
	gone, shut := 0, 0
	m.Dirty(100, func(e limit.Entry) {
		if s := e.State; s.Gone() {
			gone++
		} else if !s.Latched.IsZero() && len(s.Attempts) == 1 {
			shut++
		}
	})
	if gone != 1 || shut != 1 {
		t.Errorf("%d gone, %d shut; want one each", gone, shut)
	}
	if err := m.Resume(t.Context(), now, bucket(4, limit.Abuse, 1).Key); err != nil {
		t.Fatal(err)
	}
	if drain(); len(told) != 1 {
		t.Errorf("told of a resume: %v", told)
	}
}

// Half a one leaves room for the garbage collector's own.
func TestSpendAllocatesNothing(t *testing.T) {
	m := limit.NewMemory()
	var charges []limit.Charge
	items := limittest.Items(1, 20)
	for i := range 6 {
		c := bucket(i, limit.Volume, 1)
		c.Windows = []limit.Window{{Count: limit.MaxCount, Length: 10 * time.Minute}, {Count: limit.MaxCount, Length: time.Hour}, {Count: limit.MaxCount, Length: 24 * time.Hour}}
		c.Items, c.Counts = items, []limit.Unit{limit.Recipients, limit.Bytes, limit.Messages, limit.Distinct, limit.FirstTime, limit.Bounces}[i]
		charges = append(charges, c)
	}
	at := now
	step, out := &limit.Step{Known: limit.Known{Account: "taro", Items: items}}, &limit.Outcome{}
	once := func() {
		if err := m.Spend(t.Context(), at, step, out); err != nil || !out.Taken {
			t.Fatal(out, err)
		}
	}
	step.Charges = charges
	for range 2000 { // until every slot has been used
		at = at.Add(time.Minute)
		once()
	}
	for _, n := range []int{1, 3, 6} {
		step.Charges = charges[:n]
		if allocs := testing.AllocsPerRun(1000, func() {
			at = at.Add(10 * time.Second)
			once()
		}); allocs > 0.5 {
			t.Errorf("%d charges: %.1f allocations, want none", n, allocs)
		}
	}
}

func TestPutRefusesDamage(t *testing.T) {
	m := limit.NewMemory()
	if err := m.Put(t.Context(), limit.Entry{State: &limit.State{Key: limit.Key{Limit: "l"}}}); err == nil {
		t.Error("an empty key")
	}
	if m.Len() != 0 {
		t.Error("it was put")
	}
}
