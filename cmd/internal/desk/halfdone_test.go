package desk_test

import (
	"slices"
	"testing"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
)

// The journal said "deleted" of mail that a delete, cut off, had not yet put on hold,
// and that went out.
func TestDeleteCutOffBeforeItHeldIsEnded(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1", "A2A2A2", "A3A3A3", "A4A4A4", "A5A5A5")
	s.mta.unsure = map[string]bool{"A1A1A1": false, "A2A2A2": false, "A3A3A3": false, "A4A4A4": true, "A5A5A5": false}
	if step, _ := s.actOnQueue(desk.QueueOrder{Verb: "delete", Reason: "abused", Filter: desk.QueueFilter{Account: taro}}); step.Counts["failed"] != 5 {
		t.Fatalf("got %+v", step)
	}
	s.mta.unsure = nil
	s.mta.files[1].Queue = "hold" // so far it had come with A2A2A2
	s.mta.remove("A3A3A3")
	another := file("A3A3A3", s.now.Add(-1e9)) // another message's id by now
	another.Queue, another.Sender = "active", "hanako@example.jp"
	s.mta.put(another)
	s.mta.miss["A5A5A5"] = 2 // of the first look, which goes through the queue twice
	s.reconcile()
	s.wantIn("", "A1A1A1", "A2A2A2")
	s.wantIn("active", "A3A3A3")
	s.wantState(journal.StateDeleted, "A1A1A1", "A2A2A2")
	s.reconcile()
	s.wantIn("", "A5A5A5")
	s.wantState(journal.StateDeleted, "A4A4A4", "A5A5A5")
	s.wantIn("active", "A3A3A3")
	slices.Sort(s.mta.grace)
	if want := []string{"A1A1A1", "A2A2A2", "A4A4A4", "A5A5A5"}; !slices.Equal(s.mta.grace, want) {
		t.Errorf("copies: %q, want %q", s.mta.grace, want)
	}
	if h := s.entries("A1A1A1")[0]; h.ChangedBy != admin.Name {
		t.Errorf("deleted by %q, want by who asked", h.ChangedBy)
	}
	s.wantRoom(0)
	s.reconcile()
	if len(s.mta.grace) != 4 {
		t.Errorf("deleted twice: %q", s.mta.grace)
	}
}
