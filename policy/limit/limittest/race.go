package limittest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayguard/policy/limit"
)

const spenders = 64

// together runs fn in as many goroutines as there are spenders.
func together(fn func(spender int)) {
	var all sync.WaitGroup
	for i := range spenders {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}

// racingSpenders take from one bucket of the server and four of logins. Time
// stands still while they race, so that it is known when what has passed.
func racingSpenders(t *testing.T, s limit.Store) {
	server := []limit.Window{window(100, 10*time.Second), window(400, time.Minute)}
	login := []limit.Window{window(40, 16*time.Second)}
	const logins = 4
	var passed [1 + logins][]event // the server's, then each login's
	for round := range 20 {
		now := start.Add(time.Duration(round) * 2500 * time.Millisecond)
		var sums [1 + logins]atomic.Int64
		together(func(spender int) {
			rnd := rand.New(rand.NewPCG(uint64(round), uint64(spender)))
			for range 3 {
				who, amount := rnd.IntN(logins), 1+rnd.Int64N(3)
				charges := []limit.Charge{
					{Key: limit.Key{Limit: "server", Value: "server"}, Kind: limit.Volume, Windows: server, Amount: amount},
					{Key: limit.Key{Limit: "login", Value: fmt.Sprint("login:", who)}, Kind: limit.Volume, Windows: login, Amount: amount},
				}
				if rnd.IntN(2) == 0 { // in either order: no dead lock
					charges[0], charges[1] = charges[1], charges[0]
				}
				out, err := Spend(t.Context(), s, now, charges)
				if err != nil {
					t.Error(err)
				}
				if out.Taken {
					sums[0].Add(amount)
					sums[1+who].Add(amount)
				}
			}
		})
		for i := range sums {
			passed[i] = append(passed[i], event{now, sums[i].Load()})
		}
	}
	for i, events := range passed {
		windows := server
		if i > 0 {
			windows = login
		}
		for _, w := range windows {
			switch got := most(events, w.Length); {
			case got > w.Count:
				t.Errorf("bucket %d: %d passed within %s, want at most %d", i, got, w.Length, w.Count)
			case got == 0:
				t.Errorf("bucket %d: nothing passed", i)
			}
		}
	}
	// The race was for something: one at a time fill up what they left.
	if got := most(passed[0], 10*time.Second); got < 90 {
		t.Errorf("only %d of 100 passed: was there a race?", got)
	}
}

// racingLatch: of an abuse bucket, nothing passes after the first refusal.
func racingLatch(t *testing.T, s limit.Store) {
	c := charge("abuse", 3, window(100, time.Hour))
	var taken, refused atomic.Int64
	together(func(int) {
		for range 3 {
			out, err := Spend(t.Context(), s, start, []limit.Charge{c})
			switch {
			case err != nil:
				t.Error(err)
			case out.Taken:
				taken.Add(1)
			case out.Latched[0]:
				refused.Add(1)
			}
		}
	})
	if taken.Load() != 33 || refused.Load() != 3*spenders-33 {
		t.Errorf("%d taken, %d shut out", taken.Load(), refused.Load())
	}
	c.Amount = 1
	out, err := Spend(t.Context(), s, start, []limit.Charge{c})
	if err != nil || out.Taken {
		t.Errorf("one more fits, but the bucket is shut: %+v, %v", out, err)
	}
	if want := refused.Load() * 3; out.Attempts[0] != want {
		t.Errorf("%d attempts, want %d", out.Attempts[0], want)
	}
}
