package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/limit"
)

// Counter is one window of one bucket as a decision met it.
type Counter struct {
	Limit   string
	Key     string
	Unit    string
	Kind    string
	Window  time.Duration
	Count   int64     // allowed in Window
	Used    int64     // before this message
	Amount  int64     // of this message
	Over    bool      // it does not fit
	Soft    bool      // over it nothing is stopped
	Latched bool      // shut until an admin resumes it
	FreeAt  time.Time // when it fits again; zero: it fits, or never will
}

// objection is what a limit finds, and what else follows.
type objection struct {
	Finding
	reply Reply     // if it is rejected: in place of the usual
	key   limit.Key // of the bucket
	waits bool      // there will be room: it may wait for that
	never int64     // the count of a window that the message alone is more than; 0: none
}

// saysMoreThan compares what two windows of one limit find: a hard one says more
// than a soft one, one that never has room more than one that will, and the
// smallest of these most.
func (o *objection) saysMoreThan(p *objection) bool {
	switch {
	case o.Verdict != p.Verdict:
		return o.Verdict > p.Verdict
	case o.never > 0 && p.never > 0:
		return o.never < p.never
	}
	return p.waits && !o.waits || o.never > p.never
}

// judgeAs judges by an objection, whose reply counts if its rule decides.
func (p *Policy) judgeAs(d *Decision, o *objection) {
	if o == nil {
		return
	}
	before := d.Verdict
	p.judge(d, &o.Finding)
	if d.Verdict == Reject && before < Reject && o.reply.Code != 0 {
		d.Reply = o.reply
	}
}

// shown are those counters that bound something.
func shown(all []Counter) []Counter {
	return slices.DeleteFunc(all, func(c Counter) bool { return c.Count >= limit.MaxCount })
}

// counters tell what each window held.
func (t *taking) counters() []Counter {
	all := make([]Counter, len(t.out.Uses))
	for i := range all {
		u := &t.out.Uses[i]
		c, r := &t.step.Charges[u.Charge], t.rules[u.Charge]
		all[i] = Counter{
			Limit: r.Name, Key: c.Key.Value, Unit: r.Counts.String(), Kind: r.Kind.String(),
			Window: u.Window.Length, Count: u.Window.Count, Used: u.Used, Amount: u.Amount,
			Over: u.Over, Soft: u.Window.Soft || r.tells, Latched: t.out.Latched[u.Charge], FreeAt: u.FreeAt,
		}
	}
	return all
}

// near are the windows that this message has brought to where their rule warns.
// They are compared as shares, of which no count makes too large a number.
func (t *taking) near(counters []Counter) []Counter {
	var all []Counter
	for i := range counters {
		c, r := &counters[i], t.rules[t.out.Uses[i].Charge]
		if own := r.own(c.Window); c.Count == limit.MaxCount && r.Adapt.On() && r.Warn > 0 && c.Used < own && c.Used+c.Amount >= own { // it only counts until it is known what is usual
			would := *c
			would.Count = own
			all = append(all, would)
			continue
		}
		from := c.Count/100*int64(r.Warn) + (c.Count%100*int64(r.Warn)+99)/100
		if r.Warn > 0 && !c.Soft && c.Used < from && c.Used+c.Amount >= from {
			all = append(all, *c)
		}
	}
	return all
}

// objections are the limits that the message goes over or waits under, each once.
func (t *taking) objections(m *Message) []objection {
	var all []objection
	last := -1
	for i := range t.out.Uses {
		u := &t.out.Uses[i]
		if !u.Over || t.retry[u.Charge] && !t.out.Latched[u.Charge] { // a free retry needs no room
			continue
		}
		o := t.objection(m, u)
		if u.Charge != last {
			all = append(all, o)
		} else if o.saysMoreThan(&all[len(all)-1]) {
			all[len(all)-1] = o
		}
		last = u.Charge
	}
	for _, b := range t.behind {
		c, r := &t.step.Charges[b.charge], t.rules[b.charge]
		if !slices.ContainsFunc(all, func(o objection) bool { return o.key == c.Key && o.Verdict.Stops() }) {
			all = append(all, objection{Finding: Finding{r.Name, Hold, behindOthers(t.keys.stable(), b.messages)}, key: c.Key, waits: true})
		}
	}
	return all
}

// objection is what follows from a window without room.
func (t *taking) objection(m *Message, u *limit.Use) objection {
	c, r := &t.step.Charges[u.Charge], t.rules[u.Charge]
	latched := t.out.Latched[u.Charge]
	o := objection{Finding: Finding{r.Name, r.Then, overBy(c, r, u, latched)}, key: c.Key}
	never := u.Amount > u.Window.Count
	if never {
		o.never = u.Window.Count
	}
	switch {
	case u.Window.Soft || r.tells:
		o.Verdict = Tell
	case never && r.Kind == limit.Volume && !latched: // to wait does not help
		o.Verdict = Reject
		if m.Local() { // a bounce may go to nobody
			o.Verdict = Hold
		}
		o.reply = Reply{550, "5.7.1", fmt.Sprintf("This message counts %d %s, more than the %d that may ever be sent at once; send it in smaller parts", u.Amount, noun(r.Counts), u.Window.Count)}
	case r.Then == Defer && m.Local(): // sendmail(1) has nobody to try again
		o.Verdict = Hold
	case r.Then == Defer && never:
		o.Verdict = Reject
	}
	o.waits = o.Verdict == Hold && !u.Never && !latched // nor is an abuse limit shut that a relay without its Redis knows only its share of
	return o
}

// tooManyCharges is what becomes of a message with more buckets than can be
// charged in one step: nobody sends to so many domains at once but by a program.
func tooManyCharges(m *Message, t *taking) *objection {
	o := &objection{Finding: Finding{t.tooMany, Reject, fmt.Sprintf("it goes to so many domains that it would be charged to more than %d buckets", limit.MaxCharges)}}
	if m.Local() {
		o.Verdict = Hold
	}
	o.reply = Reply{550, "5.7.1", "This message goes to too many domains; send it to fewer domains at once"}
	return o
}

// noun is a unit in a sentence.
func noun(u limit.Unit) string {
	switch u {
	case limit.Distinct:
		return "different recipients"
	case limit.FirstTime:
		return "first-time recipients"
	}
	return u.String()
}

func behindOthers(account string, messages int) string {
	if messages == 1 {
		return "1 message of " + account + " waits under this limit, this one queues behind it"
	}
	return fmt.Sprintf("%d messages of %s wait under this limit, this one queues behind them", messages, account)
}

// overBy says what was found against what was wanted.
func overBy(c *limit.Charge, r *limitRule, u *limit.Use, latched bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d %s in %s used by %s", u.Used, u.Window.Count, noun(r.Counts), span(u.Window.Length), c.Key.Value)
	if r.Counts != limit.Bounces {
		fmt.Fprintf(&b, ", this message has %d", u.Amount)
	}
	switch {
	case latched:
		b.WriteString("; shut until it is resumed")
	case u.Never:
		b.WriteString("; more than may ever be in one message")
	case !u.FreeAt.IsZero():
		b.WriteString("; free again at " + u.FreeAt.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// span writes a window's length as the configuration does: "10m", "24h", "7d".
func span(d time.Duration) string {
	for _, u := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.length && d%u.length == 0 && !(u.name == "d" && d == 24*time.Hour) {
			return strconv.FormatInt(int64(d/u.length), 10) + u.name
		}
	}
	return d.String()
}
