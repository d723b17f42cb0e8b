package postfix

import (
	"regexp"
	"regexp/syntax"
	"strings"

	"golang.org/x/net/idna"

	"relayguard/forward"
	"relayguard/policy/address"
)

// maxTargets bounds how many addresses one right side may have.
const maxTargets = 10_000

// keepLocal puts the owner's local part before a right side that begins with
// "@", as mail_addr_map(3) does whatever the key is. Without a known local
// part, forward.Unknown.
func keepLocal(owner, right string) string {
	if !strings.HasPrefix(right, "@") {
		return right
	}
	local, _, _ := cutLast(owner, '@')
	if local == "" || local == forward.Everybody {
		local = forward.Unknown
	}
	return local + right
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	at := strings.LastIndexByte(s, sep)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+1:], true
}

// lowerASCII folds case as a comparison of Postfix's does for what is ASCII. What
// Unicode folds to ASCII (the Kelvin sign to k) stays what it is.
func lowerASCII(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) < 0 {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// exactDomain is a domain in the form of address.Domain if it is spelled in the
// letters that it has in DNS; empty for what a resolver might read as another name
// and Postfix compares as it stands (other dots, wide letters).
func exactDomain(s string) string {
	d := address.Domain(s)
	if strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0 {
		return d
	}
	u, err := idna.Lookup.ToUnicode(d)
	if err != nil || u != strings.ToLower(strings.TrimSuffix(s, ".")) {
		return ""
	}
	return d
}

// patternOwner is whom a pattern of regexp_table(5) is for: the one address or
// domain that it matches, if it says that literally, else everybody.
func patternOwner(key string) string {
	expression := key
	if len(key) > 1 && strings.IndexByte("/|", key[0]) >= 0 {
		if end := strings.LastIndexByte(key, key[0]); end > 0 {
			expression = key[1:end]
		}
	}
	re, err := syntax.Parse(expression, syntax.Perl&^syntax.OneLine)
	if err != nil || len(expression) > maxPattern {
		return forward.Everybody
	}
	literal, whole := anchored(re.Simplify())
	if whole && strings.Contains(literal, "@") || strings.HasPrefix(literal, "@") {
		return literal
	}
	return forward.Everybody
}

// maxPattern bounds the patterns that are looked into, in octets.
const maxPattern = 1024

// anchored takes "^literal$" apart, whole, and "literal$" or "^.*literal$", not
// whole; empty: another pattern.
func anchored(re *syntax.Regexp) (literal string, whole bool) {
	parts := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		parts = re.Sub
	}
	var text strings.Builder
	begins, ends := false, false
	for n, part := range parts {
		for part.Op == syntax.OpCapture {
			part = part.Sub[0]
		}
		switch part.Op {
		case syntax.OpBeginLine, syntax.OpBeginText:
			begins = n == 0
		case syntax.OpEndLine, syntax.OpEndText:
			ends = n == len(parts)-1
		case syntax.OpLiteral:
			text.WriteString(string(part.Rune))
		case syntax.OpStar, syntax.OpPlus:
			if text.Len() > 0 {
				return "", false
			}
			begins = false
		default:
			return "", false
		}
	}
	if !ends {
		return "", false
	}
	return text.String(), begins
}

// reference is what only a delivery or a match fills in: $user, ${extension?x},
// $(home), $1.
var reference = regexp.MustCompile(`\$(?:[A-Za-z0-9_]+|\{[^{}]*\}|\([^()]*\))`)

// unknownParts puts forward.Unknown in place of what only a delivery fills in.
func unknownParts(value string) (text string, dynamic bool) {
	text = reference.ReplaceAllString(value, forward.Unknown)
	return strings.ReplaceAll(text, "$$", "$"), text != value
}

// bounded cuts a target that is longer than anybody needs, and says so.
func bounded(r forward.Rule) forward.Rule {
	if len(r.Target) > forward.MaxTarget {
		r.Target = strings.ToValidUTF8(r.Target[:forward.MaxTarget], "")
		r.Broken = "longer than any address"
	}
	return r
}
