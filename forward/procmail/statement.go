package procmail

import (
	"strings"

	"relayguard/forward"
	"relayguard/forward/possible"
)

// main reads an rcfile that procmail was started with.
func (m *machine) main(name string, data []byte) {
	m.run(name, data)
}

// end is the end of all rcfiles: what TRAP says is run, however it came.
func (m *machine) end() {
	m.dead, m.gone, m.clones = "", "", 0
	m.trap()
	if m.cost < 0 {
		m.stop("more than is followed; the rest is not told")
	}
}

// run reads one rcfile to its end (mainloop of procmail.c).
func (m *machine) run(name string, data []byte) {
	outer := m.file
	m.file = &file{name: name, source: source{data: data}}
	if m.files++; m.files > maxFiles {
		m.stop("more files are included than are read")
	}
	s := &m.file.source
	for m.cost >= 0 {
		m.cost -= 16 // a statement may be very short
		m.between(s)
		if s.at >= len(s.data) {
			break
		}
		switch {
		case s.test(':'):
			m.recipe(s)
		case s.test('}'):
			m.closeBlock()
		default:
			m.assignment(s)
		}
	}
	for len(m.file.blocks) > 0 {
		m.closeBlock()
	}
	if outer != nil {
		m.file = outer
	}
}

// between skips blanks, empty lines and comments.
func (m *machine) between(s *source) {
	for {
		s.skipSpace()
		switch {
		case s.test('\n'):
		case s.test('#'):
			s.skipLine()
		default:
			return
		}
	}
}

func (m *machine) closeBlock() {
	f := m.file
	if len(f.blocks) == 0 {
		return
	}
	b := f.blocks[len(f.blocks)-1]
	f.blocks = f.blocks[:len(f.blocks)-1]
	if b.clone {
		m.clones--
	}
	m.leave(b.maybe || b.clone)
}

// expand reads a text for all values of its variables, and calls told with each
// reading. The source ends behind the text.
func (m *machine) expand(s *source, how int, told func(e *expansion)) {
	start := s.at
	end := start
	m.each(func(lookup func(string) (string, bool)) {
		s.at = start
		e := &expansion{source: s, how: how, lookup: lookup, cost: &m.cost}
		e.run = func(command string) string { return m.backtick(command, lookup) }
		e.read()
		end = s.at
		told(e)
	})
	s.at = end
}

// expandText is expand of a text that was read before.
func (m *machine) expandText(text string, how int, told func(e *expansion)) {
	m.expand(&source{data: []byte(text)}, how, told)
}

// recipe reads a recipe after its ":".
func (m *machine) recipe(s *source) {
	var flags string
	for {
		conditions, readings := 0, 0
		m.expand(s, splitWords, func(e *expansion) {
			before := flags
			if conditions, flags = start(e.words()); readings > 0 && before != flags || strings.Contains(e.text(), forward.Unknown) {
				m.unread(m.file.name, "only a message decides how a recipe begins")
			}
			readings++
		})
		if conditions < 0 {
			if conditions = 1; strings.ContainsAny(flags, "AaEe") {
				conditions = 0
			}
		}
		maybe, again := m.conditions(s, conditions)
		if !again {
			m.action(s, flags, maybe || strings.ContainsAny(flags, "AaEe"))
			return
		}
		if m.cost < 0 {
			return
		}
	}
}

// start reads the first line of a recipe: how many conditions there are (-1: it
// does not say), and its flags.
func start(words []string) (int, string) {
	text := strings.Join(words, "\x00")
	at := 0
	for at < len(text) && strings.IndexByte(" \t\n\v\f\r", text[at]) >= 0 {
		at++
	}
	digits := at
	if at < len(text) && (text[at] == '+' || text[at] == '-') {
		at++
	}
	number, some := 0, false
	for ; at < len(text) && kind(int(text[at])) == digit; at++ {
		number, some = min(number*10+int(text[at]-'0'), 1<<20), true
	}
	switch {
	case !some:
		number, at = -1, 0
	case text[digits] == '-' && number > 0:
		number = -1
	}
	var flags []byte
	for ; at < len(text); at++ {
		c := text[at]
		if strings.IndexByte("HBDAahbfcwWiEer", c) >= 0 {
			flags = append(flags, c)
		} else if c != ' ' && c != '\t' && c != 0 {
			break
		}
	}
	return number, string(flags)
}

// action reads what a recipe does. maybe: it has conditions.
func (m *machine) action(s *source, flags string, maybe bool) {
	s.skipSpace()
	mode := forward.Redirect
	if strings.ContainsAny(flags, "cf") {
		mode = forward.Copy
	}
	switch {
	case s.test('!'):
		m.mail(s, mode)
	case s.test('|'):
		m.pipe(s, mode)
	case s.at >= len(s.data): // incomplete
	default:
		m.folder(s, flags, maybe)
	}
}

// mail is an action "!": addresses, behind SENDMAIL and SENDMAILFLAGS.
func (m *machine) mail(s *source, mode forward.Mode) {
	at := m.here()
	m.expand(s, splitWords, func(e *expansion) {
		sendmail, _ := e.lookup("SENDMAIL")
		flags, _ := e.lookup("SENDMAILFLAGS")
		argv := append([]string{cut(sendmail)}, strings.FieldsFunc(cut(flags), blank)...)
		m.sendmail(append(argv, e.words()...), e.lookup, mode, at)
	})
	m.trap()
}

func blank(r rune) bool { return r == ' ' || r == '\t' || r == '\n' }

func (m *machine) here() position { return position{m.file.name, m.file.source.line()} }

// pipe is an action "|".
func (m *machine) pipe(s *source, mode forward.Mode) {
	at := m.here()
	m.command(s.logical(), mode, at)
	m.trap()
}

// folder is any other action: a block, what a program's output is kept in, or
// where the mail is stored.
func (m *machine) folder(s *source, flags string, maybe bool) {
	name, named := s.name()
	switch {
	case named:
		s.skipSpace()
		if !s.test('=') {
			break
		}
		s.skipSpace()
		captured := s.test('!')
		if captured {
			m.mail(s, forward.Copy)
		} else if captured = s.test('|'); captured {
			m.pipe(s, forward.Copy)
		}
		if captured {
			m.set(name, []string{forward.Unknown})
			m.may(name, possible.Unset)
			m.altered(name, []string{forward.Unknown}, m.here())
			return
		}
	case name == "" && s.test('{'):
		if s.test(' ') || s.test('\t') || s.test('\n') {
			m.openBlock(maybe, strings.Contains(flags, "c"))
			return
		}
	}
	m.expand(s, splitWords, func(*expansion) {}) // for its backticks
	m.trap()
}

func (m *machine) openBlock(maybe, clone bool) {
	if len(m.frames) >= maxBlocks {
		m.stop("more blocks are open than are followed")
		return
	}
	m.enter()
	m.file.blocks = append(m.file.blocks, block{maybe: maybe, clone: clone})
	if clone {
		m.clones++
	}
}
