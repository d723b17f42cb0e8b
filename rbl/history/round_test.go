package history_test

import (
	"fmt"
	"slices"
	"strings"
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
	if want := []history.SubjectState{{Subject: ours, Listed: 1, Clean: 1, Unknown: 3, Refused: 1, At: at}, {Subject: site, Clean: 1, At: at}}; !slices.Equal(all, want) {
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

// What harms nobody, and what is meant for a range, is no listing of a subject; one
// hit that is makes it one.
func TestSubjectsTellListedFromWideAndInfo(t *testing.T) {
	wide, asn, info, policy, name := hit(3), hit(4), hit(5), hit(6), hit(7)
	wide.Scope, asn.Scope, name.Scope = rbl.ScopeRange, rbl.ScopeASN, rbl.ScopeDomain
	info.Severity, policy.Severity, policy.Scope = rbl.Info, rbl.Info, rbl.ScopeRange
	for text, c := range map[string]struct {
		hits []rbl.Hit
		want history.SubjectState
	}{
		"harms":             {[]rbl.Hit{hit(2)}, history.SubjectState{Listed: 1}},
		"of a domain":       {[]rbl.Hit{name}, history.SubjectState{Listed: 1}},
		"of a range":        {[]rbl.Hit{wide}, history.SubjectState{Wide: 1}},
		"of a provider":     {[]rbl.Hit{asn, wide}, history.SubjectState{Wide: 1}},
		"informs":           {[]rbl.Hit{info}, history.SubjectState{Info: 1}},
		"informs of ranges": {[]rbl.Hit{info, policy}, history.SubjectState{Info: 1}},
		"range and info":    {[]rbl.Hit{wide, info}, history.SubjectState{Wide: 1}},
		"all":               {[]rbl.Hit{wide, info, policy, hit(2)}, history.SubjectState{Listed: 1}},
	} {
		s := open(t, t.TempDir())
		take(t, s, start, nil, listed(zone, ours, c.hits...), clean("b.example", ours))
		c.want.Subject, c.want.Clean, c.want.At = ours, 1, start
		if all, err := s.Subjects(t.Context()); err != nil || !slices.Equal(all, []history.SubjectState{c.want}) {
			t.Errorf("%s: %+v, %v", text, all, err)
		}
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

// A day comes once, and begins at its first instant, also where the clocks go
// forward or back at midnight, or a day is left out.
func TestDayBeginsAtItsFirstInstant(t *testing.T) {
	for name, c := range map[string]struct {
		from time.Time
		want string
	}{
		"America/Santiago": {time.Date(2026, 9, 5, 4, 0, 0, 0, time.UTC), "5@00 6@01 7@00 8@00"},
		"Africa/Cairo":     {time.Date(2026, 4, 22, 22, 0, 0, 0, time.UTC), "23@00 24@01 25@00 26@00"},
		"Asia/Beirut":      {time.Date(2026, 3, 27, 22, 0, 0, 0, time.UTC), "28@00 29@01 30@00 31@00"},
		"Africa/Tripoli":   {time.Date(2013, 3, 27, 23, 0, 0, 0, time.UTC), "28@00 29@00 30@00 31@00"},
		"America/Havana":   {time.Date(2026, 10, 31, 4, 0, 0, 0, time.UTC), "31@00 1@00 2@00 3@00"}, // midnight comes twice
		"Atlantic/Azores":  {time.Date(2026, 10, 24, 0, 0, 0, 0, time.UTC), "24@00 25@00 26@00 27@00"},
		"America/St_Johns": {time.Date(2006, 10, 28, 2, 30, 0, 0, time.UTC), "28@00 29@00 30@00 31@00"}, // at one past midnight back to the day before
		"Pacific/Apia":     {time.Date(2011, 12, 28, 10, 0, 0, 0, time.UTC), "28@00 29@00 31@00 1@00"},
	} {
		loc, err := time.LoadLocation(name)
		must(t, err)
		s := open(t, t.TempDir())
		for q := range 4*24*3 + 12 {
			must(t, s.Take(t.Context(), roundOf(c.from.Add(time.Duration(q)*15*time.Minute), nil, clean(zone, ours)), []rbl.Subject{ours}, zonesNamed(zone)))
		}
		days, err := s.Days(t.Context(), time.Time{}, time.Time{}, loc)
		must(t, err)
		var got []string
		for _, d := range days {
			got = append(got, d.Day.Format("2@15"))
			if before := d.Day.Add(-time.Second); before.Format(time.DateOnly) >= d.Day.Format(time.DateOnly) {
				t.Errorf("%s: %v is not the first instant of that day", name, d.Day)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// What is said in an hour that comes again after midnight is not lost.
func TestHourThatComesAgainAfterMidnight(t *testing.T) {
	loc, err := time.LoadLocation("America/St_Johns")
	must(t, err)
	s := open(t, t.TempDir())
	again := time.Date(2006, 10, 29, 3, 0, 0, 0, time.UTC) // 23:30, for the second time
	take(t, s, again.Add(-time.Hour), nil, clean(zone, ours))
	take(t, s, again, nil, unknown(zone, ours))
	take(t, s, again.Add(2*time.Hour), nil, clean(zone, ours))
	days, err := s.Days(t.Context(), time.Time{}, time.Time{}, loc)
	if err != nil || len(days) != 2 || days[0].Worst != rbl.Clean || days[1].Worst != rbl.Unknown {
		t.Errorf("%+v, %v", days, err)
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
