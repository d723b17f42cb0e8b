package history_test

import (
	"path/filepath"
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
