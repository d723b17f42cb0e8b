package policy_test

import (
	"fmt"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// rooms have place for so many messages under each name.
type rooms struct {
	most int
	all  map[string]int
	full bool // the server is
}

func (r *rooms) Full(name string) bool { return r.full || r.all[name] >= r.most }

func (r *rooms) Take(name string, _ int64) bool {
	if r.Full(name) {
		return false
	}
	r.all[name]++
	return true
}

func (r *rooms) Give(name string, _ int64) { r.all[name]-- }

func TestWhoseRoomAMessageTakes(t *testing.T) {
	text := func(m *policy.Message, about string) *policy.Message {
		m.Body = fmt.Appendf(nil, "Look at what we found for you today, %s and more of it.\r\nhttps://www.example.com/%s\r\n", about, about)
		return m
	}
	signed := func(user, site string) *stamp.NodeStamp {
		return &stamp.NodeStamp{UID: 8033, LocalUser: user, Site: site}
	}
	for _, c := range []struct {
		name string
		be   func(h *house) *policy.Message
		want string // "": of the message's text
	}{
		{"a login", func(h *house) *policy.Message { return h.mail("taro@example.jp", to(1)...) }, "login:taro@example.jp"},
		{"an account of its own", func(h *house) *policy.Message {
			return h.stamped(h.local(1000, "Hi", to(1)...), now, shop, "share")
		}, "local_user:shop"},
		{"a shared account", func(h *house) *policy.Message {
			return h.stamped(text(h.local(33, "Hi", to(1)...), "tea"), now, blog, "")
		}, "site:blog.example.jp"},
		{"a shared account, no site", func(h *house) *policy.Message { return text(h.local(33, "Hi", to(1)...), "tea") }, ""},
		{"nobody", func(h *house) *policy.Message { return text(h.local(origin.NoUID, "Hi", to(1)...), "tea") }, ""},
		{"a node", func(h *house) *policy.Message { return text(h.nodeMail(nil, to(1)...), "tea") }, ""},
		{"an account of a node", func(h *house) *policy.Message {
			return h.nodeMail(signed("site12", "far.example.jp"), to(1)...)
		}, "local_user:site12@web3"},
		{"a shared account of a node", func(h *house) *policy.Message {
			return h.nodeMail(signed("www-data", "far.example.jp"), to(1)...)
		}, "site:far.example.jp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hosting(t, policy.Enforce, defaults()...)
			h.order(order(policy.Stop, "", ""))
			held := &rooms{1, map[string]int{}, false}
			h.Room = held
			d := h.Message(t.Context(), now, c.be(h))
			if d.Rule != policy.RuleStopped {
				t.Fatalf("%v by %q: %s", d.Verdict, d.Rule, d.Reason)
			}
			want := c.want
			if want == "" {
				if want = policy.TextRoom + d.Origin.Template.Value; !d.Origin.Template.Known() {
					t.Fatal("the text has no name")
				}
			}
			if held.all[want] != 1 || len(held.all) != 1 || h.Limits.RoomOf(&d.Origin) != want {
				t.Errorf("taken: %v, want of %s", held.all, want)
			}
			// From the journal's row the same is known.
			row := policy.RoomName(d.Origin.Name(), h.Limits.SharedAccount(d.Origin.Name()), d.Origin.Site.Value, d.Origin.Template.Value)
			if row != want {
				t.Errorf("of the row: %q, want %q", row, want)
			}
		})
	}
}

// An attack on one site of a shared account fills the room of that site alone.
func TestNeighboursAreHeldWhileOneSiteIsAtItsCap(t *testing.T) {
	hour := limited("hour", limit.SharedUser, policy.Hold, window(1, time.Hour))
	for name, stopped := range map[string]bool{"over a limit": false, "all is stopped": true} {
		h := hosting(t, policy.Enforce, hour)
		if stopped {
			h.order(order(policy.Stop, "", ""))
		}
		h.Room = &rooms{3, map[string]int{}, false}
		send := func(site stamp.Site) policy.Decision {
			return h.Message(t.Context(), now, h.stamped(h.local(33, "Hi", h.person()), now, site, "share"))
		}
		for range 6 {
			send(blog)
		}
		if d := send(blog); d.Verdict != policy.Reject || d.Rule != policy.RuleHoldCap {
			t.Errorf("%s: beyond its cap: %v by %q", name, d.Verdict, d.Rule)
		}
		if d := send(wiki); d.Verdict != policy.Hold {
			t.Errorf("%s: the neighbour: %v by %q: %s", name, d.Verdict, d.Rule, d.Reason)
		}
	}
}

// At RCPT nobody knows yet whose of a node's mail it is: only the server's cap
// refuses there.
func TestNodeMailIsNotRefusedAtRCPTForAnotherSitesHolds(t *testing.T) {
	h := hosting(t, policy.Enforce, defaults()...)
	h.order(order(policy.Stop, "", ""))
	held := &rooms{1, map[string]int{"node:web3": 1}, false}
	h.Room = held
	if d := h.Recipient(t.Context(), now, h.nodeMail(nil), "friend@example.net"); d.Verdict != policy.Accept {
		t.Errorf("%v by %q", d.Verdict, d.Rule)
	}
	held.full = true
	if d := h.Recipient(t.Context(), now, h.nodeMail(nil), "friend@example.net"); d.Verdict != policy.Defer || d.Rule != policy.RuleHoldCap {
		t.Errorf("the server is full: %v by %q", d.Verdict, d.Rule)
	}
}

func TestSharedAccounts(t *testing.T) {
	l := policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, SharedUIDs: []int{33}, SharedUsers: []string{"www-data"}})
	for name, want := range map[string]bool{
		"local_user:www-data": true, "local_user:uid:33": true, "local_user:www-data@web3": true, "local_user:uid:33@web3": false, "local_user:site12": false,
		"local_user:uid:1001": false, "login:www-data": false, "network:web": false, "unknown": true, "node:web3": true, "": false, "site:www-data": false,
	} {
		if got := l.SharedAccount(name); got != want {
			t.Errorf("%q: %t, want %t", name, got, want)
		}
	}
	if (*policy.Limits)(nil).SharedAccount("local_user:www-data") {
		t.Error("without limits nobody has said so")
	}
}
