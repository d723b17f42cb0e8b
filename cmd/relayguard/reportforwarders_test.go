package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/forward/evidence"
	"relayguard/rbl"
)

// oneRule is all that explains forwarded mail here.
type oneRule struct{ owner, target string }

func (r oneRule) Match(orig, rcpt string) (string, bool) {
	return "rule1", strings.EqualFold(orig, r.owner) && strings.EqualFold(rcpt, r.target)
}

func (r oneRule) Inside(addr string) bool { return strings.HasSuffix(addr, "@corp.test") }

func (r oneRule) ByTarget(rcpt string) []string {
	if strings.EqualFold(rcpt, r.target) {
		return []string{"rule1"}
	}
	return nil
}

// A mailbox that forwards spam to outside is a suspect like any account; what was
// forwarded on the days before is its usual.
func TestReportSuspectsWhoForwards(t *testing.T) {
	s := newReportScene(t)
	store, err := evidence.Open(t.Context(), filepath.Join(t.TempDir(), "evidence.db"), evidence.Options{Now: func() time.Time { return s.now }})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	tracker, err := evidence.NewTracker(store, func() evidence.Rules { return oneRule{"boss@corp.test", "x@evil.test"} }, evidence.TrackerOptions{})
	must(t, err)
	first := s.ago(4 * time.Hour)
	var log strings.Builder
	n := 0
	forwarded := func(at time.Time, mails int) {
		for i := range mails {
			n++
			id := fmt.Sprintf("%010X", 0xA000000000+n)
			for _, line := range []string{"cleanup[1]: " + id + ": message-id=<" + id + "@partner.test>", "qmgr[1]: " + id + ": from=<x@partner.test>, size=310, nrcpt=1 (queue active)",
				"smtp[1]: " + id + ": to=<x@evil.test>, orig_to=<boss@corp.test>, relay=mx.evil.test[203.0.113.9]:25, delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent (250 2.0.0 Ok)", "qmgr[1]: " + id + ": removed"} {
				fmt.Fprintf(&log, "%s mx postfix/%s\n", at.Add(time.Duration(i)*time.Second).Format("2006-01-02T15:04:05.000000-07:00"), line)
			}
		}
	}
	forwarded(first.Add(-100*time.Hour), 14)
	forwarded(first.Add(-2*time.Hour), 500)
	path := filepath.Join(t.TempDir(), "mail.log")
	must(t, os.WriteFile(path, []byte(log.String()), 0o600))
	if lines, err := tracker.Read(t.Context(), path, time.Time{}, s.now.Location()); err != nil || lines == 0 {
		t.Fatalf("%d lines, %v", lines, err)
	}
	for day := range 10 {
		s.sent(first.Add(-time.Duration(day)*24*time.Hour-2*time.Hour), "login:taro@example.jp", 50, nil)
	}
	s.sources.evidence = store
	s.listed(first, isListed(ourAddr, "bl.example", hit(2, rbl.High, rbl.ScopeAddress)))
	l := s.report().Listings[0]
	if len(l.Suspects) != 1 {
		t.Fatalf("%+v", l.Suspects)
	}
	if x := l.Suspects[0]; x.Kind != "forward" || x.Name != "boss@corp.test" || x.Recipients != 500 || x.Usual != 1 || x.FirstTime != -1 || x.Command != "" || x.Tightened != "" {
		t.Errorf("%+v", x)
	}
}
