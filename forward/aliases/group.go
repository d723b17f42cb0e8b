package aliases

import (
	"slices"
	"strings"
)

// addresses finds the addresses among tokens, each as its own tokens, as
// Postfix's tok822_parse does: from right to left, with missing commas added.
// What names a group ("sales: a, b;") or a person ("Alice <a@b>") is no
// address; two words without an operator between them are two addresses.
func addresses(tokens []token) [][]token {
	tokens = slices.DeleteFunc(slices.Clone(tokens), func(t token) bool { return t.kind == comment })
	var found [][]token
	right := len(tokens) // the address may lie between at and right
	take := func(at int) {
		if at+1 < right {
			found = append(found, tokens[at+1:right])
		}
	}
	at := len(tokens) - 1
	skip := func(while func(token) bool) {
		for at >= 0 && while(tokens[at]) {
			at--
		}
		right = at
	}
	inGroup, apart := false, true // apart: an operator stood since the last word
	for at >= 0 {
		switch t := tokens[at]; {
		case t.kind == ';':
			take(at)
			right, inGroup, apart = at, true, true
		case t.kind == ':' && inGroup:
			take(at)
			skip(func(t token) bool { return t.kind != ',' })
			continue
		case t.kind == '>':
			take(at)
			right = at
			for at >= 0 && tokens[at].kind != '<' {
				at--
			}
			take(at)
			skip(func(t token) bool { return t.word() || !strings.ContainsRune(">;,:", rune(t.kind)) })
			apart = true
			continue
		case t.word():
			if !apart {
				take(at)
				right = at + 1
			}
			apart = false
		case t.kind == ',':
			take(at)
			right, apart = at, true
		default:
			apart = true
		}
		at--
	}
	take(at)
	slices.Reverse(found)
	return found
}
