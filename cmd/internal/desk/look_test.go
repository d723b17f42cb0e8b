package desk_test

import (
	"errors"
	"testing"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/policy"
)

func TestExplainAndDecisions(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1")
	s.hold(hanako, "volume", "B1B1B1")
	s.suspend(taro)
	for _, id := range []string{"A1A1A1", "da1a1a1"} {
		all, err := s.d.Explain(t.Context(), s.now, id)
		if err != nil || len(all) != 1 || all[0].Decision == nil || all[0].Decision.Verdict != "accept" || all[0].Suspended == nil || len(all[0].Held) != 1 || all[0].Held[0].Rule != policy.RuleSuspended {
			t.Errorf("%s: %+v, %v, want the decision, the hold and the suspension", id, all, err)
		}
	}
	if all, err := s.d.Explain(t.Context(), s.now, "B1B1B1"); err != nil || len(all) != 1 || all[0].Suspended != nil {
		t.Errorf("hers: %+v, %v, want no suspension", all, err)
	}
	if all, err := s.d.Explain(t.Context(), s.now, "C1C1C1"); err != nil || len(all) != 0 {
		t.Errorf("of nothing: %+v, %v", all, err)
	}
	all, err := s.d.Decisions(t.Context(), journal.Query{Account: hanako})
	if err != nil || len(all) != 1 || all[0].ID != "db1b1b1" || all[0].Verdict != "hold" || all[0].UID != nil {
		t.Errorf("decisions: %+v, %v", all, err)
	}
}

func TestDenyAllowAndLift(t *testing.T) {
	s := open(t)
	deny, err := s.d.Set(s.now, admin, policy.Switch{Kind: policy.Deny, Subject: policy.SubjectClient, Value: "192.0.2.7", Reason: "bot"})
	if err != nil || deny.By != "root" || !deny.Since.Equal(s.now) {
		t.Fatalf("%+v, %v", deny, err)
	}
	allow, err := s.d.Set(s.now, admin, policy.Switch{Kind: policy.Allow, Subject: policy.SubjectLocalUser, Value: "www-data", Rule: "volume", Reason: "newsletter"})
	if err != nil || allow.Value != "33" {
		t.Fatalf("%+v, %v, want the uid", allow, err)
	}
	if _, err := s.d.Set(s.now, admin, policy.Switch{Kind: policy.Deny, Subject: policy.SubjectClient, Value: "no address"}); !errors.Is(err, desk.ErrUsage) {
		t.Errorf("of no address: %v", err)
	}
	if _, err := s.d.Lift(s.now, admin, policy.Allow, deny.ID, ""); !errors.Is(err, desk.ErrNoSwitch) {
		t.Errorf("a deny lifted as an allow: %v", err)
	}
	seen := len(s.actions())
	if seen != 2 {
		t.Errorf("journaled %q, want what was done alone", s.actions())
	}
	for kind, which := range map[policy.SwitchKind]string{policy.Deny: deny.ID, policy.Allow: allow.About()} {
		if gone, err := s.d.Lift(s.now, admin, kind, which, "over"); err != nil || len(gone) != 1 {
			t.Errorf("lift %s: %+v, %v", which, gone, err)
		}
	}
	if len(s.d.Switches.All(s.now)) != 0 || len(s.actions()) != seen+2 {
		t.Errorf("left %+v, journaled %q", s.d.Switches.All(s.now), s.actions())
	}
}
