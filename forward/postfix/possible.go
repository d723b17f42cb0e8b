package postfix

import (
	"slices"
	"strings"

	"relayguard/forward"
)

// Caps on what a value may become at a delivery; beyond them it is wholly unknown.
const (
	maxPossible     = 16
	maxPossibleDeep = 8
)

// possible is all that a value with parts that only a delivery fills in may become
// ("$user", "${extension?{a}:{b}}"): names stand as forward.Unknown, of a condition
// both sides are there. What cannot be read is forward.Unknown.
func possible(value string) []string {
	texts, ok := possibleTexts(value, 0)
	if !ok {
		return []string{forward.Unknown}
	}
	slices.Sort(texts)
	texts = slices.DeleteFunc(slices.Compact(texts), func(s string) bool { return strings.Trim(s, spaces) == "" })
	return texts
}

func possibleTexts(text string, depth int) (all []string, ok bool) {
	all = []string{""}
	if depth > maxPossibleDeep {
		return nil, false
	}
	for text != "" {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			return times(all, []string{text})
		}
		all, _ = times(all, []string{text[:dollar]})
		text = text[dollar+1:]
		var parts []string
		if strings.HasPrefix(text, "$") {
			parts, text = []string{"$"}, text[1:]
		} else {
			expression, rest, err := cutReference(text)
			if err != nil {
				return nil, false
			}
			if parts, ok = possibleParts(expression, depth+1); !ok {
				return nil, false
			}
			text = rest
		}
		if all, ok = times(all, parts); !ok {
			return nil, false
		}
	}
	return all, true
}

// possibleParts is what stood between the braces: a name, or a condition with one
// side or two.
func possibleParts(expression string, depth int) (all []string, ok bool) {
	body := strings.TrimLeft(expression, spaces)
	rest := ""
	if strings.HasPrefix(body, "{") { // {left} == {right}
		_, after, err := cutBraces(body)
		if err != nil {
			return nil, false
		}
		after = after[min(len(after), max(0, strings.IndexByte(after, '{'))):]
		if _, rest, err = cutBraces(after); err != nil {
			return nil, false
		}
		if rest == "" {
			return []string{"true", ""}, true
		}
	} else if rest = strings.TrimLeft(body[nameEnd(body):], spaces); rest == "" {
		return []string{forward.Unknown}, true
	}
	all = []string{""}
	for rest != "" {
		if rest[0] != '?' && rest[0] != ':' {
			return nil, false
		}
		side, more, err := operand(rest[1:])
		if err != nil {
			return nil, false
		}
		texts, ok := possibleTexts(side, depth)
		if !ok || len(all)+len(texts) > maxPossible {
			return nil, false
		}
		all, rest = append(all, texts...), more
	}
	return all, true
}

// times puts each end behind each beginning.
func times(beginnings, ends []string) ([]string, bool) {
	if len(beginnings)*len(ends) > maxPossible {
		return nil, false
	}
	var all []string
	for _, b := range beginnings {
		for _, e := range ends {
			if len(b)+len(e) > forward.MaxTarget {
				return nil, false
			}
			all = append(all, b+e)
		}
	}
	return all, true
}
