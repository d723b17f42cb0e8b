package maildrop

// expression reads an assignment or what has a value.
func (p *parser) expression() *node {
	defer p.nest()()
	n := p.binary(0)
	for p.token.is("=") {
		if n.kind != nodeText {
			p.fail("Syntax error before =")
		}
		p.advance()
		assign := p.node(nodeAssign, n)
		assign.line = n.line
		assign.kids = append(assign.kids, p.binary(0))
		n = assign
	}
	return n
}

// levels are the operators, the loosest first. Comparisons do not chain.
var levels = [][]string{
	{"||"}, {"&&"}, {"<", "<=", ">", ">=", "==", "!=", "lt", "le", "gt", "ge", "eq", "ne"},
	{"|"}, {"&"}, {"+", "-"}, {"*", "/"}, {"=~"},
}

const (
	comparisons = 2
	products    = 6
	matches     = 7
)

func (p *parser) binary(level int) *node {
	if level == len(levels) {
		return p.element()
	}
	n := p.binary(level + 1)
	for p.token.is(levels[level]...) {
		o := p.node(p.token.text, n)
		p.advance()
		switch level {
		case matches:
			if p.token.kind != tokRegexp {
				p.fail("Syntax error after =~")
			}
			o.kids = append(o.kids, p.element())
		case products:
			o.kids = append(o.kids, p.element())
		default:
			o.kids = append(o.kids, p.binary(level+1))
		}
		n = o
		if level == comparisons {
			break
		}
	}
	return n
}

// functions of one element, and those of a list of arguments with how many there
// may be.
var (
	unary     = set("length", "getaddr", "escape", "tolower", "toupper", "hasaddr", "!", "~")
	arguments = map[string][2]int{"substr": {2, 3}, "lookup": {2, 3}, "gdbmopen": {1, 2}, "gdbmfetch": {1, 3}, "gdbmstore": {2, 2}}
)

func (p *parser) element() *node {
	defer p.nest()()
	word := p.token.text
	switch {
	case p.token.kind == tokRegexp:
		n := p.node(nodeRegexp)
		n.text = word
		p.advance()
		return n
	case p.token.kind != tokWord:
		return p.text()
	case unary[word]:
		n := p.node(word)
		p.advance()
		n.kids = append(n.kids, p.element())
		return n
	case word == "(":
		p.advance()
		n := p.expression()
		p.want(")")
		return n
	case word == "gdbmclose" || word == "time":
		n := p.node(word)
		p.advance()
		return n
	}
	bounds, is := arguments[word]
	if !is {
		p.fail("Syntax error.")
	}
	n := p.node(word)
	p.advance()
	p.want("(")
	n.kids = append(n.kids, p.expression())
	for len(n.kids) < bounds[1] && (len(n.kids) < bounds[0] || p.token.is(",")) {
		p.want(",")
		n.kids = append(n.kids, p.expression())
	}
	p.want(")")
	return n
}

// text reads one text, or several that are put together.
func (p *parser) text() *node {
	kinds := map[kind]string{tokText: nodeText, tokSingle: nodeSingle, tokBack: nodeBack}
	var all []*node
	for kinds[p.token.kind] != "" {
		n := p.node(kinds[p.token.kind])
		n.text = p.token.text
		all = append(all, n)
		p.advance()
	}
	switch len(all) {
	case 0:
		p.fail("Syntax error.")
	case 1:
		return all[0]
	}
	n := p.node(nodeConcat, all...)
	n.line = all[0].line
	return n
}
