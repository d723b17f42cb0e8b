package main

import (
	"fmt"
	"testing"
	"time"

	"relayguard/incident"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// sharedWebServer has www-data be an account as which many sites send.
func sharedWebServer(s *state) {
	s.rules.Store(&rules{abuses: []string{"plugin-first-time"}, policy: &policy.Policy{Limits: policy.NewLimits(policy.LimitsOptions{
		Phase: policy.Enforce, Store: s.budgets, Retries: s.retries, SharedUIDs: []int{33}, SharedUsers: []string{"www-data"}})}})
}

// After a start what is held counts for those for whom it did before.
func TestHeldMailCountsForItsSiteAfterAStart(t *testing.T) {
	c := stateConfig(t)
	c.Hold.OriginMessages = 2
	s := aState(t, c)
	now := time.Now()
	hold := func(n int, account, site, template string) {
		d := journal.Decision{ID: fmt.Sprint("d", n), Time: now, Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "hour", Account: account, QueueID: fmt.Sprint("Q", n), Size: 1000, Recipients: 1, UID: 33, Site: site, Template: template}
		if err := s.journal.Append(d); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		hold(10+i, "local_user:www-data", "shop.example.jp", "")
		hold(20+i, "local_user:www-data@web3", "", "t1")
		hold(30+i, "node:web3", "", "t2")
		hold(40+i, "local_user:site12", "far.example.jp", "t3")
	}
	s.close(nil)

	s = aState(t, c)
	defer s.close(nil)
	sharedWebServer(s)
	s.seedRoom(t.Context())
	if got := s.room.Totals(); got.Messages != 8 || got.Bytes != 8000 {
		t.Errorf("%+v, want 8 messages", got)
	}
	for name, want := range map[string]bool{"site:shop.example.jp": true, "template:t1": true, "template:t2": true, "local_user:site12": true,
		"local_user:www-data": false, "node:web3": false, "site:far.example.jp": false, "site:blog.example.jp": false} {
		if got := s.room.Full(name); got != want {
			t.Errorf("%s is full: %t, want %t", name, got, want)
		}
	}
}

// The incident of one site stops what waits of that site, and of an account that is
// one customer's all that waits.
func TestAbuseStopsWhatWaitsOfTheSameSite(t *testing.T) {
	s := aState(t, stateConfig(t))
	defer s.close(nil)
	sharedWebServer(s)
	waits := func(uid int, user, site string) *policy.Waits {
		w := &policy.Waits{Charges: []policy.WaitCharge{{Limit: "site-volume", Value: "site:" + site}}}
		w.Origin = origin.Origin{UID: uid, NodeUID: origin.NoUID, LocalUser: origin.Key{Value: user, Confidence: origin.Kernel}, Site: origin.Key{Value: site, Confidence: origin.Signed}}
		w.Keys = []limit.Key{{Limit: "site-volume", Value: "site:" + site}}
		return w
	}
	for _, account := range []string{"local_user:www-data", "local_user:site12"} {
		s.book.Observe(time.Now(), incident.Stop{Origin: "plugin:share@shop.example.jp", Account: account, Cause: "plugin-first-time", Verdict: policy.Hold, Recipients: 1, ID: "d1",
			Buckets: []string{"plugin:share@shop.example.jp"}, Where: incident.Where{Site: "shop.example.jp", Plugin: "share"}})
	}
	for _, c := range []struct {
		waits *policy.Waits
		want  bool
	}{
		{waits(33, "www-data", "shop.example.jp"), true},
		{waits(33, "www-data", "blog.example.jp"), false},
		{waits(1012, "site12", "blog.example.jp"), true}, // all of them are one customer's
		{waits(1013, "site13", "blog.example.jp"), false},
	} {
		if got := s.desk.Abused(c.waits); got != c.want {
			t.Errorf("%s of %s: %t, want %t", c.waits.Origin.Site.Value, c.waits.Origin.Name(), got, c.want)
		}
	}
}
