package procmail

import (
	"strings"

	"relayguard/forward"
)

// How a text is read by readparse of goodies.c.
const (
	splitWords = 0 // words, as sh does
	oneWord    = 1 // to the first blank: the value of an assignment
	whole      = 2 // all, blanks kept: a condition
)

// States of reading.
const (
	nothingYet = iota - 1
	skippingSpace
	normalText
	doubleQuoted
	singleQuoted
)

// maxText bounds one expanded text; procmail's own bound is LINEBUF, 2048 unless
// set. What is longer is not known.
const maxText = 16 << 10

// expansion is one reading of a text, with one value for each variable.
type expansion struct {
	source *source
	how    int
	lookup func(string) (string, bool)
	run    func(string) string // a command in backticks: its output
	cost   *int

	out  []byte // words end with NUL
	got  int
	full bool
	// braces
	depth, quoteDepth int
	back              int // where out ends once what is skipped is over; -1: nothing is
	backDepth         int
	backGot           int
	backValue         string
}

// words are what was read, in C's way: a NUL ends one, wherever it is from.
func (e *expansion) words() []string {
	text := strings.TrimSuffix(string(e.out), "\x00")
	return strings.Split(text, "\x00")
}

func (e *expansion) text() string { return cut(string(e.out)) }

func (e *expansion) put(c byte) {
	if len(e.out) < maxText {
		e.out = append(e.out, c)
	} else {
		e.full = true
	}
}

func (e *expansion) puts(s string) {
	for i := range len(s) {
		e.put(s[i])
	}
}

func (e *expansion) read() {
	e.got, e.back = nothingYet, -1
	c := e.source.get()
	for {
		next, again := e.step(c)
		if !again {
			break
		}
		if next == none {
			next = e.source.get()
		}
		c = next
		if *e.cost--; *e.cost < 0 {
			e.full = true
			break
		}
	}
	if e.got != skippingSpace || e.how != splitWords {
		e.put(0)
	}
	if e.full {
		e.out = append([]byte(forward.Unknown), 0)
	}
}

// none: the next octet is to be read.
const none = -2

// step takes one octet. It returns one that was read too far, and whether to go
// on.
func (e *expansion) step(c int) (int, bool) {
	switch c {
	case eof:
		return none, false
	case '\\':
		if e.got != singleQuoted {
			return e.backslash()
		}
	case '`':
		if e.got != singleQuoted {
			return e.backtick()
		}
	case '"':
		if e.got != singleQuoted && (e.got != doubleQuoted || e.quoteDepth >= e.depth) {
			if e.got == doubleQuoted {
				e.got = normalText
			} else {
				e.quoteDepth, e.got = e.depth, doubleQuoted
			}
			return none, true
		}
	case '\'':
		if e.got == singleQuoted {
			e.got = normalText
			return none, true
		}
		if e.got != doubleQuoted {
			e.got = singleQuoted
			return none, true
		}
	case '}':
		if e.inBraces() {
			e.closeBrace()
			return none, true
		}
	case '#':
		if e.got <= skippingSpace {
			e.source.skipLine()
			return none, false
		}
	case '$':
		if e.got != singleQuoted {
			return e.dollar()
		}
	case ' ', '\t':
		switch e.got {
		case normalText:
			if e.how == oneWord {
				return none, false
			}
			e.got = skippingSpace
			if e.how == whole {
				e.put(' ')
			} else {
				e.put(0)
			}
			return none, true
		case nothingYet, skippingSpace:
			return none, true
		}
	case '\n':
		if e.got <= normalText {
			return none, false
		}
	}
	e.normal(c)
	return none, true
}

func (e *expansion) normal(c int) {
	e.put(byte(c))
	if e.got <= skippingSpace {
		e.got = normalText
	}
}

func (e *expansion) inBraces() bool {
	return e.got <= normalText && e.depth > 0 || e.got == doubleQuoted && e.depth > e.quoteDepth
}

// backslash reads what follows one.
func (e *expansion) backslash() (int, bool) {
	c := e.source.get()
	switch c {
	case eof:
		return none, false
	case '\n':
		return none, true
	case '#':
		if e.got <= skippingSpace {
			e.normal(c)
			return none, true
		}
		e.put('\\')
	case ' ', '\t', '\'':
		if e.got == doubleQuoted {
			e.put('\\')
		}
	case '"', '\\', '$', '`':
	case '}':
		if !e.inBraces() && e.got > normalText {
			e.put('\\')
		}
	default:
		if e.got > normalText {
			e.put('\\')
		}
	}
	e.normal(c)
	return none, true
}

// backtick reads a command, and what it prints.
func (e *expansion) backtick() (int, bool) {
	var command []byte
	c := e.source.get()
reading:
	for ; c != eof && c != '`'; c = e.source.get() {
		switch {
		case c == '"' && e.got == doubleQuoted: // the closing backtick is missing
			break reading
		case c == '\\':
			c = e.source.get()
			switch c {
			case eof:
				break reading
			case '\n':
				continue
			case '\\', '$', '`':
			case '"':
				if e.got != doubleQuoted {
					command = append(command, '\\')
				}
			default:
				command = append(command, '\\')
			}
		}
		command = append(command, byte(c))
	}
	output := ""
	if e.back < 0 {
		output = e.run(cut(string(command)))
	}
	if e.got != doubleQuoted {
		e.unquoted(output)
		return none, true
	}
	if c == '"' {
		e.got = normalText
	}
	e.puts(output)
	return none, true
}

// unquoted adds what a substitution outside quotes gave: split into words, where
// words are read.
func (e *expansion) unquoted(value string) {
	if e.how != splitWords {
		e.puts(value)
		if e.got <= skippingSpace {
			e.got = normalText
		}
		return
	}
	for i := range len(value) {
		switch c := value[i]; c {
		case ' ', '\t', '\n':
			if e.got > skippingSpace {
				e.put(0)
				e.got = skippingSpace
			}
		default:
			e.put(c)
			e.got = normalText
		}
	}
}
