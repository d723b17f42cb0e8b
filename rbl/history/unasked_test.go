package history_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

const day = 24 * time.Hour

// standing is a store with two listings that were told of, one that ends, and one
// that is suspected, an hour after start.
func standing(t *testing.T) *history.Store {
	t.Helper()
	s := open(t, t.TempDir())
	all := []says{listed("a.example", ours, hit(2)), listed("b.example", ours, hit(2)), listed("a.example", other, hit(2)), clean("b.example", other)}
	take(t, s, start.Add(-time.Hour), nil, all...)
	take(t, s, start, nil, all...)
	all[1], all[3] = clean("b.example", ours), listed("b.example", other, hit(3))
	take(t, s, start.Add(time.Hour), nil, all...)
	untold(t, s)
	return s
}

// phases are those of all listings: "ZONE SUBJECT PHASE", and "unasked MINUTES".
func phases(t *testing.T, s *history.Store) (all []string) {
	t.Helper()
	for _, l := range listings(t, s, history.Query{}) {
		text := fmt.Sprintf("%.1s %s %s", l.Zone, l.Subject, l.Phase)
		if !l.Unasked.IsZero() {
			text += fmt.Sprintf(" unasked %.0f", l.Unasked.Sub(start).Minutes())
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return all
}

// A zone or a subject that a round does not have ends nothing: the listings are not
// asked about, and open.
func TestRoundWithoutZoneOrSubjectEndsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		subjects []rbl.Subject
		zones    []rbl.Zone
		says     []says
	}{
		"neither":               {},
		"nothing was asked":     {[]rbl.Subject{ours, other}, zonesNamed("a.example", "b.example"), nil},
		"what is not wanted":    {[]rbl.Subject{site}, zonesNamed("c.example"), []says{clean("a.example", ours), clean("b.example", ours)}},
		"other zone":            {[]rbl.Subject{ours, other}, zonesNamed("c.example"), []says{clean("c.example", ours), clean("c.example", other)}},
		"other subject":         {[]rbl.Subject{site}, zonesNamed("a.example", "b.example"), []says{clean("a.example", site), clean("b.example", site)}},
		"none of them answered": {[]rbl.Subject{ours, other}, zonesNamed("a.example", "b.example"), []says{clean("a.example", site)}},
	} {
		s := standing(t)
		must(t, s.Take(t.Context(), roundOf(start.Add(2*time.Hour), nil, c.says...), c.subjects, c.zones))
		want := []string{"a 203.0.113.5 listed unasked 120", "a 203.0.113.6 listed unasked 120", "b 203.0.113.5 ending unasked 120", "b 203.0.113.6 suspected unasked 120"}
		if got, kinds := phases(t, s), untold(t, s); !slices.Equal(got, want) || len(kinds) != 0 {
			t.Errorf("%s: %q, told: %v", name, got, kinds)
		}
		if open := listings(t, s, history.Query{OpenOnly: true}); len(open) != 4 {
			t.Errorf("%s: open: %v", name, open)
		}
	}
}

// What is asked again goes on as it was: no second beginning, and an end only by two
// looks.
func TestListingGoesOnOnceItIsAskedAgain(t *testing.T) {
	s := standing(t)
	before := listings(t, s, history.Query{})
	none := func(h int) {
		must(t, s.Take(t.Context(), roundOf(start.Add(time.Duration(h)*time.Hour), nil), nil, nil))
	}
	for _, h := range []int{2, 100, 600} {
		none(h)
	}
	take(t, s, start.Add(601*time.Hour), nil, listed("a.example", ours, hit(2)), listed("b.example", ours, hit(2)), clean("a.example", other))
	want := []string{"a 203.0.113.5 listed", "a 203.0.113.6 ending", "b 203.0.113.5 listed", "b 203.0.113.6 withdrawn unasked 120"}
	if got, kinds := phases(t, s), untold(t, s); !slices.Equal(got, want) || len(kinds) != 0 {
		t.Errorf("%q, told: %v", got, kinds)
	}
	for _, l := range listings(t, s, history.Query{}) {
		if i := slices.IndexFunc(before, func(b history.Listing) bool { return b.ID == l.ID }); i < 0 || before[i].First != l.First {
			t.Errorf("another one: %+v", l)
		}
	}
	none(602)
	take(t, s, start.Add(603*time.Hour), nil, listed("a.example", ours, hit(2)), listed("b.example", ours, hit(2)), clean("a.example", other))
	if kinds := untold(t, s); !slices.Equal(kinds, []history.EventKind{history.Over}) {
		t.Errorf("told: %v", kinds)
	}
}

// After 30 days without an answer it is dropped, which is no end, and nobody is told;
// what was not confirmed is withdrawn after one. What comes back then is another.
func TestUnaskedForLongIsDropped(t *testing.T) {
	s := standing(t)
	none := func(at time.Time) {
		must(t, s.Take(t.Context(), roundOf(at, nil), nil, nil))
	}
	none(start.Add(2 * time.Hour))
	none(start.Add(2*time.Hour + day - time.Second))
	if got := phases(t, s); got[3] != "b 203.0.113.6 suspected unasked 120" {
		t.Errorf("within a day: %q", got)
	}
	none(start.Add(2*time.Hour + day))
	none(start.Add(2*time.Hour + 30*day - time.Second))
	if got := phases(t, s); got[0] != "a 203.0.113.5 listed unasked 120" || got[2] != "b 203.0.113.5 ending unasked 120" || got[3] != "b 203.0.113.6 withdrawn unasked 120" {
		t.Errorf("within 30 days: %q", got)
	}
	dropped := start.Add(2*time.Hour + 30*day)
	none(dropped)
	if got, kinds := phases(t, s), untold(t, s); got[0] != "a 203.0.113.5 dropped unasked 120" || got[1] != "a 203.0.113.6 dropped unasked 120" || got[2] != "b 203.0.113.5 dropped unasked 120" || len(kinds) != 0 {
		t.Errorf("%q, told: %v", got, kinds)
	}
	for _, l := range listings(t, s, history.Query{Subject: ours.String()}) {
		if l.Ended != dropped || !l.Due.IsZero() {
			t.Errorf("%+v", l)
		}
	}
	if open := listings(t, s, history.Query{OpenOnly: true}); len(open) != 0 {
		t.Errorf("open: %v", open)
	}
	take(t, s, dropped.Add(time.Hour), nil, listed("a.example", ours, hit(2)))
	take(t, s, dropped.Add(2*time.Hour), nil, listed("a.example", ours, hit(2)))
	if kinds := untold(t, s); !slices.Equal(kinds, []history.EventKind{history.Began}) {
		t.Errorf("told: %v", kinds)
	}
}

// A list that is asked and gives no answer is not dropped, however long.
func TestSilenceDropsNothing(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	take(t, s, start.Add(time.Hour), nil, listed(zone, ours, hit(2)))
	for d := range 40 {
		take(t, s, start.Add(2*time.Hour+time.Duration(d)*day), map[string]rbl.State{zone: rbl.Silent}, unknown(zone, ours))
	}
	if got := phases(t, s); !slices.Equal(got, []string{"b 203.0.113.5 listed unasked 120"}) {
		t.Errorf("%q", got)
	}
}

// What an admin takes out is dropped at once, and only that.
func TestDrop(t *testing.T) {
	s := standing(t)
	must(t, s.Drop(t.Context(), start.Add(2*time.Hour), func(l *history.Listing) bool { return l.Zone == "b.example" }))
	want := []string{"a 203.0.113.5 listed", "a 203.0.113.6 listed", "b 203.0.113.5 dropped", "b 203.0.113.6 withdrawn"}
	if got, kinds := phases(t, s), untold(t, s); !slices.Equal(got, want) || len(kinds) != 0 {
		t.Errorf("%q, told: %v", got, kinds)
	}
	take(t, s, start.Add(3*time.Hour), nil, listed("a.example", ours, hit(2)), listed("b.example", ours, hit(2)))
	if got := phases(t, s); len(got) != 5 || got[3] != "b 203.0.113.5 suspected" {
		t.Errorf("%q", got)
	}
	for _, l := range listings(t, s, history.Query{Zone: "b.example", Until: start.Add(2 * time.Hour)}) {
		if l.Ended != start.Add(2*time.Hour) || l.Closed != l.Ended {
			t.Errorf("%+v", l)
		}
	}
}

// A subject that is listed and not asked about has listed days.
func TestDayOfWhatIsNotAsked(t *testing.T) {
	s := standing(t)
	must(t, s.Take(t.Context(), roundOf(start.Add(day), nil, clean("c.example", other)), []rbl.Subject{other}, zonesNamed("c.example")))
	days, err := s.Days(t.Context(), start.Add(day).Truncate(day), time.Time{}, time.UTC)
	if err != nil || len(days) != 2 || days[0].Subject != ours || days[0].Worst != rbl.Listed || days[1].Worst != rbl.Listed {
		t.Errorf("%+v, %v", days, err)
	}
}

// What is put off is not due before, also if the clock was set back; what needs no
// second look does not come to need one.
func TestPutOff(t *testing.T) {
	s := standing(t)
	ids := func(all []history.Listing) (ids []int64) {
		for _, l := range all {
			ids = append(ids, l.ID)
		}
		return ids
	}
	all := ids(listings(t, s, history.Query{}))
	for _, now := range []time.Time{start.Add(time.Hour + confirm), start.Add(-day)} {
		due, err := s.Due(t.Context(), now)
		must(t, err)
		if len(due) != 2 {
			t.Fatalf("due: %v", due)
		}
		until := now.Add(6 * time.Hour)
		must(t, s.PutOff(t.Context(), now, until, all...))
		if due, err = s.Due(t.Context(), now); err != nil || len(due) != 0 {
			t.Errorf("still due: %v, %v", due, err)
		}
		if next, err := s.NextDue(t.Context()); err != nil || next.Before(until) {
			t.Errorf("next due: %v, %v", next, err)
		}
		if now.Before(start) {
			break
		}
		if due, err = s.Due(t.Context(), until); err != nil || len(due) != 2 {
			t.Errorf("due then: %v, %v", due, err)
		}
	}
}
