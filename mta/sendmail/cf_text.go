package sendmail

import (
	"iter"
	"strings"
)

// logicalLines gives the logical lines of a cf file with their numbers: with those that
// go on with white space, without comments and empty ones (fgetfolded in util.c,
// translate_dollars in readcf.c).
func logicalLines(text string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		var joined strings.Builder
		start, number := 0, 0
		flush := func() bool {
			line := joined.String()
			joined.Reset()
			if line == "" || line[0] == '#' || line[0] == '\n' {
				return true
			}
			line = uncomment(line)
			return line == "" || yield(line, start)
		}
		for raw := range strings.Lines(text) {
			number++
			line := strings.TrimSuffix(strings.TrimSuffix(raw, "\n"), "\r")
			if number > 1 && line != "" && (line[0] == ' ' || line[0] == '\t') {
				joined.WriteString("\n" + line)
				continue
			}
			if start > 0 && !flush() {
				return
			}
			start = number
			joined.WriteString(line)
		}
		flush()
	}
}

// uncomment takes off what follows a "#" that is neither escaped nor of "$#", to
// the end of the physical line, and white space at the end.
func uncomment(line string) string {
	var out strings.Builder
	for n := 0; n < len(line); n++ {
		if line[n] != '#' || n == 0 {
			out.WriteByte(line[n])
			continue
		}
		switch line[n-1] {
		case '$':
			out.WriteByte('#')
		case '\\':
			so := out.String()
			out.Reset()
			out.WriteString(so[:len(so)-1] + "#")
		default:
			so := strings.TrimRight(out.String(), " \t\v\f\r")
			out.Reset()
			out.WriteString(so)
			end := strings.IndexByte(line[n:], '\n')
			if end < 0 {
				n = len(line)
				break
			}
			n += end - 1
		}
	}
	return strings.TrimRight(out.String(), " \t\n\v\f\r")
}

// macroName cuts a macro's or class's name off: a character, or a word in braces.
func macroName(s string) (name, rest string, ok bool) {
	if inner, found := strings.CutPrefix(s, "{"); found {
		name, rest, ok = strings.Cut(inner, "}")
		return name, rest, ok && name != ""
	}
	if s == "" {
		return "", "", false
	}
	return s[:1], s[1:], true
}

// munch reads a value to delim, taking off quotes and backslashes (munchstring in
// readcf.c); rest begins with delim.
func munch(s string, delim byte) (value, rest string) {
	var out strings.Builder
	quoted, n := false, 0
	for ; n < len(s); n++ {
		switch c := s[n]; {
		case c == '\\' && n+1 < len(s):
			n++
			if at := strings.IndexByte("rnfb", s[n]); at >= 0 {
				out.WriteByte("\r\n\f\b"[at])
			} else {
				out.WriteByte(s[n])
			}
		case c == '\\':
		case c == '"':
			quoted = !quoted
		case !quoted && delim != 0 && c == delim:
			return out.String(), s[n:]
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), ""
}

const (
	maxDepth    = 10 // as macro.c
	maxExpanded = 64 << 10
)

// Expand puts the values of macros in: $x, ${name}, and $?x...$|...$. conditions. An
// unset macro is nothing.
func (s *Settings) Expand(text string) string { return s.expand(text, 0) }

func (s *Settings) expand(text string, depth int) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var out strings.Builder
	skip := 0         // depth of the conditions that we are in the untrue part of
	var within []bool // for each condition: its part is left out
	for n := 0; n < len(text) && out.Len() < maxExpanded; n++ {
		if text[n] != '$' || n+1 == len(text) {
			if skip == 0 {
				out.WriteByte(text[n])
			}
			continue
		}
		n++
		switch c := text[n]; c {
		case '$':
			if skip == 0 {
				out.WriteByte('$')
			}
		case '?':
			name, rest, ok := macroName(text[n+1:])
			n = len(text) - len(rest) - 1
			untrue := !ok || s.value(name, depth) == ""
			within = append(within, untrue)
			if untrue {
				skip++
			}
		case '|', '.':
			if len(within) == 0 {
				continue
			}
			last := len(within) - 1
			if within[last] {
				skip--
			}
			if c == '.' {
				within = within[:last]
			} else if within[last] = !within[last]; within[last] {
				skip++
			}
		default:
			from := n
			if c == '&' { // expanded late; the value of now is as good
				from++
			}
			name, rest, ok := macroName(text[from:])
			if !ok {
				continue
			}
			n = len(text) - len(rest) - 1
			if skip == 0 {
				out.WriteString(s.value(name, depth))
			}
		}
	}
	return out.String()[:min(out.Len(), maxExpanded)]
}

func (s *Settings) value(name string, depth int) string {
	value, ok := s.macros[name]
	if !ok || depth >= maxDepth {
		return ""
	}
	return s.expand(value, depth+1)
}
