package policy

import (
	"context"
	"errors"
	"slices"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// Early decides about mail that somebody is about to hand in by sendmail(1),
// before the MTA has it: so that it can be refused to his face, where at its end
// it could only be held or bounced. It defers what is suspended or meets a bucket
// that is shut, and what is denied for a term; it rejects what is denied for good.
// All else is for Message to say, the red switch, too.
//
// Of the message there are its header, all of its recipients, and in Call how it
// is handed in. Nothing is charged and nothing remembered. What Message would let
// pass is not refused: where the two may read the message differently, or the MTA
// may change it, Early says accept.
func (p *Policy) Early(ctx context.Context, now time.Time, m *Message) Decision {
	sure := p.foresee(now, m)
	m.MessageID, _ = m.Header.Get("Message-ID")
	if froms, _ := fromAddresses(&m.Header); len(froms) > 0 {
		m.HeaderFrom = froms[0].String()
	}
	d := Decision{Verdict: Accept, Counted: len(m.RcptTo), Origin: p.Finder.Find(&m.Evidence)}
	if len(m.RcptTo) == 0 || m.RcptMore > 0 || m.Header.Truncated() {
		return d
	}
	o := &d.Origin
	if a := p.Attribution; a != nil && a.Sites != nil && o.Site.Proven() && o.Plugin.Proven() && !a.Sites.admits(now, o.Site.Value, o.Plugin.Value) {
		o.Plugin.Confidence = origin.Claimed
	}
	s := p.Switches.Load()
	for _, to := range m.RcptTo {
		if sw := s.Denied(now, m, o, to); sw != nil {
			f := denied(sw)
			if !sw.Until.IsZero() || m.MailFrom == "" { // a null sender is never rejected
				f.Verdict = Defer
			}
			p.judge(&d, f)
			break
		}
	}
	if p.exempt(m) {
		return d
	}
	p.judge(&d, suspended(p.suspension(s, now, o), Defer))
	if f := p.shut(s, now, m, o); f != nil {
		f.Verdict = Defer
		p.judgeOrder(&d, f)
	}
	if !d.Verdict.Stops() {
		p.shutBuckets(ctx, now, s, m, &d, sure)
	}
	return d
}

// foresee is attribute of a message that is still to come. Sure: what is not
// known of its origin now, its end does not tell either.
func (p *Policy) foresee(now time.Time, m *Message) (sure bool) {
	a := p.Attribution
	if a == nil {
		return true
	}
	sure = true
	text := subject(&m.Header)
	a.placed(m)
	if a.Stamps != nil && m.Header.Count(stamp.Header) > 0 {
		s, err := a.Stamps.Read(now, m.Header.Values(stamp.Header), &stamp.Mail{UID: m.UID, RcptTo: m.RcptTo, Subject: text})
		switch {
		case err == nil:
			a.stamped(m, &s)
		case errors.Is(err, stamp.ErrRecipients), errors.Is(err, stamp.ErrSubject), errors.Is(err, stamp.ErrReplay):
			m.Site, m.SiteConfidence = "", origin.Unknown // it may be believed yet, for another site of this account
			sure = false
		}
	}
	p.owned(m)
	if a.Fingerprints != nil {
		m.Call.Software = a.Fingerprints.Find(&m.Header, text, nil)
	}
	return sure
}

// shutBuckets judges by the limits of abuse whose buckets are shut, and stay so
// until somebody resumes them.
func (p *Policy) shutBuckets(ctx context.Context, now time.Time, s *Switches, m *Message, d *Decision, sure bool) {
	l := p.Limits
	if l == nil || l.observe || p.signer() != nil {
		return
	}
	t := l.begin(now, s, m, &d.Origin)
	defer l.end(t)
	for _, to := range m.RcptTo {
		if inside := p.Inside.Has(to); !inside || !exemptInside(m, to) {
			t.rcpts = append(t.rcpts, recipient{to: to, weight: 1, inside: inside})
		}
	}
	l.prepare(t)
	if a := p.Attribution; a != nil && a.Sites != nil && sure {
		if l.findUnlabelled(ctx, a.Sites, t) != nil {
			return
		}
	}
	l.charges(t, true)
	t.keepCharges(func(i int) bool {
		return t.step.Charges[i].Kind == limit.Abuse && !t.step.Charges[i].Tells && !t.rules[i].claimed()
	})
	if len(t.step.Charges) == 0 || l.opt.Store.Peek(ctx, now, &t.step, &t.out) != nil {
		return
	}
	shut, err := l.wereShut(ctx, t)
	if err != nil {
		return
	}
	counters := t.counters()
	for i := range t.out.Uses {
		if u := &t.out.Uses[i]; shut[u.Charge] && u.Over {
			d.Counters = append(d.Counters, counters[i])
		}
	}
	d.Counters = shown(d.Counters)
	for i := range t.out.Uses {
		u := &t.out.Uses[i]
		if !shut[u.Charge] || !u.Over || u.Window.Soft {
			continue
		}
		shut[u.Charge] = false // one finding of each
		f := t.objection(m, u).Finding
		f.Verdict = Defer
		p.judge(d, &f)
	}
}

// wereShut says of which charges the bucket was shut before; one that this
// message alone would shut is not.
func (l *Limits) wereShut(ctx context.Context, t *taking) ([]bool, error) {
	shut := slices.Clone(t.out.Latched)
	for i := range t.out.Uses {
		if u := &t.out.Uses[i]; !u.Never { // so is every window of a shut bucket that does not know all
			shut[u.Charge] = false
		}
	}
	if !slices.Contains(shut, true) {
		return shut, nil
	}
	asks := limit.Step{Known: limit.Known{Account: t.keys.stable()}}
	for i := range t.step.Charges {
		c := t.step.Charges[i]
		c.Amount, c.Items = 0, nil
		asks.Charges = append(asks.Charges, c)
	}
	var out limit.Outcome
	if err := l.opt.Store.Peek(ctx, t.now, &asks, &out); err != nil {
		return nil, err
	}
	for i := range shut {
		shut[i] = shut[i] && out.Latched[i]
	}
	return shut, nil
}

// claimed reports whether the limit counts by what the sender writes, which the
// MTA may change: by the envelope sender or From.
func (r *limitRule) claimed() bool {
	return slices.ContainsFunc(r.Per, func(p limit.Per) bool {
		return p == limit.MailFrom || p == limit.SenderDomain || p == limit.FromDomain
	})
}
