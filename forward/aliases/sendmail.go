package aliases

import (
	"strings"

	"relayguard/forward"
)

// ParseSendmail reads a right side as Sendmail does: only a comma outside
// quotes, brackets and comments separates, and a backslash before a name keeps
// it from being expanded further (Self). It takes time and memory in proportion
// to s.
func ParseSendmail(s string) []Target {
	s, long := bounded(s)
	var targets []Target
	for _, part := range splitSendmail(s) {
		part = strings.TrimSpace(part)
		bare := strings.TrimSpace(unquoteWhole(part))
		switch {
		case part == "":
		case strings.HasPrefix(bare, "|"):
			targets = append(targets, Target{Kind: forward.Program, Text: bare[1:]})
		case strings.HasPrefix(bare, "/"):
			targets = append(targets, Target{Kind: forward.File, Text: bare})
		case len(bare) >= len(includePrefix) && strings.EqualFold(bare[:len(includePrefix)], includePrefix):
			targets = append(targets, Target{Kind: forward.File, Text: strings.TrimSpace(bare[len(includePrefix):]), Include: true})
		default:
			targets = append(targets, sendmailAddresses(part)...)
		}
	}
	return append(targets, long...)
}

// sendmailAddresses are those of one part: words stay together, as Sendmail
// joins them, unless they belong to a group or a name before "<...>".
func sendmailAddresses(part string) []Target {
	self := strings.HasPrefix(part, `\`)
	var tokens []token
	for _, t := range scan(part) {
		if t.kind == comment {
			continue
		}
		if n := len(tokens); n > 0 && t.word() && tokens[n-1].word() && !strings.Contains(part, "<") {
			tokens = append(tokens, token{kind: '.'}) // SpaceSub: a blank becomes a dot
		}
		tokens = append(tokens, t)
	}
	var targets []Target
	for _, found := range addresses(tokens) {
		targets = append(targets, Target{Kind: forward.Address, Text: external(found), Self: self && len(found) == 1})
	}
	return targets
}

// splitSendmail cuts at commas, and at the semicolon that ends a group.
func splitSendmail(s string) []string {
	var parts []string
	start, parens, angles := 0, 0, 0
	inQuotes := false
	for n := 0; n < len(s); n++ {
		switch c := s[n]; {
		case c == '\\':
			n++
		case c == '"' && parens == 0:
			inQuotes = !inQuotes
		case inQuotes:
		case c == '(':
			parens++
		case c == ')':
			parens = max(0, parens-1)
		case parens > 0:
		case c == '<':
			angles++
		case c == '>':
			angles = max(0, angles-1)
		case (c == ',' || c == '\n') && angles == 0:
			parts = append(parts, s[start:n])
			start = n + 1
		}
	}
	return append(parts, s[min(start, len(s)):])
}

// unquoteWhole takes the quotes off what is quoted as a whole.
func unquoteWhole(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	text, end := collect(s, 1, func(c byte) bool { return c == '"' })
	if end != len(s)-1 {
		return s
	}
	return text
}
