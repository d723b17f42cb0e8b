package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// kind is a type of value: how it is described, read and written.
type kind[T any] struct {
	name   string // for the manual: `duration, "1ms" to "25s"`
	wanted string // for problems: `a duration ...`
	read   func(*value) (T, []fault)
	show   func(T) string // as TOML
}

// fault is what is wrong with a value. Empty texts stand for those of the kind.
type fault struct {
	at                    int
	found, wanted, remedy string
}

// one is a kind of scalar; parse gets values of the right kind only and returns
// a remedy, or - if it can say no better than the kind - an empty one, with ok
// false.
func one[T any](k kind[T], want kindOf, parse func(text string) (t T, remedy string, ok bool)) kind[T] {
	k.read = func(v *value) (T, []fault) {
		var none T
		if v.kind != want {
			return none, []fault{{at: v.at, found: v.String(), remedy: otherKind(v, want)}}
		}
		t, remedy, ok := parse(v.text)
		if !ok {
			return none, []fault{{at: v.at, found: v.String(), remedy: remedy}}
		}
		return t, nil
	}
	return k
}

// otherKind is the remedy for the commonest slips of quotes.
func otherKind(v *value, want kindOf) string {
	switch {
	case want == aString && v.kind == anInteger:
		return fmt.Sprintf("write it in quotes: %q", v.text)
	case v.kind == aString && (want == anInteger || want == aBool):
		return "write it without quotes"
	case v.kind == anArray && len(v.elems) == 1:
		return "write the one value without brackets"
	}
	return ""
}

const zeroRemedy = "zero does not mean off: "

func integer[T int | int64](least, most T) kind[T] {
	k := kind[T]{
		name:   fmt.Sprintf("integer, %d to %d", least, most),
		wanted: fmt.Sprintf("an integer from %d to %d", least, most),
		show:   func(n T) string { return strconv.FormatInt(int64(n), 10) },
	}
	return one(k, anInteger, func(text string) (T, string, bool) {
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 0, 64)
		switch {
		case err == nil && n == 0 && least > 0:
			return 0, zeroRemedy, false
		case err != nil || n < int64(least) || n > int64(most):
			return 0, "", false
		}
		return T(n), "", true
	})
}

func boolean() kind[bool] {
	return one(kind[bool]{name: "boolean", wanted: "true or false", show: strconv.FormatBool}, aBool,
		func(text string) (bool, string, bool) { return text == "true", "", true })
}

func duration(least, most time.Duration) kind[time.Duration] {
	such := `"90s" or "2h"`
	if most > 2*day {
		such = `"90s", "2h" or "30d"`
	}
	k := kind[time.Duration]{
		name:   fmt.Sprintf("duration, %q to %q", showDuration(least), showDuration(most)),
		wanted: fmt.Sprintf(`a duration such as %s, from %q to %q`, such, showDuration(least), showDuration(most)),
		show:   func(d time.Duration) string { return strconv.Quote(showDuration(d)) },
	}
	k = one(k, aString, func(text string) (time.Duration, string, bool) {
		d, err := ParseDuration(text)
		switch {
		case err == nil && d == 0:
			return 0, zeroRemedy, false
		case err != nil:
			return 0, durationUnits, false
		case d < least || d > most:
			return 0, "", false
		}
		return d, "", true
	})
	read := k.read
	k.read = func(v *value) (time.Duration, []fault) {
		d, faults := read(v)
		if v.kind == anInteger && v.text == "0" {
			faults[0].remedy = zeroRemedy
		} else if v.kind == anInteger {
			faults[0].remedy = fmt.Sprintf("write it with its unit and in quotes: %q if these are seconds", v.text+"s")
		}
		return d, faults
	}
	return k
}

const (
	day           = 24 * time.Hour
	durationUnits = `the units are ms, s, m and h, and d for whole days, alone: "30d"`
)

// ParseDuration is time.ParseDuration with whole days: "30d".
func ParseDuration(text string) (time.Duration, error) {
	days, found := strings.CutSuffix(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 64)
	return time.Duration(min(n, 100_000)) * day, err // more would not fit, and is above all bounds
}

func showDuration(d time.Duration) string {
	switch {
	case d > 2*day && d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d >= time.Hour && d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d > 2*time.Minute && d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d >= time.Second && d%time.Second == 0:
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return d.String()
}

// choice is one of a few names.
func choice[T interface {
	comparable
	fmt.Stringer
}](values ...T) kind[T] {
	names, byName := make([]string, len(values)), map[string]T{}
	for i, v := range values {
		names[i] = strings.ToLower(v.String())
		byName[names[i]] = v
	}
	k := kind[T]{
		name:   "one of " + quoted(names),
		wanted: quoted(names),
		show:   func(t T) string { return strconv.Quote(strings.ToLower(t.String())) },
	}
	if len(names) == 1 {
		k.name = k.wanted
	}
	return one(k, aString, func(text string) (T, string, bool) {
		t, ok := byName[text]
		if near := nearest(text, names); !ok && near != "" {
			return t, fmt.Sprintf("did you mean %q?", near), false
		}
		return t, "", ok
	})
}

type word string

func (w word) String() string { return string(w) }

// words is a choice without a type of its own.
func words(names ...word) kind[string] {
	c := choice(names...)
	return kind[string]{
		name: c.name, wanted: c.wanted,
		read: func(v *value) (string, []fault) { w, faults := c.read(v); return string(w), faults },
		show: strconv.Quote,
	}
}

// text is a string that check has no objection to: "" for none, else a remedy.
func text(name, wanted string, check func(string) string) kind[string] {
	return one(kind[string]{name: name, wanted: wanted, show: showString}, aString, func(s string) (string, string, bool) {
		remedy := check(s)
		return s, remedy, remedy == ""
	})
}

// showString writes a TOML string. Its escapes are those of Go but for \a, \v
// and \x, which valid values do not need.
func showString(s string) string { return strconv.Quote(s) }

// fine is the absence of a remedy.
const fine = ""

// optional takes the empty string for "not set" as well: the zero value.
func optional[T comparable](k kind[T]) kind[T] {
	read, show := k.read, k.show
	k.name += ", or empty"
	k.wanted += ", or nothing"
	k.read = func(v *value) (T, []fault) {
		if v.kind == aString && v.text == "" {
			var none T
			return none, nil
		}
		return read(v)
	}
	k.show = func(t T) string {
		var none T
		if t == none {
			return `""`
		}
		return show(t)
	}
	return k
}

// list is a list of distinct values. An empty one is nil; whether it may be
// empty is said by its kind.
func list[T comparable](k kind[T], empty bool) kind[[]T] {
	l := kind[[]T]{
		name:   "list of: " + k.name,
		wanted: "a list of: " + k.name,
		show: func(ts []T) string {
			all := make([]string, len(ts))
			for i, t := range ts {
				all[i] = k.show(t)
			}
			return "[" + strings.Join(all, ", ") + "]"
		},
	}
	l.read = func(v *value) ([]T, []fault) {
		if v.kind != anArray {
			f := fault{at: v.at, found: v.String()}
			if v.kind == aString {
				f.remedy = "write it in brackets: [" + quote(v.text) + "]"
			}
			return nil, []fault{f}
		}
		if len(v.elems) == 0 && !empty {
			return nil, []fault{{at: v.at, found: "an empty list", wanted: "at least one entry"}}
		}
		return readElems(k, v.elems)
	}
	return l
}

func readElems[T comparable](k kind[T], elems []*value) ([]T, []fault) {
	var ts []T
	var faults []fault
	seen := map[T]bool{}
	for _, e := range elems {
		t, fs := k.read(e)
		for i := range fs {
			if fs[i].wanted == "" {
				fs[i].wanted = k.wanted
			}
			if fs[i].remedy == "" {
				fs[i].remedy = "mend or delete the entry"
			}
		}
		faults = append(faults, fs...)
		switch {
		case len(fs) > 0:
		case seen[t]:
			faults = append(faults, fault{at: e.at, found: e.String() + " a second time", wanted: "it once", remedy: "delete one of them"})
		default:
			seen[t] = true
			ts = append(ts, t)
		}
	}
	return ts, faults
}

// absolutePath is a clean file name from the root.
func absolutePath(what string) kind[string] {
	return text("absolute path of "+what, "the absolute path of "+what, func(s string) string {
		switch clean := filepath.Clean(s); {
		case unprintable(s):
			return "write a path without control characters"
		case !filepath.IsAbs(s):
			return "begin it with /"
		case clean != s:
			return fmt.Sprintf("write %q", clean)
		}
		return fine
	})
}

func unprintable(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !strconv.IsPrint(c) })
}

// label is a name that logs and metrics may carry.
func label(what string) kind[string] {
	wanted := "a name of 1 to 32 characters a-z, 0-9, - and _, the first a letter or digit"
	return text("name: 1 to 32 characters a-z, 0-9, -, _", wanted, func(s string) string {
		ok := len(s) >= 1 && len(s) <= 32 && !strings.HasPrefix(s, "-") && !strings.HasPrefix(s, "_")
		for _, c := range s {
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
		if !ok {
			return "rename the " + what
		}
		return fine
	})
}

// sentence is free text for people, on one line.
func sentence(wanted string) kind[string] {
	return text("text", wanted, func(s string) string {
		switch {
		case strings.TrimSpace(s) == "":
			return "say it, so that the next admin knows"
		case len(s) > 500:
			return "shorten it to 500 bytes"
		case unprintable(s):
			return "write it on one line, without control characters"
		}
		return fine
	})
}

// account is the name of a Unix account or group, or its number.
func account(what string) kind[string] {
	return text("name of a Unix "+what, "the name of a Unix "+what, func(s string) string {
		if s == "" || len(s) > 32 || s[0] == '-' || unprintable(s) || strings.ContainsAny(s, " :/,") {
			return "`getent " + map[string]string{"account": "passwd", "group": "group"}[what] + "` lists them"
		}
		return fine
	})
}
