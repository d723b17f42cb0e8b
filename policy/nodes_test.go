package policy_test

import (
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// The relay names an account of a node with the node's name, and the node means
// its own account by it.
func TestANodeObeysOrdersAboutItsAccounts(t *testing.T) {
	for value, want := range map[string]policy.Verdict{"1001@web3": policy.Hold, "1001@web4": policy.Accept, "1000@web3": policy.Accept, "1001": policy.Hold} {
		h := webNode(t, policy.Enforce)
		h.order(order(policy.Suspend, policy.SubjectLocalUser, value))
		if d := h.Message(t.Context(), now, h.local(1001, "Hi", h.person())); d.Verdict != want || want == policy.Hold && d.Rule != policy.RuleSuspended {
			t.Errorf("%s: %v by %q, want %v", value, d.Verdict, d.Rule, want)
		}
	}
	h := hosting(t, policy.Enforce) // no node
	h.order(order(policy.Suspend, policy.SubjectLocalUser, "1001@web3"))
	if d := h.Message(t.Context(), now, h.local(1001, "Hi", h.person())); d.Verdict != policy.Accept {
		t.Errorf("an account of the relay: %v by %q", d.Verdict, d.Rule)
	}
}

// Mail without a label is of a bucket of its own; mail to our own people goes on to
// the relay, whose limit may not count it.
func TestWhatANodeHoldsOfASite(t *testing.T) {
	h := webNode(t, policy.Enforce)
	h.order(shutting("plugin:unlabelled@shop.example.jp"))
	for name, c := range map[string]struct {
		m    *policy.Message
		want policy.Verdict
	}{
		"without a label": {h.local(1000, "Hi", h.person()), policy.Hold},
		"with one":        {h.stamped(h.local(1000, "Hi", h.person()), now, shop, "share"), policy.Accept},
		"to our people":   {h.local(1000, "Hi", "hanako@example.jp"), policy.Accept},
		"to both":         {h.local(1000, "Hi", "hanako@example.jp", h.person()), policy.Hold},
	} {
		if d := h.Message(t.Context(), now, c.m); d.Verdict != c.want {
			t.Errorf("%s: %v by %q, want %v", name, d.Verdict, d.Rule, c.want)
		}
	}
}

func TestWhichShutBucketsNodesHold(t *testing.T) {
	abuse := func(name string, per ...limit.Per) policy.LimitRule {
		r := limited(name, per[0], policy.Hold, window(10, time.Hour))
		r.Per, r.Kind = per, limit.Abuse
		return r
	}
	changed := func(r policy.LimitRule, change func(*policy.LimitRule)) policy.LimitRule {
		change(&r)
		return r
	}
	rules := []policy.LimitRule{
		abuse("plugin", limit.Plugin), abuse("site", limit.Site), abuse("account", limit.LocalUser), abuse("both", limit.Site, limit.LocalUser), abuse("template", limit.Template), abuse("login", limit.Login),
		limited("volume", limit.Plugin, policy.Hold, window(10, time.Hour)), limited("tells", limit.Plugin, policy.Tell, window(10, time.Hour)),
		changed(abuse("first", limit.Plugin), func(r *policy.LimitRule) { r.Counts = limit.FirstTime }),
		changed(abuse("first-of-site", limit.Site), func(r *policy.LimitRule) { r.Counts = limit.FirstTime }),
		changed(abuse("nights", limit.Plugin), func(r *policy.LimitRule) { r.When.Hours = []policy.Hours{{From: 0, To: 60}} }),
		changed(abuse("large", limit.Plugin), func(r *policy.LimitRule) { r.When.MinSize = 1000 }),
		changed(abuse("shop", limit.Plugin), func(r *policy.LimitRule) { r.When.Origins = []string{"site:shop.*"} }),
		changed(abuse("inside", limit.Plugin), func(r *policy.LimitRule) { r.Scope = policy.InsideOnly }),
	}
	const share, core = "plugin:share@shop.example.jp", "plugin:" + origin.OwnSoftware + "@shop.example.jp"
	for _, c := range []struct {
		name, value string
		want        bool
	}{
		{"plugin", share, true}, {"plugin", core, true}, {"site", "site:shop.example.jp", true},
		{"account", "local_user:1001@web3", true}, {"account", "local_user:1001", false},
		{"both", "site:shop.example.jp local_user:1001@web3", true}, {"both", "site:shop.example.jp local_user:1001", false},
		{"template", "template:ab12", false}, {"login", "login:taro@example.jp", false}, {"volume", share, false}, {"tells", share, false},
		{"first", share, true}, {"first", core, false}, {"first", "plugin:unlabelled@shop.example.jp", false}, {"first-of-site", "site:shop.example.jp", false},
		{"nights", share, false}, {"large", share, false}, {"inside", share, false},
		{"shop", share, true}, {"shop", "plugin:share@blog.example.jp", false},
		{"nobody", share, false}, {"plugin", "", false},
	} {
		for _, phase := range []policy.Phase{policy.Learning, policy.Enforce} {
			all := rules
			if phase == policy.Learning { // of which only bursts act
				all = nil
				for _, r := range rules {
					r.Windows = []limit.Window{burst(10, time.Hour)}
					all = append(all, r)
				}
			}
			if got := hosting(t, phase, all...).Limits.ForNodes(c.name, c.value); got != c.want {
				t.Errorf("%v, %s of %s: %v, want %v", phase, c.name, c.value, got, c.want)
			}
		}
		if hosting(t, policy.Observe, rules...).Limits.ForNodes(c.name, c.value) {
			t.Errorf("observe: %s of %s", c.name, c.value)
		}
	}
}

func TestWhetherABucketIsShut(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	const value, rule = "plugin:share@far.example.jp", "plugin-first-time"
	latched := func() bool {
		t.Helper()
		is, err := h.Limits.Latched(t.Context(), now, rule, value)
		if err != nil {
			t.Fatal(err)
		}
		return is
	}
	send := func() policy.Decision {
		return h.Message(t.Context(), now, h.nodeMail(&stamp.NodeStamp{UID: 1000, LocalUser: "site12", Site: "far.example.jp", Labelled: true, Plugin: "share"}, h.person()))
	}
	for range 25 {
		if d := send(); d.Verdict != policy.Accept || latched() {
			t.Fatalf("%v: %s, shut: %v", d.Verdict, d.Reason, latched())
		}
	}
	if d := send(); d.Verdict != policy.Hold || !latched() {
		t.Errorf("%v: %s, shut: %v", d.Verdict, d.Reason, latched())
	}
	if err := h.buckets.Resume(t.Context(), now, limit.Key{Limit: rule, Value: value}); err != nil || latched() {
		t.Errorf("shut after resume: %v", err)
	}
	if is, err := h.Limits.Latched(t.Context(), now, "no such", value); is || err != nil {
		t.Errorf("of a limit that is not there: %v, %v", is, err)
	}
}

// What a node sends again is the same message, charged once; a part of it to other
// recipients is charged for these.
func TestANodeSendsAgain(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	const value, rule = "plugin:share@far.example.jp", "plugin-first-time"
	all := []string{"a@example.net", "b@example.net", "c@example.net"}
	whole := h.nodeMail(&stamp.NodeStamp{UID: 1000, LocalUser: "site12", Site: "far.example.jp", Labelled: true, Plugin: "share"}, all...)
	for i, part := range []struct {
		to   []string
		used int64
	}{{all[:1], 1}, {all[:1], 1}, {all[1:], 3}, {all[1:], 3}} {
		m := *whole
		m.RcptTo, m.QueueID = part.to, string(rune('A'+i))+"1234"
		d := h.Message(t.Context(), now.Add(time.Duration(i)*time.Minute), &m)
		if d.Verdict != policy.Accept || d.Origin.Name() != "local_user:site12@web3" {
			t.Errorf("try %d: %v: %s, of %s", i, d.Verdict, d.Reason, d.Origin.Name())
		}
		if used := h.used(t, rule, value); used != part.used {
			t.Errorf("try %d: %d are charged, want %d", i, used, part.used)
		}
	}
}
