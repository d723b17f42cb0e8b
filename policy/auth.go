package policy

import "relayguard/policy/origin"

// auth says what is wrong with this recipient if nobody answers for the
// message; nil if nothing is.
func (p *Policy) auth(m *Message, o *origin.Origin, to string) *Finding {
	switch m.Role {
	case Submission:
		if !o.Login.Known() {
			return &Finding{RuleAuth, Reject, "no AUTH on a submission listener"}
		}
	case Relay:
		if kind, _ := o.Account(); kind == origin.KindUnknown && !p.exemptRecipient(m, to) {
			return &Finding{RuleAuth, Reject, "neither AUTH nor an address in a trusted network"}
		}
	case Local:
		// Its process may have gone before the kernel was asked, which must not be a
		// way round the limits. Sendmail's submission program tries again.
		if kind, _ := o.Account(); kind == origin.KindUnknown && m.BySMTP && !m.Token {
			return &Finding{RuleAuth, Defer, "the account behind a connection from this very machine cannot be told"}
		}
	case Inbound:
		// Strangers are the MTA's to judge. But one who writes to somebody
		// who is not ours relays through us, which the MTA should not let.
		if kind, _ := o.Account(); kind == origin.KindUnknown && len(p.Inside) > 0 && !p.Inside.Has(to) {
			if m.FromHere { // the MTA relays for its own machine's addresses, as for loopback
				return &Finding{RuleAuth, Defer, "the account behind a connection from this very machine cannot be told"}
			}
			return &Finding{RuleAuth, Tell, "a stranger writes to the outside through an inbound listener"}
		}
	}
	return nil
}

// messageAuth asks auth about every recipient once more: an answer at RCPT may
// have been the MTA's default, and in the phase observe only told.
func (p *Policy) messageAuth(m *Message, o *origin.Origin) *Finding {
	for _, to := range m.RcptTo {
		if f := p.auth(m, o, to); f != nil {
			return f
		}
	}
	return nil
}

// unsaid is what becomes of mail that Sendmail's submission program hands on without
// a word about who ran it: somebody of this machine, perhaps one who is suspended. It
// waits for an admin to look.
func (p *Policy) unsaid(m *Message) *Finding {
	if !m.unsaid || p.exempt(m) {
		return nil
	}
	return &Finding{RuleAuth, Hold, "Sendmail's submission program hands it on and does not say who handed it in"}
}
