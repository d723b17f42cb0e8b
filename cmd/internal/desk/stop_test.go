package desk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

func (s *site) stop() desk.Stopped {
	s.t.Helper()
	out, err := s.d.Stop(s.t.Context(), s.now, admin, "we are listed")
	if err != nil {
		s.t.Fatalf("stop: %v", err)
	}
	return out
}

func (s *site) startAgain(keep bool) desk.Started {
	s.t.Helper()
	s.now = s.now.Add(time.Minute)
	out, err := s.d.Start(s.t.Context(), s.now, admin, "delisted", keep)
	if err != nil {
		s.t.Fatalf("start: %v", err)
	}
	return out
}

func TestStop(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.pass(hanako, "deferred", "B1B1B1")
	nobody := file("C1C1C1", s.start)
	nobody.Queue = "deferred"
	s.mta.put(nobody)
	inbound := file("D1D1D1", s.start)
	inbound.Queue, inbound.Recipients = "active", []string{"info@example.jp"}
	s.mta.put(inbound)
	s.pass(taro, "active", "A2A2A2")
	s.mta.fails["A2A2A2"] = errors.New("postsuper: no space left")
	s.mta.before["stop"] = func() error {
		if got := s.inForce(""); !slices.Equal(got, []policy.SwitchKind{policy.Stop}) {
			t.Errorf("in force before the MTA is asked: %v, want the guard's stop first", got)
		}
		if got := s.actions(); len(got) != 1 || got[0] != "stop all mail to the outside: we are listed" {
			t.Errorf("journaled %q", got)
		}
		return nil
	}
	out := s.stop()
	if out.Held != 3 || len(out.Caveats) != 1 || !strings.Contains(out.Caveats[0], "A2A2A2 is not on hold") {
		t.Errorf("got %+v", out)
	}
	for id, account := range map[string]string{"A1A1A1": taro, "B1B1B1": hanako, "C1C1C1": "unknown"} {
		all := s.entries(id)
		if len(all) != 1 || all[0].Account != account || all[0].Rule != policy.RuleStopped || !strings.HasSuffix(all[0].Reason, "we are listed") || all[0].State != journal.StateHeld || all[0].Arrival.IsZero() {
			t.Errorf("%s: %+v, want one entry of %s", id, all, account)
		}
	}
	s.wantIn("active", "D1D1D1", "A2A2A2")
	s.wantState("", "D1D1D1", "A2A2A2")
	s.wantRoom(3)
	s.reconcile()
	s.wantRoom(3)
	s.wantEntries()
	// Once more holds what has come since.
	s.pass(taro, "deferred", "A3A3A3")
	s.mta.fails, s.mta.before = nil, nil
	if out := s.stop(); out.Held != 2 {
		t.Errorf("once more: %+v, want what came since", out)
	}
	s.wantEntries()
}

func TestStopThatFailsHalfWay(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1", "A2A2A2")
	s.mta.stopError = errors.New("postfix reload: exit status 1")
	out, err := s.d.Stop(t.Context(), s.now, admin, "we are listed")
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || out.Held != 2 {
		t.Errorf("got %+v, %v", out, err)
	}
	s.wantState(journal.StateHeld, "A1A1A1", "A2A2A2")
	s.wantRoom(2)
	s.wantEntries()
	if len(s.inForce("")) != 1 {
		t.Error("the guard does not stop new mail")
	}
	mend := s.breakSwitches()
	out, err = s.d.Stop(t.Context(), s.now, admin, "once more")
	mend()
	if err == nil || len(out.Caveats) != 1 || len(s.inForce("")) != 1 {
		t.Errorf("without a file: %+v, %v, in force %v", out, err, s.inForce(""))
	}
}

func TestStopWaitsForNoRelease(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.pass(hanako, "deferred", "B1B1B1")
	entered, leave := make(chan struct{}), make(chan struct{})
	s.mta.before["release"] = func() error { close(entered); <-leave; return nil }
	released := make(chan error)
	go func() {
		_, err := release(s.d, context.Background(), s.now, admin, order("A1A1A1"))
		released <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stopped := make(chan desk.Stopped)
	go func() {
		out, err := s.d.Stop(ctx, s.now, admin, "now")
		if err != nil {
			t.Error(err)
		}
		stopped <- out
	}()
	select {
	case out := <-stopped:
		if out.Held != 1 {
			t.Errorf("got %+v", out)
		}
	case <-ctx.Done():
		t.Error("stop waits for a release")
	}
	s.wantState(journal.StateHeld, "B1B1B1")
	close(leave)
	if err := <-released; err != nil {
		t.Error(err)
	}
}

func TestStartReleasesWhatWasStopped(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.hold(taro, "volume", "A2A2A2")
	s.mta.put(file("F1F1F1", s.start)) // somebody else's
	s.stop()
	s.hold(hanako, policy.RuleStopped, "B1B1B1") // by the guard, meanwhile
	s.hold(hanako, "login-volume", "B2B2B2")     // over a limit as well
	out := s.startAgain(false)
	if !out.Was || out.Released["done"] != 2 || out.Kept != 0 || out.Withheld != 0 || len(out.Remarks) != 0 {
		t.Errorf("got %+v, want both released", out)
	}
	s.wantIn("active", "A1A1A1", "B1B1B1")
	s.wantState(journal.StateReleased, "A1A1A1", "B1B1B1")
	s.wantIn("hold", "A2A2A2", "B2B2B2", "F1F1F1")
	s.wantRoom(2)
	if len(s.inForce("")) != 0 {
		t.Error("the guard still stops")
	}
	if out := s.startAgain(false); out.Was || len(out.Released) != 0 {
		t.Errorf("again: %+v, want that it was not stopped", out)
	}
}

func TestStartKeepsAllIfAsked(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.stop()
	s.hold(hanako, policy.RuleStopped, "B1B1B1")
	if out := s.startAgain(true); out.Kept != 2 || len(out.Released) != 0 || !out.Was {
		t.Errorf("got %+v, want both kept", out)
	}
	s.wantIn("hold", "A1A1A1", "B1B1B1")
	s.wantState(journal.StateHeld, "A1A1A1", "B1B1B1")
	s.reconcile()
	s.wantEntries()
	s.stop() // a later stop and start do not touch what waits for an admin
	if out := s.startAgain(false); len(out.Released) != 0 {
		t.Errorf("a later start released %+v", out)
	}
	s.wantIn("hold", "A1A1A1", "B1B1B1")
	if r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Rule: policy.RuleKept}}); r.Counts["done"] != 2 || err != nil {
		t.Errorf("release --rule kept: %+v, %v", r.Counts, err)
	}
}

func TestStartWithholdsMailOfSuspendedAccounts(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.pass(hanako, "active", "B1B1B1")
	s.pass("local_user:deploy", "deferred", "C1C1C1")
	s.pass("network:web-nodes", "deferred", "E1E1E1")
	s.stop()
	s.hold(taro, policy.RuleStopped, "A2A2A2")
	for _, account := range []string{taro, "local_user:deploy", "network:web-nodes"} {
		s.suspend(account)
	}
	out := s.startAgain(false)
	if out.Released["done"] != 1 || out.Withheld != 4 || out.Kept != 4 {
		t.Errorf("got %+v, want hers released, four withheld", out)
	}
	s.wantIn("active", "B1B1B1")
	s.wantIn("hold", "A1A1A1", "A2A2A2", "C1C1C1", "E1E1E1")
	for _, id := range []string{"A1A1A1", "A2A2A2", "C1C1C1", "E1E1E1"} {
		if all := s.entries(id); len(all) != 1 || all[0].Rule != policy.RuleSuspended || all[0].Reason != "suspended: stolen password" || all[0].State != journal.StateHeld {
			t.Errorf("%s: %+v, want it held for the suspension", id, all)
		}
	}
	s.wantRoom(4)
	s.reconcile()
	s.wantRoom(4)
	if out := s.startAgain(false); len(out.Released) != 0 {
		t.Errorf("a second start releases %v", out.Released)
	}
	s.wantIn("hold", "A1A1A1", "A2A2A2", "C1C1C1", "E1E1E1")
}

// The start of much mail takes a while. Who is suspended meanwhile sends nothing
// of it.
func TestSuspendDuringALongStart(t *testing.T) {
	s := open(t)
	const n = 5003
	records := make([]journal.Record, n)
	for i := range records {
		id := fmt.Sprintf("D%05X", i)
		records[i] = journal.Held{QueueID: id, Account: taro, Rule: policy.RuleStopped, Arrival: s.start.Truncate(time.Second), HeldAt: s.start, Size: 1000}
		s.mta.put(file(id, s.start))
	}
	if err := s.journal.Append(records...); err != nil {
		t.Fatal(err)
	}
	s.stop()
	suspended := make(chan struct{})
	s.mta.before["release"] = func() error {
		s.mta.set(func() { s.mta.before = nil })
		go func() {
			defer close(suspended)
			if _, err := s.d.Suspend(context.Background(), s.now, admin, desk.Suspension{Account: taro, Reason: "stolen"}); err != nil {
				t.Error(err)
			}
		}()
		deadline := time.Now().Add(10 * time.Second)
		for len(s.inForce(taro)) == 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	out, err := s.d.Start(t.Context(), s.now, admin, "delisted", false)
	if err != nil || out.Released["done"] != 5000 || out.Withheld != 3 {
		t.Errorf("got %+v, %v, want the second part withheld", out, err)
	}
	<-suspended
	for i := range n {
		if id := fmt.Sprintf("D%05X", i); s.mta.where(id) != "hold" {
			t.Fatalf("%s is on its way", id)
		}
	}
	s.reconcile()
	s.wantRoom(n)
}

// Two admins start; what the first let go is not held again on paper by the
// second, whoever was suspended in between.
func TestTwoStarts(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.stop()
	second := make(chan error)
	s.mta.before["release"] = func() error {
		before := s.journal.searches()
		go func() {
			_, err := s.d.Start(context.Background(), s.now, desk.By{Name: "jiro"}, "delisted", false)
			second <- err
		}()
		deadline := time.Now().Add(10 * time.Second)
		for s.journal.searches() == before && time.Now().Before(deadline) { // it has chosen
			time.Sleep(time.Millisecond)
		}
		_, err := s.d.Switches.Set(policy.Switch{Kind: policy.Suspend, Subject: policy.SubjectLogin, Value: "taro@example.jp"})
		return err
	}
	if out := s.startAgain(false); out.Released["done"] != 1 {
		t.Errorf("got %+v", out)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
	if all := s.entries("A1A1A1"); len(all) != 1 || all[0].State != journal.StateReleased {
		t.Errorf("entries %+v, want the one that was released", all)
	}
	s.wantRoom(0)
}

// A start that was cut off goes on, but not with who is suspended by then.
func TestStartCutOff(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.pass(hanako, "active", "B1B1B1")
	s.stop()
	s.mta.before["release"] = func() error { return context.DeadlineExceeded }
	if _, err := s.d.Start(t.Context(), s.now, admin, "delisted", false); err == nil {
		t.Fatal("no error")
	}
	s.wantState(journal.StateReleasing, "A1A1A1", "B1B1B1")
	s.mta.before = nil
	s.suspend(taro)
	s.restart()
	s.reconcile()
	s.wantIn("hold", "A1A1A1")
	s.wantIn("active", "B1B1B1")
	if h := s.entries("A1A1A1")[0]; h.State != journal.StateHeld || h.Rule != policy.RuleSuspended {
		t.Errorf("entry: %+v", h)
	}
}

// While the journal could not be searched, mail was stopped of which nobody knew
// whose it was.
func TestStartFindsOutWhoseMailItIs(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.journal.setAway(errors.New("the database is being filled"))
	s.stop()
	if h := s.entries("A1A1A1")[0]; h.Account != "unknown" {
		t.Fatalf("entry: %+v", h)
	}
	s.journal.setAway(nil)
	s.suspend(taro)
	if out := s.startAgain(false); out.Withheld != 1 {
		t.Errorf("got %+v, want it withheld", out)
	}
	s.wantIn("hold", "A1A1A1")
	if h := s.entries("A1A1A1")[0]; h.Account != taro || h.Rule != policy.RuleSuspended {
		t.Errorf("entry: %+v", h)
	}
	s.wantRoom(1)
}

// The daemon died between the MTA's stop and its entries, or root stopped
// without it: what the MTA's side holds is known to it alone.
func TestStartAdoptsWhatHasNoEntry(t *testing.T) {
	for _, keep := range []bool{false, true} {
		s := open(t)
		s.pass(taro, "active", "A1A1A1")
		s.pass(hanako, "active", "B1B1B1")
		if _, err := s.mta.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.suspend(hanako)
		s.reconcile()
		s.wantState("", "A1A1A1", "B1B1B1")
		out := s.startAgain(keep)
		s.wantIn("hold", "B1B1B1")
		s.wantEntries()
		if keep {
			s.wantIn("hold", "A1A1A1")
			if out.Kept != 2 {
				t.Errorf("got %+v, want both kept", out)
			}
			continue
		}
		s.wantIn("active", "A1A1A1")
		s.wantState(journal.StateReleased, "A1A1A1")
		if out.Released["done"] != 1 || out.Withheld != 1 || !out.Was {
			t.Errorf("got %+v", out)
		}
		if h := s.entries("B1B1B1")[0]; h.Account != hanako || h.Rule != policy.RuleSuspended {
			t.Errorf("entry: %+v", h)
		}
	}
}

// What the MTA's side held it tells once. If the queue cannot be looked at then,
// the entries are made all the same.
func TestStartThatCannotLook(t *testing.T) {
	for name, fault := range map[string]func(s *site) (mend func()){
		"the queue": func(s *site) func() {
			s.mta.before["list"] = func() error { return errors.New("postqueue: exit status 75") }
			return func() { s.mta.before = nil }
		},
		"the journal": func(s *site) func() {
			s.journal.set(nil, nil, errors.New("the database is being filled"))
			return func() { s.journal.set(nil, nil, nil) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.pass(taro, "active", "A1A1A1")
			if _, err := s.mta.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			mend := fault(s)
			if _, err := s.d.Start(t.Context(), s.now, admin, "delisted", false); err == nil {
				t.Error("no error")
			}
			mend()
			s.wantEntries()
			s.now = s.now.Add(time.Minute)
			out := s.startAgain(false)
			if out.Released["done"] != 1 {
				t.Errorf("again: %+v, want it released", out)
			}
			s.wantIn("active", "A1A1A1")
		})
	}
}

// What the journal has not taken in yet cannot be found: that is told.
func TestOrdersWhileTheJournalIsBehind(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.stop()
	s.journal.set(errors.New("the database takes no rows"), nil, nil)
	if out := s.suspend(hanako); len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "takes no rows") {
		t.Errorf("suspend: %+v", out)
	}
	if out := s.startAgain(false); len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "start once more") {
		t.Errorf("start: %+v", out)
	}
	if _, err := release(s.d, t.Context(), s.now, admin, order("A1A1A1")); err != nil || !strings.Contains(s.log.String(), "takes no rows") {
		t.Errorf("release: %v, log: %s", err, s.log)
	}
}

func TestStartThatFails(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.stop()
	s.mta.before["start"] = func() error { return errors.New("root helper not reachable") }
	if _, err := s.d.Start(t.Context(), s.now, admin, "delisted", false); err == nil || errors.Is(err, mta.ErrNotStopped) {
		t.Errorf("got %v", err)
	}
	s.wantIn("hold", "A1A1A1")
	s.wantState(journal.StateHeld, "A1A1A1")
	s.mta.before = nil
	if out := s.startAgain(false); out.Released["done"] != 1 || !out.Was {
		t.Errorf("again: %+v", out)
	}
}

// Start is the time of heavy traffic: mail that the guard stopped a moment ago is
// not in the queue yet.
func TestStartWhileMailComesIn(t *testing.T) {
	s := open(t)
	s.stop()
	for i := range 3 {
		s.decide(policy.Hold, taro, policy.RuleStopped, fmt.Sprintf("A%05X", i), s.now.Add(-time.Millisecond))
		s.d.Room.Add(taro, 1000)
	}
	if _, err := s.d.Start(t.Context(), s.now, admin, "delisted", false); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		s.mta.put(file(fmt.Sprintf("A%05X", i), s.now.Add(-time.Second)))
	}
	s.reconcile()
	s.wantIn("active", "A00000", "A00001", "A00002")
	s.wantState(journal.StateReleased, "A00000", "A00001", "A00002")
	s.wantRoom(0)
}

// Without any journal nobody would know later of what the MTA's side held: it goes
// now, unless it may be a suspended account's.
func TestStartWithoutAJournal(t *testing.T) {
	for name, c := range map[string]struct {
		suspended, keep bool
		queue           string
		kept            int
	}{
		"nobody is suspended":     {false, false, "active", 0},
		"somebody is suspended":   {true, false, "hold", 1},
		"an admin will see to it": {false, true, "hold", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			s.pass(taro, "active", "A1A1A1")
			s.stop()
			if c.suspended {
				s.suspend(hanako)
			}
			s.journal.set(nil, journal.ErrClosed, journal.ErrClosed)
			out, err := s.d.Start(t.Context(), s.now, admin, "delisted", c.keep)
			if err != nil || !out.Was || out.Kept != c.kept || len(out.Remarks) == 0 {
				t.Errorf("got %+v, %v", out, err)
			}
			s.wantIn(c.queue, "A1A1A1")
		})
	}
}

// An account that nobody can look up may be a suspended one.
func TestStartKeepsWhatMayBeASuspendedAccounts(t *testing.T) {
	s := open(t)
	q := file("A1A1A1", s.start)
	q.Queue = "active"
	s.mta.put(q) // the journal knows of no decision yet
	s.stop()
	s.suspend(taro)
	s.journal.setAway(errors.New("the database is being filled"))
	out := s.startAgain(false)
	if out.Kept != 1 || out.Withheld != 0 || len(out.Released) != 0 || len(out.Remarks) != 1 {
		t.Errorf("got %+v, want it kept", out)
	}
	s.wantIn("hold", "A1A1A1")
}
