package desk_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/policy"
)

func TestOneMissClosesNothing(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1", "A2A2A2")
	s.reconcile()
	s.mta.remove("A1A1A1")
	s.mta.miss["A2A2A2"] = 1
	s.reconcile()
	s.wantState(journal.StateHeld, "A1A1A1", "A2A2A2")
	s.wantRoom(2)
	s.reconcile()
	s.wantState(journal.StateGone, "A1A1A1")
	s.wantState(journal.StateHeld, "A2A2A2")
	s.wantRoom(1)
	if h := s.entries("A1A1A1")[0]; h.ChangedBy != "relayguard" || !strings.Contains(h.ChangeReason, "no longer in the hold queue") {
		t.Errorf("entry: %+v, want why it was closed", h)
	}
	// The two misses must follow each other.
	for range 3 {
		s.mta.miss["A2A2A2"] = 1
		s.reconcile()
		s.reconcile()
	}
	s.wantState(journal.StateHeld, "A2A2A2")
}

func TestPartialLookClosesNothing(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.remove("A1A1A1")
	s.mta.skipped = 2
	for range 3 {
		s.reconcile()
	}
	s.wantState(journal.StateHeld, "A1A1A1")
	s.wantRoom(1)
	s.mta.skipped = 0
	s.reconcile()
	s.mta.skipped = 1
	s.reconcile()
	s.wantState(journal.StateHeld, "A1A1A1")
	s.mta.skipped = 0
	s.reconcile()
	s.wantState(journal.StateGone, "A1A1A1")
	s.wantRoom(0)
}

func TestClosedTooEarlyIsReopened(t *testing.T) {
	for _, known := range []bool{true, false} { // its arrival
		s := open(t)
		s.hold(taro, "volume", "A1A1A1")
		if known {
			s.reconcile()
		}
		s.mta.miss["A1A1A1"] = 2
		s.reconcile()
		s.reconcile()
		s.wantState(journal.StateGone, "A1A1A1")
		s.reconcile()
		s.wantState(journal.StateHeld, "A1A1A1")
		s.wantRoom(1)
		all := s.entries("A1A1A1")
		if len(all) != 1 || all[0].Account != taro || all[0].Rule != "volume" || all[0].DecisionID != "da1a1a1" || all[0].Arrival.IsZero() {
			t.Errorf("arrival known %t: %+v, want the one entry as it was", known, all)
		}
		if n, _ := s.d.Looked(); n != 0 {
			t.Errorf("arrival known %t: our message counts as foreign", known)
		}
	}
}

// The id of a message that left is used again by somebody else's.
func TestAnotherMessageIsNotReopened(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.reconcile()
	s.mta.remove("A1A1A1")
	s.mta.put(file("A1A1A1", s.start.Add(20*time.Minute)))
	for range 3 {
		s.reconcile()
	}
	s.wantState(journal.StateGone, "A1A1A1")
	s.wantRoom(0)
	if n, _ := s.d.Looked(); n != 1 {
		t.Errorf("%d foreign, want the other's", n)
	}
}

func TestYoungHoldsAreLeft(t *testing.T) {
	s := open(t)
	s.decide(policy.Hold, taro, "volume", "A1A1A1", s.now.Add(-10*time.Second))
	for i := range 4 {
		if err := s.d.Reconcile(t.Context(), s.now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	s.wantState(journal.StateHeld, "A1A1A1")
	s.wantRoom(1)
	s.reconcile()
	s.reconcile()
	s.wantState(journal.StateGone, "A1A1A1")
}

func TestArrivalIsLearnt(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	if h := s.entries("A1A1A1")[0]; !h.Arrival.IsZero() {
		t.Fatalf("arrival %v before anybody looked", h.Arrival)
	}
	s.reconcile()
	if h := s.entries("A1A1A1")[0]; !h.Arrival.Equal(s.start.Truncate(time.Second)) || h.State != journal.StateHeld {
		t.Errorf("%+v, want the queue's arrival", h)
	}
	changed := s.entries("A1A1A1")[0].Changed
	s.reconcile()
	if h := s.entries("A1A1A1")[0]; !h.Changed.Equal(changed) {
		t.Error("it is journaled again with every look")
	}
}

func TestNothingIsConcludedFromAJournalThatIsBehind(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.put(file("E1E1E1", s.start))
	s.d.HeldByMilter("E1E1E1", s.start)
	s.mta.remove("A1A1A1")
	s.d.Room.Add(hanako, 1000) // what only a reset would take away
	for i, fault := range []func(error){func(err error) { s.journal.set(err, nil, nil) }, func(err error) { s.journal.set(nil, nil, err) }} {
		fault(errors.New("the database takes no rows"))
		for range 3 {
			s.now = s.now.Add(5 * time.Minute)
			if err := s.d.Reconcile(t.Context(), s.now); err == nil {
				t.Error("reconciled all the same")
			}
		}
		s.wantState(journal.StateHeld, "A1A1A1")
		s.wantState("", "E1E1E1")
		s.wantRoom(2)
		if _, problem := s.d.Looked(); !strings.Contains(problem, "the database takes no rows") {
			t.Errorf("case %d: Looked says %q", i, problem)
		}
	}
	s.journal.set(nil, nil, nil)
	s.reconcile()
	if _, problem := s.d.Looked(); problem != "" {
		t.Errorf("mended, and Looked says %q", problem)
	}
	s.reconcile()
	s.wantState(journal.StateGone, "A1A1A1")
	s.wantState(journal.StateHeld, "E1E1E1")
	s.wantRoom(1)
}

func TestAQueueThatCannotBeReadClosesNothing(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.after["list"] = func() error { return errors.New("postqueue: killed") } // after part of it
	s.mta.remove("A1A1A1")
	for range 3 {
		s.now = s.now.Add(time.Minute)
		if err := s.d.Reconcile(t.Context(), s.now); err == nil {
			t.Error("reconciled all the same")
		}
	}
	s.wantState(journal.StateHeld, "A1A1A1")
	if _, problem := s.d.Looked(); !strings.Contains(problem, "killed") {
		t.Errorf("Looked says %q", problem)
	}
}

func TestForeignHoldsAreCountedOnly(t *testing.T) {
	s := open(t)
	for i := range 3 {
		s.mta.put(file(fmt.Sprintf("F%05X", i), s.start))
	}
	for range 3 {
		s.reconcile()
	}
	if n, problem := s.d.Looked(); n != 3 || problem != "" {
		t.Errorf("Looked says %d, %q, want 3", n, problem)
	}
	s.wantState("", "F00000", "F00001", "F00002")
	s.wantIn("hold", "F00000", "F00001", "F00002")
	s.wantRoom(0)
	if did := s.mta.did(); len(did) != 0 {
		t.Errorf("the MTA did %q", did)
	}
}

// What a milter held and the journal knows nothing of was ours, as far as one
// can tell.
func TestHeldByAMilterIsAdopted(t *testing.T) {
	s := open(t)
	at := s.start.Add(time.Second)
	s.mta.put(file("E1E1E1", s.start))
	s.d.HeldByMilter("E1E1E1", at)
	if err := s.d.Reconcile(t.Context(), at.Add(59*time.Second)); err != nil {
		t.Fatal(err)
	}
	s.wantState("", "E1E1E1") // its entry may be on its way
	if err := s.d.Reconcile(t.Context(), at.Add(61*time.Second)); err != nil {
		t.Fatal(err)
	}
	s.wantState(journal.StateHeld, "E1E1E1")
	if h := s.entries("E1E1E1")[0]; h.Account != "unknown" || h.Rule != "" || h.DecisionID != "" || !strings.HasPrefix(h.Reason, "lost: ") || h.Size != 1000 || h.Recipients != 1 {
		t.Errorf("entry: %+v", h)
	}
	s.wantRoom(1)
	s.reconcile()
	if all := s.entries("E1E1E1"); len(all) != 1 {
		t.Errorf("%d entries, want one", len(all))
	}
}

// Another milter held what we had let pass.
func TestAnotherMiltersHoldStaysForeign(t *testing.T) {
	s := open(t)
	s.pass(taro, "hold", "A1A1A1")
	s.d.HeldByMilter("A1A1A1", s.start.Add(time.Second))
	// The decision about an earlier message with that id says nothing.
	s.decide(policy.Accept, taro, "", "E1E1E1", s.start.Add(-48*time.Hour))
	s.mta.put(file("E1E1E1", s.start))
	s.d.HeldByMilter("E1E1E1", s.start.Add(time.Second))
	// A line about an earlier message neither.
	s.mta.put(file("F1F1F1", s.start))
	s.d.HeldByMilter("F1F1F1", s.start.Add(-time.Hour))
	for range 3 {
		s.reconcile()
	}
	s.wantState("", "A1A1A1", "F1F1F1")
	s.wantState(journal.StateHeld, "E1E1E1")
	if n, _ := s.d.Looked(); n != 2 {
		t.Errorf("%d foreign, want 2", n)
	}
}

// Review 2, finding 17: a new id that is told of before the release has come to
// its end would be journaled with the state of before, which the journal ignores.
func TestRequeuedWhileItIsReleasedIsFollowed(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.after["release"] = func() error {
		s.d.Requeued("A1A1A1", "A9A9A9", s.now)
		s.journal.set(nil, nil, errors.New("asked too soon"))
		s.d.Expire(t.Context(), s.now)
		s.journal.set(nil, nil, nil)
		return nil
	}
	if _, err := release(s.d, t.Context(), s.now, admin, order("A1A1A1")); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.log.String(), "asked too soon") {
		t.Error("the state of the hold is read in the middle of its release")
	}
	s.d.Expire(t.Context(), s.now)
	if h := s.entries("A1A1A1")[0]; h.NewQueueID != "A9A9A9" || h.State != journal.StateReleased {
		t.Errorf("got %+v", h)
	}
}

func TestRequeuedIsFollowedByExpire(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1", "A2A2A2")
	s.mta.after["release"] = func() error { return context.Canceled } // so nobody heard of a new id
	if _, err := release(s.d, t.Context(), s.now, admin, order("A1A1A1")); err == nil {
		t.Fatal("no error")
	}
	s.mta.after = nil
	if _, err := deleteHeld(s.d, t.Context(), s.now, admin, order("A2A2A2")); err != nil {
		t.Fatal(err)
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	s.mta.before["list"] = func() error { close(entered); <-leave; return nil }
	busy := make(chan error)
	go func() { busy <- s.d.Reconcile(context.Background(), s.now) }()
	<-entered
	for range 20_000 {
		s.d.Requeued("A1A1A1", "A9A9A9", s.now) // does not wait for the look that is under way
	}
	s.d.Requeued("A2A2A2", "A8A8A8", s.now)
	s.d.Expire(t.Context(), s.now) // nor does it, and follows later
	close(leave)
	if err := <-busy; err != nil {
		t.Error(err)
	}
	s.journal.set(errors.New("slow"), nil, errors.New("away"))
	s.d.Expire(t.Context(), s.now) // cannot journal it yet
	s.journal.set(nil, nil, nil)
	s.d.Expire(t.Context(), s.now)
	if id := s.entries("A1A1A1")[0].NewQueueID; id != "A9A9A9" {
		t.Errorf("new id %q, want A9A9A9", id)
	}
	if h := s.entries("A2A2A2")[0]; h.NewQueueID != "" || h.State != journal.StateDeleted {
		t.Errorf("deleted mail has another id: %+v", h)
	}
}

// What the mail path takes room for while a look goes on is in neither queue nor
// journal yet, or in both; either way it counts once.
func TestLookKeepsRoomOfWhatIsHeldMeanwhile(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.d.Room.Give(taro, 1000) // the look is to find it
	at := time.Now().Add(time.Hour)
	s.mta.before["list"] = func() error {
		s.d.Room.Take(hanako, 1000) // judged, and not yet journaled
		s.d.Room.Take(hanako, 1000)
		s.decide(policy.Hold, hanako, "volume", "B1B1B1", at)
		s.d.Room.Take(hanako, 1000)
		s.d.Room.Give(hanako, 1000) // it was too late, and is not held
		delete(s.mta.before, "list")
		return nil
	}
	s.reconcile()
	s.wantRoom(3)
	if err := s.d.Reconcile(t.Context(), at.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	s.wantRoom(2) // the one that was never journaled does not stay for ever
}

// What a suspension holds while a look goes on is counted by it.
func TestLookCountsWhatASuspensionHeldMeanwhile(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1")
	s.mta.before["list"] = func() error {
		s.mta.set(func() { delete(s.mta.before, "list") })
		_, err := s.d.Suspend(t.Context(), s.now.Add(time.Second), admin, desk.Suspension{Account: taro, Reason: "stolen"})
		return err
	}
	s.reconcile()
	s.wantRoom(1)
}

// A suspension does not wait until a release of a large queue has looked at it.
func TestReleaseLooksOnceAndKeepsNobodyWaiting(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.pass(hanako, "deferred", "B1B1B1")
	s.mta.before["list"] = func() error {
		s.mta.set(func() { delete(s.mta.before, "list") })
		out, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: hanako, Reason: "stolen"})
		if out.Held != 1 {
			t.Errorf("suspended meanwhile: %+v", out)
		}
		return err
	}
	r, err := release(s.d, t.Context(), s.now, admin, order("A1A1A1"))
	if err != nil || r.Counts["done"] != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// What somebody took out of the queue, and somebody else put on hold later, is not the
// guard's.
func TestHoldThatAnotherMakesLaterIsNotReopened(t *testing.T) {
	for wait, want := range map[time.Duration]journal.State{5 * time.Minute: journal.StateHeld, time.Hour: journal.StateGone} {
		s := open(t)
		s.hold(taro, "volume", "A1A1A1")
		s.mta.remove("A1A1A1")
		s.reconcile()
		s.reconcile()
		s.wantState(journal.StateGone, "A1A1A1")
		s.mta.put(file("A1A1A1", s.start))
		s.now = s.now.Add(wait)
		s.reconcile()
		s.wantState(want, "A1A1A1")
	}
}

func TestHeldListSaysThatALookTakesLong(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	list := func() desk.HeldEnd {
		end, err := s.d.EachHeld(t.Context(), s.now, desk.Filter{}, func(desk.Held) error { return nil })
		if err != nil || end.Messages != 1 || end.Stale != "" {
			t.Errorf("%+v, %v", end, err)
		}
		return end
	}
	s.reconcile()
	s.now = s.now.Add(time.Minute)
	if end := list(); end.Older || !end.Looked.Equal(s.now) {
		t.Errorf("a short look: %+v at %v", end, s.now)
	}
	var clock time.Duration
	s.d.Clock = func() time.Time { return s.start.Add(clock) }
	s.mta.before["list"] = func() error {
		clock += 10 * time.Second
		return nil
	}
	s.reconcile()
	looked := s.now
	s.now = s.now.Add(time.Minute)
	if end := list(); !end.Older || !end.Looked.Equal(looked) || clock != 10*time.Second {
		t.Errorf("a long one: %+v", end)
	}
}

// Who wishes otherwise while an act that was cut off is about to be done again has it
// his way.
func TestWhatIsDoneAgainMayBeWishedOtherwise(t *testing.T) {
	for verb, asked := range map[string]journal.State{"release": journal.StateReleasing, "delete": journal.StateDeleting} {
		for otherwise, want := range map[bool]string{true: "hold", false: map[string]string{"release": "active", "delete": ""}[verb]} {
			s := open(t)
			s.hold(taro, "volume", "A1A1A1")
			change := func(state journal.State) {
				if err := s.journal.Append(journal.HoldChange{QueueID: "A1A1A1", DecisionID: "da1a1a1", Time: s.now, State: state, By: "root"}); err != nil {
					t.Fatal(err)
				}
			}
			change(asked)
			looks := 0
			s.mta.before["list"] = func() error {
				if looks++; looks == 2 && otherwise { // of what is to be done again
					change(journal.StateHeld)
				}
				return nil
			}
			s.reconcile()
			if got := s.mta.where("A1A1A1"); got != want || looks < 2 {
				t.Errorf("%s, wished otherwise: %t: in queue %q after %d looks, want %q", verb, otherwise, got, looks, want)
			}
		}
	}
}

// A queue that was just looked at is not looked at again: the journal is asked all the
// same whether it has everything.
func TestHeldListSaysThatTheJournalIsBehind(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.reconcile()
	s.now = s.now.Add(time.Millisecond)
	for _, behind := range []error{errors.New("no space left on device"), nil} {
		s.journal.set(behind, nil, nil)
		l, err := s.d.List(t.Context(), s.now, desk.Filter{})
		if err != nil || len(l.Held) != 1 || (behind != nil) != strings.Contains(l.Stale, "journal is not up to date: no space left on device") {
			t.Errorf("behind: %v: %+v, %v", behind, l, err)
		}
	}
}

// Two who list while a look goes on get what the last one found, and wait for the one
// look; who lists after it gets what it found.
func TestLookThatIsNotWaitedForGoesOn(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.reconcile()
	looked := s.now
	s.now = s.now.Add(time.Minute)
	begun, goOn := make(chan struct{}, 2), make(chan struct{})
	s.mta.before["list"] = func() error {
		begun <- struct{}{}
		<-goOn
		return nil
	}
	list := func() desk.HeldEnd {
		end, err := s.d.EachHeld(t.Context(), s.now, desk.Filter{}, func(desk.Held) error { return nil })
		if err != nil || end.Messages != 1 {
			t.Errorf("%+v, %v", end, err)
		}
		return end
	}
	for range 2 {
		if end := list(); !end.Older || !end.Looked.Equal(looked) {
			t.Errorf("while the look goes on: %+v", end)
		}
	}
	if n := len(begun); n != 1 {
		t.Errorf("%d looks were begun, want one for both", n)
	}
	close(goOn)
	if end := list(); end.Older || !end.Looked.Equal(s.now) {
		t.Errorf("after it: %+v, want it of %v", end, s.now)
	}
}

func TestAuditOfABulkActSaysWhatChose(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	if _, err := deleteHeld(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: taro, MailFrom: "taro@example.jp"}, Reason: "spam"}); err != nil {
		t.Fatal(err)
	}
	all, err := s.journal.AdminActions(t.Context(), 0)
	if want := `chosen by {"account":"login:taro@example.jp","mail_from":"*@example.jp"}`; err != nil || len(all) != 1 || all[0].Outcome != want {
		t.Errorf("got %+v, %v, want %s", all, err, want)
	}
}
