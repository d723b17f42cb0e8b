package procmail

import (
	"regexp"
	"strings"

	"relayguard/forward"
)

// conditions reads a recipe's conditions, at least count of them. again: another
// recipe begins, this one has no action.
func (m *machine) conditions(s *source, count int) (maybe, again bool) {
	empty := false
	for m.cost >= 0 {
		m.cost -= 16
		s.skipSpace()
		count--
		if !s.test('*') && count < 0 {
			switch {
			case s.test('#'):
				s.skipLine()
				continue
			case s.test('\n'):
				empty = true
				continue
			case empty && s.test(':'):
				return maybe, true
			}
			return maybe, false
		}
		if s.at >= len(s.data) {
			return true, false
		}
		s.skipSpace()
		maybe = true
		at := m.here()
		text := s.logical()
		m.cost -= len(text)
		m.condition(text, at, 0)
	}
	return true, false
}

var (
	weight  = regexp.MustCompile(`^[-+.,0-9eE]+[ \t]*\^[ \t]*[-+.,0-9eE]+[ \t]*`)
	subject = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*[ \t]*\?\?[ \t]*`)
)

// condition follows one condition as far as it runs programs or takes a part of
// what it matches.
func (m *machine) condition(text string, at position, depth int) {
	for text = strings.TrimRight(text, " \t"); text != "" && depth < 20; depth++ {
		switch prefix := weight.FindString(text) + subject.FindString(text); {
		case prefix != "":
			text = text[len(prefix):]
		case text[0] == '!':
			text = strings.TrimLeft(text[1:], " \t")
		case text[0] == '$':
			m.expandText(`"`+text[1:], whole, func(e *expansion) {
				m.condition(strings.TrimLeft(e.text(), " \t"), at, depth+1)
			})
			return
		case text[0] == '?':
			m.command(text[1:], forward.Copy, at)
			return
		case text[0] == '<' || text[0] == '>':
			m.expandText(text, whole, func(*expansion) {})
			return
		default:
			if strings.Contains(text, `\/`) || strings.Contains(text, forward.Unknown) {
				m.may("MATCH", forward.Unknown)
			}
			return
		}
	}
}
