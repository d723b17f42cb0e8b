package history_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
)

// Listed, clean, unknown and refused stay four, and a list that is not healthy has
// said neither of the first two.
func TestSubjectsAndAnswersOfTheLastRound(t *testing.T) {
	s := open(t, t.TempDir())
	take(t, s, start, nil, clean("old.example", other))
	sick := map[string]rbl.State{"empty.example": rbl.Emptied, "wild.example": rbl.Wild}
	take(t, s, start.Add(time.Hour), sick, listed("a.example", ours, hit(2)), clean("b.example", ours), clean("empty.example", ours), listed("wild.example", ours, hit(2)),
		unknown("c.example", ours), says{"d.example", ours, rbl.Refused, nil}, clean("b.example", site))
	all, err := s.Subjects(t.Context())
	must(t, err)
	at := start.Add(time.Hour)
	if want := []history.SubjectState{{ours, 1, 1, 3, 1, at}, {site, 0, 1, 0, 0, at}}; !slices.Equal(all, want) {
		t.Errorf("%+v", all)
	}
	answers, err := s.Answers(t.Context())
	must(t, err)
	var got []string
	for _, a := range answers {
		got = append(got, a.Zone+" "+a.Result.String())
	}
	if want := []string{"a.example listed", "b.example clean", "empty.example unknown", "wild.example unknown", "c.example unknown", "d.example refused", "b.example clean"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if a := answers[0]; a.Subject != ours || !slices.Equal(a.Hits, []rbl.Hit{hit(2)}) || len(a.Reasons) != 1 || a.At != at {
		t.Errorf("%+v", a)
	}
	if a := answers[3]; a.Hits != nil || a.Why != "the list is wild" {
		t.Errorf("%+v", a)
	}
	round, near, err := s.Last(t.Context())
	if err != nil || round != at || !near.IsZero() {
		t.Errorf("last: %v, %v, %v", round, near, err)
	}
}

// An address that came as 4-in-6 is the same one.
func TestMappedAddressIsTheSame(t *testing.T) {
	s := open(t, t.TempDir())
	mapped := address("::ffff:203.0.113.5")
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	r := roundOf(start.Add(time.Hour), nil, listed(zone, ours, hit(2)))
	r.Answers[0].Subject = mapped
	must(t, s.Take(t.Context(), r, []rbl.Subject{mapped}, zonesNamed(zone)))
	if got := untold(t, s); !slices.Equal(got, []history.EventKind{history.Began}) {
		t.Errorf("told: %v", got)
	}
}

// The worst of a day: a confirmed listing of the address itself that harms, then
// that most lists said nothing.
func TestDays(t *testing.T) {
	wide, info := hit(5), hit(6)
	wide.Scope, info.Severity = rbl.ScopeASN, rbl.Info
	for name, c := range map[string]struct {
		says []says
		want rbl.Result
	}{
		"clean":           {[]says{clean("a.example", ours), clean("b.example", ours)}, rbl.Clean},
		"listed":          {[]says{listed("a.example", ours, hit(2)), clean("b.example", ours)}, rbl.Listed},
		"of a range":      {[]says{listed("a.example", ours, wide), clean("b.example", ours)}, rbl.Clean},
		"harmless":        {[]says{listed("a.example", ours, info), clean("b.example", ours)}, rbl.Clean},
		"half unknown":    {[]says{clean("a.example", ours), unknown("b.example", ours)}, rbl.Clean},
		"more unknown":    {[]says{clean("a.example", ours), unknown("b.example", ours), unknown("c.example", ours)}, rbl.Unknown},
		"refused":         {[]says{clean("a.example", ours), unknown("b.example", ours), {"c.example", ours, rbl.Refused, nil}}, rbl.Unknown},
		"listed, unknown": {[]says{listed("a.example", ours, hit(2)), unknown("b.example", ours), unknown("c.example", ours)}, rbl.Listed},
	} {
		s := open(t, t.TempDir())
		for h := range 3 {
			take(t, s, start.Add(time.Duration(h)*time.Hour), nil, c.says...)
		}
		days, err := s.Days(t.Context(), time.Time{}, time.Time{}, time.UTC)
		if want := (history.Day{Subject: ours, Day: start.Truncate(24 * time.Hour), Worst: c.want}); err != nil || !slices.Equal(days, []history.Day{want}) {
			t.Errorf("%s: %+v, %v", name, days, err)
		}
	}
}

// A listing that nobody confirmed is no listed day; its confirmation makes it one,
// and silence does not end it.
func TestDayIsListedOnceConfirmed(t *testing.T) {
	s := open(t, t.TempDir())
	worst := func() (all []rbl.Result) {
		days, err := s.Days(t.Context(), time.Time{}, time.Time{}, time.UTC)
		must(t, err)
		for _, d := range days {
			all = append(all, d.Worst)
		}
		return all
	}
	take(t, s, start, nil, listed(zone, ours, hit(2)))
	if got := worst(); !slices.Equal(got, []rbl.Result{rbl.Clean}) {
		t.Errorf("suspected: %v", got)
	}
	at := start.Add(confirm)
	must(t, s.TakeAgain(t.Context(), listings(t, s, history.Query{})[0].ID, answerOf(at, listed(zone, ours, hit(2))), healthOf(at, zone, rbl.IP4, nil)))
	take(t, s, start.Add(24*time.Hour), nil, unknown(zone, ours))
	take(t, s, start.Add(48*time.Hour), nil, clean(zone, ours))
	take(t, s, start.Add(49*time.Hour), nil, clean(zone, ours))
	take(t, s, start.Add(72*time.Hour), nil, clean(zone, ours))
	if got := worst(); !slices.Equal(got, []rbl.Result{rbl.Listed, rbl.Listed, rbl.Listed, rbl.Clean}) {
		t.Errorf("%v", got)
	}
}

// Days are those of the time zone, also when they have 23 or 25 hours or begin at a
// quarter to.
func TestDaysOfTheTimeZone(t *testing.T) {
	s := open(t, t.TempDir())
	for h := range 24 * 4 { // from 27 to 30 March 2026, the 29th has 23 hours in Berlin
		at := time.Date(2026, 3, 27, h, 0, 0, 0, time.UTC)
		a := clean(zone, ours)
		if h == 24+23 { // 28th 23:00 UTC is the 29th 00:00 in Berlin
			a = unknown(zone, ours)
		}
		take(t, s, at, nil, a, clean("b.example", ours), clean("b.example", site), unknown(zone, site), unknown("c.example", ours))
	}
	for name, want := range map[string]string{
		"UTC":            "27clean 28unknown 29clean 30clean",
		"Europe/Berlin":  "27clean 28clean 29unknown 30clean 31clean",
		"Asia/Kathmandu": "27clean 28clean 29unknown 30clean 31clean", // +05:45
		"Asia/Tokyo":     "27clean 28clean 29unknown 30clean 31clean",
	} {
		loc, err := time.LoadLocation(name)
		must(t, err)
		days, err := s.Days(t.Context(), time.Time{}, time.Time{}, loc)
		must(t, err)
		got := ""
		for _, d := range days {
			if d.Subject == ours {
				got += fmt.Sprintf(" %d%s", d.Day.Day(), d.Worst)
			}
			if h, m, sec := d.Day.Clock(); h+m+sec != 0 || d.Day.Location() != loc {
				t.Errorf("%s: %v is no midnight there", name, d.Day)
			}
		}
		if got[1:] != want {
			t.Errorf("%s: %s", name, got)
		}
		if !slices.IsSortedFunc(days, func(a, b history.Day) int {
			if a.Subject != b.Subject {
				return 0
			}
			return a.Day.Compare(b.Day)
		}) || days[0].Subject != ours {
			t.Errorf("%s: not in order: %v", name, days)
		}
	}
	days, err := s.Days(t.Context(), time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC), time.UTC)
	if err != nil || len(days) != 4 {
		t.Errorf("two days of two subjects: %v, %v", days, err)
	}
	n, err := s.Queries(t.Context(), time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC))
	if err != nil || n != 24*5 {
		t.Errorf("%d queries, %v", n, err)
	}
	must(t, s.AddQueries(t.Context(), time.Date(2026, 3, 28, 5, 1, 0, 0, time.UTC), 7))
	if n, err = s.Queries(t.Context(), time.Time{}, time.Time{}); err != nil || n != 4*24*5+7 {
		t.Errorf("%d queries in all, %v", n, err)
	}
}

// A round without a time, or with nothing in it, is no clean day.
func TestEmptyRoundIsNotClean(t *testing.T) {
	s := open(t, t.TempDir())
	if err := s.Take(t.Context(), check.Round{}, []rbl.Subject{ours}, zonesNamed(zone)); err == nil {
		t.Error("a round without a time was taken")
	}
	must(t, s.Take(t.Context(), check.Round{Began: start}, []rbl.Subject{ours}, zonesNamed(zone)))
	days, err := s.Days(t.Context(), time.Time{}, time.Time{}, time.UTC)
	if err != nil || len(days) != 1 || days[0].Worst != rbl.Unknown {
		t.Errorf("%+v, %v", days, err)
	}
}

// A year of a large host: 20 subjects, 60 zones, a round every 6 hours.
func BenchmarkYear(b *testing.B) {
	s := openWith(b, b.TempDir(), history.Options{})
	var all []says
	for i := range 20 {
		for z := range 60 {
			all = append(all, clean(fmt.Sprintf("z%d.example", z), address(fmt.Sprintf("203.0.113.%d", i))))
		}
	}
	const rounds = 365 * 4
	began := time.Now()
	for i := range rounds {
		take(b, s, start.Add(time.Duration(i)*6*time.Hour), nil, all...)
	}
	taking := time.Since(began) / rounds
	loc, err := time.LoadLocation("Europe/Berlin")
	must(b, err)
	for b.Loop() {
		if days, err := s.Days(b.Context(), time.Time{}, time.Time{}, loc); err != nil || len(days) < 365*20 {
			b.Fatal(len(days), err)
		}
	}
	b.ReportMetric(float64(taking.Microseconds()), "µs/round")
}
