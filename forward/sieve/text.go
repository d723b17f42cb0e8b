package sieve

import (
	"fmt"
	"strings"

	"relayguard/forward"
)

// textRun goes through one script's text.
type textRun struct {
	*machine
	name     string          // of an included script
	known    map[string]bool // required extensions
	global   map[string]bool
	ihave    bool
	strange  bool   // an extension that is not known here was required
	returned *state // where return led
	broken   *state // where break led, in a loop
	serial   int    // of the action, for places
	begun    bool   // a command that is no require was seen
}

const never = "in a branch that is never taken"

func (r *textRun) run(commands []node, s *state) *state {
	return merge(r.block(commands, s), r.returned)
}

// block runs commands; chains of if, elsif, else are put together here.
func (r *textRun) block(commands []node, s *state) *state {
	var otherwise *state // where a chain's tests all failed
	for i := range commands {
		n := &commands[i]
		if !r.step() {
			return s
		}
		if n.name != "require" {
			r.begun = true
		}
		switch n.name {
		case "if":
			s, otherwise = r.branch(n, s)
		case "elsif":
			if otherwise == nil {
				r.fail(r.name, fmt.Sprintf("line %d: elsif without if", n.line))
				otherwise = s
			}
			var taken *state
			done := s
			taken, otherwise = r.branch(n, otherwise)
			s = merge(done, taken)
		case "else":
			if otherwise == nil {
				r.fail(r.name, fmt.Sprintf("line %d: else without if", n.line))
				otherwise = s
			}
			s = merge(s, r.block(n.block, otherwise))
			otherwise = nil
		default:
			if otherwise != nil {
				s = merge(s, otherwise)
				otherwise = nil
			}
			s = r.command(n, s)
		}
		if next := i + 1; otherwise != nil && (next == len(commands) || !chained(commands[next].name)) {
			s = merge(s, otherwise)
			otherwise = nil
		}
	}
	return s
}

func chained(name string) bool { return name == "elsif" || name == "else" }

// branch runs the block of an if or elsif; otherwise is where its test failed.
func (r *textRun) branch(n *node, s *state) (after, otherwise *state) {
	yes, no := s, s
	for i := range n.tests {
		yes, no = r.test(&n.tests[i], s)
	}
	return r.block(n.block, yes), no
}

// command runs one command that is no branch.
func (r *textRun) command(n *node, s *state) *state {
	r.available(n)
	if len(n.tests) > 0 && needs[n.name] == nil {
		r.fail(r.name, fmt.Sprintf("line %d: %s takes no test", n.line, n.name))
	}
	switch n.name {
	case "require":
		r.require(n)
	case "stop":
		r.pathEnd(s)
		return s.killed("after stop")
	case "error":
		return s.killed("after error")
	case "return":
		r.returned = merge(r.returned, s)
		return s.killed("after return")
	case "break":
		r.broken = merge(r.broken, s)
		return s.killed("after break")
	case "keep":
		return r.keep(s)
	case "fileinto":
		return r.keep(s)
	case "discard", "reject", "ereject":
		if s.dead == "" {
			s = s.clone()
			s.cancel()
		}
	case "redirect":
		return r.redirect(n, s)
	case "notify":
		return r.notify(n, s)
	case "report":
		return r.address(n, s, "report", false)
	case "pipe", "filter", "execute":
		return r.program(n, s)
	case "set":
		return r.set(n, s)
	case "extracttext":
		return r.setUnknown(lastString(n), s)
	case "global", "import", "export":
		r.globals(n)
	case "include":
		return r.includes(n, s)
	case "foreverypart":
		return r.loop(n, s)
	}
	return s
}

func (r *textRun) require(n *node) {
	if r.begun {
		r.fail(r.name, fmt.Sprintf("line %d: require after another command", n.line))
	}
	for _, a := range n.arguments {
		for _, name := range a.strings() {
			if !knownExtensions[name] {
				r.strange = r.strange || !strings.HasPrefix(name, "comparator-")
			}
			r.known[name] = true
		}
	}
}

// parts takes a string apart as the extensions of this script say.
func (r *textRun) parts(s string) []part {
	out := syntax{encoded: r.known["encoded-character"], variables: r.known["variables"]}.parts(s)
	for i := range out {
		if r.global[out[i].name] {
			out[i].name = "global." + out[i].name
		}
	}
	return out
}

func (r *textRun) values(text string, s *state) values { return r.evaluate(r.parts(text), s) }

func (r *textRun) place(n *node) place {
	return place{r.name, n.line, n.serial(r)}
}

func (r *textRun) redirect(n *node, s *state) *state {
	cancels := !n.has("copy")
	if !cancels && !r.known["copy"] && !r.ihave {
		r.fail(r.name, fmt.Sprintf("line %d: :copy without the extension", n.line))
	}
	return r.address(n, s, "", cancels)
}

// address runs a command whose last argument is an address.
func (r *textRun) address(n *node, s *state, note string, cancels bool) *state {
	a := lastString(n)
	if a == nil {
		r.fail(r.name, fmt.Sprintf("line %d: %s without address", n.line, n.name))
		return s
	}
	var all values
	for _, text := range a.strings() {
		v := r.values(text, s)
		if len(r.parts(text)) == 1 && !strings.Contains(text, "${") {
			if _, err := Address(text); err != nil {
				r.fail(r.name, fmt.Sprintf("line %d: %v", n.line, err))
			}
		}
		all = append(all, v...)
	}
	return r.send(s, r.place(n), forward.Address, all, note, cancels)
}

// notify is of enotify (RFC 5435), or of the old draft.
func (r *textRun) notify(n *node, s *state) *state {
	const note = "notification"
	if r.known["enotify"] || len(n.arguments) > 0 && !n.has("method") && !n.has("options") {
		a := lastString(n)
		if a == nil {
			return s
		}
		return r.sendMailto(s, r.place(n), r.values(a.text, s), note)
	}
	var all values
	for i, a := range n.arguments {
		if a.kind == tokenTag && a.text == "options" && i+1 < len(n.arguments) {
			for _, text := range n.arguments[i+1].strings() {
				all = append(all, r.values(text, s)...)
			}
		}
	}
	if len(all) == 0 {
		return s
	}
	return r.send(s, r.place(n), forward.Address, all, note, false)
}

// sendMailto notes a notification by its methods; what is no mailto: URI does
// not mail.
func (m *machine) sendMailto(s *state, p place, methods values, note string) *state {
	var all values
	for _, method := range methods {
		recipients, err := mailto(method)
		if err != nil && dynamic(method) {
			recipients = []string{forward.Unknown}
		}
		all = append(all, recipients...)
	}
	if len(all) == 0 {
		return s
	}
	return m.send(s, p, forward.Address, all, note, false)
}

// program is pipe, filter, execute of vnd.dovecot.
func (r *textRun) program(n *node, s *state) *state {
	command := empty
	first := true
	for i := 0; i < len(n.arguments); i++ {
		a := n.arguments[i]
		if a.kind == tokenTag {
			if a.text == "input" || a.text == "output" {
				i++
			}
			if a.text == "output" && i < len(n.arguments) {
				s = r.setUnknown(&n.arguments[i], s)
			}
			continue
		}
		for _, text := range a.strings() {
			if !first {
				command = command.joined(values{" "})
			}
			first = false
			command = command.joined(r.values(text, s))
		}
	}
	if first {
		return s
	}
	return r.send(s, r.place(n), forward.Program, command, n.name, n.name == "pipe" && !n.has("copy"))
}

func (r *textRun) set(n *node, s *state) *state {
	var texts []string
	var modifiers []string
	for _, a := range n.arguments {
		switch a.kind {
		case tokenString:
			texts = append(texts, a.text)
		case tokenTag:
			modifiers = append(modifiers, a.text)
		}
	}
	if len(texts) != 2 {
		r.fail(r.name, fmt.Sprintf("line %d: set takes a name and a value", n.line))
		return s
	}
	v := modify(r.values(texts[1], s), modifiers)
	return r.assignName(texts[0], v, s)
}

func (r *textRun) assignName(name string, v values, s *state) *state {
	name = strings.ToLower(name)
	rest, global := strings.CutPrefix(name, "global.")
	return r.assign(rest, v, s, global || r.global[name])
}

func (r *textRun) setUnknown(a *argument, s *state) *state {
	if a == nil {
		return s
	}
	return r.assignName(a.text, unknown, s)
}

func (r *textRun) globals(n *node) {
	if r.global == nil {
		r.global = map[string]bool{}
	}
	for _, a := range n.arguments {
		for _, name := range a.strings() {
			r.global[strings.ToLower(name)] = true
		}
	}
}

func (r *textRun) includes(n *node, s *state) *state {
	a := lastString(n)
	if a == nil {
		return s
	}
	return r.include(a.text, n.has("global"), n.has("optional"), n.line, r.name, s)
}

// loop runs a block until nothing new is learned, at most three times; what a
// variable then still learns is unknown.
func (r *textRun) loop(n *node, s *state) *state {
	outer := r.broken
	r.broken = nil
	defer func() { r.broken = outer }()
	const rounds = 3
	for round := range rounds {
		next := merge(s, r.block(n.block, s))
		if round == rounds-1 {
			next = widen(s, next)
			r.block(n.block, next)
		}
		s = next
	}
	return merge(s, r.broken)
}

// widen makes unknown what changed from before to after.
func widen(before, after *state) *state {
	out := after.clone()
	out.locals = widenScope(before.locals, after.locals)
	out.globals = widenScope(before.globals, after.globals)
	return out
}

func widenScope(before, after scope) scope {
	out := after
	for name, v := range after {
		if old := before.get(name); len(old) != len(v) {
			out = out.set(name, unknown)
		}
	}
	return out
}

func (n *node) has(tag string) bool {
	for _, a := range n.arguments {
		if a.kind == tokenTag && a.text == tag {
			return true
		}
	}
	return false
}

// serial tells apart the actions of one line.
func (n *node) serial(r *textRun) int {
	if n.number == 0 {
		r.serial++
		n.number = r.serial
	}
	return n.number
}

// lastString is the last argument that is a string or a list; nil: none is.
func lastString(n *node) *argument {
	for i := len(n.arguments) - 1; i >= 0; i-- {
		if n.arguments[i].kind == tokenString {
			return &n.arguments[i]
		}
	}
	return nil
}
