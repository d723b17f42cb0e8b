package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// perAll has one rule for every part that a key can have, of its name.
func perAll() (all []policy.LimitRule) {
	for _, name := range limit.Pers() {
		per, _ := limit.ParsePer(name)
		all = append(all, limited(name, per, policy.Hold, window(100, time.Hour)))
	}
	return all
}

func from(ip string) func(*policy.Message) {
	return func(m *policy.Message) { m.ClientIP = netip.MustParseAddr(ip) }
}

// web is mail of a site, as attribution found with some confidence.
func web(uid int, site, plugin string, c origin.Confidence) func(*policy.Message) {
	return func(m *policy.Message) {
		m.UID, m.Site, m.Plugin, m.SiteConfidence, m.PluginConfidence = uid, site, plugin, c, c
	}
}

func TestWhichBucketsAMessageHas(t *testing.T) {
	const claims = "mail_from:x@example.org sender_domain:example.org from_domain:example.com recipient_domain:example.net "
	for _, c := range []struct {
		name string
		role policy.Role
		be   func(*policy.Message)
		want string
	}{
		{"stranger", policy.Inbound, func(*policy.Message) {}, ""},
		{"local mail of nobody known", policy.Local, func(*policy.Message) {}, ""},
		{"login", policy.Submission, func(m *policy.Message) { m.Login = "TARO@example.jp" }, "login:taro@example.jp account=login:taro@example.jp client:203.0.113.7 " + claims + "domain:example.jp customer:acme server"},
		{"login in a trusted network", policy.Relay, func(m *policy.Message) { m.Login = "taro"; from("192.0.2.9")(m) }, "login:taro account=login:taro client:192.0.2.9 " + claims + "server"},
		{"login that a site uses", policy.Relay, func(m *policy.Message) { m.Login, m.UID = "taro", 1000 }, "login:taro account=login:taro client:203.0.113.7 " + claims + "server"},
		{"login on an MX", policy.Inbound, func(m *policy.Message) { m.Login = "taro" }, "login:taro account=login:taro client:203.0.113.7 " + claims + "server"},
		{"Unix account", policy.Local, func(m *policy.Message) { m.UID = 1000 }, "local_user:1000 account=local_user:1000 " + claims + "server"},
		{"many sites", policy.Local, func(m *policy.Message) { m.UID = 33 }, "shared_user=local_user:33 account=local_user:33 " + claims + "server"},
		{"one of many sites", policy.Local, web(33, "Shop.example.jp", "Share", origin.Signed), "shared_user=local_user:33 account=local_user:33 " + claims + "domain:shop.example.jp customer:acme site:shop.example.jp plugin:share@shop.example.jp server"},
		{"the software of a site", policy.Local, web(33, "blog.example.jp", "", origin.Wrapper), "shared_user=local_user:33 account=local_user:33 " + claims + "domain:blog.example.jp site:blog.example.jp plugin:wordpress@blog.example.jp server"},
		{"a claimed site", policy.Local, web(33, "shop.example.jp", "share", origin.Claimed), "shared_user=local_user:33 account=local_user:33 " + claims + "server"},
		{"a plugin of no site", policy.Local, web(33, "", "share", origin.Signed), "shared_user=local_user:33 account=local_user:33 " + claims + "server"},
		{"a template", policy.Submission, func(m *policy.Message) {
			m.Login, m.Template, m.TemplateConfidence = "taro", "t1", origin.Fingerprint
		}, "login:taro account=login:taro client:203.0.113.7 " + claims + "template:t1 server"},
		{"site at a loopback port", policy.Relay, func(m *policy.Message) { m.UID = 1000; from("127.0.0.1")(m) }, "local_user:1000 account=local_user:1000 " + claims + "server"},
		{"machine", policy.Relay, from("192.0.2.9"), "account=network:web network:web machine:192.0.2.9 client:192.0.2.9 " + claims + "server"},
		{"mapped machine", policy.Relay, from("::ffff:192.0.2.9"), "account=network:web network:web machine:192.0.2.9 client:192.0.2.9 " + claims + "server"},
		{"IPv6 machine", policy.Relay, from("2001:db8:1:2:3::4"), "account=network:web network:web machine:2001:db8:1:2::/64 client:2001:db8:1:2::/64 " + claims + "server"},
		{"null sender", policy.Submission, func(m *policy.Message) { m.Login, m.MailFrom = "taro", "" }, "login:taro account=login:taro client:203.0.113.7 " + strings.ReplaceAll(claims, "example.org", "example.com") + "server"},
		{"sender without a domain", policy.Submission, func(m *policy.Message) { m.Login, m.MailFrom = "taro", "root" }, "login:taro account=login:taro client:203.0.113.7 " + strings.ReplaceAll(claims, "example.org", "example.com") + "server"},
		{"recipient without a domain", policy.Submission, func(m *policy.Message) { m.Login, m.RcptTo = "taro", []string{"root", "root", "root"} }, "login:taro account=login:taro client:203.0.113.7 " + strings.ReplaceAll(claims, "recipient_domain:example.net ", "") + "server"},
		{"forwarding", policy.Egress, func(m *policy.Message) { m.Login = "taro" }, ""},
		{"the guard", policy.Local, func(m *policy.Message) { m.UID = ownUID }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(policy.Enforce, perAll()...)
			h.addIPv6()
			customers, errs := origin.NewCustomers([]origin.Customer{{Name: "acme", Domains: []string{"example.jp"}, Sites: []string{"shop.example.jp"}}})
			if errs != nil {
				t.Fatal(errs)
			}
			h.Finder.Customers = customers
			m := message(c.role, "X+tag@Example.ORG.", to(3)...)
			m.Header.Add([]byte("From"), []byte("x@example.com"))
			c.be(m)
			d := h.Message(t.Context(), now, m)
			var got []string
			for _, c := range d.Counters {
				if c.Amount != 3 || c.Used != 0 || c.Over || c.Soft || c.Unit != "recipients" || c.Kind != "volume" || c.Window != time.Hour || c.Count != 100 {
					t.Errorf("%+v", c)
				}
				key := c.Key
				if kind, _, _ := strings.Cut(key, ":"); kind != c.Limit {
					key = c.Limit + "=" + key
				}
				got = append(got, key)
			}
			want := strings.Fields(c.want)
			if d.Verdict.Stops() && c.role != policy.Inbound || !slices.Equal(got, want) {
				t.Errorf("%v, buckets\n%q, want\n%q", d.Verdict, got, want)
			}
			if h.buckets.Len() != len(want) {
				t.Errorf("%d buckets are kept, want %d", h.buckets.Len(), len(want))
			}
		})
	}
}

func TestKeysOfSeveralParts(t *testing.T) {
	for _, c := range []struct {
		name string
		per  []limit.Per
		be   func(*policy.Message)
		want []string
	}{
		{"in the order configured", []limit.Per{limit.Client, limit.Login}, func(m *policy.Message) {}, []string{"client:203.0.113.7 login:taro"}},
		{"blanks", []limit.Per{limit.Login, limit.Server}, func(m *policy.Message) { m.Login = "taro yamada" }, []string{"login:taro%20yamada server"}},
		{"blanks of one part", []limit.Per{limit.Login}, func(m *policy.Message) { m.Login = "taro yamada" }, []string{"login:taro yamada"}},
		{"a part is not known", []limit.Per{limit.Login, limit.Site}, func(m *policy.Message) {}, nil},
		{"recipient domains", []limit.Per{limit.Login, limit.RecipientDomain}, func(m *policy.Message) {
			m.RcptTo = []string{"a@b.example", "c@A.example.", "d@b.example", "root"}
		}, []string{"login:taro recipient_domain:a.example", "login:taro recipient_domain:b.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := limited("r", 0, policy.Hold, window(100, time.Hour))
			r.Per = c.per
			h := newHouse(policy.Enforce, r)
			m := h.mail("taro", to(1)...)
			c.be(m)
			var got []string
			for _, n := range h.Message(t.Context(), now, m).Counters {
				got = append(got, n.Key)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("buckets %q, want %q", got, c.want)
			}
		})
	}
}

func TestBitsOfAClient(t *testing.T) {
	r := limited("r", limit.Client, policy.Hold, window(100, time.Hour))
	r.ClientBits4, r.ClientBits6 = 24, 56
	h := newHouse(policy.Enforce, r)
	for ip, want := range map[string]string{"203.0.113.7": "client:203.0.113.0/24", "::ffff:203.0.113.9": "client:203.0.113.0/24", "2001:db8:1:2ff::1": "client:2001:db8:1:200::/56"} {
		m := h.mail("taro", to(1)...)
		from(ip)(m)
		if d := h.Message(t.Context(), now, m); len(d.Counters) != 1 || d.Counters[0].Key != want {
			t.Errorf("%s: %+v, want %s", ip, d.Counters, want)
		}
	}
}

// The sender's own labels: none of them is a budget of its own.
func TestNoLabelOpensAFreshBudget(t *testing.T) {
	header := func(name, format string) func(*policy.Message, int) {
		return func(m *policy.Message, i int) { m.Header.Add([]byte(name), fmt.Appendf(nil, format, i)) }
	}
	for _, c := range []struct {
		name  string
		role  policy.Role
		label func(m *policy.Message, i int)
	}{
		{"envelope sender", policy.Submission, func(m *policy.Message, i int) { m.MailFrom = fmt.Sprintf("x%d@d%d.example.org", i, i) }},
		{"envelope sender with a tag", policy.Submission, func(m *policy.Message, i int) { m.MailFrom = fmt.Sprintf("taro+%d@example.jp", i) }},
		{"null sender", policy.Submission, func(m *policy.Message, i int) { m.MailFrom = "" }},
		{"From", policy.Submission, header("From", "x%d@d%[1]d.example.jp")},
		{"HELO", policy.Submission, func(m *policy.Message, i int) { m.Helo = fmt.Sprint("host", i) }},
		{"client", policy.Submission, func(m *policy.Message, i int) { m.ClientIP = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }},
		{"login's case", policy.Submission, func(m *policy.Message, i int) { m.Login = []string{"TARO@example.jp", "Taro@Example.jp"}[i%2] }},
		{"login's tag", policy.Submission, func(m *policy.Message, i int) { m.Login = fmt.Sprintf("taro+%d@example.jp", i) }},
		{"Message-ID", policy.Submission, func(m *policy.Message, i int) { m.Header.Reset(0) }},
		{"fixed Message-ID, other mail", policy.Submission, func(m *policy.Message, i int) {
			m.Header.Reset(0)
			m.Header.Add([]byte("Message-ID"), []byte("<1@x>"))
			m.Digest[0] = byte(i)
		}},
		{"X-PHP header", policy.Local, header("X-PHP-Originating-Script", "%d:x.php")},
		{"X-Mailer", policy.Local, header("X-Mailer", "m%d")},
		{"claimed site", policy.Local, func(m *policy.Message, i int) {
			m.Site, m.Plugin = fmt.Sprintf("s%d.example.jp", i), fmt.Sprint("p", i)
		}},
		{"claimed template", policy.Local, func(m *policy.Message, i int) { m.Template = fmt.Sprint("t", i) }},
		{"recipient's domain", policy.Local, func(m *policy.Message, i int) { m.RcptTo[0] = fmt.Sprintf("x@d%d.example.net", i) }},
		{"address in a /64", policy.Relay, func(m *policy.Message, i int) {
			m.ClientIP = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i+1))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := []policy.LimitRule{limited("account", limit.Account, policy.Hold, window(10, time.Hour))}
			for _, r := range perAll() { // whatever else is configured, it is one limit more
				if r.Per[0] != limit.Account {
					r.Windows = []limit.Window{window(10, time.Hour)}
					all = append(all, r)
				}
			}
			h := newHouse(policy.Enforce, all...)
			h.Finder.LoginTags = "+"
			h.addIPv6()
			passed := 0
			for i := range 30 {
				m := h.mail("taro@example.jp", to(1)...)
				m.Role = c.role
				switch c.role {
				case policy.Local:
					m.Login, m.UID = "", 1000
				case policy.Relay:
					m.Login = ""
				}
				c.label(m, i)
				if d := h.Message(t.Context(), now, m); d.Verdict == policy.Accept {
					passed++
				} else if d.Verdict != policy.Hold {
					t.Errorf("%v by %q", d.Verdict, d.Rule)
				}
			}
			if passed != 10 {
				t.Errorf("%d recipients pass, want 10", passed)
			}
		})
	}
}

// Parents sum their children: the parent stops when the children together reach
// it, and then no child is charged either.
func TestParentsSumTheirChildren(t *testing.T) {
	per := func(p limit.Per, count int64) policy.LimitRule {
		return limited(p.String(), p, policy.Hold, window(count, time.Hour))
	}
	site := func(site, plugin string) func(*policy.Message) {
		return func(m *policy.Message) {
			m.Role, m.Login = policy.Local, ""
			web(33, site, plugin, origin.Signed)(m)
		}
	}
	login := func(login string) func(*policy.Message) { return func(m *policy.Message) { m.Login = login } }
	for _, c := range []struct {
		name     string
		parent   policy.LimitRule
		child    policy.LimitRule
		children []func(*policy.Message)
	}{
		{"site and plugins", per(limit.Site, 10), per(limit.Plugin, 6), []func(*policy.Message){site("a.jp", "x"), site("a.jp", "y")}},
		{"account and sites", per(limit.SharedUser, 10), per(limit.Site, 6), []func(*policy.Message){site("a.jp", "x"), site("b.jp", "x")}},
		{"domain and logins", per(limit.Domain, 10), per(limit.Login, 6), []func(*policy.Message){login("taro@a.jp"), login("jiro@a.jp")}},
		{"customer and domains", per(limit.Customer, 10), per(limit.Domain, 6), []func(*policy.Message){login("taro@a.jp"), login("jiro@b.jp")}},
		{"customer, domain and site", per(limit.Customer, 10), per(limit.Account, 6), []func(*policy.Message){login("taro@a.jp"), site("b.jp", "x")}},
		{"server and customers", per(limit.Server, 10), per(limit.Customer, 6), []func(*policy.Message){login("taro@a.jp"), login("jiro@c.jp")}},
		{"domain and clients", per(limit.Domain, 10), per(limit.Login, 6), []func(*policy.Message){login("taro@a.jp"), func(m *policy.Message) { m.Login = "jiro@a.jp"; from("2001:db8::1")(m) }}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(policy.Enforce, c.child, c.parent)
			h.Finder.Customers, _ = origin.NewCustomers([]origin.Customer{{Name: "one", Domains: []string{"a.jp", "b.jp"}}, {Name: "two", Domains: []string{"c.jp"}}})
			send := func(child, n int) policy.Decision {
				m := h.mail("taro@a.jp", to(n)...)
				c.children[child](m)
				return h.Message(t.Context(), now, m)
			}
			for child, n := range []int{6, 4} {
				if d := send(child, n); d.Verdict != policy.Accept {
					t.Errorf("child %d, %d recipients: %v: %s", child, n, d.Verdict, d.Reason)
				}
			}
			d := send(1, 1)
			if d.Verdict != policy.Hold || d.Rule != c.parent.Name || len(d.Charges) != 0 {
				t.Errorf("together over the parent: %v by %q: %s", d.Verdict, d.Rule, d.Reason)
			}
			for _, n := range d.Counters {
				if want := map[string]int64{c.child.Name: 4, c.parent.Name: 10}[n.Limit]; n.Used != want || n.Over != (n.Limit == c.parent.Name) {
					t.Errorf("%+v, want %d used", n, want)
				}
			}
			if d := send(1, 1); d.Counters[0].Used != 4 {
				t.Errorf("what the parent refused is charged to the child: %+v", d.Counters[0])
			}
		})
	}
}

func TestTooManyCharges(t *testing.T) {
	r := limited("domains", limit.RecipientDomain, policy.Hold, window(100, time.Hour))
	all := func(n int) []string {
		rcpts := make([]string, n)
		for i := range rcpts {
			rcpts[i] = fmt.Sprintf("x@d%d.example.net", i)
		}
		return rcpts
	}
	for _, c := range []struct {
		name string
		role policy.Role
		from string
		n    int
		want policy.Verdict
	}{
		{"as many as can be", policy.Submission, "taro@example.jp", limit.MaxCharges, policy.Accept},
		{"one more", policy.Submission, "taro@example.jp", limit.MaxCharges + 1, policy.Reject},
		{"one more, local", policy.Local, "taro@example.jp", limit.MaxCharges + 1, policy.Hold},
		{"one more, null sender", policy.Submission, "", limit.MaxCharges + 1, policy.Hold},
	} {
		h := newHouse(policy.Enforce, r)
		m := h.mail("taro@example.jp", all(c.n)...)
		m.Role, m.UID, m.MailFrom = c.role, 1000, c.from
		d := h.Message(t.Context(), now, m)
		if d.Verdict != c.want || c.want != policy.Accept && (d.Rule != "domains" || h.buckets.Len() != 0 || d.Waits != nil) {
			t.Errorf("%s: %v by %q, %d buckets", c.name, d.Verdict, d.Rule, h.buckets.Len())
		}
		if c.want == policy.Reject && !strings.Contains(d.Reply.Text, "fewer domains at once") {
			t.Errorf("%s: %v", c.name, d.Reply)
		}
	}
}

// tenantIP is an address outside that one tenant alone has.
func tenantIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }

func TestHasPart(t *testing.T) {
	for _, c := range []struct {
		value, part string
		want        bool
	}{
		{"login:taro", "login:taro", true},
		{"login:taro@a.jp", "login:taro", false},
		{"login:taro@a.jp", "site:a.jp", false},
		{"login:taro%20yamada server", "login:taro yamada", true},
		{"plugin:share@a.jp", "plugin:share@a.jp", true},
		{"plugin:share@a.jp", "plugin:share", true},
		{"plugin:share@a.jp", "plugin:shar", false},
		{"plugin:share@a.jp", "site:a.jp", true},
		{"plugin:share@a.jp", "site:jp", false},
		{"plugin:share@b.a.jp", "site:a.jp", false},
		{"plugin:share@a.jp recipient_domain:b.jp", "plugin:share", true},
		{"server plugin:share%20it@a.jp", "plugin:share it", true},
		{"server plugin:share@a.jp", "site:a.jp", true},
		{"site:a.jp", "plugin:share", false},
	} {
		if got := policy.HasPart(c.value, c.part); got != c.want {
			t.Errorf("%q of %q: %t", c.value, c.part, got)
		}
	}
}
