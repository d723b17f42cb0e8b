package history_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
)

// scripts are what one zone says of one address, minute by minute, and where that
// leaves the newest listing: "MINUTE LOOK PHASE EVENTS". A look with a "?" before it
// is a second look (TakeAgain), else it is a round.
var scripts = map[string]string{
	"a second look confirms": `
		0    listed  suspected
		10   ?listed listed    began
		360  listed  listed`,
	"a second look that comes too early does not": `
		0    listed  suspected
		9    ?listed suspected
		10   ?listed listed    began`,
	"a later round confirms": `
		0    listed  suspected
		360  listed  listed    began`,
	"a round that comes too early does not": `
		0    listed  suspected
		5    listed  suspected
		10   listed  listed    began`,
	"what is not confirmed is withdrawn": `
		0    listed  suspected
		10   ?clean  withdrawn
		360  clean   withdrawn`,
	"and may come back": `
		0    listed  suspected
		2    clean   withdrawn
		360  listed  suspected
		365  listed  suspected
		370  listed  listed    began`,
	"an end is confirmed": `
		0    listed  suspected
		10   ?listed listed    began
		360  clean   ending
		365  clean   ending
		370  ?clean  ended     over
		720  clean   ended`,
	"an end that is not one": `
		0    listed  suspected
		10   ?listed listed    began
		360  clean   ending
		370  ?listed listed
		720  clean   ending
		725  listed  listed
		1080 clean   ending
		1090 ?clean  ended     over`,
	"a relisting is told again": `
		0    listed  suspected
		10   ?listed listed    began
		360  clean   ending
		370  ?clean  ended     over
		720  listed  suspected
		730  ?listed listed    began
		1080 clean   ending
		1440 clean   ended     over`,
	"silence neither confirms nor ends": `
		0    listed   suspected
		10   ?unknown suspected
		20   ?refused suspected
		360  unknown  suspected
		720  listed   listed    began
		1080 unknown  listed
		1440 refused  listed
		1800 clean    ending
		1810 ?unknown ending
		2160 unknown  ending
		2520 clean    ended     over`,
	"nor does a list that is not well": `
		0    listed   suspected
		10   ?silent  suspected
		20   ?emptied suspected
		360  listed   listed    began
		720  emptied  listed
		1080 dead     listed
		1440 refusing listed
		1800 filtered listed
		2160 rewritten listed
		2520 silent   listed
		2880 missing  listed
		3240 clean    ending
		3250 ?silent  ending
		3600 clean    ended     over`,
	"nor an answer that says listed and not what": `
		0    codeless none
		360  listed   suspected
		720  codeless suspected
		1080 listed   listed    began
		1440 codeless listed`,
	"a list that has gone wild begins nothing and ends nothing": `
		0    wild     none      zone_bad
		360  wild     none
		720  listed   suspected zone_well
		725  wild     withdrawn zone_bad
		1080 listed   suspected zone_well
		1090 ?listed  listed    began
		1440 wild     listed    zone_bad
		1800 silent   listed
		2160 wild     listed
		2520 listed   listed    zone_well
		2880 clean    ending
		2890 ?wild    ending    zone_bad
		3240 wild     ending
		3600 clean    ended     zone_well over`,
	"a second look finds it wild": `
		0    listed   suspected
		10   ?wild    withdrawn zone_bad
		360  clean    withdrawn zone_well`,
	"a domain that is somebody else's now": `
		0    listed   suspected
		10   ?listed  listed    began
		360  parked   listed    zone_bad
		720  emptied  listed
		1080 parked   listed
		1440 clean    ending    zone_well
		1800 clean    ended     over`,
	"the clock is set back while it is suspected": `
		1000 listed   suspected
		0    ?listed  suspected
		9    ?listed  suspected
		10   ?listed  listed    began
		360  clean    ending
		370  ?clean   ended     over`,
	"and while it ends": `
		1000 listed   suspected
		1010 ?listed  listed    began
		1360 clean    ending
		0    clean    ending
		5    clean    ending
		10   clean    ended     over`,
	"the clock is set back while nobody answers": `
		1000 listed   suspected
		1010 ?unknown suspected
		0    ?unknown suspected
		10   ?listed  suspected
		20   ?listed  listed    began`,
}

func TestListingMovesOnlyByWhatIsBelieved(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			for _, line := range strings.Split(strings.TrimSpace(script), "\n") {
				play(t, s, strings.Fields(line))
			}
		})
	}
}

const zone = "bl.example"

// play plays a line of a script.
func play(t *testing.T, s *history.Store, words []string) {
	t.Helper()
	minutes, err := time.ParseDuration(words[0] + "m")
	must(t, err)
	at := start.Add(minutes)
	look, again := strings.CutPrefix(words[1], "?")
	a, sick := lookOf(t, look)
	all := []says{a, clean("quiet.example", ours)}
	switch {
	case again:
		newest := slices.MaxFunc(listings(t, s, history.Query{}), func(a, b history.Listing) int { return int(a.ID - b.ID) })
		must(t, s.TakeAgain(t.Context(), newest.ID, answerOf(at, a), healthOf(at, zone, rbl.IP4, sick)))
	case look == "missing":
		must(t, s.Take(t.Context(), roundOf(at, nil, all[1:]...), []rbl.Subject{ours}, zonesNamed(zone, "quiet.example")))
	default:
		take(t, s, at, sick, all...)
	}
	phase, due := history.Phase("none"), time.Time{}
	if all := listings(t, s, history.Query{}); len(all) > 0 {
		newest := slices.MaxFunc(all, func(a, b history.Listing) int { return int(a.ID - b.ID) })
		phase, due = newest.Phase, newest.Due
		if open := phase != history.Ended && phase != history.Withdrawn; open == !newest.Ended.IsZero() {
			t.Errorf("%v: %s and ended at %v", words, phase, newest.Ended)
		}
		if believed := a.result != rbl.Unknown && a.result != rbl.Refused && len(sick) == 0 && look != "missing" && look != "codeless"; believed == !newest.Unasked.IsZero() && newest.Ended.IsZero() {
			t.Errorf("%v: unasked since %v", words, newest.Unasked)
		}
		if newest.Ended.Before(newest.First) && !newest.Ended.IsZero() || newest.Last.Before(newest.First) {
			t.Errorf("%v: from %v to %v, ended %v", words, newest.First, newest.Last, newest.Ended)
		}
	}
	if waits := phase == history.Suspected || phase == history.Ending; waits == due.IsZero() || waits && (!due.After(at) || due.Sub(at) > 6*time.Hour) {
		t.Errorf("%v: %s, and is due at %v", words, phase, due)
	}
	var kinds []string
	for _, k := range untold(t, s) {
		kinds = append(kinds, string(k))
	}
	if got, want := fmt.Sprint(phase, kinds), fmt.Sprint(words[2], words[3:]); got != want {
		t.Errorf("%v: got %s", words, got)
	}
}

// lookOf is what the zone says, and if it is not well how it is.
func lookOf(t *testing.T, look string) (says, map[string]rbl.State) {
	t.Helper()
	var state rbl.State
	switch look {
	case "listed":
		return listed(zone, ours, hit(2)), nil
	case "clean", "missing":
		return clean(zone, ours), nil
	case "unknown":
		return unknown(zone, ours), nil
	case "refused":
		return says{zone, ours, rbl.Refused, nil}, nil
	case "codeless":
		return listed(zone, ours), nil
	}
	must(t, state.UnmarshalText([]byte(look)))
	// What it says is what would do the most harm if it were believed.
	a := listed(zone, ours, hit(2))
	if state == rbl.Emptied || state == rbl.Dead || state == rbl.Silent {
		a = clean(zone, ours)
	}
	return a, map[string]rbl.State{zone: state}
}

// Looks at a list that gives no answer are twice as far apart each time, up to 6 h.
func TestSilenceIsAskedLessAndLess(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	at := start
	var waits []time.Duration
	for range 8 {
		due, err := s.NextDue(t.Context())
		must(t, err)
		waits = append(waits, due.Sub(at))
		at = due
		all, err := s.Due(t.Context(), at)
		must(t, err)
		must(t, s.TakeAgain(t.Context(), all[0].ID, answerOf(at, unknown(zone, ours)), healthOf(at, zone, rbl.IP4, nil)))
	}
	if want := "[10m0s 10m0s 10m0s 20m0s 40m0s 1h20m0s 2h40m0s 5h20m0s]"; fmt.Sprint(waits) != want {
		t.Errorf("%v, want %s", waits, want)
	}
}

// Each code is a listing of its own, also one that comes while another stands.
func TestEachCodeIsAListing(t *testing.T) {
	s := open(t, t.TempDir())
	css, pbl := hit(3), hit(10)
	pbl.Severity, pbl.Scope = rbl.Info, rbl.ScopeRange
	at := func(m int) time.Time { return start.Add(time.Duration(m) * time.Minute) }
	take(t, s, at(0), nil, listed(zone, ours, css, css))
	take(t, s, at(10), nil, listed(zone, ours, css, pbl))
	take(t, s, at(20), nil, listed(zone, ours, pbl))
	take(t, s, at(30), nil, listed(zone, ours, pbl))
	events, err := s.Events(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprintf("%v %s %v %s", e.At.Sub(start), e.Kind, e.Listing.Hit.Code, e.Listing.Phase))
	}
	if want := []string{"10m0s began 127.0.0.3 listed", "20m0s began 127.0.0.10 listed", "30m0s over 127.0.0.3 ended"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// Where codes are bits, another bit that comes or goes makes another address: the
// listing of a bit goes on.
func TestBitsOutliveTheirAddress(t *testing.T) {
	s := open(t, t.TempDir())
	bit := func(address, bit byte) rbl.Hit { h := hit(address); h.Bit = bit; return h }
	take(t, s, start, nil, listed(zone, site, bit(2, 2)))
	take(t, s, start.Add(time.Hour), nil, listed(zone, site, bit(6, 2), bit(6, 4)))
	take(t, s, start.Add(2*time.Hour), nil, listed(zone, site, bit(4, 4)))
	got := map[uint8]history.Phase{}
	for _, l := range listings(t, s, history.Query{}) {
		got[l.Hit.Bit] = l.Phase
	}
	if len(got) != 2 || got[2] != history.Ending || got[4] != history.Standing {
		t.Errorf("%v", got)
	}
}

// A second look at one code is one at all of that subject on that zone, and one at
// what has ended meanwhile changes nothing.
func TestSecondLookIsOfAllCodes(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, listed(zone, ours, hit(2), hit(3)), listed(zone, other, hit(2)))
	due, err := s.Due(t.Context(), start.Add(confirm))
	must(t, err)
	if len(due) != 3 {
		t.Fatalf("%d are due", len(due))
	}
	at := start.Add(confirm)
	must(t, s.TakeAgain(t.Context(), due[0].ID, answerOf(at, listed(zone, ours, hit(2))), healthOf(at, zone, rbl.IP4, nil)))
	if due, err = s.Due(t.Context(), at); err != nil || len(due) != 1 || due[0].Subject != other {
		t.Errorf("due: %v, %v", due, err)
	}
	withdrawn := slices.IndexFunc(listings(t, s, history.Query{}), func(l history.Listing) bool { return l.Phase == history.Withdrawn })
	id := listings(t, s, history.Query{})[withdrawn].ID
	must(t, s.TakeAgain(t.Context(), id, answerOf(at, listed(zone, other, hit(9))), healthOf(at, zone, rbl.IP4, map[string]rbl.State{zone: rbl.Wild})))
	if got := untold(t, s); !slices.Equal(got, []history.EventKind{history.Began}) {
		t.Errorf("told: %v", got)
	}
}

// The words of a listing follow what the list says.
func TestListingKeepsWhatWasSaidLast(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	h := hit(2)
	h.Means, h.Severity = "exploit", rbl.Critical
	r := roundOf(start.Add(time.Hour), nil, listed(zone, ours, h))
	r.Answers[0].Reasons, r.Answers[0].Resolver = []string{"another ticket"}, "192.0.2.1:53"
	must(t, s.Take(t.Context(), r, []rbl.Subject{ours}, zonesNamed(zone)))
	r = roundOf(start.Add(2*time.Hour), nil, listed(zone, ours, h))
	r.Answers[0].Reasons = nil // TXT was not to be had
	must(t, s.Take(t.Context(), r, []rbl.Subject{ours}, zonesNamed(zone)))
	l := listings(t, s, history.Query{})[0]
	if l.Hit != h || !slices.Equal(l.Reasons, []string{"another ticket"}) || l.Resolver != "127.0.0.1:53" || l.First != start || l.Last != start.Add(2*time.Hour) || l.Confirmed != start.Add(time.Hour) {
		t.Errorf("%+v", l)
	}
}

func TestListingsAreFoundAndOrdered(t *testing.T) {
	s := open(t, t.TempDir())
	mild := hit(4)
	mild.Severity = rbl.Low
	at := func(h int) time.Time { return start.Add(time.Duration(h) * time.Hour) }
	a := []says{listed("a.example", ours, hit(2)), clean("b.example", ours), clean("b.example", site), clean("a.example", ours6)}
	take(t, s, at(0), nil, a...)
	take(t, s, at(1), nil, a...)
	a[0] = clean("a.example", ours)
	take(t, s, at(2), nil, a...)
	take(t, s, at(3), nil, a...) // ended
	a[2] = listed("b.example", site, mild)
	take(t, s, at(4), nil, a...)
	a[3] = listed("a.example", ours6, hit(2))
	take(t, s, at(5), nil, a...)
	a[0] = listed("a.example", ours, hit(2))
	take(t, s, at(6), nil, a...)
	for want, q := range map[string]history.Query{
		"a203.0.113.5@6 a2001:db8::5@5 bexample.jp@4 a203.0.113.5@0": {},
		"a203.0.113.5@6 a2001:db8::5@5 bexample.jp@4":                {OpenOnly: true},
		"a203.0.113.5@6":                 {Limit: 1},
		"bexample.jp@4":                  {Zone: "B.example."},
		"a203.0.113.5@6 a203.0.113.5@0 ": {Subject: "::ffff:203.0.113.5"},
		"a2001:db8::5@5":                 {Subject: "2001:DB8:0::5"},
		"bexample.jp@4 ":                 {Subject: "Example.jp."},
		"a203.0.113.5@0":                 {Until: at(4)},
		"a203.0.113.5@0 ":                {Since: at(3), Until: at(4)},
		"bexample.jp@4  ":                {Since: at(4), Until: at(5)},
		"":                               {Subject: "198.51.100.1"},
	} {
		var got []string
		for _, l := range listings(t, s, q) {
			got = append(got, fmt.Sprintf("%.1s%s@%.0f", l.Zone, l.Subject, l.First.Sub(start).Hours()))
		}
		if strings.Join(got, " ") != strings.TrimSpace(want) {
			t.Errorf("%+v: %q", q, got)
		}
	}
}
