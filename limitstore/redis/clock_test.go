package redis_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Relays count by Redis's clock, and tell their callers their own time.
func TestClockOfRedis(t *testing.T) {
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour, 1500 * time.Microsecond} {
		synctest.Test(t, func(t *testing.T) {
			r := newRemote()
			r.ahead = ahead
			s := live(t, r, 1)
			if h := s.Health(); h.Offset != ahead {
				t.Errorf("offset %s, want %s", h.Offset, ahead)
			}
			now := time.Now()
			c := volume("login:taro", 10, window(10, time.Hour))
			spend(t, s, now, c)
			free := now.Add(time.Hour + time.Microsecond)
			if u := spend(t, s, now.Add(time.Minute), c).Uses[0]; !u.FreeAt.Equal(free) {
				t.Errorf("ahead %s: free at %s, want %s", ahead, u.FreeAt, free)
			}
			if u := peek(t, r.Memory, now.Add(ahead), c).Uses[0]; !u.FreeAt.Equal(free.Add(ahead)) {
				t.Errorf("ahead %s: redis says free at %s, want %s", ahead, u.FreeAt, free.Add(ahead))
			}
			r.set(gone) // own buckets count by our clock
			if u := spend(t, s, now.Add(time.Minute), c).Uses[0]; !u.FreeAt.Equal(free) {
				t.Errorf("ahead %s, away: free at %s, want %s", ahead, u.FreeAt, free)
			}
		})
	}
}

// Another Redis takes over, an hour behind the first. What passed there before
// is still counted, in no sliding window passes too much, and what passed while
// none was there is added by the new clock.
func TestFailoverToAClockBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		r.ahead = time.Hour
		s := live(t, r, 1)
		c := volume("login:taro", 1, window(10, 10*time.Minute))
		var passed []time.Time
		send := func() {
			if now := time.Now(); spend(t, s, now, c).Taken {
				passed = append(passed, now)
			}
		}
		for range 30 {
			send()
			time.Sleep(30 * time.Second)
		}
		r.set(gone)
		send()
		r.mu.Lock()
		r.ahead = 0
		r.mu.Unlock()
		r.set(fine)
		probe(t, s)
		if h := s.Health(); h.Offset != 0 {
			t.Errorf("%+v: want the new clock", h)
		}
		before := len(passed)
		for range 200 {
			send()
			time.Sleep(30 * time.Second)
		}
		for i := range passed {
			if i >= 10 && passed[i].Sub(passed[i-10]) <= 10*time.Minute {
				t.Errorf("11 passed from %s to %s", passed[i-10], passed[i])
			}
		}
		if len(passed) == before {
			t.Error("nothing passed with the new clock") // when it has reached the old one
		}
	})
}

// Of several answers that which came soonest is believed.
func TestClockIsMeasuredBySoonestAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &slowClock{remote: newRemote(), delays: []time.Duration{30, 2, 20, 40, 11}}
		r.ahead = time.Second
		if h := live(t, r, 1).Health(); h.Offset != time.Second-time.Millisecond { // asked, 2 ms, read, answered at once
			t.Errorf("offset %s", h.Offset)
		}
	})
}

// slowClock reads its clock at once and answers later.
type slowClock struct {
	*remote
	delays []time.Duration // milliseconds
}

func (s *slowClock) Time(ctx context.Context) (time.Time, error) {
	now, err := s.remote.Time(ctx)
	time.Sleep(s.delays[0] * time.Millisecond)
	s.delays = s.delays[1:]
	return now, err
}
