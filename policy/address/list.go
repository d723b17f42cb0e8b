package address

import "strings"

// maxList bounds the addresses read from one field: nobody writes a message in
// the name of more people.
const maxList = 64

// List reads the addresses of a From, Sender or To field (RFC 5322 §3.4), value
// unfolded. It takes what mail programs really write, not only what the grammar
// allows: bare non-ASCII names, missing quotes, groups, obsolete routes. ok is
// false if some part with an @ in it could not be read, or there was too much.
func List(value string) (all []Address, ok bool) {
	ok = true
	p := listParser{s: value}
	for !p.done() {
		text, angle := p.mailbox()
		candidate := text
		if angle != "" {
			candidate = angle
		}
		if candidate = strings.TrimSpace(candidate); candidate == "" {
			continue
		}
		a, good := Parse(candidate)
		switch {
		case good && len(all) == maxList:
			return all, false
		case good:
			all = append(all, a)
		case strings.Contains(candidate, "@"):
			ok = false
		}
	}
	return all, ok
}

// listParser cuts a field at its top-level commas and group marks.
type listParser struct {
	s  string
	at int
}

func (p *listParser) done() bool { return p.at >= len(p.s) }

// mailbox reads up to the next separator: the bare text with comments and
// quoted names left out, and what stood in the last angle brackets.
func (p *listParser) mailbox() (text, angle string) {
	var b strings.Builder
	for !p.done() {
		switch c := p.s[p.at]; c {
		case ',', ';':
			p.at++
			return b.String(), angle
		case ':': // the name of a group ends, its members follow
			p.at++
			b.Reset()
		case '(':
			p.comment()
		case '"':
			quoted := p.quoted()
			if !p.done() && (p.s[p.at] == '@' || p.s[p.at] == '.') {
				b.WriteString(quoted) // a quoted local part
			}
		case '<':
			angle = p.angle()
		default:
			b.WriteByte(c)
			p.at++
		}
	}
	return b.String(), angle
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
