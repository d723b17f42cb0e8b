package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/policy/limit"
)

// Store keeps buckets in Redis. It is a limit.Store and a limit.Keeper, safe for
// concurrent use. Of what it cannot do it says ErrAway if nothing was done, and
// ErrUnsure if it is not known; other errors are faults of what it was given.
type Store struct {
	options  Options
	prefix   string // of all keys
	client   goredis.UniversalClient
	sender   sender
	requests sync.Pool // of *request
}

// What go-redis would print, its errors say, too.
var quiet sync.Once

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Open makes a Store. It does not wait for Redis: see Ping. Close it.
func Open(_ context.Context, o Options) (*Store, error) {
	o = o.orDefault()
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open Redis: %w", err)
	}
	quiet.Do(func() { goredis.SetLogger(silence{}) })
	s := &Store{options: o, prefix: "{" + o.Prefix + "}:", client: o.client()}
	s.sender = sender{client: s.client, timeout: o.Timeout}
	s.requests.New = func() any { return &request{wait: make(chan struct{}, 1)} }
	return s, nil
}

// Close closes all connections. Steps on their way fail.
func (s *Store) Close() error { return s.client.Close() }

// Client is for others who keep something in the same Redis. The Store closes it.
func (s *Store) Client() goredis.UniversalClient { return s.client }

// bound is ctx, or the time-out if that is shorter.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.options.Timeout)
}

// Spend is limit.Store's.
func (s *Store) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	return s.ask(ctx, doSpend, now, step, out)
}

// Peek is limit.Store's.
func (s *Store) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	return s.ask(ctx, doPeek, now, step, out)
}

func (s *Store) ask(ctx context.Context, op byte, now time.Time, step *limit.Step, out *limit.Outcome) error {
	return s.run(ctx, op, now, step, func(r *request) error { return decode(r.reply, step.Charges, r.twins, out) })
}

// Add is limit.Store's.
func (s *Store) Add(ctx context.Context, now time.Time, step *limit.Step) error {
	return s.run(ctx, doAdd, now, step, func(r *request) error {
		n := numbers{text: r.reply}
		_, err := n.status(step.Charges)
		return err
	})
}

// run does one step and has its answer read.
func (s *Store) run(ctx context.Context, op byte, now time.Time, step *limit.Step, read func(*request) error) error {
	if err := step.Check(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return expired(ctx)
	}
	r := s.requests.Get().(*request)
	s.encode(r, op, now, step)
	if len(r.keys) == 0 { // nothing to ask for
		r.reply = "\x01\x00\x00\x00\x00\x00\x00"
		return read(r)
	}
	done, err := s.sender.do(ctx, r)
	if err == nil {
		err = read(r)
	}
	if done {
		s.requests.Put(r)
	}
	return err
}

// Outcome says whether the step with this id was taken (or added) within the last
// minute. One that was stopped is not remembered: asked again, it may be taken.
func (s *Store) Outcome(ctx context.Context, id string) (found, taken bool, err error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	text, err := s.client.Get(ctx, string(s.idKey(nil, id))).Result()
	switch {
	case errors.Is(err, goredis.Nil):
		return false, false, nil
	case err != nil:
		return false, false, away("ask Redis for a step", err)
	}
	n := numbers{text: text}
	taken, err = n.status(nil)
	return err == nil, taken, err
}

// Resume is limit.Store's.
func (s *Store) Resume(ctx context.Context, now time.Time, key limit.Key) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	keys := []string{string(s.bucketKey(nil, key)), string(s.itemsKey(nil, key))}
	if err := s.client.Eval(ctx, resume, keys, micros(now)).Err(); err != nil {
		return away(fmt.Sprintf("resume bucket %q in Redis", key), err)
	}
	return nil
}

// Reset is limit.Store's.
func (s *Store) Reset(ctx context.Context, _ time.Time, key limit.Key) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if err := s.client.Del(ctx, string(s.bucketKey(nil, key)), string(s.itemsKey(nil, key))).Err(); err != nil {
		return away(fmt.Sprintf("reset bucket %q in Redis", key), err)
	}
	return nil
}

// Ping asks whether Redis is there and lets this relay in.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	if err := s.client.Ping(ctx).Err(); err != nil {
		return away("ping Redis", err)
	}
	return nil
}

// Time is Redis's clock, of the node that has the buckets.
func (s *Store) Time(ctx context.Context) (time.Time, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	const ask = "return redis.call('TIME')" // TIME alone goes to any node of a Cluster
	t, err := s.client.Eval(ctx, ask, []string{s.prefix}).StringSlice()
	if err != nil {
		return time.Time{}, away("ask Redis for the time", err)
	}
	return parseTime(t)
}

// Secret is what all relays of this Redis have in common. If there is none yet,
// it is mine.
func (s *Store) Secret(ctx context.Context, mine []byte) ([]byte, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	key := s.prefix + "secret"
	if err := s.client.SetNX(ctx, key, mine, 0).Err(); err != nil {
		return nil, away("agree on a secret in Redis", err)
	}
	secret, err := s.client.Get(ctx, key).Bytes()
	if err != nil {
		return nil, away("read the secret in Redis", err)
	}
	return secret, nil
}
