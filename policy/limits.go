package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/address"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// LimitRule is a limit and what follows when a message goes over it.
type LimitRule struct {
	limit.Limit
	Then    Verdict // Tell, Hold, Defer or Reject
	Observe bool    // decides and records, and stops nothing
}

// Limits are a configuration's limits, ready for use in one phase. Not changed
// once in use.
type Limits struct {
	rules   []limitRule // those that only tell come last
	names   map[string]bool
	shared  map[int]bool // uids that many sites share
	buckets limit.Store
	retries *limit.Retries
	observe bool
	refuses bool // some rule defers or rejects: there may be an answer at RCPT
}

// limitRule is a rule as its phase has it.
type limitRule struct {
	LimitRule
	whole limit.Limit // what is charged
	half  limit.Limit // the same for accounts on probation
	tells bool        // stops nothing, whatever it finds
}

// newLimitRule softens a rule. One that only tells still counts as if it acted:
// what it would have stopped is not charged to it. But it shuts nothing, nor does
// any in the phase observe: enforce is not to begin with shut buckets.
func newLimitRule(phase Phase, r LimitRule) limitRule {
	l := limitRule{LimitRule: r, whole: r.Limit, tells: r.Observe || r.Then == Tell}
	switch {
	case l.tells:
		l.Limit, l.whole.Kind = allSoft(r.Limit), limit.Volume
	case phase == Learning:
		l.Limit = r.Softened()
		l.whole = l.Limit
		l.tells = !slices.ContainsFunc(l.Windows, func(w limit.Window) bool { return !w.Soft })
	case phase == Observe:
		l.whole.Kind = limit.Volume
	}
	l.half = l.whole.Halved()
	return l
}

// NewLimits makes limits ready. The buckets and the memory of retries outlive
// them: a reload hands them on.
func NewLimits(phase Phase, rules []LimitRule, shared []int, buckets limit.Store, retries *limit.Retries) *Limits {
	l := &Limits{names: map[string]bool{}, shared: map[int]bool{}, buckets: buckets, retries: retries, observe: phase == Observe}
	for _, uid := range shared {
		l.shared[uid] = true
	}
	for _, r := range rules {
		l.names[r.Name] = true
		l.rules = append(l.rules, newLimitRule(phase, r))
		l.refuses = l.refuses || r.Then >= Defer
	}
	slices.SortStableFunc(l.rules, func(a, b limitRule) int {
		switch {
		case a.tells == b.tells:
			return 0
		case b.tells:
			return -1
		}
		return 1
	})
	return l
}

// allSoft is the limit as one that only tells.
func allSoft(l limit.Limit) limit.Limit {
	l.Windows = slices.Clone(l.Windows)
	for i := range l.Windows {
		l.Windows[i].Soft = true
	}
	return l
}

// has reports whether a rule of that name is a limit.
func (l *Limits) has(name string) bool { return l != nil && l.names[name] }

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

// taking is what a message would take: a charge for each rule that concerns it.
type taking struct {
	charges []limit.Charge
	rules   []*limitRule
	hard    int // the charges of rules that stop: all of these are taken, or none
}

// charges lists what a message of so many recipients takes of each bucket. One
// that takes nothing, a free retry, is listed too: a shut bucket stops it.
func (l *Limits) charges(t *taking, s *Switches, now time.Time, m *Message, o *origin.Origin, messages, recipients int) {
	probation := s.OnProbation(now, o)
	for i := range l.rules {
		r := &l.rules[i]
		value := l.key(r.Per, m, o)
		if value == "" || s.Lifted(now, o, r.Name) {
			continue
		}
		in := &r.whole
		if probation {
			in = &r.half
		}
		t.charges = append(t.charges, in.Charge(value, messages, recipients))
		t.rules = append(t.rules, r)
		if !r.tells {
			t.hard++
		}
	}
}

// key is the bucket of a message under a limit, empty if the limit does not
// concern it.
func (l *Limits) key(per limit.Per, m *Message, o *origin.Origin) string {
	kind, account := o.Account()
	switch per {
	case limit.Server:
		return "server"
	case limit.Login:
		if kind == origin.KindLogin {
			return o.Stable()
		}
	case limit.LocalUser, limit.SharedUser:
		if kind == origin.KindLocalUser && l.shared[o.UID] == (per == limit.SharedUser) {
			return o.Stable()
		}
	case limit.Network:
		if kind == origin.KindNetwork {
			return "network:" + account.Value
		}
	case limit.Machine:
		if kind == origin.KindNetwork {
			return "machine:" + machine(o.ClientIP.Value)
		}
	case limit.SenderDomain:
		if d := senderDomain(m); d != "" {
			return "sender_domain:" + d
		}
	}
	return ""
}

// machine is an address, or the network that one customer has: of IPv6 the /64.
func machine(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Is4() {
		return ip
	}
	p, _ := a.Prefix(64)
	return p.String()
}

// senderDomain is that of the envelope, or for the null sender that of From: a
// claim, so a limit on it may only be one more.
func senderDomain(m *Message) string {
	for _, from := range []string{m.MailFrom, m.HeaderFrom} {
		if a, ok := address.Parse(from); ok {
			return a.Domain
		}
	}
	return ""
}

// spend charges the message to its buckets, all or none, and judges it by them.
// It comes last: what another rule stops is not charged. Held: what passes the
// limits goes into the hold queue, until start.
func (p *Policy) spend(ctx context.Context, now time.Time, s *Switches, m *Message, d *Decision, held bool) {
	l := p.Limits
	if kind, _ := d.Origin.Account(); l == nil || kind == origin.KindUnknown {
		return
	}
	charged := make([]string, 0, len(m.RcptTo))
	for _, to := range m.RcptTo {
		if !p.exemptRecipient(m, to) {
			charged = append(charged, to)
		}
	}
	if len(charged) == 0 {
		return
	}
	try := l.retries.Begin(now, d.Origin.Stable(), m.MessageID, m.QueueID, m.Digest, charged)
	defer try.Cancel() // does nothing after Keep
	keep := func() {
		try.Keep()
		if held && ctx.Err() == nil { // the queue has it: who repeats it sends another
			l.retries.Queued(m.QueueID)
		}
	}
	recipients, messages := try.Charged(), 1
	d.Retry = len(charged) - recipients
	if recipients == 0 {
		messages = 0
	}
	var t taking
	l.charges(&t, s, now, m, &d.Origin, messages, recipients)
	if len(t.charges) == 0 {
		keep()
		return
	}
	ask := l.buckets.Spend
	if recipients == 0 {
		ask = l.buckets.Peek
	}
	out, taken, err := l.take(ctx, now, &t, ask)
	if err != nil {
		f := &Finding{RuleLimits, Defer, "the limits cannot be asked: " + err.Error()}
		if m.Local() {
			f.Verdict = Hold
		}
		p.judge(d, f)
		return
	}
	l.tell(d, &t, &out)
	stopped := false
	for _, f := range l.findings(m, &t, &out) {
		p.judge(d, &f)
		stopped = stopped || f.Verdict.Stops()
	}
	if !stopped {
		keep()
		d.Charges = taken
	}
}

// asking is Spend or Peek of a store.
type asking func(context.Context, time.Time, []limit.Charge) (limit.Outcome, error)

// take asks for the charges of all rules that stop in one step, and then for
// that of each rule that only tells by itself, so that it keeps no other from
// being charged. It returns what was taken and grows with the recipients.
func (l *Limits) take(ctx context.Context, now time.Time, t *taking, ask asking) (out limit.Outcome, taken []limit.Charge, err error) {
	out.Taken = true
	if t.hard > 0 {
		if out, err = ask(ctx, now, t.charges[:t.hard]); err != nil {
			return out, nil, err
		}
	}
	for i := range t.hard {
		taken = t.grows(taken, i)
	}
	if !out.Taken { // nor is it charged to those that only tell
		ask = l.buckets.Peek
	}
	for i := t.hard; i < len(t.charges); i++ {
		one, err := ask(ctx, now, t.charges[i:i+1])
		if err != nil { // it would only have told
			out.Latched = append(out.Latched, false)
			continue
		}
		for _, u := range one.Uses {
			u.Charge = i
			out.Uses = append(out.Uses, u)
		}
		out.Latched = append(out.Latched, one.Latched...)
		if one.Taken {
			taken = t.grows(taken, i)
		}
	}
	return out, taken, nil
}

// grows adds a charge, unless it is the same for a message that turns out to
// have more recipients.
func (t *taking) grows(taken []limit.Charge, i int) []limit.Charge {
	if t.rules[i].Counts != limit.Recipients {
		return taken
	}
	return append(taken, t.charges[i])
}

// full refuses a recipient if the message is refused whatever follows: one
// recipient is too many already, and the limit refuses, or there is no more
// room for what it would hold. It may still be a free retry, for which there is
// no need of room: that can wait, but is not rejected before its end is there,
// unless the bucket is shut for it, too.
func (p *Policy) full(ctx context.Context, now time.Time, m *Message, d *Decision) *Finding {
	l := p.Limits
	if kind, _ := d.Origin.Account(); l == nil || l.observe || kind == origin.KindUnknown {
		return nil
	}
	noRoom := p.Room != nil && p.Room.Full(d.Origin.Name())
	if !noRoom && !l.refuses {
		return nil // the usual case: what does not fit is held at the end
	}
	var t taking
	l.charges(&t, p.Switches.Load(), now, m, &d.Origin, 1, 1)
	t.charges = t.charges[:t.hard]
	if len(t.charges) == 0 {
		return nil
	}
	out, err := l.buckets.Peek(ctx, now, t.charges)
	if err != nil || out.Taken {
		return nil
	}
	for _, f := range l.findings(m, &t, &out) {
		if f.Verdict == Reject && m.MailFrom == "" {
			f.Verdict = Hold // as at the end: a null sender's mail is never rejected
		}
		switch {
		case f.Verdict == Defer, f.Verdict == Reject && t.shut(&out, f.Rule):
			l.tell(d, &t, &out)
			return &f
		case f.Verdict == Hold && noRoom:
			l.tell(d, &t, &out)
			return &Finding{RuleHoldCap, Defer, fmt.Sprintf("%s: %s; and as much as may be held is held already", f.Rule, f.Reason)}
		}
	}
	return nil
}

// shut reports whether a rule's bucket was shut before, if out is the answer to
// a charge of one: every window has room for one sooner or later.
func (t *taking) shut(out *limit.Outcome, rule string) bool {
	return slices.ContainsFunc(out.Uses, func(u limit.Use) bool { return u.Never && t.rules[u.Charge].Name == rule })
}

// tell notes what each window held.
func (l *Limits) tell(d *Decision, t *taking, out *limit.Outcome) {
	d.Counters = make([]Counter, len(out.Uses))
	for i, u := range out.Uses {
		c, r := &t.charges[u.Charge], t.rules[u.Charge]
		d.Counters[i] = Counter{
			Limit: r.Name, Key: c.Key.Value, Unit: r.Counts.String(), Kind: r.Kind.String(),
			Window: u.Window.Length, Count: u.Window.Count, Used: u.Used, Amount: c.Amount,
			Over: u.Over, Soft: u.Window.Soft || r.tells, Latched: out.Latched[u.Charge], FreeAt: u.FreeAt,
		}
	}
}

// findings are the limits that the message goes over, each once.
func (l *Limits) findings(m *Message, t *taking, out *limit.Outcome) []Finding {
	var all []Finding
	last := -1
	for _, u := range out.Uses {
		c, r := &t.charges[u.Charge], t.rules[u.Charge]
		if !u.Over || c.Amount == 0 && !out.Latched[u.Charge] { // a free retry needs no room
			continue
		}
		f := Finding{Rule: r.Name, Verdict: r.then(m, c, &u), Reason: overBy(c, r, &u, out.Latched[u.Charge])}
		switch {
		case u.Charge != last:
			all = append(all, f)
		case f.Verdict > all[len(all)-1].Verdict: // a hard window says more than a soft one
			all[len(all)-1] = f
		}
		last = u.Charge
	}
	return all
}

// then is what the rule asks for. sendmail(1) has nobody to try again, and what
// never fits is not to be tried for ever. A shut bucket is worth a try: an admin
// may open it.
func (r *limitRule) then(m *Message, c *limit.Charge, u *limit.Use) Verdict {
	switch {
	case u.Window.Soft || r.tells:
		return Tell
	case r.Then == Defer && m.Local():
		return Hold
	case r.Then == Defer && c.Amount > u.Window.Count:
		return Reject
	}
	return r.Then
}

// overBy says what was found against what was wanted.
func overBy(c *limit.Charge, r *limitRule, u *limit.Use, latched bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d %s in %s used by %s, this message has %d", u.Used, u.Window.Count, r.Counts, span(u.Window.Length), c.Key.Value, c.Amount)
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

// Over reports whether the bucket of an account under a limit has no room for
// one more, or is shut.
func (l *Limits) Over(ctx context.Context, now time.Time, name, value string) bool {
	if l == nil {
		return false
	}
	for i := range l.rules {
		r := &l.rules[i]
		if r.Name != name {
			continue
		}
		out, err := l.buckets.Peek(ctx, now, []limit.Charge{r.whole.Charge(value, 1, 1)})
		return err == nil && !out.Taken
	}
	return false
}

// Find is the limit of that name as it is in force, for accounts on probation if
// so asked; nil if there is none.
func (l *Limits) Find(name string, probation bool) *limit.Limit {
	if l == nil {
		return nil
	}
	for i := range l.rules {
		if l.rules[i].Name == name {
			found := l.rules[i].Limit
			if probation {
				found = found.Halved()
			}
			return &found
		}
	}
	return nil
}
