package fleet_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/limitstore/redis/redistest"
	"relayguard/systemtest/relay"
)

// relayguard check names what is wrong with a Redis, and nothing of one that is
// well.
func TestCheckLooksAtRedis(t *testing.T) {
	t.Parallel()
	n := &node{Relay: relay.StartTest(t, relayOptions("")), t: t}
	password := passwordFile(t)
	const keeps = "appendonly yes"
	key := filepath.Join(t.TempDir(), "items.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("k", 64)), 0o600); err != nil {
		t.Fatal(err)
	}
	keyed := fmt.Sprintf("items_key_file = %q\n", key)
	withPassword := fmt.Sprintf("password_file = %q\n", password)
	for _, c := range []struct {
		name     string
		settings []string
		more     string // of the section [redis]
		spoil    func(*redistest.Redis, *redistest.Network)
		ids      []string
		says     string
	}{
		{name: "well", settings: []string{keeps, "requirepass secret"}, more: withPassword},
		{name: "a user that may no more than it needs", more: withPassword + asUser, settings: []string{keeps, leastUser}},
		{name: "dead", settings: []string{keeps}, spoil: func(r *redistest.Redis, _ *redistest.Network) { r.Kill() }, ids: []string{"redis-away"}},
		{name: "silent", settings: []string{keeps}, spoil: func(_ *redistest.Redis, n *redistest.Network) { n.Silence() }, ids: []string{"redis-away"}},
		{name: "slow", settings: []string{keeps}, spoil: func(_ *redistest.Redis, n *redistest.Network) { n.Delay(200 * time.Millisecond) }, ids: []string{"redis-slow"}, says: "redis.timeout is 100ms", more: "timeout = \"100ms\"\n"},
		{name: "another password", settings: []string{keeps, "requirepass other"}, more: withPassword, ids: []string{"redis-away"}, says: "WRONGPASS"},
		{name: "no password", settings: []string{keeps, "requirepass secret"}, ids: []string{"redis-away"}, says: "NOAUTH"},
		{name: "no such password file", settings: []string{keeps}, more: "password_file = \"/nonexistent/password\"\n", ids: []string{"redis-file"}, says: "no such file"},
		{name: "no such authority", settings: []string{keeps}, more: fmt.Sprintf("tls = true\nca_file = %q\n", password), ids: []string{"redis-file"}, says: "no certificate"},
		{name: "no TLS there", settings: []string{keeps}, more: "tls = true\n", ids: []string{"redis-away"}},
		{name: "a user that may not count", settings: []string{keeps, "user relayguard on >secret ~{relayguard}:* +ping +get"},
			more: withPassword + asUser, ids: []string{"redis-script"}, says: "NOPERM"},
		{name: "forgets what is old", settings: []string{keeps, "maxmemory 100mb", "maxmemory-policy volatile-lru"}, ids: []string{"redis-evicts"}, says: "volatile-lru"},
		{name: "keeps nothing", ids: []string{"redis-memory"}},
		{name: "has the key of its digests", settings: []string{keeps}, ids: []string{"redis-items-key"}},
		{name: "tells nothing", settings: []string{keeps, "rename-command INFO \"\""}, ids: []string{"redis-info"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := redistest.Server(t, c.settings...)
			network := redistest.Proxy(t, server.Addr)
			if c.spoil != nil {
				c.spoil(server, network)
			}
			if !slices.Contains(c.ids, "redis-items-key") {
				c.more += keyed
			}
			store := onRedis(0, c.more, network.Addr)
			if strings.Contains(c.more, "timeout") {
				store = strings.Replace(store, patient, "", 1)
			}
			n.wantFindings(t, store, c.says, c.ids...)
		})
	}
	t.Run("over TLS", func(t *testing.T) {
		authority, chain := filepath.Join(n.Dir, "tls", "ca.pem"), filepath.Join(n.Dir, "tls", "server.pem")
		addr := freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		redistest.Server(t, keeps, "tls-port "+port, "tls-auth-clients no", "tls-cert-file "+chain, "tls-key-file "+chain, "tls-ca-cert-file "+authority)
		n.wantFindings(t, onRedis(0, fmt.Sprintf("tls = true\nca_file = %q\n", authority)+keyed, addr), "")
		n.wantFindings(t, onRedis(0, "tls = true\n"+keyed, addr), "certificate", "redis-away")
	})
	t.Run("sentinels", func(t *testing.T) {
		n.wantFindings(t, onRedis(0, onSentinels+keyed, redistest.Sentinel(t, keeps).Addresses()...), "")
	})
	t.Run("a cluster", func(t *testing.T) {
		n.wantFindings(t, onRedis(0, "mode = \"cluster\"\n"+keyed, redistest.Cluster(t, 3).Addresses()...), "", "redis-memory")
	})
}

// freeAddr is one on loopback that nobody has.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// wantFindings runs check with such a store, and wants these findings about
// Redis, each with that text.
func (n *node) wantFindings(t *testing.T, store, says string, want ...string) {
	t.Helper()
	if err := n.WriteConfig("enforce", store); err != nil {
		t.Fatal(err)
	}
	type finding struct{ ID, Severity, Where, What, Why, Remedy string }
	var ids []string
	for _, f := range ask[struct{ Findings []finding }](n, "check", "--no-probe").Findings {
		if !strings.HasPrefix(f.ID, "redis-") {
			continue
		}
		ids = append(ids, f.ID)
		if !strings.Contains(f.What, says) || f.Where == "" || f.Why == "" || f.Remedy == "" {
			t.Errorf("%+v; want %q", f, says)
		}
		if info := f.ID == "redis-memory" || f.ID == "redis-info" || f.ID == "redis-items-key"; info != (f.Severity == "info") {
			t.Errorf("%s is of severity %s", f.ID, f.Severity)
		}
	}
	if !slices.Equal(ids, want) {
		t.Errorf("found %q, want %q", ids, want)
	}
}
