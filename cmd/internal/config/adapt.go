package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of limit.adapt: what is remembered of a budget, and what still is a
// limit.
const (
	maxTimes = 10
	maxDays  = 31
)

// adapting is TIMES/DAYS: "3/21d". Other than of a window the count is a factor.
func adapting() kind[Window] {
	bounds := fmt.Sprintf(`1 to %d times the largest of 1 to %d whole days`, maxTimes, maxDays)
	k := kind[Window]{
		name:   `"TIMES/DAYS", ` + bounds,
		wanted: `how many times the largest of how many days, such as "3/21d": ` + bounds,
		show:   func(w Window) string { return strconv.Quote(fmt.Sprintf("%d/%dd", w.Count, w.Length/day)) },
	}
	k = one(k, aString, func(s string) (Window, string, bool) {
		w, remedy := parseAdapting(s)
		return w, remedy, remedy == fine
	})
	read := k.read
	k.read = func(v *value) (Window, []fault) {
		w, faults := read(v)
		if v.kind == anInteger && !strings.HasPrefix(v.text, "-") && v.text != "0" {
			faults[0].remedy = fmt.Sprintf("write it with its days and in quotes: %q", v.text+"/21d")
		}
		return w, faults
	}
	return k
}

func parseAdapting(s string) (w Window, remedy string) {
	times, length, found := strings.Cut(s, "/")
	n, unit := parseCount(times)
	d, err := ParseDuration(length)
	switch {
	case !found || unit != "":
		return w, `write the factor, / and the days: "3/21d"`
	case n == 0:
		return w, zeroRemedy + "without it the limit stays as it is"
	case n < 1 || n > maxTimes:
		return w, "give a factor within the bounds"
	case err != nil || d%day != 0:
		return w, `write whole days: "` + times + `/21d"`
	case d < day || d > maxDays*day:
		return w, "give a number of days within the bounds"
	}
	return Window{n, time.Duration(d)}, fine
}

// checkAdapt: what came back is counted after the message went, so that no day
// has a largest count of it.
func (r *report) checkAdapt(l *Limit, t *table) {
	if l.Adapt != (Window{}) && l.Counts == "bounces" && t.sure("adapt", "counts") {
		r.add(t.place("adapt"), "limit.adapt", `it with counts = "bounces"`, "it with what is counted when a message goes", "delete the key")
	}
}
