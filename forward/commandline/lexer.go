package commandline

import (
	"strings"

	"relayguard/forward"
)

// lexer cuts shell text into words and operators. Substitutions are made by the
// shell that it belongs to.
type lexer struct {
	text string
	at   int
}

type token struct {
	operator bool
	redirect bool
	words    []string // an unquoted variable may be several, or none
}

// next returns the next token.
func (l *lexer) next(s *shell) (token, bool) {
	for l.at < len(l.text) {
		switch c := l.text[l.at]; {
		case c == ' ' || c == '\t' || c == '\r' || c == 0:
			l.at++
		case c == '\\' && strings.HasPrefix(l.text[l.at:], "\\\n"):
			l.at += 2
		case c == '#':
			if end := strings.IndexByte(l.text[l.at:], '\n'); end >= 0 {
				l.at += end
			} else {
				l.at = len(l.text)
			}
		case strings.IndexByte(";&|\n()", c) >= 0:
			l.at++
			return token{operator: true}, true
		case c == '<' || c == '>':
			l.at++
			if l.at < len(l.text) && l.text[l.at] == '(' { // a process
				return token{operator: true}, true
			}
			for l.at < len(l.text) && strings.IndexByte("<>&|-", l.text[l.at]) >= 0 {
				l.at++
			}
			return token{operator: true, redirect: true}, true
		case l.descriptor():
		default:
			return token{words: l.word(s)}, true
		}
	}
	return token{}, false
}

// descriptor skips the number before "<" or ">".
func (l *lexer) descriptor() bool {
	end := l.at
	for end < len(l.text) && '0' <= l.text[end] && l.text[end] <= '9' {
		end++
	}
	if end == l.at || end == len(l.text) || l.text[end] != '<' && l.text[end] != '>' {
		return false
	}
	l.at = end
	return true
}

// word reads one word with its quotes and substitutions.
func (l *lexer) word(s *shell) []string {
	b := &builder{}
	for l.at < len(l.text) {
		c := l.text[l.at]
		if strings.IndexByte(" \t\r\n;&|()<>\x00", c) >= 0 {
			break
		}
		l.at++
		switch c {
		case '\\':
			if l.at < len(l.text) {
				if l.text[l.at] != '\n' {
					b.quoted(l.text[l.at : l.at+1])
				}
				l.at++
			}
		case '\'':
			end := strings.IndexByte(l.text[l.at:], '\'')
			if end < 0 {
				end = len(l.text) - l.at
			}
			b.quoted(l.text[l.at : l.at+end])
			l.at = min(l.at+end+1, len(l.text))
		case '"':
			l.double(s, b)
		case '`':
			b.expanded(s.substitute(l.backtick()))
		case '$':
			if l.at < len(l.text) && (l.text[l.at] == '\'' || l.text[l.at] == '"') {
				break // $'...' and $"..."
			}
			if value, ok := l.dollar(s); ok {
				b.expanded(value)
			} else {
				b.quoted("$")
			}
		default:
			b.octet(c)
		}
	}
	return b.words()
}

// double reads to the closing double quote.
func (l *lexer) double(s *shell, b *builder) {
	b.quoted("")
	for l.at < len(l.text) {
		c := l.text[l.at]
		l.at++
		switch c {
		case '"':
			return
		case '\\':
			if l.at < len(l.text) {
				next := l.text[l.at]
				l.at++
				switch {
				case next == '\n':
				case strings.IndexByte("\\\"$`", next) >= 0:
					b.octet(next)
				default:
					b.octet('\\')
					b.octet(next)
				}
			}
		case '`':
			b.quoted(s.substitute(l.backtick()))
		case '$':
			if value, ok := l.dollar(s); ok {
				b.quoted(value)
			} else {
				b.quoted("$")
			}
		default:
			b.octet(c)
		}
	}
}

// backtick reads the command up to the closing backtick.
func (l *lexer) backtick() string {
	var b strings.Builder
	for l.at < len(l.text) {
		c := l.text[l.at]
		l.at++
		if c == '`' {
			break
		}
		if c == '\\' && l.at < len(l.text) && strings.IndexByte("\\`$", l.text[l.at]) >= 0 {
			c = l.text[l.at]
			l.at++
		}
		b.WriteByte(c)
	}
	return b.String()
}

// dollar reads a substitution after its "$".
func (l *lexer) dollar(s *shell) (string, bool) {
	if l.at >= len(l.text) {
		return "", false
	}
	switch c := l.text[l.at]; {
	case c == '(':
		inner := l.nested('(', ')')
		if strings.HasPrefix(inner, "(") {
			return forward.Unknown, true
		}
		return s.substitute(inner), true
	case c == '{':
		return parameter(l.nested('{', '}'), s), true
	case '0' <= c && c <= '9' || strings.IndexByte("@*#?$!-", c) >= 0:
		l.at++
		return forward.Unknown, true
	case nameByte(c):
		start := l.at
		for l.at < len(l.text) && nameByte(l.text[l.at]) {
			l.at++
		}
		value, _ := s.lookup(l.text[start:l.at])
		return value, true
	}
	return "", false
}

// nested reads to the bracket that closes the one here.
func (l *lexer) nested(opening, closing byte) string {
	l.at++
	start, depth := l.at, 1
	var quote byte
	for ; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '\\' && quote != '\'':
			l.at++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == opening:
			depth++
		case c == closing:
			if depth--; depth == 0 {
				l.at++
				return l.text[start : l.at-1]
			}
		}
	}
	l.at = len(l.text)
	return l.text[min(start, len(l.text)):]
}

// parameter reads what is in "${...}".
func parameter(inner string, s *shell) string {
	end := 0
	for end < len(inner) && nameByte(inner[end]) {
		end++
	}
	name, rest := inner[:end], inner[end:]
	value, is := s.lookup(name)
	operator := strings.TrimPrefix(rest, ":")
	switch {
	case rest == "":
		return value
	case operator == "":
		return forward.Unknown
	case strings.Contains(value, forward.Unknown) || s.env.depth > maxDepth:
		return forward.Unknown
	}
	is = is && (operator == rest || value != "")
	word := func() string {
		inner := &shell{lexer: lexer{text: operator[1:]}, env: s.env, local: s.local, result: s.result}
		inner.env.depth++
		var words []string
		for token, ok := inner.next(inner); ok; token, ok = inner.next(inner) {
			words = append(words, token.words...)
		}
		s.result = inner.result
		return strings.Join(words, " ")
	}
	switch operator[0] {
	case '-', '=':
		if is {
			return value
		}
		return word()
	case '+':
		if is {
			return word()
		}
		return ""
	}
	return forward.Unknown
}

// builder collects the words that one word of the text becomes.
type builder struct {
	done    []string
	current strings.Builder
	open    bool // there is a current word, maybe empty
}

func (b *builder) octet(c byte) {
	b.open = true
	b.current.WriteByte(c)
}

func (b *builder) quoted(s string) {
	b.open = true
	b.current.WriteString(s)
}

// expanded adds what an unquoted substitution gave: it is split.
func (b *builder) expanded(s string) {
	for n, field := range strings.FieldsFunc(" "+s+" ", blank) {
		if n > 0 || s != "" && blank(rune(s[0])) {
			b.cut()
		}
		b.quoted(field)
	}
	if s != "" && blank(rune(s[len(s)-1])) {
		b.cut()
	}
}

func blank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }

func (b *builder) cut() {
	if b.open && len(b.done) < maxWords {
		b.done = append(b.done, b.current.String())
	}
	b.current.Reset()
	b.open = false
}

func (b *builder) words() []string {
	b.cut()
	return b.done
}
