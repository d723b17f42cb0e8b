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
	"relayguard/policy/limit/limittest"
	"relayguard/policy/origin"
)

// inForce are the kinds of switches in force about an account.
func (s *site) inForce(about string) (kinds []policy.SwitchKind) {
	for _, sw := range s.board.Load().All() {
		if sw.About() == about && !sw.Over(s.now) {
			kinds = append(kinds, sw.Kind)
		}
	}
	return kinds
}

func (s *site) suspend(account string) desk.Suspended {
	s.t.Helper()
	out, err := s.d.Suspend(s.t.Context(), s.now, admin, desk.Suspension{Account: account, Reason: "stolen password"})
	if err != nil {
		s.t.Fatalf("suspend %s: %v", account, err)
	}
	return out
}

func TestSuspend(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.pass(taro, "deferred", "A2A2A2")
	s.pass(taro, "incoming", "A3A3A3")
	s.pass(hanako, "deferred", "B1B1B1")
	s.pass(hanako, "active", "B2B2B2")
	other := file("C1C1C1", s.start) // of whom nobody knows, from taro's address
	other.Queue = "deferred"
	s.mta.put(other)
	s.mta.before["hold"] = func() error {
		if !slices.Contains(s.inForce(taro), policy.Suspend) {
			t.Error("mail is held before the switch is in force")
		}
		for _, id := range []string{"A1A1A1", "A2A2A2", "A3A3A3"} {
			if h := s.entries(id); len(h) != 1 || h[0].State != journal.StateHeld || h[0].Rule != policy.RuleSuspended || h[0].Reason != "suspended: stolen password" {
				t.Errorf("%s before it is held: %+v, want an entry with its reason", id, h)
			}
		}
		return nil
	}
	out := s.suspend("Taro@Example.jp")
	if out.Held != 3 || out.Account != taro || len(out.Remarks) != 0 || out.Local != "" || out.Switch.ID == "" {
		t.Errorf("got %+v, want three held", out)
	}
	s.wantIn("hold", "A1A1A1", "A2A2A2", "A3A3A3")
	s.wantIn("deferred", "B1B1B1", "C1C1C1")
	s.wantIn("active", "B2B2B2")
	s.wantState(journal.StateHeld, "A1A1A1", "A2A2A2", "A3A3A3")
	s.wantState("", "B1B1B1", "B2B2B2", "C1C1C1")
	s.wantRoom(3)
	if h := s.entries("A1A1A1")[0]; h.Account != taro || h.DecisionID != "da1a1a1" || h.MailFrom != "taro@example.jp" {
		t.Errorf("entry: %+v", h)
	}
	if want := []string{"suspend " + taro + ": stolen password"}; !slices.Equal(s.actions(), want) {
		t.Errorf("journaled %q, want %q", s.actions(), want)
	}
	if want := []string{taro + ": suspended " + taro + " by root"}; !slices.Equal(s.told, want) {
		t.Errorf("told %q, want %q", s.told, want)
	}
	s.reconcile()
	s.reconcile()
	s.wantEntries()
	s.wantRoom(3)
}

// What comes into the queue while it is read is found by the second look.
func TestSuspendLooksTwice(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	s.mta.miss["A1A1A1"] = 1
	if out := s.suspend(taro); out.Held != 1 {
		t.Errorf("held %d, want 1", out.Held)
	}
	s.wantIn("hold", "A1A1A1")
}

func TestSuspendFindsWhatWasReleased(t *testing.T) {
	s := open(t)
	long := s.now.Add(-3 * 24 * time.Hour) // over a weekend
	s.decide(policy.Hold, taro, "volume", "A1A1A1", long)
	s.mta.put(file("A1A1A1", long))
	s.hold(taro, "volume", "A2A2A2", "A3A3A3")
	s.mta.tooOld["A2A2A2"] = "A9A9A9"
	if r, err := release(s.d, t.Context(), s.now, admin, order("A1A1A1", "A2A2A2", "A3A3A3")); err != nil || r.Counts["done"] != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	s.mta.set(func() { s.mta.files[0].Queue = "deferred" })
	s.now = s.now.Add(time.Minute)
	if out := s.suspend(taro); out.Held != 3 {
		t.Errorf("held %d, want 3: %+v", out.Held, out)
	}
	s.wantIn("hold", "A1A1A1", "A9A9A9", "A3A3A3")
	s.wantEntries()
	s.wantState(journal.StateHeld, "A1A1A1", "A3A3A3")
	if all := s.entries("A9A9A9"); len(all) == 0 || all[0].QueueID != "A9A9A9" || all[0].State != journal.StateHeld || all[0].Rule != policy.RuleSuspended {
		t.Errorf("under its new id: %+v", all)
	}
	s.reconcile()
	s.reconcile()
	s.wantState(journal.StateHeld, "A1A1A1", "A3A3A3")
	s.wantRoom(3)
}

// An id that is another's by now is not touched.
func TestSuspendLeavesAnIDThatIsUsedAgain(t *testing.T) {
	s := open(t)
	s.decide(policy.Accept, taro, "", "A1A1A1", s.start)
	q := file("A1A1A1", s.start.Add(10*time.Minute))
	q.Queue = "deferred"
	s.mta.put(q)
	if out := s.suspend(taro); out.Held != 0 {
		t.Errorf("held %d", out.Held)
	}
	s.wantIn("deferred", "A1A1A1")
	s.wantState("", "A1A1A1")
}

func TestSuspendCutOff(t *testing.T) {
	for name, done := range map[string]bool{"before the hold": false, "after the hold": true} {
		s := open(t)
		s.pass(taro, "deferred", "A1A1A1")
		cut := func() error { return context.Canceled }
		if done {
			s.mta.after["hold"] = cut
		} else {
			s.mta.before["hold"] = cut
		}
		if out := s.suspend(taro); len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "not all of its mail in the queue is held") {
			t.Errorf("%s: remarks %q", name, out.Remarks)
		}
		s.mta.before, s.mta.after = nil, nil
		s.restart()
		if !slices.Contains(s.inForce(taro), policy.Suspend) {
			t.Errorf("%s: the switch is lost with the daemon", name)
		}
		s.reconcile()
		s.reconcile()
		s.wantEntries()
		if done {
			s.wantState(journal.StateHeld, "A1A1A1")
			s.wantRoom(1)
			continue
		}
		s.wantState(journal.StateGone, "A1A1A1") // an entry without a hold is closed
		s.wantRoom(0)
		if out := s.suspend(taro); out.Held != 1 {
			t.Errorf("%s: once more holds %d, want it", name, out.Held)
		}
	}
}

// What the MTA could not hold is told, and an entry says no more than is known.
func TestSuspendThatCannotHold(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1", "A2A2A2", "A3A3A3")
	s.mta.fails["A1A1A1"] = errors.New("postsuper: no space left")
	s.mta.unsure["A2A2A2"] = true
	out := s.suspend(taro)
	if len(out.Remarks) == 0 || !strings.Contains(strings.Join(out.Remarks, " "), "no space left") {
		t.Errorf("remarks %q, want what could not be held", out.Remarks)
	}
	s.wantIn("deferred", "A1A1A1")
	s.wantIn("hold", "A2A2A2", "A3A3A3")
	s.reconcile()
	s.reconcile()
	s.wantState(journal.StateGone, "A1A1A1")
	s.wantState(journal.StateHeld, "A2A2A2", "A3A3A3")
	s.wantEntries()
	s.wantRoom(2)
	if why := s.entries("A1A1A1")[0].ChangeReason; strings.Contains(why, "had left") {
		t.Errorf("the entry of mail that is still there says %q", why)
	}
}

func TestSuspendWithoutADisk(t *testing.T) {
	s := open(t)
	s.pass(taro, "active", "A1A1A1")
	mend := s.breakSwitches()
	s.journal.set(nil, errors.New("disk full"), nil) // the entries wait in the journal's memory
	out := s.suspend(taro)
	s.journal.set(nil, nil, nil)
	if len(out.Remarks) == 0 || !strings.Contains(out.Remarks[0], "would be lost with the daemon") {
		t.Errorf("remarks %q", out.Remarks)
	}
	if !slices.Contains(s.inForce(taro), policy.Suspend) {
		t.Error("it is not in force")
	}
	s.wantIn("hold", "A1A1A1")
	mend()
	s.d.Expire(t.Context(), s.now.Add(time.Minute)) // writes it
	s.restart()
	if !slices.Contains(s.inForce(taro), policy.Suspend) {
		t.Error("it is lost with the daemon although the disk is back")
	}
}

func TestSuspendSaysWhatItCannotKnow(t *testing.T) {
	s := open(t)
	s.d.Dropped = func() int64 { return 3 }
	if out := s.suspend(taro); len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "relayguard stop") {
		t.Errorf("remarks %q", out.Remarks)
	}
	if _, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: "shop:web"}); !errors.Is(err, desk.ErrUsage) {
		t.Errorf("of nothing that sends: %v", err)
	}
	if _, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: taro, Term: -time.Hour}); !errors.Is(err, desk.ErrUsage) {
		t.Errorf("for less than no time: %v", err)
	}
	if got := s.actions(); len(got) != 1 {
		t.Errorf("journaled %q", got)
	}
}

func TestSuspendLocalUsers(t *testing.T) {
	s := open(t)
	out := s.suspend("local_user:deploy")
	if !strings.HasPrefix(out.Local, "refused by sendmail(1)") || !s.mta.forbidden["deploy"] || out.Account != "local_user:deploy" {
		t.Errorf("got %+v, forbidden %v", out, s.mta.forbidden)
	}
	s.pass("local_user:www-data", "deferred", "A1A1A1")
	out = s.suspend("local_user:www-data")
	if !strings.HasPrefix(out.Local, "held: many sites share") || s.mta.forbidden["www-data"] || out.Held != 1 || len(out.Remarks) != 0 {
		t.Errorf("shared: %+v, forbidden %v", out, s.mta.forbidden)
	}
	out = s.suspend("local_user:4711")
	if out.Local != "held" || len(out.Remarks) != 1 || out.Account != "local_user:uid:4711" {
		t.Errorf("without a name: %+v", out)
	}
	s.mta.before["forbid"] = func() error { return errors.New("root helper not reachable") }
	out = s.suspend("local_user:1001")
	if out.Local != "held" || len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "not reachable") || len(s.inForce("local_user:1001")) != 1 {
		t.Errorf("without the helper: %+v, in force %v", out, s.inForce("local_user:1001"))
	}
}

func TestTermIsOver(t *testing.T) {
	s := open(t)
	_, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: "local_user:deploy", Term: time.Hour, Reason: "a loop"})
	if err != nil {
		t.Fatal(err)
	}
	s.suspend(taro)
	s.d.Expire(t.Context(), s.now.Add(59*time.Minute))
	if !s.mta.forbidden["deploy"] {
		t.Error("allowed before its time")
	}
	s.now = s.now.Add(time.Hour)
	s.mta.before["allow"] = func() error { return errors.New("root helper not reachable") }
	for i := range 5 {
		s.d.Expire(t.Context(), s.now.Add(time.Duration(i)*time.Second))
	}
	if n := strings.Count(s.log.String(), "it is tried again"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, s.log)
	}
	if len(s.inForce("local_user:1001")) != 0 {
		t.Error("the guard goes on to stop it")
	}
	s.restart() // what could not be carried out outlives the daemon
	s.d.Expire(t.Context(), s.now.Add(6*time.Second))
	s.mta.before = nil
	s.d.Expire(t.Context(), s.now.Add(7*time.Second))
	if s.mta.forbidden["deploy"] {
		t.Error("still forbidden")
	}
	did := len(s.mta.did())
	s.d.Expire(t.Context(), s.now.Add(8*time.Second))
	if len(s.mta.did()) != did {
		t.Error("allowed again and again")
	}
	if got := s.actions()[0]; got != "end of suspend local_user:1001: a loop" {
		t.Errorf("journaled %q", got)
	}
	if !slices.Contains(s.inForce(taro), policy.Suspend) {
		t.Error("one without a term has ended")
	}
}

// Review 2, finding 16: each try makes the root helper start Postfix's tools.
func TestTermThatCannotBeEndedIsTriedLessAndLess(t *testing.T) {
	s := open(t)
	if _, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: "local_user:deploy", Term: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Hour)
	tries, last, longest := 0, s.now, time.Duration(0)
	s.mta.before["allow"] = func() error {
		tries++
		longest, last = max(longest, s.now.Sub(last)), s.now
		return errors.New("root helper not reachable")
	}
	for range 10 * 60 {
		s.d.Expire(t.Context(), s.now)
		s.now = s.now.Add(time.Second)
	}
	if tries < 10 || tries > 20 || longest != time.Minute {
		t.Errorf("%d tries in ten minutes, %v apart at most; want some 15, a minute", tries, longest)
	}
	s.mta.before = map[string]func() error{}
	s.d.Expire(t.Context(), s.now.Add(time.Minute))
	if s.mta.forbidden["deploy"] {
		t.Error("still forbidden")
	}
}

// An admin suspends the account once more while the end of the first suspension
// is carried out.
func TestSuspendedAgainAtTheEndOfTheTerm(t *testing.T) {
	s := open(t)
	if _, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: "local_user:deploy", Term: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(time.Hour)
	s.mta.before["allow"] = func() error { s.suspend("local_user:deploy"); return nil }
	s.d.Expire(t.Context(), s.now)
	if !s.mta.forbidden["deploy"] || len(s.inForce("local_user:1001")) != 1 {
		t.Errorf("forbidden %v, in force %v", s.mta.forbidden, s.inForce("local_user:1001"))
	}
}

func TestTermThatEndedWhileTheDaemonWasDown(t *testing.T) {
	s := open(t)
	if _, err := s.d.Suspend(t.Context(), s.now, admin, desk.Suspension{Account: "local_user:deploy", Term: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(2 * time.Hour)
	s.restart()
	s.d.Expire(t.Context(), s.now)
	if s.mta.forbidden["deploy"] || len(s.d.Switches.Over(s.now)) != 0 {
		t.Errorf("forbidden %v, over and not swept %v", s.mta.forbidden, s.d.Switches.Over(s.now))
	}
}

// shut latches the abuse limit's bucket of a key.
func (s *site) shut(value string) {
	s.t.Helper()
	charge := []limit.Charge{{Key: limit.Key{Limit: "abuse", Value: value}, Kind: limit.Abuse, Windows: []limit.Window{{Count: 1, Length: time.Hour}}, Amount: 2}}
	out, err := limittest.Spend(s.t.Context(), s.d.Buckets, s.start, charge)
	if err != nil || !out.Latched[0] {
		s.t.Fatalf("%s: %+v, %v, want it shut", value, out, err)
	}
}

func (s *site) isShut(value string) bool {
	s.t.Helper()
	out, err := limittest.Peek(s.t.Context(), s.d.Buckets, s.now, []limit.Charge{{Key: limit.Key{Limit: "abuse", Value: value}, Kind: limit.Abuse, Windows: []limit.Window{{Count: 1, Length: time.Hour}}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.Latched[0]
}

func TestResume(t *testing.T) {
	s := open(t)
	s.pass(taro, "deferred", "A1A1A1", "A2A2A2")
	s.suspend(taro)
	s.shut(taro)
	s.shut(hanako)
	out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "TARO@example.jp", Cause: "password changed"})
	if err != nil || !out.Was || out.Held != 2 || !slices.Equal(out.Opened, []string{"abuse"}) || !strings.HasPrefix(out.Probation, "half of each limit until ") || len(out.Remarks) != 0 || !strings.Contains(out.Note, "from nothing again") {
		t.Errorf("got %+v, %v", out, err)
	}
	if got := s.inForce(taro); !slices.Equal(got, []policy.SwitchKind{policy.Probation}) {
		t.Errorf("in force: %v, want probation alone", got)
	}
	if s.isShut(taro) || !s.isShut(hanako) {
		t.Errorf("shut: taro %t, hanako %t, want hers alone", s.isShut(taro), s.isShut(hanako))
	}
	s.wantIn("hold", "A1A1A1", "A2A2A2")
	s.wantState(journal.StateHeld, "A1A1A1", "A2A2A2")
	if got := s.actions()[0]; got != "resume "+taro+": password changed" {
		t.Errorf("journaled %q", got)
	}
	// Suspended once more, it has no probation left to begin from.
	s.suspend(taro)
	if got := s.inForce(taro); !slices.Equal(got, []policy.SwitchKind{policy.Suspend}) {
		t.Errorf("in force: %v, want the suspension alone", got)
	}
	// One that was neither suspended nor shut gets none.
	out, err = s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "login:jiro@example.jp"})
	if err != nil || out.Was || out.Probation != "" || len(s.inForce("login:jiro@example.jp")) != 0 {
		t.Errorf("of nobody: %+v, %v", out, err)
	}
}

func TestResumeOfALatchAlone(t *testing.T) {
	s := open(t)
	for name, key := range map[string]string{"local_user:www-data": "local_user:33", "network:web-nodes": "network:web-nodes"} {
		s.shut(key)
		out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: name, Cause: "mended"})
		if err != nil || out.Was || len(out.Opened) != 1 || out.Probation == "" || s.isShut(key) {
			t.Errorf("%s: %+v, %v, want it opened, on probation", name, out, err)
		}
	}
	for _, key := range []string{"machine:192.0.2.7", "machine:2001:db8:1:2::/64", "sender_domain:example.jp", "server"} {
		s.shut(key)
		out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: key, Cause: "mended"})
		if err != nil || !slices.Equal(out.Opened, []string{"abuse"}) || s.isShut(key) {
			t.Errorf("%s: %+v, %v, want it opened", key, out, err)
		}
	}
}

func TestResumeLocalUser(t *testing.T) {
	s := open(t)
	s.suspend("local_user:deploy")
	s.mta.before["allow"] = func() error { return errors.New("root helper not reachable") }
	out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "local_user:deploy"})
	if err != nil || len(out.Remarks) != 1 || !strings.Contains(out.Remarks[0], "still refuses") {
		t.Errorf("without the helper: %+v, %v", out, err)
	}
	s.mta.before = nil
	if _, err = s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: "local_user:deploy"}); err != nil || s.mta.forbidden["deploy"] {
		t.Errorf("again: %v, forbidden %v", err, s.mta.forbidden)
	}
}

// The shipped plugin-first-time has buckets of a plugin on one site, and a mail's
// account is the web server's.
func TestResumeOfWhatAPluginDidOnASite(t *testing.T) {
	const share, other = "plugin:share@shop.example.jp", "plugin:form@blog.example.jp"
	shop := origin.Origin{UID: 33, LocalUser: origin.Key{Value: "www-data", Confidence: origin.Kernel}, Site: origin.Key{Value: "shop.example.jp", Confidence: origin.Signed}, Plugin: origin.Key{Value: "share", Confidence: origin.Signed}}
	for _, c := range []struct {
		account   string
		probation string
	}{
		{"plugin:share", "plugin:share"},
		{"plugin:Share@shop.example.jp", "site:shop.example.jp"},
		{"site:shop.example.jp", "site:shop.example.jp"},
		{"local_user:www-data", "site:shop.example.jp"}, // not all sites that send as it
	} {
		t.Run(c.account, func(t *testing.T) {
			s := open(t)
			s.d.Shut = func(account string) []string {
				return map[string][]string{"local_user:www-data": {share}}[account]
			}
			s.shut(share)
			s.shut(other)
			out, err := s.d.Resume(t.Context(), s.now, admin, desk.Resumption{Account: c.account, Cause: "plugin updated"})
			if err != nil || !slices.Equal(out.Opened, []string{"abuse"}) || out.Probation == "" || len(out.Remarks) != 0 {
				t.Errorf("%+v, %v, want it opened, on probation", out, err)
			}
			if s.isShut(share) || !s.isShut(other) {
				t.Errorf("shut: %t, another site's %t, want the other's alone", s.isShut(share), s.isShut(other))
			}
			if got := s.inForce(c.probation); !slices.Equal(got, []policy.SwitchKind{policy.Probation}) || !s.board.Load().OnProbation(s.now, &shop) {
				t.Errorf("%s: %v, in force: %+v; want probation that the site's mail has", c.probation, got, s.board.Load().All())
			}
		})
	}
}
