package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/nodes"
	"relayguard/cmd/internal/render"
	"relayguard/mta"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// openNodes has the desk know web nodes, or that this is one. A reload may change
// both.
func (s *state) openNodes() {
	s.desk.Nodes = s.learnt.heard
	s.desk.Node = func() string {
		if c := s.config.Load(); c != nil {
			return c.Sign.Node
		}
		return ""
	}
	s.desk.ForNodes = func(key limit.Key) bool {
		return len(s.config.Load().Nodes) > 0 && s.rules.Load().policy.Limits.ForNodes(key.Limit, key.Value)
	}
	s.desk.Latched = func(ctx context.Context, now time.Time, key limit.Key) (bool, error) {
		if s.budgets.status().Away {
			return false, errors.New("Redis is away")
		}
		return s.rules.Load().policy.Limits.Latched(ctx, now, key.Limit, key.Value)
	}
}

// heard notes from which web node a message has come. At RCPT it is not known
// whether it is signed.
func (w watcher) heard(now time.Time, m *policy.Message, d *policy.Decision) {
	if m.Node == "" || m.Header.Len() == 0 {
		return
	}
	w.learnt.heard.Note(now, m.Node, m.LocalConfidence == origin.Signed, d.Origin.NodeUID, d.Origin.LocalUser.Value)
}

// nodeStatus is how a web node's guard or a relay of web nodes does.
type nodeStatus struct {
	Name   string       `json:"name,omitempty"` // as which this guard signs; empty: it is no node
	Sites  int          `json:"sites"`          // registered
	Orders int          `json:"orders"`         // buckets that web nodes hold
	From   string       `json:"orders_from,omitempty"`
	Why    string       `json:"orders_problem,omitempty"` // why they may be old
	Heard  []nodes.Node `json:"nodes,omitempty"`          // those that this relay knows
}

// nodeStatus is nil where there is neither.
func (s *state) nodeStatus(now time.Time, c *config.Config) *nodeStatus {
	if c.Sign.Node == "" && len(c.Nodes) == 0 {
		return nil
	}
	out := &nodeStatus{Name: c.Sign.Node, Sites: len(s.learnt.sites())}
	for _, sw := range s.switches.All(now) {
		if sw.Kind == policy.Shut {
			out.Orders++
		}
	}
	if s.share != nil {
		out.From = c.Store.Kind
		if h := s.share.Health(); h.Away {
			out.Why = fmt.Sprintf("Redis is away since %s: %s", h.Since.UTC().Format(time.RFC3339), h.Why)
		}
	}
	if len(c.Nodes) > 0 {
		names := make([]string, len(c.Nodes))
		for i := range c.Nodes {
			names[i] = c.Nodes[i].Name
		}
		out.Heard = s.learnt.heard.All(names)
	}
	return out
}

// pairs are the lines of status.
func (n *nodeStatus) pairs(now time.Time) (all []render.Pair) {
	add := func(label, text string) { all = append(all, render.Pair{Label: label, Text: text}) }
	if n == nil {
		return nil
	}
	orders := counted(n.Orders, "order") + " in force"
	if n.Name != "" {
		add("web node", fmt.Sprintf("%s signs where its mail is from; %s registered; the relay decides by the limits", n.Name, counted(n.Sites, "site")))
		switch {
		case n.From == "":
			add("orders", orders+"; the relay's do not reach this node (store.kind is not \"redis\"): it holds nothing for limits")
		case n.Why != "":
			add("orders", orders+"; newer ones of the relay are not known, "+n.Why)
		default:
			add("orders", orders+", from Redis")
		}
		return all
	}
	for i, node := range n.Heard {
		label := ""
		if i == 0 {
			label = "web nodes"
		}
		add(label, node.Name+": "+heardLine(now, &node))
	}
	switch {
	case n.From == "":
		add("orders", "do not reach web nodes (store.kind is not \"redis\"): what is shut is stopped here")
	case n.Orders > 0:
		add("orders", counted(n.Orders, "order")+" to web nodes in force: they hold what is shut")
	}
	return all
}

func heardLine(now time.Time, n *nodes.Node) string {
	var parts []string
	if !n.Signed.IsZero() {
		parts = append(parts, "signed mail "+render.Ago(now, n.Signed)+" ago")
	}
	if !n.Unsigned.IsZero() {
		parts = append(parts, fmt.Sprintf("unsigned mail %s ago, %d since the start: judged by its text alone", render.Ago(now, n.Unsigned), n.Unknown))
	}
	if len(parts) == 0 {
		return "no mail since the start"
	}
	return strings.Join(parts, "; ")
}

// nodes is what keeps a web node and the relay of web nodes apart.
func (s surroundings) nodes() (all []mta.Finding) {
	c := s.config
	if (c.Sign.Node != "" || len(c.Nodes) > 0) && c.Store.Kind != config.StoreRedis {
		all = append(all, mta.Finding{ID: "node-orders", Severity: mta.Info, Where: "store.kind", What: "store.kind is not \"redis\": orders of the relay do not reach web nodes",
			Why: "mail of what is shut or suspended comes to the relay, which stops it; sendmail(1) on the node goes on to take it", Remedy: "a Redis that the relay may write to and nodes may read"})
	}
	if len(c.Nodes) > 0 && !slices.ContainsFunc(c.Listeners, func(l config.Listener) bool { return l.Role == policy.Relay }) {
		all = append(all, mta.Finding{ID: "node-listener", Severity: mta.Critical, Where: "listener", What: "there are sections [[node]], and no listener of the role relay",
			Why: "where web nodes deliver, they are refused for want of AUTH, or are not judged", Remedy: "add a section [[listener]] with role = \"relay\"; then relayguard setup postfix --apply --smtp relay"})
	}
	return all
}
