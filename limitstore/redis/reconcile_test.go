package redis_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/policy/limit"
)

// A step that got no answer is counted once, whatever became of it.
func TestUnansweredStepCountsOnce(t *testing.T) {
	c := volume("login:taro", 5, window(100, time.Hour))
	for name, test := range map[string]struct {
		fault fault
		away  time.Duration
		want  int64 // in Redis
	}{
		"not done":                        {slow, time.Second, 5},
		"done":                            {mute, time.Second, 5},
		"done later":                      {late, 10 * time.Second, 5},
		"done while it is asked about":    {late, 950 * time.Millisecond, 5},
		"not done, and nobody knows":      {slow, time.Minute, 0}, // counts as charged
		"done, and nobody knows any more": {mute, time.Minute, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRemote()
				s := live(t, r, 0.5)
				now := time.Now()
				r.set(test.fault)
				spend(t, s, now, c)
				r.set(gone)
				time.Sleep(test.away - timeout)
				r.set(fine)
				back(t, s)
				r.queued.Wait()
				if n := used(t, r.Memory, now, c); n != test.want {
					t.Errorf("redis counts %d, want %d", n, test.want)
				}
				if h := s.Health(); h.Unsure != 1 || h.Fallbacks != 1 || h.Pending != 0 {
					t.Errorf("%+v", h)
				}
			})
		})
	}
}

// Redis stopped a step, its answer was lost, and the relay passed it by itself:
// it is added. The other way round it is charged though nothing passed.
func TestUnansweredStepJudgedOtherwise(t *testing.T) {
	r, now := newRemote(), time.Now()
	s, other := live(t, r, 0.5), live(t, r, 0.5)
	c := volume("login:taro", 1, window(10, time.Hour))
	passes(t, other, now, c)
	r.set(mute)
	if !spend(t, s, now, c).Taken {
		t.Fatal("this relay has its whole share")
	}
	r.set(fine)
	probe(t, s)
	if n := used(t, r.Memory, now, c); n != 11 {
		t.Errorf("redis counts %d, want the 10 it allows and 1", n)
	}

	c = volume("login:jiro", 1, window(10, time.Hour))
	for range 5 {
		spend(t, s, now, c)
	}
	r.set(mute)
	if spend(t, s, now, c).Taken {
		t.Fatal("its share is used up")
	}
	r.set(fine)
	probe(t, s)
	if n := used(t, r.Memory, now, c); n != 6 {
		t.Errorf("redis counts %d, want 6", n)
	}
}

// An Add that got no answer, such as a bounce, is done once.
func TestUnansweredAdd(t *testing.T) {
	for _, f := range []fault{slow, mute, gone} {
		r, now := newRemote(), time.Now()
		s := live(t, r, 0.5)
		c := volume("login:taro", 3, window(100, time.Hour))
		add := func() {
			t.Helper()
			if err := s.Add(t.Context(), now, &limit.Step{Charges: []limit.Charge{c}}); err != nil {
				t.Fatal(err)
			}
		}
		add()
		r.set(f)
		add()
		r.set(gone)
		add()
		if n := used(t, s, now, c); n != 9 {
			t.Errorf("fault %d: own bucket counts %d, want 9", f, n)
		}
		r.set(fine)
		probe(t, s)
		if n := used(t, r.Memory, now, c); n != 9 {
			t.Errorf("fault %d: redis counts %d, want 9", f, n)
		}
	}
}

// Redis may go away at any call of a reconciliation: what was paid is not paid
// again.
func TestReconciliationGoesOnWhereItStopped(t *testing.T) {
	windows := []limit.Window{window(10_000, time.Hour)}
	for calls := 1; ; calls++ {
		r, now := newRemote(), time.Now()
		s := live(t, r, 1)
		r.set(mute)
		passed := map[int]int64{}
		send := func(i int) {
			c := volume(fmt.Sprint("login:", i), int64(i+1), windows...)
			if spend(t, s, now, c).Taken {
				passed[i] += c.Amount
			}
		}
		for i := range 30 {
			send(i % 10)
			r.set(gone)
			now = now.Add(time.Minute)
		}
		tries := 0
		for r.goneAfter(calls); s.Probe(t.Context()) != nil; r.goneAfter(calls) {
			if tries++; tries%3 == 0 {
				send(tries % 10)
			}
			if tries > 500 && calls > 10 {
				t.Fatalf("%d calls at a time: no end", calls)
			} else if tries > 500 {
				break // never gets beyond asking for the time
			}
		}
		if r.set(fine); tries > 500 {
			probe(t, s)
		}
		for i, want := range passed {
			if n := used(t, r.Memory, now, volume(fmt.Sprint("login:", i), 1, windows...)); n != want {
				t.Errorf("%d calls at a time: redis counts %d of %d, want %d", calls, n, i, want)
			}
		}
		if h := s.Health(); h.Pending != 0 || h.Lost != 0 || h.Away {
			t.Errorf("%d calls at a time: %+v", calls, h)
		}
		if tries == 0 {
			return
		}
	}
}

// Mail goes on while Redis comes and goes: each message is counted once.
func TestMailDuringReconciliationCountsOnce(t *testing.T) {
	r, now := newRemote(), time.Now()
	relays := []relay{live(t, r, 1), live(t, r, 1), live(t, r, 1)}
	windows := []limit.Window{window(1<<40, time.Hour)}
	var passed [20]atomic.Int64
	var mail, trouble sync.WaitGroup
	end := make(chan struct{})
	for i, s := range relays {
		for j := range 4 {
			mail.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), uint64(j)))
				for range 3000 {
					who := rnd.IntN(len(passed))
					c := volume(fmt.Sprint("login:", who), 1+rnd.Int64N(3), windows...)
					if spend(t, s, now, c).Taken {
						passed[who].Add(c.Amount)
					}
				}
			})
		}
		trouble.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(i)))
			for {
				select {
				case <-end:
					return
				default:
				}
				if i == 0 {
					r.goneAfter(rnd.IntN(300))
				}
				_ = s.Probe(t.Context())
			}
		})
	}
	mail.Wait()
	close(end)
	trouble.Wait()
	r.set(fine)
	fallbacks := int64(0)
	for _, s := range relays {
		probe(t, s)
		fallbacks += s.Health().Fallbacks
	}
	for i := range passed {
		if n, want := used(t, r.Memory, now, volume(fmt.Sprint("login:", i), 1, windows...)), passed[i].Load(); n != want {
			t.Errorf("redis counts %d of %d, want %d", n, i, want)
		}
	}
	if fallbacks == 0 || fallbacks == 3*4*3000 {
		t.Errorf("%d of 36,000 decided by relays: was there trouble?", fallbacks)
	}
}

// What passed while Redis was away counts there as of when it passed, within a
// sixteenth of the shortest window.
func TestWhenItPassedIsKept(t *testing.T) {
	r, now := newRemote(), time.Now().Truncate(time.Hour)
	s := live(t, r, 1)
	r.set(gone)
	one := volume("login:taro", 1, window(5000, 16*time.Minute), window(5000, 24*time.Hour))
	for i := range 20 * 60 { // 20 hours, one a minute
		spend(t, s, now.Add(time.Duration(i)*time.Minute), one)
	}
	end := now.Add(20*time.Hour - time.Minute)
	r.set(fine)
	probe(t, s)
	out := peek(t, r.Memory, end, one)
	if short, day := out.Uses[0].Used, out.Uses[1].Used; short < 17 || short > 17+80 || day != 1200 {
		t.Errorf("redis counts %d in 16 minutes and %d in a day, want at least 17 and 1200", short, day)
	}
	if n := peek(t, r.Memory, end.Add(16*time.Hour), one).Uses[1].Used; n < 481 || n > 481+120 {
		t.Errorf("16 hours later redis counts %d in a day, want about 481", n)
	}
}

// Close tells Redis what it is owed.
func TestCloseReconciles(t *testing.T) {
	r, now := newRemote(), time.Now()
	s := live(t, r, 1)
	c := volume("login:taro", 5, window(100, time.Hour))
	r.set(gone)
	spend(t, s, now, c)
	if err := s.Close(); err == nil {
		t.Error("no error though redis does not know what passed")
	}
	r.set(fine)
	for range 100 { // as often as a busy machine needs
		if s.Close() == nil {
			break
		}
	}
	if n := used(t, r.Memory, now, c); n != 5 {
		t.Errorf("redis counts %d, want 5", n)
	}
}

// Whatever passed while Redis was away, of every unit, it then counts as a store
// does that was never away.
func TestReconciledIsWhatPassed(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 5))
			r, twin := newRemote(), limit.NewMemory()
			s := live(t, r, 1)
			for i := range 500 {
				switch {
				case i%50 == 0: // back within a minute: it can be asked about ids
					r.set([]fault{gone, mute, slow, late}[rnd.IntN(4)])
				case i%50 == 20 || i%50 > 20 && i%50 < 40 && rnd.IntN(10) == 0:
					r.set(fine)
					probe(t, s)
				}
				step := randomStep(rnd)
				var here, there limit.Outcome
				if s.Spend(t.Context(), time.Now(), step, &here) != nil || twin.Spend(t.Context(), time.Now(), step, &there) != nil || here.Taken != there.Taken {
					t.Fatalf("seed %d: step %+v\nshared: %+v\nnever away: %+v", seed, step, here, there)
				}
				time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Second))))
			}
			r.set(fine)
			probe(t, s)
			r.queued.Wait()
			for range 100 {
				step := randomStep(rnd)
				var is, want limit.Outcome
				if r.Memory.Peek(t.Context(), time.Now(), step, &is) != nil || twin.Peek(t.Context(), time.Now(), step, &want) != nil || !reflect.DeepEqual(is.Latched, want.Latched) {
					t.Fatalf("seed %d: step %+v\nredis: %+v\nnever away: %+v", seed, step, is, want)
				}
				for i := range is.Uses { // of the hour: all that passed is in it
					if a, b := is.Uses[i], want.Uses[i]; a.Window.Length == time.Hour && (a.Used != b.Used || a.Amount != b.Amount) {
						t.Fatalf("seed %d: charge %+v\nredis: %+v\nnever away: %+v", seed, step.Charges[a.Charge], a, b)
					}
				}
			}
		})
	}
}
