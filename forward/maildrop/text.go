package maildrop

import (
	"slices"
	"strconv"
	"strings"

	"relayguard/forward"
	"relayguard/forward/aliases"
)

// maxTexts bounds the texts of one expression; with more, it is not known.
const maxTexts = 64

// expand puts the values of variables into a text (dollarexpand of
// recipenode.C): a backslash keeps what follows it, and stays.
func (m *machine) expand(text string) []string {
	if !strings.Contains(text, "$") {
		return []string{text}
	}
	var all []string
	m.vars.Each(func() bool { return m.cost >= 0 }, func(lookup func(string) (string, bool)) {
		expanded := substitute(text, lookup)
		m.cost -= len(text) + len(expanded)
		all = append(all, expanded)
	})
	return compact(all)
}

func substitute(text string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			b.WriteString(text[i : i+2])
			i += 2
			continue
		case c == '$':
			if name, end := variable(text, i+1); end > 0 {
				value, _ := lookup(name)
				b.WriteString(value)
				i = end
				break
			}
			b.WriteByte(c)
			i++
		default:
			b.WriteByte(c)
			i++
		}
		if b.Len() > maxText {
			return forward.Unknown
		}
	}
	return b.String()
}

// variable reads the name of a variable after "$"; end is 0 if there is none.
func variable(text string, at int) (name string, end int) {
	if at < len(text) && text[at] == '{' {
		for end = at + 1; end < len(text) && !space(int(text[end])); end++ {
			if text[end] == '}' {
				return text[at+1 : end], end + 1
			}
		}
		return "", 0
	}
	for end = at; end < len(text) && (alnum(int(text[end])) || text[end] == '_'); end++ {
	}
	if end == at {
		return "", 0
	}
	return text[at:end], end
}

// compact keeps different texts, and not too many.
func compact(all []string) []string {
	slices.Sort(all)
	if all = slices.Compact(all); len(all) > maxTexts {
		all = append(all[:maxTexts:maxTexts], forward.Unknown)
	}
	return all
}

// concat puts texts together. Its parts see the same variables, so it is one
// text where that can be had.
func (m *machine) concat(parts []*node) []string {
	if !slices.ContainsFunc(parts, func(n *node) bool { return n.kind == nodeBack }) {
		var all []string
		m.vars.Each(func() bool { return m.cost >= 0 }, func(lookup func(string) (string, bool)) {
			var b strings.Builder
			for _, part := range parts {
				if part.kind == nodeSingle {
					b.WriteString(part.text)
				} else {
					b.WriteString(substitute(part.text, lookup))
				}
			}
			m.cost -= b.Len()
			all = append(all, b.String())
		})
		return compact(all)
	}
	all := []string{""}
	for _, part := range parts {
		var longer []string
		for _, after := range m.evaluate(part) {
			for _, before := range all {
				if text := before + after; len(text) <= maxText {
					longer = append(longer, text)
				} else {
					longer = append(longer, forward.Unknown)
				}
				m.cost -= len(before) + len(after)
			}
		}
		all = compact(longer)
	}
	return all
}

// escape is the function of that name.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		if strings.IndexByte("|!$()[]\\+*?.&;`'-~<>^{}\"", text[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// addresses is what getaddr makes of a header: one address a line.
func addresses(text string) string {
	var b strings.Builder
	for _, target := range aliases.ParseTargets(text) {
		b.WriteString(target.Text + "\n")
	}
	return b.String()
}

// substr is the function of that name.
func (m *machine) substr(kids [][]string) []string {
	var all []string
	for _, text := range kids[0] {
		from, err := number(kids[1])
		length := len(text)
		if err == nil && len(kids) > 2 {
			length, err = number(kids[2])
		}
		if err != nil || strings.Contains(text, forward.Unknown) || strings.Contains(text, personal) {
			all = append(all, forward.Unknown)
			continue
		}
		if from < 0 || from > len(text) {
			from = len(text)
		}
		text = text[from:]
		if length >= 0 && length < len(text) {
			text = text[:length]
		}
		all = append(all, text)
	}
	return all
}

// number is the one value of an argument.
func number(values []string) (int, error) {
	if len(values) != 1 {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(values[0])
}
