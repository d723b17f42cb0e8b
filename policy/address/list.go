package address

import (
	"slices"
	"strings"
)

// maxList bounds the addresses read from one field: nobody writes a message in
// the name of more people.
const maxList = 64

// List reads the addresses of a From, Sender or To field (RFC 5322 §3.4), value
// unfolded. It takes what mail programs really write, not only what the grammar
// allows: bare non-ASCII names, missing quotes, groups, obsolete routes. Where
// readers differ about which address is meant (one stands for the name of
// another or of a group, or in a second pair of brackets), it lists all that one
// might show. ok is false if some part with an @ in it could not be read, or
// there was too much.
func List(value string) (all []Address, ok bool) {
	ok = true
	p := listParser{s: value}
	for !p.done() {
		text, angles := p.mailbox()
		for i, s := range append(angles, bare(text)...) {
			a, good := Parse(s)
			aside := i >= len(angles) && (len(angles) > 0 || p.group)
			ok = ok && (good || aside || !strings.Contains(s, "@"))
			if good && !(aside && slices.Contains(all, a)) {
				all = append(all, a)
			}
			if len(all) > maxList {
				return all[:maxList], false
			}
		}
	}
	return all, ok
}

// bare finds the addresses in text outside brackets: the text as a whole, or
// its words with an @, for "Taro taro@example.jp".
func bare(text string) []string {
	if a, ok := Parse(text); ok && !strings.Contains(a.Local, " ") || strings.Contains(text, `"`) {
		return []string{text}
	}
	words := strings.Fields(text)
	return slices.DeleteFunc(words, func(w string) bool { return !strings.Contains(w, "@") })
}

// listParser cuts a field at its top-level commas and group marks.
type listParser struct {
	s     string
	at    int
	group bool // what mailbox returned is the name of a group
}

func (p *listParser) done() bool { return p.at >= len(p.s) }

// mailbox reads up to the next separator: the bare text with comments and
// quoted names left out, and what stood in angle brackets.
func (p *listParser) mailbox() (text string, angles []string) {
	var b strings.Builder
	p.group = false
	for !p.done() {
		switch c := p.s[p.at]; c {
		case ',', ';':
			p.at++
			return b.String(), angles
		case ':': // the name of a group ends, its members follow
			p.at++
			p.group = true
			return b.String(), angles
		case '[': // user@[IPv6:2001:db8::1]
			if strings.HasSuffix(b.String(), "@") {
				b.WriteString(p.literal())
			} else {
				b.WriteByte(c)
				p.at++
			}
		case '(':
			p.comment()
		case '"':
			quoted := p.quoted()
			if !p.done() && (p.s[p.at] == '@' || p.s[p.at] == '.') {
				b.WriteString(quoted) // a quoted local part
			}
		case '<':
			angles = append(angles, p.angle())
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return b.String(), angles
}

// literal returns a domain literal with its brackets.
func (p *listParser) literal() string {
	start := p.at
	if end := strings.IndexByte(p.s[start:], ']'); end >= 0 {
		p.at += end + 1
	} else {
		p.at = len(p.s)
	}
	return p.s[start:p.at]
}

// comment skips (nested (comments)).
func (p *listParser) comment() {
	for depth := 0; !p.done(); p.at++ {
		switch p.s[p.at] {
		case '\\':
			p.at++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				p.at++
				return
			}
		}
	}
}

// quoted returns a quoted string with its quotes.
func (p *listParser) quoted() string {
	start := p.at
	for p.at++; !p.done(); p.at++ {
		switch p.s[p.at] {
		case '\\':
			p.at++
		case '"':
			p.at++
			return p.s[start:p.at]
		}
	}
	p.at = len(p.s)
	return p.s[start:]
}

// angle returns what stands between < and >; a quoted local part may hold a >.
func (p *listParser) angle() string {
	start := p.at + 1
	for p.at = start; !p.done(); {
		switch p.s[p.at] {
		case '>':
			p.at++
			return p.s[start : p.at-1]
		case '"':
			p.quoted()
		default:
			p.at++
		}
	}
	return p.s[start:]
}
