package history_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// A round whose clock is two years ahead forgets nothing; a second one does, but not
// what nobody was told of.
func TestClockAheadForgetsNothing(t *testing.T) {
	s := standing(t)
	take(t, s, start.Add(2*time.Hour), nil, clean("a.example", ours), clean("b.example", ours), clean("a.example", other), clean("b.example", other))
	take(t, s, start.Add(3*time.Hour), nil, clean("a.example", ours), clean("b.example", ours), clean("a.example", other), clean("b.example", other))
	must(t, s.AddSent(t.Context(), start, map[string]int64{"a.example": 5}))
	kept := func() string {
		t.Helper()
		events, err := s.Events(t.Context(), time.Time{}, start.Add(day))
		must(t, err)
		waiting, err := s.Untold(t.Context())
		must(t, err)
		days, err := s.Days(t.Context(), time.Time{}, start.Add(day), time.UTC)
		must(t, err)
		used, err := s.Used(t.Context(), start)
		must(t, err)
		return fmt.Sprintf("%d listings, %d events, %d untold, %d days, %d queries", len(listings(t, s, history.Query{Until: start.Add(day)})), len(events), len(waiting), len(days), used["a.example"])
	}
	before := kept()
	if want := "4 listings, 6 events, 3 untold, 2 days, 5 queries"; before != want {
		t.Fatalf("%s, want %s", before, want)
	}
	ahead := start.Add(2 * 365 * day)
	take(t, s, ahead, nil, clean("a.example", ours))
	if got := kept(); got != before {
		t.Errorf("a clock that is ahead once: %s, before %s", got, before)
	}
	take(t, s, start.Add(9*time.Hour), nil, clean("a.example", ours))
	take(t, s, ahead, nil, clean("a.example", ours))
	if got := kept(); got != before {
		t.Errorf("and again, with one between that is not: %s, before %s", got, before)
	}
	take(t, s, ahead.Add(6*time.Hour), nil, clean("a.example", ours))
	if got, want := kept(), "0 listings, 3 events, 3 untold, 0 days, 0 queries"; got != want {
		t.Errorf("two rounds say so: %s, want %s", got, want)
	}
}

// Nor does it drop what was not asked about, or what a list said that is gone.
func TestClockAheadDropsNothing(t *testing.T) {
	s := standing(t)
	round := func(at time.Time) {
		take(t, s, at, map[string]rbl.State{"a.example": rbl.Dead}, unknown("a.example", ours), clean("c.example", ours))
	}
	round(start.Add(2 * time.Hour))
	before := phases(t, s)
	round(start.Add(2 * 365 * day))
	round(start.Add(8 * time.Hour))
	if got := phases(t, s); !slices.Equal(got, before) {
		t.Errorf("%q, before %q", got, before)
	}
}

// A clock that is set back to 1970, for a round and the second looks after it, dates
// no listing back: neither one that was there, nor a new one.
func TestClockSetBackOnceDatesNothingBack(t *testing.T) {
	s := open(t, t.TempDir())
	first := func(subject rbl.Subject) time.Time {
		t.Helper()
		l := listings(t, s, history.Query{Subject: subject.String()})[0]
		if l.Last.Before(l.First) || !l.Confirmed.IsZero() && l.Confirmed.Before(l.First) || !l.CleanBefore.IsZero() && !l.CleanBefore.Before(l.First) {
			t.Errorf("%+v", l)
		}
		return l.First
	}
	take(t, s, start.Add(-time.Hour), nil, listed(zone, ours, hit(2)), clean(zone, other), clean(zone, ours6))
	take(t, s, start, nil, listed(zone, ours, hit(2)), listed(zone, other, hit(2)), clean(zone, ours6))
	old := time.Unix(3600, 0).UTC()
	all := []says{listed(zone, ours, hit(2)), listed(zone, other, hit(2)), listed(zone, ours6, hit(2))}
	take(t, s, old, nil, all...)
	at := old.Add(confirm)
	for _, l := range listings(t, s, history.Query{}) {
		must(t, s.TakeAgain(t.Context(), l.ID, answerOf(at, listed(zone, l.Subject, hit(2))), healthOf(at, zone, l.Subject.Kind(), nil)))
	}
	for range 2 {
		if got := first(ours); got != start.Add(-time.Hour) {
			t.Errorf("one that stood: %v", got)
		}
		if got := first(other); got != start {
			t.Errorf("one that was suspected: %v", got)
		}
		if got := first(ours6); got.Before(start.Add(-day)) {
			t.Errorf("a new one: %v", got)
		}
		take(t, s, start.Add(6*time.Hour), nil, all...)
	}
	if kinds := untold(t, s); len(kinds) != 3 {
		t.Errorf("told: %v", kinds)
	}
}

// A listing that stands is not dated back, however little the clock was set back.
func TestFirstIsSetWhileSuspected(t *testing.T) {
	s := open(t, t.TempDir())
	for _, h := range []int{0, -1, 1, -2} {
		take(t, s, start.Add(time.Duration(h)*time.Hour), nil, listed(zone, ours, hit(2)))
	}
	if l := listings(t, s, history.Query{})[0]; l.Phase != history.Standing || l.First != start.Add(-time.Hour) {
		t.Errorf("%+v", l)
	}
}

// A clock that was ahead once is no reason to date a listing so.
func TestFirstSeenWithAClockAhead(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, clean(zone, ours))
	for _, at := range []time.Time{start.Add(2 * 365 * day), start.Add(6 * time.Hour), start.Add(12 * time.Hour)} {
		take(t, s, at, nil, listed(zone, ours, hit(2)))
	}
	if l := listings(t, s, history.Query{})[0]; l.Phase != history.Standing || l.First != start.Add(6*time.Hour) || l.CleanBefore != start {
		t.Errorf("%+v", l)
	}
}

// When a subject was clean is not what one wrong clock says.
func TestCleanByAWrongClock(t *testing.T) {
	for _, wrong := range []time.Time{time.Unix(3600, 0), start.Add(2 * 365 * day)} {
		s := open(t, t.TempDir())
		take(t, s, start, nil, clean(zone, ours))
		take(t, s, wrong, nil, clean(zone, ours))
		take(t, s, start.Add(12*time.Hour), nil, listed(zone, ours, hit(2)))
		if l := listings(t, s, history.Query{})[0]; l.CleanBefore != start {
			t.Errorf("clock at %v: clean before %v", wrong, l.CleanBefore)
		}
	}
}
