package maildrop

import (
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
)

// execute follows a statement.
func (m *machine) execute(n *node) {
	if m.cost -= 16; m.cost < 0 {
		return
	}
	m.line = n.line
	switch n.kind {
	case nodeList:
		for _, kid := range n.kids {
			m.execute(kid)
		}
	case "if":
		m.branch(n)
	case "while", "foreach":
		m.loop(n)
	case "exception":
		m.trying++
		dead := m.dead
		m.vars.Enter()
		m.execute(n.kids[0])
		m.vars.Leave(true)
		m.dead = dead
		m.trying--
	case "dotlock", "flock":
		m.evaluate(n.kids[0])
		m.execute(n.kids[1])
	case "to", "cc":
		m.delivery(n)
	case "xfilter", "system":
		for _, command := range m.evaluate(n.kids[0]) {
			m.line = n.line
			m.command(command, forward.Copy)
		}
	case "include":
		m.included(n)
	case "exit":
		m.die("exit")
	case "import":
		for _, name := range m.evaluate(n.kids[0]) {
			m.set(name, forward.Unknown)
		}
	case "unset":
		for _, name := range m.evaluate(n.kids[0]) {
			m.set(name, "")
		}
	default: // echo, log, logfile: for what their texts run
		m.evaluate(n)
	}
}

// die: what follows is not run. After a failure of what is tried it is.
func (m *machine) die(why string) {
	if m.dead == "" && m.trying == 0 && m.cost >= 0 {
		m.dead = why + " ends the filter before"
	}
}

// delivery is "to" or "cc".
func (m *machine) delivery(n *node) {
	mode := forward.Redirect
	if n.kind == "cc" {
		mode = forward.Copy
	}
	for _, mailbox := range m.evaluate(n.kids[0]) {
		m.line = n.line
		m.deliver(mailbox, mode)
	}
	m.set("EXITCODE", forward.Unknown)
	if n.kind == "to" {
		m.die("to")
	}
}

func (m *machine) included(n *node) {
	names := m.evaluate(n.kids[0])
	dead := m.dead
	alive := false
	for _, name := range names {
		m.dead, m.line = dead, n.line
		m.vars.Enter()
		m.include(name)
		m.vars.Leave(len(names) > 1)
		alive = alive || m.dead == ""
	}
	if alive {
		m.dead = dead
	}
}

// branch is "if": both ways are taken, and what they set is joined.
func (m *machine) branch(n *node) {
	m.evaluate(n.kids[0])
	dead := m.dead
	m.vars.Enter()
	m.execute(n.kids[1])
	then := m.dead
	m.dead = dead
	first := m.vars.Back()
	if len(n.kids) > 2 {
		m.execute(n.kids[2])
	}
	otherwise := m.dead
	m.vars.Join(first)
	m.vars.Leave(false)
	if m.dead = dead; dead == "" && then != "" && otherwise != "" {
		m.dead = then
	}
}

// loop is "while" or "foreach": none, one and more rounds are taken; what is set
// in them is not known after more.
func (m *machine) loop(n *node) {
	dead := m.dead
	for round := range maxRounds {
		m.vars.Enter()
		if n.kind == "foreach" {
			m.set("MATCH", forward.Unknown)
		}
		m.evaluate(n.kids[0])
		m.execute(n.kids[1])
		if round == maxRounds-1 {
			for name := range m.vars.Back() {
				m.vars.Add(name, forward.Unknown)
			}
		}
		m.vars.Leave(true)
		m.dead = dead
	}
}

// evaluate returns all texts that an expression may have.
func (m *machine) evaluate(n *node) []string {
	if m.cost -= 16; m.cost < 0 {
		return nil
	}
	switch n.kind {
	case nodeText:
		return m.expand(n.text)
	case nodeSingle:
		return []string{n.text}
	case nodeBack:
		m.line = n.line
		m.command(n.text, forward.Copy)
		return []string{m.output(n.text)}
	case nodeRegexp:
		m.expand(n.text)
		m.matched()
		return []string{"0", "1"}
	case nodeConcat:
		return m.concat(n.kids)
	case nodeAssign:
		values := m.evaluate(n.kids[1])
		if len(values) > 0 {
			m.set(n.kids[0].text, values...)
		}
		return values
	case "&&": // what is false is no place that mail goes to
		m.evaluate(n.kids[0])
		return append([]string{"0"}, m.evaluate(n.kids[1])...)
	case "||":
		return slices.Concat(m.evaluate(n.kids[0]), m.evaluate(n.kids[1]))
	}
	var kids [][]string
	for _, kid := range n.kids {
		kids = append(kids, m.evaluate(kid))
	}
	return m.function(n, kids)
}

func (m *machine) matched() {
	for _, name := range []string{"MATCH", "MATCH1", "MATCH2", "MATCH3", "MATCH4", "MATCH5", "MATCH6", "MATCH7", "MATCH8", "MATCH9"} {
		m.vars.Add(name, forward.Unknown)
	}
}

// function is what an operator or function makes of the texts of its arguments.
func (m *machine) function(n *node, kids [][]string) []string {
	each := func(change func(string) string) []string {
		var all []string
		for _, text := range kids[0] {
			all = append(all, change(text))
		}
		return all
	}
	known := func(change func(string) string) []string {
		return each(func(text string) string {
			if strings.Contains(text, forward.Unknown) || strings.Contains(text, personal) {
				return forward.Unknown
			}
			return change(text)
		})
	}
	switch n.kind {
	case "=~":
		m.matched()
		return []string{"0", "1"}
	case "tolower":
		return known(strings.ToLower)
	case "toupper":
		return known(strings.ToUpper)
	case "length":
		return known(func(text string) string { return strconv.Itoa(len(text)) })
	case "escape":
		return each(escape)
	case "getaddr":
		return known(func(text string) string {
			if strings.ContainsAny(text, "\\\"()") {
				return forward.Unknown // quoted as RFC 822 has it, and then some
			}
			return addresses(text)
		})
	case "substr":
		return m.substr(kids)
	case "!", "<", "<=", ">", ">=", "==", "!=", "lt", "le", "gt", "ge", "eq", "ne", "hasaddr", "lookup":
		return []string{"0", "1"}
	}
	return []string{forward.Unknown}
}
