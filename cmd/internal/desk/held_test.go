package desk_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/desk"
	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// orders are both acts, with their states.
var orders = []struct {
	verb        string
	asked, done journal.State
	queue       string // where the message is afterwards
	act         func(*desk.Desk, context.Context, time.Time, desk.By, desk.HeldOrder) (desk.Report, error)
}{
	{"release", journal.StateReleasing, journal.StateReleased, "active", release},
	{"delete", journal.StateDeleting, journal.StateDeleted, "", deleteHeld},
}

func TestReleaseAndDelete(t *testing.T) {
	for _, o := range orders {
		t.Run(o.verb, func(t *testing.T) {
			s := open(t)
			s.hold(taro, "volume", "A1A1A1", "A2A2A2")
			s.hold(hanako, "volume", "B1B1B1")
			s.mta.before[o.verb] = func() error {
				s.wantState(o.asked, "A1A1A1", "A2A2A2")
				if got := s.actions(); len(got) != 1 || got[0] != "held "+o.verb+" 2 messages: checked" {
					t.Errorf("audited before the deed: %q", got)
				}
				return nil
			}
			r, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: taro}, Reason: "checked"})
			if err != nil || r.Counts["done"] != 2 || len(r.Messages) != 2 || r.Bytes != 2000 {
				t.Fatalf("got %+v, %v, want both done", r, err)
			}
			s.wantState(o.done, "A1A1A1", "A2A2A2")
			s.wantIn(o.queue, "A1A1A1", "A2A2A2")
			s.wantState(journal.StateHeld, "B1B1B1")
			s.wantIn("hold", "B1B1B1")
			s.wantRoom(1)
			if h := s.entries("A1A1A1")[0]; h.ChangedBy != "root" || h.ChangeReason != "checked" {
				t.Errorf("entry: %+v, want who did it and why", h)
			}
			if r, err = o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err != nil || len(r.Unknown) != 1 {
				t.Errorf("again: %+v, %v, want an id that is not known", r, err)
			}
			if n := s.mta.calls[o.verb]; n != 1 {
				t.Errorf("the MTA was asked %d times, want once", n)
			}
		})
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	for _, o := range orders {
		s := open(t)
		s.hold(taro, "volume", "A1A1A1")
		before := s.entries("A1A1A1")
		r, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{All: true}, DryRun: true, Reason: "to see"})
		if err != nil || !r.DryRun || r.Counts["would"] != 1 {
			t.Errorf("%s: %+v, %v, want that it would", o.verb, r, err)
		}
		if after := s.entries("A1A1A1"); !reflect.DeepEqual(before, after) || len(s.mta.did()) != 0 || len(s.actions()) != 0 {
			t.Errorf("%s: the entry is %+v, the MTA did %q, journaled %q; want nothing changed", o.verb, after, s.mta.did(), s.actions())
		}
		s.wantRoom(1)
	}
}

func TestEverythingMustBeSaid(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	for _, o := range orders {
		if _, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{}); !errors.Is(err, desk.ErrEverything) || !errors.Is(err, desk.ErrUsage) {
			t.Errorf("%s of nothing in particular: %v, want ErrEverything", o.verb, err)
		}
	}
	s.wantIn("hold", "A1A1A1")
}

func TestFilters(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.hold(hanako, "abuse", "B1B1B1")
	s.hold("local_user:www-data", "abuse", "C1C1C1")
	late := s.now.Add(-time.Minute)
	s.decide(policy.Hold, taro, "abuse", "A2A2A2", late)
	s.mta.put(file("A2A2A2", late))
	for id, site := range map[string]string{"S1S1S1": "shop.example.jp", "S2S2S2": "blog.example.jp"} {
		d := journal.Decision{ID: strings.ToLower("d" + id), Time: s.start, Stage: journal.StageMessage, Verdict: policy.Hold, Rule: "plugin", Account: "local_user:www-data", QueueID: id,
			MailFrom: "wordpress@" + site, Site: site, SiteBy: "signed", Plugin: "share", PluginBy: "signed"}
		if err := s.journal.Append(d); err != nil {
			t.Fatal(err)
		}
		s.mta.put(file(id, s.start))
	}
	for _, c := range []struct {
		f    desk.Filter
		want string
	}{
		{desk.Filter{Account: taro}, "A1A1A1 A2A2A2"},
		{desk.Filter{Login: "hanako@example.jp"}, "B1B1B1"},
		{desk.Filter{LocalUser: "www-data", Rule: "abuse"}, "C1C1C1"},
		{desk.Filter{Site: "shop.example.jp"}, "S1S1S1"},
		{desk.Filter{Site: "blog.example.jp", Plugin: "share"}, "S2S2S2"},
		{desk.Filter{Plugin: "other"}, ""},
		{desk.Filter{Rule: "abuse", Account: taro}, "A2A2A2"},
		{desk.Filter{OlderThan: 10 * time.Minute, Account: taro}, "A1A1A1"},
		{desk.Filter{NewerThan: 10 * time.Minute}, "A2A2A2"},
		{desk.Filter{MailFrom: "<taro@example.jp>", Limit: 1, Account: taro}, "A1A1A1"},
		{desk.Filter{MailFrom: "<>"}, ""},
		{desk.Filter{IDs: []string{"da1a1a1"}}, "A1A1A1"},
	} {
		r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: c.f, DryRun: true})
		var got []string
		for _, m := range r.Messages {
			got = append(got, m.QueueID)
		}
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("%+v: got %q, %v, want %q", c.f, got, err, c.want)
		}
	}
}

// What others hold is theirs, and that a milter held a message is no proof that
// we did.
func TestBulkLeavesForeignAndLostHolds(t *testing.T) {
	for _, o := range orders {
		s := open(t)
		s.hold(taro, "volume", "A1A1A1")
		s.mta.put(file("F1F1F1", s.start))
		s.mta.put(file("E1E1E1", s.start))
		s.d.HeldByMilter("E1E1E1", s.start.Add(time.Second))
		s.reconcile()
		if s.state("E1E1E1") != journal.StateHeld || s.state("F1F1F1") != "" {
			t.Fatalf("E1E1E1 is %q, F1F1F1 %q; want only the first adopted", s.state("E1E1E1"), s.state("F1F1F1"))
		}
		r, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{All: true}})
		if got := outcomes(r); len(got) != 1 || got["A1A1A1"] != "done" || err != nil {
			t.Errorf("%s --all: %v, %v, want ours alone", o.verb, got, err)
		}
		r, err = o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: "unknown"}})
		if len(r.Messages) != 0 || err != nil {
			t.Errorf("%s --account unknown: %+v, %v, want nothing", o.verb, r, err)
		}
		r, err = o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("F1F1F1")})
		if len(r.Messages) != 0 || len(r.Unknown) != 1 || err != nil {
			t.Errorf("%s of a foreign id: %+v, %v, want it unknown", o.verb, r, err)
		}
		s.wantIn("hold", "E1E1E1", "F1F1F1")
		r, err = o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("E1E1E1")})
		if r.Counts["done"] != 1 || err != nil {
			t.Errorf("%s of a lost one by its id: %+v, %v, want it done", o.verb, r, err)
		}
		s.wantIn(o.queue, "E1E1E1")
		s.wantIn("hold", "F1F1F1")
	}
}

func TestAnIDThatIsAnothersByNow(t *testing.T) {
	for _, o := range orders {
		s := open(t)
		s.hold(taro, "volume", "A1A1A1", "A2A2A2", "A3A3A3")
		s.mta.remove("A1A1A1")
		other := file("A1A1A1", s.start.Add(10*time.Minute))
		other.Sender = "somebody@example.org"
		s.mta.put(other)
		s.mta.remove("A2A2A2")
		r, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1", "A2A2A2", "A3A3A3")})
		if want := map[string]string{"A1A1A1": "changed", "A2A2A2": "gone", "A3A3A3": "done"}; !reflect.DeepEqual(outcomes(r), want) || err != nil {
			t.Errorf("%s: %v, %v, want %v", o.verb, outcomes(r), err, want)
		}
		s.wantIn("hold", "A1A1A1")
		s.wantState(journal.StateGone, "A1A1A1", "A2A2A2")
		s.wantRoom(0)
	}
}

// The MTA looks once more; what it finds changed stands.
func TestAnIDThatChangesDuringTheAct(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.before["delete"] = func() error {
		s.mta.remove("A1A1A1")
		s.mta.put(file("A1A1A1", s.start.Add(10*time.Minute)))
		return nil
	}
	r, err := deleteHeld(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")})
	if r.Counts["changed"] != 1 || err != nil {
		t.Errorf("got %+v, %v, want changed", r, err)
	}
	s.wantIn("hold", "A1A1A1")
	s.wantState(journal.StateGone, "A1A1A1")
}

// Two admins, two orders for one message: the second chose it while the first
// was at work, and waits.
func TestFirstOutcomeStands(t *testing.T) {
	for i, first := range orders {
		second := orders[1-i]
		s := open(t)
		s.hold(taro, "volume", "A1A1A1")
		s.hold(taro, "other", "A2A2A2")
		others := make(chan desk.Report)
		s.mta.before[first.verb] = func() error {
			go func() {
				r, err := second.act(s.d, t.Context(), s.now, desk.By{Name: "jiro"}, desk.HeldOrder{Filter: ids("A1A1A1"), Reason: "mine"})
				if err != nil {
					t.Error(err)
				}
				others <- r
			}()
			deadline := time.Now().Add(10 * time.Second)
			for len(s.actions()) < 2 && time.Now().Before(deadline) { // it has chosen
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		r, err := first.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1"), Reason: "first"})
		if r.Counts["done"] != 1 || err != nil {
			t.Errorf("%s: %+v, %v, want done", first.verb, r, err)
		}
		if r := <-others; r.Counts["gone"] != 1 {
			t.Errorf("%s after %s: %+v, want gone", second.verb, first.verb, r)
		}
		s.wantState(first.done, "A1A1A1")
		s.wantIn(first.queue, "A1A1A1")
		if h := s.entries("A1A1A1")[0]; h.ChangedBy != "root" || h.ChangeReason != "first" {
			t.Errorf("entry: %+v, want the first one's", h)
		}
		s.wantRoom(1) // given once
	}
}

// The daemon, or its link to the MTA, ends in the middle.
func TestAnActCutOffIsCompleted(t *testing.T) {
	cut := func() error { return fmt.Errorf("ask the root helper: %w", context.Canceled) }
	for _, o := range orders {
		for name, prepare := range map[string]func(m *mailServer){
			"before it was done":           func(m *mailServer) { m.before[o.verb] = cut },
			"after it was done":            func(m *mailServer) { m.after[o.verb] = cut },
			"unsure and not done":          func(m *mailServer) { m.unsure["A1A1A1"] = false },
			"unsure and done":              func(m *mailServer) { m.unsure["A1A1A1"] = true },
			"after, and the daemon is new": func(m *mailServer) { m.after[o.verb] = cut },
		} {
			t.Run(o.verb+" "+name, func(t *testing.T) {
				s := open(t)
				s.hold(taro, "volume", "A1A1A1", "A2A2A2")
				prepare(s.mta)
				r, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1"), Reason: "checked"})
				if unsure := strings.HasPrefix(name, "unsure"); unsure != (err == nil) || unsure && r.Counts["failed"] != 1 {
					t.Fatalf("got %+v, %v", r, err)
				}
				s.wantState(o.asked, "A1A1A1")
				s.mta.before, s.mta.after, s.mta.unsure = map[string]func() error{}, map[string]func() error{}, map[string]bool{}
				if strings.Contains(name, "new") {
					s.restart()
				}
				s.reconcile()
				s.reconcile()
				s.wantState(o.done, "A1A1A1")
				s.wantIn(o.queue, "A1A1A1")
				s.wantState(journal.StateHeld, "A2A2A2")
				s.wantRoom(1)
				did := s.mta.did()
				if want := o.verb + " A1A1A1"; !slices.Equal(did, []string{want}) {
					t.Errorf("the MTA did %q, want %q once", did, want)
				}
			})
		}
	}
}

// A second order meets one that was cut off after it was done: what was done
// stands, whatever the second one wanted.
func TestOrderAfterOneThatWasCutOff(t *testing.T) {
	for i, first := range orders {
		for n, second := range []int{i, 1 - i, i, 1 - i} {
			s := open(t)
			s.hold(taro, "volume", "A1A1A1")
			s.mta.after[first.verb] = func() error { return context.DeadlineExceeded }
			if _, err := first.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err == nil {
				t.Fatal("a cut was not told")
			}
			if n > 1 { // the queue cannot be read whole
				s.mta.skipped = 1
			}
			if _, err := orders[second].act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err != nil {
				t.Fatal(err)
			}
			s.mta.skipped = 0
			s.reconcile()
			s.reconcile()
			s.wantState(first.done, "A1A1A1")
			s.wantRoom(0)
		}
	}
}

func TestWhatCannotBeDoneStaysHeld(t *testing.T) {
	for _, o := range orders {
		s := open(t)
		s.hold(taro, "volume", "A1A1A1", "A2A2A2")
		s.mta.fails["A1A1A1"] = errors.New("postsuper: no space left")
		r, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1", "A2A2A2")})
		if got := outcomes(r); got["A1A1A1"] != "failed" || got["A2A2A2"] != "done" || err != nil {
			t.Errorf("%s: %v, %v", o.verb, got, err)
		}
		s.wantState(journal.StateHeld, "A1A1A1")
		if why := s.entries("A1A1A1")[0].ChangeReason; !strings.Contains(why, "no space left") {
			t.Errorf("the entry says %q", why)
		}
		s.mta.before[o.verb] = func() error { return errors.New("root helper not reachable") }
		s.mta.fails = map[string]error{}
		if _, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err == nil || !strings.Contains(err.Error(), "not reachable") {
			t.Errorf("%s without the helper: %v", o.verb, err)
		}
		s.wantState(journal.StateHeld, "A1A1A1")
		s.wantRoom(1)
		s.mta.before["list"] = func() error { return errors.New("no queue") }
		if _, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err == nil || !strings.Contains(err.Error(), "no queue") {
			t.Errorf("%s without a queue: %v", o.verb, err)
		}
		s.wantState(journal.StateHeld, "A1A1A1")
	}
}

// A message that one look did not see is not lost sight of.
func TestActThatMissesAMessage(t *testing.T) {
	for _, o := range orders {
		for _, partial := range []bool{false, true} {
			s := open(t)
			s.hold(taro, "volume", "A1A1A1")
			s.mta.miss["A1A1A1"] = 1
			if partial {
				s.mta.skipped = 1
			}
			if _, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err != nil {
				t.Fatal(err)
			}
			if partial && !s.state("A1A1A1").Open() {
				t.Errorf("%s: the queue could not be read whole, and the hold is %s", o.verb, s.state("A1A1A1"))
			}
			s.mta.skipped = 0
			s.reconcile()
			s.reconcile()
			s.wantEntries()
			if foreign, _ := s.d.Looked(); foreign != 0 {
				t.Errorf("%s: our message counts as foreign", o.verb)
			}
		}
	}
}

// The entry is written before the MTA is answered: an order may come between.
func TestActOnAMessageThatIsNotInTheQueueYet(t *testing.T) {
	for _, o := range orders {
		s := open(t)
		s.decide(policy.Hold, taro, "volume", "A1A1A1", s.now.Add(-100*time.Millisecond))
		s.d.Room.Add(taro, 1000)
		if _, err := o.act(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: ids("A1A1A1")}); err != nil {
			t.Fatal(err)
		}
		s.mta.put(file("A1A1A1", s.now.Add(-time.Second)))
		s.reconcile()
		s.reconcile()
		s.wantState(o.done, "A1A1A1")
		s.wantIn(o.queue, "A1A1A1")
		s.wantRoom(0)
	}
}

func TestReleaseThatWasNotStartedStands(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1", "A2A2A2")
	s.mta.remark = fmt.Errorf("release mail: %w", mta.ErrNotStarted)
	s.mta.tooOld["A2A2A2"] = "A9A9A9"
	r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{All: true}})
	if r.Counts["done"] != 2 || err != nil {
		t.Fatalf("got %+v, %v, want both done", r, err)
	}
	s.wantState(journal.StateReleased, "A1A1A1", "A2A2A2")
	if id := s.entries("A2A2A2")[0].NewQueueID; id != "A9A9A9" {
		t.Errorf("the new id of an old message is %q", id)
	}
	if !strings.Contains(s.log.String(), "delivery was not started") {
		t.Errorf("log: %s", s.log)
	}
}

func TestManyInParts(t *testing.T) {
	s := open(t)
	const n = 501 // one more than a batch
	records := make([]journal.Record, n)
	for i := range records {
		id := fmt.Sprintf("D%05X", i)
		records[i] = journal.Held{QueueID: id, Account: taro, Rule: "volume", Arrival: s.start.Truncate(time.Second), HeldAt: s.start, Size: 1000}
		s.mta.put(file(id, s.start))
	}
	if err := s.journal.Append(records...); err != nil {
		t.Fatal(err)
	}
	if err := s.journal.Journal.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	s.wantRoom(n)
	s.mta.before["release"] = func() error {
		if s.mta.calls["release"] == 2 {
			return errors.New("root helper not reachable")
		}
		return nil
	}
	r, err := release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: taro}})
	if r.Counts["done"] != 500 || err == nil {
		t.Fatalf("got %v, %v, want the first part told beside the error of the second", r.Counts, err)
	}
	s.wantRoom(1)
	s.mta.before = map[string]func() error{}
	r, err = release(s.d, t.Context(), s.now, admin, desk.HeldOrder{Filter: desk.Filter{Account: taro}})
	if r.Counts["done"] != 1 || err != nil {
		t.Fatalf("got %v, %v, want the rest", r.Counts, err)
	}
	s.wantRoom(0)
}

func TestListTellsOthersAndWhenItLooked(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1")
	s.mta.put(file("F1F1F1", s.start))
	l, err := s.d.List(t.Context(), s.now, desk.Filter{})
	if err != nil || len(l.Held) != 2 || l.Foreign != 1 || l.Held[0].HeldBy != "relayguard" || l.Held[1].HeldBy != "other" || !l.Looked.Equal(s.now) {
		t.Errorf("got %+v, %v", l, err)
	}
	if l, err = s.d.List(t.Context(), s.now, desk.Filter{Account: taro}); err != nil || len(l.Held) != 1 || l.Foreign != 1 {
		t.Errorf("of one account: %+v, %v", l, err)
	}
	s.mta.before["list"] = func() error { return errors.New("no queue") }
	later := s.now.Add(time.Minute)
	if l, err = s.d.List(t.Context(), later, desk.Filter{}); err != nil || len(l.Held) != 2 || l.Stale == "" || !l.Looked.Equal(s.now) {
		t.Errorf("without a queue: %+v, %v, want what was seen last, and since when", l, err)
	}
	// A look that failed right after a good one is no reason to show its error for a while.
	delete(s.mta.before, "list")
	s.reconcile()
	s.mta.before["list"] = func() error { return errors.New("no queue") }
	if err := s.d.Reconcile(t.Context(), s.now.Add(time.Millisecond)); err == nil {
		t.Fatal("a queue that cannot be listed is no error")
	}
	delete(s.mta.before, "list")
	if l, err = s.d.List(t.Context(), s.now.Add(2*time.Millisecond), desk.Filter{}); err != nil || l.Stale != "" {
		t.Errorf("the queue is there again: %+v, %v", l, err)
	}
}

func TestInspect(t *testing.T) {
	s := open(t)
	s.hold(taro, "volume", "A1A1A1", "A2A2A2")
	s.mta.texts["A1A1A1"] = "Subject: a\n"
	s.mta.texts["A2A2A2"] = "a long one..."
	for _, part := range []string{"headers", "content"} {
		s.mta.before[part] = func() error {
			if got := s.actions(); len(got) == 0 || got[0] != "held show --"+part+" A1A1A1: complaint 17" {
				t.Errorf("audited before it reads: %q", got)
			}
			return nil
		}
		got, err := s.d.Inspect(t.Context(), s.now, admin, desk.Look{ID: "A1A1A1", Part: part, Reason: "complaint 17"})
		if string(got.Text) != "Subject: a\n" || got.Cut || got.Account != taro || err != nil {
			t.Errorf("%s: %+v, %v", part, got, err)
		}
	}
	s.mta.before = map[string]func() error{}
	if got, err := s.d.Inspect(t.Context(), s.now, admin, desk.Look{ID: "da2a2a2", Part: "content", Reason: "x"}); string(got.Text) != "a long one" || !got.Cut || err != nil {
		t.Errorf("of a long one: %+v, %v, want its beginning", got, err)
	}
	seen := len(s.mta.did())
	for _, l := range []desk.Look{{"A1A1A1", "content", ""}, {"A1A1A1", "content", " \t"}, {"A1A1A1", "", "why"}, {"A1A1A1", "all", "why"}} {
		if _, err := s.d.Inspect(t.Context(), s.now, admin, l); !errors.Is(err, desk.ErrUsage) {
			t.Errorf("%+v: %v, want ErrUsage", l, err)
		}
	}
	s.mta.put(file("F1F1F1", s.start))
	if _, err := s.d.Inspect(t.Context(), s.now, admin, desk.Look{ID: "F1F1F1", Part: "headers", Reason: "x"}); !errors.Is(err, desk.ErrNotHeld) {
		t.Errorf("of somebody else's: %v, want ErrNotHeld", err)
	}
	s.journal.set(nil, errors.New("disk full"), nil)
	if got, err := s.d.Inspect(t.Context(), s.now, admin, desk.Look{ID: "A1A1A1", Part: "headers", Reason: "x"}); err == nil || len(got.Text) > 0 {
		t.Errorf("without a journal: %+v, %v, want no look", got, err)
	}
	s.journal.set(nil, nil, nil)
	s.mta.remove("A1A1A1")
	s.mta.put(file("A1A1A1", s.start.Add(time.Minute)))
	if _, err := s.d.Inspect(t.Context(), s.now, admin, desk.Look{ID: "A1A1A1", Part: "headers", Reason: "x"}); !errors.Is(err, desk.ErrNotHeld) {
		t.Errorf("of another's by now: %v, want ErrNotHeld", err)
	}
	if now := len(s.mta.did()); now != seen {
		t.Errorf("%d looks were refused and made", now-seen)
	}
}
