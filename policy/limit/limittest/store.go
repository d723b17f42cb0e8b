// Package limittest holds every limit.Store to one rule.
//
// Store is the suite: a new store calls it with a way to open an empty one. It
// compares the store with a slow model that keeps every event and shares no
// arithmetic with the code (model.go), and with limit.Memory, to the letter.
package limittest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/policy/limit"
)

// Options are the bounds of a store under test: small, so that they are passed.
func Options() limit.MemoryOptions {
	return limit.MemoryOptions{DistinctExact: 64, KnownPerAccount: 200}
}

var start = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// Store runs the suite, some 25,000 calls. open makes an empty store of its own,
// bounded by Options, for each test; it cleans up with t.Cleanup. The store has
// to be a limit.Keeper, too.
func Store(t *testing.T, open func(t *testing.T) limit.Store) {
	for name, test := range map[string]func(*testing.T, limit.Store){
		"ClosedInterval":        closedInterval,
		"SlotCountsInFull":      slotCountsInFull,
		"LastTokenOnce":         lastTokenOnce,
		"AllOrNone":             allOrNone,
		"EveryWindowCounts":     everyWindowCounts,
		"RefusedIsNotCharged":   refusedIsNotCharged,
		"AttemptsAreSliding":    attemptsAreSliding,
		"SoftWindowsTell":       softWindowsTell,
		"AbuseLatches":          abuseLatches,
		"OthersDoNotLatch":      othersDoNotLatch,
		"VolumeHeals":           volumeHeals,
		"ClockJumpsBack":        clockJumpsBack,
		"SameKeyTwice":          sameKeyTwice,
		"AddTakesAnyway":        addTakesAnyway,
		"PeekTakesNothing":      peekTakesNothing,
		"NeverFits":             neverFits,
		"KeysAreApart":          keysAreApart,
		"ResetForgets":          resetForgets,
		"WindowsEdited":         windowsEdited,
		"ExtremesDoNotOverflow": extremes,
		"ImpossibleCharges":     impossibleCharges,
		"NoCharges":             noCharges,

		"DistinctCountsEachOnce":   distinctCountsEachOnce,
		"DistinctFreeAt":           distinctFreeAt,
		"DistinctLatches":          distinctLatches,
		"DistinctSamples":          distinctSamples,
		"DistinctIsExactAgain":     distinctIsExactAgain,
		"DistinctFullIsFull":       distinctFullIsFull,
		"UnitEdited":               unitEdited,
		"FirstTimeCountsStrangers": firstTimeCountsStrangers,
		"KnownByAnyMail":           knownByAnyMail,
		"KnownIsBounded":           knownIsBounded,
		"KnownHasATerm":            knownHasATerm,
		"OldCustomersGetTheirs":    oldCustomersGetTheirs,
		"BouncesAllowedAreUsedUp":  bouncesAllowedAreUsedUp,
		"BytesAreAmounts":          bytesAreAmounts,
		"TellsStopNothing":         tellsStopNothing,
		"TellsAreWeighedAlone":     tellsAreWeighedAlone,
		"OutcomeIsReused":          outcomeIsReused,
		"PutReplaces":              putReplaces,
		"ManyCharges":              manyCharges,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	t.Run("Random", func(t *testing.T) { Random(t, 12, open) })
	t.Run("RacingSpenders", func(t *testing.T) { racingSpenders(t, open(t)) })
	t.Run("RacingLatch", func(t *testing.T) { racingLatch(t, open(t)) })
}

// charge is of a volume bucket, unless it is named abuse.
func charge(key string, amount int64, windows ...limit.Window) limit.Charge {
	c := limit.Charge{Key: limit.Key{Limit: key, Value: "login:taro@example.jp"}, Kind: limit.Volume, Windows: windows, Amount: amount}
	if key == "abuse" {
		c.Kind = limit.Abuse
	}
	return c
}

func window(count int64, length time.Duration) limit.Window {
	return limit.Window{Count: count, Length: length}
}

func soft(count int64, length time.Duration) limit.Window {
	return limit.Window{Count: count, Length: length, Soft: true}
}

func spend(t *testing.T, s limit.Store, at time.Duration, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	out, err := Spend(t.Context(), s, start.Add(at), charges)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func peek(t *testing.T, s limit.Store, at time.Duration, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	out, err := Peek(t.Context(), s, start.Add(at), charges)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wantTaken(t *testing.T, out limit.Outcome, want bool) {
	t.Helper()
	if out.Taken != want {
		t.Fatalf("taken: %t, want %t: %+v", out.Taken, want, out)
	}
}

// wantUsed compares the Used of all windows.
func wantUsed(t *testing.T, out limit.Outcome, want ...int64) {
	t.Helper()
	var got []int64
	for _, u := range out.Uses {
		got = append(got, u.Used)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("used %d, want %d", got, want)
	}
}

func closedInterval(t *testing.T, s limit.Store) {
	c := charge("a", 10, window(10, time.Hour))
	wantTaken(t, spend(t, s, 0, c), true)
	out := spend(t, s, time.Hour, c)
	wantTaken(t, out, false)
	free := start.Add(time.Hour + time.Microsecond)
	if got := out.Uses[0].FreeAt; !got.Equal(free) {
		t.Errorf("free at %s, want %s", got, free)
	}
	wantTaken(t, spend(t, s, time.Hour+time.Microsecond, c), true)
}

func slotCountsInFull(t *testing.T, s limit.Store) {
	w := window(100, 16*time.Minute)
	wantTaken(t, spend(t, s, 10*time.Second, charge("a", 60, w)), true)
	wantTaken(t, spend(t, s, 50*time.Second, charge("a", 40, w)), true)
	out := spend(t, s, 16*time.Minute+40*time.Second, charge("a", 1, w))
	wantTaken(t, out, false)
	if want := start.Add(16*time.Minute + 50*time.Second + time.Microsecond); !out.Uses[0].FreeAt.Equal(want) {
		t.Errorf("free at %s, want %s", out.Uses[0].FreeAt, want)
	}
}

func lastTokenOnce(t *testing.T, s limit.Store) {
	w := window(3, time.Minute)
	for i := range 5 {
		out := spend(t, s, time.Duration(i)*time.Second, charge("a", 1, w))
		wantTaken(t, out, i < 3)
		wantUsed(t, out, min(int64(i), 3))
	}
}

func allOrNone(t *testing.T, s limit.Store) {
	a, b, c := charge("a", 5, window(100, time.Hour)), charge("b", 5, window(4, time.Hour)), charge("c", 5, window(100, time.Hour))
	out := spend(t, s, 0, a, b, c)
	wantTaken(t, out, false)
	wantUsed(t, peek(t, s, 0, a, b, c), 0, 0, 0)
	for i, u := range out.Uses {
		if u.Charge != i || u.Over != (i == 1) {
			t.Errorf("use %d: %+v", i, u)
		}
	}
	wantTaken(t, spend(t, s, 0, a, c), true)
	wantUsed(t, peek(t, s, 0, a, b, c), 5, 0, 5)
}

func everyWindowCounts(t *testing.T, s limit.Store) {
	c := charge("a", 1, window(2, time.Second), window(4, time.Minute), window(5, time.Hour))
	taken := 0
	for i := range 1000 {
		if spend(t, s, time.Duration(i)*time.Second/4, c).Taken {
			taken++
		}
	}
	if taken != 5 {
		t.Errorf("%d passed in 250 s, want 5", taken)
	}
	wantUsed(t, peek(t, s, 1000*time.Second, c), 0, 0, 5)
}

func refusedIsNotCharged(t *testing.T, s limit.Store) {
	w := window(10, time.Hour)
	wantTaken(t, spend(t, s, 0, charge("a", 8, w)), true)
	for range 50 {
		wantTaken(t, spend(t, s, time.Minute, charge("a", 3, w)), false)
	}
	out := spend(t, s, time.Minute, charge("a", 2, w))
	wantTaken(t, out, true)
	if out.Attempts[0] != 150 {
		t.Errorf("%d attempts, want 150", out.Attempts[0])
	}
}

func attemptsAreSliding(t *testing.T, s limit.Store) {
	full, other := charge("a", 7, window(1, time.Minute), window(2, time.Hour)), charge("b", 7, window(100, time.Second))
	spend(t, s, 0, full, other)
	for at, want := range map[time.Duration][]int64{0: {7, 7}, time.Minute: {7, 0}, time.Hour: {7, 0}, time.Hour + time.Microsecond: {0, 0}} {
		if out := peek(t, s, at, full, other); !slices.Equal(out.Attempts, want) {
			t.Errorf("after %s: attempts %d, want %d", at, out.Attempts, want)
		}
	}
}

func softWindowsTell(t *testing.T, s limit.Store) {
	c := charge("a", 4, window(100, time.Minute), soft(10, time.Hour))
	for i := range 4 {
		out := spend(t, s, time.Duration(i)*time.Second, c)
		wantTaken(t, out, true)
		if out.Uses[1].Over != (i >= 2) || out.Uses[1].FreeAt.IsZero() == (i >= 2) {
			t.Errorf("%d: %+v", i, out.Uses[1])
		}
	}
	wantUsed(t, peek(t, s, 4*time.Second, c), 16, 8) // would-be stops are not charged
	c.Amount = 2
	wantTaken(t, spend(t, s, 4*time.Second, c), true)
	wantUsed(t, peek(t, s, 4*time.Second, c), 18, 10)
}

func abuseLatches(t *testing.T, s limit.Store) {
	c, volume := charge("abuse", 3, window(5, time.Minute)), charge("a", 3, window(100, time.Minute))
	wantTaken(t, spend(t, s, 0, c, volume), true)
	out := spend(t, s, time.Second, c, volume)
	wantTaken(t, out, false)
	if !slices.Equal(out.Latched, []bool{true, false}) || out.Uses[0].FreeAt.IsZero() {
		t.Errorf("at the trip: %+v", out)
	}
	c.Amount = 1 // would have fitted, and later everything would
	for _, at := range []time.Duration{2 * time.Second, time.Hour, 500 * 24 * time.Hour} {
		out = spend(t, s, at, c, volume)
		wantTaken(t, out, false)
		if u := out.Uses[0]; !out.Latched[0] || !u.Over || !u.Never || !u.FreeAt.IsZero() || out.Uses[1].Over {
			t.Errorf("after %s: %+v", at, out)
		}
	}
	later := 501 * 24 * time.Hour
	learning := c
	learning.Windows = []limit.Window{soft(5, time.Minute)}
	wantTaken(t, spend(t, s, later, learning), false) // shut is shut
	if err := s.Resume(t.Context(), start.Add(later), c.Key); err != nil {
		t.Fatal(err)
	}
	out = spend(t, s, later, c, volume)
	wantTaken(t, out, true)
	if slices.Contains(out.Latched, true) {
		t.Errorf("resumed: %+v", out)
	}
	if err := s.Resume(t.Context(), start, limit.Key{Limit: "abuse", Value: "login:nobody"}); err != nil {
		t.Errorf("resume what is not shut: %v", err)
	}
}

func othersDoNotLatch(t *testing.T, s limit.Store) {
	abuse, full := charge("abuse", 1, window(5, time.Hour)), charge("a", 1, window(1, time.Hour))
	wantTaken(t, spend(t, s, 0, full), true)
	for range 20 {
		out := spend(t, s, 0, abuse, full)
		wantTaken(t, out, false)
		if slices.Contains(out.Latched, true) {
			t.Fatalf("shut by another's limit: %+v", out)
		}
	}
	// A soft window shuts nothing, nor does a mere question.
	abuse.Windows = []limit.Window{soft(1, time.Hour)}
	abuse.Amount = 2
	wantTaken(t, spend(t, s, 0, abuse), true)
	if err := Add(t.Context(), s, start, []limit.Charge{charge("abuse", 9, window(5, time.Hour))}); err != nil {
		t.Fatal(err)
	}
	if out := spend(t, s, 0, charge("abuse", 0, window(5, time.Hour))); out.Latched[0] || !out.Uses[0].Over {
		t.Errorf("asked for nothing: %+v", out)
	}
	if out := spend(t, s, 0, charge("abuse", 1, window(5, time.Hour))); !out.Latched[0] {
		t.Errorf("not shut: %+v", out)
	}
}

func volumeHeals(t *testing.T, s limit.Store) {
	w := window(10, time.Hour)
	wantTaken(t, spend(t, s, 0, charge("a", 6, w)), true)
	wantTaken(t, spend(t, s, 30*time.Minute, charge("a", 4, w)), true)
	for _, c := range []struct {
		amount int64
		free   time.Duration
	}{{1, time.Hour}, {6, time.Hour}, {7, 90 * time.Minute}, {10, 90 * time.Minute}} {
		out := peek(t, s, 40*time.Minute, charge("a", c.amount, w))
		if want := start.Add(c.free + time.Microsecond); !out.Uses[0].FreeAt.Equal(want) {
			t.Errorf("%d are free at %s, want %s", c.amount, out.Uses[0].FreeAt, want)
		}
	}
	wantTaken(t, spend(t, s, time.Hour+time.Microsecond, charge("a", 6, w)), true)
}

func clockJumpsBack(t *testing.T, s limit.Store) {
	c := charge("a", 5, window(10, time.Minute))
	wantTaken(t, spend(t, s, time.Hour, c), true)
	wantTaken(t, spend(t, s, 0, c), true) // counts as one hour, too
	out := spend(t, s, 30*time.Minute, c)
	wantTaken(t, out, false)
	if want := start.Add(time.Hour + time.Minute + time.Microsecond); !out.Uses[0].FreeAt.Equal(want) {
		t.Errorf("free at %s, want %s", out.Uses[0].FreeAt, want)
	}
	wantTaken(t, spend(t, s, time.Hour+time.Minute, c), false)
	wantTaken(t, spend(t, s, time.Hour+time.Minute+time.Microsecond, c), true)
}

func sameKeyTwice(t *testing.T, s limit.Store) {
	c := charge("a", 6, window(10, time.Minute), window(12, time.Hour))
	out := spend(t, s, 0, c, c)
	wantTaken(t, out, false)
	wantUsed(t, out, 0, 0, 6, 6)
	if out.Uses[0].Over || out.Uses[1].Over || !out.Uses[2].Over || !out.Uses[2].Never || out.Uses[3].Over {
		t.Errorf("%+v", out.Uses)
	}
	if got := peek(t, s, 0, c).Attempts[0]; got != 12 {
		t.Errorf("%d attempts, want 12", got)
	}
	c.Amount = 5
	wantTaken(t, spend(t, s, 0, c, c), true)
	wantUsed(t, peek(t, s, 0, c), 10, 10)

	abuse := charge("abuse", 6, window(10, time.Minute))
	if out := spend(t, s, 0, abuse, abuse); out.Taken || !out.Latched[0] || !out.Latched[1] {
		t.Errorf("one bucket, two answers: %+v", out)
	}
	onlySoft := charge("soft", 6, soft(10, time.Minute))
	wantTaken(t, spend(t, s, 0, onlySoft, onlySoft), true)
	wantUsed(t, peek(t, s, 0, onlySoft), 6)
}

func addTakesAnyway(t *testing.T, s limit.Store) {
	c := charge("a", 25, window(10, time.Minute), soft(20, time.Hour))
	for range 2 {
		if err := Add(t.Context(), s, start, []limit.Charge{c}); err != nil {
			t.Fatal(err)
		}
	}
	wantUsed(t, peek(t, s, 0, c), 50, 50)
	c.Amount = 1
	wantTaken(t, spend(t, s, 0, c), false)
	wantTaken(t, spend(t, s, time.Minute+time.Microsecond, c), true)
	wantUsed(t, peek(t, s, time.Minute+time.Microsecond, c), 1, 50)
}

func peekTakesNothing(t *testing.T, s limit.Store) {
	fits, over := charge("abuse", 2, window(3, time.Minute)), charge("abuse", 4, window(3, time.Minute))
	for range 5 {
		wantTaken(t, peek(t, s, time.Hour, fits), true)
		if out := peek(t, s, time.Hour, over); out.Taken || !out.Latched[0] || out.Attempts[0] != 0 {
			t.Errorf("%+v", out)
		}
	}
	wantTaken(t, spend(t, s, 0, fits), true) // also the clock has not moved
	if out := peek(t, s, time.Minute+time.Microsecond, fits); !out.Taken || out.Latched[0] || out.Attempts[0] != 0 {
		t.Errorf("%+v", out)
	}
}

func neverFits(t *testing.T, s limit.Store) {
	c := charge("a", 11, window(20, time.Minute), window(10, time.Hour))
	out := spend(t, s, 0, c)
	wantTaken(t, out, false)
	if u := out.Uses[1]; !u.Over || !u.Never || !u.FreeAt.IsZero() {
		t.Errorf("%+v", u)
	}
	if u := out.Uses[0]; u.Over || u.Never {
		t.Errorf("%+v", u)
	}
}

func keysAreApart(t *testing.T, s limit.Store) {
	keys := []limit.Key{{Limit: "a", Value: "b:c"}, {Limit: "a:b", Value: "c"}, {Limit: "a", Value: "b/c"}, {Limit: "a/b", Value: "c"}, {Limit: "a", Value: "b"}, {Limit: "A", Value: "b"},
		{Limit: "a", Value: "b "}, {Limit: "a", Value: "b\x00"}, {Limit: "a", Value: "{b}"}, {Limit: "b", Value: "a"}, {Limit: "a", Value: "あ"}, {Limit: "a", Value: "'; --"}, {Limit: "a", Value: "b\r\nc"}, {Limit: "a", Value: "\xff"}, {Limit: "a", Value: "\xfe"}}
	var charges []limit.Charge
	for i, k := range keys {
		charges = append(charges, limit.Charge{Key: k, Kind: limit.Volume, Windows: []limit.Window{window(100, time.Hour)}, Amount: int64(i + 1)})
	}
	wantTaken(t, spend(t, s, 0, charges...), true)
	for i, u := range peek(t, s, 0, charges...).Uses {
		if u.Used != int64(i+1) {
			t.Errorf("%q used %d, want %d", keys[i], u.Used, i+1)
		}
	}
}

func resetForgets(t *testing.T, s limit.Store) {
	c, other := charge("abuse", 6, window(10, time.Hour)), charge("other", 6, window(100, time.Hour))
	spend(t, s, time.Hour, c, other)
	spend(t, s, time.Hour, c, other)
	if err := s.Reset(t.Context(), start.Add(time.Hour), c.Key); err != nil {
		t.Fatal(err)
	}
	out := peek(t, s, 0, c, other)
	wantUsed(t, out, 0, 6)
	if !out.Taken || out.Latched[0] || out.Attempts[0] != 0 || out.Attempts[1] != 6 {
		t.Errorf("%+v", out)
	}
	if err := s.Reset(t.Context(), start, limit.Key{Limit: "a", Value: "unknown"}); err != nil {
		t.Errorf("reset what is not there: %v", err)
	}
}

func windowsEdited(t *testing.T, s limit.Store) {
	hour, day := window(10, time.Hour), window(20, 24*time.Hour)
	wantTaken(t, spend(t, s, 0, charge("a", 8, hour, day)), true)
	wantTaken(t, spend(t, s, 2*time.Hour, charge("a", 8, hour, day)), true)
	at := 2*time.Hour + time.Second
	// Another count keeps what was used; another length is no fresh budget.
	wantUsed(t, peek(t, s, at, charge("a", 1, window(5, time.Hour), window(500, 24*time.Hour))), 8, 16)
	wantUsed(t, peek(t, s, at, charge("a", 1, day, hour)), 16, 8)
	wantUsed(t, peek(t, s, at, charge("a", 1, window(10, 30*time.Minute))), 8)
	wantUsed(t, peek(t, s, at, charge("a", 1, window(10, 3*time.Hour))), 16)
	wantUsed(t, peek(t, s, at, charge("a", 1, window(10, 48*time.Hour))), 16)
	wantTaken(t, spend(t, s, at, charge("a", 5, window(20, 48*time.Hour), window(20, time.Hour))), false)
	wantTaken(t, spend(t, s, at, charge("a", 4, window(20, 48*time.Hour), window(20, time.Hour))), true)
}

func extremes(t *testing.T, s limit.Store) {
	w := window(limit.MaxCount, limit.MaxLength)
	big := charge("a", limit.MaxCount, w)
	for i := range 40 {
		if err := Add(t.Context(), s, start.Add(time.Duration(i)*limit.MaxLength/18), []limit.Charge{big}); err != nil {
			t.Fatal(err)
		}
	}
	out := spend(t, s, 40*limit.MaxLength/18, charge("a", 1, w))
	wantTaken(t, out, false)
	if u := out.Uses[0]; u.Used < limit.MaxCount || u.Never || u.FreeAt.Before(start) {
		t.Errorf("%+v", u)
	}
	for i, now := range []time.Time{{}, time.Unix(-1, 0), time.Unix(1<<62, 0), time.Unix(-1<<62, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)} {
		c := charge(fmt.Sprint("b", i), 1, window(1, limit.MaxLength), window(1, time.Second))
		for j := range 2 {
			out, err := Spend(t.Context(), s, now, []limit.Charge{c})
			if err != nil || out.Taken != (j == 0) {
				t.Errorf("at %v: %+v, %v", now, out, err)
			}
		}
	}
}

func impossibleCharges(t *testing.T, s limit.Store) {
	good := charge("a", 1, window(10, time.Hour))
	bad := map[string]func(*limit.Charge){
		"no limit":           func(c *limit.Charge) { c.Key.Limit = "" },
		"no value":           func(c *limit.Charge) { c.Key.Value = "" },
		"no kind":            func(c *limit.Charge) { c.Kind = 0 },
		"negative":           func(c *limit.Charge) { c.Amount = -1 },
		"too much":           func(c *limit.Charge) { c.Amount = limit.MaxCount + 1 },
		"no windows":         func(c *limit.Charge) { c.Windows = nil },
		"many windows":       func(c *limit.Charge) { c.Windows = make([]limit.Window, 7) },
		"zero window":        func(c *limit.Charge) { c.Windows = []limit.Window{{}} },
		"zero count":         func(c *limit.Charge) { c.Windows = []limit.Window{window(0, time.Hour)} },
		"short window":       func(c *limit.Charge) { c.Windows = []limit.Window{window(1, time.Millisecond)} },
		"long window":        func(c *limit.Charge) { c.Windows = []limit.Window{window(1, limit.MaxLength+time.Second)} },
		"windows alike":      func(c *limit.Charge) { c.Windows = []limit.Window{window(1, time.Hour), soft(2, time.Hour)} },
		"no unit":            func(c *limit.Charge) { c.Counts = 99 },
		"no account":         func(c *limit.Charge) { c.Key.Limit, c.Counts = "other", limit.FirstTime },
		"twice, items":       func(c *limit.Charge) { c.Counts = limit.Distinct },
		"twice, one tells":   func(c *limit.Charge) { c.Tells = true },
		"twice, other unit":  func(c *limit.Charge) { c.Counts = limit.Bytes },
		"twice, other kind":  func(c *limit.Charge) { c.Kind = limit.Abuse },
		"twice, differently": func(c *limit.Charge) { c.Windows = []limit.Window{window(1, time.Minute)} },
	}
	for name, spoil := range bad {
		c := good
		spoil(&c)
		charges := []limit.Charge{good, c}
		_, spent := Spend(t.Context(), s, start, charges)
		_, peeked := Peek(t.Context(), s, start, charges)
		if added := Add(t.Context(), s, start, charges); spent == nil || peeked == nil || added == nil {
			t.Errorf("%s: spend %v, peek %v, add %v; want errors", name, spent, peeked, added)
		}
	}
	if _, err := Spend(t.Context(), s, start, slices.Repeat([]limit.Charge{good}, limit.MaxCharges+1)); err == nil {
		t.Error("any number of charges")
	}
	step, out := &limit.Step{Known: limit.Known{Items: []limit.Item{1}}}, &limit.Outcome{}
	if s.Spend(t.Context(), start, step, out) == nil || s.Peek(t.Context(), start, step, out) == nil || s.Add(t.Context(), start, step) == nil {
		t.Error("nobody's recipients")
	}
	wantUsed(t, peek(t, s, 0, good), 0)
}

func noCharges(t *testing.T, s limit.Store) {
	wantTaken(t, spend(t, s, 0), true)
	wantTaken(t, peek(t, s, 0), true)
}
