package main

import (
	"fmt"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

func TestReleasedMailPassesOnceForEachRecipient(t *testing.T) {
	r, now := newReleasedMail(), time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	r.add(now, "<a@x>", 2)
	r.add(now, "", 5)
	for n, want := range []bool{true, true, false} {
		if got := r.take(now, "<a@x>"); got != want {
			t.Errorf("take %d: %v", n+1, got)
		}
	}
	if r.take(now, "") {
		t.Error("mail without a Message-ID passes")
	}
	r.add(now, "<b@x>", 1)
	if r.take(now.Add(releasedFor), "<b@x>") {
		t.Error("it passes for ever")
	}
}

func TestReleasedMailIsBounded(t *testing.T) {
	r, now := newReleasedMail(), time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for n := range maxReleased + 10 {
		added, first := r.add(now, fmt.Sprint(n), 1)
		if added != (n < maxReleased) || first != (n == maxReleased) {
			t.Errorf("%d: %v, said %v", n, added, first)
		}
	}
	if added, _ := r.add(now, "7", 2); !added {
		t.Error("one that is there finds no room")
	}
	if _, first := r.add(now, "one more", 1); first {
		t.Error("what is said once is said again")
	}
	if len(r.all) != maxReleased {
		t.Errorf("%d are remembered", len(r.all))
	}
	later := now.Add(releasedFor)
	if r.add(later, "new", 1); !r.take(later, "new") {
		t.Error("old ones keep new ones out")
	}
}

// TestReleasedMailPassesAfterARestart: what was released not long before is in the
// journal.
func TestReleasedMailPassesAfterARestart(t *testing.T) {
	c := stateConfig(t)
	now := time.Now()
	s := aState(t, c)
	held := func(n int, rule string, at time.Time, state journal.State) []journal.Record {
		d := journal.Decision{ID: fmt.Sprintf("%026d", n), Time: at.Add(-time.Hour), Stage: journal.StageMessage, Verdict: policy.Hold, Rule: rule, Phase: policy.Enforce, Listener: "local", Role: policy.Local,
			Account: "local_user:taro", MessageID: fmt.Sprintf("<%d@partner.test>", n), QueueID: fmt.Sprintf("A%07X", n), Recipients: 2}
		if state == journal.StateHeld {
			return []journal.Record{d}
		}
		return []journal.Record{d, journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: at, State: state}}
	}
	var all []journal.Record
	all = append(all, held(1, policy.RuleForward, now.Add(-time.Hour), journal.StateReleased)...)
	all = append(all, held(2, policy.RuleForward, now.Add(-time.Minute), journal.StateReleasing)...)
	all = append(all, held(3, policy.RuleForward, now.Add(-25*time.Hour), journal.StateReleased)...)
	all = append(all, held(4, "login-hour", now.Add(-time.Hour), journal.StateReleased)...)
	all = append(all, held(5, policy.RuleForward, now.Add(-time.Hour), journal.StateHeld)...)
	all = append(all, held(6, policy.RuleForward, now.Add(-time.Hour), journal.StateDeleted)...)
	if err := s.journal.Append(all...); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.close(nil)

	s = aState(t, c)
	defer s.close(nil)
	for n, times := range map[int]int{1: 2, 2: 2, 3: 0, 4: 0, 5: 0, 6: 0} {
		got := 0
		for s.forwarding.released.take(now, fmt.Sprintf("<%d@partner.test>", n)) {
			got++
		}
		if got != times {
			t.Errorf("message %d passes %d times, want %d", n, got, times)
		}
	}
}
