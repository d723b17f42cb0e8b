package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/limitstore/redis"
	"relayguard/limitstore/redis/redistest"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
)

// The master dies; until the Sentinels have made the replica one, the store is
// away; what had reached the replica is counted.
func TestFailover(t *testing.T) {
	fleet := redistest.Sentinel(t)
	s, err := redis.Open(t.Context(), redis.Options{Mode: "sentinel", Addresses: fleet.Addresses(), Master: redistest.MasterName, Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	step := &limit.Step{ID: "before", Charges: []limit.Charge{charge("a", 7)}}
	if err := s.Spend(t.Context(), now, step, &limit.Outcome{}); err != nil {
		t.Fatal(err)
	}
	fleet.Replicated(t)
	fleet.Master.Kill()
	if _, err := limittest.Spend(t.Context(), s, now, []limit.Charge{charge("a", 2)}); !errors.Is(err, redis.ErrAway) && !errors.Is(err, redis.ErrUnsure) {
		t.Errorf("the master is dead: got %v", err)
	}
	var out limit.Outcome
	redistest.Until(t, "the replica is master", func(ctx context.Context) (err error) {
		out, err = limittest.Spend(ctx, s, now, []limit.Charge{charge("a", 2)})
		return err
	})
	if !out.Taken || out.Uses[0].Used != 7 {
		t.Errorf("%+v, want 7 used", out)
	}
	if err := s.Spend(t.Context(), now, step, &out); err != nil || !out.Taken || out.Uses[0].Used != 0 {
		t.Errorf("the repeat: %+v, %v", out, err)
	}
}

func TestCluster(t *testing.T) {
	nodes := redistest.Cluster(t, 3)
	open := func(prefix string) *redis.Store {
		s, err := redis.Open(t.Context(), redis.Options{Mode: "cluster", Addresses: nodes.Addresses(), Prefix: prefix, Timeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	for i := range 6 { // on different nodes
		s := open(fmt.Sprint("fleet", i))
		c := charge("d", 0)
		c.Counts, c.Items = limit.Distinct, limittest.Items(1, 3)
		out := take(t, s, charge("a", 4), charge("b", 4), c)
		if !out.Taken {
			t.Errorf("%+v", out)
		}
		entries := 0
		if err := s.Each(t.Context(), func(e limit.Entry) error {
			entries++
			return s.Put(t.Context(), e)
		}); err != nil || entries != 3 {
			t.Errorf("%d entries, %v", entries, err)
		}
		if out := take(t, s, charge("a", 7), c); out.Taken || out.Uses[0].Used != 4 || out.Uses[1].Amount != 0 {
			t.Errorf("%+v", out)
		}
		if err := errors.Join(s.Resume(t.Context(), now, c.Key), s.Reset(t.Context(), now, c.Key)); err != nil {
			t.Error(err)
		}
		if _, err := s.Time(t.Context()); err != nil {
			t.Error(err)
		}
	}
	t.Run("Migration", func(t *testing.T) { migration(t, nodes, open("fleet0")) })
}

// migration moves the slot of all keys to another node. While some are here and
// some there, and until the client has learnt of it, the store is away; nothing
// is counted twice or forgotten.
func migration(t *testing.T, nodes redistest.Nodes, s *redis.Store) {
	owner := nodes.Owner(t, "{fleet0}:")
	from, to := nodes[owner], nodes[(owner+1)%len(nodes)]
	source, target := goredis.NewClient(&goredis.Options{Addr: from.Addr}), goredis.NewClient(&goredis.Options{Addr: to.Addr})
	defer source.Close()
	defer target.Close()
	id := func(c *goredis.Client) string {
		id, err := c.Do(t.Context(), "cluster", "myid").Text()
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	do := func(c *goredis.Client, args ...any) {
		t.Helper()
		if err := c.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	slot := source.ClusterKeySlot(t.Context(), "{fleet0}:").Val()
	before := take(t, s, charge("m", 3), charge("n", 3))
	do(target, "cluster", "setslot", slot, "importing", id(source))
	do(source, "cluster", "setslot", slot, "migrating", id(target))
	host, port, _ := net.SplitHostPort(to.Addr)
	keys := source.ClusterGetKeysInSlot(t.Context(), int(slot), 1000).Val()
	for i, key := range keys {
		do(source, "migrate", host, port, key, 0, 5000)
		if i == len(keys)/2 {
			_, err := limittest.Spend(t.Context(), s, now, []limit.Charge{charge("m", 3), charge("n", 3), charge("a", 1), charge("b", 1)})
			if !errors.Is(err, redis.ErrAway) || errors.Is(err, redis.ErrUnsure) {
				t.Errorf("in the middle: got %v, want ErrAway", err)
			}
		}
	}
	for _, c := range []*goredis.Client{target, source} {
		do(c, "cluster", "setslot", slot, "node", id(target))
	}
	var out limit.Outcome
	redistest.Until(t, "the client has found the slot", func(ctx context.Context) (err error) {
		if out, err = limittest.Spend(ctx, s, now, []limit.Charge{charge("m", 3), charge("n", 3)}); err != nil && !errors.Is(err, redis.ErrAway) {
			t.Errorf("got %v", err)
		}
		return err
	})
	if !before.Taken || !out.Taken || out.Uses[0].Used != 3 || out.Uses[1].Used != 3 {
		t.Errorf("%+v\nthen %+v", before, out)
	}
}
