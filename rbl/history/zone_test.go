package history_test

import (
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// A list that goes wild for a day, for every kind it is asked about and with silence
// in between, is one note, and one when it is well: never a listing.
func TestWildForADayIsOneNote(t *testing.T) {
	s := open(t, t.TempDir())
	wild := map[string]rbl.State{zone: rbl.Wild}
	silent := map[string]rbl.State{zone: rbl.Silent}
	all := []says{listed(zone, ours, hit(2)), listed(zone, ours6, hit(2)), listed(zone, site, hit(2))}
	well := []says{clean(zone, ours), clean(zone, ours6), clean(zone, site)}
	take(t, s, start, nil, well...)
	for h := range 24 {
		sick := wild
		if h%5 == 4 {
			sick = silent
		}
		take(t, s, start.Add(time.Duration(h+1)*time.Hour), sick, all...)
	}
	if got := untold(t, s); !slices.Equal(got, []history.EventKind{history.ZoneBad}) {
		t.Errorf("told: %v", got)
	}
	r := roundOf(start.Add(25*time.Hour), nil, well...)
	r.Zones[1].State = rbl.Wild // still, for one kind
	must(t, s.Take(t.Context(), r, []rbl.Subject{ours, ours6, site}, zonesNamed(zone)))
	if got := untold(t, s); got != nil {
		t.Errorf("told while one kind is wild: %v", got)
	}
	take(t, s, start.Add(26*time.Hour), nil, well...)
	if got := untold(t, s); !slices.Equal(got, []history.EventKind{history.ZoneWell}) {
		t.Errorf("told: %v", got)
	}
	if got := listings(t, s, history.Query{}); len(got) != 0 {
		t.Errorf("listings: %v", got)
	}
}

// A list that is wild and no longer asked is forgotten; asked again it is news.
func TestWildListThatIsNoLongerAsked(t *testing.T) {
	s := open(t, t.TempDir())
	wild := map[string]rbl.State{zone: rbl.Wild}
	take(t, s, start, wild, listed(zone, ours, hit(2)))
	take(t, s, start.Add(time.Hour), nil, clean("b.example", ours))
	take(t, s, start.Add(2*time.Hour), wild, listed(zone, ours, hit(2)))
	if got := untold(t, s); !slices.Equal(got, []history.EventKind{history.ZoneBad, history.ZoneBad}) {
		t.Errorf("told: %v", got)
	}
}

func TestZonesSaySinceWhen(t *testing.T) {
	s := open(t, t.TempDir())
	for h, state := range []rbl.State{rbl.Healthy, rbl.Silent, rbl.Silent, rbl.Refusing, rbl.Refusing} {
		take(t, s, start.Add(time.Duration(h)*time.Hour), map[string]rbl.State{"b.example": state}, clean("a.example", ours), unknown("b.example", ours), unknown("b.example", site))
	}
	all, err := s.Zones(t.Context())
	must(t, err)
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	a, b, c := all[0], all[1], all[2]
	if a.State != rbl.Healthy || a.Since != start || a.At != start.Add(4*time.Hour) {
		t.Errorf("%+v", a)
	}
	if b.Zone != "b.example" || b.Kind != rbl.IP4 || b.State != rbl.Refusing || b.Since != start.Add(3*time.Hour) || b.Why == "" || c.Kind != rbl.Domain {
		t.Errorf("%+v, %+v", b, c)
	}
	take(t, s, start.Add(5*time.Hour), nil, clean("a.example", ours))
	if all, err = s.Zones(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}
