package config

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing wrong with a file. All its texts are safe to print:
// what came from the file is quoted.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`   // from 1
	Column int    `json:"column"` // from 1, in characters
	Key    string `json:"key"`    // dotted; empty where no key could be told
	Found  string `json:"found"`
	Wanted string `json:"wanted"`
	Remedy string `json:"remedy"` // what to do about it; may be empty
}

func (p Problem) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	fmt.Fprintf(&b, "found %s, want %s", p.Found, p.Wanted)
	if p.Remedy != "" {
		b.WriteString("; " + p.Remedy)
	}
	return b.String()
}

// Errors are all problems of one file, in order of position; never empty as an
// error.
type Errors []Problem

// Error is one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// report collects the problems of one file.
type report struct {
	file     string
	data     []byte
	lines    []int // offsets at which lines begin
	problems Errors
	keys     []Key // all that there are, for suggestions
}

func newReport(name string, data []byte) *report {
	r := &report{file: printable(name), data: data, lines: []int{0}, keys: Keys()}
	for i, c := range data {
		if c == '\n' {
			r.lines = append(r.lines, i+1)
		}
	}
	return r
}

// add notes a problem with the key at an offset of the file.
func (r *report) add(at int, key, found, wanted, remedy string) {
	at = min(max(at, 0), len(r.data))
	line := r.line(at)
	column := utf8.RuneCount(r.data[r.lines[line-1]:at]) + 1
	r.problems = append(r.problems, Problem{r.file, line, column, key, found, wanted, remedy})
}

// line is the line of an offset, from 1.
func (r *report) line(at int) int { return sort.SearchInts(r.lines, at+1) }

// offset is the place of a line and column, both from 1, the column in bytes.
func (r *report) offset(line, column int) int {
	if line < 1 || line > len(r.lines) {
		return len(r.data)
	}
	return r.lines[line-1] + column - 1
}

func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
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

// printable is s itself unless it could upset a terminal or a log.
func printable(s string) string {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return strconv.Quote(s)
		}
	}
	if !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}

// quoted lists names as `"a", "b" or "c"`.
func quoted(names []string) string {
	var b strings.Builder
	for i, name := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(name))
	}
	return b.String()
}

// nearest is the name that s was probably meant to be, "" if none is near.
func nearest(s string, names []string) string {
	if len(s) > 64 { // longer than any name: and the distance takes len² steps
		return ""
	}
	best, most := "", max(2, len(s)/3)+1
	for _, name := range names {
		if len(s) > 2 && (strings.HasPrefix(s, name) || strings.HasPrefix(name, s)) {
			return name
		}
		if d := distance(strings.ToLower(s), name); d < most && d < len(name) {
			best, most = name, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
