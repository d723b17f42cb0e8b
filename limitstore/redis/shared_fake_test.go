package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"relayguard/limitstore/redis"
	"relayguard/policy/limit"
)

const timeout = 50 * time.Millisecond

// fault is what is wrong with a remote.
type fault int

const (
	fine fault = iota
	gone       // refuses at once: nothing was done
	slow       // does nothing and answers nothing
	mute       // does it and answers nothing
	late       // answers nothing and does it a second later
)

// remote is one relay's way to a Redis, with faults of its own.
type remote struct {
	*world
	fault  fault
	left   int // calls until it is gone; negative: it stays
	calls  int
	queued sync.WaitGroup
}

// world is a Redis that several relays use: a Memory that remembers ids of
// what it took for a minute, with a clock of its own.
type world struct {
	*limit.Memory
	mu    sync.Mutex // of its ways, too
	ahead time.Duration
	ids   map[string]remembered
}

type remembered struct {
	at  time.Time
	out limit.Outcome
}

func newRemote() *remote {
	return &remote{world: &world{Memory: limit.NewMemory(), ids: map[string]remembered{}}, left: -1}
}

// way is another one to the same Redis.
func (w *world) way() *remote { return &remote{world: w, left: -1} }

func (r *remote) set(f fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.left = f, -1
}

// goneAfter answers so many calls more.
func (r *remote) goneAfter(calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.left = fine, calls
}

func (r *remote) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// call is one call, as its fault has it.
func (r *remote) call(ctx context.Context, do func()) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%w: %w", redis.ErrAway, ctx.Err())
	}
	r.mu.Lock()
	r.calls++
	if r.left == 0 {
		r.fault = gone
	}
	r.left--
	f := r.fault
	if f == fine || f == mute {
		do()
	}
	r.mu.Unlock()
	switch f {
	case fine:
		return nil
	case gone:
		return fmt.Errorf("%w: connection refused", redis.ErrAway)
	case late:
		r.queued.Go(func() {
			time.Sleep(time.Second)
			r.mu.Lock()
			defer r.mu.Unlock()
			do()
		})
	}
	<-ctx.Done()
	return fmt.Errorf("%w: %w", redis.ErrUnsure, ctx.Err())
}

// once does what has an id no second time.
func (r *world) once(id string, out *limit.Outcome, do func(*limit.Outcome) error) error {
	if was, ok := r.ids[id]; ok && time.Since(was.at) < time.Minute {
		*out = was.out
		return nil
	}
	var fresh limit.Outcome
	if err := do(&fresh); err != nil {
		return err
	}
	if *out = fresh; fresh.Taken {
		r.ids[id] = remembered{time.Now(), fresh}
	}
	return nil
}

func (r *remote) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	var fault error
	var answer limit.Outcome // a call that is late does not write into what its caller has
	own := *step
	err := r.call(ctx, func() {
		fault = r.once(own.ID, &answer, func(o *limit.Outcome) error { return r.Memory.Spend(ctx, now, &own, o) })
	})
	if err != nil {
		return err
	}
	*out = answer
	return fault
}

func (r *remote) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	var fault error
	if err := r.call(ctx, func() { fault = r.Memory.Peek(ctx, now, step, out) }); err != nil {
		return err
	}
	return fault
}

func (r *remote) Add(ctx context.Context, now time.Time, step *limit.Step) error {
	var fault error
	own := *step
	err := r.call(ctx, func() {
		fault = r.once(own.ID, &limit.Outcome{}, func(o *limit.Outcome) error {
			o.Taken = true
			return r.Memory.Add(ctx, now, &own)
		})
	})
	if err != nil {
		return err
	}
	return fault
}

func (r *remote) Resume(ctx context.Context, now time.Time, key limit.Key) error {
	return r.call(ctx, func() { _ = r.Memory.Resume(ctx, now, key) })
}

func (r *remote) Reset(ctx context.Context, now time.Time, key limit.Key) error {
	return r.call(ctx, func() { _ = r.Memory.Reset(ctx, now, key) })
}

func (r *remote) Each(ctx context.Context, fn func(limit.Entry) error) (fault error) {
	if err := r.call(ctx, func() { fault = r.Memory.Each(ctx, fn) }); err != nil {
		return err
	}
	return fault
}

func (r *remote) Time(ctx context.Context) (now time.Time, err error) {
	err = r.call(ctx, func() { now = time.Now().Add(r.ahead).Truncate(time.Microsecond) })
	return now, err
}

func (r *remote) Outcome(ctx context.Context, id string) (found, taken bool, err error) {
	err = r.call(ctx, func() {
		was, ok := r.ids[id]
		found = ok && time.Since(was.at) < time.Minute
		taken = found && was.out.Taken
	})
	return found, taken, err
}

// relay is one guard of several.
type relay struct {
	*redis.Shared
	log *logged
}

// logged is what a relay has logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the lines since the last take.
func (l *logged) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		lines = append(lines, line)
	}
	l.text.Reset()
	return lines
}

func newRelay(r redis.RemoteStore, share float64) relay {
	log := &logged{}
	return relay{log: log, Shared: redis.NewShared(redis.SharedOptions{
		Store: r, Share: share, Timeout: timeout, Log: slog.New(slog.NewTextHandler(log, nil)),
	})}
}

// live is a relay that asks its remote.
func live(t *testing.T, r redis.RemoteStore, share float64) relay {
	t.Helper()
	s := newRelay(r, share)
	probe(t, s)
	return s
}

// probe has a relay find its remote in order.
func probe(t *testing.T, s relay) {
	t.Helper()
	back(t, s)
	if h := s.Health(); h.Away || h.Pending != 0 || h.Lost != 0 {
		t.Fatalf("after a probe without an error: %+v", h)
	}
}

// back probes until there is no error: on a busy machine a time-out may be too
// short.
func back(t *testing.T, s relay) {
	t.Helper()
	for range 100 {
		if s.Probe(t.Context()) == nil {
			return
		}
	}
	t.Fatalf("does not come back: %+v", s.Health())
}

// volume is a charge of a volume limit.
func volume(value string, amount int64, windows ...limit.Window) limit.Charge {
	return limit.Charge{Key: limit.Key{Limit: "volume", Value: value}, Kind: limit.Volume, Counts: limit.Recipients, Windows: windows, Amount: amount}
}

func abuse(value string, amount int64, windows ...limit.Window) limit.Charge {
	c := volume(value, amount, windows...)
	c.Key.Limit, c.Kind = "abuse", limit.Abuse
	return c
}

func window(count int64, length time.Duration) limit.Window {
	return limit.Window{Count: count, Length: length}
}

func spend(t *testing.T, s limit.Store, now time.Time, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	var out limit.Outcome
	if err := s.Spend(t.Context(), now, &limit.Step{Charges: charges}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// used is what the first window of a charge counts.
func used(t *testing.T, s limit.Store, now time.Time, c limit.Charge) int64 {
	t.Helper()
	return peek(t, s, now, c).Uses[0].Used
}

func peek(t *testing.T, s limit.Store, now time.Time, charges ...limit.Charge) limit.Outcome {
	t.Helper()
	var out limit.Outcome
	if err := s.Peek(t.Context(), now, &limit.Step{Charges: charges}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// passes spends one at a time until something is stopped.
func passes(t *testing.T, s limit.Store, now time.Time, c limit.Charge) (n int64) {
	t.Helper()
	for spend(t, s, now, c).Taken {
		n += c.Amount
	}
	return n
}
