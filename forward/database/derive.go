package database

import (
	"errors"
	"fmt"
	"strings"
)

// maxWays bounds the alternatives that OR and IN multiply to.
const maxWays = 16

// turned is a query turned round: statements that give what all keys give.
type turned struct {
	ways []way
	// asked: rows are candidates for keys; what they give, the query itself says.
	asked bool
	// tables that the query reads, as it names them.
	tables []string
}

// way is one of the alternatives by which a key can have a row.
type way struct {
	sql string
	// equations are the pairs of columns at the end of each row. No equation:
	// the key cannot be solved for.
	equations []equation
	// candidates: a row has the equations' columns only.
	candidates bool
	// keyed: the select list has the key in it, as marks.
	keyed bool
}

// equation holds where "free = keyed" did; whole: keyed was just '%s', so that the
// key is what free is.
type equation struct {
	free, keyed string
	whole       bool
}

var errNoTurn = errors.New("the query cannot be turned round")

// turn turns a query round. An error wraps errNoTurn; the tables are told even so.
func turn(query string, d dialect) (turned, error) {
	tokens, err := lex(query, d)
	if err != nil {
		return turned{}, fmt.Errorf("%w: %w", errNoTurn, err)
	}
	out := turned{tables: tablesOf(tokens)}
	if len(tokens) == 0 || !tokens[0].is("SELECT", "(") {
		return out, fmt.Errorf("%w: it is no plain SELECT", errNoTurn)
	}
	arms, plain, err := splitUnion(tokens)
	if err != nil {
		return out, err
	}
	out.asked = !plain
	for _, arm := range arms {
		s, err := readSelect(arm)
		if err != nil {
			return out, err
		}
		ways, exact, err := s.turn(d, out.asked)
		if err != nil {
			return out, err
		}
		out.asked = out.asked || !exact
		out.ways = append(out.ways, ways...)
	}
	if len(out.ways) > 1 {
		out.asked = true // a key may have rows by more than one way
	}
	if len(out.ways) > maxWays {
		return out, fmt.Errorf("%w: more than %d alternatives", errNoTurn, maxWays)
	}
	return out, nil
}

// splitUnion cuts a statement at its UNIONs; plain: there is none.
func splitUnion(tokens []token) (arms [][]token, plain bool, err error) {
	from := 0
	for i := range tokens {
		t := &tokens[i]
		if t.depth != 0 || !t.is("UNION", "INTERSECT", "EXCEPT", "MINUS") {
			continue
		}
		if t.upper != "UNION" {
			return nil, false, fmt.Errorf("%w: %s", errNoTurn, t.upper)
		}
		arms = append(arms, tokens[from:i])
		from = i + 1
		if from < len(tokens) && tokens[from].is("ALL", "DISTINCT") {
			from++
		}
	}
	arms = append(arms, tokens[from:])
	for i := range arms {
		arms[i] = unwrap(arms[i])
	}
	return arms, len(arms) == 1, nil
}

// unwrap takes parentheses off that are around all of the tokens. The depth of
// what is inside is made that of the outside.
func unwrap(tokens []token) []token {
	for len(tokens) >= 2 && tokens[0].is("(") && tokens[len(tokens)-1].is(")") {
		for i := 1; i < len(tokens)-1; i++ {
			if tokens[i].depth <= tokens[0].depth {
				return tokens // "(a) = (b)"
			}
		}
		inner := make([]token, len(tokens)-2)
		copy(inner, tokens[1:len(tokens)-1])
		for i := range inner {
			inner[i].depth--
		}
		tokens = inner
	}
	return tokens
}

// statement is one SELECT, cut into its clauses.
type statement struct {
	list, from, where, order []token
	// asked: its rows for one key are not simply its rows with that key
	// (GROUP BY, LIMIT, an aggregate).
	asked bool
}

func readSelect(tokens []token) (statement, error) {
	var s statement
	if len(tokens) == 0 || !tokens[0].is("SELECT") {
		return s, fmt.Errorf("%w: it is no plain SELECT", errNoTurn)
	}
	base := tokens[0].depth
	into, from := &s.list, 1
	cut := func(i int, next *[]token, skip int) {
		*into = tokens[from:i]
		into, from = next, i+skip
	}
	var rest []token
	for i := 1; i < len(tokens); i++ {
		t := &tokens[i]
		if t.depth != base || i > 0 && tokens[i-1].is(".") {
			continue
		}
		switch {
		case t.is("FROM") && into == &s.list:
			cut(i, &s.from, 1)
		case t.is("WHERE") && into == &s.from:
			cut(i, &s.where, 1)
		case t.is("ORDER") && into != &s.list:
			cut(i, &s.order, 0)
		case t.is("GROUP", "HAVING", "LIMIT", "OFFSET", "FETCH", "WINDOW", "FOR", "INTO", "LOCK", "PROCEDURE") && into != &s.list:
			s.asked = true
			cut(i, &rest, 0)
		}
	}
	*into = tokens[from:]
	if len(s.from) == 0 || len(s.where) == 0 && !hasKey(s.from) {
		return s, fmt.Errorf("%w: no table has a condition with the key", errNoTurn)
	}
	s.asked = s.asked || aggregates(s.list)
	if hasKey(s.order) || hasKey(rest) {
		s.asked, s.order = true, nil
	}
	return s, nil
}

// aggregates reports whether a select list makes one row of many, or may: a
// window, a function of that kind.
func aggregates(list []token) bool {
	for i := range list {
		if list[i].is("OVER", "INTO") {
			return true
		}
		if i+1 < len(list) && list[i+1].is("(") &&
			list[i].is("COUNT", "MIN", "MAX", "SUM", "AVG", "TOTAL", "GROUP_CONCAT", "STRING_AGG", "ARRAY_AGG",
				"JSON_ARRAYAGG", "JSON_OBJECTAGG", "JSON_AGG", "JSONB_AGG", "JSON_GROUP_ARRAY", "XMLAGG", "ANY_VALUE",
				"BIT_AND", "BIT_OR", "BOOL_AND", "BOOL_OR", "EVERY", "STD", "STDDEV", "VARIANCE", "SELECT") {
			return true
		}
	}
	return false
}

// turn makes the ways of one SELECT; exact: its rows are those of its keys.
func (s *statement) turn(d dialect, asked bool) (ways []way, exact bool, err error) {
	from, joined, exact, err := s.joins(d)
	if err != nil {
		return nil, false, err
	}
	exact = exact && !s.asked
	cases := []conditions{{}}
	if len(s.where) > 0 {
		if cases, err = alternatives(s.where, d); err != nil {
			return nil, false, err
		}
	}
	for i := range cases {
		cases[i].equations = append(cases[i].equations, joined...)
		exact = exact && !cases[i].loose
		if len(cases[i].equations) == 0 {
			return nil, false, fmt.Errorf("%w: no condition says what the key is equal to", errNoTurn)
		}
	}
	candidates := asked || !exact || len(cases) > 1
	for _, c := range cases {
		ways = append(ways, s.write(from, c, candidates))
	}
	return ways, exact, nil
}

// write makes the statement of one way.
func (s *statement) write(from string, c conditions, candidates bool) way {
	var b strings.Builder
	b.WriteString("SELECT ")
	if candidates {
		b.WriteString("DISTINCT ")
	} else {
		b.WriteString(render(s.list) + ", ")
	}
	for i, e := range c.equations {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + e.free + "), (" + e.keyed + ")")
	}
	b.WriteString(" FROM " + from)
	for i, keep := range c.keep {
		b.WriteString([]string{" AND (", " WHERE ("}[b2i(i == 0)] + keep + ")")
	}
	if !candidates {
		b.WriteString(" " + render(s.order))
	}
	return way{sql: b.String(), equations: c.equations, candidates: candidates, keyed: hasKey(s.list)}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// maxTables bounds the tables of a query that are searched for keys.
const maxTables = 16

// tablesOf names the tables after FROM, JOIN and the commas between them.
func tablesOf(tokens []token) []string {
	var names []string
	for i := range tokens {
		if !tokens[i].is("FROM", "JOIN") {
			continue
		}
		depth := tokens[i].depth
		for j := i + 1; j < len(tokens) && tokens[j].depth >= depth && len(names) < maxTables; j++ {
			first := j == i+1 || tokens[j-1].is(",") && tokens[j-1].depth == depth
			if !first && tokens[j].is("WHERE", "JOIN", "FROM", "ON", "GROUP", "ORDER", "LIMIT", "UNION") {
				break
			}
			if name, isTable := tableName(tokens[j:]); first && isTable {
				names = append(names, name)
			}
		}
	}
	return names
}

// tableName reads "name" or "schema.name"; what has a parenthesis behind it is a
// function.
func tableName(tokens []token) (string, bool) {
	name := ""
	for i := range tokens {
		t := &tokens[i]
		isName := t.kind == word || t.kind == quoted && !t.key
		switch {
		case isName && (name == "" || strings.HasSuffix(name, ".")), t.is(".") && name != "" && !strings.HasSuffix(name, "."):
			name += t.text
		default:
			return name, name != "" && !strings.HasSuffix(name, ".") && !t.is("(")
		}
	}
	return name, name != ""
}
