package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	maxCalls = 2   // on their way at one time
	maxSteps = 64  // in one call, which Redis does without a pause
	maxKeys  = 256 // of them all, but for a single large step
)

// sender has steps that come while others are on their way sent together. A
// step that finds the way free is sent at once, by its own goroutine.
type sender struct {
	client  goredis.UniversalClient
	timeout time.Duration // of a call

	mu      sync.Mutex
	waiting []*request
	calls   int // on their way
}

// do sends a request and waits for its answer. When ctx ends sooner and the
// request has not been sent, it never will be; else it returns false: the
// request is still in use.
func (s *sender) do(ctx context.Context, r *request) (done bool, err error) {
	s.mu.Lock()
	if s.calls < maxCalls && len(s.waiting) == 0 {
		s.calls++
		s.mu.Unlock()
		s.call(ctx, []*request{r})
		s.next()
		return true, r.err
	}
	r.ctx = ctx
	s.waiting = append(s.waiting, r)
	s.mu.Unlock()
	select {
	case <-r.wait:
		return true, r.err
	case <-ctx.Done():
	}
	if s.withdraw(r) {
		return true, expired(ctx)
	}
	select {
	case <-r.wait: // just now
		return true, r.err
	default:
		return false, fmt.Errorf("wait for Redis: %w: %w", ErrUnsure, context.Cause(ctx))
	}
}

// withdraw takes back a request that was not sent.
func (s *sender) withdraw(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, w := range s.waiting {
		if w == r {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// next lets go of the way, or has those that wait go on.
func (s *sender) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.calls--
		return
	}
	go s.drain()
}

// drain sends what waits until nothing does.
func (s *sender) drain() {
	var batch []*request
	for {
		s.mu.Lock()
		n := s.some()
		if n == 0 {
			s.calls--
			s.mu.Unlock()
			return
		}
		batch = append(batch[:0], s.waiting[:n]...)
		s.waiting = append(s.waiting[:0], s.waiting[n:]...)
		s.mu.Unlock()
		if batch = s.willing(batch); len(batch) > 0 {
			s.call(context.Background(), batch)
		}
		for i, r := range batch {
			r.wait <- struct{}{}
			batch[i] = nil
		}
		runtime.Gosched() // those who have their answers may send more at once
	}
}

// willing leaves out requests of callers who have given up just now.
func (s *sender) willing(batch []*request) []*request {
	return slices.DeleteFunc(batch, func(r *request) bool {
		if r.ctx.Err() == nil {
			return false
		}
		r.err = expired(r.ctx)
		r.wait <- struct{}{}
		return true
	})
}

// some is how many of the waiting go into the next call.
func (s *sender) some() int {
	keys := 0
	for i, r := range s.waiting {
		if keys += len(r.keys); i > 0 && (keys > maxKeys || i == maxSteps) {
			return i
		}
	}
	return len(s.waiting)
}

// call sends a batch, and notes in its requests what became of them.
func (s *sender) call(ctx context.Context, batch []*request) {
	d := soon{Context: ctx, end: time.Now().Add(s.timeout)}
	if end, ok := ctx.Deadline(); ok && end.Before(d.end) {
		d.end = end
	}
	err := s.eval(&d, batch)
	for _, r := range batch {
		r.err = err
	}
}

// soon is a context whose end is a deadline for those who ask, which is all that
// the client's connections need: no timer is set, and nobody woken.
type soon struct {
	context.Context
	end time.Time
}

func (s *soon) Deadline() (time.Time, bool) { return s.end, true }

// eval runs the script, which Redis is sent if it does not know it, and gives
// the requests what it says.
func (s *sender) eval(ctx context.Context, batch []*request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("send steps to Redis: %w: %w", ErrAway, err)
	}
	args := arguments(batch)
	err := s.process(ctx, args, batch)
	if goredis.HasErrorPrefix(err, "NOSCRIPT") {
		args[0], args[1] = "EVAL", script
		err = s.process(ctx, args, batch)
	}
	if err != nil && !errors.Is(err, errAnswer) {
		return away("send steps to Redis", err)
	}
	return err
}

// process has the script run. For one step its answer is a string, else a list.
func (s *sender) process(ctx context.Context, args []any, batch []*request) error {
	if len(batch) == 1 {
		cmd := goredis.NewStringCmd(ctx, args...)
		err := s.client.Process(ctx, cmd)
		batch[0].reply = cmd.Val()
		return err
	}
	cmd := goredis.NewSliceCmd(ctx, args...)
	if err := s.client.Process(ctx, cmd); err != nil {
		return err
	}
	replies := cmd.Val()
	if len(replies) != len(batch) {
		return fmt.Errorf("read what Redis says: %w: %w", ErrUnsure, errAnswer)
	}
	for i, r := range batch {
		r.reply, _ = replies[i].(string)
	}
	return nil
}

// arguments are those of EVALSHA. Keys that several steps name are sent once.
func arguments(batch []*request) []any {
	args := []any{"EVALSHA", digest, 0}
	if len(batch) == 1 {
		r := batch[0]
		for _, key := range r.keys {
			args = append(args, key)
		}
		args[2] = len(r.keys)
		return append(args, r.step)
	}
	places, steps := make(map[string]int, maxKeys), 0
	for _, r := range batch {
		steps += len(r.step)
	}
	all := make([]byte, 0, steps)
	for _, r := range batch {
		for _, at := range r.refs {
			key := r.keys[binary.LittleEndian.Uint16(r.step[at:])-1]
			place, ok := places[key]
			if !ok {
				place = len(places) + 1
				places[key], args = place, append(args, key)
			}
			binary.LittleEndian.PutUint16(r.step[at:], uint16(place))
		}
		all = append(all, r.step...)
	}
	args[2] = len(places)
	return append(args, all)
}
