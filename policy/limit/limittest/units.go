package limittest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// bouncesAllowedAreUsedUp: bounces come by Add, messages ask with nothing.
func bouncesAllowedAreUsedUp(t *testing.T, s limit.Store) {
	bounces := func(key string, amount int64) limit.Charge {
		c := charge(key, amount, window(3, time.Hour))
		c.Counts = limit.Bounces
		return c
	}
	for i, key := range []string{"a", "abuse"} {
		wantTaken(t, spend(t, s, 0, bounces(key, 0)), true)
		for range 2 {
			if err := Add(t.Context(), s, start, []limit.Charge{bounces(key, 1)}); err != nil {
				t.Fatal(err)
			}
		}
		wantTaken(t, spend(t, s, 0, bounces(key, 0)), true)
		if err := Add(t.Context(), s, start.Add(time.Minute), []limit.Charge{bounces(key, 1)}); err != nil {
			t.Fatal(err)
		}
		out := spend(t, s, time.Minute, bounces(key, 0))
		wantTaken(t, out, false)
		wantUsed(t, out, 3)
		u := out.Uses[0]
		if want := start.Add(time.Hour + time.Minute + time.Microsecond); !u.Over || u.Never || u.Amount != 0 || !u.FreeAt.Equal(want) || out.Latched[0] != (i == 1) {
			t.Errorf("%s: %+v", key, out)
		}
		out = spend(t, s, 2*time.Hour, bounces(key, 0))
		wantTaken(t, out, i == 0)
		if out.Attempts[0] != 0 {
			t.Errorf("%s: %d attempts, want 0", key, out.Attempts[0])
		}
	}
}

func bytesAreAmounts(t *testing.T, s limit.Store) {
	c := charge("a", 40<<20, window(100<<20, time.Hour))
	c.Counts = limit.Bytes
	wantTaken(t, spend(t, s, 0, c), true)
	wantTaken(t, spend(t, s, 0, c), true)
	out := spend(t, s, 0, c)
	wantTaken(t, out, false)
	wantUsed(t, out, 80<<20)
	wantAmount(t, out, 40<<20)
	if out.Attempts[0] != 0 || peek(t, s, 0, c).Attempts[0] != 40<<20 {
		t.Errorf("%+v", out)
	}
}

func tellsStopNothing(t *testing.T, s limit.Store) {
	hard, told := charge("a", 3, window(100, time.Hour)), charge("b", 3, window(7, time.Hour))
	abuse := charge("abuse", 3, window(4, time.Hour))
	told.Tells, abuse.Tells = true, true
	for i := range 4 {
		out := spend(t, s, 0, hard, told, abuse)
		wantTaken(t, out, true)
		n := int64(i)
		wantUsed(t, out, 3*n, min(3*n, 6), min(3*n, 3))
		if out.Uses[1].Over != (i >= 2) || out.Uses[2].Over != (i >= 1) || out.Uses[2].Never != (i >= 2) {
			t.Errorf("%d: %+v", i, out.Uses)
		}
		if want := []int64{0, max(0, 3*n-6), max(0, 3*n-3)}; !slices.Equal(out.Attempts, want) || !slices.Equal(out.Latched, []bool{false, false, i >= 1}) {
			t.Errorf("%d: attempts %d, want %d; latched %t", i, out.Attempts, want, out.Latched)
		}
	}
}

// tellsAreWeighedAlone: what others stop leaves nothing in them.
func tellsAreWeighedAlone(t *testing.T, s limit.Store) {
	full, told := charge("a", 5, window(4, time.Hour)), charge("abuse", 5, window(4, time.Hour))
	told.Tells = true
	for range 3 {
		out := spend(t, s, 0, full, told)
		wantTaken(t, out, false)
		if u := out.Uses[1]; !u.Over || out.Attempts[1] != 0 || out.Latched[1] {
			t.Errorf("%+v", out)
		}
	}
	told.Amount = 2
	out := spend(t, s, 0, told)
	wantTaken(t, out, true)
	wantUsed(t, out, 0)
	wantTaken(t, spend(t, s, 0, full, told), false)
	wantUsed(t, peek(t, s, 0, told), 2)
	// Distinct and first-time charges may tell as well, and all learn.
	all := Items(20, 6)
	d, f := distinct("d", all[:5], window(4, time.Hour)), firstTime("f", all[:5], window(5, time.Hour))
	d.Tells, f.Tells = true, true
	out = mail(t, s, 0, "taro", all[:5], d, f)
	wantTaken(t, out, true)
	if !out.Uses[0].Never || out.Uses[1].Over {
		t.Errorf("%+v", out)
	}
	out = mail(t, s, 0, "taro", all[:5], d, f)
	wantUsed(t, out, 0, 5)
	wantAmount(t, out, 5, 0)
	if !slices.Equal(out.Attempts, []int64{5, 0}) {
		t.Errorf("%+v", out)
	}
}

// outcomeIsReused: nothing of an earlier answer is left.
func outcomeIsReused(t *testing.T, s limit.Store) {
	big, small := charge("abuse", 9, window(4, time.Hour), window(5, time.Minute)), charge("a", 1, window(4, time.Hour))
	var out limit.Outcome
	for _, charges := range [][]limit.Charge{{big, small}, {small}, {}, {small, small, big}, {small}} {
		want, err := Peek(t.Context(), s, start, charges)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Spend(t.Context(), start, &limit.Step{Charges: charges}, &out); err != nil {
			t.Fatal(err)
		}
		if len(out.Uses) != len(want.Uses) || !slices.Equal(out.Uses, want.Uses) || !slices.Equal(out.Latched, want.Latched) || !slices.Equal(out.Attempts, want.Attempts) || out.Taken != want.Taken {
			t.Errorf("%+v, want %+v", out, want)
		}
	}
}

// manyCharges: one step may have MaxCharges, each with a bucket of its own.
func manyCharges(t *testing.T, s limit.Store) {
	charges := make([]limit.Charge, limit.MaxCharges)
	for i := range charges {
		charges[i] = charge("a", 1, window(2, time.Hour))
		charges[i].Key.Value = fmt.Sprintf("login:taro@example.jp recipient_domain:d%d.example", i)
	}
	for i := range 3 {
		wantTaken(t, spend(t, s, 0, charges...), i < 2)
	}
	wantTaken(t, spend(t, s, 0, charges[0]), false)
	// The last of many may be the second of its key.
	charges[len(charges)-1] = charges[0]
	charges[0].Amount = 0
	out := peek(t, s, 0, charges...)
	if u := out.Uses[len(out.Uses)-1]; u.Used != 2 || !u.Over {
		t.Errorf("%+v", u)
	}
}
