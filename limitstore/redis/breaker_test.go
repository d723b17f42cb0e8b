package redis_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// run has the relay look after its remote until the end of the test.
func run(t *testing.T, s relay) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// A relay begins by itself and asks Redis at once.
func TestRunBeginsAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := newRelay(r, 0.5)
		if h := s.Health(); !h.Away || h.Why != "not asked yet" {
			t.Errorf("before the start: %+v", h)
		}
		run(t, s)
		synctest.Wait()
		if h := s.Health(); h.Away {
			t.Errorf("after the start: %+v", h)
		}
		r.set(gone)
		c := volume("login:taro", 1, window(100, time.Hour))
		began := time.Now()
		spend(t, s, began, c)
		if h := s.Health(); !h.Away || !h.Since.Equal(began) || !strings.Contains(h.Why, "connection refused") || h.Fallbacks != 1 || h.Pending != 1 {
			t.Errorf("away: %+v", h)
		}
		time.Sleep(time.Minute)
		r.set(fine)
		time.Sleep(6 * time.Second)
		if h := s.Health(); h.Away || h.Why != "" || h.Reconciled != 1 || h.Pending != 0 {
			t.Errorf("back: %+v", h)
		}
		if n := used(t, r.Memory, began, c); n != 1 {
			t.Errorf("redis counts %d, want 1", n)
		}
	})
}

// Redis that is away is asked often at first, then rarely, and without mail it
// is noticed, too.
func TestProbesBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := newRelay(r, 0.5)
		run(t, s)
		synctest.Wait()
		r.set(gone)
		asked := func(d time.Duration) int {
			before := r.asked()
			time.Sleep(d)
			return r.asked() - before
		}
		if n := asked(12 * time.Second); n < 3 || n > 6 || !s.Health().Away {
			t.Errorf("asked %d times at first; %+v", n, s.Health())
		}
		if n := asked(time.Minute); n < 10 || n > 14 {
			t.Errorf("asked %d times in a minute, want each 5 s", n)
		}
	})
}

// One line when it begins, one when it ends; none a message, and few from a
// Redis that answers, but not to mail.
func TestLogSaysOnceThatRedisIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := newRelay(r, 0.5)
		run(t, s)
		synctest.Wait()
		if lines := s.log.take(); len(lines) != 0 {
			t.Errorf("log of a start with redis: %q", lines)
		}
		c := volume("login:taro", 1, window(100, time.Hour))
		r.set(slow)
		for range 20 {
			spend(t, s, time.Now(), c)
			time.Sleep(time.Second)
		}
		r.set(fine)
		time.Sleep(10 * time.Second)
		lines := s.log.take()
		if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN msg=\"redis is away") || !strings.Contains(lines[1], "level=INFO msg=\"redis is back\"") ||
			!strings.Contains(lines[1], "fallbacks=20 unsure=1 reconciled=20 lost=0") {
			t.Errorf("log: %q", lines)
		}
		for range 600 { // goes with the first message after each probe
			r.goneAfter(8)
			spend(t, s, time.Now(), c)
			time.Sleep(100 * time.Millisecond)
		}
		if lines := s.log.take(); len(lines) > 40 {
			t.Errorf("%d lines in a minute: %q", len(lines), lines)
		}
	})
}
