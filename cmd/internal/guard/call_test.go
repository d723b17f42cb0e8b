package guard_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// called is mail of a site that is about to be handed in.
func called(site string) *policy.Message {
	m := message("", "www@example.jp", "friend@example.net")
	m.Role, m.Submitted, m.QueueID, m.UID = policy.Local, true, "", 33
	m.Site, m.SiteConfidence = site, origin.Wrapper
	return m
}

func suspendedSites() *policy.Policy {
	p := rules(policy.Enforce)
	p.Switches = new(policy.Board)
	var all []policy.Switch
	for _, site := range []string{"shop.example.jp", "blog.example.jp"} {
		all = append(all, policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectSite, Value: site, Reason: "abused"})
	}
	p.Switches.Store(policy.NewSwitches(all))
	return p
}

func TestRefusedCallIsKeptOnceForEachSite(t *testing.T) {
	g, k := newKept(suspendedSites())
	ids := map[string]bool{}
	for range 50 {
		for _, site := range []string{"shop.example.jp", "blog.example.jp"} {
			d := g.Call(t.Context(), called(site))
			if d.Verdict != policy.Defer || !strings.HasSuffix(d.Reply.Text, "("+d.ID+")") {
				t.Fatalf("got %+v", d)
			}
			if r := k.told(t, d); r.Stage != "call" || r.Rule != policy.RuleSuspended || r.Site != site || r.Account != "local_user:uid:33" || r.QueueID != "" || r.Recipients != 1 {
				t.Errorf("record %+v", r)
			}
			ids[d.ID] = true
		}
	}
	if len(ids) != 2 || g.Counts.Called.Load() != 100 || g.Counts.Joined.Load() != 98 || g.Counts.Refused.Load() != 0 {
		t.Errorf("%d ids, %d called, %d joined", len(ids), g.Counts.Called.Load(), g.Counts.Joined.Load())
	}
	g.Tick(time.Now().Add(time.Minute))
	if n := strings.Count(strings.Join(k.calls, "\n"), "append"); n != 2 {
		t.Errorf("%d appended: %q", n, k.calls)
	}
}

func TestCallThatIsNotRefusedLeavesNothing(t *testing.T) {
	g, k := newKept(suspendedSites())
	if d := g.Call(t.Context(), called("wiki.example.jp")); d.Verdict != policy.Accept || d.ID != "" || len(k.calls) != 0 || g.Counts.Called.Load() != 0 {
		t.Errorf("%+v, %q", d, k.calls)
	}
}

func TestLateCallIsKeptAsLate(t *testing.T) {
	g, k := newKept(suspendedSites())
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if d := g.Call(late, called("shop.example.jp")); !k.told(t, d).Late || g.Counts.Called.Load() != 0 || g.Counts.Late.Load() != 1 {
		t.Errorf("%+v", d)
	}
}
