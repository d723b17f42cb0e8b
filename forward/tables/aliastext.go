package tables

import (
	"strings"
	"unicode/utf8"
)

// The text of postalias(1) is cut into RFC 822 tokens and put together again:
// "bob:  \bob , c@x" is compiled as "bob, c@x". To compare a text with its
// compiled form takes the same (tok822_parse.c of Postfix 3.7).

// token is one of them; kind is an operator's character, or one of these.
type token struct {
	kind byte
	text string
}

const (
	tokenAtom    = 'a'
	tokenQuoted  = 'q'
	tokenDomain  = 'd'
	tokenComment = 'c'

	operators = "|%!()<>@,;:\\\".[]"
)

var operator = func() (is [256]bool) {
	for _, c := range []byte(operators) {
		is[c] = true
	}
	return is
}()

func (t token) word() bool {
	return t.kind == tokenAtom || t.kind == tokenQuoted || t.kind == tokenDomain || t.kind == tokenComment
}

// scanTokens is tok822_scan(3). It never fails: what is not closed ends with
// the text.
func scanTokens(s string) []token {
	var tokens []token
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case isBlank(c):
			i++
		case c == '(':
			end := commentEnd(s, i)
			tokens = append(tokens, token{tokenComment, s[i:end]})
			i = end
		case c == '[':
			text, end := collect(s, i+1, func(c byte) bool { return c != ']' })
			tokens = append(tokens, token{tokenDomain, text})
			i = min(end+1, len(s))
		case c == '"':
			text, end := collect(s, i+1, func(c byte) bool { return c != '"' })
			tokens = append(tokens, token{tokenQuoted, text})
			i = min(end+1, len(s))
		case c != '\\' && operator[c]:
			tokens = append(tokens, token{kind: c})
			i++
		default:
			text, end := collect(s, i, func(c byte) bool { return !isBlank(c) && !operator[c] })
			tokens = append(tokens, token{atomKind(text), text})
			i = end
		}
	}
	return tokens
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// collect takes characters while they belong; after a backslash any does.
func collect(s string, i int, belongs func(byte) bool) (string, int) {
	start, plain := i, true
	var b strings.Builder
	for ; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if plain {
				plain = false
				b.WriteString(s[start:i])
			}
			if i++; i == len(s) {
				break
			}
			c = s[i]
		} else if !belongs(c) {
			break
		}
		if isBlank(c) && c != ' ' && plain {
			plain = false
			b.WriteString(s[start:i])
		}
		if isBlank(c) {
			c = ' '
		}
		if !plain {
			b.WriteByte(c)
		}
	}
	if plain {
		return s[start:i], i
	}
	return b.String(), i
}

// atomKind: an atom that had a backslash may need quotes when written again.
func atomKind(text string) byte {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c <= ' ' || c == 0x7f || operator[c] {
			return tokenQuoted
		}
	}
	return tokenAtom
}

func commentEnd(s string, i int) int {
	level := 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '(':
			level++
		case ')':
			if level--; level == 0 {
				return i + 1
			}
		case '\\':
			i++
		}
	}
	return len(s)
}

// external is tok822_externalize(3) of a list without a tree.
func external(tokens []token) string {
	var b strings.Builder
	for i, t := range tokens {
		switch t.kind {
		case ',':
			b.WriteString(", ")
			continue
		case tokenAtom, tokenComment:
			b.WriteString(t.text)
		case tokenQuoted:
			b.WriteByte('"')
			escape(&b, t.text, "\"\\\r\n")
			b.WriteByte('"')
		case tokenDomain:
			b.WriteByte('[')
			escape(&b, t.text, "\\\r\n")
			b.WriteByte(']')
		default:
			b.WriteByte(t.kind)
		}
		if spaceAfter(tokens, i) {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// internal is tok822_internalize(3).
func internal(tokens []token) string {
	var b strings.Builder
	for i, t := range tokens {
		switch t.kind {
		case tokenAtom, tokenComment, tokenQuoted:
			b.WriteString(t.text)
		case tokenDomain:
			b.WriteString("[" + t.text + "]")
		default:
			b.WriteByte(t.kind)
		}
		if spaceAfter(tokens, i) {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func spaceAfter(tokens []token, i int) bool {
	if i+1 >= len(tokens) {
		return false
	}
	this, next := tokens[i], tokens[i+1]
	return this.kind == ',' || next.kind == '<' || this.word() && next.word()
}

func escape(b *strings.Builder, s, set string) {
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(set, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
}

// parsePostalias reads the text of aliases(5) as postalias(1): one local name, a
// colon, the rest. Lines without that are no entries.
func parsePostalias(data string) []textEntry {
	lines := logicalLines(data)
	entries := make([]textEntry, 0, len(lines))
	for _, l := range lines {
		if key, value, plain := plainAlias(l.text); plain {
			entries = append(entries, textEntry{fold(key), value, l.number, false})
			continue
		}
		tokens := scanTokens(l.text)
		colon := -1
		for i, t := range tokens {
			if t.kind == ':' {
				colon = i
				break
			}
			if t.kind == ',' || t.kind == '@' || t.kind == '%' {
				break // several names, or none of ours
			}
		}
		if colon < 1 || colon == len(tokens)-1 {
			continue
		}
		entries = append(entries, textEntry{
			fold(internal(tokens[:colon])), external(tokens[colon+1:]), l.number, !utf8.ValidString(l.text)})
	}
	return entries
}

// plainAlias is "name: address" without anything else that has a meaning, as nearly
// all of a large table are: its tokens put together again are as they stand.
func plainAlias(line string) (key, value string, plain bool) {
	key, value, found := strings.Cut(line, ":")
	value = strings.TrimLeft(value, " \t")
	return key, value, found && plainWord(key, false) && plainWord(value, true)
}

// plainWord is letters, digits, and between them what is no operator; of an
// address the dots and one @, too.
func plainWord(s string, address bool) bool {
	at := false
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i == 0 || i == len(s)-1:
			return false
		case c == '-', c == '_', c == '+':
		case address && c == '.' && s[i-1] != '.' && s[i-1] != '@':
		case address && c == '@' && !at && s[i-1] != '.':
			at = true
		default:
			return false
		}
	}
	return s != ""
}

// sameAlias reports whether two right sides are the same list of recipients,
// however they are written.
func sameAlias(a, b string) bool {
	return a == b || external(scanTokens(a)) == external(scanTokens(b))
}
