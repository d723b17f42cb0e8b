package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// grouped is a number with commas: "57,000".
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// percent is a part of a whole: "0.4%", "12%". Of nothing it is nothing: "".
func percent(part, whole int64) string {
	if whole <= 0 || part < 0 {
		return ""
	}
	switch p := float64(part) * 100 / float64(whole); {
	case part == 0:
		return "0%"
	case p < 0.1:
		return "<0.1%"
	case p < 9.95:
		return strings.TrimSuffix(strconv.FormatFloat(p, 'f', 1, 64), ".0") + "%"
	case p > 99 && part < whole:
		return ">99%"
	default:
		return strconv.FormatFloat(p, 'f', 0, 64) + "%"
	}
}

// in is a time in the report's zone.
func (c *composer) in(t time.Time) time.Time { return t.In(c.r.Made.Location()) }

// day is a day: "Sunday, 1 March 2026".
func (c *composer) day(t time.Time) string {
	t = c.in(t)
	if c.w.lang == "ja" {
		return fmt.Sprintf("%d年%d月%d日(%s)", t.Year(), t.Month(), t.Day(), [...]string{"日", "月", "火", "水", "木", "金", "土"}[t.Weekday()])
	}
	return t.Format("Monday, 2 January 2006")
}

// date is a day in short: "1 Mar", with its year if that is another.
func (c *composer) date(t time.Time) string {
	t = c.in(t)
	same := t.Year() == c.in(c.r.Made).Year()
	switch {
	case t.IsZero():
		return "-"
	case c.w.lang == "ja" && same:
		return t.Format("1月2日")
	case c.w.lang == "ja":
		return t.Format("2006年1月2日")
	case same:
		return t.Format("2 Jan")
	}
	return t.Format("2 Jan 2006")
}

// moment is a time: "1 Mar 14:05".
func (c *composer) moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return c.date(t) + " " + c.in(t).Format("15:04")
}

// zone is the name of the server's zone: "JST", else "+09:00".
func (c *composer) zone() string {
	if name := c.r.Made.Format("MST"); strings.Trim(name, "+-0123456789") != "" {
		return clean(name, 10)
	}
	return c.r.Made.Format("-07:00")
}

// lasting is a length of time in its largest unit, rounded down.
func (c *composer) lasting(d time.Duration) string {
	switch d = max(d, 0); {
	case d >= 48*time.Hour:
		return c.w.text("days", values{"n": int64(d / (24 * time.Hour))})
	case d >= time.Hour:
		return c.w.text("hours", values{"n": int64(d / time.Hour)})
	}
	return c.w.text("minutes", values{"n": int64(d / time.Minute)})
}

// ago is how long before the report's making t was.
func (c *composer) ago(t time.Time) string { return c.lasting(c.r.Made.Sub(t)) }

// since is "since 1 Mar 14:05 (3 days)"; of the zero time "since when is not known".
func (c *composer) since(t time.Time) line {
	if t.IsZero() {
		return c.w.say("since_unknown", nil)
	}
	return c.w.say("since", values{"when": c.moment(t), "ago": c.ago(t)})
}

// dayNumber counts days by the calendar that t has, so that one of 23 or 25 hours is
// one.
func dayNumber(t time.Time) int {
	return int(time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / 86400)
}
