package policy_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// webNode is a house that is web3.
func webNode(t *testing.T, phase policy.Phase) *house {
	h := hosting(t, phase, defaults()...)
	h.Attribution.Signer = &policy.Signer{Node: "web3", Key: web3.Key}
	return h
}

func shutting(value string) policy.Switch {
	return checked(policy.Switch{Kind: policy.Shut, Subject: policy.SubjectKey, Value: value, Rule: "plugin-first-time", Reason: "incident 7"})
}

// What a node says, the relay believes; and it charges what the node does not.
func TestANodeSignsAndTheRelayCharges(t *testing.T) {
	node, relay := webNode(t, policy.Enforce), hosting(t, policy.Enforce, defaults()...)
	stopped := 0
	for range 60 {
		m := node.stamped(node.local(1000, "Look", node.person()), now, shop, "share")
		field(m, stamp.NodeHeader, "v1 forged")
		d := node.Message(t.Context(), now, m)
		if d.Verdict != policy.Accept || len(d.Add) != 1 || d.Add[0].Name != stamp.NodeHeader || !slices.Contains(d.Strip, stamp.NodeHeader) || len(d.Counters) > 0 {
			t.Fatalf("%v: %s, %v", d.Verdict, d.Reason, d.Add)
		}
		sent := relay.local(origin.NoUID, "Look", m.RcptTo...)
		sent.Role, sent.Submitted, sent.ClientIP = policy.Relay, false, netip.MustParseAddr("192.0.2.13")
		field(sent, d.Add[0].Name, d.Add[0].Value)
		got := relay.Message(t.Context(), now, sent)
		o := &got.Origin
		if o.Name() != "local_user:shop@web3" || o.Stable() != "local_user:1000@web3" || o.Site.Value != shop.Name || o.Plugin.Value != "share" || !o.Plugin.Proven() || o.Call.Script != "wp-content/plugins/x.php:12" || o.Call.Entry != "ajax" {
			t.Fatalf("%s: %+v", o.Name(), o)
		}
		if len(got.Add) > 0 || !slices.Contains(got.Strip, stamp.NodeHeader) {
			t.Errorf("the relay adds %v and strips %q", got.Add, got.Strip)
		}
		if got.Verdict.Stops() {
			stopped++
		}
	}
	if stopped != 35 {
		t.Errorf("%d of 60 are stopped, want 35", stopped)
	}
	// The neighbour on the same node flows.
	m := node.stamped(node.local(33, "Look", node.person()), now, blog, "share")
	d := node.Message(t.Context(), now, m)
	sent := relay.nodeMail(nil, m.RcptTo...)
	field(sent, d.Add[0].Name, d.Add[0].Value)
	if got := relay.Message(t.Context(), now, sent); got.Verdict != policy.Accept || got.Origin.Site.Value != blog.Name {
		t.Errorf("%v: %s", got.Verdict, got.Reason)
	}
}

func TestWhatTheRelayHasShutIsHeldOnTheNode(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		h := webNode(t, phase)
		h.order(shutting("plugin:share@shop.example.jp"), shutting("local_user:1001@web3"), shutting("local_user:33@web4"), shutting("site:wiki.example.jp server"), shutting("site:wiki.example.jp plugin:x@wiki.example.jp"))
		for name, c := range map[string]struct {
			m    *policy.Message
			want policy.Verdict
		}{
			"the plugin":      {h.stamped(h.local(1000, "Hi", h.person()), now, shop, "share"), policy.Hold},
			"another of it":   {h.stamped(h.local(1000, "Hi", h.person()), now, shop, ""), policy.Accept},
			"another site's":  {h.stamped(h.local(33, "Hi", h.person()), now, blog, "share"), policy.Accept},
			"the account":     {h.local(1001, "Hi", h.person()), policy.Hold},
			"another node's":  {h.local(33, "Hi", h.person()), policy.Accept},
			"all its parts":   {h.stamped(h.local(33, "Hi", h.person()), now, wiki, "x"), policy.Hold},
			"one of its part": {h.stamped(h.local(33, "Hi", h.person()), now, wiki, "y"), policy.Accept},
			"the guard's own": {h.local(ownUID, "Hi", h.person()), policy.Accept},
		} {
			d := h.Message(t.Context(), now, c.m)
			if d.Verdict != c.want || c.want == policy.Hold && d.Rule != "plugin-first-time" {
				t.Errorf("%v, %s: %v by %q: %s", phase, name, d.Verdict, d.Rule, d.Reason)
			}
		}
		h.Room = &room{0}
		d := h.Message(t.Context(), now, h.local(1001, "Hi", h.person()))
		null := h.local(1001, "Hi", h.person())
		null.MailFrom = ""
		if e := h.Message(t.Context(), now, null); d.Verdict != policy.Reject || d.Reply.Code != 550 || len(d.Add) > 0 || e.Verdict != policy.Defer || e.Reply.Code != 452 {
			t.Errorf("over the cap: %v %v, a null sender %v %v", d.Verdict, d.Reply, e.Verdict, e.Reply)
		}
	}
	h := hosting(t, policy.Enforce) // which is no node, and has such an order from somewhere
	h.order(shutting("plugin:share@shop.example.jp"))
	if d := h.Message(t.Context(), now, h.stamped(h.local(1000, "Hi", h.person()), now, shop, "share")); d.Verdict != policy.Accept {
		t.Errorf("no node: %v", d.Verdict)
	}
}

func TestShutNamesALimit(t *testing.T) {
	s := policy.Switch{Kind: policy.Shut, Subject: policy.SubjectKey, Value: "plugin:share@shop.example.jp", Reason: "r"}
	if s.Check() == nil {
		t.Error("a bucket of no limit is shut")
	}
	s.Rule, s.Subject = "plugin-first-time", policy.SubjectSite
	if s.Check() == nil {
		t.Error("a site is shut, which is no bucket")
	}
}

// A site and a plugin, on all sites or on one, can be suspended; their local mail
// is held, and refused when there is no more room.
func TestSuspendedSitesAndPlugins(t *testing.T) {
	share := func(h *house) *policy.Message {
		return h.stamped(h.local(1000, "Hi", h.person()), now, shop, "share")
	}
	for name, c := range map[string]struct {
		subject policy.Subject
		value   string
		mail    func(h *house) *policy.Message
		want    policy.Verdict
	}{
		"plugin":               {policy.SubjectPlugin, "share", share, policy.Hold},
		"plugin of the site":   {policy.SubjectPlugin, "Share@Shop.example.jp", share, policy.Hold},
		"plugin of another":    {policy.SubjectPlugin, "share@blog.example.jp", share, policy.Accept},
		"site":                 {policy.SubjectSite, shop.Name, share, policy.Hold},
		"another site":         {policy.SubjectSite, blog.Name, share, policy.Accept},
		"site without a stamp": {policy.SubjectSite, shop.Name, func(h *house) *policy.Message { return h.local(1000, "Hi", h.person()) }, policy.Hold},
		"plugin, no stamp":     {policy.SubjectPlugin, "share@shop.example.jp", func(h *house) *policy.Message { return h.local(1000, "Hi", h.person()) }, policy.Accept},
		"account of a node": {policy.SubjectLocalUser, "1000@web3", func(h *house) *policy.Message {
			return h.nodeMail(&stamp.NodeStamp{UID: 1000, LocalUser: "site"}, h.person())
		}, policy.Hold},
		"the same of this host": {policy.SubjectLocalUser, "1000", func(h *house) *policy.Message {
			return h.nodeMail(&stamp.NodeStamp{UID: 1000, LocalUser: "site"}, h.person())
		}, policy.Accept},
	} {
		h := hosting(t, policy.Enforce)
		h.order(order(policy.Suspend, c.subject, c.value))
		if d := h.Message(t.Context(), now, c.mail(h)); d.Verdict != c.want || c.want.Stops() && d.Rule != policy.RuleSuspended {
			t.Errorf("%s: %v by %q", name, d.Verdict, d.Rule)
		}
		if c.want != policy.Hold {
			continue
		}
		h.Room = &room{0}
		null := c.mail(h)
		null.MailFrom = ""
		over := policy.Reject
		if !null.Local() { // a node tries again
			over = policy.Defer
		}
		if d, e := h.Message(t.Context(), now, c.mail(h)), h.Message(t.Context(), now, null); d.Verdict != over || e.Verdict != policy.Defer {
			t.Errorf("%s, over the cap: %v, a null sender %v", name, d.Verdict, e.Verdict)
		}
	}
}

// What a bucket is called tells whose it is.
func TestWhoseBucketsOfNodesAre(t *testing.T) {
	account := limited("account", limit.LocalUser, policy.Hold, window(10, 3600e9))
	h := hosting(t, policy.Enforce, account)
	probation := policy.NewSwitches([]policy.Switch{order(policy.Probation, policy.SubjectLocalUser, "1001@web3")})
	for value, want := range map[string]int64{"local_user:1001@web3": 5, "local_user:1001": 10, "local_user:1001@web4": 10, "node:web3": 10, "template:1001@web3": 10} {
		if in := h.Limits.InForce(now, probation, "account", value); in.Windows[0].Count != want {
			t.Errorf("%s: %d, want %d", value, in.Windows[0].Count, want)
		}
	}
	for _, c := range []struct {
		value, part string
		want        bool
	}{
		{"local_user:1001@web3", "local_user:1001@web3", true}, {"local_user:1001@web3", "local_user:1001", false}, {"local_user:1001@web3", "site:web3", false},
		{"template:ab12 server", "template:ab12", true}, {"node:web3", "node:web3", true}, {"plugin:theme:x@a.jp", "site:a.jp", true}, {"plugin:theme:x@a.jp", "plugin:theme:x", true},
	} {
		if policy.HasPart(c.value, c.part) != c.want {
			t.Errorf("%s has %s: want %v", c.value, c.part, c.want)
		}
	}
}

// FuzzSites: names of plugins come from a file, which may be damaged.
func FuzzSites(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, data := range [][]byte{body, sealedSites(body)} {
			s := policy.NewSites(3, 10)
			if s.Load(bytes.NewReader(data)) != nil {
				continue
			}
			for _, site := range []string{"a", "b", ""} {
				for _, name := range []string{"x", "y", "z", "u", policy.Unlabelled} {
					s.Admit(now, site, name)
				}
				if n := len(s.Names(site)); n > 4 {
					t.Fatalf("%d names of %q", n, site)
				}
			}
			if n := len(s.All()); n > 10 {
				t.Fatalf("%d names", n)
			}
		}
	})
}

// sealedSites is a body with the head of a whole file.
func sealedSites(body []byte) []byte {
	return append(fmt.Appendf(nil, "relayguard sites 1 %x\n", sha256.Sum256(body)), body...)
}
