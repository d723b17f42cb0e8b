package policy

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Waits is what a message takes that waits for room. It is kept with its hold.
type Waits struct {
	Keys       []limit.Key   `json:"keys"`       // where there was none: Lines
	Charges    []WaitCharge  `json:"charges"`    // all of the message
	Recipients int64         `json:"recipients"` // what a bulk order is charged
	Size       int64         `json:"size,omitempty"`
	Counted    int           `json:"counted,omitempty"` // that of Decision
	Known      limit.Known   `json:"known,omitzero"`
	Origin     origin.Origin `json:"origin"`
}

// WaitCharge is a charge without its windows: those in force when it is paid count.
type WaitCharge struct {
	Limit      string       `json:"limit"`
	Value      string       `json:"value"`
	Unit       string       `json:"unit,omitempty"` // of Amount or Items; empty: that of the limit
	Amount     int64        `json:"amount,omitempty"`
	Items      []limit.Item `json:"items,omitempty"`
	Recipients int64        `json:"recipients,omitempty"` // that the limit is about and that are no free retries
}

// in is what the message takes if its limit counts in this unit now. Recipients
// that nobody remembers by who they are take nothing.
func (c *WaitCharge) in(unit limit.Unit, w *Waits) (amount int64, items []limit.Item) {
	messages := min(c.Recipients, 1)
	switch {
	case c.Unit == "" || c.Unit == unit.String():
		return c.Amount, c.Items
	case unit == limit.Messages:
		return messages, nil
	case unit == limit.Recipients:
		return c.Recipients, nil
	case unit == limit.Bytes:
		return messages * octets(w.Size), nil
	case unit != limit.Distinct && unit != limit.FirstTime || messages == 0:
		return 0, nil
	case len(c.Items) > 0:
		return 0, c.Items
	}
	return 0, w.Known.Items
}

// octets is what a message counts of a limit on bytes.
func octets(size int64) int64 { return min(max(size, 1), limit.MaxCount) }

// Paid is what became of an attempt to pay for a message that waits.
type Paid struct {
	Taken  bool
	FreeAt time.Time // when there is room if nothing else comes; zero if Taken or Never, or not known
	Never  bool      // time alone makes no room: a bucket is shut, or the message too large
	Reason string    // what has no room

	// If Taken, those of Decision.
	Charges []limit.Charge
	Bounces []limit.Charge
}

// waits is what the message waits for, if every limit that stops it will have
// room some day; else nil.
func (t *taking) waits(all []objection) *Waits {
	w := &Waits{Origin: t.keys.o, Known: t.step.Known, Size: t.keys.m.Size}
	for _, o := range all {
		switch {
		case !o.Verdict.Stops():
		case !o.waits:
			return nil
		default:
			w.Keys = append(w.Keys, o.key)
		}
	}
	w.Known.Items = slices.Clone(w.Known.Items)
	if t.usual != nil {
		t.asUsual()
	}
	w.Recipients = t.bulkAmount()
	for i := range t.step.Charges {
		c := &t.step.Charges[i]
		w.Charges = append(w.Charges, WaitCharge{c.Key.Limit, c.Key.Value, c.Counts.String(), c.Amount, slices.Clone(c.Items), t.recipients(i)})
	}
	return w
}

// recipients is how many a charge is about that are no free retries, whatever
// its limit counts.
func (t *taking) recipients(charge int) int64 {
	r := t.rules[charge]
	at := slices.Index(r.Per, limit.RecipientDomain)
	if at < 0 {
		return t.all(r.Scope).recipients
	}
	value := t.step.Charges[charge].Key.Value
	if len(r.Per) > 1 {
		value = strings.Split(value, " ")[at]
	}
	domain := strings.TrimPrefix(value, "recipient_domain:")
	from, _ := slices.BinarySearchFunc(t.rcpts, domain, func(r recipient, d string) int { return cmp.Compare(r.domain, d) })
	to := from
	for to < len(t.rcpts) && t.rcpts[to].domain == domain {
		to++
	}
	sum := t.tally(t.rcpts[from:to], r.Scope)
	return sum.recipients
}

// Pay charges a message that waits, under the limits now in force; those that are
// gone, and those from which its account has been exempt since, are left out. What
// does not fit counts no attempt: it did when the message came. The id names the
// step, so that a repeat within a minute is not charged twice where the store can
// tell. Who waits behind whom is the caller's to know.
func (l *Limits) Pay(ctx context.Context, now time.Time, s *Switches, w *Waits, id string) (Paid, error) {
	t := l.begin(now, s, &Message{}, &w.Origin)
	defer l.end(t)
	t.step.ID = id
	t.step.Known.Account, t.step.Known.Items = cmp.Or(w.Known.Account, t.keys.stable()), append(t.step.Known.Items, w.Known.Items...)
	probation := s.OnProbation(now, &w.Origin)
	for _, c := range w.Charges {
		r := l.names[c.Limit]
		if r == nil || s.Lifted(now, &w.Origin, c.Limit) {
			continue
		}
		in, _ := l.inForce(r, now, s, &w.Origin, c.Value, probation)
		amount, items := c.in(r.Counts, w)
		t.add(r, in.Charge(c.Value, amount, items), amount == 0 && len(items) == 0 && r.Counts != limit.Bounces)
	}
	if slices.ContainsFunc(t.rules, func(r *limitRule) bool { return r.bulk }) {
		if err := l.useBulk(ctx, t, w.Recipients); err != nil {
			return Paid{}, err
		}
	}
	if len(t.step.Charges) == 0 {
		return Paid{Taken: true}, nil
	}
	bounces := t.bounces()
	if err := l.opt.Store.Peek(ctx, now, &t.step, &t.out); err != nil {
		return Paid{}, err
	}
	if !t.out.Taken && !t.retriesOnly() {
		return t.unpaid(), nil
	}
	if err := l.opt.Store.Spend(ctx, now, &t.step, &t.out); err != nil {
		return Paid{}, err
	}
	if !t.out.Taken { // another was quicker
		return t.unpaid(), nil
	}
	l.note(t)
	return Paid{Taken: true, Charges: t.grows(), Bounces: bounces}, nil
}

// unpaid says when there may be room.
func (t *taking) unpaid() Paid {
	var p Paid
	for i := range t.out.Uses {
		u := &t.out.Uses[i]
		c := &t.step.Charges[u.Charge]
		if !u.Over || u.Window.Soft || c.Tells || t.retry[u.Charge] && !t.out.Latched[u.Charge] {
			continue
		}
		if never := u.Never || t.out.Latched[u.Charge]; p.Reason == "" || never && !p.Never || u.FreeAt.After(p.FreeAt) {
			p.Reason = t.rules[u.Charge].Name + ": " + overBy(c, t.rules[u.Charge], u, t.out.Latched[u.Charge])
			p.Never = p.Never || never
		}
		p.FreeAt = later(p.FreeAt, u.FreeAt)
	}
	if p.Never {
		p.FreeAt = time.Time{}
	}
	return p
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
