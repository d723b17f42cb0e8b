package sieve

import (
	"strings"
	"unicode/utf8"

	"relayguard/forward"
)

// site is one place of a script that sends mail.
type site struct {
	kind    forward.Kind
	script  string
	line    int
	note    string
	copies  bool // on some way the mailbox gets the mail, too
	reached bool
	dead    string   // why it was not reached
	values  []string // targets as they were put together
	plain   bool     // values are no addresses to be parsed
}

// siteKey is what makes a site the same when it is passed again.
type siteKey struct {
	script string
	at     int
	kind   forward.Kind
}

// machine goes through scripts and collects what sends mail. The runs of texts
// and of compiled scripts drive it.
type machine struct {
	options  Options
	broken   string
	sites    []site
	index    map[siteKey]int
	overflow string
	steps    int
	octets   int
	included int
	stack    []Include
	includes []Include
}

func newMachine(o Options) *machine { return &machine{options: o, index: map[siteKey]int{}} }

// step counts one command or test; false: it was enough, what follows is not
// looked at.
func (m *machine) step() bool {
	m.steps++
	if m.steps > maxSteps || m.octets > maxOctets {
		m.overflow = "the script is too long-winded to be followed to its end"
		return false
	}
	return true
}

// place is where an action stands.
type place struct {
	script string
	line   int
	at     int // what tells two of one line apart
}

// send notes an action that sends mail, and returns the state after it.
func (m *machine) send(s *state, p place, kind forward.Kind, targets values, note string, cancels bool) *state {
	key := siteKey{p.script, p.at, kind}
	i, ok := m.index[key]
	if !ok {
		if len(m.sites) >= maxTargets {
			m.overflow = "more places that send mail than are followed"
			return s
		}
		i = len(m.sites)
		m.index[key] = i
		m.sites = append(m.sites, site{kind: kind, script: p.script, line: p.line, note: note, plain: kind != forward.Address})
	}
	at := &m.sites[i]
	at.add(targets)
	if s.dead != "" {
		if at.dead == "" {
			at.dead = s.dead
		}
		return s
	}
	at.reached = true
	out := s.clone()
	if cancels {
		out.cancel()
	}
	for _, l := range []*lane{&out.alive, &out.gone} {
		if l.open {
			at.copies = at.copies || l.kept
			l.pending = l.pending.with(i)
		}
	}
	return out
}

func (t *site) add(targets values) {
	for _, v := range targets {
		known := false
		for _, old := range t.values {
			known = known || old == v
		}
		if known {
			continue
		}
		if len(t.values) >= maxValues {
			v = forward.Unknown
			if t.values[len(t.values)-1] == v {
				return
			}
		}
		if len(t.values) <= maxValues {
			t.values = append(t.values, v)
		}
	}
}

// asked notes something that could not be read and may send mail.
func (m *machine) asked(s *state, line int, script, what, note string) {
	m.send(s, place{script, line, -line - 1}, forward.Asked, values{what}, note, false)
}

// cancel ends the implicit keep. The state must be a clone.
func (s *state) cancel() {
	s.gone = s.gone.union(s.alive)
	s.alive = lane{}
}

// keep notes that the mailbox gets the mail here.
func (m *machine) keep(s *state) *state {
	if s.dead != "" {
		return s
	}
	out := s.clone()
	for _, l := range []*lane{&out.alive, &out.gone} {
		m.kept(l)
	}
	return out
}

func (m *machine) kept(l *lane) {
	l.pending.each(func(i int) { m.sites[i].copies = true })
	l.pending = nil
	l.kept = l.open
}

// pathEnd is where execution ends: the implicit keep acts.
func (m *machine) pathEnd(s *state) {
	if s != nil && s.dead == "" {
		l := s.alive
		m.kept(&l)
	}
}

// evaluate is what a string may be in a state.
func (m *machine) evaluate(parts []part, s *state) values {
	if len(parts) == 1 && parts[0].match < 0 && parts[0].name == "" {
		return values{parts[0].text}
	}
	out := empty
	for _, p := range parts {
		switch {
		case p.match >= 0:
			out = out.joined(matchAt(s.matches, p.match))
		case p.name == "":
			out = out.joined(values{p.text})
		default:
			out = out.joined(m.variable(p.name, s))
		}
		for _, v := range out {
			m.octets += len(v)
		}
	}
	return out
}

// variable is what a variable may be.
func (m *machine) variable(name string, s *state) values {
	space, rest, dotted := strings.Cut(name, ".")
	if !dotted {
		return s.locals.get(name)
	}
	const config = "vnd.dovecot.config."
	switch {
	case space == "global":
		return s.globals.get(rest)
	case space == "env" && strings.HasPrefix(rest, config) && m.options.Environment != nil:
		if v, ok := m.options.Environment(strings.TrimPrefix(rest, config)); ok {
			return values{v}
		}
	}
	return unknown
}

// assign sets a variable.
func (m *machine) assign(name string, v values, s *state, global bool) *state {
	v = v.each(clip)
	out := s.clone()
	if global {
		out.globals = s.globals.set(name, v)
	} else {
		out.locals = s.locals.set(name, v)
	}
	m.octets += 32 * len(s.locals)
	return out
}

// clip cuts a value as Pigeonhole does, not through a character.
func clip(s string) string {
	if len(s) <= maxVariable {
		return s
	}
	s = s[:maxVariable]
	for i := 0; i < utf8.UTFMax && len(s) > 0; i++ {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

// targets are what a site sends to.
func (t *site) targets() []Target {
	out := make([]Target, 0, len(t.values))
	for _, v := range t.values {
		n := Target{Kind: t.kind, Target: v, Mode: forward.Redirect, Script: t.script, Line: t.line, Note: t.note}
		if t.copies {
			n.Mode = forward.Copy
		}
		if !t.reached {
			n.Dormant = t.dead
		}
		n.Dynamic = dynamic(v)
		if !t.plain {
			address, err := Address(v)
			switch {
			case err == nil:
				n.Target = address
			case !n.Dynamic:
				n.Broken = err.Error()
			}
		}
		out = append(out, n)
	}
	return out
}
