package aliases

import (
	"fmt"
	"strings"
)

// ForwardPath is Postfix's default of forward_path.
const ForwardPath = "$home/.forward${recipient_delimiter}${extension}, $home/.forward"

// ExpansionFilter is the default of forward_expansion_filter: other octets of
// what is put in for a name become "_".
const ExpansionFilter = "1234567890!@%-_=+:,./abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// maxPathDepth bounds "${name?{...}}" within itself.
const maxPathDepth = 10

// mapping is what the names in a pattern stand for; a name that is not there is
// not defined.
type mapping map[string]string

// expandPath puts values in for $name, ${name}, $(name), ${name?text},
// ${name:text}, ${name?{text}:{other}} (postconf(5), mac_expand). It is not
// defined if a plain name in it is not: local(8) then goes on to the next
// pattern.
func expandPath(pattern string, values mapping, filter string) (path string, defined bool, err error) {
	e := pathExpander{values: values, filter: filter, defined: true}
	err = e.expand(pattern, 0)
	return e.out.String(), e.defined, err
}

type pathExpander struct {
	values  mapping
	filter  string
	out     strings.Builder
	defined bool
}

func (e *pathExpander) expand(pattern string, depth int) error {
	if depth > maxPathDepth {
		return fmt.Errorf("forward_path %q: nests deeper than %d", pattern, maxPathDepth)
	}
	for pattern != "" {
		dollar := strings.IndexByte(pattern, '$')
		if dollar < 0 {
			e.out.WriteString(pattern)
			return nil
		}
		e.out.WriteString(pattern[:dollar])
		body, rest, err := macro(pattern[dollar+1:])
		if err != nil {
			return fmt.Errorf("forward_path %q: %w", pattern, err)
		}
		if body == "$" {
			e.out.WriteByte('$')
		} else if err := e.macro(body, depth); err != nil {
			return err
		}
		pattern = rest
	}
	return nil
}

// macro cuts off what follows a "$": the inside of braces, or a name.
func macro(s string) (body, rest string, err error) {
	if strings.HasPrefix(s, "$") {
		return "$", s[1:], nil
	}
	for _, pair := range []string{"{}", "()"} {
		if s == "" || s[0] != pair[0] {
			continue
		}
		depth := 0
		for n := range len(s) {
			switch s[n] {
			case pair[0]:
				depth++
			case pair[1]:
				if depth--; depth == 0 {
					return s[1:n], s[n+1:], nil
				}
			}
		}
		return "", "", fmt.Errorf("%q is not closed", s)
	}
	n := 0
	for n < len(s) && nameOctet(s[n]) {
		n++
	}
	if n == 0 {
		return "", "", fmt.Errorf("no name after $")
	}
	return s[:n], s[n:], nil
}

func nameOctet(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// macro puts in one macro, given by what stands in its braces.
func (e *pathExpander) macro(body string, depth int) error {
	n := 0
	for n < len(body) && nameOctet(body[n]) {
		n++
	}
	name, rest := body[:n], body[n:]
	value, have := e.values[name]
	switch {
	case name == "":
		return fmt.Errorf("forward_path: cannot read ${%s}", body)
	case rest == "":
		if !have {
			e.defined = false
		}
		e.out.WriteString(e.filtered(value))
		return nil
	case rest[0] != '?' && rest[0] != ':':
		return fmt.Errorf("forward_path: cannot read ${%s}", body)
	}
	then, other, err := branches(rest[1:])
	if err != nil {
		return err
	}
	if (rest[0] == '?') == (value != "") {
		return e.expand(then, depth+1)
	}
	return e.expand(other, depth+1)
}

// branches reads "text", "{text}" or "{text}:{other}".
func branches(s string) (then, other string, err error) {
	if !strings.HasPrefix(s, "{") {
		return s, "", nil
	}
	then, rest, err := macro(s)
	if err != nil || strings.TrimSpace(rest) == "" {
		return strings.TrimSpace(then), "", err
	}
	rest, found := strings.CutPrefix(strings.TrimSpace(rest), ":")
	if rest = strings.TrimSpace(rest); !found || !strings.HasPrefix(rest, "{") {
		return "", "", fmt.Errorf("forward_path: got %q after a first choice, want :{...}", rest)
	}
	other, _, err = macro(rest)
	return strings.TrimSpace(then), strings.TrimSpace(other), err
}

func (e *pathExpander) filtered(value string) string {
	out := []byte(value)
	for n, c := range out {
		if strings.IndexByte(e.filter, c) < 0 && c != marker[0] {
			out[n] = '_'
		}
	}
	return string(out)
}

// marker stands for an extension that is looked for.
const marker = "\x00"
