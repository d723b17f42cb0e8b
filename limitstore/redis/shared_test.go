package redis_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
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
	if u := spend(t, s, now, abuse("login:taro", 60, window(100, time.Hour))).Uses[0]; !u.Over || u.Never {
		t.Errorf("abuse of less than the count: %+v", u)
	}
	if u := spend(t, s, now, abuse("login:taro", 101, window(100, time.Hour))).Uses[0]; !u.Never {
		t.Errorf("a shut bucket makes no room: %+v", u)
	}
}

// Who finds buckets by Each can reset and resume them while Redis is away: here
// at once, there when it is back.
func TestFoundAndResumedWhileAway(t *testing.T) {
	r, now := newRemote(), time.Now()
	s := live(t, r, 0.5)
	shut, counted := abuse("site:a", 1, window(4, time.Hour)), volume("site:a", 1, window(10, time.Hour))
	passes(t, s, now, shut)
	spend(t, s, now, counted)
	r.set(gone)
	spend(t, s, now, counted) // the breaker opens
	err := s.Each(t.Context(), func(e limit.Entry) error {
		if !e.State.Latched.IsZero() {
			return s.Resume(t.Context(), now, e.State.Key)
		}
		return s.Reset(t.Context(), now, e.State.Key)
	})
	if err != nil {
		t.Fatal(err)
	}
	later := now.Add(2 * time.Hour)
	for _, when := range []string{"away", "back"} {
		if !spend(t, s, later, shut).Taken {
			t.Errorf("%s: still shut", when)
		}
		if n := used(t, s, now, counted); n != 0 {
			t.Errorf("%s: %d used, want 0", when, n)
		}
		r.set(fine)
		probe(t, s)
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

// Redis's buckets are told while it is there. While it is away those of this relay
// are, and Whole is an error.
func TestKeeperIsRedis(t *testing.T) {
	r := newRemote()
	s := live(t, r, 0.5)
	now := time.Now()
	spend(t, s, now, volume("login:taro", 1, window(9, time.Hour)))
	var entries []limit.Entry
	each := func(k limit.Keeper) error {
		entries = nil
		return k.Each(t.Context(), func(e limit.Entry) error { entries = append(entries, e); return nil })
	}
	for _, k := range []limit.Keeper{s, s.Whole()} {
		if err := each(k); err != nil || len(entries) != 1 {
			t.Fatalf("%d entries, %v: want the one bucket and nothing of the probes", len(entries), err)
		}
		if err := k.Put(t.Context(), entries[0]); err != nil {
			t.Error(err)
		}
	}
	other := live(t, r.way(), 0.5)
	spend(t, other, now, volume("login:jiro", 1, window(9, time.Hour)))
	if err := each(s); err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v: want those of all relays", len(entries), err)
	}
	r.set(gone)
	for _, when := range []string{"nobody has noticed yet", "the breaker is open"} {
		if err := each(s); err != nil || len(entries) != 1 || entries[0].State.Key.Value != "login:taro" {
			t.Errorf("%s: each: %+v, %v: want this relay's own", when, entries, err)
		}
		if err := each(s.Whole()); !errors.Is(err, redis.ErrAway) || len(entries) > 0 {
			t.Errorf("%s: each of the whole: %+v, %v", when, entries, err)
		}
		spend(t, s, now, volume("login:taro", 1, window(9, time.Hour)))
	}
	if err := s.Put(t.Context(), limit.Entry{}); !errors.Is(err, redis.ErrAway) {
		t.Errorf("put: %v", err)
	}
}

// An account that is forgotten is so in this relay's own buckets, too, and in what
// Redis is to be told.
func TestForgottenAccountIsForgottenHere(t *testing.T) {
	r := newRemote()
	s, now := live(t, r, 0.5), time.Now()
	mail := func(account string) {
		t.Helper()
		step := &limit.Step{Known: limit.Known{Account: account, Items: []limit.Item{1, 2}}, Charges: []limit.Charge{volume(account, 1, window(9, time.Hour))}}
		if err := s.Spend(t.Context(), now, step, &limit.Outcome{}); err != nil {
			t.Fatal(err)
		}
	}
	knows := func(k limit.Keeper) (accounts []string) {
		_ = k.Each(t.Context(), func(e limit.Entry) error {
			if e.Known != nil {
				accounts = append(accounts, e.Known.Account)
			}
			return nil
		})
		return accounts
	}
	mail("login:taro")
	mail("login:jiro")
	r.set(slow) // an Add in a hurry is owed while the breaker is closed
	ctx, cancel := context.WithTimeout(t.Context(), timeout/5)
	defer cancel()
	if err := s.Add(ctx, now, &limit.Step{Known: limit.Known{Account: "login:taro", Items: []limit.Item{3}}, Charges: []limit.Charge{volume("login:taro", 1, window(9, time.Hour))}}); err != nil {
		t.Fatal(err)
	}
	r.set(fine)
	if err := s.Put(t.Context(), limit.Entry{Known: &limit.KnownState{Account: "login:taro"}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(timeout)
	probe(t, s)
	if all := knows(r.Memory); len(all) != 1 || all[0] != "login:jiro" {
		t.Errorf("redis knows of %q", all)
	}
	if n := used(t, r.Memory, now, volume("login:taro", 1, window(9, time.Hour))); n != 2 {
		t.Errorf("redis counts %d, want 2", n)
	}
	r.set(gone)
	if all := knows(s); len(all) != 1 || all[0] != "login:jiro" {
		t.Errorf("this relay knows of %q", all)
	}
}

// What is noted while Redis is away is bounded: what has no room is said to be
// lost, and mail goes on.
func TestWhatIsNotedIsBounded(t *testing.T) {
	synctest.Test(t, whatIsNotedIsBounded) // no time-out passes, however slow the machine
}

func whatIsNotedIsBounded(t *testing.T) {
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

// A caller whose time ends before that of a call is told so by then, and tells
// nothing about Redis: other mail goes on to ask it. His step counts only if Redis
// took it.
func TestCallerInAHurryDoesNotOpenTheBreaker(t *testing.T) {
	const left = timeout / 2
	c := volume("login:taro", 5, window(100, time.Hour))
	for name, wait := range map[string]time.Duration{"answered late": left + left/2, "answered never": time.Hour, "in time": left / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &slowly{remote: newRemote()}
				s := live(t, r, 0.5)
				run(t, s)
				synctest.Wait()
				r.wait.Store(int64(wait))
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), left)
				defer cancel()
				charges := []limit.Charge{c}
				var out limit.Outcome
				err := s.Spend(ctx, began, &limit.Step{Charges: charges}, &out)
				inTime := wait < left
				if d := time.Since(began); out.Taken != inTime || errors.Is(err, context.DeadlineExceeded) == inTime || (err == nil) != inTime || d > left {
					t.Fatalf("after %s: %+v, %v", d, out, err)
				}
				charges[0], out = limit.Charge{}, limit.Outcome{} // are the caller's again
				if h := s.Health(); h.Away {
					t.Errorf("one caller was in a hurry: %+v", h)
				}
				r.wait.Store(0)
				spend(t, s, time.Now(), c)
				time.Sleep(3 * time.Second)
				if out.Taken || r.spoilt.Load() {
					t.Errorf("what the caller has again is still in use: %+v", out)
				}
				want := int64(10)
				if wait == time.Hour {
					want = 5
				}
				if n := used(t, r.Memory, began, c); n != want {
					t.Errorf("redis counts %d, want %d", n, want)
				}
				if h := s.Health(); h.Away || h.Fallbacks != 0 || h.Pending != 0 || h.Lost != 0 {
					t.Errorf("%+v", h)
				}
				if wait == time.Hour && s.Health().Unsure != 1 {
					t.Errorf("the call that had all its time and no answer: %+v", s.Health())
				}
			})
		})
	}
}

// However many callers are in a hurry, no more than the limit passes while Redis is
// there.
func TestHurriedCallersHaveNoShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c, n := &slowly{remote: newRemote()}, volume("login:taro", 1, window(10, time.Hour)), int64(0)
		s := live(t, r, 0.5)
		n += passes(t, live(t, r.way(), 0.5), time.Now(), c)
		r.wait.Store(int64(timeout * 3 / 4))
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), timeout/2)
			var out limit.Outcome
			step := &limit.Step{Charges: []limit.Charge{c}}
			if err := s.Spend(ctx, time.Now(), step, &out); err == nil && out.Taken {
				n++
			}
			cancel()
			time.Sleep(time.Second)
			probe(t, s)
		}
		if h := s.Health(); n != 10 || h.Fallbacks != 0 {
			t.Errorf("%d of 10 passed, %+v", n, h)
		}
	})
}

// slowly is a Redis whose answers to Spend take a while.
type slowly struct {
	*remote
	wait   atomic.Int64
	spoilt atomic.Bool // the step was not there any more
}

func (r *slowly) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	if d := time.Duration(r.wait.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", redis.ErrUnsure, ctx.Err())
		}
	}
	if step.Charges[0].Amount == 0 {
		r.spoilt.Store(true)
	}
	return r.remote.Spend(ctx, now, step, out)
}

// Everything that a caller may ask in a hurry is done by then, and Redis is not
// away for it; without any time it is an error.
func TestEverythingInAHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, began := newRemote(), time.Now()
		s := live(t, r, 0.5)
		c := volume("login:taro", 1, window(100, time.Hour))
		step := &limit.Step{Charges: []limit.Charge{c}}
		var out limit.Outcome
		all := map[string]func(context.Context) error{
			"spend":  func(ctx context.Context) error { return s.Spend(ctx, began, step, &out) },
			"peek":   func(ctx context.Context) error { return s.Peek(ctx, began, step, &out) },
			"add":    func(ctx context.Context) error { return s.Add(ctx, began, step) },
			"resume": func(ctx context.Context) error { return s.Resume(ctx, began, c.Key) },
			"reset":  func(ctx context.Context) error { return s.Reset(ctx, began, c.Key) },
		}
		for name, do := range all {
			for left, want := range map[time.Duration]error{timeout / 5: nil, 0: context.DeadlineExceeded} {
				if name == "spend" || name == "peek" { // which decide
					want = context.DeadlineExceeded
				}
				r.set(slow)
				ctx, cancel := context.WithTimeout(t.Context(), left)
				began := time.Now()
				if err := do(ctx); !errors.Is(err, want) || time.Since(began) != left {
					t.Errorf("%s with %s: %v after %s", name, left, err, time.Since(began))
				}
				cancel()
				if h := s.Health(); h.Away {
					t.Errorf("%s with %s: %+v", name, left, h)
				}
				time.Sleep(timeout) // the call itself has no answer
				if h := s.Health(); h.Away != (left > 0) {
					t.Errorf("%s with %s, later: %+v", name, left, h)
				}
				r.set(fine)
				probe(t, s)
			}
		}
	})
}
