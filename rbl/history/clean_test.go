package history_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
)

// When a listing began is known only if the list said clean not long before.
func TestListingKnowsWhenItsListLastSaidClean(t *testing.T) {
	start := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	zone := rbl.Zone{Name: "bl.example"}
	var subject rbl.Subject
	if err := subject.UnmarshalText([]byte("203.0.113.5")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		rounds []rbl.Result // six hours apart; the last of them lists
		want   time.Duration
	}{
		"the first round of all":     {[]rbl.Result{rbl.Listed}, -1},
		"clean before":               {[]rbl.Result{rbl.Clean, rbl.Listed}, 0},
		"clean before, then silence": {[]rbl.Result{rbl.Clean, rbl.Clean, rbl.Unknown, rbl.Refused, rbl.Listed}, 6 * time.Hour},
		"never an answer":            {[]rbl.Result{rbl.Unknown, rbl.Listed}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "blocklists")
			for i, result := range c.rounds {
				h, err := history.Open(t.Context(), dir, history.Options{}) // it outlives a restart
				if err != nil {
					t.Fatal(err)
				}
				at := start.Add(time.Duration(i) * 6 * time.Hour)
				a := rbl.Answer{Zone: zone.Name, Subject: subject, Result: result, At: at}
				if result == rbl.Listed {
					a.Hits = []rbl.Hit{{Means: "spam", Severity: rbl.High}}
				}
				r := check.Round{Began: at, Answers: []rbl.Answer{a}, Zones: []rbl.Health{{Zone: zone.Name, Kind: rbl.IP4, State: rbl.Healthy, At: at}}}
				if err := h.Take(t.Context(), r, []rbl.Subject{subject}, []rbl.Zone{zone}); err != nil {
					t.Fatal(err)
				}
				all, err := h.Listings(t.Context(), history.Query{})
				if err != nil {
					t.Fatal(err)
				}
				if i == len(c.rounds)-1 {
					want := time.Time{}
					if c.want >= 0 {
						want = start.Add(c.want)
					}
					if len(all) != 1 || !all[0].CleanBefore.Equal(want) {
						t.Errorf("%+v, want clean before %v", all, want)
					}
				}
				if err := h.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A second look counts as well, each list and subject has its own, and a listing
// keeps its own, whatever the list says afterwards.
func TestCleanBeforeIsOfItsListAndSubject(t *testing.T) {
	s := open(t, t.TempDir())
	at := func(h int) time.Time { return start.Add(time.Duration(h) * time.Hour) }
	take(t, s, at(0), nil, clean(zone, ours), clean("b.example", ours), listed(zone, other, hit(2)))
	take(t, s, at(1), map[string]rbl.State{zone: rbl.Emptied}, clean(zone, ours), clean("b.example", ours)) // is not believed
	take(t, s, at(2), nil, listed(zone, ours, hit(2)), clean("b.example", ours))
	must(t, s.TakeAgain(t.Context(), listings(t, s, history.Query{Subject: ours.String()})[0].ID, answerOf(at(3), clean(zone, ours)), healthOf(at(3), zone, rbl.IP4, nil)))
	take(t, s, at(4), nil, listed(zone, ours, hit(2)), listed("b.example", ours, hit(2)))
	take(t, s, at(5), nil, listed(zone, ours, hit(2)), clean("b.example", ours))
	for first, want := range map[string]time.Time{"bl.example 2": at(0), "bl.example 4": at(3), "b.example 4": at(2)} {
		found := false
		for _, l := range listings(t, s, history.Query{Subject: ours.String()}) {
			if fmt.Sprintf("%s %.0f", l.Zone, l.First.Sub(start).Hours()) == first {
				found = true
				if l.CleanBefore != want {
					t.Errorf("%s: clean before %v, want %v", first, l.CleanBefore, want)
				}
			}
		}
		if !found {
			t.Errorf("%s: not there", first)
		}
	}
	if l := listings(t, s, history.Query{Subject: other.String()})[0]; !l.CleanBefore.IsZero() {
		t.Errorf("of another subject: %+v", l)
	}
	text, err := json.Marshal(listings(t, s, history.Query{Subject: other.String()})[0])
	if err != nil || strings.Contains(string(text), "clean_before") {
		t.Errorf("%s, %v", text, err)
	}
}

// It is forgotten once a subject was not checked for 60 days, and not before, nor
// while it is checked, however long it was not clean.
func TestCleanIsForgottenWithItsSubject(t *testing.T) {
	for name, c := range map[string]struct {
		away  int // days in which only another subject is checked
		asked bool
		want  bool
	}{
		"away for 59 days":        {59, false, true},
		"away for 62 days":        {62, false, false},
		"not clean for 70 days":   {70, true, true},
		"not clean for two years": {730, true, true},
	} {
		s := open(t, t.TempDir())
		take(t, s, start, nil, clean(zone, ours), clean(zone, other))
		for d := 1; d < c.away; d++ {
			all := []says{clean(zone, other)}
			if c.asked {
				all = append(all, unknown(zone, ours))
			}
			take(t, s, start.Add(time.Duration(d)*day), nil, all...)
		}
		take(t, s, start.Add(time.Duration(c.away)*day), nil, listed(zone, ours, hit(2)), listed(zone, other, hit(2)))
		for _, l := range listings(t, s, history.Query{}) {
			switch {
			case l.Subject == other && l.CleanBefore != start.Add(time.Duration(c.away-1)*day):
				t.Errorf("%s: of another: %+v", name, l)
			case l.Subject == ours && (l.CleanBefore == start) != c.want:
				t.Errorf("%s: clean before %v", name, l.CleanBefore)
			}
		}
	}
}

// No more of them are kept than listings: the oldest go.
func TestCleanIsBounded(t *testing.T) {
	s := openWith(t, t.TempDir(), history.Options{Confirm: confirm, Most: 3})
	pairs := func(say func(string, rbl.Subject) says, zones ...string) (all []says) {
		for _, z := range zones {
			all = append(all, say(z, ours))
		}
		return all
	}
	take(t, s, start, nil, pairs(clean, "a.example", "b.example")...)
	take(t, s, start.Add(time.Hour), nil, pairs(clean, "c.example", "d.example", "e.example")...)
	list := func(z string, of rbl.Subject) says { return listed(z, of, hit(2)) }
	take(t, s, start.Add(2*time.Hour), nil, pairs(list, "a.example", "c.example", "e.example")...)
	for _, l := range listings(t, s, history.Query{}) {
		if known := !l.CleanBefore.IsZero(); known != (l.Zone != "a.example") {
			t.Errorf("%+v", l)
		}
	}
}
