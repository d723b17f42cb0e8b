package main

import (
	"testing"
	"time"

	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/forward/ledger"
)

func TestSameHop(t *testing.T) {
	for _, c := range []struct {
		hop, relay string
		same       bool
	}{
		{"smtp:[mx.evil.test]:25", "mx.evil.test[192.0.2.1]:25", true},
		{"[mx.evil.test]:2525", "mx.evil.test[192.0.2.1]:2525", true},
		{"smtp:[192.0.2.1]:25", "unknown[192.0.2.1]:25", true},
		{"192.0.2.1", "mx.evil.test[192.0.2.1]:25", true},
		{"smtp:mx.evil.test", "MX.evil.test[192.0.2.1]:25", true},
		{"relay:mx.evil.test:26", "mx.evil.test[192.0.2.1]:26", true},
		{"smtp:[mx.corp.test]", "mx.evil.test[192.0.2.1]:25", false},
		{"smtp:", "mx.evil.test[192.0.2.1]:25", false},
		{"", "mx.evil.test[192.0.2.1]:25", false},
		{"smtp:[mx.evil.test]", "none", false},
		{"lmtp:unix:private/dovecot-lmtp", "mx.corp.test[private/dovecot-lmtp]", false},
	} {
		if got := sameHop(c.hop, c.relay); got != c.same {
			t.Errorf("%q by %q: %v", c.hop, c.relay, got)
		}
	}
}

func TestRulesOnTheWire(t *testing.T) {
	entry := func(owner string, m forward.Mechanism, target string, v forward.Verdict) ledger.Entry {
		f := forward.Finding{Owner: owner, Mechanism: m, Target: target, Verdict: v, Mode: forward.Redirect, Chain: []string{owner}}
		f.ID = forward.FindingID(owner, m, target, f.Mode)
		return ledger.Entry{Finding: f}
	}
	generic := entry("alice@corp.test", forward.Generic, "x@evil.test", forward.Outside)
	hop := entry("@corp.test", forward.Transport, "smtp:[mx.evil.test]:25", forward.Outside)
	var w wireRules
	w.learn([]ledger.Entry{generic, hop, entry("bob@corp.test", forward.Generic, "bob@corp.test", forward.Inside), entry("*", forward.Virtual, "x@evil.test", forward.Outside)})
	for _, c := range []struct{ rcpt, relay, id, target string }{
		{"Alice@corp.test", "mx.partner.test[192.0.2.9]:25", generic.ID, "x@evil.test"},
		{"carol@corp.test", "mx.evil.test[192.0.2.1]:25", hop.ID, "carol@corp.test"},
		{"carol@corp.test", "mx.partner.test[192.0.2.9]:25", "", ""},
		{"bob@corp.test", "mx.partner.test[192.0.2.9]:25", "", ""},
	} {
		if id, target, ok := w.find(c.rcpt, c.relay); id != c.id || target != c.target || ok != (c.id != "") {
			t.Errorf("%s by %s: %q %q %v", c.rcpt, c.relay, id, target, ok)
		}
	}
}

func TestTrafficWithoutARuleIsAFinding(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	f := trafficFinding(&evidence.Flow{OrigTo: "Carol@corp.test", RcptTo: "x@Evil.test", First: at, Last: at, Mails: 3, How: evidence.ByOrigTo, Sure: evidence.Certain, QueueID: "4A"})
	if f.Owner != "carol@corp.test" || f.Mechanism != forward.Traffic || f.Verdict != forward.Outside || f.Target != "x@Evil.test" || !f.Leaves() || !f.Direct() {
		t.Errorf("%+v", f)
	}
	again := trafficFinding(&evidence.Flow{OrigTo: "carol@corp.test", RcptTo: "x@evil.test", Mails: 9, How: evidence.BySieve, Sure: evidence.Likely})
	if again.ID != f.ID {
		t.Error("more of the same is another finding")
	}
	if none := trafficFinding(&evidence.Flow{RcptTo: "x@evil.test"}); none.Owner != forward.Everybody {
		t.Errorf("owner %q", none.Owner)
	}
}
