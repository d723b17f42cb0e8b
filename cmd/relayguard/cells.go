package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/render"
)

// roomyWidth is from where on tables have their less important columns.
const roomyWidth = 110

// roomy reports whether a table may have all its columns: on a wide terminal,
// and where programs read it.
func roomy(p render.Page) bool { return !p.Cut || p.Width >= roomyWidth }

// when is a time in a table: for programs in one word.
func when(p render.Page, t time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case !p.Cut:
		return t.Local().Format(time.RFC3339)
	case roomy(p):
		return t.Local().Format(time.DateTime)
	}
	return t.Local().Format("01-02 15:04")
}

// shortTime is a time in a text, with how long ago it was.
func shortTime(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	ago := render.Ago(now, t)
	if !strings.HasPrefix(ago, "in ") {
		ago += " ago"
	}
	return t.Local().Format("2006-01-02 15:04:05 -0700") + " (" + ago + ")"
}

// untilWhen is when something ends by itself.
func untilWhen(now, t time.Time, never string) string {
	if t.IsZero() {
		return never
	}
	return "until " + shortTime(now, t)
}

// sender is an envelope sender as it is shown.
func sender(mailFrom string) string { return cmp.Or(mailFrom, "<>") }

// counted is a number with its noun.
func counted[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(int64(n), 10) + " " + noun + "s"
}

func number[N int | int64](n N) string { return strconv.FormatInt(int64(n), 10) }

// domainList is recipient domains with their numbers, the largest first.
func domainList(domains map[string]int) string {
	names := slices.SortedFunc(maps.Keys(domains), func(a, b string) int {
		return cmp.Or(cmp.Compare(domains[b], domains[a]), strings.Compare(a, b))
	})
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = fmt.Sprintf("%s %d", cmp.Or(name, "(others)"), domains[name])
	}
	return strings.Join(all, ", ")
}

// secondsOf is a length of time that JSON has in seconds.
func secondsOf(s float64) string { return render.Duration(time.Duration(s * float64(time.Second))) }

// wrapped is a column that goes on in further lines.
func wrapped(title string) render.Column { return render.Column{Title: title, Wrap: true, Weight: 3} }
