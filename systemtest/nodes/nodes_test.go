package nodes_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayguard/policy/origin/stamp"
	"relayguard/systemtest/relay"
)

const share = "share-by-mail"

// An attacker drives the share button of one site on one web node. The relay stops
// that, tells the node, and nothing else is touched, on that node or another.
func TestOneSiteOfOneNodeIsStopped(t *testing.T) {
	t.Parallel()
	h := startHouse(t)
	attacked, neighbour := h.web1.host("a.example.jp", games, 'a'), h.web1.host("b.example.jp", lp, 'b')
	elsewhere := h.web2.host("c.example.jp", games, 'c')
	const bucket = "plugin:" + share + "@a.example.jp"

	attacked.sends("", "friend@example.net")
	h.arrive(t, "friend@example.net")
	victims := strangers("victim", posts())
	for i, to := range victims {
		attacked.sends(share, to)
		if i%(len(victims)/5) == 0 { // meanwhile
			for what, s := range map[string]*site{"neighbour": neighbour, "elsewhere": elsewhere} {
				s.sends(share, fmt.Sprintf("%s-share-%d@example.net", what, i))
				s.sends("", fmt.Sprintf("%s-reset-%d@example.net", what, i))
			}
			attacked.sends("", fmt.Sprintf("attacked-reset-%d@example.net", i))
		}
	}
	f := h.settle(t, h.web1, victims)
	t.Logf("of %d share mails %d left, %d are held on the relay, %d on the node", len(victims), f.left, f.onRelay, f.here)
	if f.left == 0 || f.left > 30 {
		t.Errorf("%d share mails left the house, want some, at most 30", f.left)
	}
	if f.here < len(victims)/2 {
		t.Errorf("the node holds %d of %d, want most", f.here, len(victims))
	}
	for i := range victims {
		if i%(len(victims)/5) == 0 {
			for _, what := range []string{"neighbour-share", "neighbour-reset", "elsewhere-share", "elsewhere-reset", "attacked-reset"} {
				h.arrive(t, fmt.Sprintf("%s-%d@example.net", what, i))
			}
		}
	}
	held, err := h.web1.WaitVerdict(soon(t), 0, func(l relay.Line) bool { return l.Verdict == "hold" })
	if err != nil || held.Rule != "plugin-first-time" || !strings.Contains(held.Reason, "the relay has shut "+bucket) || held.Account != "local_user:games" {
		t.Errorf("the node's verdict: %s, %v", held.Raw, err)
	}
	if v := h.relay.verdictOn(t, "2.a.example.jp"); v.Account != "local_user:games@web1" || v.Confidence != "signed" || v.Role != "relay" {
		t.Errorf("the relay's verdict: %s", v.Raw)
	}
	if n := h.web1.status(); n.Name != "web1" || n.Sites != 2 || n.Orders != 1 || n.From != "redis" || n.Problem != "" {
		t.Errorf("status of the node: %+v", n)
	}
	if n := h.relay.status(); n.Orders != 1 || len(n.Nodes) != 2 || n.Nodes[0].Signed.IsZero() || !n.Nodes[0].Unsigned.IsZero() {
		t.Errorf("status of the relay: %+v", n)
	}
	for _, m := range []*machine{h.relay, h.web1} {
		if _, stdout, stderr := m.command("check", "--no-probe"); strings.Contains(stdout, "node-") || strings.Contains(stdout, "redis-orders") {
			t.Errorf("check on %s finds\n%s%s", m.name, stdout, stderr)
		}
	}
	if n := strings.Count(h.relay.order("journal", "actions"), "shut on web nodes"); n != 1 {
		t.Errorf("%d orders were given for one bucket", n)
	}

	t.Run("resume on the relay opens the node", func(t *testing.T) {
		h.relay.order("resume", bucket, "--cause", "the plugin is gone")
		eventually(t, "the node has no order", func() bool { return h.web1.status().Orders == 0 })
		attacked.sends(share, "after-resume@example.net")
		h.arrive(t, "after-resume@example.net")
	})
	t.Run("reset on the relay opens the node, too", func(t *testing.T) {
		again := strangers("again", 40)
		for _, to := range again {
			attacked.sends(share, to)
		}
		h.settle(t, h.web1, again)
		eventually(t, "the node is told", func() bool { return h.web1.status().Orders == 1 })
		h.relay.order("limits", "reset", bucket, "--reason", "once more")
		eventually(t, "the node has no order", func() bool { return h.web1.status().Orders == 0 })
		attacked.sends(share, "after-reset@example.net")
		h.arrive(t, "after-reset@example.net")
		held, err := h.web1.WaitHeld(soon(t), victims[len(victims)-1])
		if err != nil {
			t.Fatal(err)
		}
		mark := h.relay.Mark()
		h.web1.order("held", "release", held.QueueID)
		h.arrive(t, victims[len(victims)-1])
		if all := h.relay.Verdicts(mark); len(all) == 0 || all[len(all)-1].Account != "local_user:games@web1" {
			t.Errorf("what the node releases is to the relay %+v", all)
		}
	})
}

// What an admin suspends on the relay is refused where it begins: a Unix account of
// one node by that node's sendmail(1), which is no account of the relay or of
// another node; a site is held there.
func TestSuspensionReachesItsNode(t *testing.T) {
	t.Parallel()
	h := startHouse(t)
	a, b, c := h.web1.host("a.example.jp", games, 'a'), h.web1.host("b.example.jp", lp, 'b'), h.web2.host("c.example.jp", games, 'c')
	for i, s := range []*site{a, b, c} {
		s.sends("", fmt.Sprintf("before-%d@example.net", i))
		h.arrive(t, fmt.Sprintf("before-%d@example.net", i))
	}
	said := h.relay.order("suspend", "local_user:games@web1", "--reason", "taken over")
	if !strings.Contains(said, "node web1 refuses it") {
		t.Errorf("suspend says:\n%s", said)
	}
	eventually(t, "sendmail(1) of web1 refuses", func() bool { return a.send("", "refused@example.net") != 0 })
	b.sends("", "b-flows@example.net")
	c.sends("", "c-flows@example.net")
	if sent, err := h.relay.Sendmail(soon(t), games, []string{"-f", "games@example.jp", "relay-flows@example.net"}, strings.NewReader("Subject: x\n\nx\n")); err != nil || sent.ExitCode != 0 {
		t.Errorf("sendmail(1) of the relay: %+v, %v", sent, err)
	}
	h.arrive(t, "b-flows@example.net", "c-flows@example.net", "relay-flows@example.net")
	h.relay.order("resume", "local_user:games@web1", "--cause", "mended")
	eventually(t, "sendmail(1) of web1 takes mail again", func() bool { return a.send("", "resumed@example.net") == 0 })
	h.arrive(t, "resumed@example.net")

	for _, who := range []string{"local_user:games@web1", "local_user:uid:5@web1"} {
		if said := h.relay.order("limits", "show", who, "--json"); !strings.Contains(said, `"local_user:5@web1"`) {
			t.Errorf("limits show %s:\n%s", who, said)
		}
		h.relay.order("limits", "set", "local-user-volume", who, "--windows", "500/1h", "--reason", "large customer")
	}
	if said := h.relay.order("allow", "list") + h.relay.order("limits", "list", "--account", "local_user:games@web1"); strings.Contains(said, "local_user:games ") {
		t.Errorf("an account of a node is shown as one of the relay:\n%s", said)
	}

	h.relay.order("suspend", "site:b.example.jp", "--reason", "taken over")
	eventually(t, "the node knows", func() bool {
		_, stdout, _ := h.web1.command("status")
		return strings.Contains(stdout, "site:b.example.jp")
	})
	b.sends("", "b-held@example.net")
	if _, err := h.web1.WaitHeld(soon(t), "b-held@example.net"); err != nil {
		t.Error(err)
	}
	a.sends("", "a-flows@example.net")
	h.arrive(t, "a-flows@example.net")
}

// The relay believes a node's word from its address and with its key only. What is
// not signed is nobody's, and judged by its text alone.
func TestWhatNodesDoNotSign(t *testing.T) {
	t.Parallel()
	h := startHouse(t)
	signedBy := func(name string, key stamp.Key, to string) string {
		return stamp.NodeHeader + ": " + stamp.Sign(time.Now(), key, &stamp.NodeStamp{Node: name, Queue: "4q1", UID: games, LocalUser: "games", Site: "a.example.jp", Labelled: true}, &stamp.Mail{RcptTo: []string{to}})
	}
	stranger := openWay(t, netip.MustParseAddr("198.51.100.7"), h.relay.Addr(relay.Relaying))
	for _, c := range []struct {
		name, account string
		way           *way
		fields        func(to string) []string
	}{
		{"unsigned", "node:web1", h.web1.way, func(string) []string { return nil }},
		{"signed", "local_user:games@web1", h.web1.way, func(to string) []string { return []string{signedBy("web1", h.web1.key, to)} }},
		{"another-key", "node:web1", h.web1.way, func(to string) []string { return []string{signedBy("web1", h.web2.key, to)} }},
		{"another-node", "node:web1", h.web1.way, func(to string) []string { return []string{signedBy("web2", h.web2.key, to)} }},
		{"another-address", "node:web2", h.web2.way, func(to string) []string { return []string{signedBy("web1", h.web1.key, to)} }},
		{"another-recipient", "node:web1", h.web1.way, func(string) []string { return []string{signedBy("web1", h.web1.key, "x@example.net")} }},
		{"two-of-which-one-is-good", "local_user:games@web1", h.web1.way, func(to string) []string {
			return []string{signedBy("web1", h.web2.key, to), signedBy("web1", h.web1.key, to)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			to := c.name + "@example.net"
			if got := c.way.handIn(t, c.name, to, "Good morning, "+c.name+"!\r\n", c.fields(to)...); !got.Accepted() {
				t.Fatalf("the relay says %+v", got)
			}
			if v := h.relay.verdictOn(t, c.name); v.Account != c.account || v.Verdict != "accept" {
				t.Errorf("verdict %s", v.Raw)
			}
			h.arrive(t, to)
		})
	}
	t.Run("a stranger", func(t *testing.T) {
		if got := stranger.handIn(t, "stranger", "stranger@example.net", "Good morning!\r\n", signedBy("web1", h.web1.key, "stranger@example.net")); got.Accepted() || got.Refusal().Code != 530 {
			t.Errorf("the relay says %+v", got)
		}
	})
	t.Run("a login with a node's word", func(t *testing.T) {
		client, err := h.relay.Dial(soon(t), relay.Submission)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.Ehlo("pc.example.jp"); err != nil {
			t.Fatal(err)
		}
		if r, err := client.Auth("taro@example.jp", "secret"); err != nil || !r.Positive() {
			t.Fatalf("AUTH: %+v, %v", r, err)
		}
		text := "From: taro@example.jp\r\nMessage-ID: <login>\r\n" + signedBy("web1", h.web1.key, "login@example.net") + "\r\n\r\nGood morning!\r\n"
		if got, err := client.Send("taro@example.jp", []string{"login@example.net"}, text); err != nil || !got.Accepted() {
			t.Fatalf("%+v, %v", got, err)
		}
		if v := h.relay.verdictOn(t, "login"); v.Account != "login:taro@example.jp" {
			t.Errorf("verdict %s", v.Raw)
		}
		h.arrive(t, "login@example.net")
	})
	t.Run("recipients that the node's MTA makes of those that were signed", func(t *testing.T) {
		a := h.web1.host("a.example.jp", games, 'a')
		if err := h.web1.SetMain(soon(t), map[string]string{"virtual_alias_maps": "inline:{alias@example.net=person@example.net}"}); err != nil {
			t.Fatal(err)
		}
		a.sends("", "alias@example.net")
		h.arrive(t, "person@example.net")
		if v := h.relay.verdictOn(t, "1.a.example.jp"); v.Account != "node:web1" {
			t.Errorf("verdict %s", v.Raw)
		}
		if _, stdout, _ := h.web1.command("check", "--no-probe"); !strings.Contains(stdout, "node-recipients") {
			t.Errorf("check says:\n%s", stdout)
		}
		if err := h.web1.SetMain(soon(t), map[string]string{"virtual_alias_maps": ""}); err != nil {
			t.Fatal(err)
		}
		a.sends("", "no-alias@example.net")
		h.arrive(t, "no-alias@example.net")
		if v := h.relay.verdictOn(t, "2.a.example.jp"); v.Account != "local_user:games@web1" {
			t.Errorf("verdict %s", v.Raw)
		}
	})
	t.Run("judged by its text", func(t *testing.T) {
		victims := strangers("page", 60)
		for i, to := range victims {
			if got := h.web2.way.handIn(t, fmt.Sprintf("page-%d", i), to, "Taro thinks you may like this page:\r\nhttps://a.example.jp/post/1\r\n", "Subject: A page for you"); !got.Accepted() {
				t.Fatalf("the relay says %+v", got)
			}
		}
		f := h.settle(t, h.web2, victims)
		if f.left == 0 || f.left > 40 || f.here > 0 {
			t.Errorf("%+v, want some to leave, at most 40", f)
		}
		if got := h.web2.way.handIn(t, "other", "other@example.net", "Minutes of the meeting on Monday: we have decided nothing.\r\n", "Subject: Minutes"); !got.Accepted() {
			t.Fatalf("the relay says %+v", got)
		}
		h.arrive(t, "other@example.net")
		if n := h.relay.status(); !slices.ContainsFunc(n.Nodes, func(n heard) bool {
			return n.Name == "web2" && n.Signed.IsZero() && !n.Unsigned.IsZero()
		}) {
			t.Errorf("status of the relay: %+v", n)
		}
	})
}

// Without Redis no order reaches a node, and the relay decides all the same. A node
// goes on to obey what it knows.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	h := startHouse(t)
	a, c := h.web1.host("a.example.jp", games, 'a'), h.web2.host("c.example.jp", lp, 'c')
	early := strangers("early", 60)
	for _, to := range early {
		a.sends(share, to)
	}
	h.settle(t, h.web1, early)
	eventually(t, "the node is told", func() bool { return h.web1.status().Orders == 1 })
	for _, m := range []*machine{h.relay, h.web1, h.web2} {
		m.network.Refuse()
	}
	for _, m := range []*machine{h.web1, h.web2} {
		eventually(t, m.name+" says that Redis is away", func() bool {
			_, stdout, _ := m.command("status")
			return strings.Contains(stdout, "Redis is away") && m.status().Problem != ""
		})
	}
	victims := strangers("victim", 60)
	for _, to := range victims {
		c.sends(share, to)
	}
	f := h.settle(t, h.web2, victims)
	if f.left == 0 || f.left > 30 || f.here > 0 {
		t.Errorf("without Redis: %+v, want some to leave, at most 30, the rest held by the relay", f)
	}
	a.sends(share, "still-shut@example.net")
	if _, err := h.web1.WaitHeld(soon(t), "still-shut@example.net"); err != nil {
		t.Error(err)
	}
	c.sends("", "reset@example.net")
	h.arrive(t, "reset@example.net")

	for _, m := range []*machine{h.relay, h.web1, h.web2} {
		m.network.Restore()
	}
	h.relay.order("limits", "reset", "plugin:"+share+"@a.example.jp", "--reason", "mended")
	eventually(t, "web1 has no order", func() bool { n := h.web1.status(); return n.Orders == 0 && n.Problem == "" })
}

// What the relay defers the node sends again: it is charged once.
func TestWhatTheRelayDefersIsChargedOnce(t *testing.T) {
	t.Parallel()
	h := startHouse(t)
	a := h.web1.host("a.example.jp", games, 'a')
	if err := h.relay.StopGuard(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	to := strangers("late", 5)
	for _, one := range to {
		a.sends(share, one)
	}
	if _, err := h.web1.WaitLog(soon(t), `to=<late-4@example\.net>.*status=deferred`); err != nil {
		t.Fatal(err)
	}
	if err := h.relay.StartGuard(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.web1.Command(t.Context(), "postqueue", "-f"); err != nil {
		t.Fatal(err)
	}
	h.arrive(t, to...)
	said := h.relay.order("limits", "list", "--account", "plugin:"+share+"@a.example.jp", "--json")
	if !strings.Contains(said, `"used":5`) && !strings.Contains(said, `"used": 5`) {
		t.Errorf("limits list:\n%s", said)
	}
}
