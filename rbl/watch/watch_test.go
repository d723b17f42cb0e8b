package watch_test

import (
	"context"
	"errors"
	"fmt"
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
		waited := make(chan error)
		go func() { waited <- d.Now(t.Context()) }()
		synctest.Wait()
		d.stop()
		if err := <-waited; !errors.Is(err, context.Canceled) {
			t.Errorf("who waited for it: %v", err)
		}
		if last, _, err := d.store.Last(t.Context()); err != nil || !last.IsZero() {
			t.Errorf("it was taken: %v, %v", last, err)
		}
		if err := d.Now(t.Context()); err == nil {
			t.Error("a round of a watch that has ended")
		}
	})
}

// Now makes a round at once; those who ask while it is under way join it, and the
// schedule goes on from there.
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
		after(5 * time.Second)
		if !d.Status().Running {
			t.Error("no round is under way")
		}
		go func() { errs <- d.Now(t.Context()) }()
		for range 4 {
			must(t, <-errs)
		}
		if took, n := time.Since(before), len(d.lists.rounds()); took != 10*time.Second || n != rounds+1 {
			t.Errorf("%d rounds in %v", n-rounds, took)
		}
		if s := d.Status(); s.Next.Before(before.Add(every-every/10)) || s.Running || s.Last != before {
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

// An address that a plan with trouble has lost is still taken as ours, for three
// days; one that a plan without has dropped ends at once. Nobody is told of either.
func TestAddressThatIsNotFoundKeepsItsListings(t *testing.T) {
	for trouble, want := range map[string]string{"half of the settings cannot be read": "1 1 0", "": "0 0 0"} {
		inBubble(t, func(t *testing.T, d *desk) {
			d.lists.set("a.example", ours, 2)
			d.run()
			after(time.Hour)
			d.tellings()
			d.change(func(p *watch.Plan) { p.Subjects, p.Trouble = []rbl.Subject{other}, trouble })
			var got []int
			for _, wait := range []time.Duration{24 * time.Hour, 24 * time.Hour, 48 * time.Hour} {
				after(wait)
				got = append(got, len(d.open()))
			}
			if fmt.Sprintf("%d %d %d", got[0], got[1], got[2]) != want || d.tellings() != nil {
				t.Errorf("trouble %q: %v, want %s", trouble, got, want)
			}
		})
	}
}

// A listing whose zone is no longer in the plan is not asked about, and does not
// keep the watch busy.
func TestSecondLookAtWhatIsNoLongerAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, d *desk) {
		d.lists.set("a.example", ours, 2)
		d.run()
		after(2 * time.Minute)
		d.change(func(p *watch.Plan) { p.Zones = p.Zones[1:] })
		d.lists.noted()
		after(time.Hour)
		if asked := d.lists.noted(); len(asked) != 0 || d.tellings() != nil {
			t.Errorf("asked %q", asked)
		}
		after(every + every/10)
		if len(d.open()) != 0 {
			t.Errorf("%+v", d.open())
		}
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
