package redis_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// charge takes from a bucket of 10 an hour.
func charge(key string, amount int64) limit.Charge {
	return limit.Charge{Key: limit.Key{Limit: key, Value: "login:taro@example.jp"}, Kind: limit.Volume, Windows: []limit.Window{{Count: 10, Length: time.Hour}}, Amount: amount}
}

func take(t *testing.T, s limit.Store, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	out, err := limittest.Spend(t.Context(), s, now, charges)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestScriptIsSentAgain(t *testing.T) {
	s := open(t, redistest.Server(t))
	for range 3 {
		if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		take(t, s, charge("a", 1))
	}
	if out := take(t, s, charge("a", 0)); out.Uses[0].Used != 3 {
		t.Errorf("used %d, want 3: each was done once", out.Uses[0].Used)
	}
}

// A server that would not write has done nothing, and says so.
func TestRefusedWritesAreAway(t *testing.T) {
	for name, refuse := range map[string]func(c goredis.UniversalClient) error{
		"full":    func(c goredis.UniversalClient) error { return c.ConfigSet(t.Context(), "maxmemory", "1").Err() },
		"replica": func(c goredis.UniversalClient) error { return c.Do(t.Context(), "replicaof", "127.0.0.1", "1").Err() },
		"alone": func(c goredis.UniversalClient) error {
			return c.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, redistest.Server(t))
			take(t, s, charge("a", 1))
			if err := refuse(s.Client()); err != nil {
				t.Fatal(err)
			}
			_, err := limittest.Spend(t.Context(), s, now, []limit.Charge{charge("a", 1)})
			if !errors.Is(err, redis.ErrAway) || errors.Is(err, redis.ErrUnsure) {
				t.Errorf("got %v, want ErrAway", err)
			}
			if out, err := limittest.Peek(t.Context(), s, now, []limit.Charge{charge("a", 1)}); err == nil && out.Uses[0].Used != 1 {
				t.Errorf("used %d, want 1", out.Uses[0].Used)
			}
		})
	}
}

func TestSilentServerIsUnsure(t *testing.T) {
	r := redistest.Server(t)
	s := open(t, r, func(o *redis.Options) { o.Timeout = 50 * time.Millisecond })
	redistest.Until(t, "the server answers", func(ctx context.Context) error { return s.Ping(ctx) })
	r.Pause()
	t.Cleanup(r.Continue)
	_, err := limittest.Spend(t.Context(), s, now, []limit.Charge{charge("a", 1)})
	if !errors.Is(err, redis.ErrUnsure) || errors.Is(err, redis.ErrAway) {
		t.Errorf("got %v, want ErrUnsure", err)
	}
}

// Who gives up does so alone, and those that were not sent never are.
func TestWaitingEndsWithItsContext(t *testing.T) {
	r := redistest.Server(t)
	s := open(t, r)
	take(t, s, charge("a", 1))
	r.Pause()
	t.Cleanup(r.Continue)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	errs := make(chan error)
	for range 8 {
		go func() {
			_, err := limittest.Spend(ctx, s, now, []limit.Charge{charge("a", 1)})
			errs <- err
		}()
	}
	unsure := int64(0)
	for range 8 {
		switch err := <-errs; {
		case errors.Is(err, redis.ErrUnsure):
			unsure++
		case !errors.Is(err, redis.ErrAway):
			t.Errorf("got %v", err)
		}
	}
	if unsure == 0 {
		t.Error("nothing was sent")
	}
	r.Continue()
	if out := take(t, s, charge("a", 0)); out.Uses[0].Used > 1+unsure {
		t.Errorf("used %d; 1 and %d unsure", out.Uses[0].Used, unsure)
	}
}

func TestDeadServerIsAway(t *testing.T) {
	r := redistest.Server(t)
	s := open(t, r)
	r.Kill()
	for range 3 {
		if _, err := limittest.Spend(t.Context(), s, now, []limit.Charge{charge("a", 1)}); !errors.Is(err, redis.ErrAway) {
			t.Errorf("got %v, want ErrAway", err)
		}
	}
	if err := s.Ping(t.Context()); !errors.Is(err, redis.ErrAway) {
		t.Errorf("ping: %v", err)
	}
	r.Restart()
	redistest.Until(t, "the server is back", func(ctx context.Context) error { return s.Ping(ctx) })
	take(t, s, charge("a", 1))
}

func TestRepeatIsGivenTheFirstOutcome(t *testing.T) {
	s := open(t, redistest.Server(t))
	first := map[string]limit.Outcome{}
	for _, id := range []string{"one", "two", "one", "three \x00\xff"} {
		step := &limit.Step{ID: id, Charges: []limit.Charge{charge("a", 6), charge("b", 2)}}
		var out limit.Outcome
		if err := s.Spend(t.Context(), now, step, &out); err != nil {
			t.Fatal(err)
		}
		if was, ok := first[id]; ok && !reflect.DeepEqual(was, out) {
			t.Errorf("first %+v\nthen %+v", was, out)
		}
		first[id] = out
	}
	if out := take(t, s, charge("a", 0), charge("b", 0)); out.Uses[0].Used != 6 || out.Uses[1].Used != 2 || out.Attempts[0] != 12 {
		t.Errorf("%+v", out)
	}
	for id, want := range map[string][2]bool{"one": {true, true}, "two": {false, false}, "three \x00\xff": {false, false}, "never": {false, false}} {
		if found, taken, err := s.Outcome(t.Context(), id); err != nil || found != want[0] || taken != want[1] {
			t.Errorf("%q: found %t, taken %t, %v; want %v", id, found, taken, err, want)
		}
	}
	add := &limit.Step{ID: "added", Charges: []limit.Charge{charge("a", 1)}}
	for range 3 {
		if err := s.Add(t.Context(), now, add); err != nil {
			t.Fatal(err)
		}
	}
	if out := take(t, s, charge("a", 0)); out.Uses[0].Used != 7 {
		t.Errorf("used %d, want 7", out.Uses[0].Used)
	}
	other := &limit.Step{ID: "one", Charges: []limit.Charge{charge("a", 1)}}
	if err := s.Spend(t.Context(), now, other, &limit.Outcome{}); err == nil || errors.Is(err, redis.ErrUnsure) || errors.Is(err, redis.ErrAway) {
		t.Errorf("another step with the same id: %v", err)
	}
}

// A step that was stopped may be taken when it is asked again with its id, and one
// whose id another step had is no reason to leave Redis.
func TestIDsOfOtherSteps(t *testing.T) {
	store := open(t, redistest.Server(t))
	s := live(t, store, 0.5)
	spend := func(id string, charges ...limit.Charge) (out limit.Outcome, err error) {
		err = s.Spend(t.Context(), now, &limit.Step{ID: id, Charges: charges}, &out)
		return out, err
	}
	take(t, store, charge("a", 10))
	if out, err := spend("release:1", charge("a", 6)); err != nil || out.Taken {
		t.Fatalf("%+v, %v: want it stopped", out, err)
	}
	if err := s.Reset(t.Context(), now, charge("a", 1).Key); err != nil {
		t.Fatal(err)
	}
	if out, err := spend("release:1", charge("a", 1), charge("b", 1)); err != nil || !out.Taken {
		t.Errorf("after a reset: %+v, %v", out, err)
	}
	for _, id := range []string{"release:1", "hot"} { // the second is answered with heads
		if id == "hot" {
			if _, err := spend(id, charge("a", 1), charge("b", 1)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := spend(id, charge("a", 1)); err == nil || errors.Is(err, redis.ErrUnsure) || errors.Is(err, redis.ErrAway) {
			t.Errorf("%s: another step with the same id: %v", id, err)
		}
	}
	if h := s.Health(); h.Away || h.Fallbacks > 0 {
		t.Errorf("%+v", h)
	}
}

// A bucket that somebody broke fails the steps that need it, and no others.
func TestDamagedBucketIsNamed(t *testing.T) {
	s := open(t, redistest.Server(t))
	take(t, s, charge("a", 1), charge("b", 1))
	keys, err := s.Client().Keys(t.Context(), "{relayguard}:b:1:a*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatal(keys, err)
	}
	for _, damage := range []string{"x", "\x01", "\x01\x01", "\x01\x06", "\x03\x01" + strings.Repeat("x", 100), "\x01\x01" + strings.Repeat("\xff", 200), "\x02\x06" + strings.Repeat("\xff", 500)} {
		if err := s.Client().Set(t.Context(), keys[0], damage, 0).Err(); err != nil {
			t.Fatal(err)
		}
		_, err := limittest.Spend(t.Context(), s, now, []limit.Charge{charge("b", 1), charge("a", 1)})
		if err == nil || !strings.Contains(err.Error(), "a/login:taro@example.jp") || errors.Is(err, redis.ErrUnsure) {
			t.Errorf("%q: %v", damage, err)
		}
		if out := take(t, s, charge("b", 0)); out.Uses[0].Used != 1 {
			t.Errorf("%q: %+v", damage, out)
		}
		if err := s.Resume(t.Context(), now, charge("a", 1).Key); err != nil {
			t.Errorf("%q: %v", damage, err)
		}
	}
	entries := 0
	if err := s.Each(t.Context(), func(limit.Entry) error { entries++; return nil }); err != nil || entries != 1 {
		t.Errorf("%d entries, %v; want the one that is none left out", entries, err)
	}
	if err := s.Reset(t.Context(), now, charge("a", 1).Key); err != nil {
		t.Fatal(err)
	}
	take(t, s, charge("a", 1))
}
