package tables

import (
	"strconv"
	"strings"

	"relayguard/forward"
)

// replacement is the right side of a regexp or pcre rule: text, and references
// to parts of the match.
type replacement struct {
	parts []part
	most  int // the highest reference; 0: none
}

type part struct {
	text  string
	group int // 0: text
}

// parseReplacement reads $1, ${1}, $(1) and $$ as mac_parse(3). ok is false
// where Postfix skips the rule: "$1abc" is a name that is no number.
func parseReplacement(s string) (r replacement, ok bool) {
	var text strings.Builder
	for i := 0; i < len(s); {
		if s[i] != '$' {
			text.WriteByte(s[i])
			i++
			continue
		}
		if i+1 < len(s) && s[i+1] == '$' {
			text.WriteByte('$')
			i += 2
			continue
		}
		if text.Len() > 0 {
			r.parts = append(r.parts, part{text: text.String()})
			text.Reset()
		}
		name, end := macroName(s, i+1)
		n, err := strconv.ParseUint(name, 10, 16)
		if end < 0 || err != nil || n < 1 {
			return replacement{}, false
		}
		r.parts = append(r.parts, part{group: int(n)})
		r.most = max(r.most, int(n))
		i = end
	}
	if text.Len() > 0 {
		r.parts = append(r.parts, part{text: text.String()})
	}
	return r, true
}

// macroName returns the name after a $ and where it ends; -1: nowhere.
func macroName(s string, i int) (string, int) {
	if i < len(s) && (s[i] == '(' || s[i] == '{') {
		opening, closing := s[i], byte(')')
		if opening == '{' {
			closing = '}'
		}
		level := 1
		for j := i + 1; j < len(s); j++ {
			switch s[j] {
			case opening:
				level++
			case closing:
				level--
			}
			if level == 0 {
				return s[i+1 : j], j + 1
			}
		}
		return "", -1
	}
	j := i
	for j < len(s) && (isAlnum(s[j]) || s[j] == '_') {
		j++
	}
	return s[i:j], j
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// pattern is the right side without a match at hand.
func (r replacement) pattern() string {
	return r.fill(func(int) string { return forward.Unknown })
}

func (r replacement) fill(group func(int) string) string {
	var b strings.Builder
	for _, p := range r.parts {
		if p.group > 0 {
			b.WriteString(group(p.group))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}
