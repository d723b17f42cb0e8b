package postfix

import (
	"fmt"
	"strings"
)

// maxLine bounds a logical line of main.cf and master.cf, in octets.
const maxLine = 1 << 20

// logicalLine is a line with its continuations.
type logicalLine struct {
	text string
	line int // where it begins, from 1
}

// logicalLines reads lines as readllines(3) of Postfix does: a line that begins
// with white space continues the one before; comments and empty lines, also in
// the midst of a continued line, count for nothing; a comment is a line whose
// first character that is no white space is "#". What continues nothing is
// dropped.
func logicalLines(text string) []logicalLine {
	var lines []logicalLine
	var number int
	var building strings.Builder
	begin := 0
	flush := func() {
		if building.Len() > 0 {
			lines = append(lines, logicalLine{building.String(), begin})
			building.Reset()
		}
	}
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		if nul := strings.IndexByte(line, 0); nul >= 0 {
			line = line[:nul] // text after it is not seen by what reads C strings
		}
		continues := line != "" && strings.IndexByte(spaces, line[0]) >= 0
		blank := strings.Trim(line, spaces)
		if blank == "" || blank[0] == '#' {
			continue
		}
		switch {
		case !continues:
			flush()
			begin = number
			building.WriteString(line)
		case building.Len() > 0 && building.Len()+len(line) <= maxLine:
			building.WriteString(line)
		}
	}
	flush()
	return lines
}

// setting is one setting of main.cf as written.
type setting struct {
	value string
	line  int
}

// parseMain reads main.cf(5). The last line of a name counts. The error names
// the first line that Postfix would refuse to start on; the others are read
// all the same.
func parseMain(text string) (map[string]setting, error) {
	settings := map[string]setting{}
	var first error
	for _, l := range logicalLines(text) {
		name, value, found := strings.Cut(l.text, "=")
		name = strings.Trim(name, spaces)
		if !found || name == "" || strings.ContainsAny(name, spaces) {
			if first == nil {
				first = fmt.Errorf("line %d: got %q, want name = value", l.line, brief(l.text))
			}
			continue
		}
		settings[name] = setting{strings.Trim(value, spaces), l.line}
	}
	return settings, first
}

// splitList splits at commas and white space, but not within braces.
func splitList(s string) []string {
	var items []string
	depth, start := 0, -1
	for i := 0; i <= len(s); i++ {
		if i == len(s) || depth == 0 && (s[i] == ',' || strings.IndexByte(spaces, s[i]) >= 0) {
			if start >= 0 {
				items = append(items, s[start:i])
				start = -1
			}
			continue
		}
		if start < 0 {
			start = i
		}
		switch s[i] {
		case '{':
			depth++
		case '}':
			depth = max(0, depth-1)
		}
	}
	return items
}

// inBraces takes "{ text }" apart.
func inBraces(s string) (string, bool) {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return s, false
	}
	return strings.Trim(s[1:len(s)-1], spaces), true
}
