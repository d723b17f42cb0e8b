package stamp_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"relayguard/policy/origin/stamp"
)

var (
	web3 = stamp.Node{Name: "web3", Key: key(3), Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32"), netip.MustParsePrefix("2001:db8:3::/64")}}
	web4 = stamp.Node{Name: "web4", Key: key(4), Addresses: []netip.Prefix{netip.MustParsePrefix("::ffff:192.0.2.4/128"), netip.MustParsePrefix("192.0.2.0/24")}}

	at3 = netip.MustParseAddr("192.0.2.3")
	at4 = netip.MustParseAddr("192.0.2.4")

	told = stamp.NodeStamp{
		Node: "web3", Queue: "4bXyZ12", UID: 1001, LocalUser: "site12", Site: "shop.example.jp", Labelled: true, Plugin: "share-by-mail",
		Call: stamp.NodeCall{Entry: "ajax", Script: "wp-content/plugins/a.php:7", WebClient: "203.0.113.9", Pool: "shop", Software: "jetpack-share", Blog: 3},
	}
)

func nodes(t testing.TB) *stamp.Nodes {
	t.Helper()
	n, err := stamp.NewNodes([]stamp.Node{web3, web4}, stamp.NewReplays(10_000))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func to(rcpts ...string) *stamp.Mail { return &stamp.Mail{RcptTo: rcpts, Digest: [16]byte{1}} }

func TestWhatANodeSignsArrives(t *testing.T) {
	unlabelled := told
	unlabelled.Labelled, unlabelled.Plugin = false, ""
	own := told
	own.Plugin = ""
	bare := stamp.NodeStamp{Node: "web3", Queue: "Q1", UID: -1}
	foreign := told
	foreign.LocalUser, foreign.Plugin, foreign.Site = "usuário", "mu:お知らせ", "例え.jp"
	for _, s := range []stamp.NodeStamp{told, unlabelled, own, bare, foreign} {
		field := stamp.Sign(now, web3.Key, &s, to("a@example.com"))
		s.Time = now
		if got, err := nodes(t).Verify(now, at3, []string{field}, to("A@example.com")); err != nil || got != s {
			t.Errorf("%+v, %v, want\n%+v", got, err, s)
		}
	}
}

func TestWhyANodeIsNotBelieved(t *testing.T) {
	good := stamp.Sign(now, web3.Key, &told, to("a@example.com"))
	for _, c := range []struct {
		name   string
		at     time.Time
		client netip.Addr
		field  string
		rcpts  []string
		want   error
	}{
		{"good", now, at3, good, []string{"a@example.com"}, nil},
		{"good, mapped", now, netip.MustParseAddr("::ffff:192.0.2.3"), good, []string{"a@example.com"}, nil},
		{"good, by IPv6", now, netip.MustParseAddr("2001:db8:3::25%eth0"), good, []string{"a@example.com"}, nil},
		{"after five days", now.Add(5 * 24 * time.Hour), at3, good, []string{"a@example.com"}, nil},
		{"no form", now, at3, "v1 n=web3", []string{"a@example.com"}, stamp.ErrForm},
		{"a site's stamp", now, at3, made(now, 1), []string{"a@example.com"}, stamp.ErrForm},
		{"too long", now, at3, good + strings.Repeat(" ", 20_000), []string{"a@example.com"}, stamp.ErrForm},
		{"an unknown node", now, at3, strings.Replace(good, "n=web3", "n=web5", 1), []string{"a@example.com"}, stamp.ErrKey},
		{"another node's address", now, at4, good, []string{"a@example.com"}, stamp.ErrNode},
		{"a stranger's address", now, netip.MustParseAddr("198.51.100.1"), good, []string{"a@example.com"}, stamp.ErrNode},
		{"no address", now, netip.Addr{}, good, []string{"a@example.com"}, stamp.ErrNode},
		{"another node's key", now, at3, stamp.Sign(now, web4.Key, &told, to("a@example.com")), []string{"a@example.com"}, stamp.ErrSignature},
		{"another uid", now, at3, strings.Replace(good, "u=1001", "u=1002", 1), []string{"a@example.com"}, stamp.ErrSignature},
		{"a longer life", now, at3, strings.Replace(good, "x=1784432000", "x=1884432000", 1), []string{"a@example.com"}, stamp.ErrSignature},
		{"too old", now.Add(5*24*time.Hour + time.Second), at3, good, []string{"a@example.com"}, stamp.ErrTime},
		{"from the future", now.Add(-11 * time.Minute), at3, good, []string{"a@example.com"}, stamp.ErrTime},
		{"another recipient", now, at3, good, []string{"b@example.com"}, stamp.ErrRecipients},
		{"a recipient more", now, at3, good, []string{"a@example.com", "b@example.com"}, stamp.ErrRecipients},
		{"no recipient", now, at3, good, nil, stamp.ErrRecipients},
	} {
		if _, err := nodes(t).Verify(c.at, c.client, []string{c.field}, to(c.rcpts...)); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := nodes(t).Verify(now, at3, nil, to("a@example.com")); err != stamp.ErrNone {
		t.Errorf("no field: %v", err)
	}
	if _, err := new(stamp.Nodes).Verify(now, at3, []string{good}, to("a@example.com")); !errors.Is(err, stamp.ErrNode) {
		t.Errorf("no nodes: %v", err)
	}
}

// MTAs break lines of more than 998 octets where they end.
func TestBlanksInANodesFieldMeanNothing(t *testing.T) {
	var rcpts []string
	for i := range 1000 {
		rcpts = append(rcpts, fmt.Sprintf("user%d@example.com", i))
	}
	field := stamp.Sign(now, web3.Key, &told, to(rcpts...))
	if strings.ContainsAny(field, "\r\n\t") {
		t.Errorf("more than one line: %q", field)
	}
	var broken strings.Builder
	for len(field) > 97 {
		broken.WriteString(field[:97] + "\r\n ")
		field = field[97:]
	}
	broken.WriteString(field)
	if _, err := nodes(t).Verify(now, at3, []string{broken.String()}, to(rcpts...)); err != nil {
		t.Error(err)
	}
}

// The node's MTA splits a message: some recipients by one host, some by another.
func TestDeliveriesOfANodeMaySplit(t *testing.T) {
	field := stamp.Sign(now, web3.Key, &told, to("a@example.com", "b@example.com", "c@example.net", "A@example.com"))
	n := nodes(t)
	verify := func(digest byte, rcpts ...string) error {
		m := to(rcpts...)
		m.Digest = [16]byte{digest}
		_, err := n.Verify(now, at3, []string{field}, m)
		return err
	}
	for i, c := range []struct {
		digest byte
		rcpts  []string
		want   error
	}{
		{1, []string{"a@example.com"}, nil},
		{1, []string{"b@example.com", "C@example.net", "c@example.net"}, nil},
		{1, []string{"a@example.com", "b@example.com"}, nil}, // tried again
		{2, []string{"a@example.com"}, nil},                  // the node adds to it
		{3, []string{"a@example.com"}, nil},
		{4, []string{"a@example.com"}, nil},
		{5, []string{"a@example.com"}, stamp.ErrReplay},
		{5, []string{"b@example.com", "a@example.com"}, stamp.ErrReplay},
		{5, []string{"b@example.com"}, nil},
		{5, []string{"d@example.com"}, stamp.ErrRecipients},
	} {
		if err := verify(c.digest, c.rcpts...); !errors.Is(err, c.want) {
			t.Errorf("step %d: %v, want %v", i, err, c.want)
		}
	}
}

func TestMoreThanAThousandRecipientsAreNotNamed(t *testing.T) {
	var rcpts []string
	for i := range 1001 {
		rcpts = append(rcpts, fmt.Sprintf("user%d@example.com", i))
	}
	field := stamp.Sign(now, web3.Key, &told, to(rcpts...))
	if !strings.Contains(field, " r=* ") {
		t.Fatal(field)
	}
	n := nodes(t)
	for digest := range byte(6) {
		m := to("somebody@example.com")
		m.Digest = [16]byte{digest + 1}
		_, err := n.Verify(now, at3, []string{field}, m)
		if replay := errors.Is(err, stamp.ErrReplay); replay != (digest > 3) {
			t.Errorf("message %d: %v", digest+1, err)
		}
	}
}

func TestStrangeNamesAreSignedCleaned(t *testing.T) {
	s := stamp.NodeStamp{
		Node: "web3", Queue: "q =1\r\n", UID: -7, LocalUser: strings.Repeat("u", 100), Labelled: true, Plugin: "A\nB",
		Call: stamp.NodeCall{Entry: "strange", WebClient: "a b", Blog: -1, Pool: "p\x00"},
	}
	got, err := nodes(t).Verify(now, at3, []string{stamp.Sign(now, web3.Key, &s, to("a@example.com"))}, to("a@example.com"))
	want := stamp.NodeStamp{Node: "web3", Queue: "q__1__", Time: now, UID: -1, LocalUser: strings.Repeat("u", 64), Labelled: true, Plugin: "a_b", Call: stamp.NodeCall{Entry: "other", Pool: "p_"}}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheNodeOfAnAddress(t *testing.T) {
	n := nodes(t)
	for addr, want := range map[string]string{
		"192.0.2.3": "web3", "192.0.2.4": "web4", "192.0.2.77": "web4", "::ffff:192.0.2.3": "web3",
		"2001:db8:3::1%eth0": "web3", "2001:db8:4::1": "", "203.0.113.1": "",
	} {
		if got := n.Find(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	if got := n.Find(netip.Addr{}) + new(stamp.Nodes).Find(at3); got != "" {
		t.Error(got)
	}
}

func TestNodesTellEveryFault(t *testing.T) {
	with := func(change func(*stamp.Node)) []stamp.Node {
		n := stamp.Node{Name: "web5", Key: key(5), Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/32")}}
		change(&n)
		return []stamp.Node{web3, n}
	}
	for _, c := range []struct {
		nodes []stamp.Node
		want  string
	}{
		{with(func(n *stamp.Node) { n.Name = "" }), "node[1]: no name"},
		{with(func(n *stamp.Node) { n.Name = "Web5" }), `node "Web5": a name of other than lower-case`},
		{with(func(n *stamp.Node) { n.Name = "web=5" }), "a name of other than"},
		{with(func(n *stamp.Node) { n.Name = strings.Repeat("w", 65) }), "longer than 64"},
		{with(func(n *stamp.Node) { n.Name = "web3" }), `node "web3": name used twice`},
		{with(func(n *stamp.Node) { n.Key = nil }), "a key of 0 octets, want 32"},
		{with(func(n *stamp.Node) { n.Key = web3.Key }), `its key is also that of node "web3"`},
		{with(func(n *stamp.Node) { n.Addresses = nil }), `node "web5": no addresses`},
		{with(func(n *stamp.Node) { n.Addresses = []netip.Prefix{{}} }), "an address that is none"},
		{with(func(n *stamp.Node) { n.Addresses = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} }), "an address that is none, or all"},
		{with(func(n *stamp.Node) { n.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32")} }), `192.0.2.3/32 is also an address of node "web3"`},
		{with(func(n *stamp.Node) { n.Addresses = append(n.Addresses, n.Addresses[0]) }), `192.0.2.5/32 is named twice`},
	} {
		n, err := stamp.NewNodes(c.nodes, nil)
		if err == nil || n != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %q alone", err, c.want)
		}
	}
	if _, err := stamp.NewNodes([]stamp.Node{{}, {}}, nil); err == nil || strings.Count(err.Error(), "\n") != 5 {
		t.Errorf("%v, want every fault", err)
	}
}
