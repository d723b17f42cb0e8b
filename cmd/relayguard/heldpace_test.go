package main

import (
	"testing"
	"time"

	"relayguard/incident"
	"relayguard/mta/maillog"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// What an alias stands for is charged with the message that waits, and not once
// more when the MTA queues what was released.
func TestReleasedMailIsNotChargedForItsAliasAgain(t *testing.T) {
	s := aState(t, stateConfig(t))
	defer s.close(nil)
	now := time.Now()
	charge := limit.Charge{Key: limit.Key{Limit: "hour", Value: "login:taro@example.jp"}, Kind: limit.Volume, Counts: limit.Recipients, Windows: []limit.Window{{Count: 100, Length: time.Hour}}, Amount: 41}
	var out limit.Outcome
	if err := s.budgets.Spend(t.Context(), now, &limit.Step{Charges: []limit.Charge{charge}}, &out); err != nil || !out.Taken {
		t.Fatal(out, err)
	}
	w := policy.Waiting{ID: "d1", QueueID: "4q1", HeldAt: now, Recipients: 2, Waits: &policy.Waits{Counted: 41}}
	s.desk.Released(now, w, policy.Paid{Taken: true, Charges: []limit.Charge{charge}})
	for _, n := range []int{41, 43} {
		s.trail.Event(t.Context(), now, maillog.Event{Kind: maillog.Queued, QueueID: "4q1", Recipients: n, Time: now})
		charge.Amount = 0
		if err := s.budgets.Peek(t.Context(), now, &limit.Step{Charges: []limit.Charge{charge}}, &out); err != nil {
			t.Fatal(err)
		}
		if used := out.Uses[0].Used; used != int64(n) {
			t.Errorf("%d recipients in the queue: %d are charged", n, used)
		}
	}
}

// The daemon's incidents last as long as the bucket that stopped mail is full, or
// mail of the account waits for it.
func TestIncidentsLastAsLongAsTheirBucket(t *testing.T) {
	for per, key := range map[limit.Per]string{limit.LocalUser: "local_user:0", limit.Site: "site:shop.example.jp", limit.Server: "server"} {
		s := aState(t, stateConfig(t))
		rule := policy.LimitRule{Then: policy.Hold, Limit: limit.Limit{Name: "day", Per: []limit.Per{per}, Counts: limit.Recipients, Kind: limit.Volume, Windows: []limit.Window{{Count: 2, Length: 24 * time.Hour}}}}
		limits := policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{rule}, Store: s.budgets, Retries: s.retries, Lines: s.lines})
		p := &policy.Policy{Phase: policy.Enforce, OwnUID: 4711, Switches: s.board, Limits: limits, Finder: origin.Finder{UserName: func(int) string { return "root" }}}
		s.rules.Store(&rules{policy: p, abuses: []string{"day"}})
		now, waits := time.Now(), policy.Waiting{}
		for range 3 {
			m := &policy.Message{Role: policy.Local, Evidence: origin.NewEvidence(), RcptTo: []string{"a@example.net"}, Size: 1000}
			m.UID, m.Site, m.SiteConfidence, m.QueueID = 0, "shop.example.jp", origin.Signed, "4q1"
			d := p.Message(t.Context(), now, m)
			if d.Verdict.Stops() {
				watcher{s}.Stopped(now, m, &d)
				waits = policy.Waiting{ID: d.ID, QueueID: m.QueueID}
			}
		}
		if !s.lines.Has(waits.QueueID, waits.ID) {
			t.Fatalf("%s: nothing waits", key)
		}
		open := func(after time.Duration) []incident.Incident {
			s.book.Tick(now.Add(after))
			return s.book.Open()
		}
		if got := open(23 * time.Hour); len(got) != 1 || got[0].Account != "local_user:root" || len(got[0].Buckets) != 1 || got[0].Buckets[0] != key || !s.book.Abused("local_user:root") {
			t.Errorf("%s: while it is full: %+v", key, got)
		}
		if got := open(25 * time.Hour); len(got) != 1 {
			t.Errorf("%s: closed while mail waits", key)
		}
		s.lines.Remove(waits.QueueID, waits.ID)
		if got := open(26 * time.Hour); len(got) != 0 {
			t.Errorf("%s: open, though nothing is over", key)
		}
		s.close(nil)
	}
}
