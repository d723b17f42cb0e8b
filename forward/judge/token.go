package judge

import "strings"

// token is what Postfix's address scanner (tok822) makes of a piece of an
// address: an operator stands for itself, everything else has a text, which is
// without quotes.
type token struct {
	kind byte // an operator's own character, or one of below
	text string
}

const (
	atom    byte = 'a' // no operator is a letter
	quoted  byte = 'q' // "...", or an atom with something special in it
	literal byte = 'l' // [...]
	comment byte = 'c' // (...)
)

// operators are the characters that are tokens by themselves. The backslash is
// not really one: it takes the meaning from what follows.
const operators = `|%!<>()@,;:\".[]`

func isOperator(c byte) bool { return strings.IndexByte(operators, c) >= 0 }

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// scan takes an address in its written form apart. What it does not understand
// it leaves as it is.
func scan(s string) []token {
	var list []token
	for i := 0; i < len(s); {
		c := s[i]
		var t token
		switch {
		case isBlank(c):
			i++
			continue
		case c == '(':
			t.kind = comment
			t.text, i = scanComment(s, i)
		case c == '[':
			t.kind = literal
			t.text, i = scanUntil(s, i+1, func(c byte) bool { return c == ']' })
			i = min(i+1, len(s))
		case c == '"':
			t.kind = quoted
			t.text, i = scanUntil(s, i+1, func(c byte) bool { return c == '"' })
			i = min(i+1, len(s))
		case c != '\\' && isOperator(c):
			t.kind = c
			i++
		default:
			t.text, i = scanUntil(s, i, func(c byte) bool { return isBlank(c) || isOperator(c) })
			t.kind = atomKind(t.text)
		}
		list = append(list, t)
	}
	return list
}

// scanUntil collects text up to a character that ends it; a backslash takes
// whatever follows it, and white space becomes a space.
func scanUntil(s string, i int, ends func(byte) bool) (string, int) {
	var b strings.Builder
	for ; i < len(s); i++ {
		c := s[i]
		if c == '\\' {
			if i++; i == len(s) {
				break
			}
			c = s[i]
		} else if ends(c) {
			break
		}
		if isBlank(c) {
			c = ' '
		}
		b.WriteByte(c)
	}
	return b.String(), i
}

// scanComment passes over a comment with those in it, kept as it is written.
func scanComment(s string, i int) (string, int) {
	start, level := i, 0
	for ; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '(':
			level++
		case ')':
			if level--; level == 0 {
				return s[start : i+1], i + 1
			}
		}
	}
	return s[start:], len(s)
}

// atomKind: an atom into which a backslash brought something special counts as
// quoted.
func atomKind(text string) byte {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c == 0x7f || isOperator(c) {
			return quoted
		}
	}
	return atom
}

// split finds the addresses in a list of tokens, as the server's own parser
// does, from right to left: commas and semicolons part them, words that stand
// side by side are two, a group's name and a phrase before <...> are none.
func split(list []token) [][]token {
	p := splitter{word: true}
	for i := len(list) - 1; i >= 0; i-- {
		t := list[i]
		switch {
		case t.kind == comment: // means nothing anywhere
		case t.kind == ';':
			p.flush()
			p.group, p.word = true, true
		case t.kind == ':' && p.group:
			p.flush()
			for i > 0 && list[i-1].kind != ',' { // the group's name
				i--
			}
		case t.kind == '>':
			i = p.route(list, i)
		case t.kind == atom || t.kind == quoted || t.kind == literal:
			if !p.word {
				p.flush()
			}
			p.word = false
			p.push(t)
		case t.kind == ',':
			p.flush()
			p.word = true
		default:
			p.word = true
			p.push(t)
		}
	}
	p.flush()
	return p.found
}

type splitter struct {
	current     []token // backwards
	found       [][]token
	word, group bool // a word may come; within a group, after its ";"
}

func (p *splitter) push(t token) { p.current = append(p.current, t) }

func (p *splitter) flush() {
	if len(p.current) == 0 {
		return
	}
	one := make([]token, 0, len(p.current))
	for i := len(p.current) - 1; i >= 0; i-- {
		one = append(one, p.current[i])
	}
	p.found, p.current = append(p.found, one), nil
}

// route takes <...> whose end is at i, and passes over the phrase before it.
func (p *splitter) route(list []token, i int) int {
	p.flush()
	for i--; i >= 0 && list[i].kind != '<'; i-- {
		if list[i].kind != comment {
			p.push(list[i])
		}
	}
	p.flush()
	for i > 0 && strings.IndexByte(">;,:", list[i-1].kind) < 0 {
		i--
	}
	p.word = true
	return i
}

// join writes tokens in the form in which servers hand addresses on among
// themselves: without quotes.
func join(list []token) string {
	var b strings.Builder
	for i, t := range list {
		switch t.kind {
		case atom, quoted, comment:
			b.WriteString(t.text)
		case literal:
			b.WriteString("[" + t.text + "]")
		default:
			b.WriteByte(t.kind)
		}
		if i+1 == len(list) {
			break
		}
		if next := list[i+1]; t.kind == ',' || next.kind == '<' || t.wordy() && next.wordy() {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func (t token) wordy() bool {
	return t.text != "" || t.kind == atom || t.kind == quoted || t.kind == literal
}

// quoteLocal puts quotes around the local part of an address in inner form where
// it needs them, so that scan reads it as one word.
func quoteLocal(s string) string {
	start := 0
	if strings.HasPrefix(s, "@") {
		start = strings.IndexByte(s, ':') + 1
	}
	end := strings.LastIndexByte(s[start:], '@')
	if end < 0 {
		end = len(s)
	} else {
		end += start
	}
	local := s[start:end]
	if dotted(local) {
		return s
	}
	var b strings.Builder
	b.WriteString(s[:start] + `"`)
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' || c == '\r' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteString(`"` + s[end:])
	return b.String()
}

// dotted reports whether a local part needs no quotes (RFC 822 dot-string; % and
// ! are nothing special to it, nor is what is not ASCII).
func dotted(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`()<>@,;:\"[]`, c) >= 0 {
			return false
		}
	}
	return true
}
