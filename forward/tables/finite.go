package tables

import (
	"regexp/syntax"
	"strings"
)

// maxKeys bounds how many keys a pattern is written out to.
const maxKeys = 64

// keys writes a pattern out to all the keys that it can match, if they are few:
// "/^(alice|bob)@corp\.test$/" is two fixed keys and no pattern. In lower case,
// for whoever ignores case is written so once.
func (e *expression) keys() ([]string, bool) {
	if e.re == nil || e.negated {
		return nil, false
	}
	tree, err := syntax.Parse(e.body, syntax.Perl)
	if err != nil {
		return nil, false
	}
	parts := []*syntax.Regexp{tree}
	for len(parts) == 1 && (parts[0].Op == syntax.OpConcat || parts[0].Op == syntax.OpCapture) {
		parts = parts[0].Sub
	}
	if len(parts) < 2 || parts[0].Op != syntax.OpBeginText || parts[len(parts)-1].Op != syntax.OpEndText {
		return nil, false
	}
	keys := product(parts[1 : len(parts)-1])
	for i, key := range keys {
		if key == "" || strings.ContainsAny(key, ": \t") { // a header's line, not an address
			return nil, false
		}
		keys[i] = strings.ToLower(key)
	}
	return keys, len(keys) > 0
}

// product lists the texts of a sequence; nil: they are too many.
func product(parts []*syntax.Regexp) []string {
	texts := []string{""}
	for _, p := range parts {
		ends := finite(p)
		if ends == nil || len(ends)*len(texts) > maxKeys {
			return nil
		}
		longer := make([]string, 0, len(ends)*len(texts))
		for _, t := range texts {
			for _, e := range ends {
				longer = append(longer, t+e)
			}
		}
		texts = longer
	}
	return texts
}

func finite(p *syntax.Regexp) []string {
	switch p.Op {
	case syntax.OpEmptyMatch:
		return []string{""}
	case syntax.OpLiteral:
		return []string{string(p.Rune)}
	case syntax.OpCapture, syntax.OpConcat:
		return product(p.Sub)
	case syntax.OpQuest:
		if inner := finite(p.Sub[0]); inner != nil && len(inner) < maxKeys {
			return append([]string{""}, inner...)
		}
	case syntax.OpAlternate:
		var all []string
		for _, sub := range p.Sub {
			texts := finite(sub)
			if texts == nil || len(all)+len(texts) > maxKeys {
				return nil
			}
			all = append(all, texts...)
		}
		return all
	case syntax.OpCharClass:
		return classTexts(p)
	}
	return nil
}

// classTexts lists the characters of a class; ones that differ in case are one
// if the pattern ignores it.
func classTexts(p *syntax.Regexp) []string {
	var texts []string
	seen := map[string]bool{}
	for i := 0; i+1 < len(p.Rune); i += 2 {
		if p.Rune[i+1]-p.Rune[i] > maxKeys {
			return nil
		}
		for r := p.Rune[i]; r <= p.Rune[i+1]; r++ {
			if text := strings.ToLower(string(r)); !seen[text] {
				seen[text] = true
				texts = append(texts, text)
			}
		}
	}
	if len(texts) > maxKeys {
		return nil
	}
	return texts
}

// needed is the longest text that every match of a pattern has in it, in lower
// case; empty: none, or not plain ASCII.
func needed(body string) string {
	tree, err := syntax.Parse(body, syntax.Perl)
	if err != nil {
		return ""
	}
	return longestLiteral(tree)
}

func longestLiteral(p *syntax.Regexp) string {
	switch p.Op {
	case syntax.OpLiteral:
		text := strings.ToLower(string(p.Rune))
		if strings.IndexFunc(text, func(r rune) bool { return r >= 0x80 }) >= 0 {
			return ""
		}
		return text
	case syntax.OpCapture:
		return longestLiteral(p.Sub[0])
	case syntax.OpConcat:
		longest := ""
		for _, sub := range p.Sub {
			if text := longestLiteral(sub); len(text) > len(longest) {
				longest = text
			}
		}
		return longest
	}
	return ""
}
