package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/limitstore/redis"
	"relayguard/policy/limit"
)

// redisBuckets are as many as are made quickly; Redis finds one among more as
// fast.
const redisBuckets = 60_000

// limitsInRedis: steps over a Unix socket beside a script that does nothing.
func (b *bench) limitsInRedis(ctx context.Context) error {
	b.progress("limits, starting Redis")
	socket := socketIn(b.dir, "redis")
	server, err := startRedis(b.dir, socket)
	if err != nil {
		return err
	}
	defer server.stop()
	s, err := redis.Open(ctx, redis.Options{Addresses: []string{socket}, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := fillRedis(ctx, s); err != nil {
		return err
	}
	raw, err := newEmptyScript(ctx, socket)
	if err != nil {
		return err
	}
	defer raw.client.Close()
	return b.contest(ctx, contest{
		store: "redis", reference: emptyLua, every: 1, window: b.window / 10,
		traffic: func(size int) *traffic { return newTraffic(redisBuckets/size, size, redisBuckets, redisKey) },
		ours:    func(t *traffic) func() worker { return spending(s, t) },
		theirs:  raw.calling, goal: &goal{0.8, true, true},
	})
}

// startRedis starts a server that listens on a socket alone and writes nothing.
func startRedis(dir, socket string) (*process, error) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("start Redis (Debian package redis-server): %w", err)
	}
	cmd := exec.Command(program, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", dir)
	return start(cmd, socket, filepath.Join(dir, "redis.log"))
}

// fillRedis makes the buckets, with two cells in each window.
func fillRedis(ctx context.Context, s *redis.Store) error {
	now, errs := time.Now(), make(chan error, logins)
	const writers = 64
	for w := range writers {
		go func() {
			var err error
			for first := w * perSender; first < redisBuckets && err == nil; first += writers * perSender {
				step := &limit.Step{}
				for i := range perSender {
					step.Charges = append(step.Charges, chargeOf(first+i))
				}
				for _, age := range []time.Duration{5 * time.Hour, 20 * time.Minute, 5 * time.Minute, 2 * time.Minute} {
					if err == nil {
						err = s.Add(ctx, now.Add(-age), step)
					}
				}
			}
			errs <- err
		}()
	}
	var first error
	for range writers {
		if err := <-errs; err != nil && first == nil {
			first = fmt.Errorf("fill Redis: %w", err)
		}
	}
	return first
}

// emptyScript is what a step in Redis is compared with: a call of a script that
// does nothing, with as many keys.
type emptyScript struct {
	client *goredis.Client
	digest string
}

func newEmptyScript(ctx context.Context, socket string) (*emptyScript, error) {
	client := goredis.NewClient(&goredis.Options{Network: "unix", Addr: socket, Protocol: 2})
	digest, err := client.ScriptLoad(ctx, "return 1").Result()
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("load an empty script: %w", err)
	}
	return &emptyScript{client, digest}, nil
}

func redisKey(k limit.Key) string {
	return fmt.Sprintf("{relayguard}:b:%d:%s%s", len(k.Limit), k.Limit, k.Value)
}

// calling are workers that call it with the traffic's keys.
func (e *emptyScript) calling(t *traffic) func() worker {
	return func() worker {
		return func(i int) error {
			return e.client.EvalSha(context.Background(), e.digest, t.raw[i%len(t.raw)]).Err()
		}
	}
}
