// Package address reads mail addresses as a mail server sees them, and knows
// the forms in which one's own address legitimately appears: with a tag, a
// BATV signature, as VERP, as a list's bounce address, as SRS.
//
// It is pure and takes hostile input. What it cannot read is not an address;
// it never guesses a domain.
package address

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Address is a mailbox: RFC 5321 §4.1.2. Local keeps its case and has no
// quotes; Domain is lower case, in A-labels, without a trailing dot. The zero
// value is the null reverse-path.
type Address struct{ Local, Domain string }

// maxLength is twice what a path may have (RFC 5321 §4.5.3.1.3), for the sake
// of rewritten addresses; longer ones are no addresses.
const maxLength = 512

// Parse reads an address without brackets, as MTAs hand it over. False: there
// is no domain, no local part, or something that no address has. A source
// route is dropped (RFC 5321 §4.1.1.3: it must be accepted and ignored).
func Parse(s string) (Address, bool) {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "@") {
		_, rest, ok := strings.Cut(s, ":")
		if !ok {
			return Address{}, false
		}
		s = rest
	}
	at := strings.LastIndexByte(s, '@')
	if len(s) > maxLength || at <= 0 || hasControl(s) {
		return Address{}, false
	}
	// RFC 5322 §4.4: white space around the @ means nothing.
	a := Address{Local: unquote(strings.TrimSpace(s[:at])), Domain: Domain(strings.TrimSpace(s[at+1:]))}
	return a, a.Local != "" && a.Domain != ""
}

// Domain brings a domain into the form in which domains are compared: lower
// case, A-labels, no trailing dot. Empty if it is none. A domain that IDNA
// refuses stays as it is, in lower case: it compares, and resolves nowhere.
func Domain(s string) string {
	s = strings.ToLower(s)
	if !isASCII(s) {
		if a, err := idna.Lookup.ToASCII(s); err == nil {
			s = a // IDNA knows more dots than one, so the last goes after it
		}
	}
	s = strings.TrimSuffix(s, ".")
	if hasControl(s) || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsSpace) || strings.ContainsAny(s, "<>,;\"()@") || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
		return ""
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// unquote takes the quotes of RFC 5321 §4.1.2 off a local part: "a b"@x and
// a\ b@x are one mailbox.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Key is the address for comparing: all lower case. Local parts that differ in
// case alone are one person's on every system our users run.
func (a Address) Key() string {
	if a == (Address{}) {
		return ""
	}
	return strings.ToLower(a.Local) + "@" + a.Domain
}

// String is the address in the form that Parse reads: a local part with
// something special in it stands in quotes.
func (a Address) String() string {
	if a == (Address{}) {
		return "<>"
	}
	local := a.Local
	if strings.ContainsAny(local, specials) || strings.TrimSpace(local) != local {
		local = `"` + quoter.Replace(local) + `"`
	}
	return local + "@" + a.Domain
}

// specials are what RFC 5322 §3.2.3 keeps out of an unquoted local part.
const specials = " ()<>[]:;@\\,\""

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
