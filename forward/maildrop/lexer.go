package maildrop

import (
	"bytes"
	"slices"
)

// kind is what a token is.
type kind int

const (
	tokError  kind = iota
	tokEOF         // the end
	tokText        // "..." and words without quotes
	tokSingle      // '...'
	tokBack        // `...`
	tokRegexp      // /.../:flags
	tokWord        // a word of the language, or an operator: its text tells
	tokEnd         // newline or semicolon
)

type token struct {
	kind kind
	text string
	line int
}

// is reports whether a token is that word or operator.
func (t token) is(texts ...string) bool {
	return t.kind == tokWord && slices.Contains(texts, t.text)
}

// words of the language. They are read without quotes only.
var words = set("lt", "le", "gt", "ge", "eq", "ne", "to", "cc", "length", "substr", "if", "elsif", "else", "while", "exception",
	"echo", "xfilter", "system", "dotlock", "flock", "logfile", "log", "include", "exit", "foreach", "getaddr", "lookup",
	"escape", "tolower", "toupper", "hasaddr", "gdbmopen", "gdbmclose", "gdbmfetch", "gdbmstore", "time", "import", "-", "unset")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

// lexer cuts a filter file into tokens (lexer.C).
type lexer struct {
	data []byte
	at   int
	line int
	last token
}

func newLexer(data []byte) *lexer {
	return &lexer{data: data, line: 1, last: token{kind: tokEnd}}
}

// peek is the octet here; -1 at the end.
func (l *lexer) peek() int {
	if l.at >= len(l.data) {
		return -1
	}
	return int(l.data[l.at])
}

func (l *lexer) skip() {
	if l.peek() == '\n' {
		l.line++
	}
	l.at++
}

func (l *lexer) next() token {
	t := l.scan()
	l.last = t
	return t
}

func space(c int) bool { return c >= 0 && bytes.IndexByte([]byte(" \t\n\v\f\r"), byte(c)) >= 0 }

func (l *lexer) scan() token {
	if ended, bad := l.blanks(); bad {
		return token{kind: tokError, line: l.line}
	} else if ended {
		return token{kind: tokEnd, line: l.line}
	}
	line := l.line
	t := token{line: line}
	switch c := l.peek(); {
	case c < 0:
		t.kind = tokEnd
		if l.last.kind == tokEnd {
			t.kind = tokEOF
		}
	case c == '"', c == '\'', c == '`':
		t.kind, t.text = l.quoted(c)
	case c == '/' && !l.last.is("=", "to", "cc"):
		t.kind, t.text = l.pattern()
	case plain(c) && c != '{' && c != '}':
		t.kind, t.text = l.bare()
	default:
		t.kind, t.text = l.operator(c)
	}
	return t
}

// blanks skips what is between tokens; ended: a newline was there.
func (l *lexer) blanks() (ended, bad bool) {
	for {
		for c := l.peek(); space(c); c = l.peek() {
			l.skip()
			if c == '\n' || c == '\r' {
				return true, false
			}
		}
		switch l.peek() {
		case '\\':
			l.skip()
			if !space(l.peek()) {
				return false, true
			}
			for c := l.peek(); c >= 0 && c != '\n'; c = l.peek() {
				l.skip()
			}
			l.skip()
			l.at = min(l.at, len(l.data))
		case '#':
			for c := l.peek(); c >= 0 && c != '\n'; c = l.peek() {
				l.skip()
			}
			if l.peek() == '\n' {
				l.skip()
				return true, false
			}
		default:
			return false, false
		}
	}
}

// quoted reads a text in quotes. A backslash stays, but before another and before
// the quote; one before a newline joins the lines.
func (l *lexer) quoted(quote int) (kind, string) {
	l.skip()
	var text []byte
	for {
		c := l.peek()
		switch {
		case c < 0 || c == '\n' || c == '\r':
			return tokError, ""
		case c == quote:
			l.skip()
			return map[int]kind{'"': tokText, '\'': tokSingle, '`': tokBack}[quote], string(text)
		case c != '\\':
			l.skip()
			text = append(text, byte(c))
			continue
		}
		l.skip()
		c = l.peek()
		switch {
		case c < 0:
			return tokError, ""
		case !space(c):
			if c != quote && c != '\\' {
				text = append(text, '\\')
			}
			text = append(text, byte(c))
			l.skip()
			continue
		}
		length := len(text)
		text = append(text, '\\')
		for c = l.peek(); space(c) && c != '\n' && c != '\r'; c = l.peek() {
			text = append(text, byte(c))
			l.skip()
		}
		if c < 0 {
			return tokError, ""
		}
		if c != '#' && c != '\n' && c != '\r' {
			continue
		}
		text = text[:length]
		for c = l.peek(); c != '\n'; c = l.peek() {
			if c < 0 {
				return tokError, ""
			}
			l.skip()
		}
		for space(l.peek()) {
			l.skip()
		}
	}
}

// pattern reads "/.../:flags", or the sign of division.
func (l *lexer) pattern() (kind, string) {
	start := l.at
	l.skip()
	if c := l.peek(); c < 0 || space(c) {
		return tokWord, "/"
	}
	for c := l.peek(); c != '/'; c = l.peek() {
		if c == '\\' {
			l.skip()
			c = l.peek()
		}
		if c < 0 || c == '\n' || c == '\r' {
			return tokError, ""
		}
		l.skip()
	}
	l.skip()
	if l.peek() == ':' {
		l.skip()
		for c := l.peek(); alnum(c) || c == '-' || c == '+' || c == '.' || c == ','; c = l.peek() {
			l.skip()
		}
	}
	return tokRegexp, string(l.data[start:l.at])
}

func alnum(c int) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// plain octets need no quotes.
func plain(c int) bool {
	return alnum(c) || c >= 0 && bytes.IndexByte([]byte("_-@.:/${}"), byte(c)) >= 0
}

func (l *lexer) bare() (kind, string) {
	start := l.at
	for l.skip(); plain(l.peek()); {
		l.skip()
	}
	text := string(l.data[start:l.at])
	for c := l.peek(); space(c) && c != '\n' && c != '\r'; c = l.peek() {
		l.skip()
	}
	if words[text] {
		return tokWord, text
	}
	return tokText, text
}

// operators of two octets.
var operators = set("&&", "||", "<=", ">=", "=~", "==", "!=")

func (l *lexer) operator(c int) (kind, string) {
	l.skip()
	two := string([]byte{byte(c), byte(max(l.peek(), 0))})
	switch {
	case operators[two]:
		l.skip()
		return tokWord, two
	case c == ';':
		return tokEnd, ";"
	case bytes.IndexByte([]byte("&|{}()+*~<>=!,"), byte(c)) >= 0:
		return tokWord, string(rune(c))
	}
	return tokError, ""
}
