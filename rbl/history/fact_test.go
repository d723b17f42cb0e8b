package history_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// What is wrong is told once, and once when it is well: a look that DNS did not
// answer changes neither, nor since when it is so.
func TestFactsAreToldWhenTheyChange(t *testing.T) {
	for states, want := range map[string]string{
		"ok ok wrong wrong ok":             "ok@0 ok@0 wrong@2!fact_bad wrong@2 ok@4!fact_well",
		"wrong wrong":                      "wrong@0!fact_bad wrong@0",
		"unknown wrong unknown wrong":      "unknown@0 wrong@1!fact_bad unknown@2 wrong@1",
		"wrong unknown unknown ok unknown": "wrong@0!fact_bad unknown@1 unknown@1 ok@3!fact_well unknown@4",
		"ok unknown ok":                    "ok@0 unknown@1 ok@0",
	} {
		s := open(t, t.TempDir())
		var got []string
		for h, state := range strings.Fields(states) {
			f := sender.Fact{Subject: "203.0.113.5", Check: sender.PTR, State: state, Found: fmt.Sprint("look ", h), Wanted: "a name"}
			well := sender.Fact{Subject: "203.0.113.6", Check: sender.PTR, State: sender.OK}
			must(t, s.TakeFacts(t.Context(), start.Add(time.Duration(h)*time.Hour), []sender.Fact{well, f}))
			all, err := s.Facts(t.Context())
			must(t, err)
			if len(all) != 2 || all[1].Fact != f || all[0].Since != start {
				t.Fatalf("%s: %+v", states, all)
			}
			line := fmt.Sprintf("%s@%.0f", all[1].State, all[1].Since.Sub(start).Hours())
			events, err := s.Untold(t.Context())
			must(t, err)
			for _, e := range events {
				line += "!" + string(e.Kind)
				if *e.Fact != f {
					t.Errorf("%s: told %+v", states, e.Fact)
				}
				must(t, s.Told(t.Context(), e.ID))
			}
			got = append(got, line)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %s", states, got, want)
		}
	}
}

// Two facts of one check, as of an address with two names, are two.
func TestFactsOfOneCheckAreApart(t *testing.T) {
	s := open(t, t.TempDir())
	facts := []sender.Fact{{Subject: "203.0.113.5", Check: sender.Forward, State: sender.OK, Found: "a"}, {Subject: "203.0.113.5", Check: sender.Forward, State: sender.Wrong, Found: "b"}}
	for h := range 3 {
		must(t, s.TakeFacts(t.Context(), start.Add(time.Duration(h)*time.Hour), facts))
	}
	all, err := s.Facts(t.Context())
	must(t, err)
	if got := untold(t, s); !slices.Equal(got, []history.EventKind{history.FactBad}) || len(all) != 2 || all[1].Since != start {
		t.Errorf("%v, told: %v", all, got)
	}
	must(t, s.TakeFacts(t.Context(), start, nil))
	if all, err = s.Facts(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("what is no longer looked at: %v, %v", all, err)
	}
}

func TestNeighboursAreKeptWithTheLookBefore(t *testing.T) {
	s := open(t, t.TempDir())
	at := func(prefix string, asked, listed, unknown int) check.Neighbour {
		return check.Neighbour{Prefix: netip.MustParsePrefix(prefix), Zone: zone, Asked: asked, Listed: listed, Unknown: unknown}
	}
	for i, look := range []struct {
		all  []check.Neighbour
		want []int
	}{
		{[]check.Neighbour{at("203.0.113.0/24", 256, 3, 0), at("198.51.100.0/24", 256, 0, 256)}, []int{-1, -1}},
		{[]check.Neighbour{at("203.0.113.0/24", 256, 5, 1), at("198.51.100.0/24", 256, 1, 0)}, []int{3, -1}},
		{[]check.Neighbour{at("198.51.100.0/24", 256, 0, 0)}, []int{1}},
		{nil, nil},
	} {
		now := start.Add(time.Duration(i) * 7 * 24 * time.Hour)
		must(t, s.TakeNeighbours(t.Context(), now, look.all))
		all, before, err := s.Neighbours(t.Context())
		must(t, err)
		for j := range look.all {
			look.all[j].At = now
		}
		if !slices.Equal(all, look.all) || !slices.Equal(before, look.want) {
			t.Errorf("%d: %+v, %v", i, all, before)
		}
		if _, near, err := s.Last(t.Context()); err != nil || !near.Equal(now) {
			t.Errorf("last: %v, %v", near, err)
		}
	}
}

func TestLearntAddresses(t *testing.T) {
	s := open(t, t.TempDir())
	for i, l := range []history.Learnt{{Addr: "203.0.113.5", Where: "Received, mx.example.net"}, {Addr: "2001:DB8::0:5", Where: "an admin"}, {Addr: "::ffff:203.0.113.5", Where: strings.Repeat("ä", 200)}} {
		l.At = start.Add(time.Duration(i) * time.Hour)
		must(t, s.Learn(t.Context(), l))
	}
	for _, bad := range []string{"", "mail.example.jp", "203.0.113.5/24", "1.2.3"} {
		if err := s.Learn(t.Context(), history.Learnt{Addr: bad}); err == nil {
			t.Errorf("%q was learnt", bad)
		}
	}
	all, err := s.LearntAll(t.Context())
	must(t, err)
	if len(all) != 2 || all[0].Addr != "203.0.113.5" || all[0].At != start.Add(2*time.Hour) || len(all[0].Where) != 300 || all[1].Addr != "2001:db8::5" {
		t.Errorf("%+v", all)
	}
	must(t, s.Forget(t.Context(), "2001:db8:0::5"))
	must(t, s.Forget(t.Context(), "198.51.100.1"))
	if all, err = s.LearntAll(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	for i := range 1100 {
		must(t, s.Learn(t.Context(), history.Learnt{Addr: fmt.Sprintf("2001:db8::%x", i), At: start.Add(time.Duration(i) * time.Second)}))
	}
	if all, err = s.LearntAll(t.Context()); err != nil || len(all) != 1000 || all[1].Addr != "2001:db8::44b" {
		t.Errorf("%d are kept, the newest %+v, %v", len(all), all[:2], err)
	}
}
