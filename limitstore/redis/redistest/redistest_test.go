package redistest_test

import (
	"errors"
	"os"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"relayguard/limitstore/redis/redistest"
)

func client(t *testing.T, addr string) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: addr, MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { c.Close() })
	return c
}

func TestServerOnBothSockets(t *testing.T) {
	r := redistest.Server(t)
	for _, addr := range []string{r.Addr, r.Socket} {
		if err := client(t, addr).Ping(t.Context()).Err(); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if files, err := os.ReadDir(r.Dir); err != nil || len(files) != 2 {
		t.Errorf("%v, %v; want redis.conf and the socket", files, err)
	}
	r.Kill()
	c := client(t, r.Addr)
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Error("a dead server answers")
	}
	r.Restart()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestProxyBreaksTheNetwork(t *testing.T) {
	r := redistest.Server(t)
	n := redistest.Proxy(t, r.Addr)
	c := client(t, n.Addr)
	ping := func() error { return c.Ping(t.Context()).Err() }
	if err := ping(); err != nil {
		t.Fatal(err)
	}
	n.Cut()
	if err := errors.Join(ping(), ping()); err == nil {
		t.Log("the client has seen that its connection was closed") // and made a new one
	}
	n.Refuse()
	if ping() == nil {
		t.Error("refused, but it answers")
	}
	n.Restore()
	n.Silence()
	answered := make(chan error, 1)
	go func() { answered <- ping() }()
	select {
	case err := <-answered:
		t.Errorf("silent, but it answers: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	n.Restore()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestSentinelsKnowTheirMaster(t *testing.T) {
	s := redistest.Sentinel(t)
	c := goredis.NewFailoverClient(&goredis.FailoverOptions{MasterName: redistest.MasterName, SentinelAddrs: s.Addresses()})
	defer c.Close()
	if err := c.Set(t.Context(), "a", "b", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Replicated(t)
	if got, err := client(t, s.Replica.Addr).Get(t.Context(), "a").Result(); got != "b" || err != nil {
		t.Errorf("the replica says %q, %v", got, err)
	}
}

func TestClusterKnowsItsSlots(t *testing.T) {
	nodes := redistest.Cluster(t, 3)
	c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: nodes.Addresses()})
	defer c.Close()
	owners := map[int]bool{}
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		if err := c.Set(t.Context(), key, "x", 0).Err(); err != nil {
			t.Fatal(err)
		}
		owner := nodes.Owner(t, key)
		owners[owner] = true
		if got, err := client(t, nodes[owner].Addr).Get(t.Context(), key).Result(); got != "x" || err != nil {
			t.Errorf("%s on node %d: %q, %v", key, owner, got, err)
		}
	}
	if len(owners) < 2 {
		t.Errorf("all keys are on %v", owners)
	}
}
