package rbl

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with a file of zones. Its texts are safe to print: what
// came from the file is quoted.
type Problem struct {
	File   string
	Line   int    // from 1
	Zone   string // "": of none, or of one without a name
	Key    string // "": of none
	Found  string
	Wanted string
	Remedy string // may be empty
}

func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", p.File, p.Line)
	if p.Zone != "" {
		b.WriteString("zone " + p.Zone + ": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	fmt.Fprintf(&b, "found %s, want %s", p.Found, p.Wanted)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Problems are all of one file, by line; never empty as an error.
type Problems []Problem

// Error is one line for each.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].String()
	}
	return strings.Join(lines, "\n")
}

// report collects the problems of one file.
type report struct {
	file     string
	problems Problems
}

func newReport(file string) *report {
	if quoted := strconv.Quote(file); quoted != `"`+file+`"` {
		file = quoted
	}
	return &report{file: file}
}

func (r *report) add(line int, zone, key, found, wanted, remedy string) {
	r.problems = append(r.problems, Problem{r.file, line, zone, key, found, wanted, remedy})
}

// err is nil without a problem.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return r.problems
}

// quote shows text of the file: escaped, and no longer than a line bears.
func quote(s string) string {
	const most = 60
	if utf8.RuneCountInString(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(string([]rune(s)[:most])) + "..."
}

// either lists words as `"a", "b" or "c"`.
func either(words []string) string {
	var b strings.Builder
	for i, word := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(word))
	}
	return b.String()
}
