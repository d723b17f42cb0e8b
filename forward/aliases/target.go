package aliases

import (
	"fmt"
	"strings"

	"relayguard/forward"
)

// Target is one target of a right side.
type Target struct {
	Kind forward.Kind
	// Text of an Address is as Postfix hands it on: without comments and
	// superfluous white space, quoted parts in their quotes. Of a Program it is
	// the command line without "|", of a File the path ("/..." or "~...").
	Text    string
	Include bool // Text is the path of a file with further targets
	// Self: it was written "\user". To Postfix that is user; Sendmail delivers
	// to the mailbox of user and expands no more.
	Self bool
}

const includePrefix = ":include:"

// MaxRight bounds a right side, in octets. What is longer ends in a target of
// the kind Asked: the rest is not told.
const MaxRight = 1 << 20

// ParseTargets reads the right side of an alias, or one record of a .forward or
// :include: file, as Postfix does. It takes time and memory in proportion to s,
// up to MaxRight.
func ParseTargets(s string) []Target {
	s, long := bounded(s)
	if oneWord(s) { // nearly all are: 100,000 aliases in a table
		return []Target{{Kind: forward.Address, Text: s}}
	}
	var targets []Target
	for _, tokens := range addresses(scan(s)) {
		targets = append(targets, target(tokens))
	}
	return append(targets, long...)
}

// oneWord reports whether s is one address or name without anything that has a
// meaning: then its tokens put together again are s.
func oneWord(s string) bool {
	at := false
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i == 0 || i == len(s)-1:
			return false
		case c == '-', c == '_', c == '+':
		case c == '.' && s[i-1] != '.' && s[i-1] != '@':
		case c == '@' && !at && s[i-1] != '.':
			at = true
		default:
			return false
		}
	}
	return s != ""
}

// bounded cuts a right side that is too long, and tells of it.
func bounded(s string) (string, []Target) {
	if len(s) <= MaxRight {
		return s, nil
	}
	return s[:MaxRight], []Target{{Kind: forward.Asked, Text: fmt.Sprintf("right side of more than %d octets", MaxRight)}}
}

// target tells what local(8) does with one address of a right side.
func target(tokens []token) Target {
	name := internal(tokens)
	switch {
	case strings.HasPrefix(name, "/"), strings.HasPrefix(name, "~"):
		return Target{Kind: forward.File, Text: name}
	case strings.HasPrefix(name, "|"):
		return Target{Kind: forward.Program, Text: name[1:]}
	case len(name) >= len(includePrefix) && strings.EqualFold(name[:len(includePrefix)], includePrefix):
		return Target{Kind: forward.File, Text: name[len(includePrefix):], Include: true}
	}
	return Target{Kind: forward.Address, Text: external(tokens), Self: len(tokens) == 1 && tokens[0].escaped}
}
