package redis_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
)

var _ redis.RemoteStore = (*redis.Store)(nil)

// cable is a relay with a real Redis behind a network of its own.
type cable struct {
	relay
	store *redis.Store
	net   *redistest.Network
}

func newCable(t *testing.T, r *redistest.Redis, share float64) cable {
	t.Helper()
	c := cable{net: redistest.Proxy(t, r.Addr)}
	c.store = open(t, r, func(o *redis.Options) { o.Addresses, o.Timeout = []string{c.net.Addr}, timeout })
	c.relay = newRelay(c.store, share)
	back(t, c.relay)
	return c
}

// Three relays share one Redis, and the network between is cut in the middle,
// for one, for some, for all, in every way that networks have. The bounds hold
// in all sliding windows, and Redis then counts all that passed, each once.
func TestThreeRelaysAndACutNetwork(t *testing.T) {
	for _, callers := range []int{1, 4} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%d callers, seed %d", callers, seed), func(t *testing.T) {
				cutNetwork(t, callers, rand.New(rand.NewPCG(seed, uint64(callers))))
			})
		}
	}
}

func cutNetwork(t *testing.T, callers int, rnd *rand.Rand) {
	const share = 0.5
	server := redistest.Server(t)
	var cables []cable
	for range 3 {
		cables = append(cables, newCable(t, server, share))
	}
	windows := []limit.Window{window(40, time.Minute), window(150, 10*time.Minute)}
	start := time.Now() // keys expire by Redis's clock
	var sum passed
	var stopped sync.Map // amounts by id
	for round := range 80 {
		// Time stands still in a round, so that it is known when what passed.
		now := start.Add(time.Duration(round) * 5 * time.Second)
		disturb(cables, round, rnd)
		var both sync.WaitGroup
		for i, c := range cables {
			both.Go(func() { _ = c.Probe(t.Context()) })
			for j := range callers {
				rnd := rand.New(rand.NewPCG(uint64(round), uint64(10*i+j)))
				both.Go(func() {
					for k := range 4 {
						charge := volume("login:taro", 1+rnd.Int64N(3), windows...)
						step := limit.Step{ID: fmt.Sprint(round, "-", i, "-", j, "-", k), Charges: []limit.Charge{charge, all(charge.Amount)}}
						var out limit.Outcome
						if err := c.Spend(t.Context(), now, &step, &out); err != nil {
							t.Error(err)
						}
						if out.Taken {
							sum.add(now, charge.Amount)
						} else {
							stopped.Store(step.ID, charge.Amount)
						}
					}
				})
			}
		}
		both.Wait()
	}
	fallbacks, unsure := int64(0), int64(0)
	for _, c := range cables {
		c.net.Restore()
		back(t, c.relay)
		h := c.Health()
		fallbacks, unsure = fallbacks+h.Fallbacks, unsure+h.Unsure
		if h.Away || h.Pending != 0 || h.Lost != 0 {
			t.Errorf("%+v", h)
		}
	}
	for _, w := range windows {
		bound := w.Count + 3*capOf(w.Count, share)
		if callers == 1 {
			bound -= capOf(w.Count, share)
		}
		n := sum.most(w.Length)
		t.Logf("%d passed in %s, the limit is %d, the bound %d; %d steps without redis, %d without answer", n, w.Length, w.Count, bound, fallbacks, unsure)
		if n > bound || n < w.Count/2 {
			t.Errorf("%d passed in %s, want at most %d", n, w.Length, bound)
		}
	}
	is, want := int64(0), int64(-1)
	for range 1000 { // calls that a network held back may still arrive
		if is, want = used(t, cables[0].store, start.Add(time.Hour), all(1)), sum.total()+takenUnheard(t, cables[0].store, &stopped); is == want {
			break
		}
	}
	if is != want {
		t.Errorf("redis counts %d, want %d", is, want)
	}
	if all := int64(80 * 3 * 4 * callers); fallbacks == 0 || fallbacks == all || unsure == 0 {
		t.Errorf("%d of %d steps without redis, %d without answer: was it cut?", fallbacks, all, unsure)
	}
}

// takenUnheard is what Redis took of steps that a relay, who did not hear of it,
// stopped: that counts as charged.
func takenUnheard(t *testing.T, store *redis.Store, stopped *sync.Map) (sum int64) {
	t.Helper()
	stopped.Range(func(id, amount any) bool {
		_, taken, err := store.Outcome(t.Context(), id.(string))
		for err != nil {
			_, taken, err = store.Outcome(t.Context(), id.(string))
		}
		if taken {
			sum += amount.(int64)
		}
		return true
	})
	return sum
}

// disturb breaks and mends networks; all of them for a while in the middle.
func disturb(cables []cable, round int, rnd *rand.Rand) {
	for i := range cables {
		net := cables[i].net
		switch way := rnd.IntN(20); {
		case round == 30:
			net.Refuse()
		case round > 30 && round < 45:
		case round == 45 || way < 6:
			net.Restore()
		case way == 6:
			net.Refuse()
		case way == 7:
			net.Silence()
		case way == 8:
			net.Cut()
		case way == 9:
			net.Delay(timeout)
		}
	}
}

// A Redis that stands still does what it was asked when it goes on, after the
// relay has decided by itself: that is counted once.
func TestRedisThatStoodStill(t *testing.T) {
	server := redistest.Server(t)
	c, now := newCable(t, server, 1), time.Now()
	charge := volume("login:taro", 5, window(100, time.Hour))
	spend(t, c, now, charge)
	server.Pause()
	for range 3 {
		spend(t, c, now, charge)
	}
	if err := c.Probe(t.Context()); err == nil {
		t.Error("no error of a redis that stands still")
	}
	server.Continue()
	back(t, c.relay)
	if n := used(t, c.store, now, charge); n != 20 {
		t.Errorf("redis counts %d, want 20", n)
	}
}

// A Redis without room answers, but it is of no use.
func TestRedisThatIsFull(t *testing.T) {
	server := redistest.Server(t)
	c, now := newCable(t, server, 1), time.Now()
	full := func(bytes string) {
		t.Helper()
		if err := c.store.Client().ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	charge := volume("login:taro", 5, window(100, time.Hour))
	full("1")
	if !spend(t, c, now, charge).Taken {
		t.Error("not taken")
	}
	if err := c.Probe(t.Context()); err == nil || !c.Health().Away {
		t.Errorf("a full redis is in use: %v, %+v", err, c.Health())
	}
	full("0")
	back(t, c.relay)
	if n := used(t, c.store, now, charge); n != 5 {
		t.Errorf("redis counts %d, want 5", n)
	}
}

// A Redis that comes back without its data is told what passed meanwhile.
func TestRedisThatForgot(t *testing.T) {
	server := redistest.Server(t)
	c, now := newCable(t, server, 1), time.Now()
	charge := volume("login:taro", 5, window(100, time.Hour))
	spend(t, c, now, charge)
	server.Kill()
	spend(t, c, now, charge)
	server.Restart()
	back(t, c.relay)
	if n := used(t, c.store, now, charge); n != 5 {
		t.Errorf("redis counts %d, want 5", n)
	}
	if !spend(t, c, now, charge).Taken || used(t, c.store, now, charge) != 10 {
		t.Error("redis is not in use")
	}
}

// Buckets that no other relay charges have no share: the whole count is this
// relay's.
func TestOwnBucketsAreNotShared(t *testing.T) {
	server := redistest.Server(t)
	store := open(t, server, func(o *redis.Options) { o.Own = "web1" })
	s, now := live(t, store, 1.0/3), time.Now()
	mine, ours := volume("local_user:33", 1, window(9, time.Hour)), volume("login:taro", 1, window(9, time.Hour))
	for range 2 {
		spend(t, s, now, mine, ours)
	}
	server.Kill()
	if n, m := passes(t, s, now, mine), passes(t, s, now, ours); n != 7 || m != 1 {
		t.Errorf("%d passed of the relay's own and %d of the shared one, want 7 and 1", n, m)
	}
}
