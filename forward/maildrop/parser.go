package maildrop

import "fmt"

// node is a part of a filter. Its kind is the word or operator, or one of those
// below.
type node struct {
	kind string
	text string
	line int
	kids []*node
}

// Kinds of nodes that are no words of the language.
const (
	nodeList   = "list"
	nodeText   = "text"
	nodeSingle = "single"
	nodeBack   = "backtick"
	nodeRegexp = "pattern"
	nodeConcat = "concat"
	nodeAssign = "assign"
)

// Bounds of one file.
const (
	maxNesting = 200
	maxNodes   = 1_000_000
)

// syntaxError is why maildrop would not run a filter, but defer the mail.
type syntaxError struct {
	line int
	what string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.what) }

// parser reads a filter file (recipeparse.C).
type parser struct {
	lexer *lexer
	token token
	depth int
	nodes int
}

func parse(data []byte) (root *node, err error) {
	p := &parser{lexer: newLexer(data)}
	defer func() {
		switch failure := recover().(type) {
		case nil:
		case *syntaxError:
			root, err = nil, failure
		default:
			panic(failure)
		}
	}()
	p.advance()
	root = p.list()
	if p.token.kind != tokEOF {
		p.fail("Syntax error.")
	}
	return root, nil
}

func (p *parser) advance() { p.token = p.lexer.next() }

func (p *parser) fail(what string) { panic(&syntaxError{p.token.line, what}) }

func (p *parser) node(kind string, kids ...*node) *node {
	if p.nodes++; p.nodes > maxNodes {
		p.fail("more than is followed")
	}
	return &node{kind: kind, line: p.token.line, kids: kids}
}

func (p *parser) nest() func() {
	if p.depth++; p.depth > maxNesting {
		p.fail("deeper than is followed")
	}
	return func() { p.depth-- }
}

// want takes a word or operator that must be here.
func (p *parser) want(text string) {
	if !p.token.is(text) {
		p.fail("Syntax error: no " + text)
	}
	p.advance()
}

// end takes the end of a statement.
func (p *parser) end() {
	if p.token.kind != tokEnd {
		p.fail("Syntax error.")
	}
	p.advance()
}

func (p *parser) list() *node {
	n := p.node(nodeList)
	for !p.token.is("}") && p.token.kind != tokEOF {
		if p.token.kind == tokEnd {
			p.advance()
			continue
		}
		n.kids = append(n.kids, p.statement())
	}
	return n
}

func (p *parser) statement() *node {
	defer p.nest()()
	word := p.token.text
	switch {
	case p.token.is("if"):
		return p.conditional()
	case p.token.is("while"):
		n := p.node(word)
		p.advance()
		p.want("(")
		n.kids = append(n.kids, p.expression())
		p.want(")")
		p.end()
		n.kids = append(n.kids, p.inner())
		return n
	case p.token.is("{"):
		p.advance()
		n := p.list()
		p.want("}")
		p.end()
		return n
	case p.token.is("exception"):
		n := p.node(word)
		p.advance()
		n.kids = append(n.kids, p.block())
		return n
	case p.token.is("dotlock", "flock"):
		n := p.node(word)
		p.advance()
		n.kids = append(n.kids, p.expression(), p.block())
		return n
	case p.token.is("foreach"):
		n := p.node(word)
		p.advance()
		n.kids = append(n.kids, p.expression())
		if kind := n.kids[0].kind; kind != "=~" && kind != nodeRegexp {
			p.fail("Syntax error.")
		}
		p.end()
		n.kids = append(n.kids, p.inner())
		return n
	case p.token.is("exit"):
		n := p.node(word)
		p.advance()
		p.end()
		return n
	case p.token.is("to", "cc", "echo", "xfilter", "system", "logfile", "log", "include", "import", "unset"):
		n := p.node(word)
		p.advance()
		n.kids = append(n.kids, p.expression())
		p.end()
		return n
	}
	n := p.expression()
	p.end()
	return n
}

// block is "{ ... }" where nothing else may stand.
func (p *parser) block() *node {
	if !p.token.is("{") {
		p.fail("Syntax error.")
	}
	return p.statement()
}

// conditional reads "if" or, as the same, "elsif".
func (p *parser) conditional() *node {
	first := p.node("if")
	for last := first; ; {
		p.advance()
		p.want("(")
		last.kids = append(last.kids, p.expression())
		p.want(")")
		p.end()
		last.kids = append(last.kids, p.inner())
		if p.token.is("else") {
			p.advance()
			p.end()
			last.kids = append(last.kids, p.inner())
			return first
		}
		if !p.token.is("elsif") {
			return first
		}
		defer p.nest()()
		more := p.node("if")
		last.kids = append(last.kids, more)
		last = more
	}
}

// inner is the statement of an "if" or loop. After an empty line it is nothing.
func (p *parser) inner() *node {
	if p.token.kind == tokEnd {
		p.advance()
		return p.node(nodeList)
	}
	return p.statement()
}
