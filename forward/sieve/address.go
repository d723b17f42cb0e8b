package sieve

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"relayguard/forward"
)

// Address is the address that Pigeonhole takes from a redirect or notification:
// "Name <a@B.test>", comments and white space are accepted (RFC 5322), a bare
// local part is not. Its domain is in lower case (ASCII), its local part quoted if it
// must be. Parts that are forward.Unknown stay.
func Address(s string) (string, error) {
	p := addressParser{in: s}
	local, domain, err := p.mailbox()
	if err == nil && p.at < len(s) {
		err = errors.New("it ends in invalid characters")
	}
	if err == nil && (local == "" || domain == "") {
		err = errors.New("local part or domain is missing")
	}
	if err != nil {
		return "", fmt.Errorf("address %s: %w", shorten(s), err)
	}
	return quoteLocal(local) + "@" + mapASCII(domain, lower), nil
}

func shorten(s string) string {
	const enough = 120
	if len(s) > enough {
		s = s[:enough] + "..."
	}
	return strconv.QuoteToASCII(s)
}

func quoteLocal(local string) string {
	plain := true
	for atom := range strings.SplitSeq(local, ".") {
		plain = plain && atom != ""
		for i := range len(atom) {
			plain = plain && isAtom(atom[i])
		}
	}
	if plain {
		return local
	}
	return `"` + quoteOctets(local, `"\`) + `"`
}

// addressParser reads the part of RFC 5322 that Pigeonhole reads.
type addressParser struct {
	in string
	at int
}

func (p *addressParser) peek() int {
	if p.at < len(p.in) {
		return int(p.in[p.at])
	}
	return -1
}

// isAtom: atext of RFC 5322, and whatever is not ASCII.
func isAtom(c byte) bool {
	return c >= 0x80 || isDigit(int(c)) || isAlpha(int(c)) || strings.IndexByte("!#$%&'*+-/=?^`{|}~", c) >= 0
}

func (p *addressParser) mailbox() (local, domain string, err error) {
	p.skip()
	if p.at == len(p.in) {
		return "", "", errors.New("it is empty")
	}
	start := p.at
	if p.peek() != '<' && !p.phrase() || p.peek() != '<' {
		p.at = start
		return p.addrSpec()
	}
	p.at++
	p.skip()
	local, domain, err = p.addrSpec()
	if err != nil {
		return local, domain, err
	}
	if p.peek() != '>' {
		return local, domain, errors.New("'>' is missing")
	}
	p.at++
	p.skip()
	return local, domain, nil
}

// skip passes white space and comments.
func (p *addressParser) skip() {
	for {
		switch p.peek() {
		case ' ', '\t', '\r', '\n':
			p.at++
		case '(':
			if !p.comment() {
				return
			}
		default:
			return
		}
	}
}

// comment passes one, with those in it; without an end it is none.
func (p *addressParser) comment() bool {
	depth := 0
	for i := p.at; i < len(p.in); i++ {
		switch p.in[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				p.at = i + 1
				return true
			}
		}
	}
	return false
}

func (p *addressParser) phrase() bool {
	if p.peek() == '.' {
		return false
	}
	words := 0
	for {
		switch c := p.peek(); {
		case c == '"':
			if _, ok := p.quoted(); !ok {
				return false
			}
		case c == '.' && words > 0:
			p.at++
			p.skip()
		case c >= 0 && isAtom(byte(c)):
			p.atom()
		default:
			return words > 0
		}
		words++
	}
}

func (p *addressParser) atom() string {
	start := p.at
	for p.at < len(p.in) && isAtom(p.in[p.at]) {
		p.at++
	}
	out := p.in[start:p.at]
	p.skip()
	return out
}

func (p *addressParser) quoted() (string, bool) {
	var out []byte
	for i := p.at + 1; i < len(p.in); i++ {
		switch c := p.in[i]; c {
		case '"':
			p.at = i + 1
			p.skip()
			return string(out), true
		case '\\':
			if i++; i < len(p.in) {
				out = append(out, p.in[i])
			}
		case '\r', '\n':
		default:
			out = append(out, c)
		}
	}
	return "", false
}

func (p *addressParser) addrSpec() (local, domain string, err error) {
	if p.peek() == '"' {
		var ok bool
		if local, ok = p.quoted(); !ok {
			return "", "", errors.New("a quote without end")
		}
	} else {
		local = p.dotted(true)
	}
	if !printable(local) {
		return local, "", errors.New("invalid local part")
	}
	if p.peek() != '@' {
		return local, "", errors.New("'@' is missing")
	}
	p.at++
	p.skip()
	if p.peek() == '[' {
		return p.literal(local)
	}
	domain = p.dotted(false)
	if domain == "" || strings.HasPrefix(domain, ".") {
		return local, domain, errors.New("invalid or missing domain")
	}
	return local, domain, nil
}

// dotted reads atoms and dots; several dots in a row only where loose.
func (p *addressParser) dotted(loose bool) string {
	var out strings.Builder
	for {
		switch c := p.peek(); {
		case c == '.':
			p.at++
			if !loose {
				p.skip()
			}
			out.WriteByte('.')
		case c >= 0 && isAtom(byte(c)):
			text := out.String()
			if text != "" && !strings.HasSuffix(text, ".") {
				return text
			}
			out.WriteString(p.atom())
		default:
			return out.String()
		}
	}
}

func (p *addressParser) literal(local string) (string, string, error) {
	end := strings.IndexByte(p.in[p.at:], ']')
	if end < 0 {
		return local, "", errors.New("a domain literal without end")
	}
	domain := p.in[p.at : p.at+end+1]
	p.at += end + 1
	p.skip()
	return local, domain, nil
}

// printable: ASCII without controls, or unknown.
func printable(local string) bool {
	for _, c := range local {
		if (c < 0x20 || c > 0x7e) && string(c) != forward.Unknown {
			return false
		}
	}
	return true
}
