package report_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/report"
)

func TestDaysAreACharacterADayAndComeBack(t *testing.T) {
	states := []string{"listed", "unknown", "clean", ""}
	for _, zone := range []string{"Asia/Tokyo", "Europe/Berlin", "America/New_York", "America/Santiago", "Africa/Cairo", "UTC"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		var days report.Days
		for i := range 365 {
			day := time.Date(2026, 1, 1+i, 0, 0, 0, 0, loc)
			if day.Hour() != 0 { // a day that has no midnight
				day = time.Date(2026, 1, 1+i, 1, 0, 0, 0, loc)
			}
			days = append(days, report.DayState{Day: day, State: states[i%4]})
		}
		text, err := json.Marshal(days)
		if err != nil || string(text) != `{"from":"2026-01-01","states":"`+strings.Repeat("#?. ", 91)+`#"}` {
			t.Fatalf("%s: %v, %s", zone, err, text)
		}
		var back report.Days
		if err := json.Unmarshal(text, &back); err != nil || len(back) != len(days) {
			t.Fatalf("%s: %d days, %v", zone, len(back), err)
		}
		for i := range days {
			if back[i].State != days[i].State || back[i].Day.Format(time.DateOnly) != days[i].Day.Format(time.DateOnly) {
				t.Fatalf("%s: %v came back as %v", zone, days[i], back[i])
			}
		}
		if again, err := json.Marshal(back); err != nil || string(again) != string(text) {
			t.Errorf("%s: %v, %s", zone, err, again)
		}
	}
}

func TestDaysOfAnyOrderAreWritten(t *testing.T) {
	day := func(n int, state string) report.DayState { return report.DayState{Day: at(n, 0, 0), State: state} }
	for name, c := range map[string]struct {
		days report.Days
		want string
	}{
		"none":               {nil, "null"},
		"of no date":         {report.Days{{State: "clean"}}, "null"},
		"a gap":              {report.Days{day(1, "clean"), day(4, "listed")}, `{"from":"2026-03-01","states":".  #"}`},
		"not in order":       {report.Days{day(4, "listed"), day(1, "clean")}, `{"from":"2026-03-01","states":".  #"}`},
		"one twice":          {report.Days{day(1, "clean"), day(1, "unknown"), day(1, "clean")}, `{"from":"2026-03-01","states":"?"}`},
		"a state of no kind": {report.Days{day(1, "odd")}, `{"from":"2026-03-01","states":" "}`},
	} {
		if got, err := json.Marshal(c.days); err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", name, got, err, c.want)
		}
	}
	long, err := json.Marshal(report.Days{{Day: time.Unix(0, 0), State: "listed"}, day(1, "clean")})
	if err != nil || len(long) > 500 {
		t.Errorf("%d octets, %v", len(long), err)
	}
}

func TestDaysThatCannotBeAreErrors(t *testing.T) {
	for _, text := range []string{`[]`, `[{"day":"2026-01-01T00:00:00Z","state":"clean"}]`, `"x"`, `{}`, `{"from":"2026-02-30","states":"."}`, `{"from":"2026-01-01","states":".x"}`, `{"from":"2026-01-01","states":"` + strings.Repeat(".", 367) + `"}`} {
		var d report.Days
		if err := json.Unmarshal([]byte(text), &d); err == nil {
			t.Errorf("%.60s: no error, %d days", text, len(d))
		}
	}
	d := report.Days{{State: "clean"}}
	if err := json.Unmarshal([]byte("null"), &d); err != nil || d != nil {
		t.Errorf("null: %v, %v", d, err)
	}
}

// FuzzDays reads any text; what can be read is written as it was.
func FuzzDays(f *testing.F) {
	for _, s := range []string{`{"from":"2026-01-01","states":"#?. "}`, `{"from":"0001-01-01","states":".."}`, `{"from":"9999-12-31","states":".."}`, `{"from":"2026-01-01","states":""}`, `null`, `[]`, `{"from":"x"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d, again report.Days
		if json.Unmarshal([]byte(s), &d) != nil {
			return
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &again); err == nil && len(d) > 0 && !d[0].Day.IsZero() && d[len(d)-1].Day.Year() < 10000 && !reflect.DeepEqual(d, again) {
			t.Errorf("%v, then %v", d, again)
		}
	})
}

// A kept report of many names stays small, and reads as it did before it was kept.
func TestAKeptReportIsSmallAndReadsAsItDid(t *testing.T) {
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Asia/Tokyo"} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		r := clean()
		r.Made = time.Date(2026, 7, 1, 6, 30, 0, 0, loc)
		r.Since, r.Until = r.Made.AddDate(0, 0, -1), r.Made
		var days report.Days
		for i := range 365 {
			state := "clean"
			if i == 364 || i == 250 {
				state = "listed"
			}
			days = append(days, report.DayState{Day: time.Date(2025, 7, 2+i, 0, 0, 0, 0, loc), State: state})
		}
		r.Addresses = nil
		for i := range 196 {
			r.Addresses = append(r.Addresses, report.Checked{Subject: fmt.Sprintf("d%d.example.jp", i), Clean: 9, At: r.Made, Days: days})
		}
		kept, err := json.MarshalIndent(r, "", "  ")
		if err != nil || len(kept) > 200_000 {
			t.Fatalf("%d octets, %v", len(kept), err)
		}
		var back report.Report
		if err := json.Unmarshal(kept, &back); err != nil {
			t.Fatal(err)
		}
		back.Made = back.Made.In(loc)
		before, _ := both(t, r, "en")
		if after, _ := both(t, &back, "en"); after != before {
			t.Errorf("%s: it does not read as before", zone)
		}
		if !strings.Contains(before, "2 Jul 2025 to 1 Jul: 2 days listed") {
			t.Errorf("%s: the days are not those of the zone", zone)
		}
	}
}
