package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

const (
	uidHeader = "X-Relayguard-Uid"
	daemon    = "LOCAL-PICKUP"
	ownUID    = 990
)

// rules is a policy of the house example.jp that asks for AUTH only.
func rules(phase policy.Phase) *policy.Policy {
	networks, errs := origin.NewNetworks([]origin.Network{{Name: "web", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Reason: "web nodes", Owner: "ops"}})
	if errs != nil {
		panic(errs)
	}
	return &policy.Policy{
		Phase: phase,
		Finder: origin.Finder{
			Networks:     networks,
			Certificates: []origin.Certificate{{Subject: "web1", Login: "web1@example.jp"}},
		},
		Inside:      policy.Inside{"example.jp": true, "xn--r8jz45g.jp": true},
		LocalDaemon: daemon,
		UIDHeader:   uidHeader,
		OwnUID:      ownUID,
		Addresses:   policy.Addresses{DefaultDomain: "example.jp", Delimiters: "+"},
	}
}

// message is a transaction of a stranger, before its header.
func message(role policy.Role, from string, to ...string) *policy.Message {
	m := &policy.Message{Listener: "test", Role: role, Time: now, Evidence: origin.NewEvidence(), RcptTo: to}
	m.ClientIP, m.ClientPort, m.MailFrom = netip.MustParseAddr("203.0.113.7"), 40000, from
	if role == policy.Local {
		m.ClientIP, m.ClientPort, m.Submitted, m.DaemonName = netip.MustParseAddr("127.0.0.1"), 0, true, daemon
	}
	return m
}

func rulesOf(d policy.Decision) []string {
	names := []string{}
	for _, f := range d.Findings {
		names = append(names, f.Rule)
	}
	return names
}

// senders are ways to be somebody, or nobody.
var senders = map[string]func(*policy.Message){
	"stranger":               func(*policy.Message) {},
	"login":                  func(m *policy.Message) { m.Login, m.AuthType = "taro@example.jp", "PLAIN" },
	"network":                func(m *policy.Message) { m.ClientIP = netip.MustParseAddr("192.0.2.9") },
	"loopback":               func(m *policy.Message) { m.ClientIP = netip.MustParseAddr("127.0.0.1") },
	"loopback uid":           func(m *policy.Message) { m.ClientIP, m.UID = netip.MustParseAddr("127.0.0.1"), 33 },
	"certificate":            func(m *policy.Message) { m.CertSubject, m.CertVerified = "web1", true },
	"unmapped certificate":   func(m *policy.Message) { m.CertSubject, m.CertVerified = "web2", true },
	"unverified certificate": func(m *policy.Message) { m.CertSubject = "web1" },
	"claims":                 func(m *policy.Message) { m.Helo, m.MailFrom = "localhost", "taro@example.jp" },
}

func TestWhoNeedsAUTH(t *testing.T) {
	known := []string{"login", "certificate"}
	passes := map[policy.Role][]string{
		policy.Submission: known,
		policy.Relay:      append([]string{"network", "loopback uid"}, known...),
	}
	for _, role := range []policy.Role{policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress} {
		for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
			for name, be := range senders {
				t.Run(fmt.Sprintf("%v/%v/%s", role, phase, name), func(t *testing.T) {
					m := message(role, "taro@example.jp")
					be(m)
					to := "friend@example.net"
					asked, asks := passes[role]
					refused := asks && !slices.Contains(asked, name)
					d := rules(phase).Recipient(t.Context(), now, m, to)
					want := policy.Accept
					switch {
					case refused && phase != policy.Observe:
						want = policy.Reject
					case refused:
						want = policy.Tell
					case role == policy.Inbound && !slices.Contains(passes[policy.Relay], name):
						want = policy.Tell
					}
					if d.Verdict != want {
						t.Fatalf("at RCPT %v, want %v: %s", d.Verdict, want, d.Reason)
					}
					if want == policy.Reject && (d.Rule != policy.RuleAuth || d.Reply.Code != 530 || d.Reply.Enhanced != "5.7.0") {
						t.Errorf("rule %q, reply %v", d.Rule, d.Reply)
					}
					if want != policy.Reject && d.Reply != (policy.Reply{}) {
						t.Errorf("reply %v to one that is not refused", d.Reply)
					}
					m.RcptTo = []string{to} // the MTA took it all the same
					if d := rules(phase).Message(t.Context(), now, m); d.Verdict != want {
						t.Errorf("at the end %v, want %v: %s", d.Verdict, want, d.Reason)
					}
				})
			}
		}
	}
}

func TestInboundIsOnlyWatched(t *testing.T) {
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		p := rules(phase)
		p.Addresses.Envelope, p.Addresses.HeaderFrom = policy.Reject, policy.Reject
		m := message(policy.Inbound, "stranger@example.net", "taro@example.jp")
		m.Header.Add([]byte("From"), []byte("taro@example.jp"))
		if d := p.Message(t.Context(), now, m); d.Verdict != policy.Accept {
			t.Errorf("%v: mail from a stranger to us: %v %s", phase, d.Verdict, d.Reason)
		}
		m.RcptTo = []string{"taro@example.jp", "friend@example.org"}
		if d := p.Message(t.Context(), now, m); d.Verdict != policy.Tell || d.Rule != policy.RuleAuth {
			t.Errorf("%v: a stranger relays: %v, want tell", phase, d.Verdict)
		}
	}
}

func TestEgressIsAskedNothingTwice(t *testing.T) {
	p := rules(policy.Enforce)
	p.Addresses.Envelope, p.Addresses.HeaderFrom = policy.Reject, policy.Reject
	m := message(policy.Egress, "ceo@example.org", "friend@example.net")
	m.Login = "taro@example.jp"
	m.Header.MaxFields = 1
	m.Header.Add([]byte("From"), []byte("ceo@example.org"))
	m.Header.Add([]byte("X"), []byte("y"))
	if d := p.Recipient(t.Context(), now, m, "friend@example.net"); d.Verdict != policy.Accept {
		t.Errorf("at RCPT %v %s", d.Verdict, d.Reason)
	}
	if d := p.Message(t.Context(), now, m); d.Verdict != policy.Accept {
		t.Errorf("at the end %v %s", d.Verdict, d.Reason)
	}
}

func TestAddressRulesByPhaseAndVerdict(t *testing.T) {
	softened := func(phase policy.Phase, v policy.Verdict) policy.Verdict {
		if phase != policy.Enforce {
			return policy.Tell
		}
		return v
	}
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		for _, v := range []policy.Verdict{policy.Tell, policy.Hold, policy.Reject} {
			t.Run(fmt.Sprintf("envelope/%v/%v", phase, v), func(t *testing.T) {
				p := rules(phase)
				p.Addresses.Envelope = v
				m := message(policy.Submission, "ceo@example.jp", "friend@example.net")
				m.Login = "taro@example.jp"
				want := softened(phase, v)
				atRCPT := policy.Accept
				if v == policy.Reject { // known already, so said already
					atRCPT = want
				}
				if d := p.Recipient(t.Context(), now, m, "friend@example.net"); d.Verdict != atRCPT {
					t.Errorf("at RCPT %v, want %v", d.Verdict, atRCPT)
				} else if d.Verdict == policy.Reject && d.Reply.Code != 550 {
					t.Errorf("reply %v", d.Reply)
				}
				if d := p.Recipient(t.Context(), now, m, "hanako@example.jp"); d.Verdict != policy.Accept {
					t.Errorf("at RCPT inside %v: it may be an automatic answer", d.Verdict)
				}
				d := p.Message(t.Context(), now, m)
				if d.Verdict != want || d.Rule != policy.RuleEnvelope || d.Findings[0].Verdict != v {
					t.Errorf("at the end %v by %q, want %v; %+v", d.Verdict, d.Rule, want, d.Findings)
				}
			})
			t.Run(fmt.Sprintf("from/%v/%v", phase, v), func(t *testing.T) {
				p := rules(phase)
				p.Addresses.HeaderFrom = v
				m := message(policy.Submission, "taro@example.jp", "friend@example.net")
				m.Login = "taro@example.jp"
				m.Header.Add([]byte("From"), []byte("ceo@example.jp"))
				want := softened(phase, v)
				d := p.Message(t.Context(), now, m)
				if d.Verdict != want || d.Rule != policy.RuleFrom || (d.Verdict == policy.Reject) != (d.Reply.Code == 550) {
					t.Errorf("%v by %q, reply %v; want %v", d.Verdict, d.Rule, d.Reply, want)
				}
				if d.Origin.HeaderFrom.Value != "ceo@example.jp" || d.Origin.HeaderFrom.Confidence != origin.Claimed {
					t.Errorf("From is %+v", d.Origin.HeaderFrom)
				}
			})
		}
	}
}

func TestAddressRulesAskLoginsOnly(t *testing.T) {
	p := rules(policy.Enforce)
	p.Addresses.Envelope, p.Addresses.HeaderFrom = policy.Reject, policy.Reject
	for _, role := range []policy.Role{policy.Local, policy.Relay} {
		m := message(role, "ceo@example.org", "friend@example.net")
		if role == policy.Relay {
			m.ClientIP = netip.MustParseAddr("192.0.2.9")
		}
		m.Header.Add([]byte("From"), []byte("ceo@example.org"))
		if d := p.Message(t.Context(), now, m); d.Verdict != policy.Accept {
			t.Errorf("%v: %v %s", role, d.Verdict, d.Reason)
		}
	}
}

func TestSeverestObjectionDecides(t *testing.T) {
	p := rules(policy.Enforce)
	p.Addresses.Envelope, p.Addresses.HeaderFrom = policy.Hold, policy.Reject
	m := message(policy.Submission, "ceo@example.jp", "friend@example.net")
	m.Login = "taro@example.jp"
	m.Header.Add([]byte("From"), []byte("ceo@example.jp"))
	d := p.Message(t.Context(), now, m)
	if d.Verdict != policy.Reject || d.Rule != policy.RuleFrom || len(d.Findings) != 2 {
		t.Errorf("%v by %q, %d findings", d.Verdict, d.Rule, len(d.Findings))
	}
	p.Addresses.Envelope = policy.Reject
	if first := p.Message(t.Context(), now, m); first.Rule != policy.RuleEnvelope {
		t.Errorf("of two equal objections %q decides, not the first", first.Rule)
	}
	if s := d.Reply.Text; strings.Contains(s, "ceo") || strings.Contains(s, "taro") {
		t.Errorf("the reply repeats what the client said: %q", s)
	}
}

func TestExemptions(t *testing.T) {
	for _, c := range []struct {
		name string
		from string
		to   []string
		held bool
	}{
		{"postmaster inside", "ceo@example.org", []string{"postmaster@example.jp"}, false},
		{"abuse inside in capitals", "ceo@example.org", []string{"ABUSE@Example.JP."}, false},
		{"both", "ceo@example.org", []string{"abuse@example.jp", "postmaster@例え.jp"}, false},
		{"postmaster outside", "ceo@example.org", []string{"postmaster@example.org"}, true},
		{"abuse at a subdomain", "ceo@example.org", []string{"abuse@mail.example.jp"}, true},
		{"tagged postmaster", "ceo@example.org", []string{"postmaster+x@example.jp"}, true},
		{"each for itself", "ceo@example.org", []string{"postmaster@example.jp", "friend@example.net"}, true},
		{"each for itself inside", "ceo@example.org", []string{"postmaster@example.jp", "hanako@example.jp"}, true},
		{"hanako inside", "ceo@example.org", []string{"hanako@example.jp"}, true},
		{"null sender inside", "", []string{"hanako@example.jp"}, false},
		{"null sender outside", "", []string{"friend@example.net"}, true},
		{"null sender to both", "", []string{"hanako@example.jp", "friend@example.net"}, true},
		{"null sender sent on by a percent sign", "", []string{"friend%example.net@example.jp"}, true},
		{"null sender sent on by a bang path", "", []string{"example.net!friend@example.jp"}, true},
		{"null sender sent on by quotes", "", []string{`"friend@example.net"@example.jp`}, true},
		{"null sender by a source route", "", []string{"@example.jp:friend@example.net"}, true},
	} {
		for _, v := range []policy.Verdict{policy.Hold, policy.Reject} {
			t.Run(c.name+"/"+v.String(), func(t *testing.T) {
				p := rules(policy.Enforce)
				p.Addresses.HeaderFrom = v
				m := message(policy.Submission, c.from, c.to...)
				m.Login = "taro@example.jp"
				m.Header.Add([]byte("From"), []byte("ceo@example.org"))
				want := policy.Accept
				switch {
				case v == policy.Reject && c.from != "":
					want = policy.Reject // nobody is exempt from a refusal
				case c.held:
					want = policy.Hold
				}
				d := p.Message(t.Context(), now, m)
				if d.Verdict != want || len(d.Findings) != 1 {
					t.Errorf("%v, want %v; %+v", d.Verdict, want, d.Findings)
				}
				if d.Verdict == policy.Accept && (d.Rule != "" || d.Reply != (policy.Reply{})) {
					t.Errorf("an accept cites %q, %v", d.Rule, d.Reply)
				}
			})
		}
	}
}

func TestNobodyIsExemptFromAUTHOnSubmission(t *testing.T) {
	for _, from := range []string{"", "stranger@example.net"} {
		for _, to := range []string{"postmaster@example.jp", "abuse@example.jp", "hanako@example.jp"} {
			p := rules(policy.Enforce)
			m := message(policy.Submission, from, to)
			if d := p.Recipient(t.Context(), now, m, to); d.Verdict != policy.Reject || d.Reply.Code != 530 {
				t.Errorf("<%s> to %s at RCPT: %v %v", from, to, d.Verdict, d.Reply)
			}
			if d := p.Message(t.Context(), now, m); !d.Verdict.Stops() || d.Rule != policy.RuleAuth {
				t.Errorf("<%s> to %s at the end: %v by %q", from, to, d.Verdict, d.Rule)
			}
		}
	}
}

func TestRelayTakesWhatIsExemptFromStrangers(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     policy.Verdict
	}{
		{"stranger@example.net", "postmaster@example.jp", policy.Accept},
		{"stranger@example.net", "abuse@example.jp", policy.Accept},
		{"", "hanako@example.jp", policy.Accept},
		{"stranger@example.net", "hanako@example.jp", policy.Reject},
		{"stranger@example.net", "Postmaster", policy.Accept}, // RFC 5321 §4.5.1
		{"", "friend@example.net", policy.Reject},
		{"", "friend%example.net@example.jp", policy.Reject},
	} {
		m := message(policy.Relay, c.from)
		if d := rules(policy.Enforce).Recipient(t.Context(), now, m, c.to); d.Verdict != c.want {
			t.Errorf("<%s> to %s: %v, want %v", c.from, c.to, d.Verdict, c.want)
		}
	}
}

func TestNullSenderIsNeverRejectedAtTheEnd(t *testing.T) {
	for _, role := range []policy.Role{policy.Submission, policy.Local, policy.Relay, policy.Inbound, policy.Egress} {
		for _, login := range []string{"", "taro@example.jp"} {
			p := rules(policy.Enforce)
			p.Addresses.Envelope, p.Addresses.HeaderFrom = policy.Reject, policy.Reject
			m := message(role, "", "friend@example.net")
			m.Login = login
			m.Header.Add([]byte("From"), []byte("ceo@example.org"))
			if d := p.Message(t.Context(), now, m); d.Verdict == policy.Reject || d.Reply.Code >= 500 {
				t.Errorf("%v, login %q: %v %v", role, login, d.Verdict, d.Reply)
			}
		}
	}
}

func TestWhatCannotBeReadWholeIsHeld(t *testing.T) {
	cut := func(m *policy.Message) { m.Header.Overflow() }
	many := func(m *policy.Message) { m.RcptMore = 1 }
	for _, phase := range []policy.Phase{policy.Observe, policy.Learning, policy.Enforce} {
		for rule, hide := range map[string]func(*policy.Message){policy.RuleHeader: cut, policy.RuleRecipient: many} {
			want := policy.Hold
			if phase == policy.Observe {
				want = policy.Tell
			}
			m := message(policy.Local, "www-data@example.jp", "friend@example.net")
			hide(m)
			if d := rules(phase).Message(t.Context(), now, m); d.Verdict != want || d.Rule != rule {
				t.Errorf("%v: %v by %q, want %v by %q", phase, d.Verdict, d.Rule, want, rule)
			}
		}
	}
	m := message(policy.Local, "www-data@example.jp", "postmaster@example.jp") // who else gets it is not known
	many(m)
	if d := rules(policy.Enforce).Message(t.Context(), now, m); d.Verdict != policy.Hold {
		t.Errorf("postmaster and more than could be read: %v, want hold", d.Verdict)
	}
}

func TestStrangersDoNotFillTheHoldQueueOfAnMX(t *testing.T) {
	for login, want := range map[string]policy.Verdict{"": policy.Tell, "taro@example.jp": policy.Hold} {
		m := message(policy.Inbound, "taro@example.jp", "hanako@example.jp")
		m.Login = login
		m.Header.Overflow()
		if d := rules(policy.Enforce).Message(t.Context(), now, m); d.Verdict != want || d.Rule != policy.RuleHeader {
			t.Errorf("login %q: %v by %q, want %v", login, d.Verdict, d.Rule, want)
		}
	}
}

func TestLocalMailIsNotAnsweredAtRCPT(t *testing.T) {
	p := rules(policy.Enforce)
	p.Addresses.Envelope = policy.Reject
	m := message(policy.Local, "ceo@example.org")
	if d := p.Recipient(t.Context(), now, m, "friend@example.net"); d.Verdict != policy.Accept {
		t.Errorf("%v %v", d.Verdict, d.Reply)
	}
}

func TestUIDHeaderIsBelievedFromTheMTAOnly(t *testing.T) {
	for _, c := range []struct {
		name   string
		role   policy.Role
		daemon string
		fields [][2]string
		uid    int
		strip  bool
	}{
		{"first field", policy.Local, daemon, [][2]string{{uidHeader, " 33"}, {"From", "x"}}, 33, true},
		{"in other case", policy.Local, daemon, [][2]string{{strings.ToUpper(uidHeader), "33"}}, 33, true},
		{"root", policy.Local, daemon, [][2]string{{uidHeader, "0"}}, 0, true},
		{"forged copy later", policy.Local, daemon, [][2]string{{uidHeader, "33"}, {uidHeader, "0"}}, 33, true},
		{"not first", policy.Local, daemon, [][2]string{{"From", "x"}, {uidHeader, "0"}}, origin.NoUID, true},
		{"service of another name", policy.Local, "smtpd", [][2]string{{uidHeader, "33"}}, origin.NoUID, true},
		{"service without a name", policy.Local, "", [][2]string{{uidHeader, "33"}}, origin.NoUID, true},
		{"over SMTP", policy.Relay, daemon, [][2]string{{uidHeader, "33"}}, origin.NoUID, true},
		{"over submission", policy.Submission, daemon, [][2]string{{uidHeader, "33"}}, origin.NoUID, true},
		{"through egress", policy.Egress, daemon, [][2]string{{uidHeader, "33"}}, origin.NoUID, true},
		{"negative", policy.Local, daemon, [][2]string{{uidHeader, "-1"}}, origin.NoUID, true},
		{"nobody at all", policy.Local, daemon, [][2]string{{uidHeader, "4294967295"}}, origin.NoUID, true},
		{"largest", policy.Local, daemon, [][2]string{{uidHeader, "4294967294"}}, 4294967294, true},
		{"too large", policy.Local, daemon, [][2]string{{uidHeader, "99999999999999999999999999"}}, origin.NoUID, true},
		{"no number", policy.Local, daemon, [][2]string{{uidHeader, "33 0"}}, origin.NoUID, true},
		{"empty", policy.Local, daemon, [][2]string{{uidHeader, ""}}, origin.NoUID, true},
		{"none", policy.Local, daemon, [][2]string{{"From", "x"}}, origin.NoUID, false},
		{"no header", policy.Local, daemon, nil, origin.NoUID, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := message(c.role, "www-data@example.jp", "friend@example.net")
			m.DaemonName = c.daemon
			for _, f := range c.fields {
				m.Header.Add([]byte(f[0]), []byte(f[1]))
			}
			d := rules(policy.Enforce).Message(t.Context(), now, m)
			if d.Origin.UID != c.uid {
				t.Errorf("uid %d, want %d", d.Origin.UID, c.uid)
			}
			if kind, _ := d.Origin.Account(); c.role == policy.Local && (kind == origin.KindLocalUser) != (c.uid != origin.NoUID) {
				t.Errorf("account %q", d.Origin.Name())
			}
			if slices.Contains(d.Strip, uidHeader) != c.strip {
				t.Errorf("strips %q", d.Strip)
			}
		})
	}
}

func TestLocalDaemonMustBeConfigured(t *testing.T) {
	p := rules(policy.Enforce)
	p.LocalDaemon = ""
	m := message(policy.Local, "www-data@example.jp", "friend@example.net")
	m.DaemonName = ""
	m.Header.Add([]byte(uidHeader), []byte("33"))
	if d := p.Message(t.Context(), now, m); d.Origin.UID != origin.NoUID {
		t.Errorf("uid %d is believed", d.Origin.UID)
	}
}

func TestOwnMailIsExemptByUID(t *testing.T) {
	for name, c := range map[string]struct {
		forge func(*policy.Message)
		want  policy.Verdict
	}{
		"the guard's":         {func(*policy.Message) {}, policy.Accept},
		"another service":     {func(m *policy.Message) { m.DaemonName = "smtpd" }, policy.Hold},
		"forged over SMTP":    {func(m *policy.Message) { m.Submitted, m.Role = false, policy.Relay }, policy.Reject},
		"loopback of our uid": {func(m *policy.Message) { m.Submitted, m.Role, m.UID = false, policy.Relay, ownUID }, policy.Hold},
	} {
		m := message(policy.Local, "relayguard@example.jp", "admin@example.net")
		m.Header.Add([]byte(uidHeader), fmt.Append(nil, ownUID))
		m.Header.Overflow()
		c.forge(m)
		if d := rules(policy.Enforce).Message(t.Context(), now, m); d.Verdict != c.want {
			t.Errorf("%s: %v by %q, want %v", name, d.Verdict, d.Rule, c.want)
		}
	}
}

func TestInsideIsExactlyTheDomains(t *testing.T) {
	in := policy.Inside{"example.jp": true, "xn--r8jz45g.jp": true}
	for addr, want := range map[string]bool{
		"taro@example.jp": true, "taro@EXAMPLE.JP": true, "taro@example.jp.": true, "taro@例え.jp": true, "taro@例え。jp": true, "taro@XN--R8JZ45G.JP": true,
		"taro@mail.example.jp": false, "taro@example.jp.example.net": false, "taro@xexample.jp": false, "": false, "taro@": false,
		"postmaster": true, "host!taro": false, "taro%host": false, // without a domain: of this very host
		"taro@example.jp@example.net": false, "@example.jp:taro@example.net": false, "taro%example.net@example.jp": false, "example.net!taro@example.jp": false,
	} {
		if in.Has(addr) != want {
			t.Errorf("Has(%q) = %v", addr, !want)
		}
	}
}

func TestNamesReadBack(t *testing.T) {
	for _, name := range policy.Roles() {
		if r, err := policy.ParseRole(name); err != nil || r.String() != name {
			t.Errorf("role %q: %v, %v", name, r, err)
		}
	}
	for _, name := range policy.Phases() {
		if p, err := policy.ParsePhase(name); err != nil || p.String() != name {
			t.Errorf("phase %q: %v, %v", name, p, err)
		}
	}
	for _, name := range policy.Verdicts() {
		if v, err := policy.ParseVerdict(name); err != nil || v.String() != name {
			t.Errorf("verdict %q: %v, %v", name, v, err)
		}
	}
	for _, s := range []string{"", "Relay", "off", "role(0)"} {
		if r, err := policy.ParseRole(s); err == nil || r != 0 {
			t.Errorf("ParseRole(%q) = %v, %v", s, r, err)
		}
	}
	if s := policy.Role(0).String() + policy.Phase(99).String() + policy.Verdict(99).String(); s != "role(0)phase(99)verdict(99)" {
		t.Errorf("unknown values print %q", s)
	}
}

func TestATokenMakesMailTheGuardsOwn(t *testing.T) {
	for name, c := range map[string]struct {
		fields []string
		want   policy.Verdict
	}{
		"none":    {nil, policy.Hold},
		"given":   {[]string{"right"}, policy.Accept},
		"guessed": {[]string{"wrong"}, policy.Hold},
		"several": {[]string{"wrong", "right"}, policy.Hold},
	} {
		p := rules(policy.Enforce)
		left := "right"
		p.Tokens = func(token string) bool {
			ok := token == left
			left = ""
			return ok
		}
		m := message(policy.Relay, "", "admin@example.net")
		m.Submitted, m.UID = false, 1000
		for _, f := range c.fields {
			m.Header.Add([]byte(policy.TokenHeader), []byte(f))
		}
		m.Header.Overflow() // for which others' mail is held
		d := p.Message(t.Context(), now, m)
		if (d.Verdict == policy.Accept) != (c.want == policy.Accept) {
			t.Errorf("%s: %v by %q, want %v", name, d.Verdict, d.Rule, c.want)
		}
		if want := len(c.fields) > 0; slices.Contains(d.Strip, policy.TokenHeader) != want {
			t.Errorf("%s: the field leaves: %v", name, d.Strip)
		}
	}
}

// An MTA relays for its own machine's outer addresses as for loopback, so a local
// process that goes that way and of which nobody knows whose it is is no stranger.
func TestUnknownFromThisMachineDoesNotRelayThroughInbound(t *testing.T) {
	h := newHouse(policy.Enforce)
	for _, here := range []bool{true, false} {
		for to, want := range map[string]policy.Verdict{"friend@example.net": policy.Defer, "taro@example.jp": policy.Accept} {
			if !here && want == policy.Defer {
				want = policy.Tell
			}
			m := message(policy.Inbound, "x@example.org", to)
			m.FromHere = here
			if d := h.Recipient(t.Context(), now, m, to); d.Verdict != want {
				t.Errorf("from here %t, to %s: %v at RCPT, want %v", here, to, d.Verdict, want)
			}
			if d := h.Message(t.Context(), now, m); d.Verdict != want {
				t.Errorf("from here %t, to %s: %v, want %v", here, to, d.Verdict, want)
			}
		}
	}
}
