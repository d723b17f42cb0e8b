package database

import (
	"fmt"
	"strings"
)

// Bounds of a query that is turned round.
const (
	maxTokens = 4000
	maxDepth  = 64
)

// dialect is in what the servers' SQL differs.
type dialect struct {
	kind        string // mysql, pgsql, sqlite
	noBackslash bool   // mysql: \ in a string is itself
	ansiQuotes  bool   // mysql: "x" is a name
	pipesConcat bool   // mysql: || joins strings
}

type tokenKind uint8

const (
	word   tokenKind = iota // keyword, name
	quoted                  // string in quotes, or a name in quotes
	sign                    // operator, parenthesis, comma
	number
)

// token is one of a query template; key: %s and the like are in it.
type token struct {
	kind  tokenKind
	text  string // as it stands, before expansion
	upper string // of a word or sign
	space bool   // white space before it
	key   bool
	depth int // of parentheses and CASE
}

func (t *token) is(words ...string) bool {
	if t.kind != word && t.kind != sign {
		return false
	}
	for _, w := range words {
		if t.upper == w {
			return true
		}
	}
	return false
}

// lexer cuts a query template into tokens.
type lexer struct {
	text   string
	at     int
	d      dialect
	tokens []token
	depth  int
	space  bool
}

// lex is strict: what it does not know it refuses, and the query is not turned
// round. A key outside of quotes is such a thing.
func lex(text string, d dialect) ([]token, error) {
	l := &lexer{text: text, d: d}
	for l.at < len(l.text) {
		if err := l.next(); err != nil {
			return nil, err
		}
		if len(l.tokens) > maxTokens || l.depth > maxDepth {
			return nil, fmt.Errorf("query is too long or too deep")
		}
	}
	if l.depth != 0 {
		return nil, fmt.Errorf("parentheses do not match")
	}
	return l.tokens, nil
}

func isWordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80 || c == '@'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) next() error {
	rest := l.text[l.at:]
	c := rest[0]
	switch {
	case strings.IndexByte(" \t\r\n\v\f", c) >= 0:
		l.space = true
		l.at++
		return nil
	case c == 0:
		return fmt.Errorf("NUL in the query")
	case strings.HasPrefix(rest, "/*!") || strings.HasPrefix(rest, "/*M!"):
		return fmt.Errorf("executable comment")
	case strings.HasPrefix(rest, "/*"):
		end := strings.Index(rest[2:], "*/")
		if end < 0 || strings.Contains(rest[2:2+end], "/*") {
			return fmt.Errorf("comment without an end")
		}
		l.at, l.space = l.at+end+4, true
		return nil
	case strings.HasPrefix(rest, "--") || c == '#' && l.d.kind == "mysql":
		return fmt.Errorf("comment to the end of the line") // the template is one line
	case c == '\'' || c == '"' || c == '`':
		return l.quote(c, l.at)
	case (c == 'e' || c == 'E') && len(rest) > 1 && rest[1] == '\'':
		l.at++
		return l.quote('\'', l.at-1)
	case c == '$' && l.d.kind == "pgsql":
		return fmt.Errorf("dollar quoting")
	case c == '%':
		return l.percent()
	case c == ';':
		if strings.Trim(rest, "; \t\r\n") != "" {
			return fmt.Errorf("more than one statement")
		}
		l.at = len(l.text)
		return nil
	case isDigit(c):
		return l.emit(number, l.span(func(c byte) bool { return isDigit(c) || c == '.' || isWordStart(c) }))
	case isWordStart(c):
		return l.emit(word, l.span(func(c byte) bool { return isWordStart(c) || isDigit(c) || c == '$' }))
	}
	return l.operator(rest)
}

func (l *lexer) span(in func(byte) bool) int {
	end := l.at
	for end < len(l.text) && in(l.text[end]) {
		end++
	}
	return end
}

// emit adds the token that ends before end.
func (l *lexer) emit(kind tokenKind, end int) error {
	t := token{kind: kind, text: l.text[l.at:end], space: l.space, depth: l.depth}
	if kind == word || kind == sign {
		t.upper = strings.ToUpper(t.text)
	}
	opens, closes := t.is("(", "CASE"), t.is(")", "END")
	if closes {
		l.depth--
		t.depth = l.depth
	}
	if opens {
		l.depth++
	}
	if l.depth < 0 {
		return fmt.Errorf("parentheses do not match")
	}
	l.tokens = append(l.tokens, t)
	l.at, l.space = end, false
	return nil
}

// quote reads what is in quotes, from is where the token begins (E'...').
func (l *lexer) quote(mark byte, from int) error {
	backslash := mark != '`' && (from < l.at || l.d.kind == "mysql" && !l.d.noBackslash)
	key := false
	i := l.at + 1
	for ; ; i++ {
		if i >= len(l.text) {
			return fmt.Errorf("quotes do not match")
		}
		switch c := l.text[i]; {
		case c == '\\' && backslash:
			i++
		case c == '%' && i+1 < len(l.text):
			key = key || l.text[i+1] != '%'
			i++
		case c == mark && i+1 < len(l.text) && l.text[i+1] == mark:
			i++
		case c == mark:
			if key && mark != '\'' && (mark == '`' || l.d.kind == "pgsql" || l.d.ansiQuotes) {
				return fmt.Errorf("the key is part of a name")
			}
			l.at = from
			if err := l.emit(quoted, i+1); err != nil {
				return err
			}
			l.tokens[len(l.tokens)-1].key = key
			return nil
		}
	}
}

// percent is "%%", the operator; a key without quotes is not understood.
func (l *lexer) percent() error {
	if strings.HasPrefix(l.text[l.at:], "%%") {
		return l.emit(sign, l.at+2)
	}
	return fmt.Errorf("the key stands outside of quotes")
}

func (l *lexer) operator(rest string) error {
	for _, op := range []string{"<=>", "||", "&&", "<=", ">=", "<>", "!=", "==", "::", "->>", "->", "~*", "!~", ":="} {
		if strings.HasPrefix(rest, op) {
			return l.emit(sign, l.at+len(op))
		}
	}
	if strings.IndexByte("()=,.<>+-*/!~^&|[]:?", rest[0]) < 0 {
		return fmt.Errorf("%q is not understood", rest[0])
	}
	return l.emit(sign, l.at+1)
}

// What stands for the parts of the key when the database computes with them.
// Functions that cut an address apart at its @ work on "user@domain".
const (
	markUser   = "\x02"
	markDomain = "\x03"
	markLabel  = 0x0f // + n for %n: 0x10 to 0x18
	markWhole  = markUser + "@" + markDomain
)

func marks(c byte) string {
	switch c {
	case 's', 'S':
		return markWhole
	case 'u', 'U':
		return markUser
	case 'd', 'D':
		return markDomain
	}
	return string(rune(markLabel + c - '0'))
}

// render writes tokens as SQL, the key as marks.
func render(tokens []token) string {
	var b strings.Builder
	for i := range tokens {
		if tokens[i].space {
			b.WriteByte(' ')
		}
		if tokens[i].kind == quoted || tokens[i].text == "%%" {
			b.WriteString(fill(tokens[i].text, marks))
		} else {
			b.WriteString(tokens[i].text)
		}
	}
	return b.String()
}

func hasKey(tokens []token) bool {
	for i := range tokens {
		if tokens[i].key {
			return true
		}
	}
	return false
}
