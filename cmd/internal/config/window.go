package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Window is how many may pass in every interval of a length. The zero value is
// none.
type Window struct {
	Count  int64 // at least 1; octets where bytes are counted
	Length time.Duration
}

// String is the window as the configuration writes it: "300/1h".
func (w Window) String() string { return fmt.Sprintf("%d/%s", w.Count, showDuration(w.Length)) }

// Bounds of windows. A bucket has room for six, the burst among them, and keeps
// sixteen slots of each; a window of more than a month would outlast what
// anybody remembers.
const (
	maxCount       = 1_000_000_000
	maxBytes       = 1_000_000_000_000_000 // policy/limit.MaxCount is nine times that
	shortestWindow = time.Second
	longestWindow  = 31 * day
	maxWindows     = 5
)

// window is COUNT/DURATION. What the count may be depends on what is counted:
// checkWindows.
func window() kind[Window] {
	bounds := fmt.Sprintf(`1 to %d (bytes: to "1000TB") in %q to %q`, maxCount, showDuration(shortestWindow), showDuration(longestWindow))
	k := kind[Window]{
		name:   `"COUNT/DURATION", ` + bounds,
		wanted: `a count and the time that it is for, such as "300/1h": ` + bounds,
		show:   func(w Window) string { return strconv.Quote(w.String()) },
	}
	k = one(k, aString, func(s string) (Window, string, bool) {
		w, remedy := parseWindow(s)
		return w, remedy, remedy == fine
	})
	read := k.read
	k.read = func(v *value) (Window, []fault) {
		w, faults := read(v)
		if v.kind == anInteger {
			faults[0].remedy = fmt.Sprintf("write it with its time and in quotes: %q if it is for an hour", v.text+"/1h")
		}
		return w, faults
	}
	return k
}

func parseWindow(s string) (w Window, remedy string) {
	count, length, found := strings.Cut(s, "/")
	n, unit := parseCount(count)
	d, err := ParseDuration(length)
	switch {
	case !found || unit == count:
		return w, `write the count, / and the time: "300/1h"`
	case unit != "" && sizeUnits[strings.ToUpper(unit)] == 0:
		return w, sizeRemedy
	case n == 0:
		return w, zeroRemedy + `for a limit that stops nothing give it observe = true`
	case n < 1 || n > maxBytes:
		return w, "give a count within the bounds"
	case err != nil && slices.Contains([]string{"s", "m", "h", "d"}, length):
		return w, fmt.Sprintf("write the time with its number: %q", count+"/1"+length)
	case err != nil:
		return w, durationUnits
	case d < shortestWindow || d > longestWindow:
		return w, "give a time within the bounds"
	case d%time.Second != 0:
		return w, "give whole seconds"
	}
	return Window{n, d}, fine
}

// sizeUnits are what sizes may be written in.
var sizeUnits = map[string]int64{"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}

const sizeRemedy = `the units are KB, MB, GB and TB, of 1000 each: "100MB"`

// parseCount reads digits with a unit of sizes, or none, behind them. The count
// is -1 if it is negative or beyond all bounds; unit is what is not digits, as
// written.
func parseCount(s string) (n int64, unit string) {
	digits := strings.TrimRight(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	unit = s[len(digits):]
	if digits == "" || strings.Trim(strings.TrimPrefix(digits, "-"), "0123456789") != "" {
		return -1, s
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	times := max(1, sizeUnits[strings.ToUpper(unit)])
	if err != nil || n < 0 || n > maxBytes/times {
		return -1, unit
	}
	return n * times, unit
}

// windows is a list of windows that each can be the first to say no.
func windows() kind[[]Window] {
	k := list(window(), false)
	k.name = fmt.Sprintf("list of 1 to %d: %s", maxWindows, window().name)
	read := k.read
	k.read = func(v *value) ([]Window, []fault) {
		ws, faults := read(v)
		if len(faults) > 0 {
			return nil, faults
		}
		if len(ws) > maxWindows {
			return nil, []fault{{v.elems[maxWindows].at, fmt.Sprintf("%d windows", len(ws)), fmt.Sprintf("at most %d", maxWindows), "delete some: two or three are plenty"}}
		}
		for i, w := range ws {
			for _, other := range ws[:i] {
				if f := contradiction(w, other); f != nil {
					f.at = v.elems[i].at
					faults = append(faults, *f)
					break
				}
			}
		}
		return ws, faults
	}
	return k
}

// ParseWindows reads windows as limit.windows has them, and a burst as
// limit.burst has it; "" is none.
func ParseWindows(texts []string, burst string) ([]Window, Window, error) {
	list := &value{kind: anArray}
	for _, s := range texts {
		list.elems = append(list.elems, &value{kind: aString, text: s})
	}
	ws, faults := windows().read(list)
	b, more := optional(window()).read(&value{kind: aString, text: burst})
	if faults = append(faults, more...); len(faults) == 0 && b != (Window{}) {
		faults = append(faults, burstFaults(ws, b, "windows")...)
	}
	var errs []error
	for _, f := range faults {
		wanted := cmp.Or(f.wanted, window().wanted)
		errs = append(errs, errors.New(strings.TrimSuffix("found "+f.found+", want "+wanted+"; "+f.remedy, "; ")))
	}
	return ws, b, errors.Join(errs...)
}

// contradiction says why one of two windows can never be the first to say no.
func contradiction(w, other Window) *fault {
	long, short := w, other
	if long.Length < short.Length {
		long, short = short, long
	}
	found := fmt.Sprintf("%q beside %q", w, other)
	switch {
	case w.Length == other.Length:
		return &fault{found: found, wanted: "each time once", remedy: "delete the one that you do not mean"}
	case long.Count < short.Count:
		return &fault{found: found, wanted: "no smaller count for the longer time",
			remedy: fmt.Sprintf("%q never comes to matter: lower or delete it, or raise %q", short, long)}
	}
	return nil
}

// checkWindows holds the windows and the burst of a section against each other
// and against what is counted.
func (r *report) checkWindows(t *table, counts string, windows []Window, burst Window) {
	before := len(r.problems)
	if e := t.index["windows"]; e != nil && t.sure("windows") {
		for i, w := range windows {
			r.checkCount(e.val.elems[i], t.elem("windows", i), join(t.path, "windows"), counts, w)
		}
	}
	if burst == (Window{}) || !t.sure("burst") {
		return
	}
	if e := t.index["burst"]; e != nil {
		r.checkCount(e.val, e.at, join(t.path, "burst"), counts, burst)
	}
	if t.sure("windows") && len(r.problems) == before {
		for _, f := range burstFaults(windows, burst, join(t.path, "windows")) {
			r.add(t.place("burst"), join(t.path, "burst"), f.found, f.wanted, f.remedy)
		}
	}
}

// checkCount holds the count of a window against what is counted.
func (r *report) checkCount(v *value, at int, key, counts string, w Window) {
	if counts == "bytes" {
		return
	}
	count, _, _ := strings.Cut(v.text, "/")
	if _, unit := parseCount(count); unit != "" {
		r.add(at, key, v.String()+" with counts = "+strconv.Quote(counts), `a count without a unit, such as "300/1h"`, `write the plain number, or counts = "bytes"`)
	} else if w.Count > maxCount {
		r.add(at, key, v.String()+" with counts = "+strconv.Quote(counts), fmt.Sprintf("a count of at most %d", maxCount), "lower it: nobody comes near it")
	}
}

// burstFaults say why a burst is none beside windows, which are called so.
func burstFaults(windows []Window, burst Window, called string) []fault {
	for _, w := range windows {
		if f := contradiction(burst, w); f != nil {
			return []fault{*f}
		}
		if burst.Length > w.Length {
			return []fault{{found: fmt.Sprintf("%q beside %q", burst, w), wanted: "a time shorter than those of " + called, remedy: "put it into " + called + ", and name a shorter one here"}}
		}
	}
	return nil
}
