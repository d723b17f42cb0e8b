package tables

import "strings"

// fromPOSIX writes an extended regular expression of regcomp(3) in Go's syntax;
// empty where the two mean different things. Patterns ignore case unless the
// flag i is given (regexp_table(5)).
func fromPOSIX(body, flags string) string {
	toggled := toggles(flags)
	if toggled['x'] { // a basic expression
		return ""
	}
	var b strings.Builder
	b.WriteString(option(!toggled['i'], "i") + "(?s)")
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case c == '[':
			class, end := bracket(body, i)
			if end < 0 {
				return ""
			}
			b.WriteString(class)
			i = end
		case c == '\\':
			i++
			if i == len(body) || isAlnum(body[i]) && strings.IndexByte("wWsSbB", body[i]) < 0 || strings.IndexByte("<>`'", body[i]) >= 0 {
				return "" // GNU's own, and references back
			}
			b.WriteString(body[i-1 : i+1])
		case c == '(' && i+1 < len(body) && body[i+1] == '?':
			return "" // Go's own
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// bracket writes "[...]" so that a backslash in it is itself, as in POSIX. It
// returns the index of the closing bracket; -1: there is none.
func bracket(body string, i int) (string, int) {
	start := i
	i++
	if i < len(body) && body[i] == '^' {
		i++
	}
	if i < len(body) && body[i] == ']' {
		i++
	}
	for ; i < len(body); i++ {
		switch {
		case body[i] == ']':
			return strings.ReplaceAll(body[start:i+1], `\`, `\\`), i
		case strings.HasPrefix(body[i:], "[:"):
			if n := strings.Index(body[i:], ":]"); n > 0 {
				i += n + 1
			}
		case strings.HasPrefix(body[i:], "[.") || strings.HasPrefix(body[i:], "[="):
			return "", -1 // collating elements
		}
	}
	return "", -1
}

// fromPCRE writes a Perl expression in Go's syntax; what Go has not, such as
// looking ahead, fails to compile there. Patterns ignore case, and a dot is any
// character, unless flags say otherwise (pcre_table(5)).
func fromPCRE(body, flags string) string {
	toggled := toggles(flags)
	if toggled['x'] {
		return ""
	}
	prefix := option(!toggled['i'], "i") + option(!toggled['s'], "s") + option(toggled['m'], "m") + option(toggled['U'], "U")
	if toggled['A'] {
		return prefix + `\A(?:` + body + ")"
	}
	return prefix + body
}

func option(is bool, flag string) string {
	if is {
		return "(?" + flag + ")"
	}
	return ""
}

// toggles: a flag that is given twice is not given.
func toggles(flags string) map[byte]bool {
	t := map[byte]bool{}
	for i := 0; i < len(flags); i++ {
		t[flags[i]] = !t[flags[i]]
	}
	return t
}
