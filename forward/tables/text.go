package tables

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
)

// line is a logical line of a table's text.
type line struct {
	text   string
	number int // of its first physical line, from 1
}

// logicalLines reads as readllines(3) of Postfix: empty lines and those whose
// first visible character is # are skipped, wherever they stand; one that begins
// with white space continues the line before, also across skipped ones. A
// logical line that itself begins with white space is ignored by Postfix, with
// all that continues it. What follows a NUL is not seen.
func logicalLines(data string) []line {
	var lines []line
	var b strings.Builder // of a line that has several parts
	current := line{}     // its text: the first part
	end := func() {
		text := current.text
		if b.Len() > 0 {
			text = b.String()
		}
		if text != "" && !isSpace(text[0]) {
			if i := strings.IndexByte(text, 0); i >= 0 {
				text = text[:i]
			}
			current.text = text
			lines = append(lines, current)
		}
		b.Reset()
		current = line{}
	}
	number := 0
	for physical := range strings.Lines(data) {
		number++
		if physical[0] != '#' && !isSpace(physical[0]) {
			end()
		}
		physical = strings.TrimSuffix(physical, "\n")
		if visible := strings.TrimLeft(physical, spaces); visible == "" || visible[0] == '#' {
			continue
		}
		if current.text == "" {
			current = line{physical, number}
			continue
		}
		if b.Len() == 0 {
			b.WriteString(current.text)
		}
		b.WriteString(physical)
	}
	end()
	return lines
}

const spaces = " \t\n\v\f\r" // isspace(3) in the C locale

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// textEntry is an entry of a text.
type textEntry struct {
	key   string // folded
	value string
	line  int
	// doubtful: Postfix takes it only with smtputf8_enable = no, for it is not
	// UTF-8.
	doubtful bool
}

// parsePostmap reads the text of postmap(1): "key white-space value", where
// white space in double quotes or after a backslash belongs to the key, which
// keeps its quotes. Lines without a value are no entries.
func parsePostmap(data string) []textEntry {
	lines := logicalLines(data)
	entries := make([]textEntry, 0, len(lines))
	for _, l := range lines {
		key, value, ok := splitKey(l.text)
		if !ok {
			continue
		}
		entries = append(entries, textEntry{fold(key), value, l.number, !utf8.ValidString(l.text)})
	}
	return entries
}

func splitKey(text string) (key, value string, ok bool) {
	quoted := false
	end := len(text)
scan:
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case isSpace(c) && !quoted:
			end = i
			break scan
		}
	}
	if quoted {
		return "", "", false
	}
	key, value = text[:end], strings.Trim(text[end:], spaces)
	return key, value, key != "" && value != ""
}

// fold does as casefold(3) of Postfix.
func fold(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			if !utf8.ValidString(s) {
				break
			}
			return cases.Fold().String(s)
		}
	}
	return lowerASCII(s)
}

func lowerASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
