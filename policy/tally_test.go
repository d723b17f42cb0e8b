package policy_test

import (
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin/stamp"
)

// Stamps of mail are counted once a message; mail without one, and a question of the
// wrapper, count for nothing.
func TestStampsAreCounted(t *testing.T) {
	h := hosting(t, policy.Enforce)
	sites, nodes := new(stamp.Tally), new(stamp.Tally)
	h.Attribution.SiteStamps, h.Attribution.NodeStamps = sites, nodes
	forged := shop
	forged.Key = key32('x')
	for _, m := range []*policy.Message{
		h.stamped(h.local(1000, "Hi", "a@example.net"), now, shop, "share"),
		h.stamped(h.local(1000, "Hi", "b@example.net"), now, shop, "cart"),
		h.stamped(h.local(1000, "Hi", "c@example.net"), now, forged, "share"),
		h.stamped(h.local(1001, "Hi", "d@example.net"), now, shop, "share"),
		h.stamped(h.local(1000, "Hi", "e@example.net"), now.Add(-48*time.Hour), shop, "share"),
		h.local(1000, "Hi", "f@example.net"),
	} {
		h.Message(t.Context(), now, m)
	}
	m := message(policy.Relay, "www@example.jp", "g@example.net")
	m.ClientIP, m.QueueID = web3.Addresses[0].Addr(), "4q99"
	field(m, stamp.NodeHeader, stamp.Sign(now, web3.Key, &stamp.NodeStamp{Node: "web3", Queue: m.QueueID, Time: now, UID: 1000}, &stamp.Mail{RcptTo: m.RcptTo}))
	h.Message(t.Context(), now, m)
	refused := sites.Refused()
	if sites.Believed() != 2 || refused["signature"] != 1 || refused["account"] != 1 || refused["time"] != 1 || refused["none"] != 0 {
		t.Errorf("sites: %d believed, refused %v", sites.Believed(), refused)
	}
	if nodes.Believed() != 1 || nodes.Refused()["none"] != 0 {
		t.Errorf("nodes: %d believed, refused %v", nodes.Believed(), nodes.Refused())
	}
}
