package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/limit/limittest"
	"relayguard/policy/origin"
)

// What an abuse limit stops at a relay's share, while Redis is away, is no abuse:
// nothing is shut, and paced release goes on. What it shut is, until the account
// is resumed, whosever name the bucket has.
func TestOnlyWhatIsShutIsAbuse(t *testing.T) {
	s := limitedState(t, policy.Enforce)
	s.rules.Load().abuses = []string{"login-volume"}
	const site = "site:shop.example.jp"
	stop := policy.Decision{Verdict: policy.Hold, Rule: "login-volume", Origin: origin.Origin{UID: origin.NoUID, Login: origin.Key{Value: "taro@example.jp", Confidence: origin.Kernel}},
		Findings: []policy.Finding{{Rule: "login-volume", Verdict: policy.Hold}}, Counters: []policy.Counter{{Limit: "login-volume", Key: site, Kind: "abuse", Over: true}}}
	now := time.Now()
	observe := func(d policy.Decision) bool {
		for range 20 { // more than it takes to be an incident
			watcher{s}.Stopped(now, &policy.Message{RcptTo: []string{"x@example.net"}}, &d)
		}
		return s.book.Abused("login:taro@example.jp")
	}
	waits := stop
	waits.Waits = &policy.Waits{Keys: []limit.Key{{Limit: "login-volume", Value: site}}, Origin: stop.Origin}
	if observe(waits) {
		t.Error("what waits for its share is taken for abuse")
	}
	if !observe(stop) {
		t.Fatal("what is shut is no abuse")
	}
	c := limit.Charge{Key: limit.Key{Limit: "login-volume", Value: site}, Kind: limit.Abuse, Windows: []limit.Window{{Count: 1, Length: time.Hour}}, Amount: 2}
	if out, err := limittest.Spend(t.Context(), s.budgets, now, []limit.Charge{c}); err != nil || !out.Latched[0] {
		t.Fatal(out, err)
	}
	r, err := s.desk.Resume(t.Context(), now, byPeer(control.Peer{Name: "root"}), desk.Resumption{Account: "taro@example.jp", Cause: "mended"})
	if err != nil || !slices.Equal(r.Opened, []string{"login-volume"}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// A key that cannot be read for a while is not written over: with another one
// everybody would be written to for the first time.
func TestKeyThatCannotBeReadIsKept(t *testing.T) {
	c := stateConfig(t)
	path := filepath.Join(filepath.Dir(c.Journal.Directory), "items.key")
	if err := os.Mkdir(path, 0o700); err != nil { // reading it fails, and so it does for root
		t.Fatal(err)
	}
	if _, err := openItems(c); err == nil {
		t.Error("no error")
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		t.Errorf("it was replaced: %v", err)
	}
	if _, err := os.Stat(path + ".new"); err == nil {
		t.Error("another key was written")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	a, err := openItems(c)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := openItems(c); err != nil || a.of("x@example.net") != b.of("X@example.net") {
		t.Errorf("another key after a restart: %v", err)
	}
}
