package watch_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
	"relayguard/rbl/watch"
)

// The first round comes within a minute, the others are Every apart, give or take a
// tenth, and not by a fixed step.
func TestRoundsAreMadeOnSchedule(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		began := time.Now()
		d.run()
		after(30 * 24 * time.Hour)
		rounds := d.lists.rounds()
		if first := rounds[0].Sub(began); first > time.Minute {
			t.Errorf("the first after %v", first)
		}
		gaps := map[time.Duration]bool{}
		for i := range rounds[1:] {
			gap := rounds[i+1].Sub(rounds[i])
			gaps[gap] = true
			if gap < every-every/10 || gap > every+every/10 {
				t.Errorf("%v between rounds", gap)
			}
		}
		if len(gaps) < len(rounds)/2 || len(rounds) < 100 {
			t.Errorf("%d rounds with %d gaps", len(rounds), len(gaps))
		}
		s := d.Status()
		if s.Last != rounds[len(rounds)-1] || s.Next.Sub(s.Last) < every-every/10 || s.Took != 10*time.Second || s.Running || s.Trouble != "" ||
			s.Queries["nxdomain"] != 2*int64(len(rounds)) || s.Queries["timeout"] != 0 {
			t.Errorf("%+v after %d rounds", s, len(rounds))
		}
	})
}

// A new listing is told once, when a second look has seen it too; so is its end.
func TestListingIsToldOnceConfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.set("a.example", ours, 2, 3)
		d.run()
		after(2 * time.Minute)
		if told := d.tellings(); told != nil || len(d.open()) != 2 {
			t.Fatalf("told before it was confirmed: %v; listings %v", told, d.open())
		}
		d.lists.noted()
		after(confirm)
		asked, told := d.lists.noted(), d.tellings()
		if len(asked) != 1 || !strings.HasSuffix(asked[0], "again a.example 203.0.113.5 by 127.0.0.1:53") || len(told) != 2 || !strings.Contains(told[0], "began a.example 203.0.113.5") {
			t.Errorf("asked %q, told %q", asked, told)
		}
		after(3 * 24 * time.Hour)
		if told := d.tellings(); told != nil {
			t.Errorf("told again: %q", told)
		}
		d.lists.set("a.example", ours)
		after(every + every/10 + 2*confirm)
		if told := d.tellings(); len(told) != 2 || !strings.Contains(told[0], "over a.example 203.0.113.5") || len(d.open()) != 0 {
			t.Errorf("at its end: %q, %v", told, d.open())
		}
		d.lists.set("a.example", ours, 2)
		after(every + every/10 + 2*confirm)
		if told := d.tellings(); len(told) != 1 || !strings.Contains(told[0], "began") {
			t.Errorf("when it came back: %q", told)
		}
	})
}

// What a second look does not see is told to nobody.
func TestListingThatIsNotConfirmedIsNotTold(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.set("a.example", ours, 2)
		d.run()
		after(2 * time.Minute)
		d.lists.set("a.example", ours)
		after(24 * time.Hour)
		if told := d.tellings(); told != nil || len(d.open()) != 0 {
			t.Errorf("told %q, %v", told, d.open())
		}
	})
}

// A list that goes wild for a day is one note and one when it is well.
func TestWildListIsOneNote(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.run()
		after(2 * time.Minute)
		d.lists.ail("a.example", rbl.Wild)
		d.lists.set("a.example", ours, 2)
		after(24 * time.Hour)
		d.lists.ail("a.example", rbl.Healthy)
		d.lists.set("a.example", ours)
		after(24 * time.Hour)
		told := d.tellings()
		if len(told) != 2 || !strings.HasSuffix(told[0], "zone_bad a.example wild") || !strings.HasSuffix(told[1], "zone_well a.example healthy") {
			t.Errorf("told %q", told)
		}
	})
}

// Telling is tried again, less and less often, and holds up no round.
func TestTellingIsTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.fail = 5 // 30 s, 1, 2, 4, 8 min
		d.lists.set("a.example", ours, 2)
		d.run()
		after(time.Minute + confirm + 14*time.Minute)
		if told := d.tellings(); told != nil {
			t.Errorf("told early: %q", told)
		}
		after(3 * time.Minute)
		if told := d.tellings(); len(told) != 1 {
			t.Errorf("told %q", told)
		}
		after(24 * time.Hour)
		if told := d.tellings(); told != nil {
			t.Errorf("told again: %q", told)
		}
	})
}

// A Tell that hangs is given a minute, and rounds go on meanwhile.
func TestTellThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		calls := 0
		w := watch.New(watch.Options{Store: d.store, Every: every, Confirm: confirm, Plan: func(context.Context) watch.Plan { return d.plan },
			Tell: func(ctx context.Context, _ []history.Event) error {
				calls++
				<-ctx.Done()
				return ctx.Err()
			}})
		d.Watch = w
		d.lists.set("a.example", ours, 2)
		d.run()
		after(24 * time.Hour)
		if n := len(d.lists.rounds()); n < 4 || calls < 10 || calls > 40 {
			t.Errorf("%d rounds, %d calls", n, calls)
		}
	})
}

// What was not told before an end is told after the start, second looks come when
// they are due, and a round that was due comes within a minute.
func TestRestartGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.set("a.example", ours, 2)
		d.run()
		after(2 * time.Minute)
		d.stop()
		must(t, d.store.Close())
		d.lists.noted()
		d.anew()
		d.run()
		after(confirm)
		if asked, told := d.lists.noted(), d.tellings(); len(asked) != 1 || !strings.Contains(asked[0], "again") || len(told) != 1 {
			t.Errorf("after a short while: asked %q, told %q", asked, told)
		}
		d.stop()
		d.lists.set("a.example", ours)
		must(t, d.store.Close())
		time.Sleep(24 * time.Hour)
		d.anew()
		d.run()
		after(time.Minute + 15*time.Second)
		if asked := d.lists.noted(); len(asked) != 1 || !strings.HasSuffix(asked[0], "run") {
			t.Errorf("after a day: asked %q", asked)
		}
	})
}

// A round of which nothing was heard, for the daemon was stopped, says nothing.
func TestRoundThatIsCutOffIsNotTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.takes = time.Hour
		d.run()
		after(30 * time.Minute)
		if !d.Status().Running {
			t.Error("no round is under way")
		}
		waited := make(chan error, 1)
		go func() { waited <- d.Now(t.Context()) }()
		synctest.Wait()
		d.stop()
		if err := <-waited; err == nil {
			t.Error("who waited for the one after it was told of none")
		}
		if last, _, err := d.store.Last(t.Context()); err != nil || !last.IsZero() {
			t.Errorf("it was taken: %v, %v", last, err)
		}
		if used, err := d.store.Used(t.Context(), time.Now()); err != nil || used["a.example"] != 2 {
			t.Errorf("what was sent is not counted: %v, %v", used, err)
		}
		if err := d.Now(t.Context()); err == nil {
			t.Error("a round of a watch that has ended")
		}
	})
}

// Now makes a round at once, and the schedule goes on from there; those who ask before
// it began join it.
func TestNow(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.run()
		after(time.Hour)
		rounds := len(d.lists.rounds())
		before := time.Now()
		errs := make(chan error)
		for range 3 {
			go func() { errs <- d.Now(t.Context()) }()
		}
		for range 3 {
			must(t, <-errs)
		}
		// Whether the three were before its begin is up to who runs first.
		if took, n := time.Since(before), len(d.lists.rounds())-rounds; n > 2 || took != time.Duration(n)*10*time.Second {
			t.Errorf("%d rounds in %v", n, took)
		}
		if s := d.Status(); s.Next.Before(before.Add(every-every/10)) || s.Running || s.Last.Before(before) {
			t.Errorf("%+v", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Now(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who does not wait: %v", err)
		}
		synctest.Wait()
	})
}

// Who asks while a round is under way gets one that begins after that, with a plan of
// its own, and however many ask, it is one.
func TestNowWhileARoundIsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.takes = 10 * time.Minute
		d.run()
		after(time.Hour)
		rounds := len(d.lists.rounds())
		before := time.Now()
		first := make(chan error)
		go func() { first <- d.Now(t.Context()) }()
		after(5 * time.Minute)
		d.change(func(p *watch.Plan) { p.Subjects = append(p.Subjects, rbl.Subject{Name: "new.example"}) })
		errs := make(chan error)
		for range 4 {
			go func() { errs <- d.Now(t.Context()) }()
		}
		must(t, <-first)
		if took := time.Since(before); took != 10*time.Minute {
			t.Errorf("the first took %v", took)
		}
		synctest.Wait()
		if !d.Status().Running {
			t.Error("no further round is under way")
		}
		for range 4 {
			must(t, <-errs)
		}
		if took, n := time.Since(before), len(d.lists.rounds())-rounds; took != 20*time.Minute || n != 2 {
			t.Errorf("%d rounds in %v", n, took)
		}
		all, err := d.store.Subjects(t.Context())
		if err != nil || len(all) != 3 || all[2].Subject.Name != "new.example" {
			t.Errorf("what was learnt meanwhile was not asked about: %v, %v", all, err)
		}
		after(time.Hour)
		if n := len(d.lists.rounds()) - rounds; n != 2 {
			t.Errorf("%d rounds", n)
		}
	})
}

// Before Run a round waits for it.
func TestNowBeforeRun(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		done := make(chan error)
		go func() { done <- d.Now(t.Context()) }()
		after(time.Hour)
		before := time.Now()
		d.run()
		must(t, <-done)
		if took := time.Since(before); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A plan that has nothing to check is a state, not a round: nothing ends by it, and
// it is tried again soon.
func TestPlanWithoutSubjectsIsNoRound(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.set("a.example", ours, 2)
		d.run()
		after(time.Hour)
		d.tellings()
		last := d.Status().Last
		d.change(func(p *watch.Plan) { p.Subjects, p.Trouble = nil, "the MTA's settings cannot be read" })
		if err := d.Now(t.Context()); err == nil || !strings.Contains(err.Error(), "the MTA's settings cannot be read") {
			t.Error(err)
		}
		after(24 * time.Hour)
		s := d.Status()
		if !strings.Contains(s.Trouble, "the MTA's settings cannot be read") || s.Last != last || s.Next.Sub(time.Now()) > 11*time.Minute {
			t.Errorf("%+v", s)
		}
		if open := d.open(); len(open) != 1 || open[0].Phase != history.Standing || d.tellings() != nil {
			t.Errorf("%+v", open)
		}
		d.change(func(p *watch.Plan) { p.Subjects, p.Trouble = []rbl.Subject{ours}, "" })
		after(12 * time.Minute)
		if s := d.Status(); s.Trouble != "" || s.Last == last {
			t.Errorf("%+v", s)
		}
	})
}

// An address that a plan lacks, with trouble or without, keeps its listings for 30
// days: one that comes back goes on as it was, and nobody is told of anything.
func TestAddressThatIsNotFoundKeepsItsListings(t *testing.T) {
	for _, trouble := range []string{"half of the settings cannot be read", ""} {
		inBubble(t, func(t *testing.T, d *desk) {
			d.lists.set("a.example", ours, 2)
			d.run()
			after(time.Hour)
			d.tellings()
			before := d.open()[0]
			lose := func() {
				d.change(func(p *watch.Plan) { p.Subjects, p.Trouble = []rbl.Subject{other}, trouble })
			}
			lose()
			must(t, d.Now(t.Context()))
			if l := d.open()[0]; l.Phase != history.Standing || l.Unasked.IsZero() {
				t.Errorf("trouble %q: %+v", trouble, l)
			}
			after(29 * 24 * time.Hour)
			d.change(func(p *watch.Plan) { p.Subjects, p.Trouble = []rbl.Subject{ours, other}, "" })
			after(2 * every)
			if open := d.open(); len(open) != 1 || open[0].ID != before.ID || open[0].First != before.First || !open[0].Unasked.IsZero() || d.tellings() != nil {
				t.Errorf("trouble %q: found again: %+v", trouble, open)
			}
			lose()
			after(31 * 24 * time.Hour)
			all, err := d.store.Listings(t.Context(), history.Query{})
			if err != nil || len(all) != 1 || all[0].Phase != history.Dropped || d.tellings() != nil {
				t.Errorf("trouble %q: %+v, %v", trouble, all, err)
			}
		})
	}
}

// A second look at what the plan does not have waits for the next round: no plan is
// made for it each minute.
func TestSecondLookAtWhatIsNoLongerAsked(t *testing.T) {
	for name, change := range map[string]func(p *watch.Plan){
		"no zone":    func(p *watch.Plan) { p.Zones = p.Zones[1:] },
		"no subject": func(p *watch.Plan) { p.Subjects = p.Subjects[1:] },
		"no checker": func(p *watch.Plan) { p.Checker, p.Trouble = nil, "there is no resolver" },
	} {
		inBubble(t, func(t *testing.T, d *desk) {
			d.lists.set("a.example", ours, 2)
			d.run()
			after(2 * time.Minute)
			var before watch.Plan
			d.change(func(p *watch.Plan) { before = *p; change(p) })
			d.lists.noted()
			d.plans()
			after(5 * time.Hour)
			if asked, n := d.lists.noted(), d.plans(); len(asked) != 0 || n != 1 || d.tellings() != nil {
				t.Errorf("%s: asked %q, made %d plans", name, asked, n)
			}
			d.change(func(p *watch.Plan) { *p = before })
			after(every)
			if told := d.tellings(); len(told) != 1 || !strings.Contains(told[0], "began") {
				t.Errorf("%s: told %q", name, told)
			}
		})
	}
}

// A look around that takes long holds up neither rounds nor second looks, is not
// begun twice, and ends with the watch.
func TestNeighboursHoldUpNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.around = 50 * time.Minute
		d.lists.set("a.example", ours, 2)
		d.change(func(p *watch.Plan) { p.Neighbours = []netip.Prefix{near} })
		d.run()
		after(time.Minute + 10*time.Second)
		if all, _, err := d.store.Neighbours(t.Context()); err != nil || len(all) != 0 {
			t.Fatalf("%v, %v", all, err)
		}
		after(confirm)
		if told := d.tellings(); len(told) != 1 || !strings.Contains(told[0], "began") {
			t.Errorf("told %q while neighbours are looked at", told)
		}
		before := time.Now()
		must(t, d.Now(t.Context()))
		if took := time.Since(before); took != 10*time.Second {
			t.Errorf("a round took %v", took)
		}
		after(50 * time.Minute)
		asked := d.lists.noted()
		looks := slices.DeleteFunc(slices.Clone(asked), func(s string) bool { return !strings.HasSuffix(s, "near") })
		if all, _, err := d.store.Neighbours(t.Context()); err != nil || len(all) != 1 || len(looks) != 1 || slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, "two") }) {
			t.Errorf("%v, %v, asked %q", all, err, asked)
		}
	})
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.around = 50 * time.Minute
		d.change(func(p *watch.Plan) { p.Neighbours = []netip.Prefix{near} })
		d.run()
		after(30 * time.Minute)
		before := time.Now()
		d.stop()
		if _, last, err := d.store.Last(t.Context()); err != nil || !last.IsZero() || !time.Now().Equal(before) {
			t.Errorf("one that was cut off counts: %v, %v; the watch ended after %v", last, err, time.Since(before))
		}
	})
}

// All that is sent is counted, by zone too: rounds, second looks, and looks around
// while they go on. Who makes a plan finds it in the store.
func TestQueriesAreCounted(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.around = 50 * time.Minute
		d.lists.set("a.example", ours, 2)
		d.change(func(p *watch.Plan) { p.Neighbours = []netip.Prefix{near} })
		d.run()
		after(30 * time.Minute)
		used := func() map[string]int64 {
			used, err := d.store.Used(t.Context(), time.Now())
			must(t, err)
			return used
		}
		// Of two subjects, one asked about again.
		if got, want := used(), (map[string]int64{"a.example": 3, "wide.example": 2 + 256}); !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if n, err := d.store.Queries(t.Context(), time.Time{}, time.Time{}); err != nil || n != 3+2+256 {
			t.Errorf("%d queries, %v", n, err)
		}
		d.lists.mu.Lock()
		d.lists.sent["a.example"] += 7 // of a look around, say
		d.lists.mu.Unlock()
		var found map[string]int64
		d.stop()
		d.Watch = watch.New(watch.Options{Store: d.store, Every: every, Plan: func(context.Context) watch.Plan {
			found = used()
			return d.plan
		}})
		d.run()
		must(t, d.Now(t.Context()))
		if found["a.example"] < 3 {
			t.Errorf("found %v", found)
		}
		d.lists.mu.Lock()
		d.lists.sent["a.example"] += 70
		d.lists.mu.Unlock()
		must(t, d.Now(t.Context()))
		if found["a.example"] != 3+7+2+70 {
			t.Errorf("found %v", found)
		}
		d.lists.mu.Lock()
		d.lists.sent["a.example"] = 0
		d.lists.mu.Unlock()
	})
}

// Neighbours are looked at once a week, only on lists of ranges, and when somebody
// wants it.
func TestNeighboursAreLookedAtWeekly(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.run()
		after(24 * time.Hour)
		if all, _, err := d.store.Neighbours(t.Context()); err != nil || len(all) != 0 {
			t.Fatalf("nobody wants it: %v, %v", all, err)
		}
		d.change(func(p *watch.Plan) { p.Neighbours = []netip.Prefix{near} })
		d.lists.noted()
		after(8 * 7 * 24 * time.Hour)
		looks := slices.DeleteFunc(d.lists.noted(), func(s string) bool { return !strings.HasSuffix(s, "near") })
		if len(looks) < 7 || len(looks) > 9 {
			t.Errorf("in 8 weeks: %q", looks)
		}
		all, before, err := d.store.Neighbours(t.Context())
		if err != nil || len(all) != 1 || all[0].Zone != "wide.example" || all[0].Asked != 256 || before[0] != 0 {
			t.Errorf("%+v, %v, %v", all, before, err)
		}
		isLook := func(s string) bool { return strings.HasSuffix(s, "near") }
		for !slices.ContainsFunc(d.lists.noted(), isLook) {
			after(time.Hour)
		}
		d.stop()
		must(t, d.store.Close())
		d.anew()
		d.run()
		must(t, d.Now(t.Context()))
		synctest.Wait()
		if looks := d.lists.noted(); slices.ContainsFunc(looks, isLook) {
			t.Errorf("again after a restart: %q", looks)
		}
	})
}

// Sender facts are looked at with a round, at most every 6 hours unless somebody
// asks; what is wrong is told.
func TestFactsAreLookedAtWithRounds(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.change(func(p *watch.Plan) { p.Resolver, p.Sending = names{d.lists}, oneSender })
		d.Watch = watch.New(watch.Options{Store: d.store, Every: time.Hour, Confirm: confirm, Tell: d.tell, Plan: func(context.Context) watch.Plan {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.plan
		}})
		looks := func() (n int) {
			for _, s := range d.lists.noted() {
				if strings.HasSuffix(s, "ptr") {
					n++
				}
			}
			return n
		}
		d.run()
		after(2 * time.Minute)
		one := looks()
		wrong := slices.ContainsFunc(d.facts(), func(f history.FactState) bool { return f.Check == sender.PTR && f.State == sender.Wrong })
		told := d.tellings()
		if one == 0 || !wrong || !slices.ContainsFunc(told, func(s string) bool { return strings.HasSuffix(s, "fact_bad ptr") }) {
			t.Fatalf("%d questions, %+v, told %q", one, d.facts(), told)
		}
		after(4 * time.Hour)
		if n := looks(); n != 0 {
			t.Errorf("%d questions too early", n)
		}
		must(t, d.Now(t.Context()))
		if n := looks(); n != one {
			t.Errorf("%d questions of a round that was asked for", n)
		}
		after(24 * time.Hour)
		if n := looks(); n < 3*one || n > 5*one {
			t.Errorf("%d questions in a day, one look has %d", n, one)
		}
		if s := d.Status(); s.Queries["nxdomain"] <= 2*int64(len(d.lists.rounds())) {
			t.Errorf("not counted: %v", s.Queries)
		}
		if told := d.tellings(); told != nil {
			t.Errorf("told again: %q", told)
		}
		d.change(func(p *watch.Plan) {
			p.Sending, p.Domains, p.Trouble = nil, []string{"example.jp"}, "no address was found"
		})
		must(t, d.Now(t.Context()))
		i := slices.IndexFunc(d.facts(), func(f history.FactState) bool { return f.Check == sender.PTR })
		if i < 0 || d.facts()[i].State != sender.Unknown || !strings.Contains(d.facts()[i].Found, "no address was found") {
			t.Errorf("%+v", d.facts())
		}
	})
}

// A history that cannot be written to is a trouble, and the watch goes on.
func TestStoreThatFails(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		must(t, d.store.Close())
		d.run()
		after(24 * time.Hour)
		if s := d.Status(); !strings.Contains(s.Trouble, "store a round") {
			t.Errorf("%+v", s)
		}
		if n := len(d.lists.rounds()); n < 3 || n > 6 {
			t.Errorf("%d rounds", n)
		}
		d.stop()
		d.anew()
	})
}
