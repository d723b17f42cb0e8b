package sieve

import (
	"bytes"
	"fmt"
	"strings"
)

// Lexical limits of Pigeonhole (sieve-limits.h).
const (
	maxIdentifier = 32
	maxString     = 1 << 20
)

type tokenKind uint8

const (
	tokenEOF tokenKind = iota
	tokenIdentifier
	tokenTag // without its colon
	tokenNumber
	tokenString
	tokenPunct // text is one of ( ) [ ] { } ; ,
)

type token struct {
	kind tokenKind
	text string
	line int
}

func (t token) String() string {
	switch t.kind {
	case tokenEOF:
		return "end of file"
	case tokenIdentifier:
		return "identifier"
	case tokenTag:
		return "tag"
	case tokenNumber:
		return "number"
	case tokenString:
		return "string"
	}
	return "'" + t.text + "'"
}

// lexer cuts a script into tokens as Pigeonhole does: a bare LF is a line's end,
// and a string has CRLF for either.
type lexer struct {
	in   []byte
	at   int
	line int
}

func (l *lexer) fault(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

// peek is the octet at offset d from here; -1 at the end.
func (l *lexer) peek(d int) int {
	if l.at+d < len(l.in) {
		return int(l.in[l.at+d])
	}
	return -1
}

func (l *lexer) shift() {
	if l.in[l.at] == '\n' {
		l.line++
	}
	l.at++
}

// next is the next token that is no white space and no comment.
func (l *lexer) next() (token, error) {
	if err := l.skip(); err != nil {
		return token{line: l.line}, err
	}
	t := token{line: l.line}
	c := l.peek(0)
	switch {
	case c < 0:
		return t, nil
	case c == '"':
		text, err := l.quoted()
		t.kind, t.text = tokenString, text
		return t, err
	case strings.IndexByte("()[]{};,", byte(c)) >= 0:
		t.kind, t.text = tokenPunct, string(rune(c))
		l.at++
		return t, nil
	case isDigit(c):
		t.kind, t.text = tokenNumber, l.number()
		return t, nil
	case isAlpha(c):
		return l.word(t)
	case c == ':' && isAlpha(l.peek(1)):
		l.at++
		t.kind, t.text = tokenTag, l.identifier()
		return t, l.tooLong(t)
	}
	return t, l.fault(t.line, "unexpected character %q", rune(c))
}

func (l *lexer) tooLong(t token) error {
	if len(t.text) > maxIdentifier {
		return l.fault(t.line, "an identifier of more than %d characters", maxIdentifier)
	}
	return nil
}

// skip passes white space and comments.
func (l *lexer) skip() error {
	for l.at < len(l.in) {
		switch c := l.in[l.at]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			l.shift()
		case c == '#':
			if err := l.hashComment(); err != nil {
				return err
			}
		case c == '/' && l.peek(1) == '*':
			if err := l.bracketComment(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

func (l *lexer) hashComment() error {
	line := l.line
	end := bytes.IndexByte(l.in[l.at:], '\n')
	comment := l.in[l.at:]
	if end >= 0 {
		comment = comment[:end+1]
		l.line++
	}
	l.at += len(comment)
	if bytes.IndexByte(comment, 0) >= 0 {
		return l.fault(line, "NUL in a comment")
	}
	return nil
}

func (l *lexer) bracketComment() error {
	line := l.line
	end := bytes.Index(l.in[l.at+2:], []byte("*/"))
	if end < 0 {
		return l.fault(line, "a comment without end")
	}
	comment := l.in[l.at : l.at+2+end+2]
	l.at += len(comment)
	l.line += bytes.Count(comment, []byte{'\n'})
	if bytes.IndexByte(comment, 0) >= 0 {
		return l.fault(line, "NUL in a comment")
	}
	return nil
}

// number takes digits and a multiplier; their value is nobody's concern.
func (l *lexer) number() string {
	start := l.at
	for isDigit(l.peek(0)) {
		l.at++
	}
	if c := l.peek(0); c >= 0 && strings.IndexByte("kKmMgG", byte(c)) >= 0 {
		l.at++
	}
	return string(l.in[start:l.at])
}

func (l *lexer) identifier() string {
	start := l.at
	for isAlpha(l.peek(0)) || isDigit(l.peek(0)) {
		l.at++
	}
	return strings.ToLower(string(l.in[start:l.at]))
}

// word is an identifier, or "text:" with what follows.
func (l *lexer) word(t token) (token, error) {
	t.kind, t.text = tokenIdentifier, l.identifier()
	if t.text == "text" && l.peek(0) == ':' {
		l.at++
		text, err := l.multiline(t.line)
		t.kind, t.text = tokenString, text
		return t, err
	}
	return t, l.tooLong(t)
}

// quoted reads a string in quotes; a backslash takes the next character as it is.
func (l *lexer) quoted() (string, error) {
	start := l.line
	l.at++
	var out []byte
	for {
		c := l.peek(0)
		if c == '"' {
			l.at++
			break
		}
		if c == '\\' {
			l.at++
			c = l.peek(0)
		}
		switch c {
		case -1:
			return string(out), l.fault(start, "a string without end")
		case 0:
			return string(out), l.fault(start, "NUL in a string")
		case '\r':
			if l.peek(1) != '\n' {
				return string(out), l.fault(start, "CR without LF in a string")
			}
			l.at++
			out = append(out, '\r', '\n')
		case '\n':
			out = append(out, '\r', '\n')
		default:
			out = append(out, byte(c))
		}
		l.shift()
	}
	if len(out) > maxString {
		return string(out), l.fault(start, "a string of more than %d octets", maxString)
	}
	return string(out), nil
}

// multiline reads what follows "text:", with its dots unstuffed.
func (l *lexer) multiline(start int) (string, error) {
	for l.peek(0) == ' ' || l.peek(0) == '\t' {
		l.at++
	}
	if l.peek(0) == '\r' {
		l.at++
	}
	switch l.peek(0) {
	case '#':
		if err := l.hashComment(); err != nil {
			return "", err
		}
	case '\n':
		l.shift()
	default:
		return "", l.fault(start, "text: is not followed by a line's end")
	}
	var out []byte
	for {
		end := bytes.IndexByte(l.in[l.at:], '\n')
		if end < 0 {
			l.at = len(l.in)
			return string(out), l.fault(start, "a text: without end")
		}
		line := l.in[l.at : l.at+end]
		l.at += end + 1
		l.line++
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if bytes.IndexByte(line, 0) >= 0 || bytes.IndexByte(line, '\r') >= 0 {
			return string(out), l.fault(start, "NUL or CR without LF in a text:")
		}
		if len(line) > 0 && line[0] == '.' {
			if len(line) == 1 {
				break
			}
			if line[1] == '.' {
				line = line[1:]
			}
		}
		out = append(append(out, line...), '\r', '\n')
	}
	if len(out) > maxString {
		return string(out), l.fault(start, "a string of more than %d octets", maxString)
	}
	return string(out), nil
}

func isDigit(c int) bool { return c >= '0' && c <= '9' }

// isAlpha: what an identifier may begin with.
func isAlpha(c int) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
