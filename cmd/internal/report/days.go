package report

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Days are states of days. In JSON they take a character a day, for kept reports have
// a year of each name: {"from":"2026-01-01","states":"...?# ."}, with "#" for listed,
// "?" for unknown, "." for clean and a blank for no round. What is read back has
// midnights of UTC: the dates are those of the server, and they alone count.
type Days []DayState

// DayState is the worst of a day: "listed", "unknown", "clean", or "" (no round).
type DayState struct {
	Day   time.Time // its date in its own zone is what counts
	State string
}

// compactDays are Days as JSON has them.
type compactDays struct {
	From   string `json:"from"`
	States string `json:"states"`
}

// dayStates are the states with their characters.
var dayStates = [...]struct {
	state string
	sign  byte
}{{"listed", '#'}, {"unknown", '?'}, {"clean", '.'}, {"", ' '}}

// MarshalJSON writes the last year of them. Days that are left out had no round; of
// one that is there twice the worse state counts.
func (d Days) MarshalJSON() ([]byte, error) {
	by := map[int]string{}
	first, last := 0, 0
	for _, day := range d {
		if day.Day.IsZero() {
			continue
		}
		n := dayNumber(day.Day)
		if len(by) == 0 {
			first, last = n, n
		}
		first, last = min(first, n), max(last, n)
		by[n] = worst([]DayState{{State: by[n]}, day})
	}
	if len(by) == 0 {
		return []byte("null"), nil
	}
	first = max(first, last-mostDays+1)
	var states strings.Builder
	for n := first; n <= last; n++ {
		for _, s := range dayStates {
			if s.state == by[n] {
				states.WriteByte(s.sign)
			}
		}
	}
	return json.Marshal(compactDays{dateOf(first).Format(time.DateOnly), states.String()})
}

// dateOf is the midnight of a day by its number.
func dateOf(number int) time.Time { return time.Unix(int64(number)*86400, 0).UTC() }

// UnmarshalJSON reads what MarshalJSON writes.
func (d *Days) UnmarshalJSON(text []byte) error {
	var c *compactDays
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("read states of days: %w", err)
	}
	if c == nil {
		*d = nil
		return nil
	}
	from, err := time.Parse(time.DateOnly, c.From)
	if err != nil {
		return fmt.Errorf("read states of days: from: %w", err)
	}
	if len(c.States) > mostDays {
		return fmt.Errorf("read states of days: got %d, want at most %d", len(c.States), mostDays)
	}
	all := make(Days, 0, len(c.States))
	for i := range len(c.States) {
		day := DayState{Day: from.AddDate(0, 0, i), State: "\x00"}
		for _, s := range dayStates {
			if s.sign == c.States[i] {
				day.State = s.state
			}
		}
		if day.State == "\x00" {
			return fmt.Errorf("read states of days: got %q, want #, ?, . or a blank", c.States[i])
		}
		all = append(all, day)
	}
	*d = all
	return nil
}
