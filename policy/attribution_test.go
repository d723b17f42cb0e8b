package policy_test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
	"relayguard/policy/template"
)

var (
	shop  = stamp.Site{Name: "shop.example.jp", UID: 1000, KeyID: "5709e211", Key: key32('s'), Root: "/srv/shop"}
	blog  = stamp.Site{Name: "blog.example.jp", UID: 33, KeyID: "b1090001", Key: key32('b'), Root: "/srv/blog"}
	wiki  = stamp.Site{Name: "wiki.example.jp", UID: 33, KeyID: "b1090002", Key: key32('w'), Root: "/srv/wiki"}
	away1 = stamp.Site{Name: "away.example.jp", UID: -1, Login: "away@example.jp", KeyID: "b1090003", Key: key32('a')}
	web3  = stamp.Node{Name: "web3", Key: key32('3'), Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.13/32")}}
)

func key32(c byte) stamp.Key { return slices.Repeat([]byte{c}, 32) }

// calls are those that the wrapper was answered, by token.
type calls map[string]policy.Call

func (c calls) Call(token string, _ [16]byte) (policy.Call, bool) {
	found, ok := c[token]
	return found, ok
}

// hosting is a house with web sites.
func hosting(t testing.TB, phase policy.Phase, all ...policy.LimitRule) *house {
	h := newHouse(phase)
	book, err := stamp.NewBook([]stamp.Site{shop, blog, wiki, away1}, stamp.NewReplays(0))
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := stamp.NewNodes([]stamp.Node{web3}, stamp.NewReplays(0))
	if err != nil {
		t.Fatal(err)
	}
	h.Finder.UserName = func(uid int) string {
		return map[int]string{33: "www-data", 1000: "shop", 1001: "alice", 120: "smmsp"}[uid]
	}
	h.Attribution = &policy.Attribution{
		Stamps: book, Nodes: nodes, Sites: policy.NewSites(10, 0), SubmitUID: 120,
		Templates: template.New(template.Options{Parts: 10_000}),
		RootOf:    book.RootOf,
		SiteOf:    func(uid int) (string, bool) { return shop.Name, uid == shop.UID },
		UserID: func(name string) (int, bool) {
			uid, ok := map[string]int{"www-data": 33, "alice": 1001}[name]
			return uid, ok
		},
		Calls: calls{"t1000": {UID: 1000, Pool: "shop", Dir: "/srv/shop/wp-admin"}, "t33": {UID: 33, Pool: "www", Dir: "/srv/blog", Script: "index.php"}, "t34": {UID: 33, Dir: "/tmp"}, "t1001": {UID: 1001, Dir: "/srv/shop"}},
	}
	h.limit(phase, nil, all...)
	return h
}

// limit is a reload.
func (h *house) limit(phase policy.Phase, peaks *limit.Peaks, all ...policy.LimitRule) {
	h.Phase, h.Limits = phase, policy.NewLimits(policy.LimitsOptions{Phase: phase, Rules: all, SharedUIDs: []int{33}, SharedUsers: []string{"www-data"}, Store: h.buckets, Retries: h.retries, Item: item, Peaks: peaks})
}

// defaults are the shipped limits.
func defaults() (all []policy.LimitRule) {
	for _, d := range limit.Defaults() {
		r := policy.LimitRule{Limit: d.Limit, Adapt: d.Adapt, Then: policy.Hold, When: policy.When{Origins: d.Origins}}
		if d.Outside {
			r.Scope = policy.OutsideOnly
		}
		all = append(all, r)
	}
	return all
}

// local is mail from sendmail(1).
func (h *house) local(uid int, subject string, to ...string) *policy.Message {
	h.n++
	m := message(policy.Local, "www@example.jp", to...)
	m.UID, m.QueueID = uid, fmt.Sprintf("4q%d", h.n)
	m.Digest[0], m.Digest[1], m.Digest[2] = 1, byte(h.n), byte(h.n>>8)
	m.Header.Add([]byte("Message-ID"), fmt.Appendf(nil, "<%d@example.jp>", h.n))
	m.Header.Add([]byte("Subject"), []byte(subject))
	return m
}

// stamped puts a site's stamp on a message.
func (h *house) stamped(m *policy.Message, at time.Time, site stamp.Site, plugin string) *policy.Message {
	subject, _ := m.Header.Get("Subject")
	nonce := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%012d", h.n))
	m.Header.Add([]byte(stamp.Header), []byte(stamp.Make(at, &site, &stamp.Stamp{Plugin: plugin, Entry: "ajax", Script: "wp-content/plugins/x.php:12", WebClient: netip.MustParseAddr("203.0.113.99"), Blog: 2}, m.RcptTo, subject, nonce)))
	return m
}

// person is a recipient whom nobody has written to.
func (h *house) person() string {
	h.people++
	return fmt.Sprintf("person%d@example.net", h.people)
}

func field(m *policy.Message, name, value string) { m.Header.Add([]byte(name), []byte(value)) }

func TestWhichSiteAndPluginAreBelieved(t *testing.T) {
	const friend = "friend@example.net"
	key := func(value string, c origin.Confidence) origin.Key { return origin.Key{Value: value, Confidence: c} }
	for _, c := range []struct {
		name         string
		mail         func(h *house) *policy.Message
		account      string
		site, plugin origin.Key
	}{
		{"its own stamp", func(h *house) *policy.Message { return h.stamped(h.local(1000, "Hi", friend), now, shop, "share") },
			"local_user:1000", key(shop.Name, origin.Signed), key("share", origin.Signed)},
		{"the site's own software", func(h *house) *policy.Message { return h.stamped(h.local(1000, "Hi", friend), now, shop, "") },
			"local_user:1000", key(shop.Name, origin.Signed), key(origin.OwnSoftware, origin.Signed)},
		{"the right one of two on one account", func(h *house) *policy.Message { return h.stamped(h.local(33, "Hi", friend), now, wiki, "share") },
			"local_user:33", key(wiki.Name, origin.Signed), key("share", origin.Signed)},
		{"a stamp that another tenant copied the key for", func(h *house) *policy.Message { return h.stamped(h.local(1001, "Hi", friend), now, shop, "share") },
			"local_user:1001", origin.Key{}, origin.Key{}},
		{"with a made up key", func(h *house) *policy.Message {
			forged := shop
			forged.Key = key32('x')
			return h.stamped(h.local(33, "Hi", friend), now, forged, "share")
		}, "local_user:33", origin.Key{}, origin.Key{}},
		{"a forged one before the true one", func(h *house) *policy.Message {
			m := h.local(1000, "Hi", friend)
			field(m, stamp.Header, "v1 nonsense")
			return h.stamped(m, now, shop, "share")
		}, "local_user:1000", key(shop.Name, origin.Signed), key("share", origin.Signed)},
		{"for other recipients", func(h *house) *policy.Message {
			m := h.stamped(h.local(33, "Hi", friend), now, blog, "share")
			m.RcptTo = append(m.RcptTo, "other@example.net")
			return m
		}, "local_user:33", origin.Key{}, origin.Key{}},
		{"for more recipients than were read", func(h *house) *policy.Message {
			m := h.stamped(h.local(33, "Hi", friend), now, blog, "share")
			m.RcptTo, m.RcptMore = []string{"other@example.net"}, 1
			return m
		}, "local_user:33", origin.Key{}, origin.Key{}},
		{"with an encoded subject", func(h *house) *policy.Message {
			m := h.stamped(h.local(33, "ご注文 ありがとう", friend), now, blog, "cart")
			encoded := m.Header
			m.Header = policy.Header{}
			field(m, "Subject", "=?ISO-2022-JP?B?GyRCJDRDbUo4GyhC?=\r\n =?UTF-8?B?IOOBguOCiuOBjOOBqOOBhg==?=")
			v, _ := encoded.Get(stamp.Header)
			field(m, stamp.Header, v)
			return m
		}, "local_user:33", key(blog.Name, origin.Signed), key("cart", origin.Signed)},
		{"of nobody known", func(h *house) *policy.Message {
			return h.stamped(h.local(origin.NoUID, "Hi", friend), now, shop, "share")
		}, "unknown", origin.Key{}, origin.Key{}},
		{"of a site that logs in", func(h *house) *policy.Message {
			m := h.local(origin.NoUID, "Hi", friend)
			m.Role, m.Submitted, m.Login = policy.Submission, false, "away@example.jp"
			return h.stamped(m, now, away1, "share")
		}, "login:away@example.jp", key(away1.Name, origin.Signed), key("share", origin.Signed)},
		{"no stamp, one site of its own", func(h *house) *policy.Message { return h.local(1000, "Hi", friend) },
			"local_user:1000", key(shop.Name, origin.Kernel), origin.Key{}},
		{"no stamp, a shared account", func(h *house) *policy.Message { return h.local(33, "Hi", friend) },
			"local_user:33", origin.Key{}, origin.Key{}},
		{"the wrapper", func(h *house) *policy.Message {
			m := h.local(33, "Hi", friend)
			field(m, stamp.CallHeader, "t33")
			return m
		}, "local_user:33", key(blog.Name, origin.Wrapper), origin.Key{}},
		{"the wrapper, where the kernel tells nothing", func(h *house) *policy.Message {
			m := h.local(origin.NoUID, "Hi", friend)
			field(m, stamp.CallHeader, "made up")
			field(m, stamp.CallHeader, "t33")
			return m
		}, "local_user:33", key(blog.Name, origin.Wrapper), origin.Key{}},
		{"another's token", func(h *house) *policy.Message {
			m := h.local(1001, "Hi", friend)
			field(m, stamp.CallHeader, "t33")
			return m
		}, "local_user:1001", origin.Key{}, origin.Key{}},
		{"the wrapper and a stamp", func(h *house) *policy.Message {
			m := h.stamped(h.local(origin.NoUID, "Hi", friend), now, blog, "share")
			field(m, stamp.CallHeader, "t34")
			return m
		}, "local_user:33", key(blog.Name, origin.Signed), key("share", origin.Signed)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hosting(t, policy.Enforce)
			m := c.mail(h)
			d := h.Message(t.Context(), now, m)
			if o := &d.Origin; o.Stable() != c.account || o.Site != c.site || o.Plugin != c.plugin {
				t.Errorf("%s, site %+v, plugin %+v; want %s, %+v, %+v", o.Stable(), o.Site, o.Plugin, c.account, c.site, c.plugin)
			}
			for _, name := range []string{stamp.Header, stamp.CallHeader, stamp.NodeHeader} {
				if (m.Header.Count(name) > 0) != slices.Contains(d.Strip, name) {
					t.Errorf("%s stays: %q", name, d.Strip)
				}
			}
			if c.plugin.Known() && (d.Origin.Call.Entry != "ajax" || d.Origin.Call.Script != "wp-content/plugins/x.php:12" || d.Origin.Call.WebClient != "203.0.113.99" || d.Origin.Call.Blog != 2) {
				t.Errorf("the call was %+v", d.Origin.Call)
			}
		})
	}
}

func TestStampIsBelievedOnce(t *testing.T) {
	h := hosting(t, policy.Enforce)
	first := h.stamped(h.local(1000, "Hi", "friend@example.net"), now, shop, "share")
	again := h.local(1000, "Hi", "friend@example.net")
	value, _ := first.Header.Get(stamp.Header)
	field(again, stamp.Header, value)
	proven := func(m *policy.Message) bool {
		d := h.Message(t.Context(), now, m)
		return d.Origin.Plugin.Proven()
	}
	if !proven(first) || proven(again) {
		t.Error("a stamp is believed on another message")
	}
	retry := h.stamped(h.local(1000, "Hi", "friend@example.net"), now, shop, "share")
	copied := *retry
	if !proven(retry) || !proven(&copied) {
		t.Error("a retry of the same message is not believed")
	}
}

// Everything of ours is taken off, also where nothing of it is believed or nobody
// attributes, and also on the way out.
func TestOriginFieldsDoNotLeave(t *testing.T) {
	all := []string{uidHeader, stamp.Header, stamp.NodeHeader, stamp.CallHeader}
	for _, role := range []policy.Role{policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress} {
		for _, attributes := range []bool{true, false} {
			h := hosting(t, policy.Enforce)
			if !attributes {
				h.Attribution = nil
			}
			m := message(role, "x@example.org", "friend@example.net")
			for _, name := range all {
				field(m, strings.ToLower(name), "x")
				field(m, name, "y")
			}
			if d := h.Message(t.Context(), now, m); !slices.Equal(d.Strip, all) {
				t.Errorf("%v: %q", role, d.Strip)
			}
		}
	}
}

// Sendmail's submission program writes whose mail it is, first of all.
func TestSendmailsSubmitLine(t *testing.T) {
	const line = "(from alice@localhost)\r\n\tby host.example.jp (8.17.1.9/8.17.1.9/Submit) id 5AM9xyz;\r\n\tMon, 2 Mar 2026 09:00:00 GMT"
	for _, c := range []struct {
		name   string
		ip     string
		uid    int
		fields []string
		want   string
	}{
		{"first", "127.0.0.1", 120, []string{"Received", line}, "local_user:1001"},
		{"first, by IPv6", "::1", 120, []string{"Received", line}, "local_user:1001"},
		{"of an account without a uid", "127.0.0.1", 120, []string{"received", strings.ReplaceAll(line, "alice", "bob")}, "local_user:bob"},
		{"a forged second one", "127.0.0.1", 120, []string{"Received", line, "Received", strings.ReplaceAll(line, "alice", "www-data")}, "local_user:1001"},
		{"after another field", "127.0.0.1", 120, []string{"X-Mailer", "x", "Received", line}, "local_user:120"},
		{"from another process", "127.0.0.1", 33, []string{"Received", line}, "local_user:33"},
		{"from another machine", "192.0.2.9", 120, []string{"Received", line}, "local_user:120"},
		{"of another host", "127.0.0.1", 120, []string{"Received", strings.ReplaceAll(line, "localhost", "example.org")}, "local_user:120"},
		{"not of Submit", "127.0.0.1", 120, []string{"Received", strings.ReplaceAll(line, "/Submit", "")}, "local_user:120"},
		{"with more in its name", "127.0.0.1", 120, []string{"Received", strings.ReplaceAll(line, "alice", "alice) by x (y/Submit) id 1; (from root")}, "local_user:120"},
		{"no header", "127.0.0.1", 120, nil, "local_user:120"},
	} {
		h := hosting(t, policy.Enforce)
		m := message(policy.Relay, "alice@example.jp", "friend@example.net")
		m.ClientIP, m.UID = netip.MustParseAddr(c.ip), c.uid
		for f := range slices.Chunk(c.fields, 2) {
			field(m, f[0], f[1])
		}
		if d := h.Message(t.Context(), now, m); d.Origin.Stable() != c.want {
			t.Errorf("%s: %s, want %s", c.name, d.Origin.Stable(), c.want)
		}
	}
}

// Who runs Sendmail's submission program with a socket for its input is not named in
// its first line, and its own bounce names nobody: suspended people sent by both.
func TestMailThatSubmitSaysNobodyOfIsHeld(t *testing.T) {
	const by = "\r\n\tby host.example.jp (8.17.1.9/8.17.1.9/Submit) id 5AM9xyz;\r\n\tMon, 2 Mar 2026 09:00:00 GMT"
	for _, c := range []struct {
		name, received, from, to string
		uid                      int
		want                     policy.Verdict
	}{
		{"of somebody", "(from alice@localhost)" + by, "alice@example.jp", "friend@example.net", 120, policy.Accept},
		{"of its own account", "(from smmsp@localhost)" + by, "alice@example.jp", "friend@example.net", 120, policy.Accept},
		{"with a socket", "from x (localhost [127.0.0.1])" + by, "alice@example.jp", "friend@example.net", 120, policy.Hold},
		{"its bounce", "from localhost (localhost)" + by, "", "victim@example.net", 120, policy.Hold},
		{"its bounce to one of ours", "from localhost (localhost)" + by, "", "alice@example.jp", 120, policy.Accept},
		{"of no uid", "(from Unknown UID x@localhost)" + by, "alice@example.jp", "friend@example.net", 120, policy.Hold},
		{"without a header", "", "alice@example.jp", "friend@example.net", 120, policy.Hold},
		{"of another process", "from x (localhost [127.0.0.1])" + by, "alice@example.jp", "friend@example.net", 33, policy.Accept},
	} {
		h := hosting(t, policy.Enforce)
		local, own := message(policy.Local, c.from, c.to), message(policy.Relay, c.from, c.to)
		local.BySMTP = true
		own.ClientIP, own.FromHere = netip.MustParseAddr("203.0.113.9"), true // submit.cf may name the machine itself
		for way, m := range map[string]*policy.Message{"loopback": local, "own address": own} {
			m.ClientPort, m.UID = 40000, c.uid
			if c.received != "" {
				field(m, "Received", c.received)
			}
			if d := h.Message(t.Context(), now, m); d.Verdict != c.want || c.want == policy.Hold && d.Rule != policy.RuleAuth {
				t.Errorf("%s, by %s: %v %s: %s, want %v", c.name, way, d.Verdict, d.Rule, d.Reason, c.want)
			}
		}
	}
}

// FuzzSubmitLine: whoever runs sendmail(1) may write what follows the first field.
func FuzzSubmitLine(f *testing.F) {
	f.Fuzz(func(t *testing.T, name, value, subject string) {
		h := hosting(t, policy.Enforce, limited("hour", limit.Account, policy.Hold, window(10, time.Hour)))
		m := message(policy.Relay, "alice@example.jp", "friend@example.net")
		m.ClientIP, m.UID = netip.MustParseAddr("127.0.0.1"), 120
		field(m, name, value)
		field(m, "Subject", subject)
		for _, ours := range []string{stamp.Header, stamp.NodeHeader, stamp.CallHeader} {
			field(m, ours, value)
		}
		d := h.Message(t.Context(), now, m)
		if o := &d.Origin; o.Stable() != "local_user:120" && !strings.Contains(value, "(from "+o.LocalUser.Value+"@localhost)") || o.Site.Known() || strings.ContainsAny(o.Stable(), " \r\n\t") {
			t.Errorf("%q: %q is %s of %+v", name, value, o.Stable(), o.Site)
		}
	})
}

// nodeMail is mail of web3, signed if said is not nil.
func (h *house) nodeMail(said *stamp.NodeStamp, to ...string) *policy.Message {
	m := h.local(origin.NoUID, "Hi", to...)
	m.Role, m.Submitted, m.ClientIP = policy.Relay, false, netip.MustParseAddr("192.0.2.13")
	if said != nil {
		said.Node, said.Queue, said.Time = web3.Name, m.QueueID, now
		field(m, stamp.NodeHeader, stamp.Sign(now, web3.Key, said, &stamp.Mail{RcptTo: to}))
	}
	return m
}

func TestMailOfAWebNode(t *testing.T) {
	signed := func() *stamp.NodeStamp {
		return &stamp.NodeStamp{UID: 1000, LocalUser: "site12", Site: "far.example.jp", Labelled: true, Plugin: "share", Call: stamp.NodeCall{Entry: "ajax", Script: "x.php:1", WebClient: "203.0.113.99", Pool: "p", Software: "WP-EMail"}}
	}
	for _, c := range []struct {
		name string
		be   func(h *house) *policy.Message
		want string
	}{
		{"unsigned", func(h *house) *policy.Message { return h.nodeMail(nil, to(3)...) },
			"mail_from:www@example.jp sender_domain:example.jp recipient_domain:example.net template server"},
		{"signed", func(h *house) *policy.Message { return h.nodeMail(signed(), to(3)...) },
			"local_user:1000@web3 account=local_user:1000@web3 mail_from:www@example.jp sender_domain:example.jp recipient_domain:example.net domain:far.example.jp site:far.example.jp plugin:share@far.example.jp server"},
		{"signed, of a shared account", func(h *house) *policy.Message {
			s := signed()
			s.UID, s.LocalUser, s.Labelled = 8033, "www-data", false
			return h.nodeMail(s, to(3)...)
		}, "shared_user=local_user:8033@web3 account=local_user:8033@web3 mail_from:www@example.jp sender_domain:example.jp recipient_domain:example.net domain:far.example.jp site:far.example.jp plugin:unlabelled@far.example.jp server"},
		{"with another's signature", func(h *house) *policy.Message {
			m := h.nodeMail(nil, to(3)...)
			field(m, stamp.NodeHeader, stamp.Sign(now, key32('x'), &stamp.NodeStamp{Node: "web3", Queue: m.QueueID, Time: now, UID: 1000, Site: shop.Name, Labelled: true}, &stamp.Mail{RcptTo: m.RcptTo}))
			return m
		}, "mail_from:www@example.jp sender_domain:example.jp recipient_domain:example.net template server"},
		{"from elsewhere in the network", func(h *house) *policy.Message {
			m := h.nodeMail(signed(), to(3)...)
			m.ClientIP = netip.MustParseAddr("192.0.2.14")
			return m
		}, "account=network:web network:web machine:192.0.2.14 client:192.0.2.14 mail_from:www@example.jp sender_domain:example.jp recipient_domain:example.net server"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := perAll()
			i := slices.IndexFunc(all, func(r policy.LimitRule) bool { return r.Per[0] == limit.Template })
			all[i].When.Origins = []string{"local_user:*", "node:*"}
			h := hosting(t, policy.Enforce, all...)
			m := c.be(h)
			m.Body = []byte("Taro thinks you may be interested in the following post:\r\nhttps://far.example.jp/post/1\r\n")
			d := h.Message(t.Context(), now, m)
			var got []string
			for _, n := range d.Counters {
				kind, _, _ := strings.Cut(n.Key, ":")
				switch {
				case kind == "template":
					got = append(got, kind)
				case kind != n.Limit:
					got = append(got, n.Limit+"="+n.Key)
				default:
					got = append(got, n.Key)
				}
			}
			if s := strings.Join(got, " "); d.Verdict != policy.Accept || s != c.want {
				t.Errorf("%v: %s\n%s, want\n%s", d.Verdict, d.Reason, s, c.want)
			}
			if at := h.Recipient(t.Context(), now, m, "friend@example.net"); at.Verdict != policy.Accept {
				t.Errorf("at RCPT %v: %s", at.Verdict, at.Reason)
			}
		})
	}
}
