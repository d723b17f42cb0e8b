package limittest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// Items are n recipients, the same for the same seed.
func Items(seed uint64, n int) []limit.Item {
	r, items := rand.New(rand.NewPCG(seed, 7)), make([]limit.Item, n)
	for i := range items {
		items[i] = limit.Item(r.Uint64())
	}
	return items
}

func distinct(key string, items []limit.Item, windows ...limit.Window) limit.Charge {
	c := charge(key, 0, windows...)
	c.Counts, c.Items = limit.Distinct, items
	return c
}

func wantAmount(t *testing.T, out limit.Outcome, want ...int64) {
	t.Helper()
	var got []int64
	for _, u := range out.Uses {
		got = append(got, u.Amount)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("amounts %d, want %d", got, want)
	}
}

func distinctCountsEachOnce(t *testing.T, s limit.Store) {
	all, minute, hour := Items(1, 10), window(6, time.Minute), window(8, time.Hour)
	wantTaken(t, spend(t, s, 0, distinct("a", all[:4], minute, hour)), true)
	for i := range 5 {
		out := spend(t, s, time.Duration(i)*time.Second, distinct("a", all[:4], minute, hour))
		wantTaken(t, out, true)
		wantUsed(t, out, 4, 4)
		wantAmount(t, out, 0, 0)
	}
	out := spend(t, s, 4*time.Second, distinct("a", all[2:7], minute, hour)) // three new ones: 7 of 6
	wantTaken(t, out, false)
	wantAmount(t, out, 3, 3)
	if !out.Uses[0].Over || out.Uses[1].Over {
		t.Errorf("%+v", out.Uses)
	}
	// The first four were last written to after 4 s, and the window is closed.
	wantUsed(t, peek(t, s, time.Minute+4*time.Second, distinct("a", all[:1], minute, hour)), 4, 4)
	out = spend(t, s, time.Minute+4*time.Second+time.Microsecond, distinct("a", all[2:7], minute, hour))
	wantTaken(t, out, true)
	wantUsed(t, out, 0, 4)
	wantAmount(t, out, 5, 3)
	if out.Attempts[0] != 3 {
		t.Errorf("%d attempts, want 3", out.Attempts[0])
	}
	ask := peek(t, s, 2*time.Minute, distinct("a", nil, minute, hour))
	wantTaken(t, ask, true)
	wantUsed(t, ask, 5, 7)
}

func distinctFreeAt(t *testing.T, s limit.Store) {
	all, w := Items(2, 12), window(6, time.Hour)
	for i := range 6 {
		wantTaken(t, spend(t, s, time.Duration(i)*time.Minute, distinct("a", all[i:i+1], w)), true)
	}
	for _, c := range []struct {
		items []limit.Item
		free  time.Duration // minutes; 0 is now
	}{
		{all[:6], 0},
		{all[6:7], 60},
		{all[6:8], 61},
		{all[:7], -1},                       // seven never fit
		{[]limit.Item{all[0], all[11]}, 61}, // its own leaving makes no room
		{append(all[:5:5], all[11]), 65},    // room is made by all[5] alone
	} {
		out := peek(t, s, 10*time.Minute, distinct("a", c.items, w))
		u := out.Uses[0]
		if u.Over != (c.free != 0) || u.Never != (c.free < 0) {
			t.Errorf("%+v", u)
		}
		if want := start.Add(c.free*time.Minute + time.Microsecond); c.free > 0 && !u.FreeAt.Equal(want) {
			t.Errorf("%d items are free at %s, want %s", len(c.items), u.FreeAt, want)
		}
	}
}

func distinctLatches(t *testing.T, s limit.Store) {
	all, w := Items(3, 6), window(3, time.Hour)
	wantTaken(t, spend(t, s, 0, distinct("abuse", all[:3], w)), true)
	out := spend(t, s, 0, distinct("abuse", all[2:4], w))
	wantTaken(t, out, false)
	if !out.Latched[0] || out.Uses[0].FreeAt.IsZero() {
		t.Errorf("at the trip: %+v", out)
	}
	out = spend(t, s, time.Second, distinct("abuse", all[:1], w)) // shut is shut
	wantTaken(t, out, false)
	if u := out.Uses[0]; !u.Over || !u.Never || out.Attempts[0] != 1 {
		t.Errorf("shut: %+v", out)
	}
	if err := s.Resume(t.Context(), start, distinct("abuse", nil).Key); err != nil {
		t.Fatal(err)
	}
	wantTaken(t, spend(t, s, time.Second, distinct("abuse", all[:3], w)), true)
}

// distinctSamples: over the exact number a bucket estimates, until what it left
// out is out of the longest window.
func distinctSamples(t *testing.T, s limit.Store) {
	minute, hour := window(limit.MaxCount, time.Minute), window(limit.MaxCount, time.Hour)
	exact := Options().DistinctExact
	all := Items(4, 20*exact)
	wantTaken(t, spend(t, s, 0, distinct("a", all[:exact], minute, hour)), true)
	wantUsed(t, peek(t, s, 0, distinct("a", nil, minute, hour)), int64(exact), int64(exact))
	wantTaken(t, spend(t, s, time.Second, distinct("a", all, minute, hour)), true)
	got := peek(t, s, time.Second, distinct("a", nil, minute, hour)).Uses[0].Used
	if real := int64(len(all)); got < real/2 || got > real*3/2 || got%2 != 0 {
		t.Errorf("estimated %d of %d", got, real)
	}
	// One who is in the sample is known, one who is not may be new.
	known := 0
	for _, i := range all[:100] {
		if peek(t, s, time.Second, distinct("a", []limit.Item{i}, minute, hour)).Uses[0].Amount == 0 {
			known++
		}
	}
	if known == 0 || known > 30 {
		t.Errorf("%d of 100 are known, want about 5", known)
	}
	wantUsed(t, peek(t, s, 61*time.Second+time.Microsecond, distinct("a", nil, minute, hour)), 0, got)
	later := time.Hour + time.Second + time.Microsecond
	wantTaken(t, spend(t, s, later, distinct("a", all[:10], minute, hour)), true)
	wantUsed(t, peek(t, s, later, distinct("a", nil, minute, hour)), 10, 10)
}

// distinctIsExactAgain a microsecond after what was left out last is out of the
// longest window, and that is known in advance.
func distinctIsExactAgain(t *testing.T, s limit.Store) {
	var odd, even []limit.Item // no sample has the first, every sample the second
	for i := range limit.Item(200) {
		odd, even = append(odd, 2*i+1), append(even, i<<32)
	}
	exact, w := int64(Options().DistinctExact), window(200, time.Hour)
	half := exact / 2
	wantTaken(t, spend(t, s, 0, distinct("a", odd[:exact+1], w)), true) // level 1
	wantTaken(t, spend(t, s, 10*time.Minute, distinct("a", even[:half], w)), true)
	wantUsed(t, peek(t, s, 20*time.Minute, distinct("a", nil, w)), 2*half)
	more := distinct("a", odd[exact+1:], window(2*half+200-exact-2, time.Hour))
	if u := peek(t, s, 20*time.Minute, more).Uses[0]; !u.FreeAt.Equal(start.Add(time.Hour + time.Microsecond)) {
		t.Errorf("%+v", u)
	}
	wantTaken(t, spend(t, s, 30*time.Minute, distinct("a", odd[:1], w)), true)
	at := 70*time.Minute + time.Microsecond // the even ones have left
	wantTaken(t, spend(t, s, at, distinct("a", even[:3], w)), true)
	wantUsed(t, peek(t, s, at, distinct("a", nil, w)), 6)
	wantUsed(t, peek(t, s, 90*time.Minute, distinct("a", nil, w)), 6)
	wantUsed(t, peek(t, s, 90*time.Minute+time.Microsecond, distinct("a", nil, w)), 3)
}

// distinctFullIsFull: who is left out of the sample does not pass on and on.
func distinctFullIsFull(t *testing.T, s limit.Store) {
	exact := int64(Options().DistinctExact)
	w, all, passed := window(4*exact, time.Hour), Items(5, int(10*exact)), int64(0)
	for i := range all {
		if spend(t, s, 0, distinct("a", all[i:i+1], w)).Taken {
			passed++
		}
	}
	if passed < 2*exact || passed > 8*exact {
		t.Errorf("%d passed, want about %d", passed, 4*exact)
	}
	out := spend(t, s, 0, distinct("a", Items(6, 300), window(4*exact, time.Hour)))
	if u := out.Uses[0]; out.Taken || !u.Never {
		t.Errorf("%+v", u)
	}
	out = spend(t, s, 0, distinct("a", Items(6, 30), w))
	if u := out.Uses[0]; out.Taken || !u.FreeAt.Equal(start.Add(time.Hour+time.Microsecond)) {
		t.Errorf("%+v", u)
	}
}

// unitEdited: what counted messages knows nothing of recipients, but a shut
// bucket stays shut.
func unitEdited(t *testing.T, s limit.Store) {
	all, w := Items(8, 5), window(5, time.Hour)
	wantTaken(t, spend(t, s, 0, charge("abuse", 4, w)), true)
	wantTaken(t, spend(t, s, 0, distinct("abuse", all, w)), true)
	wantTaken(t, spend(t, s, 0, charge("abuse", 5, w)), true)
	wantTaken(t, spend(t, s, 0, charge("abuse", 1, w)), false)
	wantTaken(t, spend(t, s, 0, distinct("abuse", all[:1], w)), false)
}

// mail is a step of one account.
func mail(t *testing.T, s limit.Store, at time.Duration, account string, to []limit.Item, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	var out limit.Outcome
	step := &limit.Step{Charges: charges, Known: limit.Known{Account: account, Items: to}}
	if err := s.Spend(t.Context(), start.Add(at), step, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func firstTime(key string, items []limit.Item, windows ...limit.Window) limit.Charge {
	c := charge(key, 0, windows...)
	c.Counts, c.Items = limit.FirstTime, items
	return c
}

func firstTimeCountsStrangers(t *testing.T, s limit.Store) {
	all, minute, hour := Items(9, 20), window(4, time.Minute), window(6, time.Hour)
	to := func(at time.Duration, account string, items []limit.Item) limit.Outcome {
		return mail(t, s, at, account, items, firstTime("a", items, minute, hour))
	}
	out := to(0, "taro", all[:4])
	wantTaken(t, out, true)
	wantAmount(t, out, 4, 4)
	out = to(time.Second, "taro", all[:4])
	wantTaken(t, out, true)
	wantAmount(t, out, 0, 0)
	wantUsed(t, out, 4, 4)
	out = to(time.Minute, "taro", all[3:5])
	wantTaken(t, out, false)
	wantAmount(t, out, 1, 1)
	if want := start.Add(time.Minute + time.Microsecond); !out.Uses[0].FreeAt.Equal(want) {
		t.Errorf("free at %s, want %s", out.Uses[0].FreeAt, want)
	}
	// What was refused is not known, and another account knows nobody.
	out = to(time.Minute+time.Microsecond, "taro", all[3:5])
	wantTaken(t, out, true)
	wantAmount(t, out, 1, 1)
	wantUsed(t, out, 0, 4)
	if out.Attempts[0] != 1 {
		t.Errorf("%d attempts, want 1", out.Attempts[0])
	}
	out = to(2*time.Minute, "hanako", all[:2])
	wantTaken(t, out, false)
	wantAmount(t, out, 2, 2)
	wantTaken(t, to(2*time.Minute, "hanako", all[:1]), true)
	out = to(3*time.Minute, "taro", all[:5]) // full, but all of them are known
	wantTaken(t, out, true)
	wantUsed(t, out, 1, 6)
}

func knownByAnyMail(t *testing.T, s limit.Store) {
	all, w := Items(10, 6), window(10, time.Hour)
	mail(t, s, 0, "taro", all[:1])
	mail(t, s, 0, "taro", all[1:2], charge("other", 1, w))
	wantTaken(t, mail(t, s, 0, "taro", all[2:3], charge("full", 11, w)), false)
	step := &limit.Step{Known: limit.Known{Account: "taro", Items: all[3:4]}}
	if err := s.Add(t.Context(), start, step); err != nil {
		t.Fatal(err)
	}
	step = &limit.Step{Known: limit.Known{Account: "taro", Items: all[4:5]}}
	var out limit.Outcome
	if err := s.Peek(t.Context(), start, step, &out); err != nil || !out.Taken {
		t.Fatal(out, err)
	}
	for i, want := range []int64{0, 0, 1, 0, 1} {
		out := mail(t, s, 0, "taro", nil, firstTime("a", all[i:i+1], w))
		wantAmount(t, out, want)
	}
}

// knownIsBounded: the longest unused go first; of those of one microsecond the
// smallest.
func knownIsBounded(t *testing.T, s limit.Store) {
	room := Options().KnownPerAccount
	w, all := window(limit.MaxCount, time.Hour), Items(11, 2*room)
	slices.Sort(all)
	first, second := all[:room], all[room:]
	mail(t, s, 0, "taro", first)
	mail(t, s, time.Second, "taro", first[:10]) // used again
	mail(t, s, 0, "taro", second[:20])          // time does not run backwards
	out := mail(t, s, time.Second, "hanako", all[:1], firstTime("a", all[:1], w))
	wantAmount(t, out, 1)
	for i, want := range map[int]int64{0: 0, 9: 0, 10: 1, 29: 1, 30: 0, room - 1: 0, room: 0, room + 19: 0, room + 20: 1} {
		out := mail(t, s, time.Second, "taro", nil, firstTime("a", all[i:i+1], w))
		if got := out.Uses[0].Amount; got != want {
			t.Errorf("item %d: amount %d, want %d", i, got, want)
		}
	}
	mail(t, s, time.Second, "taro", all) // more than there is room for, all at once
	for i, want := range map[int]int64{0: 1, room - 1: 1, room: 0, 2*room - 1: 0} {
		out := mail(t, s, time.Second, "taro", nil, firstTime("a", all[i:i+1], w))
		if got := out.Uses[0].Amount; got != want {
			t.Errorf("item %d after all: amount %d, want %d", i, got, want)
		}
	}
}

func knownHasATerm(t *testing.T, s limit.Store) {
	all, w := Items(12, 2), window(10, time.Second)
	mail(t, s, 0, "taro", all)
	mail(t, s, 24*time.Hour, "taro", all[:1])
	at := limit.KnownTerm
	wantAmount(t, mail(t, s, at, "taro", nil, firstTime("a", all, w)), 0)
	wantAmount(t, mail(t, s, at+time.Microsecond, "taro", all[1:], firstTime("b", all, w)), 1)
	wantAmount(t, mail(t, s, at+time.Second, "taro", nil, firstTime("c", all, w)), 0)
}

func oldCustomersGetTheirs(t *testing.T, s limit.Store) {
	all, w, other := Items(13, 20), window(3, time.Hour), window(100, time.Hour)
	wantTaken(t, mail(t, s, 0, "taro", all[:3], firstTime("abuse", all[:3], w)), true)
	out := mail(t, s, time.Second, "taro", all[3:5], firstTime("abuse", all[3:5], w))
	wantTaken(t, out, false)
	if !out.Latched[0] || out.Uses[0].Never {
		t.Errorf("at the trip: %+v", out)
	}
	mail(t, s, 2*time.Second, "taro", all[5:6], charge("b", 1, other)) // known only since then
	for _, c := range []struct {
		to     []limit.Item
		amount int64
	}{{all[:3], 0}, {all[:1], 0}, {all[5:6], 1}, {append(all[:3:3], all[5], all[6]), 2}, {nil, 0}} {
		out := mail(t, s, 3*time.Second, "taro", nil, firstTime("abuse", c.to, w), charge("b", 1, other))
		old := c.amount == 0 && len(c.to) > 0
		if u := out.Uses[0]; out.Taken != old || u.Over == old || u.Never == old || u.Amount != c.amount || u.Used != 3 || !out.Latched[0] {
			t.Errorf("to %d: %+v", len(c.to), out)
		}
	}
	// All that time the bucket's window is empty, and still it is shut.
	later := 24 * time.Hour
	wantTaken(t, mail(t, s, later, "taro", all[:3], firstTime("abuse", all[:3], w)), true)
	wantTaken(t, mail(t, s, later, "taro", all[6:7], firstTime("abuse", all[6:7], w)), false)
	if err := s.Resume(t.Context(), start.Add(later), limit.Key{Limit: "abuse", Value: "login:taro@example.jp"}); err != nil {
		t.Fatal(err)
	}
	wantTaken(t, mail(t, s, later, "taro", all[5:7], firstTime("abuse", all[5:7], w)), true)
}
