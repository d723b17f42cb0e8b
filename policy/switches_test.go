package policy_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin"
)

func TestCheckGivesASwitchItsOneForm(t *testing.T) {
	for _, c := range []struct {
		subject policy.Subject
		in      string
		want    string // "" is refused
	}{
		{policy.SubjectLogin, " Taro@Example.JP ", "taro@example.jp"},
		{policy.SubjectLogin, "", ""},
		{policy.SubjectLogin, "  ", ""},
		{policy.SubjectLogin, "ta\nro", ""},
		{policy.SubjectLogin, "ta\x00ro", ""},
		{policy.SubjectLogin, "taro\u0085", ""},
		{policy.SubjectLogin, "taro\xff", ""},
		{policy.SubjectLogin, strings.Repeat("a", 512), strings.Repeat("a", 512)},
		{policy.SubjectLogin, strings.Repeat("a", 513), ""},
		{policy.SubjectLocalUser, "33", "33"},
		{policy.SubjectLocalUser, "033", "33"},
		{policy.SubjectLocalUser, "0", "0"},
		{policy.SubjectLocalUser, "4294967294", "4294967294"},
		{policy.SubjectLocalUser, "4294967295", ""},
		{policy.SubjectLocalUser, "99999999999999999999", ""},
		{policy.SubjectLocalUser, "-1", ""},
		{policy.SubjectLocalUser, "+1", ""},
		{policy.SubjectLocalUser, "www-data", ""},
		{policy.SubjectLocalUser, "", ""},
		{policy.SubjectLocalUser, "1001@web3", "1001@web3"},
		{policy.SubjectLocalUser, "01001@web3", "1001@web3"},
		{policy.SubjectLocalUser, "alice@web3", ""},
		{policy.SubjectLocalUser, "1001@", ""},
		{policy.SubjectTrusted, "web", "web"},
		{policy.SubjectTrusted, "", ""},
		{policy.SubjectClient, "192.0.2.1", "192.0.2.1"},
		{policy.SubjectClient, "::ffff:192.0.2.1", "192.0.2.1"},
		{policy.SubjectClient, "2001:DB8:0::1", "2001:db8::1"},
		{policy.SubjectClient, "fe80::1%eth0", "fe80::1"},
		{policy.SubjectClient, "192.0.2.0/24", ""},
		{policy.SubjectClient, "192.0.2.01", ""},
		{policy.SubjectClient, "example.org", ""},
		{policy.SubjectNetwork, "192.0.2.7/24", "192.0.2.0/24"},
		{policy.SubjectNetwork, "2001:db8::7/32", "2001:db8::/32"},
		{policy.SubjectNetwork, "0.0.0.0/0", "0.0.0.0/0"},
		{policy.SubjectNetwork, "192.0.2.7", ""},
		{policy.SubjectNetwork, "192.0.2.7/33", ""},
		{policy.SubjectNetwork, "::ffff:192.0.2.0/120", ""},
		{policy.SubjectNetwork, "fe80::%eth0/64", ""},
		{policy.SubjectHelo, "Mail.Example.ORG.", "mail.example.org"},
		{policy.SubjectHelo, ".Example.org", ".example.org"},
		{policy.SubjectHelo, ".", ""},
		{policy.SubjectHelo, "..", ""},
		{policy.SubjectHelo, "a b", ""},
		{policy.SubjectHelo, "", ""},
		{policy.SubjectMailFrom, "Evil@Example.ORG.", "evil@example.org"},
		{policy.SubjectMailFrom, "evil+tag@example.org", "evil+tag@example.org"},
		{policy.SubjectMailFrom, "@Example.ORG", "@example.org"},
		{policy.SubjectMailFrom, "@例え.jp", "@xn--r8jz45g.jp"},
		{policy.SubjectMailFrom, "@", ""},
		{policy.SubjectMailFrom, "@a:b@example.org", ""},
		{policy.SubjectMailFrom, "evil", ""},
		{policy.SubjectMailFrom, "", ""},
		{policy.SubjectTarget, "Example.ORG.", "example.org"},
		{policy.SubjectTarget, "@example.org", "example.org"},
		{policy.SubjectTarget, "x@example.org", ""},
		{policy.SubjectTarget, "", ""},
	} {
		for _, kind := range []policy.SwitchKind{policy.Suspend, policy.Probation, policy.Deny, policy.Allow} {
			if !slices.Contains(policy.Subjects(kind), c.subject) {
				continue
			}
			s := policy.Switch{Kind: kind, Subject: c.subject, Value: c.in, Reason: "r"}
			if kind == policy.Allow && slices.Contains(policy.Subjects(policy.Suspend), c.subject) {
				s.Rule = "login-volume"
			}
			err := s.Check()
			if (err == nil) != (c.want != "") || err == nil && s.Value != c.want {
				t.Errorf("%s %s %q: %q, %v; want %q", kind, c.subject, c.in, s.Value, err, c.want)
			}
			if err == nil {
				again := s
				if err := again.Check(); err != nil || !reflect.DeepEqual(again, s) {
					t.Errorf("%s %s %q checked again: %+v, %v", kind, c.subject, c.in, again, err)
				}
			}
		}
	}
}

func TestCheckRefusesWhatNoSwitchIs(t *testing.T) {
	for name, s := range map[string]policy.Switch{
		"no kind":                    {},
		"another kind":               {Kind: "delete", Subject: policy.SubjectLogin, Value: "x"},
		"suspend a client":           {Kind: policy.Suspend, Subject: policy.SubjectClient, Value: "192.0.2.1"},
		"deny a login":               {Kind: policy.Deny, Subject: policy.SubjectLogin, Value: "x"},
		"no subject":                 {Kind: policy.Deny, Value: "x"},
		"stop of something":          {Kind: policy.Stop, Value: "x"},
		"stop with a subject":        {Kind: policy.Stop, Subject: policy.SubjectLogin, Value: "x"},
		"allow all rules":            {Kind: policy.Allow, Subject: policy.SubjectLogin, Value: "x"},
		"allow a client a rule":      {Kind: policy.Allow, Subject: policy.SubjectClient, Value: "192.0.2.1", Rule: "auth"},
		"deny with a rule":           {Kind: policy.Deny, Subject: policy.SubjectClient, Value: "192.0.2.1", Rule: "auth"}, // would never be found
		"suspend with a rule":        {Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: "x", Rule: "auth"},
		"rule with a line feed":      {Kind: policy.Allow, Subject: policy.SubjectLogin, Value: "x", Rule: "a\nb"},
		"rule longer than any":       {Kind: policy.Allow, Subject: policy.SubjectLogin, Value: "x", Rule: strings.Repeat("a", 513)},
		"network of the whole world": {Kind: policy.Deny, Subject: policy.SubjectNetwork, Value: "0/0"},
	} {
		if err := s.Check(); err == nil {
			t.Errorf("%s passes as %+v", name, s)
		}
	}
	s := policy.Switch{Kind: policy.Stop, Reason: "a\nb\x00\xff" + strings.Repeat("x", 1<<20), By: "\x1b[2J"}
	if err := s.Check(); err != nil || len(s.Reason) > 1000 || !strings.HasPrefix(s.Reason, "a b x") || s.By != " [2J" {
		t.Errorf("an order fails for its reason, or keeps it: %v, %d octets, by %q", err, len(s.Reason), s.By)
	}
}

// order is a switch that passed Check.
func order(kind policy.SwitchKind, subject policy.Subject, value string) policy.Switch {
	s := policy.Switch{Kind: kind, Subject: subject, Value: value, Reason: "phished", By: "ops", Since: now.Add(-time.Hour)}
	if err := s.Check(); err != nil {
		panic(err)
	}
	return s
}

func allowed(subject policy.Subject, value, rule string) policy.Switch {
	s := policy.Switch{Kind: policy.Allow, Subject: subject, Value: value, Rule: rule, Reason: "known"}
	if err := s.Check(); err != nil {
		panic(err)
	}
	return s
}

// switched is the policy of rules with switches pulled.
func switched(phase policy.Phase, all ...policy.Switch) *policy.Policy {
	p := rules(phase)
	p.Switches = new(policy.Board)
	p.Switches.Store(policy.NewSwitches(all))
	return p
}

func TestTermsEndExactly(t *testing.T) {
	end := now.Add(time.Hour)
	for _, s := range []policy.Switch{
		order(policy.Suspend, policy.SubjectLogin, "taro@example.jp"),
		order(policy.Deny, policy.SubjectNetwork, "203.0.113.0/24"),
		order(policy.Deny, policy.SubjectClient, "203.0.113.7"),
		order(policy.Deny, policy.SubjectTarget, "example.net"),
		order(policy.Stop, "", ""),
	} {
		s.Until = end
		p := switched(policy.Enforce, s)
		for at, stops := range map[time.Time]bool{now: true, end.Add(-time.Nanosecond): true, end: false, end.Add(time.Hour): false} {
			m := message(policy.Submission, "taro@example.jp", "friend@example.net")
			m.Login = "taro@example.jp"
			if d := p.Message(t.Context(), at, m); d.Verdict.Stops() != stops {
				t.Errorf("%s %s at %s: %v by %q", s.Kind, s.About(), at, d.Verdict, d.Rule)
			}
		}
		if s.Over(end.Add(-1)) || !s.Over(end) {
			t.Errorf("Over of %s", s.Kind)
		}
	}
}

func TestDenied(t *testing.T) {
	deny := func(s policy.Subject, v string) policy.Switch { return order(policy.Deny, s, v) }
	allow := func(s policy.Subject, v string) policy.Switch { return allowed(s, v, "") }
	ended := func(s policy.Switch) policy.Switch { s.Until = now; return s }
	for _, c := range []struct {
		name    string
		all     []policy.Switch
		change  func(*policy.Message)
		to      string
		refused bool
	}{
		{"client", []policy.Switch{deny("client", "203.0.113.7")}, nil, "", true},
		{"its neighbour", []policy.Switch{deny("client", "203.0.113.8")}, nil, "", false},
		{"mapped client", []policy.Switch{deny("client", "203.0.113.7")}, func(m *policy.Message) { m.ClientIP = netip.MustParseAddr("::ffff:203.0.113.7") }, "", true},
		{"network", []policy.Switch{deny("network", "203.0.113.0/24")}, nil, "", true},
		{"network besides", []policy.Switch{deny("network", "203.0.112.0/24")}, nil, "", false},
		{"client allowed in it", []policy.Switch{deny("network", "203.0.113.0/24"), allow("client", "203.0.113.7")}, nil, "", false},
		{"narrow allow", []policy.Switch{deny("network", "203.0.0.0/16"), allow("network", "203.0.113.0/24")}, nil, "", false},
		{"wide allow", []policy.Switch{allow("network", "203.0.0.0/16"), deny("network", "203.0.113.0/24")}, nil, "", true},
		{"wide allow, denied client", []policy.Switch{allow("network", "203.0.0.0/16"), deny("client", "203.0.113.7")}, nil, "", true},
		{"both of one network", []policy.Switch{deny("network", "203.0.113.0/24"), allow("network", "203.0.113.0/24")}, nil, "", false},
		{"narrow allow that ended", []policy.Switch{deny("network", "203.0.0.0/16"), ended(allow("network", "203.0.113.0/24"))}, nil, "", true},
		{"narrow deny that ended", []policy.Switch{allow("network", "203.0.0.0/16"), ended(deny("network", "203.0.113.0/24"))}, nil, "", false},
		{"IPv6 network", []policy.Switch{deny("network", "2001:db8::/32")}, func(m *policy.Message) { m.ClientIP = netip.MustParseAddr("2001:db8:1::7") }, "", true},
		{"IPv4 is no IPv6", []policy.Switch{deny("network", "::/0")}, nil, "", false},
		{"no client", []policy.Switch{deny("network", "0.0.0.0/0")}, func(m *policy.Message) { m.ClientIP = netip.Addr{} }, "", false},

		{"helo", []policy.Switch{deny("helo", "mail.example.org")}, nil, "", true},
		{"helo with its dot", []policy.Switch{deny("helo", "mail.example.org.")}, nil, "", true},
		{"helo in other case", []policy.Switch{deny("helo", "mail.example.org")}, func(m *policy.Message) { m.Helo = "MAIL.example.ORG." }, "", true},
		{"helo above", []policy.Switch{deny("helo", "example.org")}, nil, "", false},
		{"helo domain", []policy.Switch{deny("helo", ".example.org")}, nil, "", true},
		{"helo domain itself", []policy.Switch{deny("helo", ".example.org")}, func(m *policy.Message) { m.Helo = "example.org" }, "", false},
		{"helo with the same end", []policy.Switch{deny("helo", ".example.org")}, func(m *policy.Message) { m.Helo = "mail.badexample.org" }, "", false},
		{"helo allowed in the domain", []policy.Switch{deny("helo", ".org"), allow("helo", "mail.example.org")}, nil, "", false},
		{"helo narrower deny", []policy.Switch{allow("helo", ".org"), deny("helo", ".example.org")}, nil, "", true},
		{"no helo", []policy.Switch{deny("helo", ".org")}, func(m *policy.Message) { m.Helo = "" }, "", false},
		{"helo of dots", []policy.Switch{deny("helo", ".org")}, func(m *policy.Message) { m.Helo = strings.Repeat(".", 5000) }, "", false},

		{"sender", []policy.Switch{deny("mail-from", "evil@example.org")}, nil, "", true},
		{"sender in other case", []policy.Switch{deny("mail-from", "EVIL@example.org")}, func(m *policy.Message) { m.MailFrom = "Evil@Example.Org." }, "", true},
		{"sender by a source route", []policy.Switch{deny("mail-from", "evil@example.org")}, func(m *policy.Message) { m.MailFrom = "@a:evil@example.org" }, "", true},
		{"another sender", []policy.Switch{deny("mail-from", "good@example.org")}, nil, "", false},
		{"sender with a tag", []policy.Switch{deny("mail-from", "evil@example.org")}, func(m *policy.Message) { m.MailFrom = "evil+1@example.org" }, "", false},
		{"sender's domain", []policy.Switch{deny("mail-from", "@example.org")}, nil, "", true},
		{"sender's domain, empty local part", []policy.Switch{deny("mail-from", "@example.org")}, func(m *policy.Message) { m.MailFrom = `""@example.org` }, "", true},
		{"sender below the domain", []policy.Switch{deny("mail-from", "@example.org")}, func(m *policy.Message) { m.MailFrom = "evil@mail.example.org" }, "", false},
		{"sender allowed in the domain", []policy.Switch{deny("mail-from", "@example.org"), allow("mail-from", "evil@example.org")}, nil, "", false},
		{"null sender", []policy.Switch{deny("mail-from", "@example.org")}, func(m *policy.Message) { m.MailFrom = "" }, "", false},

		{"target", []policy.Switch{deny("target-domain", "example.net")}, nil, "", true},
		{"target in other spelling", []policy.Switch{deny("target-domain", "例え.jp")}, nil, "x@XN--R8JZ45G.jp.", true},
		{"target below", []policy.Switch{deny("target-domain", "example.net")}, nil, "x@mail.example.net", false},
		{"target by a percent sign", []policy.Switch{deny("target-domain", "example.net")}, nil, "x%example.net@example.jp", true},
		{"target by two", []policy.Switch{deny("target-domain", "example.net")}, nil, "x%example.net%relay.example@example.jp", true},
		{"target by a bang path", []policy.Switch{deny("target-domain", "example.net")}, nil, "example.net!x@example.jp", true},
		{"target by quotes", []policy.Switch{deny("target-domain", "example.net")}, nil, `"x@example.net"@example.jp`, true},
		{"target by a source route", []policy.Switch{deny("target-domain", "example.net")}, nil, "@example.jp:x@example.net", true},
		{"target with an empty local part", []policy.Switch{deny("target-domain", "example.net")}, nil, `""@example.net`, true},
		{"target of this host", []policy.Switch{deny("target-domain", "example.net")}, nil, "postmaster", false},
		{"target is somebody's name", []policy.Switch{deny("target-domain", "example.net")}, nil, "example.net@example.jp", false},
		{"target allowed does not allow the client", []policy.Switch{deny("client", "203.0.113.7"), allow("target-domain", "example.net")}, nil, "", true},

		{"postmaster of ours", []policy.Switch{deny("client", "203.0.113.7")}, nil, "postmaster@example.jp", true},
		{"bounce to ours", []policy.Switch{deny("client", "203.0.113.7")}, func(m *policy.Message) { m.MailFrom = "" }, "hanako@example.jp", true},
	} {
		for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
			t.Run(fmt.Sprintf("%s/%v", c.name, phase), func(t *testing.T) {
				p := switched(phase, c.all...)
				m := message(policy.Submission, "evil@example.org")
				m.Login, m.Helo = "taro@example.jp", "mail.example.org"
				if c.change != nil {
					c.change(m)
				}
				to := c.to
				if to == "" {
					to = "friend@example.net"
				}
				d := p.Recipient(t.Context(), now, m, to)
				if refused := d.Verdict == policy.Reject && d.Rule == policy.RuleDenied && d.Reply.Code == 550; refused != c.refused {
					t.Errorf("at RCPT %v by %q, %v; refused: want %v", d.Verdict, d.Rule, d.Reply, c.refused)
				}
				m.RcptTo = []string{"postmaster@example.jp", to}
				d = p.Message(t.Context(), now, m)
				if d.Verdict.Stops() != c.refused || c.refused && d.Rule != policy.RuleDenied || m.MailFrom == "" && d.Verdict == policy.Reject {
					t.Errorf("at the end %v by %q", d.Verdict, d.Rule)
				}
				if c.refused && m.MailFrom == "" && (d.Verdict != policy.Defer || d.Reply.Code != 451) {
					t.Errorf("null sender at the end: %v, %v: it must fill no hold queue", d.Verdict, d.Reply)
				}
				if text := d.Reply.Text; strings.Contains(text, "phished") || strings.Contains(text, "evil") {
					t.Errorf("the reply tells %q", text)
				}
			})
		}
	}
}

func TestSuspended(t *testing.T) {
	const taro = "taro@example.jp"
	taroStops := []policy.Switch{order(policy.Suspend, policy.SubjectLogin, "Taro@example.jp")}
	www := []policy.Switch{order(policy.Suspend, policy.SubjectLocalUser, "33")}
	web := []policy.Switch{order(policy.Suspend, policy.SubjectTrusted, "web")}
	for _, c := range []struct {
		name  string
		all   []policy.Switch
		role  policy.Role
		be    func(*policy.Message)
		stops bool
	}{
		{"login", taroStops, policy.Submission, func(m *policy.Message) { m.Login = "TARO@example.jp" }, true},
		{"login on an inbound listener", taroStops, policy.Inbound, func(m *policy.Message) { m.Login = taro }, true},
		{"certificate of the login", []policy.Switch{order(policy.Suspend, policy.SubjectLogin, "web1@example.jp")}, policy.Relay, senders["certificate"], true},
		{"neighbour", taroStops, policy.Submission, func(m *policy.Message) { m.Login = "hanako@example.jp" }, false},
		{"tagged neighbour", taroStops, policy.Submission, func(m *policy.Message) { m.Login = "taro+x@example.jp" }, false},
		{"claims to be it", taroStops, policy.Relay, func(m *policy.Message) { senders["network"](m); m.MailFrom, m.Helo = taro, taro }, false},
		{"uid at a loopback port", www, policy.Relay, senders["loopback uid"], true},
		{"login and uid, uid suspended", www, policy.Relay, func(m *policy.Message) { m.Login, m.UID = "hanako@example.jp", 33 }, true},
		{"login and uid, login suspended", taroStops, policy.Relay, func(m *policy.Message) { m.Login, m.UID = taro, 33 }, true},
		{"login and another uid", www, policy.Relay, func(m *policy.Message) { m.Login, m.UID = taro, 34 }, false},
		{"uid besides", www, policy.Relay, func(m *policy.Message) { m.UID = 34 }, false},
		{"network", web, policy.Relay, senders["network"], true},
		{"login from that network", web, policy.Relay, func(m *policy.Message) { senders["network"](m); m.Login = taro }, false},
		{"network of another name", []policy.Switch{order(policy.Suspend, policy.SubjectTrusted, "Web")}, policy.Relay, senders["network"], false},
		{"a login with the name of a network", []policy.Switch{order(policy.Suspend, policy.SubjectLogin, "web")}, policy.Relay, senders["network"], false},
	} {
		for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
			t.Run(fmt.Sprintf("%s/%v", c.name, phase), func(t *testing.T) {
				p := switched(phase, c.all...)
				for _, to := range []string{"friend@example.net", "hanako@example.jp"} {
					m := message(c.role, "x@example.org")
					c.be(m)
					d := p.Recipient(t.Context(), now, m, to)
					if refused := d.Verdict == policy.Reject && d.Rule == policy.RuleSuspended && d.Reply.Code == 550; refused != c.stops || d.Verdict.Stops() != c.stops {
						t.Errorf("at RCPT %v by %q, %v", d.Verdict, d.Rule, d.Reply)
					}
					m.RcptTo = []string{to}
					if d := p.Message(t.Context(), now, m); (d.Verdict == policy.Reject && d.Rule == policy.RuleSuspended) != c.stops {
						t.Errorf("at the end %v by %q", d.Verdict, d.Rule)
					}
				}
				for _, to := range []string{"postmaster@example.jp", "ABUSE@example.jp"} {
					m := message(c.role, "x@example.org")
					c.be(m)
					if d := p.Recipient(t.Context(), now, m, to); d.Verdict.Stops() {
						t.Errorf("%s at RCPT: %v by %q", to, d.Verdict, d.Rule)
					}
					m.RcptTo = []string{to}
					if d := p.Message(t.Context(), now, m); d.Verdict.Stops() {
						t.Errorf("%s at the end: %v by %q", to, d.Verdict, d.Rule)
					}
				}
			})
		}
	}
}

// That nobody who is suspended is kept from postmaster must not let pass what
// another rule refuses.
func TestExemptionFromSuspensionHidesNoRefusal(t *testing.T) {
	p := switched(policy.Enforce, order(policy.Suspend, policy.SubjectLogin, "taro@example.jp"), order(policy.Deny, policy.SubjectClient, "203.0.113.7"))
	m := message(policy.Submission, "taro@example.jp", "postmaster@example.jp")
	m.Login = "taro@example.jp"
	if d := p.Message(t.Context(), now, m); d.Verdict != policy.Reject || d.Rule != policy.RuleDenied {
		t.Errorf("denied and suspended: %v by %q", d.Verdict, d.Rule)
	}
	p = switched(policy.Enforce, order(policy.Suspend, policy.SubjectLogin, "taro@example.jp"))
	p.Addresses.HeaderFrom = policy.Reject
	m.Header.Add([]byte("From"), []byte("ceo@example.org"))
	if d := p.Message(t.Context(), now, m); d.Verdict != policy.Reject || d.Rule != policy.RuleFrom {
		t.Errorf("another's From and suspended: %v by %q", d.Verdict, d.Rule)
	}
}

// room holds so many messages.
type room struct{ left int }

func (r *room) Full(string) bool { return r.left <= 0 }

func (r *room) Take(string, int64) bool {
	if r.left <= 0 {
		return false
	}
	r.left--
	return true
}

func (r *room) Give(string, int64) { r.left++ }

func TestSuspendedLocalMailIsHeldUpToTheCap(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		p := switched(phase, order(policy.Suspend, policy.SubjectLocalUser, "33"))
		p.Room = &room{1}
		send := func(uid, from string, to ...string) policy.Decision {
			m := message(policy.Local, from, to...)
			m.Header.Add([]byte(uidHeader), []byte(uid))
			if d := p.Recipient(t.Context(), now, m, to[0]); d.Verdict != policy.Accept {
				t.Errorf("%v: local mail is answered at RCPT: %v", phase, d.Verdict)
			}
			return p.Message(t.Context(), now, m)
		}
		if d := send("33", "www-data@example.jp", "postmaster@example.jp", "friend@example.net"); d.Verdict != policy.Hold || d.Rule != policy.RuleSuspended {
			t.Errorf("%v: %v by %q, want hold", phase, d.Verdict, d.Rule)
		}
		if d := send("33", "www-data@example.jp", "friend@example.net"); d.Verdict != policy.Reject || d.Rule != policy.RuleHoldCap || d.Reply.Code != 550 {
			t.Errorf("%v: over the cap %v by %q, %v", phase, d.Verdict, d.Rule, d.Reply)
		}
		if d := send("33", "", "friend@example.net"); d.Verdict != policy.Defer || d.Rule != policy.RuleHoldCap || d.Reply.Code != 452 {
			t.Errorf("%v: null sender over the cap %v by %q, %v", phase, d.Verdict, d.Rule, d.Reply)
		}
		for _, to := range []string{"postmaster@example.jp", "abuse@example.jp"} {
			if d := send("33", "www-data@example.jp", to); d.Verdict != policy.Accept {
				t.Errorf("%v: %s: %v by %q", phase, to, d.Verdict, d.Rule)
			}
		}
		if d := send("33", "", "hanako@example.jp"); d.Verdict != policy.Accept {
			t.Errorf("%v: a bounce to ours: %v by %q", phase, d.Verdict, d.Rule)
		}
		if d := send("34", "www-data@example.jp", "friend@example.net"); d.Verdict != policy.Accept {
			t.Errorf("%v: the neighbour: %v by %q", phase, d.Verdict, d.Rule)
		}
	}
}

func TestOwnMailIsNeitherSuspendedNorStopped(t *testing.T) {
	p := switched(policy.Enforce, order(policy.Suspend, policy.SubjectLocalUser, fmt.Sprint(ownUID)), order(policy.Stop, "", ""))
	m := message(policy.Local, "relayguard@example.jp", "admin@example.net")
	m.Header.Add([]byte(uidHeader), fmt.Append(nil, ownUID))
	if d := p.Message(t.Context(), now, m); d.Verdict != policy.Accept {
		t.Errorf("%v by %q", d.Verdict, d.Rule)
	}
}

func TestRedSwitchHoldsWhatLeaves(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		for _, role := range []policy.Role{policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress} {
			for _, from := range []string{"taro@example.jp", ""} {
				for _, c := range []struct {
					to    []string
					stops bool
				}{
					{[]string{"hanako@example.jp"}, false},
					{[]string{"postmaster@example.jp", "hanako@例え.jp"}, false},
					{[]string{"friend@example.net"}, true},
					{[]string{"hanako@example.jp", "friend@example.net"}, true},
					{[]string{"friend%example.net@example.jp"}, true},
				} {
					p := switched(phase, order(policy.Stop, "", ""))
					m := message(role, from)
					m.Login = "taro@example.jp"
					for _, to := range c.to {
						if d := p.Recipient(t.Context(), now, m, to); d.Verdict.Stops() {
							t.Errorf("%v, %v: %s is refused: %v by %q", phase, role, to, d.Verdict, d.Rule)
						}
					}
					m.RcptTo = c.to
					if d := p.Message(t.Context(), now, m); (d.Verdict == policy.Hold && d.Rule == policy.RuleStopped) != c.stops || d.Verdict.Stops() != c.stops {
						t.Errorf("%v, %v, <%s> to %q: %v by %q", phase, role, from, c.to, d.Verdict, d.Rule)
					}
				}
			}
		}
	}
}

func TestSwitchesAboutTheSameAreOne(t *testing.T) {
	first, second := order(policy.Deny, policy.SubjectNetwork, "192.0.2.0/24"), order(policy.Deny, policy.SubjectNetwork, "192.0.2.9/24")
	first.ID, second.ID, second.Until = "s1", "s2", now
	s := policy.NewSwitches([]policy.Switch{first, second, order(policy.Stop, "", "")})
	if all := s.All(); len(all) != 2 || !slices.ContainsFunc(all, func(s policy.Switch) bool { return s.ID == "s2" }) || slices.ContainsFunc(all, func(s policy.Switch) bool { return s.ID == "s1" }) {
		t.Errorf("%+v", all)
	}
	o := origin.Origin{ClientIP: origin.Key{Value: "192.0.2.1"}, UID: origin.NoUID}
	if d := s.Denied(now, message(policy.Relay, ""), &o, "x@example.net"); d != nil {
		t.Errorf("the later has ended, %s still denies", d.ID)
	}
	var none *policy.Switches
	if none.All() != nil || none.Stopped(now) != nil || none.Suspended(now, &o) != nil || none.Denied(now, message(policy.Relay, ""), &o, "") != nil || none.Lifted(now, &o, "x") || none.OnProbation(now, &o) {
		t.Error("no switches do something")
	}
}

func TestAboutIsTheAccountsName(t *testing.T) {
	for _, s := range []policy.Switch{order(policy.Suspend, policy.SubjectLogin, "Taro@example.jp"), order(policy.Suspend, policy.SubjectLocalUser, "33"), order(policy.Suspend, policy.SubjectTrusted, "web")} {
		m := message(policy.Relay, "x@example.org")
		switch s.Subject {
		case policy.SubjectLogin:
			m.Login = "taro@example.jp"
		case policy.SubjectLocalUser:
			m.UID = 33
		default:
			m.ClientIP = netip.MustParseAddr("192.0.2.9")
		}
		d := switched(policy.Enforce, s).Recipient(t.Context(), now, m, "friend@example.net")
		if d.Rule != policy.RuleSuspended || s.About() != d.Origin.Stable() {
			t.Errorf("%q stops %q: %v", s.About(), d.Origin.Stable(), d.Verdict)
		}
	}
	if s := order(policy.Stop, "", ""); s.About() != "" {
		t.Errorf("the red switch is about %q", s.About())
	}
}
