package policy_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"relayguard/policy"
)

// forwarding knows rules of taro's and hanako's, the latter approved, one of the
// boss, who is excepted, blind copies, and one target that two feed.
func forwarding(released bool) *policy.Forwarding {
	known := map[string][]policy.ForwardRule{
		"x@evil.test":     {{ID: "F1", Owner: "taro@example.jp"}},
		"h@partner.test":  {{ID: "F2", Owner: "hanako@example.jp", Approved: true}},
		"b@home.test":     {{ID: "F3", Owner: "boss@example.jp", Blind: true}},
		"copy@evil.test":  {{ID: "F4", Owner: "*", Blind: true}},
		"two@home.test":   {{ID: "F5", Owner: "taro@example.jp", Blind: true}, {ID: "F6", Owner: "hanako@example.jp", Blind: true, Approved: true}},
		"alias@evil.test": {{ID: "F7", Owner: "taro@example.jp"}, {ID: "F8", Owner: "taro@example.jp", Approved: true}},
	}
	return &policy.Forwarding{
		Rules: func(owner, target string) (all []policy.ForwardRule) {
			for _, r := range known[target] {
				if owner == "" || owner == r.Owner {
					all = append(all, r)
				}
			}
			return all
		},
		Ready:    func() bool { return true },
		Except:   func(owner string) bool { return owner == "boss@example.jp" },
		Released: func(*policy.Message) bool { return released },
	}
}

func egress(from, to, orcpt string, notify ...string) *policy.Message {
	m := message(policy.Egress, from, to)
	if orcpt != "" {
		notify = append(notify, "ORCPT=rfc822;"+orcpt)
	}
	m.RcptOrig = []policy.Original{policy.OriginalOf(notify)}
	return m
}

// by gives a message a login.
func by(login string, m *policy.Message) *policy.Message {
	m.Login = login
	return m
}

// fromHere is a message that a process of uid 1001 hands in by the machine's own address.
func fromHere(m *policy.Message) *policy.Message {
	m.ClientIP, m.FromHere, m.BySMTP, m.UID = netip.MustParseAddr("203.0.113.9"), true, true, 1001
	return m
}

func TestForwardedMailIsHeldAndNeverRefused(t *testing.T) {
	const never = "NOTIFY=NEVER"
	for name, c := range map[string]struct {
		m       *policy.Message
		header  string
		verdict policy.Verdict
		reason  string
	}{
		"a known rule":               {egress("a@partner.test", "x@evil.test", "taro@example.jp"), "", policy.Hold, "F1"},
		"its owner in other letters": {egress("a@partner.test", "x@evil.test", "Taro@EXAMPLE.jp."), "", policy.Hold, "F1"},
		"ORCPT in xtext":             {egress("a@partner.test", "x@evil.test", "taro+40example.jp"), "", policy.Hold, "F1"},
		"an approved rule":           {egress("a@partner.test", "h@partner.test", "hanako@example.jp"), "", policy.Accept, ""},
		"approved by one of two":     {egress("a@partner.test", "alias@evil.test", "taro@example.jp"), "", policy.Accept, ""},
		"an excepted owner":          {egress("a@partner.test", "y@evil.test", "boss@example.jp"), "", policy.Accept, ""},
		"no rule is known":           {egress("a@partner.test", "y@evil.test", "jiro@example.jp"), "", policy.Hold, "no forwarding rule is known"},
		"of one of ours":             {egress("jiro@example.jp", "y@evil.test", "taro@example.jp"), "", policy.Hold, "taro@example.jp"},
		"a bounce that is forwarded": {egress("", "x@evil.test", "taro@example.jp"), "", policy.Hold, "F1"},

		"a copy by BCC":                      {egress("jiro@example.jp", "copy@evil.test", "copy@evil.test", never), "", policy.Hold, "F4"},
		"a copy of an excepted owner":        {egress("jiro@example.jp", "b@home.test", "b@home.test", never), "", policy.Accept, ""},
		"a copy that one of two may have":    {egress("jiro@example.jp", "two@home.test", "two@home.test", never), "", policy.Accept, ""},
		"no notices wanted":                  {egress("jiro@example.jp", "friend@partner.test", "friend@partner.test", never), "", policy.Accept, ""},
		"no notices, another rule's target":  {egress("news@shop.test", "x@evil.test", "x@evil.test", never), "", policy.Accept, ""},
		"a customer's news to a target":      {egress("news@shop.test", "x@evil.test", "x@evil.test"), "", policy.Accept, ""},
		"a customer's news to a BCC target":  {egress("news@shop.test", "copy@evil.test", "copy@evil.test"), "", policy.Accept, ""},
		"a customer's, sent on elsewhere":    {egress("news@shop.test", "y@evil.test", "y@evil.test"), "Delivered-To: taro@example.jp\n", policy.Accept, ""},
		"a stranger's, no original":          {egress("a@partner.test", "x@evil.test", ""), "", policy.Accept, ""},
		"a stranger's, no original, was in":  {egress("a@partner.test", "x@evil.test", ""), "Delivered-To: taro@example.jp\n", policy.Hold, "F1"},
		"the same, no rule, no notices":      {egress("a@partner.test", "y@evil.test", "", never), "X-Original-To: taro@example.jp\n", policy.Hold, "no forwarding rule"},
		"a list's post, no original":         {egress("list-bounces@example.jp", "y@evil.test", ""), "Delivered-To: list@example.jp\n", policy.Accept, ""},
		"ours, no original":                  {egress("jiro@example.jp", "x@evil.test", ""), "", policy.Accept, ""},
		"what our people write":              {egress("jiro@example.jp", "y@evil.test", "y@evil.test"), "", policy.Accept, ""},
		"to the inside":                      {egress("a@partner.test", "taro@example.jp", "sales@example.jp"), "", policy.Accept, ""},
		"ORCPT cannot be read":               {egress("jiro@example.jp", "x@evil.test", "taro+4"), "", policy.Accept, ""},
		"a stranger's on its way here":       {message(policy.Inbound, "a@partner.test", "x@evil.test"), "Delivered-To: taro@example.jp\n", policy.Tell, ""},
		"sendmail(1), nobody's mail":         {message(policy.Local, "taro@example.jp", "x@evil.test"), "", policy.Accept, ""},
		"delivered elsewhere before":         {message(policy.Local, "taro@example.jp", "x@evil.test"), "Delivered-To: me@home.test\n", policy.Accept, ""},
		"procmail, a known rule":             {message(policy.Local, "taro@example.jp", "x@evil.test"), "Delivered-To: taro@example.jp\nReceived: by mx\n", policy.Hold, "F1"},
		"procmail, no rule":                  {message(policy.Local, "taro@example.jp", "y@evil.test"), "Delivered-To: taro+a@example.jp\nReceived: by mx\n", policy.Hold, "no forwarding rule"},
		"procmail, account alone":            {message(policy.Local, "taro", "y@evil.test"), "Delivered-To: taro@example.jp\nReceived: by mx\n", policy.Hold, "no forwarding rule"},
		"procmail of an approved rule":       {message(policy.Local, "hanako@example.jp", "h@partner.test"), "Delivered-To: hanako@example.jp\nReceived: by mx\n", policy.Accept, ""},
		"procmail, by our own address":       {fromHere(message(policy.Relay, "taro@example.jp", "y@evil.test")), "Delivered-To: taro@example.jp\nReceived: by mx\nReceived: by submit\n", policy.Hold, "no forwarding rule"},
		"procmail of an alias":               {message(policy.Local, "taro@example.jp", "x@evil.test"), "Delivered-To: sales@example.jp\nX-Original-To: taro@example.jp\n", policy.Hold, "F1"},
		"a pipe that keeps the sender":       {message(policy.Local, "a@partner.test", "y@evil.test"), "X-Original-To: taro@example.jp\n", policy.Hold, "no forwarding rule"},
		"a pipe of the boss":                 {message(policy.Local, "a@partner.test", "y@evil.test"), "X-Original-To: boss@example.jp\n", policy.Accept, ""},
		"Mailman's post":                     {message(policy.Local, "list-bounces@example.jp", "y@evil.test"), "Delivered-To: list@example.jp\nReceived: by mx\nList-Id: <list.example.jp>\n", policy.Accept, ""},
		"Mailman's post without a list id":   {message(policy.Local, "list-bounces@example.jp", "y@evil.test"), "Delivered-To: list@example.jp\nReceived: by mx\n", policy.Accept, ""},
		"a list that sends as itself":        {message(policy.Local, "list@example.jp", "y@evil.test"), "Delivered-To: list@example.jp\nReceived: by mx\nList-Post: <mailto:list@example.jp>\n", policy.Accept, ""},
		"a stranger's list, forwarded":       {message(policy.Local, "b@lists.test", "y@evil.test"), "Delivered-To: taro@example.jp\nList-Id: <b.lists.test>\n", policy.Hold, "no forwarding rule"},
		"a person sends it on by mutt":       {message(policy.Local, "taro@example.jp", "y@evil.test"), "Resent-From: taro@example.jp\nDelivered-To: taro@example.jp\nReceived: by mx\n", policy.Accept, ""},
		"a person sends it on":               {by("taro@example.jp", message(policy.Submission, "taro@example.jp", "x@evil.test")), "Resent-From: taro@example.jp\nDelivered-To: taro@example.jp\n", policy.Accept, ""},
		"a person's draft with the field":    {by("taro@example.jp", message(policy.Submission, "taro@example.jp", "y@evil.test")), "Delivered-To: taro@example.jp\nReceived: by mx\n", policy.Accept, ""},
		"Sieve, over submission":             {by("taro@example.jp", message(policy.Relay, "a@partner.test", "x@evil.test")), "X-Original-To: taro@example.jp\n", policy.Hold, "F1"},
		"Sieve, over submission, no rule":    {by("taro@example.jp", message(policy.Relay, "a@partner.test", "y@evil.test")), "X-Original-To: taro@example.jp\n", policy.Hold, "no forwarding rule"},
		"a bounce that comes back forwarded": {message(policy.Local, "", "y@evil.test"), "Delivered-To: taro@example.jp\n", policy.Hold, "no forwarding rule"},
	} {
		for _, phase := range []policy.Phase{policy.Learning, policy.Enforce, policy.Observe} {
			p := rules(phase)
			p.Forwarding = forwarding(false)
			p.Addresses.Envelope, p.Addresses.HeaderFrom = 0, 0
			if c.m.Header.Len() == 0 {
				fill(t, c.m, c.header)
			}
			want := c.verdict
			if want == policy.Hold && phase == policy.Observe {
				want = policy.Tell
			}
			d := p.Message(context.Background(), now, c.m)
			if d.Verdict != want || want == policy.Hold && (d.Rule != policy.RuleForward || !strings.Contains(d.Reason, c.reason)) {
				t.Errorf("%s, %s: %s %s: %s", name, phase, d.Verdict, d.Rule, d.Reason)
			}
			if strings.Contains(d.Reason, "evil") {
				t.Errorf("%s: the reason names the target: %s", name, d.Reason)
			}
		}
	}
}

// TestBeforeTheFirstScanForwardedMailWaits: what a new process does not know is no
// proof.
func TestBeforeTheFirstScanForwardedMailWaits(t *testing.T) {
	for name, c := range map[string]struct {
		m       *policy.Message
		header  string
		verdict policy.Verdict
	}{
		"no rule is known yet":       {egress("a@partner.test", "y@evil.test", "jiro@example.jp"), "", policy.Defer},
		"one of an earlier time":     {egress("a@partner.test", "x@evil.test", "taro@example.jp"), "", policy.Defer},
		"approved":                   {egress("a@partner.test", "h@partner.test", "hanako@example.jp"), "", policy.Accept},
		"excepted":                   {egress("a@partner.test", "y@evil.test", "boss@example.jp"), "", policy.Accept},
		"a copy by BCC":              {egress("jiro@example.jp", "copy@evil.test", "copy@evil.test", "NOTIFY=NEVER"), "", policy.Defer},
		"no notices wanted":          {egress("jiro@example.jp", "friend@partner.test", "friend@partner.test", "NOTIFY=NEVER"), "", policy.Accept},
		"nobody waits for an answer": {message(policy.Local, "a@partner.test", "y@evil.test"), "Delivered-To: taro@example.jp\n", policy.Hold},
		"Mailman's post":             {message(policy.Local, "list-bounces@example.jp", "y@evil.test"), "Delivered-To: list@example.jp\n", policy.Accept},
	} {
		p := rules(policy.Learning)
		p.Forwarding = forwarding(false)
		p.Forwarding.Ready = func() bool { return false }
		fill(t, c.m, c.header)
		d := p.Message(context.Background(), now, c.m)
		if d.Verdict != c.verdict || d.Verdict != policy.Accept && !strings.Contains(d.Reason, "before the first scan is over") || d.Verdict == policy.Defer && d.Reply.Code != 451 {
			t.Errorf("%s: %s %s: %s; %+v", name, d.Verdict, d.Rule, d.Reason, d.Reply)
		}
	}
}

// TestAnAccountThatSendsItsOwnMailOn: who ran sendmail(1), the kernel says.
func TestAnAccountThatSendsItsOwnMailOn(t *testing.T) {
	for uid, want := range map[int]policy.Verdict{1000: policy.Hold, 33: policy.Accept} {
		p := rules(policy.Enforce)
		p.Forwarding = forwarding(false)
		p.Finder.UserName = func(uid int) string { return map[int]string{1000: "taro", 33: "www-data"}[uid] }
		m := message(policy.Local, "taro@example.jp", "y@evil.test")
		m.UID = uid
		fill(t, m, "Delivered-To: taro@example.jp\n")
		if d := p.Message(context.Background(), now, m); d.Verdict != want {
			t.Errorf("uid %d: %s: %s", uid, d.Verdict, d.Reason)
		}
	}
}

func TestReleasedMailIsNotHeldAgain(t *testing.T) {
	p := rules(policy.Enforce)
	p.Forwarding = forwarding(true)
	if d := p.Message(context.Background(), now, egress("a@partner.test", "x@evil.test", "taro@example.jp")); d.Verdict != policy.Accept {
		t.Errorf("%s: %s", d.Verdict, d.Reason)
	}
}

func TestOneForwardedRecipientHoldsTheMessage(t *testing.T) {
	p := rules(policy.Enforce)
	p.Forwarding = forwarding(false)
	m := egress("a@partner.test", "b@partner.test", "b@partner.test")
	m.RcptTo = append(m.RcptTo, "h@partner.test", "x@evil.test")
	m.RcptOrig = append(m.RcptOrig, policy.Original{Address: "hanako@example.jp"}, policy.Original{Address: "taro@example.jp"})
	if d := p.Message(context.Background(), now, m); d.Verdict != policy.Hold {
		t.Errorf("%s: %s", d.Verdict, d.Reason)
	}
}

// noPlace is a hold queue without room.
type noPlace struct{}

func (noPlace) Full(string) bool        { return true }
func (noPlace) Take(string, int64) bool { return false }
func (noPlace) Give(string, int64)      {}

func TestNoRoomForForwardedMailBouncesNothing(t *testing.T) {
	for _, m := range []*policy.Message{egress("a@partner.test", "x@evil.test", "taro@example.jp"), message(policy.Local, "taro@example.jp", "x@evil.test")} {
		p := rules(policy.Enforce)
		p.Forwarding, p.Room = forwarding(false), noPlace{}
		if m.Role == policy.Local {
			fill(t, m, "Delivered-To: taro@example.jp\n")
		}
		if d := p.Message(context.Background(), now, m); d.Verdict != policy.Defer || d.Rule != policy.RuleHoldCap {
			t.Errorf("%s: %s %s", m.Role, d.Verdict, d.Rule)
		}
	}
}

func TestWithoutForwardingNothingIsAsked(t *testing.T) {
	if d := rules(policy.Enforce).Message(context.Background(), now, egress("a@partner.test", "x@evil.test", "taro@example.jp")); d.Verdict != policy.Accept {
		t.Errorf("%s: %s", d.Verdict, d.Reason)
	}
}

func FuzzOriginalOf(f *testing.F) {
	f.Add("ORCPT=rfc822;taro+2Btag@example.jp", "NOTIFY=NEVER")
	f.Add("orcpt=RFC822;+", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		if o := policy.OriginalOf([]string{a, b}); len(o.Address) > 500 {
			t.Errorf("%d octets", len(o.Address))
		}
	})
}

// fill adds header fields.
func fill(t *testing.T, m *policy.Message, header string) {
	t.Helper()
	for line := range strings.Lines(header) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		m.Header.Add([]byte(name), []byte(value))
	}
}
