package postfix

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Caps of an expansion: Postfix itself stops at 100 levels (mac_expand.c); the
// others are ours, since a value may double at each level.
const (
	maxExpandDepth = 100
	maxExpandSize  = 1 << 18
	maxExpandSteps = 10_000
)

// expander puts values in place of $name, as mac_expand(3) of Postfix does:
// $name, ${name}, $(name), ${name?text}, ${name:text}, ${name?{text}:{text}},
// ${{text} == {text} ? {text} : {text}} with all six operators and their
// variant for compatibility levels ("<level"), and $$ for a dollar sign.
type expander struct {
	lookup func(name string) string // "" where there is no such setting
	out    strings.Builder
	steps  int
	depth  int
}

// expand returns value with everything put in. With an error, on which Postfix
// would not start, what was expanded until then.
func expand(value string, lookup func(string) string) (string, error) {
	x := &expander{lookup: lookup}
	err := x.parse(value)
	return x.out.String(), err
}

// parse finds references in text: mac_parse.c.
func (x *expander) parse(text string) error {
	for text != "" {
		if x.steps++; x.steps > maxExpandSteps || x.out.Len() > maxExpandSize {
			return errors.New("expands to more than is read")
		}
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			x.out.WriteString(text)
			return nil
		}
		x.out.WriteString(text[:dollar])
		text = text[dollar+1:]
		if strings.HasPrefix(text, "$") {
			x.out.WriteByte('$')
			text = text[1:]
			continue
		}
		expression, rest, err := cutReference(text)
		if err != nil {
			return err
		}
		if err := x.evaluate(expression); err != nil {
			return err
		}
		text = rest
	}
	return nil
}

// cutReference takes what follows a dollar sign apart: the reference without
// its parentheses, and the rest.
func cutReference(text string) (expression, rest string, err error) {
	if text != "" && (text[0] == '{' || text[0] == '(') {
		closing := byte('}')
		if text[0] == '(' {
			closing = ')'
		}
		level := 0
		for i := range len(text) {
			switch text[i] {
			case text[0]:
				level++
			case closing:
				level--
			}
			if level == 0 {
				expression, rest = text[1:i], text[i+1:]
				break
			}
		}
		if level > 0 {
			return "", "", fmt.Errorf("reference ${%s: not closed", brief(text[1:]))
		}
	} else {
		end := nameEnd(text)
		expression, rest = text[:end], text[end:]
	}
	if expression == "" {
		return "", "", errors.New("a $ without a name")
	}
	return expression, rest, nil
}

// evaluate expands what stood between the braces: mac_expand_callback.
func (x *expander) evaluate(expression string) error {
	if x.depth++; x.depth > maxExpandDepth {
		return fmt.Errorf("settings refer to each other more than %d deep", maxExpandDepth)
	}
	defer func() { x.depth-- }()
	var value, rest string
	var named bool
	if body := strings.TrimLeft(expression, spaces); strings.HasPrefix(body, "{") {
		var err error
		if value, rest, err = x.relation(body); err != nil {
			return err
		}
	} else {
		end := nameEnd(body)
		named, value = true, x.lookup(body[:end])
		rest = strings.TrimLeft(body[end:], spaces)
	}
	if rest == "" {
		if named {
			return x.parse(value)
		}
		x.out.WriteString(value)
		return nil
	}
	return x.choose(value != "", rest)
}

// choose expands one side of "?text", ":text", "?{text}:{text}".
func (x *expander) choose(is bool, rest string) error {
	if rest[0] == '?' {
		text, more, err := operand(rest[1:])
		if err != nil {
			return err
		}
		if is {
			if err := x.parse(text); err != nil {
				return err
			}
		}
		if more == "" {
			return nil
		}
		rest = more
	}
	if rest[0] != ':' {
		return fmt.Errorf("reference: want ? or : at %q", brief(rest))
	}
	text, more, err := operand(rest[1:])
	if err != nil {
		return err
	}
	if more != "" {
		return fmt.Errorf("reference: did not expect %q", brief(more))
	}
	if is {
		return nil
	}
	return x.parse(text)
}

// operand is {text} with what follows it, or all of the text.
func operand(s string) (text, rest string, err error) {
	if body := strings.TrimLeft(s, spaces); strings.HasPrefix(body, "{") {
		return cutBraces(body)
	}
	return s, "", nil
}

// cutBraces takes "{text} rest" apart.
func cutBraces(s string) (text, rest string, err error) {
	level := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			level++
		case '}':
			if level--; level == 0 {
				return s[1:i], strings.TrimLeft(s[i+1:], spaces), nil
			}
		}
	}
	return "", "", fmt.Errorf("braces of %q: not closed", brief(s))
}

// relation evaluates "{left} == {right}" to "true" or "", and returns what
// follows it.
func (x *expander) relation(body string) (value, rest string, err error) {
	left, rest, err := cutBraces(body)
	if err != nil {
		return "", "", err
	}
	end := 0
	for end < len(rest) && strings.IndexByte("<>!=", rest[end]) >= 0 {
		end++
	}
	operator := rest[:end]
	rest = rest[end:]
	suffix := rest[:nameEnd(rest)]
	rest = strings.TrimLeft(rest[len(suffix):], spaces)
	if !strings.HasPrefix(rest, "{") {
		return "", "", fmt.Errorf("reference: want {text} after %q", brief(body))
	}
	right, rest, err := cutBraces(rest)
	if err != nil {
		return "", "", err
	}
	if left, err = x.sub(left); err != nil {
		return "", "", err
	}
	if right, err = x.sub(right); err != nil {
		return "", "", err
	}
	is, err := compare(left, operator, suffix, right)
	if err != nil || !is {
		return "", rest, err
	}
	return "true", rest, nil
}

// sub expands an operand by itself, within the same caps.
func (x *expander) sub(text string) (string, error) {
	y := &expander{lookup: x.lookup, steps: x.steps, depth: x.depth + 1}
	if y.depth > maxExpandDepth {
		return "", fmt.Errorf("settings refer to each other more than %d deep", maxExpandDepth)
	}
	err := y.parse(text)
	x.steps = y.steps
	return y.out.String(), err
}

// compare is mac_exp_eval, and compat_level.c for the suffix "level".
func compare(left, operator, suffix, right string) (bool, error) {
	var order int
	switch {
	case suffix == "level":
		l, okLeft := level(left)
		r, okRight := level(right)
		if !okLeft || !okRight {
			return false, fmt.Errorf("compatibility level %q or %q: want major.minor.patch", brief(left), brief(right))
		}
		order = l - r
	case suffix != "":
		return false, fmt.Errorf("operator %s%s: not known", operator, brief(suffix))
	case allDigits(left) && allDigits(right):
		l, errLeft := strconv.ParseInt(left, 10, 64)
		r, errRight := strconv.ParseInt(right, 10, 64)
		if errLeft != nil || errRight != nil {
			return false, fmt.Errorf("numbers %s and %s: too large", brief(left), brief(right))
		}
		order = int(min(max(l-r, -1), 1))
	default:
		order = strings.Compare(left, right)
	}
	switch operator {
	case "==":
		return order == 0, nil
	case "!=":
		return order != 0, nil
	case "<":
		return order < 0, nil
	case "<=":
		return order <= 0, nil
	case ">=":
		return order >= 0, nil
	case ">":
		return order > 0, nil
	}
	return false, fmt.Errorf("operator %q: not known", brief(operator))
}

// level is a compatibility level as one number: major, minor and patch of at
// most 1023 each.
func level(s string) (int, bool) {
	parts := strings.Split(s, ".")
	if len(parts) > 3 {
		return 0, false
	}
	n := 0
	for i := range 3 {
		n <<= 10
		if i >= len(parts) {
			continue
		}
		part, err := strconv.Atoi(parts[i])
		if err != nil || part < 0 || part > 1023 {
			return 0, false
		}
		n |= part
	}
	return n, true
}

func allDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// nameEnd is where the name of a setting ends that s begins with.
func nameEnd(s string) int {
	for i := range len(s) {
		if c := s[i]; c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return i
		}
	}
	return len(s)
}

// spaces are what Postfix takes for white space (ISSPACE in the C locale).
const spaces = " \t\n\v\f\r"

// brief is the beginning of a text, for an error.
func brief(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
