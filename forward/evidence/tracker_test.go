package evidence_test

import (
	"net/netip"
	"strings"
	"testing"

	"relayguard/forward"
	"relayguard/forward/evidence"
)

const (
	in   = "B1B3D98E50A"
	out  = "B3B4398E50C"
	sent = ", delay=0.01, delays=0/0.01/0/0, dsn=2.0.0, status=sent "
)

// arrives are the lines of a message from outside.
func arrives(id, messageID string) []string {
	return []string{
		"smtpd: " + id + ": client=mail.partner.test[192.0.2.7]",
		"cleanup: " + id + ": message-id=" + messageID,
		"qmgr: " + id + ": from=<cust@partner.test>, size=310, nrcpt=1 (queue active)",
	}
}

// leaves are the lines of a delivery outside.
func leaves(id, to, orig string) []string {
	if orig != "" {
		orig = ", orig_to=<" + orig + ">"
	}
	return []string{
		"smtp: " + id + ": to=<" + to + ">" + orig + ", relay=mx.evil.test[203.0.113.9]:25" + sent + "(250 2.0.0 Ok)",
		"qmgr: " + id + ": removed",
	}
}

func TestAliasCopyBeforeTheLineThatSaysWhose(t *testing.T) {
	x := newTrace(t, rules{{"al1@corp.test", "out1@evil.test", forward.Aliases, false}}, evidence.TrackerOptions{})
	x.say(arrives(in, "<T1@partner.test>")...)
	x.say("cleanup: " + out + ": message-id=<T1@partner.test>")
	x.say("qmgr: " + out + ": from=<cust@partner.test>, size=436, nrcpt=1 (queue active)")
	x.say(leaves(out, "out1@evil.test", "al1@corp.test")...)
	x.say("local: "+in+": to=<al1@corp.test>, relay=local"+sent+"(forwarded as "+out+")", "qmgr: "+in+": removed")
	x.done()
	x.want("al1@corp.test>out1@evil.test", out+" "+in+" al1@corp.test out1@evil.test sent forwarded as certain")
	x.unexplained()
}

func TestChainCitesEachRuleOnItsWay(t *testing.T) {
	x := newTrace(t, rules{{"v3@valias.test", "out1@evil.test", forward.Virtual, false}, {"al1@corp.test", "out1@evil.test", forward.Aliases, false}}, evidence.TrackerOptions{})
	x.say(arrives(in, "<T1@partner.test>")...)
	x.say("cleanup: " + out + ": message-id=<T1@partner.test>")
	x.say("local: "+in+": to=<al1@corp.test>, orig_to=<v3@valias.test>, relay=local"+sent+"(forwarded as "+out+")", "qmgr: "+in+": removed")
	x.say(leaves(out, "out1@evil.test", "v3@valias.test")...)
	x.done()
	want := out + " " + in + " v3@valias.test out1@evil.test sent forwarded as certain"
	x.want("v3@valias.test>out1@evil.test", want)
	x.want("al1@corp.test>out1@evil.test", want)
	sum, err := x.store.Summary(t.Context(), "al1@corp.test>out1@evil.test")
	if err != nil || sum.Mails != 1 || sum.Sure != evidence.Certain || sum.First.IsZero() || sum.First != sum.Last {
		t.Errorf("summary %+v, %v", sum, err)
	}
}

func TestDeferredThenSentIsOneMail(t *testing.T) {
	x := newTrace(t, rules{{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}}, evidence.TrackerOptions{Batch: 1})
	x.say(arrives(in, "<T1@partner.test>")...)
	const later = ", orig_to=<v1@valias.test>, relay=none, delay=9, delays=9/0/0/0, dsn=4.4.1, status=deferred (connect to x: Connection refused)"
	x.say("smtp: "+in+": to=<vout1@evil.test>"+later, "smtp: "+in+": to=<VOUT1@evil.test>"+later)
	x.want("v1@valias.test>vout1@evil.test", in+" "+in+" v1@valias.test vout1@evil.test deferred orig_to certain")
	x.say(leaves(in, "vout1@evil.test", "v1@valias.test")...)
	x.want("v1@valias.test>vout1@evil.test", in+" "+in+" v1@valias.test vout1@evil.test sent orig_to certain")
}

func TestNoRuleBehindIt(t *testing.T) {
	r := rules{}
	x := newTrace(t, r, evidence.TrackerOptions{})
	x.say(arrives(in, "<T1@partner.test>")...)
	x.say(leaves(in, "vout1@evil.test", "boss@corp.test")...)
	x.say("pickup: "+out+": uid=33 from=<www@corp.test>", "cleanup: "+out+": message-id=<T2@corp.test>")
	x.say(leaves(out, "vout1@evil.test", "boss@corp.test")...)
	x.done()
	x.unexplained("boss@corp.test>vout1@evil.test 2 1 orig_to certain")

	found := &trace{Tracker: tracker(t, x.store, rules{{"boss@corp.test", "vout1@evil.test", forward.Virtual, false}}), store: x.store, t: t}
	if n, err := found.Reconsider(t.Context()); n != 2 || err != nil {
		t.Errorf("reconsidered: %d, %v", n, err)
	}
	x.unexplained()
	if got := x.mails("boss@corp.test>vout1@evil.test"); len(got) != 2 {
		t.Errorf("mails: %q", got)
	}
}

func tracker(t *testing.T, s *evidence.Store, r rules) *evidence.Tracker {
	t.Helper()
	x, err := evidence.NewTracker(s, func() evidence.Rules { return r }, evidence.TrackerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestMailOfOurOwnIsNoEvidence(t *testing.T) {
	x := newTrace(t, rules{{"alice@corp.test", "out@evil.test", forward.Aliases, false}, {"taro@corp.test", "out@evil.test", forward.BCC, false}},
		evidence.TrackerOptions{Trusted: func(netip.Addr) bool { return false }})
	x.say("submission/smtpd: "+in+": client=x[192.0.2.1], sasl_method=PLAIN, sasl_username=taro@corp.test", "cleanup: "+in+": message-id=<a@b>",
		"qmgr: "+in+": from=<taro@corp.test>, size=310, nrcpt=2 (queue active)",
		"lmtp: "+in+": to=<alice@corp.test>, relay=mx[private/dlmtp]"+sent+"(250 2.0.0 <alice@corp.test> abcdefgh Saved)")
	x.say(leaves(in, "out@evil.test", "")...)
	// A bounce to a stranger, and one that a stranger's own mail made.
	x.say("bounce: "+in+": sender non-delivery notification: "+out, "cleanup: "+out+": message-id=<x@y>", "qmgr: "+out+": from=<>, size=1, nrcpt=1 (queue active)")
	x.say(leaves(out, "cust@partner.test", "")...)
	x.done()
	x.want("alice@corp.test>out@evil.test")
	x.want("taro@corp.test>out@evil.test")
	x.unexplained()
}

func TestBCC(t *testing.T) {
	r := rules{{"bccme@vbox.test", "bcc@evil.test", forward.BCC, false}, {"boss@corp.test", "sbcc@evil.test", forward.BCC, true}, {"*", "all@evil.test", forward.AlwaysBCC, false}}
	lmtp := func(id, to string) string {
		return "lmtp: " + id + ": to=<" + to + ">, relay=mx[private/dlmtp]" + sent + "(250 2.0.0 <" + to + "> abcdefgh Saved)"
	}
	t.Run("of a stranger", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{Trusted: func(netip.Addr) bool { return false }})
		x.say(arrives(in, "<T1@partner.test>")...)
		x.say(leaves(in, "bcc@evil.test", "")[0], lmtp(in, "bccme@vbox.test"), "qmgr: "+in+": removed")
		x.done()
		x.want("bccme@vbox.test>bcc@evil.test", in+" "+in+" bccme@vbox.test bcc@evil.test sent recipient likely")
		x.unexplained()
	})
	t.Run("as a milter knows", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{})
		x.say(arrives(in, "<T1@partner.test>")...)
		x.Seen(evidence.Passage{Time: now.Add(-11 * 3600e9), QueueID: in, RcptTo: []evidence.Recipient{{Address: "bccme@vbox.test"}}})
		x.say(leaves(in, "bcc@evil.test", "")...)
		x.done()
		x.want("bccme@vbox.test>bcc@evil.test", in+" "+in+" bccme@vbox.test bcc@evil.test sent recipient certain")
	})
	t.Run("of a sender, and always", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{})
		x.say("submission/smtpd: "+in+": client=x[192.0.2.1], sasl_method=PLAIN, sasl_username=boss", "cleanup: "+in+": message-id=<a@b>",
			"qmgr: "+in+": from=<boss@corp.test>, size=310, nrcpt=3 (queue active)")
		x.say(leaves(in, "all@evil.test", "")[0])
		x.say(leaves(in, "sbcc@evil.test", "")...)
		x.done()
		x.want("boss@corp.test>sbcc@evil.test", in+" "+in+" boss@corp.test sbcc@evil.test sent recipient possible")
		x.want("*>all@evil.test", in+" "+in+"  all@evil.test sent recipient possible")
	})
	t.Run("with no rule", func(t *testing.T) {
		x := newTrace(t, rules{}, evidence.TrackerOptions{Trusted: func(netip.Addr) bool { return false }})
		x.say(arrives(in, "<T1@partner.test>")...)
		x.say(leaves(in, "bcc@evil.test", "")[0], lmtp(in, "bccme@vbox.test"), "qmgr: "+in+": removed")
		x.done()
		x.unexplained("bccme@vbox.test>bcc@evil.test 1 1 recipient likely")
	})
}

func TestActionsOfRules(t *testing.T) {
	const behind = "; from=<cust@partner.test> to=<o@corp.test> proto=ESMTP helo=<h>"
	r := rules{{"*", "hcbcc@evil.test", forward.Checks, false}, {"accredir@vbox.test", "accredir-out@evil.test", forward.Access, false}, {"alice@corp.test", "hcbcc@evil.test", forward.Aliases, false}}
	t.Run("header BCC", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{})
		x.say(arrives(in, "<T1@partner.test>")[:2]...)
		x.say("cleanup: " + in + ": bcc: header Subject: HCBCC x from x[192.0.2.7]" + behind + ": hcbcc@evil.test")
		x.say(leaves(in, "hcbcc@evil.test", "")...)
		x.done()
		x.want("*>hcbcc@evil.test", in+" "+in+"  hcbcc@evil.test sent action certain")
		x.want("alice@corp.test>hcbcc@evil.test")
	})
	t.Run("access REDIRECT before there is a queue id", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{})
		x.say("smtpd: NOQUEUE: redirect: RCPT from x[192.0.2.7]: <accredir@vbox.test>: Recipient address triggers REDIRECT accredir-out@evil.test" + behind)
		x.say(arrives(in, "<T1@partner.test>")...)
		x.say(leaves(in, "accredir-out@evil.test", "accredir@vbox.test")...)
		x.done()
		x.want("accredir@vbox.test>accredir-out@evil.test", in+" "+in+" accredir@vbox.test accredir-out@evil.test sent orig_to certain")
	})
	t.Run("a rule that is not known", func(t *testing.T) {
		x := newTrace(t, rules{}, evidence.TrackerOptions{})
		x.say("smtpd: NOQUEUE: bcc: RCPT from x[192.0.2.7]: <a@vbox.test>: Recipient address triggers BCC b@evil.test" + behind)
		x.say(arrives(in, "<T1@partner.test>")...)
		x.say(leaves(in, "b@evil.test", "")...)
		x.done()
		x.unexplained(">b@evil.test 1 1 action certain")
	})
	t.Run("of a transaction that came to nothing", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{})
		x.say("smtpd: NOQUEUE: redirect: RCPT from x[192.0.2.7]: <accredir@vbox.test>: Recipient address triggers REDIRECT accredir-out@evil.test" + behind)
		x.say(arrives(in, "<T1@partner.test>")...)
		x.say(leaves(in, "friend@evil.test", "")...)
		x.done()
		x.want("accredir@vbox.test>accredir-out@evil.test")
		x.unexplained()
	})
}

func TestSieve(t *testing.T) {
	r := rules{{"s1@vbox.test", "svout1@evil.test", forward.Sieve, false}}
	const agent, id = "dovecot: lmtp(s1@vbox.test)<32449><COAdE8o0A2vBfgAAg+zDdQ>: sieve: msgid=", "<T26@partner.test>"
	delivered := "lmtp: " + in + ": to=<s1@vbox.test>, relay=mx[private/dlmtp]" + sent + "(250 2.0.0 <s1@vbox.test> COAdE8o0A2vBfgAAg+zDdQ Saved)"
	again := append([]string{"submission/smtpd: " + out + ": client=localhost[127.0.0.1]:57548", "cleanup: " + out + ": message-id=" + id,
		"qmgr: " + out + ": from=<cust@partner.test>, size=779, nrcpt=1 (queue active)"}, leaves(out, "svout1@evil.test", "")...)
	says := agent + id + ": redirect action: forwarded to <svout1@evil.test>"
	full := out + " " + in + " s1@vbox.test svout1@evil.test sent sieve certain"
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"Dovecot first":          {append([]string{says, delivered}, again...), full},
		"Dovecot last":           {append(append([]string{delivered}, again...), says), full},
		"delivered last":         {append(append([]string{}, again...), says, delivered), full},
		"Dovecot alone":          {[]string{says, delivered}, " " + in + " s1@vbox.test svout1@evil.test handed sieve certain"},
		"Dovecot's log not read": {append(append([]string{}, again...), delivered), out + " " + in + " s1@vbox.test svout1@evil.test sent same message likely"},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrace(t, r, evidence.TrackerOptions{Batch: 1})
			x.say(arrives(in, id)...)
			x.say(c.lines...)
			x.done()
			x.want("s1@vbox.test>svout1@evil.test", c.want)
			x.unexplained()
		})
	}
}

func TestProgramThatSendsOn(t *testing.T) {
	uid := func(local string) (int, bool) { return 1001, local == "bob" }
	r := rules{{"bob@corp.test", "piped@evil.test", forward.Procmail, false}, {"bob@corp.test", "|/usr/bin/procmail", forward.Command, false}}
	lines := func(uid string) []string {
		l := arrives(in, "<T1@partner.test>")
		l = append(l, "pickup: "+out+": uid="+uid+" from=<bob>", "cleanup: "+out+": message-id=<T1@partner.test>")
		l = append(l, leaves(out, "piped@evil.test", "")...)
		return append(l, "local: "+in+": to=<bob@corp.test>, relay=local"+sent+"(delivered to command: /usr/bin/procmail)", "qmgr: "+in+": removed")
	}
	row := out + " " + in + " bob@corp.test piped@evil.test sent same message "
	t.Run("with the account's uid", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{UID: uid})
		x.say(lines("1001")...)
		x.done()
		x.want("bob@corp.test>piped@evil.test", row+"likely")
		x.want("bob@corp.test>|/usr/bin/procmail", in+" "+in+" bob@corp.test |/usr/bin/procmail handed program certain")
	})
	t.Run("with another's", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{UID: uid})
		x.say(lines("1002")...)
		x.done()
		x.want("bob@corp.test>piped@evil.test", row+"possible")
	})
	t.Run("with no rule", func(t *testing.T) {
		x := newTrace(t, rules{}, evidence.TrackerOptions{UID: uid})
		x.say(lines("1001")...)
		x.done()
		x.unexplained("bob@corp.test>piped@evil.test 1 1 same message possible")
	})
}

// A Message-ID alone binds nothing.
func TestMessageIDsThatOthersChose(t *testing.T) {
	r := rules{{"bob@corp.test", "piped@evil.test", forward.Procmail, false}}
	first := append(arrives(in, "<T1@partner.test>"), "local: "+in+": to=<bob@corp.test>, relay=local"+sent+"(delivered to command: /usr/bin/procmail)", "qmgr: "+in+": removed")
	for name, second := range map[string][]string{
		"from outside again":     append(arrives(out, "<T1@partner.test>"), leaves(out, "piped@evil.test", "")...),
		"with AUTH from outside": append([]string{"smtpd: " + out + ": client=x[192.0.2.1], sasl_method=PLAIN, sasl_username=bob", "cleanup: " + out + ": message-id=<T1@partner.test>"}, leaves(out, "piped@evil.test", "")...),
		"to somebody else": append([]string{"pickup: " + out + ": uid=5 from=<x>", "cleanup: " + out + ": message-id=<T2@partner.test>"},
			leaves(out, "piped@evil.test", "")...),
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrace(t, r, evidence.TrackerOptions{})
			x.say(first...)
			x.say(second...)
			x.done()
			x.want("bob@corp.test>piped@evil.test")
			x.unexplained()
		})
	}
	t.Run("long after", func(t *testing.T) {
		x := newTrace(t, r, evidence.TrackerOptions{})
		x.say(first...)
		x.n += 300
		x.say("pickup: "+out+": uid=5 from=<x>", "cleanup: "+out+": message-id=<T1@partner.test>")
		x.say(leaves(out, "piped@evil.test", "")...)
		x.done()
		x.want("bob@corp.test>piped@evil.test")
	})
	t.Run("one mail sent to two by one", func(t *testing.T) {
		x := newTrace(t, rules{}, evidence.TrackerOptions{})
		x.say("pickup: "+in+": uid=33 from=<www@corp.test>", "cleanup: "+in+": message-id=<a@corp.test>", "qmgr: "+in+": from=<www@corp.test>, size=1, nrcpt=1 (queue active)",
			"lmtp: "+in+": to=<a@vbox.test>, relay=mx[private/dlmtp]"+sent+"(250 2.0.0 <a@vbox.test> abcdefgh Saved)",
			"pickup: "+out+": uid=33 from=<www@corp.test>", "cleanup: "+out+": message-id=<a@corp.test>", "qmgr: "+out+": from=<www@corp.test>, size=1, nrcpt=1 (queue active)")
		x.say(leaves(out, "friend@evil.test", "")...)
		x.done()
		x.unexplained()
	})
}

func TestContentFilterIsOneMail(t *testing.T) {
	r := rules{{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}}
	for name, c := range map[string]struct{ client, reply string }{
		"that names the queue id": {"client=localhost[127.0.0.1], orig_queue_id=" + in + ", orig_client=x[192.0.2.7]", "250 2.0.0 Ok"},
		"that tells the new one":  {"client=localhost[127.0.0.1]", "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as " + out},
	} {
		t.Run(name, func(t *testing.T) {
			x := newTrace(t, r, evidence.TrackerOptions{Batch: 1})
			x.say(arrives(in, "<T1@partner.test>")...)
			x.say("smtpd: "+out+": "+c.client, "cleanup: "+out+": message-id=<T1@partner.test>", "qmgr: "+out+": from=<cust@partner.test>, size=1, nrcpt=1 (queue active)")
			x.say("smtp: "+in+": to=<vout1@evil.test>, orig_to=<v1@valias.test>, relay=127.0.0.1[127.0.0.1]:10024"+sent+"("+c.reply+")", "qmgr: "+in+": removed")
			x.say("smtp: " + out + ": to=<vout1@evil.test>, relay=mx.evil.test[203.0.113.9]:25, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (host said: 550 no)")
			x.done()
			x.want("v1@valias.test>vout1@evil.test", out+" "+in+" v1@valias.test vout1@evil.test bounced orig_to certain")
			x.unexplained()
		})
	}
}

func TestRequeuedKeepsItsOrigin(t *testing.T) {
	x := newTrace(t, rules{{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}}, evidence.TrackerOptions{})
	x.say(arrives(in, "<T1@partner.test>")...)
	x.say("postsuper: "+in+": requeued", "pickup: "+out+": uid=102 from=<cust@partner.test> orig_id="+in, "cleanup: "+out+": message-id=<T1@partner.test>")
	x.say(leaves(out, "vout1@evil.test", "v1@valias.test")...)
	x.done()
	x.want("v1@valias.test>vout1@evil.test", out+" "+in+" v1@valias.test vout1@evil.test sent orig_to certain")
}

func TestQueueIDsComeBack(t *testing.T) {
	x := newTrace(t, rules{{"v1@valias.test", "vout1@evil.test", forward.Virtual, false}}, evidence.TrackerOptions{})
	for range 3 {
		for _, l := range append(arrives(in, "<T1@partner.test>"), leaves(in, "vout1@evil.test", "v1@valias.test")...) {
			program, text, _ := strings.Cut(l, ": ")
			x.say("Nov 22 12:00:01 mx postfix/" + program + "[1]: " + text) // within a second
		}
	}
	x.done()
	if got := x.mails("v1@valias.test>vout1@evil.test"); len(got) != 3 {
		t.Errorf("%d mails: %q", len(got), got)
	}
}
