package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/limitstore/redis"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// While Redis is there, Shared is the store that it keeps.
func TestSharedLive(t *testing.T) {
	limittest.Store(t, func(t *testing.T) limit.Store {
		r := newRemote()
		r.Memory = limit.NewMemoryOf(limittest.Options())
		return live(t, r, 0.5).Shared
	})
}

// While Redis is away and this relay may pass all there is, Shared is a Memory.
func TestSharedAway(t *testing.T) {
	r := newRemote()
	r.set(gone)
	s, memory := newRelay(r, 1), limit.NewMemory()
	rnd, now := rand.New(rand.NewPCG(1, 1)), time.Now()
	both := func(do func(limit.Store) error) {
		t.Helper()
		if a, b := do(s), do(memory); a != nil || b != nil {
			t.Fatal(a, b)
		}
	}
	for range 5000 {
		now = now.Add(time.Duration(rnd.Int64N(int64(time.Minute))))
		step := randomStep(rnd)
		switch key := step.Charges[0].Key; rnd.IntN(50) {
		case 0:
			both(func(s limit.Store) error { return s.Resume(t.Context(), now, key) })
		case 1:
			both(func(s limit.Store) error { return s.Reset(t.Context(), now, key) })
		case 2:
			both(func(s limit.Store) error { return s.Add(t.Context(), now, step) })
		case 3:
			both(func(s limit.Store) error { return s.Peek(t.Context(), now, step, &limit.Outcome{}) })
		default:
			var here, there limit.Outcome
			both(func(s limit.Store) error {
				here, there = there, limit.Outcome{}
				return s.Spend(t.Context(), now, step, &there)
			})
			if !reflect.DeepEqual(here, there) {
				t.Fatalf("step %+v\nshared: %+v\nmemory: %+v", step, here, there)
			}
		}
	}
}

// randomStep charges some of a few buckets of every unit.
func randomStep(rnd *rand.Rand) *limit.Step {
	var items []limit.Item
	for i := range limit.Item(1 + rnd.IntN(3)) {
		items = append(items, limit.Item(rnd.IntN(50))*10+i)
	}
	step := &limit.Step{Known: limit.Known{Account: "login:taro", Items: items}}
	units := []limit.Unit{limit.Messages, limit.Recipients, limit.Bytes, limit.Distinct, limit.FirstTime, limit.Bounces}
	for _, unit := range units[rnd.IntN(3) : 3+rnd.IntN(4)] {
		c := volume("login:taro", 1+rnd.Int64N(3), window(5+int64(unit), 10*time.Minute), window(30, time.Hour))
		c.Key.Limit, c.Counts, c.Tells = unit.String(), unit, rnd.IntN(10) == 0
		switch unit {
		case limit.Distinct, limit.FirstTime:
			c.Amount, c.Items = 0, items
		case limit.Bounces:
			c.Amount = rnd.Int64N(2)
		case limit.Bytes:
			c.Kind = limit.Abuse
		}
		step.Charges = append(step.Charges, c)
	}
	return step
}

func TestMailWaitsForRedisNoLongerThanTimeout(t *testing.T) {
	for _, f := range []fault{slow, mute, late} {
		synctest.Test(t, func(t *testing.T) {
			r := newRemote()
			s := live(t, r, 0.5)
			r.set(f)
			c := volume("login:taro", 1, window(100, time.Hour))
			took := func() time.Duration {
				began := time.Now()
				if out := spend(t, s, began, c); !out.Taken {
					t.Errorf("fault %d: not taken: %+v", f, out)
				}
				return time.Since(began)
			}
			if d := took(); d != timeout {
				t.Errorf("fault %d: the first message waited %s, want %s", f, d, timeout)
			}
			asked := r.asked()
			for range 10 {
				if d := took(); d != 0 {
					t.Errorf("fault %d: a message waited %s while the breaker was open", f, d)
				}
			}
			if n := r.asked() - asked; n != 0 {
				t.Errorf("fault %d: asked %d times while the breaker was open", f, n)
			}
			time.Sleep(time.Minute)
		})
	}
}

// All that are on their way when Redis goes wait for the same Timeout, and are
// decided each once.
func TestManyWaitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := live(t, r, 0.5)
		r.set(slow)
		c := volume("login:taro", 1, window(100, time.Hour))
		began := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		taken := int64(0)
		for range 200 {
			all.Go(func() {
				out := spend(t, s, began, c)
				mu.Lock()
				defer mu.Unlock()
				if out.Taken {
					taken++
				}
			})
		}
		all.Wait()
		if d := time.Since(began); d != timeout || taken != 50 {
			t.Errorf("%d taken after %s, want 50 after %s", taken, d, timeout)
		}
		r.set(fine)
		probe(t, s)
		if n := used(t, r.Memory, began, c); n != 50 {
			t.Errorf("redis counts %d, want 50", n)
		}
	})
}

func TestShareOfACount(t *testing.T) {
	for _, c := range []struct {
		share  float64
		count  int64
		passes int64
	}{
		{0.5, 100, 50}, {0.5, 1, 1}, {0.5, 3, 1}, {1, 7, 7}, {0, 10, 5}, {2, 10, 5},
		{1.0 / 3, 300, 100}, {1.0 / 3, 299, 99}, {1.0 / 3, 3, 1}, {1.0 / 3, 9, 3}, {0.01, 50, 1},
	} {
		r := newRemote()
		r.set(gone)
		s := newRelay(r, c.share)
		if n := passes(t, s, time.Now(), volume("login:taro", 1, window(c.count, time.Hour))); n != c.passes {
			t.Errorf("share %g of %d: %d passed, want %d", c.share, c.count, n, c.passes)
		}
	}
}

// A message that only the whole limit has room for waits for Redis; one that no
// window ever has room for is told so.
func TestTooLargeForTheShareIsNotNever(t *testing.T) {
	r, now := newRemote(), time.Now()
	r.set(gone)
	s := newRelay(r, 0.5)
	for _, c := range []struct {
		amount int64
		never  bool
	}{{60, false}, {100, false}, {101, true}} {
		u := spend(t, s, now, volume("login:taro", c.amount, window(100, time.Hour))).Uses[0]
		if !u.Over || u.Never != c.never || u.FreeAt.After(now) == c.never {
			t.Errorf("amount %d of 100: %+v", c.amount, u)
		}
	}
	if u := spend(t, s, now, abuse("login:taro", 60, window(100, time.Hour))).Uses[0]; !u.Never {
		t.Errorf("a shut bucket makes no room: %+v", u)
	}
}

func TestResetWhileAway(t *testing.T) {
	r, now := newRemote(), time.Now()
	s := live(t, r, 0.5)
	c, twin := volume("login:taro", 3, window(100, time.Hour)), volume("server", 3, window(1000, time.Hour))
	spend(t, s, now, c, twin)
	r.set(mute)
	spend(t, s, now, c, twin) // Redis has it, and does not say so
	r.set(gone)
	spend(t, s, now, c, twin)
	if err := s.Reset(t.Context(), now, c.Key); err != nil {
		t.Fatal(err)
	}
	if n := used(t, s, now, c); n != 0 {
		t.Errorf("own bucket counts %d after reset", n)
	}
	spend(t, s, now, c, twin)
	r.set(fine)
	probe(t, s)
	if n, m := used(t, r.Memory, now, c), used(t, r.Memory, now, twin); n != 3 || m != 12 {
		t.Errorf("redis counts %d and %d, want 3 and 12", n, m)
	}
}

// A charge that no store takes is the caller's fault: it is no reason to leave
// Redis. Neither is a caller who has given up.
func TestOtherErrorsDoNotOpenTheBreaker(t *testing.T) {
	r := newRemote()
	s := live(t, r, 0.5)
	var out limit.Outcome
	err := s.Spend(t.Context(), time.Now(), &limit.Step{Charges: []limit.Charge{volume("", 1, window(1, time.Hour))}}, &out)
	if err == nil || errors.Is(err, redis.ErrAway) {
		t.Errorf("an empty key: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Spend(ctx, time.Now(), &limit.Step{Charges: []limit.Charge{volume("a", 1, window(1, time.Hour))}}, &out); err != nil || !out.Taken {
		t.Errorf("the caller has gone: %+v, %v", out, err)
	}
	if h := s.Health(); h.Away {
		t.Errorf("%+v", h)
	}
}

// What only Redis has is an error while it is away.
func TestKeeperIsRedis(t *testing.T) {
	r := newRemote()
	s := live(t, r, 0.5)
	now := time.Now()
	spend(t, s, now, volume("login:taro", 1, window(9, time.Hour)))
	var entries []limit.Entry
	each := func() error {
		entries = nil
		return s.Each(t.Context(), func(e limit.Entry) error { entries = append(entries, e); return nil })
	}
	if err := each(); err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v: want the one bucket and nothing of the probes", len(entries), err)
	}
	if err := s.Put(t.Context(), entries[0]); err != nil {
		t.Error(err)
	}
	r.set(gone)
	spend(t, s, now, volume("login:taro", 1, window(9, time.Hour)))
	if err := each(); !errors.Is(err, redis.ErrAway) {
		t.Errorf("each: %v", err)
	}
	if err := s.Put(t.Context(), limit.Entry{}); !errors.Is(err, redis.ErrAway) {
		t.Errorf("put: %v", err)
	}
}

// What is noted while Redis is away is bounded: what has no room is said to be
// lost, and mail goes on.
func TestWhatIsNotedIsBounded(t *testing.T) {
	r, now := newRemote(), time.Now()
	r.set(gone)
	s := newRelay(r, 0.5)
	const buckets = 200_500
	for i := range buckets {
		spend(t, s, now, volume(fmt.Sprint("login:", i), 1, window(10, time.Hour)))
	}
	if h := s.Health(); h.Pending != 200_000 || h.Lost != 500 {
		t.Errorf("%+v: want 200,000 noted and 500 lost", h)
	}
	r.set(fine)
	back(t, s)
	if n := r.Memory.Len(); n != 200_000 {
		t.Errorf("redis has %d buckets", n)
	}
}
