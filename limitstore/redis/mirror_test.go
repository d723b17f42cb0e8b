package redis_test

import (
	"log/slog"
	"testing"
	"time"

	"relayguard/limitstore/redis"
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
	latched("at its share", s, false)
	many := c
	many.Amount = 3 // with the 2 more than all relays together may pass
	spend(t, s, later, many)
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

// While Redis is away an abuse limit shuts a bucket for what this relay passed
// itself, through Redis or not, if it is more than the whole count; at the share
// it only stops.
func TestOnlyTheWholeCountShuts(t *testing.T) {
	windows := []limit.Window{window(10, time.Hour), window(20, 24*time.Hour)}
	distinct := func(items ...limit.Item) limit.Charge {
		c := abuse("site:a", 0, windows...)
		c.Counts, c.Items = limit.Distinct, items
		return c
	}
	bounces := abuse("site:a", 0, windows...)
	bounces.Counts = limit.Bounces
	bounced := bounces
	bounced.Amount = 5
	for name, test := range map[string]struct{ charge, stops, add, shuts limit.Charge }{
		"recipients": {charge: abuse("site:a", 5, windows...), stops: abuse("site:a", 5, windows...), shuts: abuse("site:a", 6, windows...)},
		"distinct":   {charge: distinct(11, 12, 13, 14, 15), stops: distinct(16, 17, 18, 19, 20), shuts: distinct(16, 17, 18, 19, 20, 21)},
		"bounces":    {charge: bounces, add: bounced, stops: bounces, shuts: bounces},
	} {
		t.Run(name, func(t *testing.T) {
			r, now := newRemote(), time.Now()
			s, other := live(t, r, 0.5), newRelay(r.way(), 0.5)
			add := func() {
				t.Helper()
				if test.add.Amount == 0 {
					return
				}
				if err := s.Add(t.Context(), now, &limit.Step{Charges: []limit.Charge{test.add}}); err != nil {
					t.Fatal(err)
				}
			}
			r.set(gone)
			if !spend(t, s, now, test.charge).Taken {
				t.Fatal("not taken within the share")
			}
			add()
			for range 3 {
				if out := spend(t, s, now, test.stops); out.Taken || out.Latched[0] || out.Uses[0].Never {
					t.Fatalf("over the share: %+v", out)
				}
			}
			r.set(fine)
			probe(t, s)
			probe(t, other)
			if out := spend(t, other, now, test.stops); !out.Taken {
				t.Errorf("the share shut the bucket for others: %+v", out)
			}
			r.set(gone)
			add()
			if out := peek(t, s, now, test.shuts); out.Taken || !out.Latched[0] {
				t.Errorf("asked: over the count: %+v", out)
			}
			if out := spend(t, s, now, test.shuts); out.Taken || !out.Latched[0] {
				t.Errorf("over the count: %+v", out)
			}
			r.set(fine)
			probe(t, s)
			if out := spend(t, other, now, test.charge); !out.Latched[0] {
				t.Errorf("what was shut was not carried over: %+v", out)
			}
		})
	}
}

// Whom an account wrote to through other relays, or before a restart, this relay
// does not know. While Redis is away such old customers count as first-time
// recipients, up to the share or the count, but shut nothing, here or there.
func TestOldCustomersShutNothing(t *testing.T) {
	for _, share := range []float64{0.5, 1} {
		r, now := newRemote(), time.Now()
		first := live(t, r, share)
		step := func(from, n int) *limit.Step {
			var items []limit.Item
			for i := range n {
				items = append(items, limit.Item(from+i))
			}
			c := abuse("plugin:shop", 0, window(10, time.Hour))
			c.Counts, c.Items = limit.FirstTime, items
			return &limit.Step{Charges: []limit.Charge{c}, Known: limit.Known{Account: "login:shop", Items: items}}
		}
		send := func(s relay, now time.Time, step *limit.Step) (out limit.Outcome) {
			t.Helper()
			if err := s.Spend(t.Context(), now, step, &out); err != nil {
				t.Fatal(err)
			}
			return out
		}
		for i := range 5 {
			if !send(first, now, step(10*i, 10)).Taken {
				t.Fatal("not taken")
			}
			now = now.Add(2 * time.Hour)
		}
		way := r.way()
		way.set(gone)
		s := newRelay(way, share) // has just been started
		passed := 0
		for i := range 50 {
			out := send(s, now, step(i, 1))
			if out.Latched[0] {
				t.Fatalf("share %g: message %d shut the bucket: %+v", share, i, out)
			}
			if out.Taken {
				passed++
			}
		}
		if want := int(10 * share); passed != want {
			t.Errorf("share %g: %d passed, want %d", share, passed, want)
		}
		if out := send(s, now, step(0, 40)); out.Taken || out.Latched[0] || out.Uses[0].Never {
			t.Errorf("share %g: a mailing to old customers: %+v", share, out)
		}
		way.set(fine)
		probe(t, s)
		for _, relay := range []relay{s, first} {
			if out := send(relay, now, step(0, 40)); !out.Taken || out.Uses[0].Used != 0 {
				t.Errorf("share %g: redis is back, and knows them all: %+v", share, out)
			}
		}

		// What Redis shut stays shut while it is away, and whom it knew gets mail.
		now = now.Add(time.Minute)
		if out := send(s, now, step(100, 11)); !out.Latched[0] {
			t.Fatalf("share %g: not shut: %+v", share, out)
		}
		way.set(gone)
		if out := send(s, now, step(200, 1)); out.Taken || !out.Latched[0] {
			t.Errorf("share %g: was shut before: %+v", share, out)
		}
		if out := send(s, now, step(0, 2)); !out.Taken {
			t.Errorf("share %g: old customers of a shut bucket: %+v", share, out)
		}
	}
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

// Own buckets that outlive the relay go on: the share is not there a second time,
// and what was shut is shut, until Redis says that it was opened meanwhile. None
// of it is news to Redis.
func TestOwnBucketsOutliveARestart(t *testing.T) {
	r, own, now := newRemote(), limit.NewMemory(), time.Now()
	start := func() relay {
		return relay{Shared: redis.NewShared(redis.SharedOptions{Store: r, Own: own, Share: 0.5, Timeout: timeout, Log: slog.New(slog.DiscardHandler)})}
	}
	used, shut := volume("login:taro", 1, window(10, time.Hour)), abuse("site:a", 11, window(10, time.Hour))
	s := start()
	probe(t, s)
	spend(t, s, now, shut)
	r.set(gone)
	if n := passes(t, s, now, used); n != 5 {
		t.Fatalf("%d passed by itself, want 5", n)
	}
	s = start()
	if n := passes(t, s, now, used); n != 0 {
		t.Errorf("%d passed after a restart, want none", n)
	}
	shut.Amount = 1
	if out := spend(t, s, now, shut); !out.Latched[0] {
		t.Errorf("open after a restart: %+v", out)
	}
	if err := r.Memory.Resume(t.Context(), now, shut.Key); err != nil { // by another relay
		t.Fatal(err)
	}
	r.set(fine)
	probe(t, s)
	if out := spend(t, s, now, shut); !out.Taken {
		t.Errorf("shut again by a relay that was restarted: %+v", out)
	}
	r.set(gone)
	if out := spend(t, s, now, shut); !out.Taken {
		t.Errorf("resumed elsewhere: %+v", out)
	}
}
