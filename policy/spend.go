package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// spend charges the message to its buckets, all or none, and judges it by them.
// It comes last: what another rule stops is not charged. Held: what passes the
// limits goes into the hold queue, until start.
func (p *Policy) spend(ctx context.Context, now time.Time, s *Switches, m *Message, d *Decision, held bool) {
	l := p.Limits
	if l == nil || p.signer() != nil {
		return
	}
	if kind, _ := d.Origin.Account(); kind == origin.KindUnknown && !(m.Local() && d.Origin.Template.Known()) {
		return
	}
	t := l.begin(now, s, m, &d.Origin)
	defer l.end(t)
	for _, to := range m.RcptTo {
		weight := 1
		if l.opt.Expansions != nil {
			weight = max(l.opt.Expansions.Of(to), 1)
			d.Counted += weight - 1
		}
		if inside := p.Inside.Has(to); !inside || !exemptInside(m, to) {
			t.rcpts = append(t.rcpts, recipient{to: to, weight: weight, inside: inside})
			t.names = append(t.names, to)
		}
	}
	if len(t.rcpts) == 0 {
		return
	}
	try := l.opt.Retries.Begin(now, t.keys.stable(), m.MessageID, m.QueueID, m.Digest, t.names)
	defer try.Cancel() // does nothing after Keep
	for i, free := range try.Free {
		t.rcpts[i].free = free
	}
	d.Retry = len(t.rcpts) - try.Charged()
	l.prepare(t)
	if p.Attribution != nil && p.Attribution.Sites != nil {
		if err := l.findUnlabelled(ctx, p.Attribution.Sites, t); err != nil {
			p.judge(d, unasked(m, err))
			return
		}
		if t.keys.unlabelled != "" {
			p.Attribution.Sites.Admit(now, d.Origin.Site.Value, Unlabelled)
		}
	}
	if l.decide(ctx, p, m, d, t) {
		try.Keep()
		if held && ctx.Err() == nil { // the queue has it: who repeats it sends another
			l.opt.Retries.Queued(m.QueueID)
		}
	}
}

// decide asks the limits and judges by what they say. True: nothing stops the
// message, and it is charged.
func (l *Limits) decide(ctx context.Context, p *Policy, m *Message, d *Decision, t *taking) bool {
	l.charges(t, false)
	if t.tooMany != "" {
		p.judgeAs(d, tooManyCharges(m, t))
		return false
	}
	d.Bounces = t.bounces()
	if len(t.step.Charges) == 0 && (!l.knows || t.free) {
		return true
	}
	if err := l.take(ctx, t); err != nil {
		p.judge(d, unasked(m, err))
		return false
	}
	counters := t.counters()
	d.Near = t.near(counters)
	d.Counters = shown(counters)
	all := t.objections(m)
	stopped := false
	for i := range all {
		p.judgeAs(d, &all[i])
		stopped = stopped || all[i].Verdict.Stops()
	}
	if p.Attribution != nil && p.Attribution.Sites != nil {
		p.Attribution.Sites.noteShut(t)
	}
	if stopped {
		l.void(t)
		if d.Waits, d.Near = t.waits(all), nil; d.Waits != nil {
			d.Waits.Counted = d.Counted
		}
		return false
	}
	if !t.out.Taken && !t.free {
		d.Near = nil
		p.judge(d, unasked(m, errors.New("the store stops the message, and no limit does")))
		return false
	}
	if !t.free {
		l.note(t)
	}
	d.Charges = t.grows()
	return true
}

// Buckets are the values of the deciding rule's buckets, if that is a limit: those
// that have no room or are shut, and those in whose lines the message waits.
func (d *Decision) Buckets() []string {
	var all []string
	add := func(rule, value string) {
		if rule == d.Rule && !slices.Contains(all, value) {
			all = append(all, value)
		}
	}
	for i := range d.Counters {
		if c := &d.Counters[i]; c.Over && !c.Soft {
			add(c.Limit, c.Key)
		}
	}
	if d.Waits != nil {
		for _, k := range d.Waits.Keys {
			add(k.Limit, k.Value)
		}
	}
	return all
}

// unasked is what becomes of a message while nobody knows how the limits stand.
func unasked(m *Message, err error) *Finding {
	f := &Finding{RuleLimits, Defer, "the limits cannot be asked: " + err.Error()}
	if m.Local() {
		f.Verdict = Hold
	}
	return f
}

// take charges everything in one step. What is a free retry only asks; and so
// does what has to wait behind other mail, unless it is abuse: that is to shut.
func (l *Limits) take(ctx context.Context, t *taking) error {
	if t.free {
		return l.opt.Store.Peek(ctx, t.now, &t.step, &t.out)
	}
	if err := l.useBulk(ctx, t, t.bulkAmount()); err != nil {
		return err
	}
	return l.spendUnlessBehind(ctx, t)
}

func (l *Limits) spendUnlessBehind(ctx context.Context, t *taking) error {
	if l.findQueue(t); len(t.behind) > 0 {
		if err := l.opt.Store.Peek(ctx, t.now, &t.step, &t.out); err != nil || !t.abused() {
			return err
		}
	}
	if err := l.opt.Store.Spend(ctx, t.now, &t.step, &t.out); err != nil {
		return err
	}
	if !t.out.Taken && t.bulkOver() {
		t.asUsual()
		return l.spendUnlessBehind(ctx, t)
	}
	if t.out.Taken {
		t.behind = t.behind[:0] // it was abuse a moment ago, and is charged now
	} else if t.retriesOnly() {
		return l.opt.Store.Spend(ctx, t.now, &t.step, &t.out)
	}
	return nil
}

// waiting is a charge before which other mail waits.
type waiting struct{ charge, messages int }

// findQueue finds the lines in which the message has to wait: a volume limit that
// holds lets nothing new pass what it holds already of the same account.
func (l *Limits) findQueue(t *taking) {
	t.behind = t.behind[:0]
	if l.opt.Lines == nil || l.observe {
		return
	}
	for i, r := range t.rules {
		c := &t.step.Charges[i]
		if r.tells || r.Then != Hold || r.Kind != limit.Volume || t.retry[i] || soft(c.Windows) {
			continue
		}
		if n := l.opt.Lines.Behind(c.Key, t.keys.stable()); n > 0 {
			t.behind = append(t.behind, waiting{i, n})
		}
	}
}

func soft(windows []limit.Window) bool {
	return !slices.ContainsFunc(windows, func(w limit.Window) bool { return !w.Soft })
}

// abused reports whether the message is over a limit that shuts.
func (t *taking) abused() bool {
	return slices.ContainsFunc(t.out.Uses, func(u limit.Use) bool {
		c := &t.step.Charges[u.Charge]
		return u.Over && !u.Window.Soft && c.Kind == limit.Abuse && !c.Tells
	})
}

// retriesOnly reports whether nothing but free retries found no room, of which
// they need none, and sees to it that they stop nothing.
func (t *taking) retriesOnly() bool {
	some := false
	for _, u := range t.out.Uses {
		switch c := &t.step.Charges[u.Charge]; {
		case !u.Over || u.Window.Soft || c.Tells:
		case !t.retry[u.Charge] || t.out.Latched[u.Charge]:
			return false
		default:
			some = true
		}
	}
	for i := range t.step.Charges {
		t.step.Charges[i].Tells = t.step.Charges[i].Tells || some && t.retry[i]
	}
	return some
}

// fits reports whether a charge that stops nothing was taken by itself.
func (t *taking) fits(charge int) bool {
	return !t.out.Latched[charge] && !slices.ContainsFunc(t.out.Uses, func(u limit.Use) bool {
		return u.Charge == charge && u.Over && !u.Window.Soft
	})
}

// grows are the charges that are more for a message that turns out to have more
// recipients.
func (t *taking) grows() []limit.Charge {
	all := make([]limit.Charge, 0, len(t.step.Charges))
	for i := range t.step.Charges {
		if c := &t.step.Charges[i]; c.Counts == limit.Recipients && (!c.Tells || t.fits(i)) {
			all = append(all, *c)
		}
	}
	return all
}

// bounces are the charges of each recipient that is bounced.
func (t *taking) bounces() []limit.Charge {
	var all []limit.Charge
	for i, c := range t.step.Charges {
		if t.rules[i].Counts == limit.Bounces {
			c.Amount = 1
			all = append(all, c)
		}
	}
	return all
}

// full refuses a recipient if the message is refused whatever follows: one
// recipient is too many already, and the limit refuses, or there is no more
// room for what it would hold. It may still be a free retry, for which there is
// no need of room: that can wait, but is not rejected before its end is there,
// unless the bucket is shut for it, too.
func (p *Policy) full(ctx context.Context, now time.Time, m *Message, d *Decision, to string) *objection {
	l := p.Limits
	if kind, _ := d.Origin.Account(); l == nil || l.observe || kind == origin.KindUnknown {
		return nil
	}
	noRoom := p.noMoreRoom(&d.Origin)
	if !noRoom && !l.refuses {
		return nil // the usual case: what does not fit is held at the end
	}
	t := l.begin(now, p.Switches.Load(), m, &d.Origin)
	defer l.end(t)
	t.rcpts = append(t.rcpts, recipient{to: to, weight: 1, inside: p.Inside.Has(to)})
	l.prepare(t)
	l.charges(t, true)
	if !noRoom { // what would be held is held at the end, and need not be asked about now
		t.keepCharges(func(i int) bool { return t.rules[i].Then >= Defer })
	}
	if len(t.step.Charges) == 0 || l.useBulk(ctx, t, t.bulkAmount()) != nil {
		return nil
	}
	if err := l.opt.Store.Peek(ctx, now, &t.step, &t.out); err != nil {
		return nil
	}
	l.findQueue(t)
	all := t.objections(m)
	for i := range all {
		f := &all[i]
		if f.Verdict == Reject && m.MailFrom == "" {
			f.Verdict = Hold // as at the end: a null sender's mail is never rejected
		}
		switch {
		case f.Verdict == Defer, f.Verdict == Reject && t.shut(f.Rule):
			d.Counters = t.counters()
			return f
		case f.Verdict == Hold && noRoom:
			d.Counters = t.counters()
			return &objection{Finding: Finding{RuleHoldCap, Defer, fmt.Sprintf("%s: %s; and as much as may be held is held already", f.Rule, f.Reason)}}
		}
	}
	return nil
}

// shut reports whether a rule's bucket was shut before, if out is the answer to
// a charge of one: every window has room for one sooner or later.
func (t *taking) shut(rule string) bool {
	return slices.ContainsFunc(t.out.Uses, func(u limit.Use) bool { return u.Never && t.rules[u.Charge].Name == rule })
}
