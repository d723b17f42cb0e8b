package sieve

import (
	"strings"
	"unicode/utf8"
)

// part is a piece of a string: text as it is, a variable, or a match value.
type part struct {
	text  string
	name  string // of a variable, lower case, with its namespace: "a", "global.a"
	match int    // the number of a match value; -1: it is none
}

// syntax is what "${" means at one place of a script.
type syntax struct {
	encoded, variables bool
}

// parts takes a string apart. Characters are decoded first, whatever was
// required first: "${hex:24}{a}" is the variable a.
func (x syntax) parts(s string) []part {
	if !strings.Contains(s, "${") {
		return []part{{text: s, match: -1}}
	}
	if x.encoded {
		s = decodeCharacters(s)
	}
	if !x.variables {
		return []part{{text: s, match: -1}}
	}
	return splitVariables(s)
}

// splitVariables finds "${name}", "${namespace.name}" and "${1}" (RFC 5229 §3);
// what is none of them stays as it is.
func splitVariables(s string) []part {
	var out []part
	start := 0
	for i := 0; i < len(s); {
		if !strings.HasPrefix(s[i:], "${") {
			i++
			continue
		}
		p, length := variable(s[i+2:])
		if length == 0 {
			i += 2
			continue
		}
		if i > start {
			out = append(out, part{text: s[start:i], match: -1})
		}
		out = append(out, p)
		i += 2 + length
		start = i
	}
	if start < len(s) || len(out) == 0 {
		out = append(out, part{text: s[start:], match: -1})
	}
	return out
}

// Of a variable's name, in Pigeonhole (ext-variables-limits.h).
const (
	maxNameOctets = 64
	maxNameParts  = 10
	maxMatch      = 32
)

// variable reads what follows "${" up to and with "}"; length 0: it is none.
func variable(s string) (p part, length int) {
	end := strings.IndexByte(s, '}')
	if end <= 0 {
		return p, 0
	}
	name := s[:end]
	if isDigit(int(name[0])) {
		number := 0
		for _, c := range []byte(name) {
			if !isDigit(int(c)) {
				return p, 0
			}
			number = min(number*10+int(c-'0'), maxMatch+1)
		}
		return part{match: number}, end + 1
	}
	elements := strings.Split(name, ".")
	if len(elements) > maxNameParts {
		return p, 0
	}
	for i, e := range elements {
		if e == "" || len(e) > maxNameOctets || !isName(e, i > 0) {
			return p, 0
		}
	}
	return part{name: strings.ToLower(name), match: -1}, end + 1
}

// isName reports whether s is an identifier, or, if digits may be, a number.
func isName(s string, digits bool) bool {
	allDigits := digits
	for i := range len(s) {
		c := int(s[i])
		if !isAlpha(c) && !(i > 0 && isDigit(c)) && !(allDigits && isDigit(c)) {
			return false
		}
		allDigits = allDigits && isDigit(c)
	}
	return true
}

// decodeCharacters replaces "${hex: 40}" and "${unicode: 40}" (RFC 5228 §2.4.2.4).
// Pigeonhole takes any beginning of "hex" or "unicode" for the whole, the empty
// one for "hex"; so do we.
func decodeCharacters(s string) string {
	var out strings.Builder
	start := 0
	for i := 0; i < len(s); {
		if !strings.HasPrefix(s[i:], "${") {
			i++
			continue
		}
		text, length := encodedCharacters(s[i+2:])
		if length == 0 {
			i += 2
			continue
		}
		out.WriteString(s[start:i])
		out.WriteString(text)
		i += 2 + length
		start = i
	}
	if start == 0 {
		return s
	}
	out.WriteString(s[start:])
	return out.String()
}

func encodedCharacters(s string) (text string, length int) {
	at := 0
	for at < len(s) && isAlpha(int(s[at])) && s[at] != '_' {
		at++
	}
	kind := strings.ToLower(s[:at])
	if at == len(s) || s[at] != ':' {
		return "", 0
	}
	at++
	digits := 0
	switch {
	case strings.HasPrefix("hex", kind):
		digits = 2
	case strings.HasPrefix("unicode", kind):
	default:
		return "", 0
	}
	var out []byte
	count := 0
	for at < len(s) {
		for at < len(s) && (s[at] == ' ' || s[at] == '\t' || s[at] == '\n' || s[at] == '\r') {
			at++
		}
		value, n, ok := hexNumber(s[at:], digits)
		if n == 0 {
			break
		}
		if !ok {
			return "", 0
		}
		at += n
		count++
		if digits == 2 {
			out = append(out, byte(value))
		} else {
			out = utf8.AppendRune(out, rune(value))
		}
	}
	if count == 0 || at >= len(s) || s[at] != '}' {
		return "", 0
	}
	return string(out), at + 1
}

// hexNumber reads up to limit hexadecimal digits (0: any number of them, the low
// 32 bits count); not ok if more follow.
func hexNumber(s string, limit int) (value uint32, n int, ok bool) {
	for n < len(s) && isHex(s[n]) {
		if limit > 0 && n == limit {
			return value, n, false
		}
		value = value<<4 | hexDigit(s[n])
		n++
	}
	return value, n, true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexDigit(c byte) uint32 {
	switch {
	case c <= '9':
		return uint32(c - '0')
	case c >= 'a':
		return uint32(c-'a') + 10
	}
	return uint32(c-'A') + 10
}
