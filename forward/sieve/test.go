package sieve

import (
	"regexp"
	"slices"
	"strings"
)

// test is the states where it holds and where it does not.
func (r *textRun) test(n *node, s *state) (yes, no *state) {
	if !r.step() {
		return s, s
	}
	r.available(n)
	switch n.name {
	case "true":
		return s, s.killed(never)
	case "false":
		return s.killed(never), s
	case "not":
		yes, no = s, s
		for i := range n.tests {
			no, yes = r.test(&n.tests[i], s)
		}
		return yes, no
	case "allof":
		yes, no = s, nil
		for i := range n.tests {
			var failed *state
			yes, failed = r.test(&n.tests[i], yes)
			no = merge(no, failed)
		}
		return yes, orNever(no, s)
	case "anyof":
		yes, no = nil, s
		for i := range n.tests {
			var held *state
			held, no = r.test(&n.tests[i], no)
			yes = merge(yes, held)
		}
		return orNever(yes, s), no
	case "ihave":
		r.have(n)
	case "execute", "filter":
		s = r.program(n, s)
	}
	if n.has("matches") || n.has("regex") {
		yes = s.clone()
		yes.matches = r.matched(n, s)
		return yes, s
	}
	return s, s
}

func orNever(s, from *state) *state {
	if s == nil {
		return from.killed(never)
	}
	return s
}

// have makes known what a script asks for; that it is there is assumed.
func (r *textRun) have(n *node) {
	r.ihave = true
	for _, a := range n.arguments {
		for _, name := range a.strings() {
			r.known[name] = true
		}
	}
}

// matched are the match values after a test that held: known if it looks at
// strings that are known, else unknown.
func (r *textRun) matched(n *node, s *state) []values {
	if n.name != "string" {
		return allUnknown
	}
	octet := true // Pigeonhole's default for the test string, against RFC 5228
	var lists [][]string
	for i, a := range n.arguments {
		switch {
		case a.kind == tokenTag && a.text == "comparator" && i+1 < len(n.arguments):
			octet = n.arguments[i+1].text != "i;ascii-casemap"
		case a.kind == tokenString && !(i > 0 && n.arguments[i-1].kind == tokenTag && n.arguments[i-1].text == "comparator"):
			lists = append(lists, a.strings())
		}
	}
	if len(lists) != 2 {
		return allUnknown
	}
	source, keys := r.all(lists[0], s), r.all(lists[1], s)
	return matchEach(source, keys, n.has("regex"), octet)
}

func (r *textRun) all(list []string, s *state) values {
	var out values
	for _, text := range list {
		out = append(out, r.values(text, s)...)
	}
	return out
}

// matchEach are the match values of any of the sources with any of the keys.
func matchEach(source, keys values, regex, octet bool) []values {
	if len(source)*len(keys) > maxValues || slices.ContainsFunc(source, dynamic) || slices.ContainsFunc(keys, dynamic) {
		return allUnknown
	}
	var out []values
	found := false
	for _, text := range source {
		for _, key := range keys {
			captured, ok := capture(text, key, regex, octet)
			if !ok {
				continue
			}
			one := make([]values, len(captured))
			for i := range captured {
				one[i] = values{captured[i]}
			}
			if found {
				one = mergeMatches(out, one)
			}
			out, found = one, true
		}
	}
	if !found {
		return allUnknown
	}
	return out
}

// maxPattern bounds what a regular expression may cost, in octets.
const maxPattern = 1024

func capture(text, key string, regex, octet bool) ([]string, bool) {
	if !regex {
		if strings.Contains(key, "*") && strings.Contains(key, "?") {
			return nil, false // Pigeonhole looks for these in a way of its own
		}
		return glob(text, key, !octet)
	}
	if len(key) > maxPattern {
		return nil, false
	}
	if !octet {
		key = "(?i)" + key
	}
	re, err := regexp.Compile(key)
	if err != nil {
		return nil, false
	}
	re.Longest()
	m := re.FindStringSubmatch(text)
	return m, m != nil
}

// glob matches "*" and "?" (RFC 5228 §2.7.1), "*" as short as it can be
// (RFC 5229 §3.2). The first value is the whole text.
func glob(text, pattern string, fold bool) ([]string, bool) {
	segments := globSegments(pattern)
	captured := []string{text}
	at := 0
	for i, seg := range segments {
		last := i == len(segments)-1
		start := at
		switch {
		case i == 0 && last:
			if len(seg) != len(text) || !seg.at(text, 0, fold) {
				return nil, false
			}
		case i == 0:
			if !seg.at(text, 0, fold) {
				return nil, false
			}
		case last:
			start = len(text) - len(seg)
			if start < at || !seg.at(text, start, fold) {
				return nil, false
			}
		default:
			for !seg.at(text, start, fold) {
				if start++; start > len(text) {
					return nil, false
				}
			}
		}
		if i > 0 {
			captured = append(captured, text[at:start])
		}
		for j, e := range seg {
			if e.any {
				captured = append(captured, text[start+j:start+j+1])
			}
		}
		at = start + len(seg)
	}
	return captured, true
}

type globOctet struct {
	c   byte
	any bool
}

// globSegment is what stands between two "*".
type globSegment []globOctet

func globSegments(pattern string) []globSegment {
	out := []globSegment{nil}
	for i := 0; i < len(pattern); i++ {
		e := globOctet{c: pattern[i]}
		switch e.c {
		case '*':
			out = append(out, nil)
			continue
		case '?':
			e.any = true
		case '\\':
			if i+1 < len(pattern) {
				i++
				e.c = pattern[i]
			}
		}
		out[len(out)-1] = append(out[len(out)-1], e)
	}
	return out
}

func (g globSegment) at(text string, at int, fold bool) bool {
	if at+len(g) > len(text) {
		return false
	}
	for i, e := range g {
		c := text[at+i]
		if e.any || c == e.c || fold && lower(c) == lower(e.c) {
			continue
		}
		return false
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// modify applies the modifiers of set (RFC 5229 §4.1), whatever their order, by
// their precedence.
func modify(v values, modifiers []string) values {
	for _, m := range modifierOrder {
		if slices.Contains(modifiers, m.name) {
			v = v.each(func(s string) string {
				if dynamic(s) && m.whole {
					return "\uFFFC"
				}
				return m.change(s)
			})
		}
	}
	return v
}

// modifierOrder is by precedence, the highest first. whole: a value with unknown
// parts is unknown as a whole afterwards.
var modifierOrder = []struct {
	name   string
	whole  bool
	change func(string) string
}{
	{"lower", false, func(s string) string { return mapASCII(s, lower) }},
	{"upper", false, func(s string) string { return mapASCII(s, upper) }},
	{"lowerfirst", false, func(s string) string { return mapFirst(s, lower) }},
	{"upperfirst", false, func(s string) string { return mapFirst(s, upper) }},
	{"quotewildcard", false, func(s string) string { return quoteOctets(s, `*?\`) }},
	{"quoteregex", false, func(s string) string { return quoteOctets(s, `.^$*+?()[]{}|\`) }},
	{"encodeurl", false, encodeURL},
	{"length", true, lengthOf},
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

func mapASCII(s string, change func(byte) byte) string {
	out := []byte(s)
	for i, c := range out {
		out[i] = change(c)
	}
	return string(out)
}

func mapFirst(s string, change func(byte) byte) string {
	if s == "" {
		return s
	}
	return string([]byte{change(s[0])}) + s[1:]
}

func quoteOctets(s, special string) string {
	var out strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
