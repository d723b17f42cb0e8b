package sieve

import "fmt"

// Limits of Pigeonhole (sieve-limits.h).
const (
	maxArguments = 32
	maxBlocks    = 32
	maxTests     = 32
)

// argument is a tag, a number, a string, or a list of strings.
type argument struct {
	kind tokenKind // tokenTag, tokenNumber, tokenString
	text string    // of a tag: lower case
	list []string  // of a list of strings
	line int
}

// strings is a string or a list of them.
func (a argument) strings() []string {
	if a.list != nil {
		return a.list
	}
	return []string{a.text}
}

// node is a command or a test.
type node struct {
	name      string // lower case
	line      int
	arguments []argument
	tests     []node
	listed    bool // the tests stand in parentheses
	block     []node
	hasBlock  bool
	number    int // of an action, given when it is run; 0: not yet
}

// parser reads the grammar of RFC 5228 §8.2 as Pigeonhole does.
type parser struct {
	lexer lexer
	token token
	err   error // the first; nothing is read after it
}

// parse returns a script's commands. With an error they are those before the
// fault, the one with the fault as far as it was read.
func parse(script []byte) ([]node, error) {
	p := parser{lexer: lexer{in: script, line: 1}}
	// A byte order mark is no white space: Pigeonhole refuses it, so do we.
	p.advance()
	commands := p.commands(0)
	if p.err == nil && p.token.kind != tokenEOF {
		p.expected("the end of the script")
	}
	return commands, p.err
}

func (p *parser) advance() {
	if p.err != nil {
		return
	}
	t, err := p.lexer.next()
	if err != nil {
		p.err = err
		p.token = token{line: t.line}
		return
	}
	p.token = t
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %s", p.token.line, fmt.Sprintf(format, args...))
	}
}

func (p *parser) expected(what string) { p.fail("expected %s, found %v", what, p.token) }

func (p *parser) is(punct string) bool {
	return p.err == nil && p.token.kind == tokenPunct && p.token.text == punct
}

func (p *parser) commands(depth int) []node {
	var out []node
	for p.err == nil && p.token.kind == tokenIdentifier {
		n := node{name: p.token.text, line: p.token.line}
		p.advance()
		p.arguments(&n, 1)
		switch {
		case p.is(";"):
			p.advance()
		case p.is("{"):
			if depth+1 > maxBlocks {
				p.fail("blocks nest deeper than %d", maxBlocks)
				break
			}
			p.advance()
			n.hasBlock = true
			n.block = p.commands(depth + 1)
			if p.is("}") {
				p.advance()
			} else {
				p.expected("'}'")
			}
		default:
			p.expected("';' or '{'")
		}
		out = append(out, n)
	}
	return out
}

// arguments reads *argument [test / test-list].
func (p *parser) arguments(n *node, depth int) {
	for p.err == nil {
		a := argument{kind: p.token.kind, text: p.token.text, line: p.token.line}
		switch {
		case p.is("["):
			a.kind, a.text, a.list = tokenString, "", p.list()
		case a.kind == tokenString || a.kind == tokenNumber || a.kind == tokenTag:
			p.advance()
		default:
			p.tests(n, depth)
			return
		}
		n.arguments = append(n.arguments, a)
		if len(n.arguments) > maxArguments {
			p.fail("more than %d arguments", maxArguments)
		}
	}
}

func (p *parser) list() []string {
	out := []string{}
	for more := true; more; more = p.is(",") {
		p.advance()
		if p.err != nil || p.token.kind != tokenString {
			p.expected("a string of a list")
			return out
		}
		out = append(out, p.token.text)
		p.advance()
	}
	if p.is("]") {
		p.advance()
	} else {
		p.expected("',' or ']'")
	}
	return out
}

func (p *parser) tests(n *node, depth int) {
	switch {
	case p.token.kind == tokenIdentifier:
		n.tests = []node{p.test(depth + 1)}
	case p.is("("):
		n.listed = true
		for more := true; more; more = p.is(",") {
			p.advance()
			if p.err != nil || p.token.kind != tokenIdentifier {
				p.expected("a test")
				return
			}
			n.tests = append(n.tests, p.test(depth+1))
		}
		if p.is(")") {
			p.advance()
		} else {
			p.expected("',' or ')'")
		}
	}
}

func (p *parser) test(depth int) node {
	n := node{name: p.token.text, line: p.token.line}
	if depth > maxTests {
		p.fail("tests nest deeper than %d", maxTests)
		return n
	}
	p.advance()
	p.arguments(&n, depth)
	return n
}
