package redis_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/policy/limit"
)

// passed is what all relays together passed under one limit.
type passed struct {
	mu     sync.Mutex
	events []event
}

type event struct {
	at     time.Time
	amount int64
}

func (p *passed) add(at time.Time, amount int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, event{at, amount})
}

// most is the largest sum of any closed interval of that length.
func (p *passed) most(length time.Duration) (most int64) {
	for _, first := range p.events {
		sum := int64(0)
		for _, e := range p.events {
			if !e.at.Before(first.at) && !e.at.After(first.at.Add(length)) {
				sum += e.amount
			}
		}
		most = max(most, sum)
	}
	return most
}

func (p *passed) total() (sum int64) {
	for _, e := range p.events {
		sum += e.amount
	}
	return sum
}

// capOf is what one relay passes by itself.
func capOf(count int64, share float64) int64 { return max(1, int64(float64(count)*share)) }

// all counts everything: no limit stops it, and no window forgets it.
func all(amount int64) limit.Charge { return volume("all", amount, window(1<<40, limit.MaxLength)) }

// The bounds that the documentation states hold in random traffic through random
// faults, for each relay its own: the first one for every fault, the lower one
// if relays know which of their calls Redis did.
func TestBoundOfWhatPassesWhileRedisIsAway(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		for name, faults := range map[string][]fault{"refused": {gone}, "every fault": {gone, slow, mute, late}} {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { boundHolds(t, rand.New(rand.NewPCG(seed, 1)), faults) })
			})
		}
	}
}

func boundHolds(t *testing.T, rnd *rand.Rand, faults []fault) {
	share := []float64{1.0 / 3, 0.5, 1, 0.05}[rnd.IntN(4)]
	w := newRemote().world
	var ways []*remote
	var relays []relay
	for range 3 {
		ways = append(ways, w.way())
		relays = append(relays, live(t, ways[len(ways)-1], share))
	}
	windows := []limit.Window{window(5+rnd.Int64N(20), 10*time.Minute), window(20+rnd.Int64N(50), time.Hour)}
	var sum passed
	for range 600 {
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Minute))))
		i := rnd.IntN(3)
		switch rnd.IntN(20) {
		case 0:
			ways[i].set(faults[rnd.IntN(len(faults))])
		case 1, 2:
			ways[i].set(fine)
			_ = relays[i].Probe(t.Context())
		case 3: // for all at once
			for i := range ways {
				ways[i].set(gone)
			}
		}
		now, c := time.Now(), volume("login:taro", 1+rnd.Int64N(3), windows...)
		if spend(t, relays[i], now, c, all(c.Amount)).Taken {
			sum.add(now, c.Amount)
		}
	}
	for i := range relays {
		ways[i].set(fine)
		if err := relays[i].Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		ways[i].queued.Wait()
	}
	for _, w := range windows {
		bound := w.Count + 3*capOf(w.Count, share)
		if len(faults) == 1 {
			bound -= capOf(w.Count, share)
		}
		if n := sum.most(w.Length); n > bound {
			t.Errorf("share %g: %d passed in %s, want at most %d with a limit of %d", share, n, w.Length, bound, w.Count)
		}
	}
	if n := used(t, w.Memory, time.Now(), all(1)); len(faults) == 1 && n != sum.total() {
		t.Errorf("redis counts %d, want %d", n, sum.total())
	}
}

// With even traffic and a share of 1/n, all relays together stay within the
// limit when all are cut off.
func TestShareOfAThirdKeepsThreeWithinTheLimit(t *testing.T) {
	w := newRemote().world
	ways, relays := []*remote{w.way(), w.way(), w.way()}, []relay{}
	for _, way := range ways {
		relays = append(relays, live(t, way, 1.0/3))
	}
	c, now := volume("login:taro", 1, window(300, time.Hour)), time.Now()
	var sum passed
	for i := range 3000 {
		if i == 200 {
			for _, way := range ways {
				way.set(gone)
			}
		}
		now = now.Add(time.Second)
		if spend(t, relays[i%3], now, c).Taken {
			sum.add(now, 1)
		}
	}
	if n := sum.most(time.Hour); n != 300 {
		t.Errorf("%d passed in an hour, want 300", n)
	}
}

// One relay alone never passes more than the limit.
func TestOneRelayStaysWithinTheLimit(t *testing.T) {
	for _, share := range []float64{0.3, 0.5, 1} {
		r := newRemote()
		s := live(t, r, share)
		c, now := volume("login:taro", 1, window(100, time.Hour)), time.Now()
		rnd := rand.New(rand.NewPCG(1, 2))
		var sum passed
		for range 5000 {
			switch rnd.IntN(50) {
			case 0:
				r.set(gone)
			case 1:
				r.set(fine)
				probe(t, s)
			}
			now = now.Add(time.Duration(rnd.Int64N(int64(20 * time.Second))))
			if spend(t, s, now, c).Taken {
				sum.add(now, 1)
			}
		}
		if n := sum.most(time.Hour); n > 100 {
			t.Errorf("share %g: %d passed in an hour, want at most 100", share, n)
		}
	}
}

// The lower bound is reached when one relay has used up the limit.
func TestBoundIsReached(t *testing.T) {
	w := newRemote().world
	c, now := volume("login:taro", 1, window(100, time.Hour)), time.Now()
	passed := int64(0)
	var ways []*remote
	var relays []relay
	for i := range 3 {
		ways = append(ways, w.way())
		relays = append(relays, live(t, ways[i], 0.3))
	}
	passed += passes(t, relays[0], now, c)
	for i := range relays {
		ways[i].set(gone)
		passed += passes(t, relays[i], now, c)
	}
	for i := range relays {
		ways[i].set(fine)
		probe(t, relays[i])
		passed += passes(t, relays[i], now, c)
	}
	if passed != 100+2*30 {
		t.Errorf("%d passed, want 100 and twice 30", passed)
	}
	if n := used(t, w.Memory, now, c); n != passed {
		t.Errorf("redis counts %d, want %d", n, passed)
	}
}
