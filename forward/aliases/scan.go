package aliases

import "strings"

// Kinds of token: an operator is its own octet, words are above.
const (
	atom = 256 + iota
	quoted
	literal
	comment
)

// operators are the octets that are tokens by themselves (and the backslash,
// which is none).
const operators = `|%!()<>@,;:\".[]`

// token is a piece of a right side.
type token struct {
	kind int
	text string // of words; without quotes and backslashes
	// escaped: it began with a backslash, which Postfix forgets and Sendmail
	// heeds.
	escaped bool
}

func (t token) word() bool { return t.kind >= atom }

// scan cuts a right side into tokens and loses nothing but white space
// (tok822_parse(3) of Postfix). As C does, it ends at a NUL.
func scan(s string) []token {
	if end := strings.IndexByte(s, 0); end >= 0 {
		s = s[:end]
	}
	var tokens []token
	for at := 0; at < len(s); {
		c := s[at]
		var t token
		switch {
		case isSpace(c):
			at++
			continue
		case c == '(':
			t.kind = comment
			t.text, at = scanComment(s, at)
		case c == '[':
			t.kind = literal
			t.text, at = collect(s, at+1, func(c byte) bool { return c == ']' })
			at = min(at+1, len(s))
		case c == '"':
			t.kind = quoted
			t.text, at = collect(s, at+1, func(c byte) bool { return c == '"' })
			at = min(at+1, len(s))
		case c != '\\' && isOperator(c):
			t.kind = int(c)
			at++
		default:
			t.kind, t.escaped = atom, c == '\\'
			t.text, at = collect(s, at, func(c byte) bool { return isSpace(c) || isOperator(c) })
			if needsQuotes(t.text) {
				t.kind = quoted
			}
		}
		tokens = append(tokens, t)
	}
	return tokens
}

// collect reads up to an octet that ends the word, or the end. A backslash
// takes the next octet's meaning away, and white space becomes a blank.
func collect(s string, at int, ends func(byte) bool) (string, int) {
	var text strings.Builder
	for ; at < len(s); at++ {
		c := s[at]
		if c == '\\' {
			if at++; at == len(s) {
				break
			}
			c = s[at]
		} else if ends(c) {
			break
		}
		if isSpace(c) {
			c = ' '
		}
		text.WriteByte(c)
	}
	return text.String(), at
}

// scanComment reads "(...)" with what nests in it, or to the end.
func scanComment(s string, at int) (string, int) {
	var text strings.Builder
	for depth := 0; at < len(s); at++ {
		c := s[at]
		text.WriteByte(c)
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return text.String(), at + 1
			}
		case '\\':
			if at++; at < len(s) {
				text.WriteByte(s[at])
			}
		}
	}
	return text.String(), len(s)
}

func isOperator(c byte) bool { return operator[c] }

var operator = func() (is [256]bool) {
	for _, c := range []byte(operators) {
		is[c] = true
	}
	return is
}()

// isSpace: a form feed and a vertical tab are none.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// needsQuotes: an atom that took a special octet by a backslash is written
// back in quotes.
func needsQuotes(s string) bool {
	for n := range len(s) {
		if c := s[n]; isSpace(c) || c < ' ' || c == 0x7f || isOperator(c) {
			return true
		}
	}
	return false
}
