package redis_test

import (
	"testing"
	"time"

	"relayguard/policy/limit"
)

// What went through Redis before counts in the share, too.
func TestWhatPassedBeforeIsKnown(t *testing.T) {
	for _, c := range []struct{ before, after int64 }{{0, 50}, {20, 30}, {50, 0}, {80, 0}} {
		r, now := newRemote(), time.Now()
		s, other := live(t, r, 0.5), live(t, r, 0.5)
		one := volume("login:taro", 1, window(100, time.Hour))
		for range c.before {
			spend(t, s, now, one)
		}
		r.set(gone)
		if n := passes(t, s, now, one); n != c.after {
			t.Errorf("%d before, then %d by itself, want %d", c.before, n, c.after)
		}
		if n := passes(t, other, now, one); n != 50 {
			t.Errorf("a relay that passed nothing: %d by itself, want 50", n)
		}
	}
}

// A rule that only tells counts by itself only what it took.
func TestTellsAreMirroredAsFarAsTaken(t *testing.T) {
	r, now := newRemote(), time.Now()
	s := live(t, r, 1)
	hard, tells := volume("login:taro", 6, window(100, time.Hour)), volume("server", 6, window(10, time.Hour))
	tells.Tells = true
	for range 2 {
		if out := spend(t, s, now, hard, tells); !out.Taken {
			t.Fatalf("stopped by what only tells: %+v", out)
		}
	}
	r.set(gone)
	if n, m := used(t, s, now, hard), used(t, s, now, tells); n != 12 || m != 6 {
		t.Errorf("own buckets count %d and %d, want 12 and 6", n, m)
	}
	spend(t, s, now, hard, tells)
	r.set(fine)
	probe(t, s)
	if n, m := used(t, r.Memory, now, hard), used(t, r.Memory, now, tells); n != 18 || m != 6 {
		t.Errorf("redis counts %d and %d, want 18 and 6", n, m)
	}
}

func TestShutBucketsStayShut(t *testing.T) {
	r, now := newRemote(), time.Now()
	s, other := live(t, r, 0.5), live(t, r, 0.5)
	c := abuse("site:a", 1, window(4, time.Hour))
	key := c.Key
	latched := func(who string, st limit.Store, want bool) {
		t.Helper()
		asks := c
		asks.Amount = 0 // would shut nothing
		if out := peek(t, st, now, asks); out.Latched[0] != want {
			t.Errorf("%s: shut is %t, want %t: %+v", who, out.Latched[0], want, out)
		}
	}
	passes(t, other, now, c)
	if spend(t, s, now, c).Taken { // this relay learns it from Redis
		t.Fatal("taken from a shut bucket")
	}
	r.set(gone)
	if spend(t, s, now, c).Taken {
		t.Error("taken from a bucket that was shut before Redis went")
	}
	latched("s", s, true)

	if err := s.Resume(t.Context(), now, key); err != nil {
		t.Fatal(err)
	}
	latched("resumed here", s, false)
	latched("not yet there", r.Memory, true)
	r.set(fine)
	probe(t, s)
	latched("resumed there", r.Memory, false)

	r.set(gone)
	later := now.Add(2 * time.Hour)
	if n := passes(t, s, later, c); n != 2 {
		t.Errorf("%d passed by itself, want 2", n)
	}
	latched("shut here", s, true)
	r.set(fine)
	probe(t, s)
	latched("shut there", r.Memory, true)
	latched("shut for the other", other, true)

	if err := other.Resume(t.Context(), now, key); err != nil {
		t.Fatal(err)
	}
	if !spend(t, s, later, c).Taken { // learns that it is open
		t.Error("not taken from a bucket that was resumed")
	}
	r.set(gone)
	latched("resumed elsewhere", s, false)
}

// First-time recipients that passed through Redis are none when it is away, and
// those that passed while it was away are none when it is back.
func TestFirstTimeRecipients(t *testing.T) {
	r, now := newRemote(), time.Now()
	s := live(t, r, 0.5)
	windows := []limit.Window{window(100, time.Hour)}
	send := func(items ...limit.Item) limit.Outcome {
		t.Helper()
		step := limit.Step{Known: limit.Known{Account: "login:shop", Items: items}}
		for _, name := range []string{"first-time", "first-time-2"} {
			step.Charges = append(step.Charges, limit.Charge{
				Key: limit.Key{Limit: name, Value: "plugin:shop"}, Kind: limit.Abuse, Counts: limit.FirstTime, Windows: windows, Items: items})
		}
		var out limit.Outcome
		if err := s.Spend(t.Context(), now, &step, &out); err != nil || !out.Taken {
			t.Fatalf("%+v, %v", out, err)
		}
		return out
	}
	counts := func(when string, out limit.Outcome, used, amount int64) {
		t.Helper()
		for _, u := range out.Uses {
			if u.Used != used || u.Amount != amount {
				t.Errorf("%s: %+v, want %d used and %d new", when, u, used, amount)
			}
		}
	}
	send(1, 2)
	r.set(gone)
	counts("away, known from before", send(1, 2), 2, 0)
	counts("away, two are new", send(2, 3, 4), 2, 2)
	counts("away, again", send(3, 4), 4, 0)
	r.set(fine)
	probe(t, s)
	counts("back", send(1, 2, 3, 4), 4, 0)
	counts("back, one is new", send(4, 5), 4, 1)
}

func TestDistinctRecipients(t *testing.T) {
	r, now := newRemote(), time.Now()
	s, other := live(t, r, 0.5), live(t, r, 0.5)
	send := func(st limit.Store, items ...limit.Item) int64 {
		t.Helper()
		c := limit.Charge{Key: limit.Key{Limit: "distinct", Value: "login:taro"}, Kind: limit.Volume, Counts: limit.Distinct, Items: items,
			Windows: []limit.Window{window(10, 10*time.Minute), window(20, time.Hour)}}
		out := spend(t, st, now, c)
		if !out.Taken {
			t.Errorf("not taken: %+v", out)
		}
		return out.Uses[0].Used
	}
	send(s, 1, 2)
	send(other, 7, 8)
	r.set(gone)
	for i := range 5 {
		now = now.Add(time.Minute)
		if n := send(s, 2, 3, 4); n != min(2+2*int64(i), 4) {
			t.Errorf("message %d: own bucket counts %d", i, n)
		}
	}
	r.set(fine)
	probe(t, s)
	if n := send(other, 7); n != 6 {
		t.Errorf("redis counts %d, want 1, 2, 3, 4, 7, 8", n)
	}
}
