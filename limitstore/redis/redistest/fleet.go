package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// MasterName is what the Sentinels call their master.
const MasterName = "limits"

// Sentinels is a master with one replica, watched by three Sentinels of which
// two must agree. The replica is promoted about a second after the master died.
type Sentinels struct {
	Master, Replica *Redis
	Watchers        []*Redis
}

// Sentinel starts them and waits until they know each other.
func Sentinel(t testing.TB, settings ...string) *Sentinels {
	t.Helper()
	s := &Sentinels{Master: Server(t, settings...)}
	host, port, _ := net.SplitHostPort(s.Master.Addr)
	s.Replica = Server(t, append(settings, fmt.Sprintf("replicaof %s %s", host, port), "repl-diskless-sync-delay 0")...)
	Until(t, "the replica is there", func(context.Context) error { // the Sentinels ask the master at once, then after 10 s
		if offset(t, s.Master, "connected_slaves") != 1 {
			return errors.New("the master has none")
		}
		return nil
	})
	for range 3 {
		s.Watchers = append(s.Watchers, watcher(t, host, port))
	}
	client := goredis.NewSentinelClient(&goredis.Options{Addr: s.Watchers[0].Addr})
	defer client.Close()
	for _, w := range s.Watchers {
		client := goredis.NewSentinelClient(&goredis.Options{Addr: w.Addr})
		defer client.Close()
		Until(t, "the Sentinels know replica and each other", func(ctx context.Context) error {
			m, err := client.Master(ctx, MasterName).Result()
			if err == nil && (m["num-slaves"] != "1" || m["num-other-sentinels"] != "2" || m["flags"] != "master") {
				err = fmt.Errorf("replicas %s, other Sentinels %s, %s", m["num-slaves"], m["num-other-sentinels"], m["flags"])
			}
			return err
		})
	}
	s.Replicated(t)
	return s
}

func watcher(t testing.TB, host, port string) *Redis {
	t.Helper()
	for range 5 {
		r := prepare(t, "redis-server", "--sentinel")
		mine := freePort(t)
		r.Addr = fmt.Sprint("127.0.0.1:", mine)
		r.configure([]string{
			fmt.Sprint("port ", mine),
			fmt.Sprintf("sentinel monitor %s %s %s 2", MasterName, host, port),
			fmt.Sprintf("sentinel down-after-milliseconds %s 500", MasterName),
			fmt.Sprintf("sentinel failover-timeout %s 3000", MasterName),
		})
		if r.start() {
			return r
		}
	}
	t.Fatal("start a Sentinel: five ports in a row were taken")
	return nil
}

// Addresses are the Sentinels'.
func (s *Sentinels) Addresses() []string {
	var all []string
	for _, w := range s.Watchers {
		all = append(all, w.Addr)
	}
	return all
}

// Replicated waits until the replica has all that the master has now.
func (s *Sentinels) Replicated(t testing.TB) {
	t.Helper()
	want := offset(t, s.Master, "master_repl_offset")
	Until(t, "the replica has followed", func(context.Context) error {
		if got := offset(t, s.Replica, "slave_repl_offset"); got < want {
			return fmt.Errorf("it is at %d of %d", got, want)
		}
		return nil
	})
}

// offset is a number from INFO replication; 0 if there is none.
func offset(t testing.TB, r *Redis, field string) int64 {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{Addr: r.Addr})
	defer client.Close()
	info, err := client.Info(t.Context(), "replication").Result()
	must(t, err)
	_, rest, _ := strings.Cut(info, field+":")
	number, _, _ := strings.Cut(rest, "\r")
	n, _ := strconv.ParseInt(number, 10, 64)
	return n
}

// Nodes is a Redis Cluster of masters.
type Nodes []*Redis

// Cluster starts so many masters, which share all slots evenly.
func Cluster(t testing.TB, nodes int) Nodes {
	t.Helper()
	var c Nodes
	for range nodes {
		c = append(c, listening(t, func(port int) []string {
			return []string{fmt.Sprint("port ", port), "save \"\"", "cluster-enabled yes", "cluster-node-timeout 2000", fmt.Sprint("cluster-port ", freePort(t))}
		}))
	}
	for i, n := range c {
		client := goredis.NewClient(&goredis.Options{Addr: n.Addr})
		defer client.Close()
		must(t, client.ClusterAddSlotsRange(t.Context(), i*16384/nodes, (i+1)*16384/nodes-1).Err())
		must(t, client.Do(t.Context(), "cluster", "set-config-epoch", i+1).Err())
		if i > 0 {
			c.meet(t, client, c[0])
		}
	}
	for _, n := range c {
		client := goredis.NewClient(&goredis.Options{Addr: n.Addr})
		defer client.Close()
		Until(t, "the nodes are a cluster", func(ctx context.Context) error {
			info, err := client.ClusterInfo(ctx).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", nodes))) {
				err = errors.New(info)
			}
			return err
		})
	}
	return c
}

// meet tells the client's node of another one and the port of its bus.
func (c Nodes) meet(t testing.TB, client *goredis.Client, other *Redis) {
	t.Helper()
	asked := goredis.NewClient(&goredis.Options{Addr: other.Addr})
	defer asked.Close()
	bus, err := asked.ConfigGet(t.Context(), "cluster-port").Result()
	must(t, err)
	host, port, _ := net.SplitHostPort(other.Addr)
	must(t, client.Do(t.Context(), "cluster", "meet", host, port, bus["cluster-port"]).Err())
}

// Addresses are the nodes'.
func (c Nodes) Addresses() []string {
	var all []string
	for _, n := range c {
		all = append(all, n.Addr)
	}
	return all
}

// Owner is the index of the node that has the slot of a key.
func (c Nodes) Owner(t testing.TB, key string) int {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{Addr: c[0].Addr})
	defer client.Close()
	slot, err := client.ClusterKeySlot(t.Context(), key).Result()
	must(t, err)
	slots, err := client.ClusterSlots(t.Context()).Result()
	must(t, err)
	for _, s := range slots {
		for i, n := range c {
			if int64(s.Start) <= slot && slot <= int64(s.End) && strings.HasSuffix(n.Addr, ":"+portOf(s.Nodes[0].Addr)) {
				return i
			}
		}
	}
	t.Fatalf("nobody has slot %d", slot)
	return 0
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// Until asks again and again until there is no error, or the test is over.
func Until(t testing.TB, what string, ask func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s: %v", what, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
