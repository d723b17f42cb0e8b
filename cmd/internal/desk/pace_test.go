package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// till is where waiting mail is paid for: so many recipients an hour of each
// bucket, as policy.Limits counts them. It outlives the desk, as the store does.
type till struct {
	store   *limit.Memory
	windows []limit.Window
	board   func() *policy.Switches
	pacing  desk.Pacing
	paid    map[string]int       // by charge id
	at      map[string]time.Time // the last time
	asked   int
	before  func(id string) // sees each call
	err     error
	abused  map[string]bool
	notices []string
}

func (p *till) pay(ctx context.Context, now time.Time, w *policy.Waits, id string) (policy.Paid, error) {
	if p.before != nil {
		p.before(id)
	}
	p.asked++
	if p.err != nil {
		return policy.Paid{}, p.err
	}
	rule := policy.LimitRule{Then: policy.Hold, Limit: limit.Limit{Name: "volume", Per: []limit.Per{limit.Login}, Counts: limit.Recipients, Kind: limit.Volume, Windows: p.windows}}
	limits := policy.NewLimits(policy.LimitsOptions{Phase: policy.Enforce, Rules: []policy.LimitRule{rule}, Store: p.store})
	answer, err := limits.Pay(ctx, now, p.board(), w, id)
	if answer.Taken {
		p.paid[id]++
		p.at[id] = now
	}
	return answer, err
}

// paced is a site whose buckets have room for so many recipients an hour.
func paced(t *testing.T, count int64) *site {
	t.Helper()
	s := open(t)
	s.till = &till{store: limit.NewMemory(), windows: []limit.Window{{Count: count, Length: time.Hour}}, paid: map[string]int{}, at: map[string]time.Time{},
		abused: map[string]bool{}, pacing: desk.Pacing{Release: true, MaxAge: 12 * time.Hour, BouncePercent: 5}}
	s.openTill()
	return s
}

// openTill gives the desk its lines, as they are after a start.
func (s *site) openTill() {
	s.t.Helper()
	s.lines = policy.NewLines(20_000)
	s.d.Waiting, s.d.Pay, s.till.board = s.lines, s.till.pay, func() *policy.Switches { return s.board.Load() }
	s.d.Pacing = func() desk.Pacing { return s.till.pacing }
	s.d.Abused = func(w *policy.Waits) bool { return s.till.abused[w.Origin.Name()] }
	s.d.Notice = func(_ time.Time, topic, text string) { s.till.notices = append(s.till.notices, topic+": "+text) }
	if err := s.d.OpenLines(s.t.Context(), s.now); err != nil {
		s.t.Fatal(err)
	}
}

// wait is mail that limits held at the start, a second apart, and that waits for
// these buckets; the first is the account's.
func (s *site) wait(recipients int, buckets []string, ids ...string) {
	s.t.Helper()
	s.waitOf(buckets[0], recipients, buckets, ids...)
}

func (s *site) waitOf(account string, recipients int, buckets []string, ids ...string) {
	s.t.Helper()
	for i, id := range ids {
		at := s.start.Add(time.Duration(i) * time.Second)
		w := policy.Waits{Origin: origin.Origin{UID: origin.NoUID}}
		w.Origin.Login.Value = strings.TrimPrefix(account, "login:")
		for _, b := range buckets {
			w.Keys = append(w.Keys, bucket(b))
			w.Charges = append(w.Charges, policy.WaitCharge{Limit: "volume", Value: b, Amount: int64(recipients)})
		}
		text, err := json.Marshal(w)
		if err != nil {
			s.t.Fatal(err)
		}
		d := journal.Decision{ID: "d" + strings.ToLower(id), Time: at, Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "volume", Account: account,
			QueueID: id, MailFrom: "taro@example.jp", Size: 1000, Recipients: recipients, UID: -1, Waits: text}
		if err := s.journal.Append(d); err != nil {
			s.t.Fatal(err)
		}
		s.mta.put(file(id, s.start))
		s.d.Room.Add(account, 1000)
		s.d.Enqueue(policy.Waiting{ID: d.ID, QueueID: id, HeldAt: at, Size: 1000, Recipients: recipients, Waits: &w})
	}
}

func bucket(value string) limit.Key { return limit.Key{Limit: "volume", Value: value} }

// pace is one tick, a second later.
func (s *site) pace() {
	s.t.Helper()
	s.now = s.now.Add(time.Second)
	s.d.Pace(s.t.Context(), s.now)
}

// goOn is pacing for a while, with a tick each step.
func (s *site) goOn(length, step time.Duration) {
	s.t.Helper()
	for end := s.now.Add(length); s.now.Before(end); {
		s.now = s.now.Add(step - time.Second)
		s.pace()
	}
}

func (s *site) wantDid(want ...string) {
	s.t.Helper()
	if got := s.mta.did(); !slices.Equal(got, want) {
		s.t.Errorf("the MTA did %q, want %q", got, want)
	}
}

func (s *site) wantWaiting(want int, value string) {
	s.t.Helper()
	if got := s.lines.Behind(bucket(value), value); got != want {
		s.t.Errorf("%d wait for %s, want %d", got, value, want)
	}
}

func TestPaceReleasesAsRoomReturns(t *testing.T) {
	s := paced(t, 2)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2", "A3A3A3", "A4A4A4", "A5A5A5")
	s.mta.before["release"] = func() error {
		s.wantState(journal.StateReleasing, "A1A1A1", "A2A2A2")
		if h := s.entries("A1A1A1")[0]; h.ChargeID != "release:da1a1a1" || s.till.paid[h.ChargeID] != 1 {
			t.Errorf("before it is released the journal has charge %q, paid %d times", h.ChargeID, s.till.paid[h.ChargeID])
		}
		return nil
	}
	var went []string
	s.mta.tooOld["A2A2A2"] = "A9A9A9"
	s.d.Released = func(_ time.Time, w policy.Waiting, paid policy.Paid) {
		went = append(went, fmt.Sprint(w.QueueID, " ", w.ID, " ", len(paid.Charges)))
	}
	s.pace()
	s.mta.before = map[string]func() error{}
	s.wantState(journal.StateReleased, "A1A1A1", "A2A2A2")
	if want := []string{"A1A1A1 da1a1a1 1", "A9A9A9 da2a2a2 1"}; !slices.Equal(went, want) {
		t.Errorf("told that %q went, want %q", went, want)
	}
	s.wantState(journal.StateHeld, "A3A3A3")
	s.wantWaiting(3, taro)
	s.wantRoom(3)
	if n := s.mta.calls["release"]; n != 1 {
		t.Errorf("%d calls of the queue, want one", n)
	}
	if h := s.entries("A1A1A1")[0]; h.ChangedBy != "relayguard" || !strings.Contains(h.ChangeReason, "room") {
		t.Errorf("entry: %+v, want who released it and why", h)
	}
	asked := s.till.asked
	s.goOn(30*time.Minute, time.Second)
	if more := s.till.asked - asked; more != 0 {
		t.Errorf("the limits were asked %d times before there could be room", more)
	}
	s.goOn(3*time.Hour, 10*time.Second)
	s.wantDid("release A1A1A1", "release A2A2A2", "release A3A3A3", "release A4A4A4", "release A5A5A5")
	s.wantWaiting(0, taro)
	s.wantRoom(0)
	if gap := s.till.at["release:da3a3a3"].Sub(s.till.at["release:da1a1a1"]); gap < time.Hour || gap > time.Hour*17/16+time.Minute {
		t.Errorf("the third went %v after the first, want an hour", gap)
	}
}

func TestPaceWaitsForEveryBucket(t *testing.T) {
	s := paced(t, 2)
	const domain = "domain:example.jp"
	s.wait(1, []string{taro, domain}, "A1A1A1", "A2A2A2", "A3A3A3")
	s.waitOf(hanako, 2, []string{domain}, "B1B1B1") // as old as the first
	s.wait(1, []string{hanako}, "C1C1C1")
	s.pace()
	s.wantState(journal.StateReleased, "A1A1A1", "A2A2A2", "C1C1C1") // B1B1B1 is older than A2A2A2, and another's
	s.wantState(journal.StateHeld, "A3A3A3", "B1B1B1")
	s.wantWaiting(1, taro)
	lines := s.d.Lines(s.now)
	slices.SortFunc(lines, func(a, b desk.Line) int { return strings.Compare(a.Key+a.Account, b.Key+b.Account) })
	var got []string
	for _, l := range lines {
		got = append(got, fmt.Sprint(l.Key, " ", l.Account, " ", l.Waiting, " ", l.QueueID))
	}
	if want := []string{domain + " " + hanako + " 1 B1B1B1", domain + " " + taro + " 1 A3A3A3", taro + " " + taro + " 1 A3A3A3"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	s.goOn(6*time.Hour, 10*time.Second)
	s.wantState(journal.StateReleased, "A3A3A3", "B1B1B1")
}

// What is stopped, or too much for what room there is, stops the mail of no other
// account under the same limit.
func TestPaceOfAccountsThatShareALimit(t *testing.T) {
	for name, stop := range map[string]func(*site){
		"suspended": func(s *site) { s.suspend(taro) },
		"paused": func(s *site) {
			if _, err := s.d.Set(s.now, admin, policy.Switch{Kind: policy.Pause, Subject: policy.SubjectLogin, Value: "taro@example.jp", Reason: "complaint"}); err != nil {
				s.t.Fatal(err)
			}
		},
		"abuse": func(s *site) { s.till.abused[taro] = true },
		"bounces": func(s *site) {
			s.waitOf(taro, 4, []string{"server"}, "F1F1F1")
			s.pace()
			s.d.Outcome("F1F1F1", "bounced", 4)
			s.goOn(2*time.Hour, 10*time.Second)
		},
		"too large for what room there is": func(s *site) {
			s.waitOf(taro, 1, []string{"server"}, "F1F1F1")
			s.pace()
			s.waitOf(taro, 4, []string{"server"}, "A0A0A0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := paced(t, 4)
			stop(s)
			s.waitOf(taro, 3, []string{"server"}, "A1A1A1", "A2A2A2")
			s.start = s.start.Add(time.Minute) // later
			s.waitOf(hanako, 1, []string{"server"}, "B1B1B1", "B2B2B2", "B3B3B3")
			s.goOn(time.Minute, time.Second)
			s.wantState(journal.StateReleased, "B1B1B1", "B2B2B2", "B3B3B3")
			s.wantState(journal.StateHeld, "A1A1A1", "A2A2A2")
		})
	}
}

// An account with much mail gets no more of what all share than one with little.
func TestPaceSharesRoomFairly(t *testing.T) {
	s := paced(t, 4)
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("A%05X", i))
	}
	s.waitOf(taro, 1, []string{"server"}, many...)
	s.start = s.start.Add(time.Minute) // later
	s.waitOf(hanako, 1, []string{"server"}, "B1B1B1", "B2B2B2", "B3B3B3")
	s.goOn(2*time.Hour, 10*time.Second)
	s.wantState(journal.StateReleased, "B1B1B1", "B2B2B2", "B3B3B3")
	if n := len(s.mta.did()); n < 7 || n > 8 {
		t.Errorf("%d went in two hours, want what the limit lets through", n)
	}
}

func TestPaceLeavesWhatNeverFits(t *testing.T) {
	s := paced(t, 2)
	s.wait(3, []string{taro}, "A1A1A1")
	s.wait(1, []string{taro}, "A2A2A2")
	s.pace()
	s.wantState(journal.StateReleased, "A2A2A2")
	s.wantState(journal.StateHeld, "A1A1A1")
	if h := s.entries("A1A1A1")[0]; h.ChangeReason != "it never fits, so it is not released by itself: volume: 0 of 2 recipients in 1h used by login:taro@example.jp, this message has 3; more than may ever be in one message" {
		t.Errorf("the note is %q", h.ChangeReason)
	}
	s.reconcile()
	s.goOn(2*time.Hour, time.Minute)
	s.wantWaiting(0, taro)
	s.wantState(journal.StateHeld, "A1A1A1")
	if r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); r.Counts["done"] != 1 || err != nil {
		t.Errorf("an admin's release: %+v, %v", r, err)
	}
	if s.till.paid["release:da1a1a1"] != 0 {
		t.Error("an admin's release was charged")
	}
}

func TestPaceNeverReleasesWhatIsStale(t *testing.T) {
	s := paced(t, 1)
	s.till.pacing.MaxAge = 90 * time.Minute
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2", "A3A3A3", "A4A4A4")
	s.pace()
	s.wantState(journal.StateReleased, "A1A1A1")
	s.goOn(29*time.Minute, 10*time.Second) // it was held an hour before
	s.wantWaiting(3, taro)
	s.goOn(10*time.Hour, 10*time.Second)
	s.wantDid("release A1A1A1")
	s.wantWaiting(0, taro)
	s.reconcile()
	s.restart()
	s.goOn(time.Hour, time.Minute)
	s.wantDid("release A1A1A1")
	s.wantState(journal.StateHeld, "A2A2A2", "A3A3A3", "A4A4A4")
	if h := s.entries("A2A2A2")[0]; !strings.Contains(h.ChangeReason, "hold.max_age (1h30m0s)") {
		t.Errorf("the note is %q", h.ChangeReason)
	}
}

func TestPaceStops(t *testing.T) {
	set := func(sw policy.Switch) func(*site) {
		return func(s *site) {
			if _, err := s.d.Set(s.now, admin, sw); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	lift := func(kind policy.SwitchKind) func(*site) {
		return func(s *site) {
			if _, err := s.d.Lift(s.now, admin, kind, taro, "it is well"); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		stop, again func(*site)
		why         string
	}{
		"red switch": {func(s *site) { _, _ = s.d.Stop(s.t.Context(), s.now, admin, "x") }, func(s *site) { _, _ = s.d.Start(s.t.Context(), s.now, admin, "x", true) }, "stopped"},
		"suspended": {func(s *site) { s.suspend(taro) }, func(s *site) {
			_, _ = s.d.Resume(s.t.Context(), s.now, admin, desk.Resumption{Account: taro})
			lift(policy.Probation)(s) // half of the limit is less than one message has
		}, "suspended: "},
		"paused": {set(policy.Switch{Kind: policy.Pause, Subject: policy.SubjectLogin, Value: "taro@example.jp", Reason: "to look"}), lift(policy.Pause), "paused: to look"},
		"complaint": {func(s *site) {
			set(policy.Switch{Kind: policy.Pause, Subject: policy.SubjectLogin, Value: "taro@example.jp", Reason: "complaint of 2 March"})(s)
			if n := len(s.told); n != 1 || s.told[0] != taro+": nothing held of it is released by itself any more, by root: complaint of 2 March" {
				s.t.Errorf("the incident's time line has %q", s.told)
			}
		}, lift(policy.Pause), "paused: complaint of 2 March"},
		"abuse":     {func(s *site) { s.till.abused[taro] = true }, func(s *site) { s.till.abused[taro] = false }, "an incident of abuse is open"},
		"bounces":   {nil, func(s *site) { _, _ = s.d.Resume(s.t.Context(), s.now, admin, desk.Resumption{Account: taro}) }, "3 of 4 recipients"},
		"no pacing": {func(s *site) { s.till.pacing.Release = false }, func(s *site) { s.till.pacing.Release = true; s.reconcile() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := paced(t, 4)
			s.wait(4, []string{taro}, "A1A1A1", "A2A2A2")
			s.wait(1, []string{hanako}, "B1B1B1", "B2B2B2")
			if c.stop != nil {
				c.stop(s)
			} else {
				s.pace()
				s.d.Outcome("A1A1A1", "sent", 1)
				s.d.Outcome("A1A1A1", "bounced", 2)
				s.d.Outcome("A1A1A1", "expired", 1)
			}
			s.goOn(2*time.Hour, 5*time.Second)
			s.wantState(journal.StateHeld, "A2A2A2")
			if others := map[bool]journal.State{false: journal.StateReleased, true: journal.StateHeld}[name == "red switch" || name == "no pacing"]; s.state("B2B2B2") != others {
				t.Errorf("the other line's mail is %s, want %s", s.state("B2B2B2"), others)
			}
			lines := s.d.Lines(s.now)
			i := slices.IndexFunc(lines, func(l desk.Line) bool { return l.Key == taro })
			if (i < 0) != (c.why == "") || i >= 0 && !strings.HasPrefix(lines[i].Stopped, c.why) && !strings.Contains(lines[i].Stopped, c.why) {
				t.Errorf("lines %+v, want it stopped for %q", lines, c.why)
			}
			c.again(s)
			s.goOn(2*time.Hour, 5*time.Second)
			s.wantState(journal.StateReleased, "A1A1A1", "A2A2A2", "B2B2B2")
		})
	}
}

func TestPaceStopsByManyBouncesOnly(t *testing.T) {
	s := paced(t, 1000)
	var all []string
	for i := range 60 {
		all = append(all, fmt.Sprintf("A%05X", i))
	}
	s.wait(1, []string{taro}, all...)
	s.pace()
	s.wantDid(func() (did []string) {
		for _, id := range all {
			did = append(did, "release "+id)
		}
		return did
	}()...)
	s.wait(1, []string{taro}, "B1B1B1")
	s.d.Outcome(all[0], "bounced", 100) // one recipient: more is not true
	s.d.Outcome(all[0], "bounced", 1)   // the line was read twice
	s.d.Requeued(all[1], "C1C1C1", s.now)
	s.d.Outcome("C1C1C1", "bounced", 1)
	s.d.Outcome("F1F1F1", "bounced", 50) // not ours
	s.pace()
	s.wantState(journal.StateReleased, "B1B1B1") // 2 are few
	s.wait(1, []string{taro}, "B2B2B2")
	s.d.Outcome(all[2], "bounced", 1)
	s.pace()
	s.wantState(journal.StateReleased, "B2B2B2") // 3 of 61 are 4.9 %
	s.wait(1, []string{taro}, "B3B3B3")
	s.d.Outcome(all[3], "expired", 1)
	s.goOn(10*time.Minute, time.Second)
	s.wantState(journal.StateHeld, "B3B3B3") // 4 of 62
	if n := strings.Count(s.log.String(), "4 of 62 recipients"); n != 1 {
		t.Errorf("told %d times: %s", n, s.log)
	}
	want := "bounces: held mail of " + taro + " under volume is no longer released by itself: 4 of 62 recipients"
	if n := s.till.notices; len(n) != 1 || !strings.HasPrefix(n[0], want) || len(s.told) != 1 || !strings.HasPrefix(s.told[0], taro+": what volume held") {
		t.Errorf("notices %q, the incident's %q", n, s.told)
	}
	s.goOn(25*time.Hour, time.Minute)
	s.wait(1, []string{taro}, "B4B4B4") // a day later that says nothing any more
	s.pace()
	s.wantState(journal.StateHeld, "B4B4B4") // held a day ago, that is
}

func TestPaceIsBoundedAndFair(t *testing.T) {
	s := paced(t, 1000)
	var a, b []string
	for i := range 150 {
		a, b = append(a, fmt.Sprintf("A%05X", i)), append(b, fmt.Sprintf("B%05X", i))
	}
	s.wait(1, []string{taro}, a...)
	s.wait(1, []string{hanako}, b...)
	for tick, want := range []int{100, 200, 300} {
		s.pace()
		did := s.mta.did()
		if len(did) != want || s.mta.calls["release"] != tick+1 {
			t.Fatalf("tick %d: %d released by %d calls, want %d and one more", tick, len(did), s.mta.calls["release"], want)
		}
		for _, line := range []string{"release A", "release B"} {
			if n := len(slices.DeleteFunc(slices.Clone(did), func(act string) bool { return !strings.HasPrefix(act, line) })); n != want/2 {
				t.Errorf("tick %d: %d of one line, want half of %d", tick, n, want)
			}
		}
	}
}

// One look at a queue of 100,000 takes up to 14 s; with one each second the guard
// would bring the server down.
func TestPaceLooksSeldomAtALargeQueue(t *testing.T) {
	s := paced(t, 1000)
	var looks int
	var clock time.Duration
	s.d.Clock = func() time.Time { return s.start.Add(clock) }
	s.mta.before["list"] = func() error {
		looks, clock = looks+1, clock+700*time.Millisecond
		return nil
	}
	var all []string
	for i := range 600 {
		all = append(all, fmt.Sprintf("A%05X", i))
	}
	s.wait(1, []string{taro}, all...)
	for tick := range 14 {
		if s.pace(); looks != 1 || len(s.mta.did()) != 100 {
			t.Fatalf("tick %d: %d looks, %d released; want 1 and 100", tick, looks, len(s.mta.did()))
		}
	}
	if s.pace(); looks != 2 || len(s.mta.did()) != 600 {
		t.Errorf("20 times as long after it: %d looks, %d released; want 2, and all others", looks, len(s.mta.did()))
	}
	if s.goOn(time.Minute, time.Second); looks != 2 {
		t.Errorf("%d looks, and nothing is due", looks)
	}
}

func TestPaceLooksSeldomAtALargeQueueThatIsAway(t *testing.T) {
	s := paced(t, 1000)
	var looks int
	var clock time.Duration
	s.d.Clock = func() time.Time { return s.start.Add(clock) }
	s.mta.before["list"] = func() error {
		looks, clock = looks+1, clock+10*time.Second
		return errors.New("the queue is away")
	}
	s.wait(1, []string{taro}, "A1A1A1")
	if s.goOn(199*time.Second, time.Second); looks != 1 {
		t.Errorf("%d looks in 199 s, want 1", looks)
	}
}

func TestPaceLooksAtSoManyLinesOnly(t *testing.T) {
	s := paced(t, 1)
	for i := range 1500 {
		s.lines.Add(policy.Waiting{ID: fmt.Sprint("d", i), QueueID: fmt.Sprint("Q", i), HeldAt: s.start, Waits: &policy.Waits{
			Keys: []limit.Key{bucket(fmt.Sprint("login:", i))}, Charges: []policy.WaitCharge{{Limit: "volume", Value: "full", Amount: 1}}}})
	}
	full := &policy.Waits{Charges: []policy.WaitCharge{{Limit: "volume", Value: "full", Amount: 1}}}
	if did, err := s.till.pay(t.Context(), s.now, full, "before"); !did.Taken || err != nil {
		t.Fatal(did, err)
	}
	s.till.asked = 0
	for tick, want := range []int{1000, 1500, 1500} {
		s.pace()
		if s.till.asked != want {
			t.Errorf("tick %d: asked about %d in all, want %d", tick, s.till.asked, want)
		}
	}
}

func TestPaceWaitsUntilItIsInTheQueue(t *testing.T) {
	s := paced(t, 10)
	s.start = s.now // just held
	s.wait(1, []string{taro}, "A1A1A1")
	s.mta.remove("A1A1A1")
	s.pace()
	if s.till.asked != 0 {
		t.Error("paid for what the queue does not have yet")
	}
	s.mta.put(file("A1A1A1", s.start))
	s.pace()
	s.wantState(journal.StateReleased, "A1A1A1")
}

func TestPaceOfWhatIsGone(t *testing.T) {
	s := paced(t, 1)
	s.wait(1, []string{taro}, "A1A1A1", "A2A2A2", "A3A3A3")
	s.mta.remove("A1A1A1")
	s.mta.remove("A2A2A2")
	s.pace() // paid for the first
	s.wantState(journal.StateGone, "A1A1A1")
	s.reconcile()
	s.wantWaiting(2, taro)
	s.reconcile()
	s.wantState(journal.StateGone, "A2A2A2")
	s.wantWaiting(1, taro)
	s.goOn(90*time.Minute, 10*time.Second)
	s.wantDid("release A3A3A3")
	s.wantRoom(0)
}

func TestLinesAreThereAfterAStart(t *testing.T) {
	s := paced(t, 1)
	s.wait(1, []string{taro}, "A2A2A2", "A3A3A3")
	s.hold(taro, "abuse", "B1B1B1") // nothing is known of what it waits for
	s.restart()
	s.wantWaiting(2, taro)
	list, err := s.d.List(t.Context(), s.now, desk.Filter{})
	if err != nil || len(list.Held) != 3 {
		t.Fatal(list, err)
	}
	for _, h := range list.Held {
		if want := h.Rule == "volume"; h.Paced != want {
			t.Errorf("%s is listed as released by itself: %t, want %t", h.QueueID, h.Paced, want)
		}
	}
	s.pace()
	s.wantDid("release A2A2A2")
	l := s.d.Lines(s.now)
	if len(l) != 1 || l[0].Limit != "volume" || l[0].Account != taro || l[0].Waiting != 1 || l[0].QueueID != "A3A3A3" || l[0].Stopped != "" {
		t.Errorf("lines %+v", l)
	}
	s.pace()
	if l = s.d.Lines(s.now); len(l) != 1 || l[0].NextFree.Sub(s.now) < 59*time.Minute {
		t.Errorf("lines %+v, want when it is free", l)
	}
	s.till.windows = []limit.Window{{Count: 10, Length: time.Hour}} // an admin has set more
	s.d.Hurry()
	s.pace()
	s.wantDid("release A2A2A2", "release A3A3A3")
}

func TestReminder(t *testing.T) {
	s := paced(t, 1)
	s.till.pacing.RemindAfter = 24 * time.Hour
	s.hold(taro, "abuse", "A1A1A1", "A2A2A2")
	for i := range 7 {
		s.hold(fmt.Sprintf("login:%s%d@example.jp", strings.Repeat("x", 100*(i/6)), i), "abuse", fmt.Sprintf("B%05X", i))
	}
	s.wait(1, []string{hanako}, "C1C1C1") // that goes by itself
	remind := func(length time.Duration) {
		for end := s.now.Add(length); s.now.Before(end); {
			s.now = s.now.Add(time.Minute)
			s.d.Remind(t.Context(), s.now)
		}
	}
	remind(22 * time.Hour)
	if len(s.till.notices) != 0 {
		t.Fatalf("reminded after less than a day: %q", s.till.notices)
	}
	remind(2 * time.Hour)
	want := "held: 9 held messages wait for you for more than 24h, the oldest since " + s.start.Format("2006-01-02 15:04Z") + ": login:taro@example.jp 2, login:0@example.jp 1,"
	if n := s.till.notices; len(n) != 1 || !strings.HasPrefix(n[0], want) || !strings.HasSuffix(n[0], " and 3 other accounts; relayguard held list --older-than 24h") {
		t.Fatalf("notices %q, want %q", n, want)
	}
	for range 10 { // a daemon that dies and is started again
		remind(time.Hour)
		s.restart()
	}
	remind(12 * time.Hour)
	if len(s.till.notices) != 1 {
		t.Errorf("reminded more than once a day: %q", s.till.notices)
	}
	remind(3 * time.Hour)
	if len(s.till.notices) != 2 {
		t.Errorf("%d reminders on the second day", len(s.till.notices))
	}
	s.wantDid()
}

func TestDeleteAfter(t *testing.T) {
	s := paced(t, 1)
	s.hold(taro, "abuse", "A1A1A1")
	s.hold(taro, policy.RuleStopped, "B1B1B1")
	s.wait(1, []string{hanako}, "C1C1C1")
	s.now = s.now.Add(24 * 365 * time.Hour)
	s.d.Remind(t.Context(), s.now)
	s.wantDid() // unless it is configured
	s.till.pacing.DeleteAfter = 30 * 24 * time.Hour
	s.mta.before["delete"] = func() error {
		if got := s.actions(); len(got) != 1 || got[0] != "held delete 1 messages: nobody claimed it for hold.delete_after" {
			t.Errorf("audited before the deed: %q", got)
		}
		return nil
	}
	s.d.Remind(t.Context(), s.now)
	s.d.Remind(t.Context(), s.now)
	s.wantDid("delete A1A1A1")
	s.wantState(journal.StateDeleted, "A1A1A1")
	s.wantState(journal.StateHeld, "B1B1B1", "C1C1C1")
	if !slices.Equal(s.mta.grace, []string{"A1A1A1"}) {
		t.Errorf("copies kept: %q", s.mta.grace)
	}
}

var errAway = errors.New("the store is away")
