package policy

import (
	"fmt"
	"slices"
	"strings"

	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// RuleForward: mail that somebody inside gets is on its way outside, by a rule
// that nobody approved.
const RuleForward = "forward-outside"

// Forwarding stops mail that a forwarding rule sends outside. It holds and never
// refuses: a refusal would come back to whoever wrote to the inside address. None of
// its functions may wait.
type Forwarding struct {
	// Rules are the known rules by which mail of an owner goes to a target; with owner
	// "" all that lead there. Before Ready they are those of an earlier time.
	Rules func(owner, target string) []ForwardRule
	// Ready reports whether it is known which rules there are: not before the first
	// scan is over.
	Ready func() bool
	// Except reports owners whose forwarded mail goes on.
	Except func(owner string) bool
	// Released reports whether an admin let this message go when it was held under
	// this rule before.
	Released func(m *Message) bool
}

// ForwardRule is a forwarding rule as Forwarding knows it.
type ForwardRule struct {
	ID       string
	Owner    string // whose mail goes by it: an address, a local name, "@domain" or "*"
	Approved bool
	// Blind: it adds recipients that have no original, as tables of BCC do.
	Blind bool
}

// forwarded is what Forwarding finds, about the worst recipient.
func (p *Policy) forwarded(m *Message) *Finding {
	f := p.Forwarding
	if f == nil || m.Role == Inbound || p.own(m) {
		return nil
	}
	var worst *Finding
	for i, to := range m.RcptTo {
		if p.Inside.Has(to) {
			continue
		}
		finding := p.forwardedTo(m, i)
		if finding != nil && (worst == nil || finding.Verdict > worst.Verdict) {
			worst = finding
		}
	}
	if worst != nil && f.Released(m) {
		return nil
	}
	return worst
}

// forwardedTo judges the recipient with that number, who is outside.
func (p *Policy) forwardedTo(m *Message, i int) *Finding {
	f, to := p.Forwarding, m.RcptTo[i]
	w := p.forwarder(m, i)
	if !w.forwarded {
		return nil
	}
	var rules []ForwardRule
	for _, owner := range w.owners {
		rules = append(rules, f.Rules(owner, to)...)
	}
	if len(w.owners) == 0 {
		for _, r := range f.Rules("", to) {
			if r.Blind {
				rules = append(rules, r)
			}
		}
	}
	// Which of several rules it went by, nobody can tell: one that may be is enough.
	for _, r := range rules {
		if r.Approved || f.Except(r.Owner) {
			return nil
		}
	}
	for _, owner := range w.owners {
		if f.Except(owner) {
			return nil
		}
	}
	whose := "somebody inside"
	if len(w.owners) > 0 {
		whose = w.owners[0]
	}
	switch {
	case len(rules) == 0 && !w.proven:
		return nil
	case !f.Ready(): // a new process knows of nothing yet that came while it was away, nor what went
		finding := &Finding{RuleForward, Defer, fmt.Sprintf("mail of %s goes outside, and which forwarding rules there are is not known before the first scan is over", whose)}
		if m.Local() { // nobody would hear that he is to come again
			finding.Verdict = Hold
		}
		return finding
	case len(rules) > 0:
		return &Finding{RuleForward, Hold, fmt.Sprintf("mail of %s goes outside by the forwarding rule %s, which nobody approved", whose, rules[0].ID)}
	}
	return &Finding{RuleForward, Hold, fmt.Sprintf("mail of %s goes outside, and no forwarding rule is known that says so", whose)}
}

// way is how a message may have come to a recipient outside.
type way struct {
	// forwarded: it may have been, so the known rules are asked.
	forwarded bool
	// owners are whose mail it was; none: the message does not tell, and only blind
	// rules count.
	owners []string
	// proven: it was forwarded, whether a rule is known or not.
	proven bool
}

// forwarder tells how the message comes to the recipient with that number.
//
// On the way out of the MTA (the role egress) the original recipient says whose mail
// it was: RFC 3461 §4.2. One outside proves nothing: so does mail of a customer of
// ours who relays. A blind copy names itself and asks for no notices, as does
// anybody's mail who wants none. Where there is no original recipient, a stranger's
// mail that a mailbox of ours has had was forwarded.
//
// Before that, mail that comes back in from a delivery (a pipe, procmail, Sieve)
// carries the mailbox that it was delivered to. But so does a list's post, and what a
// person sends on: that alone is no forwarding.
func (p *Policy) forwarder(m *Message, i int) way {
	owners := p.deliveredTo(m)
	if m.Role != Egress {
		if len(owners) == 0 || m.Login != "" && resent(m) {
			return way{}
		}
		return way{forwarded: true, owners: owners, proven: !p.post(m) && (p.stranger(m.MailFrom) || p.agent(m, owners))}
	}
	var orig Original
	if i < len(m.RcptOrig) {
		orig = m.RcptOrig[i]
	}
	switch {
	case p.Inside.Has(orig.Address):
		return way{forwarded: true, owners: []string{canonical(orig.Address)}, proven: true}
	case orig.Address == "" && len(owners) > 0 && p.stranger(m.MailFrom):
		return way{forwarded: true, owners: owners, proven: true}
	case orig.Silent:
		return way{forwarded: true}
	}
	return way{}
}

// deliveredTo are the inside mailboxes that the message was in last: the mailbox, and
// the address by which it came there.
func (p *Policy) deliveredTo(m *Message) (owners []string) {
	for _, name := range [...]string{"Delivered-To", "X-Original-To"} {
		value, found := m.Header.Get(name)
		if !found || !strings.Contains(value, "@") || !p.Inside.Has(value) {
			continue
		}
		if owner := canonical(value); !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	return owners
}

// stranger reports whether an envelope sender is nobody of ours; the null one is
// whoever's.
func (p *Policy) stranger(from string) bool { return from == "" || !p.Inside.Has(from) }

// resent reports whether a person sent the message on: RFC 5322 §3.6.6. No delivery
// agent writes these fields.
func resent(m *Message) bool {
	for _, name := range [...]string{"Resent-From", "Resent-Sender", "Resent-To", "Resent-Date", "Resent-Message-ID"} {
		if _, found := m.Header.Get(name); found {
			return true
		}
	}
	return false
}

// post reports whether it is a post of a list of ours: RFC 2919, RFC 2369. Its
// bounces come back to us.
func (p *Policy) post(m *Message) bool {
	return !p.stranger(m.MailFrom) && m.Header.Count("List-Id")+m.Header.Count("List-Post") > 0
}

// agent reports whether it looks like what a delivery agent of one of the owners
// sends on in his name, as procmail does: mail that had come from elsewhere, nobody
// logged in for it, and nobody resent it.
func (p *Policy) agent(m *Message, owners []string) bool {
	if m.Login != "" || !m.Local() && !m.here() || resent(m) {
		return false
	}
	from := m.MailFrom // sendmail(1) may say the account alone
	if a, ok := address.Parse(from); ok {
		from = a.Local
	}
	account := ""
	if m.UID != origin.NoUID && p.Finder.UserName != nil {
		account = p.Finder.UserName(m.UID)
	}
	received := m.Header.Count("Received") > 0
	if m.BySMTP { // one is the submission program's own
		received = m.Header.Count("Received") > 1
	}
	for _, owner := range owners {
		// procmail's is of account@myorigin, whichever of our domains the mail was for.
		local, _, _ := strings.Cut(owner, "@")
		local = p.untagged(local)
		if strings.EqualFold(p.untagged(from), local) && (received || strings.EqualFold(account, local)) {
			return true
		}
	}
	return false
}

// untagged is a local part without its extension.
func (p *Policy) untagged(local string) string {
	if i := strings.IndexAny(local, p.Addresses.Delimiters); i > 0 {
		return local[:i]
	}
	return local
}

func canonical(s string) string {
	if a, ok := address.Parse(s); ok {
		return a.Key()
	}
	return strings.ToLower(s)
}

// Original is what the ESMTP arguments of a RCPT command say of where it comes
// from: RFC 3461 §4.1, §4.2.
type Original struct {
	Address string // ORCPT, of type rfc822, decoded; "": none
	Silent  bool   // NOTIFY=NEVER
}

// maxOriginal is RFC 3461 §4.2's bound of an ORCPT parameter.
const maxOriginal = 500

// OriginalOf reads the arguments of a RCPT command. What it cannot read is none.
func OriginalOf(args []string) Original {
	var o Original
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch strings.ToUpper(name) {
		case "NOTIFY":
			o.Silent = strings.EqualFold(value, "NEVER")
		case "ORCPT":
			kind, text, _ := strings.Cut(value, ";")
			if strings.EqualFold(kind, "rfc822") && len(value) <= maxOriginal {
				o.Address, _ = decodeXtext(text)
			}
		}
	}
	return o
}

// decodeXtext is RFC 3461 §4: +XX is an octet.
func decodeXtext(s string) (string, bool) {
	if !strings.Contains(s, "+") {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		high, ok := hexDigit(s[i+1])
		low, ok2 := hexDigit(s[i+2])
		if !ok || !ok2 {
			return "", false
		}
		b.WriteByte(high<<4 | low)
		i += 2
	}
	return b.String(), true
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
