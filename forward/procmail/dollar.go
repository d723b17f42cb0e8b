package procmail

import (
	"strings"

	"relayguard/forward"
)

// dollar reads a substitution after its "$".
func (e *expansion) dollar() (int, bool) {
	c := e.source.get()
	switch {
	case c == eof:
		e.normal('$')
		return none, false
	case c == '@':
		if e.got == doubleQuoted {
			e.puts(forward.Unknown)
			return none, true
		}
		e.normal('$')
		return c, true
	case c == '{':
		e.braced()
		return none, true
	case c == '$' || c == '?' || c == '#' || c == '=':
		e.puts(forward.Unknown)
		if e.got <= skippingSpace {
			e.got = normalText
		}
		return none, true
	case c == '_', c == '-':
		// $_ is the rcfile's name only where no name of a variable follows; a
		// letter after it changes nothing for procmail.
		value, _ := e.lookup("$" + string(rune(c)))
		e.value(value)
		return none, true
	case kind(c) == digit:
		value, _ := e.lookup(string(rune(c)))
		e.value(value)
		return none, true
	}
	return e.named(c)
}

// named reads "$name" and "$\name"; c is what follows the "$".
func (e *expansion) named(c int) (int, bool) {
	disarmed := c == '\\'
	if disarmed {
		c = e.source.get()
	}
	if kind(c) != letter && kind(c) != digit {
		e.normal('$')
		if disarmed {
			if c == eof {
				return none, false
			}
			e.source.unget(c)
			return '\\', true
		}
		return c, true
	}
	var name []byte
	for ; kind(c) != other; c = e.source.get() {
		name = append(name, byte(c))
	}
	e.source.unget(c)
	value, _ := e.lookup(string(name))
	if !disarmed {
		e.value(value)
		return none, true
	}
	e.puts("()")
	for i := range len(value) {
		if strings.IndexByte(`(|)*?+.^$[\`, value[i]) >= 0 {
			e.put('\\')
		}
		e.put(value[i])
	}
	if e.got <= skippingSpace {
		e.got = normalText
	}
	return none, true
}

// value adds what a variable holds.
func (e *expansion) value(value string) {
	if e.got == doubleQuoted {
		e.puts(value)
	} else {
		e.unquoted(value)
	}
}

// braced reads "${name...": what follows an operator is read as any text, and
// dropped at the closing brace if it does not count.
func (e *expansion) braced() {
	var name []byte
	c := e.source.get()
	for ; kind(c) != other; c = e.source.get() {
		name = append(name, byte(c))
	}
	value, set := "", false
	if e.back < 0 {
		value, set = e.lookup(string(name))
	}
	if len(name) > 1 && kind(int(name[0])) == digit {
		return // bad substitution: nothing
	}
	alternative := false
	switch c {
	case '}':
		e.value(value)
		return
	case ':':
		c = e.source.get()
		full := set && value != ""
		switch c {
		case '-':
			alternative = !full
		case '+':
			alternative, value = full, ""
		default:
			return
		}
	case '-':
		alternative = !set
	case '+':
		alternative, value = set, ""
	default: // bad substitution; the octet is gone
		return
	}
	if !alternative && e.back < 0 {
		e.back, e.backDepth, e.backGot, e.backValue = len(e.out), e.depth, e.got, value
	}
	e.depth++
}

// closeBrace ends what an operator in "${...}" began.
func (e *expansion) closeBrace() {
	e.depth--
	if e.back >= 0 && e.depth == e.backDepth {
		e.out, e.got = e.out[:min(e.back, len(e.out))], e.backGot
		e.back = -1
		e.value(e.backValue)
	}
}
