package desk_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// A daemon that dies at any point of a paced release: nothing is lost, nothing is
// released twice, and it is paid for at most twice.
func TestPacedReleaseThatIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		cut  func(s *site, ctx context.CancelFunc)
		paid int
	}{
		"before it is paid for":    {func(s *site, die context.CancelFunc) { s.till.err = context.Canceled; die() }, 1},
		"after it is paid for":     {func(s *site, die context.CancelFunc) { s.till.before = func(string) { die() } }, 2},
		"while the queue is read":  {func(s *site, _ context.CancelFunc) { s.mta.before["list"] = cutOff }, 2},
		"before it is released":    {func(s *site, _ context.CancelFunc) { s.mta.before["release"] = cutOff }, 1},
		"after it is released":     {func(s *site, _ context.CancelFunc) { s.mta.after["release"] = cutOff }, 1},
		"nobody knows, and it was": {func(s *site, _ context.CancelFunc) { s.mta.unsure["A1A1A1"] = true }, 1},
		"nobody knows, it was not": {func(s *site, _ context.CancelFunc) { s.mta.unsure["A1A1A1"] = false }, 1},
	} {
		for _, restart := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				s := paced(t, 10)
				s.wait(1, []string{taro}, "A1A1A1")
				ctx, die := context.WithCancel(t.Context())
				c.cut(s, die)
				s.d.Pace(ctx, s.now)
				die()
				s.till.err, s.till.before = nil, nil
				s.mta.before, s.mta.after, s.mta.unsure = map[string]func() error{}, map[string]func() error{}, map[string]bool{}
				if restart {
					s.restart()
				}
				for range 3 {
					s.now = s.now.Add(90 * time.Second)
					s.d.Pace(t.Context(), s.now)
					s.reconcile()
				}
				s.wantState(journal.StateReleased, "A1A1A1")
				s.wantDid("release A1A1A1")
				s.wantIn("active", "A1A1A1")
				s.wantWaiting(0, taro)
				s.wantRoom(0)
				if n := s.till.paid["release:da1a1a1"]; n < 1 || n > c.paid {
					t.Errorf("restart %t: paid for %d times, want at most %d", restart, n, c.paid)
				}
			})
		}
	}
}

func cutOff() error { return context.DeadlineExceeded }

// What is asked for again after a crash is not asked for an account that is not
// to send by now.
func TestPacedReleaseThatIsCutOffAndStopped(t *testing.T) {
	s := paced(t, 10)
	s.wait(1, []string{taro}, "A1A1A1")
	s.wait(1, []string{hanako}, "B1B1B1")
	s.mta.before["release"] = cutOff
	s.pace()
	s.mta.before = map[string]func() error{}
	s.wantState(journal.StateReleasing, "A1A1A1", "B1B1B1")
	s.suspend(taro)
	s.restart()
	s.reconcile()
	s.wantState(journal.StateReleased, "B1B1B1")
	s.wantState(journal.StateHeld, "A1A1A1")
	if why := s.entries("A1A1A1")[0].ChangeReason; !strings.HasPrefix(why, "suspended") {
		t.Errorf("the entry says %q", why)
	}
	s.reconcile() // it waits again
	s.wantWaiting(1, taro)
	s.goOn(time.Hour, time.Minute)
	s.wantDid("release B1B1B1")
	if _, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: taro, Cause: "mended"}); err != nil {
		t.Fatal(err)
	}
	s.pace()
	s.wantDid("release B1B1B1", "release A1A1A1")
	if n := s.till.paid["release:da1a1a1"]; n > 2 {
		t.Errorf("paid for %d times", n)
	}
}

// An admin comes while a message is paid for.
func TestPaceMeetsAnAdmin(t *testing.T) {
	for name, c := range map[string]struct {
		act   func(s *site)
		state journal.State
		did   []string
	}{
		"who deletes it": {func(s *site) {
			_, _ = deleteHeld(s.d, s.t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")})
		}, journal.StateDeleted, []string{"delete A1A1A1"}},
		"who releases it": {func(s *site) { _, _ = release(s.d, s.t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}) }, journal.StateReleased, []string{"release A1A1A1"}},
		"who asked to delete it, and nobody knows": {func(s *site) {
			s.mta.before["delete"] = cutOff
			_, _ = deleteHeld(s.d, s.t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")})
			s.mta.before = map[string]func() error{}
		}, journal.StateDeleting, nil},
		"who suspends the account": {func(s *site) { s.suspend(taro) }, journal.StateHeld, nil},
		"who pulls the red switch": {func(s *site) { _, _ = s.d.Stop(s.t.Context(), s.now, admin, "x") }, journal.StateHeld, nil},
		"who notes a complaint": {func(s *site) {
			_, _ = s.d.Set(s.now, admin, policy.Switch{Kind: policy.Pause, Subject: policy.SubjectLogin, Value: "taro@example.jp", Reason: "complaint"})
		}, journal.StateHeld, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := paced(t, 10)
			s.wait(1, []string{taro}, "A1A1A1")
			s.till.before = func(string) { c.act(s) }
			s.pace()
			s.till.before = nil
			s.wantState(c.state, "A1A1A1")
			s.wantDid(c.did...)
			s.goOn(time.Minute, time.Second)
			s.wantState(c.state, "A1A1A1")
			want := 0
			if c.state == journal.StateHeld {
				want = 1
			}
			s.wantWaiting(want, taro)
			if n := s.till.paid["release:da1a1a1"]; n > 1 {
				t.Errorf("paid for %d times", n)
			}
		})
	}
}

func TestPaceWithoutAQueue(t *testing.T) {
	s := paced(t, 10)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2", "A3A3A3")
	away := errors.New("root helper not reachable")
	s.mta.before["list"] = func() error { return away }
	s.goOn(30*time.Minute, time.Second)
	s.wantState(journal.StateHeld, "A1A1A1", "A2A2A2", "A3A3A3")
	s.wantWaiting(3, taro)
	if n := len(s.till.paid); n != 3 || s.till.asked != 3 {
		t.Errorf("asked %d times for %d messages, want once for each of the first try", s.till.asked, n)
	}
	if n := strings.Count(s.log.String(), "cannot be released by itself"); n != 1 {
		t.Errorf("told %d times", n)
	}
	s.mta.before = map[string]func() error{}
	s.goOn(2*time.Minute, time.Second)
	s.wantState(journal.StateReleased, "A1A1A1", "A2A2A2", "A3A3A3")
	for id, n := range s.till.paid {
		if n > 2 {
			t.Errorf("%s: %d times", id, n)
		}
	}
}

// A message that the MTA does not let go of does not keep others.
func TestPaceLeavesWhatCannotBeReleased(t *testing.T) {
	s := paced(t, 10)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2")
	s.mta.fails["A1A1A1"] = errors.New("postsuper: warning: A1A1A1: no such queue")
	s.goOn(10*time.Minute, time.Second)
	s.wantDid("release A2A2A2")
	s.wantState(journal.StateHeld, "A1A1A1")
	s.wantWaiting(0, taro)
	if n := s.till.paid["release:da1a1a1"]; n != 2 {
		t.Errorf("paid for %d times, want twice", n)
	}
	if why := s.entries("A1A1A1")[0].ChangeReason; !strings.Contains(why, "could not be released") {
		t.Errorf("the entry says %q", why)
	}
	s.reconcile()
	s.wantWaiting(0, taro)
}

func TestPaceWithoutAStore(t *testing.T) {
	s := paced(t, 10)
	s.wait(1, []string{taro}, "A1A1A1")
	s.wait(1, []string{hanako}, "B1B1B1")
	s.till.err = errAway
	s.goOn(5*time.Minute, time.Second)
	s.wantDid()
	if s.till.asked > 12 || strings.Count(s.log.String(), "the store is away") != 1 {
		t.Errorf("asked %d times, log %s", s.till.asked, s.log)
	}
	s.till.err = nil
	s.goOn(2*time.Minute, time.Second)
	did := s.mta.did()
	slices.Sort(did)
	if !slices.Equal(did, []string{"release A1A1A1", "release B1B1B1"}) {
		t.Errorf("the MTA did %q", did)
	}
}

// An order of which only the journal knows stands: root may have given it.
func TestPaceLeavesWhatSomebodyElseIsAt(t *testing.T) {
	s := paced(t, 10)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2")
	s.mta.before["list"] = func() error {
		return s.journal.Append(journal.HoldChange{QueueID: "A1A1A1", DecisionID: "da1a1a1", Time: s.now, State: journal.StateDeleting, By: "root"})
	}
	s.pace()
	s.wantDid("release A2A2A2")
	s.wantState(journal.StateDeleting, "A1A1A1")
	s.wantWaiting(0, taro)
}

func TestWhatAnAdminTakesLeavesItsLine(t *testing.T) {
	for _, o := range orders {
		s := paced(t, 1)
		s.wait(1, []string{taro}, "A1A1A1", "A2A2A2", "A3A3A3")
		s.pace()
		if _, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A2A2A2")}); err != nil {
			t.Fatal(err)
		}
		s.wantWaiting(1, taro)
		if n := len(s.till.paid); n != 1 {
			t.Errorf("%s: %d paid for, want only what went by itself", o.verb, n)
		}
	}
}

func TestWhatWasPaidForIsNotPaidForAgainSoon(t *testing.T) {
	for _, restart := range []bool{false, true} {
		s := paced(t, 1)
		s.wait(1, []string{taro}, "A1A1A1")
		s.mta.fails["A1A1A1"] = errors.New("postsuper: no space left")
		s.pace()
		s.wantState(journal.StateHeld, "A1A1A1")
		s.mta.fails = map[string]error{}
		if restart {
			s.restart()
		}
		s.pace()
		s.wantState(journal.StateReleased, "A1A1A1")
		if n := s.till.paid["release:da1a1a1"]; n != 1 {
			t.Errorf("restart %t: paid for %d times, want once", restart, n)
		}
	}
}

func TestReconcileKeepsLinesInStep(t *testing.T) {
	s := paced(t, 1)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2")
	s.pace()
	s.pace() // from now on it waits for an hour
	s.till.windows = []limit.Window{{Count: 10, Length: time.Hour}}
	s.pace()
	s.wantWaiting(1, taro)
	s.reconcile()
	s.pace()
	s.wantState(journal.StateReleased, "A2A2A2") // another relay, say, was told of the new limit

	young := policy.Waiting{ID: "db1b1b1", QueueID: "B1B1B1", HeldAt: s.now.Add(5 * time.Minute), Waits: &policy.Waits{Keys: []limit.Key{bucket(taro)}, Origin: origin.Origin{Login: origin.Key{Value: "taro@example.jp"}}}}
	s.lines.Add(young) // the journal's database is a moment behind
	s.reconcile()
	s.wantWaiting(1, taro)
	s.reconcile()
	s.wantWaiting(0, taro)
}

// A reload that has held mail released by itself again has it wait at once, not
// when the queue was looked at.
func TestLinesAreRefilledAtOnce(t *testing.T) {
	s := paced(t, 1)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2", "A3A3A3")
	s.till.pacing.Release = false
	s.pace()
	s.wantWaiting(0, taro)
	s.wait(1, []string{taro}, "B1B1B1") // meanwhile
	if _, err := deleteHeld(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A3A3A3")}); err != nil {
		t.Fatal(err)
	}
	s.till.pacing.Release = true
	s.journal.set(errAway, nil, nil)
	if err := s.d.RefillLines(t.Context(), s.now); err == nil {
		t.Error("lines are filled from a journal that is behind")
	}
	s.journal.set(nil, nil, nil)
	if err := s.d.RefillLines(t.Context(), s.now); err != nil {
		t.Fatal(err)
	}
	s.wantWaiting(3, taro)
}
