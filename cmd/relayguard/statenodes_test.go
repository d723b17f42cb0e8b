package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/nodes"
	"relayguard/policy"
)

// lines are what status prints, one a line.
func (n *nodeStatus) lines(now time.Time) string {
	var all []string
	for _, p := range n.pairs(now) {
		all = append(all, p.Label+": "+p.Text)
	}
	return strings.Join(all, "\n")
}

func TestStatusOfWebNodesAndTheirRelay(t *testing.T) {
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for want, n := range map[string]*nodeStatus{
		"": nil,
		"web node: web3 signs where its mail is from; 40 sites registered; the relay decides by the limits\norders: 2 orders in force, from Redis":                                                                                   {Name: "web3", Sites: 40, Orders: 2, From: "redis"},
		"web node: web3 signs where its mail is from; 1 site registered; the relay decides by the limits\norders: 0 orders in force; newer ones of the relay are not known, Redis is away since then":                                {Name: "web3", Sites: 1, From: "redis", Why: "Redis is away since then"},
		"web node: web3 signs where its mail is from; 0 sites registered; the relay decides by the limits\norders: 0 orders in force; the relay's do not reach this node (store.kind is not \"redis\"): it holds nothing for limits": {Name: "web3"},
		"web nodes: web1: signed mail 2m ago\n: web2: unsigned mail 1h ago, 7 since the start: judged by its text alone\n: web3: no mail since the start\norders: 1 order to web nodes in force: they hold what is shut": {
			From: "redis", Orders: 1, Heard: []nodes.Node{{Name: "web1", Signed: now.Add(-2 * time.Minute)}, {Name: "web2", Unsigned: now.Add(-time.Hour), Unknown: 7}, {Name: "web3"}}},
		"web nodes: web1: no mail since the start\norders: do not reach web nodes (store.kind is not \"redis\"): what is shut is stopped here": {Heard: []nodes.Node{{Name: "web1"}}},
	} {
		if got := n.lines(now); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestSurroundingsOfWebNodes(t *testing.T) {
	web := []config.Node{{Name: "web1", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.11/32")}, KeyFile: "/etc/relayguard/web1.key"}}
	for name, c := range map[string]struct {
		change func(c *config.Config)
		want   []string
	}{
		"neither":          {func(*config.Config) {}, nil},
		"node alone":       {func(c *config.Config) { c.Sign.Node = "web1" }, []string{"node-orders info"}},
		"relay alone":      {func(c *config.Config) { c.Nodes = web }, []string{"node-orders info"}},
		"relay with Redis": {func(c *config.Config) { c.Nodes, c.Store.Kind = web, config.StoreRedis }, nil},
		"relay that takes no mail of theirs": {func(c *config.Config) {
			c.Nodes, c.Store.Kind = web, config.StoreRedis
			c.Listeners = slices.DeleteFunc(slices.Clone(c.Listeners), func(l config.Listener) bool { return l.Role == policy.Relay })
		}, []string{"node-listener critical"}},
	} {
		s := surroundings{config: config.Default()}
		if !slices.ContainsFunc(s.config.Listeners, func(l config.Listener) bool { return l.Role == policy.Relay }) {
			s.config.Listeners = append(s.config.Listeners, config.Listener{Name: "relay", Role: policy.Relay})
		}
		c.change(s.config)
		var got []string
		for _, f := range s.nodes() {
			got = append(got, f.ID+" "+f.Severity.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
