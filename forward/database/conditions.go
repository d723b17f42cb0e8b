package database

import (
	"fmt"
	"strings"
)

// conditions are one alternative of a WHERE: what has no key stays, what says
// that something is equal to the key becomes an equation.
type conditions struct {
	keep      []string
	equations []equation
	// loose: something else about the key was left out; rows are candidates.
	loose bool
}

func (c conditions) with(o conditions) conditions {
	return conditions{
		keep:      append(c.keep[:len(c.keep):len(c.keep)], o.keep...),
		equations: append(c.equations[:len(c.equations):len(c.equations)], o.equations...),
		loose:     c.loose || o.loose,
	}
}

// alternatives brings a condition into the form "(a AND b) OR (c AND d)", as far
// as it has to do with the key.
func alternatives(tokens []token, d dialect) ([]conditions, error) {
	tokens = unwrap(tokens)
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%w: an empty condition", errNoTurn)
	}
	if !hasKey(tokens) {
		return []conditions{{keep: []string{render(tokens)}}}, nil
	}
	or := []string{"OR"}
	if d.kind == "mysql" && !d.pipesConcat {
		or = append(or, "||")
	}
	if parts := splitAt(tokens, or...); len(parts) > 1 {
		return anyOf(parts, d)
	}
	if len(splitAt(tokens, "XOR")) > 1 {
		return []conditions{{loose: true}}, nil
	}
	and := []string{"AND"}
	if d.kind == "mysql" {
		and = append(and, "&&")
	}
	if parts := splitAt(tokens, and...); len(parts) > 1 {
		return allOf(parts, d)
	}
	return leaf(tokens)
}

func anyOf(parts [][]token, d dialect) ([]conditions, error) {
	var all []conditions
	for _, p := range parts {
		cases, err := alternatives(p, d)
		if err != nil {
			return nil, err
		}
		if all = append(all, cases...); len(all) > maxWays {
			return nil, fmt.Errorf("%w: more than %d alternatives", errNoTurn, maxWays)
		}
	}
	return all, nil
}

func allOf(parts [][]token, d dialect) ([]conditions, error) {
	all := []conditions{{}}
	for _, p := range parts {
		cases, err := alternatives(p, d)
		if err != nil {
			return nil, err
		}
		if len(all)*len(cases) > maxWays {
			return nil, fmt.Errorf("%w: more than %d alternatives", errNoTurn, maxWays)
		}
		var next []conditions
		for _, a := range all {
			for _, c := range cases {
				next = append(next, a.with(c))
			}
		}
		all = next
	}
	return all, nil
}

// splitAt cuts at the operators of the outermost level; the AND of BETWEEN is none.
func splitAt(tokens []token, operators ...string) [][]token {
	depth := tokens[0].depth
	for i := range tokens {
		depth = min(depth, tokens[i].depth)
	}
	var parts [][]token
	from, between := 0, false
	for i := range tokens {
		t := &tokens[i]
		if t.depth != depth {
			continue
		}
		if t.is("BETWEEN") {
			between = true
			continue
		}
		if !t.is(operators...) {
			continue
		}
		if t.is("AND") && between {
			between = false
			continue
		}
		parts = append(parts, tokens[from:i])
		from = i + 1
	}
	return append(parts, tokens[from:])
}

// leaf reads one condition that has the key in it.
func leaf(tokens []token) ([]conditions, error) {
	loose := []conditions{{loose: true}}
	at := -1
	for i := range tokens {
		t := &tokens[i]
		if t.depth != tokens[0].depth {
			continue
		}
		switch {
		case t.is("=", "==", "<=>", "LIKE", "ILIKE", "IN"):
			if at >= 0 {
				return loose, nil
			}
			at = i
		case t.is("NOT", "IS", "BETWEEN", "REGEXP", "RLIKE", "SIMILAR", "GLOB", "MATCH", "EXISTS", "ESCAPE", "<", ">", "<=", ">=",
			"<>", "!=", "~", "~*", "!~", "!", "SELECT", "SOUNDS", "MEMBER", ":="):
			return loose, nil
		}
	}
	if at <= 0 || at == len(tokens)-1 {
		return loose, nil
	}
	left, right := tokens[:at], tokens[at+1:]
	switch {
	case tokens[at].is("IN"):
		return isIn(left, right), nil
	case tokens[at].is("LIKE", "ILIKE"):
		c := isEqual(left, right)
		c.loose = true // wild cards, in the key or in the column
		return []conditions{c}, nil
	}
	return []conditions{isEqual(left, right)}, nil
}

func isEqual(left, right []token) conditions {
	if hasKey(left) {
		left, right = right, left
	}
	if hasKey(left) || selects(left) || selects(right) {
		return conditions{loose: true}
	}
	right = unwrap(right)
	whole := len(right) == 1 && (right[0].text == "'%s'" || right[0].text == `"%s"` || right[0].text == "'%S'")
	return conditions{equations: []equation{{free: render(left), keyed: render(right), whole: whole}}}
}

func isIn(left, right []token) []conditions {
	items := unwrap(right)
	if len(items) == len(right) || selects(items) || selects(left) {
		return []conditions{{loose: true}}
	}
	var all []conditions
	for _, item := range splitAt(items, ",") {
		if len(item) == 0 || len(all) == maxWays {
			return []conditions{{loose: true}}
		}
		if !hasKey(left) && !hasKey(item) {
			all = append(all, conditions{keep: []string{strings.TrimSpace(render(left)) + " = " + render(item)}, loose: true})
			continue
		}
		all = append(all, isEqual(left, item))
	}
	return all
}

func selects(tokens []token) bool {
	for i := range tokens {
		if tokens[i].is("SELECT") {
			return true
		}
	}
	return false
}

// joins writes FROM without the conditions on the key that stand behind ON.
func (s *statement) joins(d dialect) (from string, equations []equation, exact bool, err error) {
	if !hasKey(s.from) {
		return render(s.from), nil, true, nil
	}
	var b strings.Builder
	exact = true
	depth := s.from[0].depth
	outer := false
	for i := 0; i < len(s.from); i++ {
		t := &s.from[i]
		if t.depth == depth && t.is("LEFT", "RIGHT", "FULL", "NATURAL") {
			outer = true
		}
		if t.depth == depth && t.is("INNER", "CROSS", ",") {
			outer = false
		}
		b.WriteString(render(s.from[i : i+1]))
		if t.depth != depth || !t.is("ON") {
			if t.key {
				return "", nil, false, fmt.Errorf("%w: the key is part of FROM", errNoTurn)
			}
			continue
		}
		end := i + 1
		for end < len(s.from) && !(s.from[end].depth == depth && s.from[end].is("JOIN", "LEFT", "RIGHT", "FULL", "INNER", "CROSS", "NATURAL", ",")) {
			end++
		}
		on := s.from[i+1 : end]
		cases, err := alternatives(on, d)
		if err != nil {
			return "", nil, false, err
		}
		if len(cases) != 1 || outer && hasKey(on) {
			return "", nil, false, fmt.Errorf("%w: the key is part of an outer join", errNoTurn)
		}
		b.WriteString(" (1=1")
		for _, keep := range cases[0].keep {
			b.WriteString(" AND (" + keep + ")")
		}
		b.WriteString(")")
		equations = append(equations, cases[0].equations...)
		exact = exact && !cases[0].loose
		i = end - 1
	}
	return b.String(), equations, exact, nil
}
