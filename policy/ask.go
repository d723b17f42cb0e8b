package policy

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Asked is what would become of a message, and why.
type Asked struct {
	Verdict   Verdict
	Rule      string // that decides; empty for a plain accept
	Reason    string
	Standings []Standing // of each limit that an origin has a bucket for
}

// Standing is how an origin stands under one limit.
type Standing struct {
	Rule    string
	Per     string // "login", "site client"
	Key     string // value of the bucket
	Counts  string
	Kind    string
	Then    string // "tell" if it only tells
	Scope   string // which recipients count
	When    string // conditions, empty for none
	Applies bool   // it would be asked now: the conditions hold, as far as they are known
	Source  string // where its windows come from
	Windows []Counter
	Latched bool
	Waiting int // messages that wait for room
}

const maxAsked = 100_000

// Ask tells how an origin stands under every limit that it has a bucket for, and
// what a message to so many people outside would get now: people to whom it has
// never written, in a message of whose size and header nothing is known. It
// charges nothing. Of recipients 1 to 100,000 are taken.
func (l *Limits) Ask(ctx context.Context, now time.Time, s *Switches, o *origin.Origin, recipients int) (Asked, error) {
	asked := Asked{Verdict: Accept}
	if l == nil {
		return asked, nil
	}
	if recipients < 1 || recipients > maxAsked {
		return asked, fmt.Errorf("ask the limits: got %d recipients, want 1 to %d", recipients, maxAsked)
	}
	m := &Message{Evidence: origin.NewEvidence(), RcptTo: make([]string, recipients)}
	t := l.begin(now, s, m, o)
	defer l.end(t)
	for i := range recipients {
		t.rcpts = append(t.rcpts, recipient{weight: 1, item: limit.Item(i + 1)})
	}
	t.step.Known.Account = o.Stable()
	sources := l.standingCharges(t)
	if len(t.step.Charges) == 0 {
		return asked, nil
	}
	if err := l.opt.Store.Peek(ctx, now, &t.step, &t.out); err != nil {
		return asked, fmt.Errorf("ask the limits: %w", err)
	}
	shut, err := l.shutNow(ctx, t)
	if err != nil {
		return asked, fmt.Errorf("ask the limits: %w", err)
	}
	asked.Standings = l.standings(t, sources, shut)
	return asked, l.foretell(ctx, t, m, &asked)
}

// shutNow reports of each charge whether its bucket is shut already, and not only
// by what is asked about.
func (l *Limits) shutNow(ctx context.Context, t *taking) ([]bool, error) {
	step := limit.Step{Charges: slices.Clone(t.step.Charges), Known: t.step.Known}
	for i := range step.Charges {
		step.Charges[i].Amount, step.Charges[i].Items = 0, nil
	}
	var out limit.Outcome
	err := l.opt.Store.Peek(ctx, t.now, &step, &out)
	return out.Latched, err
}

// standingCharges lists a charge for each limit that the origin has a bucket
// for, whether it is asked now or not, and where its windows come from.
func (l *Limits) standingCharges(t *taking) []source {
	var sources []source
	o := &t.keys.o
	kind, _ := o.Account()
	for i := range l.rules {
		r := &l.rules[i]
		value := t.keys.of(r, "")
		from := r.when.from(o) || r.template && kind == origin.KindUnknown // whose text it is is not said
		if value == "" || !from || len(t.step.Charges) == limit.MaxCharges {
			continue
		}
		in, whence := l.inForce(r, t.now, t.s, o, value, t.s.OnProbation(t.now, o))
		whence.lifted = t.s.Lifted(t.now, o, r.Name)
		sum := t.all(Everyone)
		amount, items := t.amount(r, sum)
		t.add(r, in.Charge(value, amount, items), false)
		sources = append(sources, whence)
	}
	return sources
}

// standings are how the charges stand.
func (l *Limits) standings(t *taking, sources []source, shut []bool) []Standing {
	all := make([]Standing, len(t.rules))
	for i, r := range t.rules {
		c := &t.step.Charges[i]
		s := Standing{
			Rule: r.Name, Per: join(r.Per, limit.Per.String), Key: c.Key.Value, Counts: r.Counts.String(), Kind: r.Kind.String(),
			Then: r.Then.String(), Scope: r.Scope.String(), When: r.When.String(), Source: l.tellSource(r, sources[i]), Latched: shut[i],
			Applies: !sources[i].lifted && r.Scope != InsideOnly && !r.when.unread() && r.when.at(t.now, l.opt.Location) && r.when.message(t.keys.m),
		}
		if r.tells {
			s.Then = Tell.String()
		}
		if l.opt.Lines != nil {
			s.Waiting = l.opt.Lines.Behind(c.Key, t.keys.stable())
		}
		all[i] = s
	}
	for i, c := range t.counters() {
		if c.Count < limit.MaxCount {
			s := &all[t.out.Uses[i].Charge]
			s.Windows = append(s.Windows, c)
		}
	}
	return all
}

// unread reports whether something about the message is asked that only the
// message itself tells.
func (w *when) unread() bool {
	return w.MinSize > 0 || w.MaxSize > 0 || len(w.Header) > 0 || len(w.NoHeader) > 0
}

// foretell says what a message would get from the limits that apply, and what an
// admin allows in bulk.
func (l *Limits) foretell(ctx context.Context, t *taking, m *Message, asked *Asked) error {
	t.keepCharges(func(i int) bool { return asked.Standings[i].Applies })
	if err := l.useBulk(ctx, t, t.bulkAmount()); err != nil {
		return fmt.Errorf("ask the limits: %w", err)
	}
	if t.usual != nil {
		for i := range asked.Standings {
			s := &asked.Standings[i]
			s.Applies = s.Applies && !l.names[s.Rule].bulk
		}
	}
	if err := l.opt.Store.Peek(ctx, t.now, &t.step, &t.out); err != nil {
		return fmt.Errorf("ask the limits: %w", err)
	}
	l.findQueue(t)
	for _, o := range t.objections(m) {
		if l.observe && o.Verdict.Stops() {
			o.Verdict = Tell
		}
		if o.Verdict > asked.Verdict {
			asked.Verdict, asked.Rule, asked.Reason = o.Verdict, o.Rule, o.Reason
		}
	}
	return l.addBulk(ctx, t, asked)
}

// addBulk adds how a bulk order stands, which is charged for what the account's
// own limits have no room for.
func (l *Limits) addBulk(ctx context.Context, t *taking, asked *Asked) error {
	sw := t.s.Bulk(t.now, &t.keys.o)
	if sw == nil {
		return nil
	}
	r := bulkRule(sw)
	charge := bulkCharge(r, t.keys.stable(), sw, 1)
	if err := l.opt.Store.Peek(ctx, t.now, &limit.Step{Charges: []limit.Charge{charge}}, &t.out); err != nil {
		return fmt.Errorf("ask the limits: %w", err)
	}
	s := Standing{
		Rule: r.Name, Per: join(r.Per, limit.Per.String), Key: charge.Key.Value, Counts: r.Counts.String(), Kind: r.Kind.String(),
		Then: r.Then.String(), Scope: r.Scope.String(), Applies: true, Source: "allowed" + ordered(sw),
	}
	for _, u := range t.out.Uses {
		s.Windows = append(s.Windows, Counter{Limit: r.Name, Key: s.Key, Unit: s.Counts, Kind: s.Kind, Window: u.Window.Length, Count: u.Window.Count, Used: u.Used, Amount: u.Amount, Over: u.Over, FreeAt: u.FreeAt})
	}
	asked.Standings = append(asked.Standings, s)
	return nil
}

// tellSource says where a limit's windows come from, in words.
func (l *Limits) tellSource(r *limitRule, from source) string {
	var b strings.Builder
	switch {
	case from.set != nil && from.byHand:
		b.WriteString("set for " + from.set.About() + ordered(from.set))
	case from.set != nil:
		b.WriteString("file, for " + from.set.About())
	case r.shipped:
		b.WriteString("default")
	default:
		b.WriteString("file")
	}
	if from.adapted {
		fmt.Fprintf(&b, "; adapted: %d times its largest day", r.Adapt.Times)
	}
	if from.young {
		b.WriteString("; only its burst, until it is known what is usual")
	}
	if from.halved {
		b.WriteString("; halved: probation")
	}
	if from.lifted {
		b.WriteString("; does not count: allowed")
	}
	return b.String()
}

// ordered says who gave an order, and until when.
func ordered(sw *Switch) string {
	text := ""
	if sw.By != "" {
		text = " by " + sw.By
	}
	if !sw.Until.IsZero() {
		text += ", until " + sw.Until.UTC().Format(time.RFC3339)
	}
	return text
}

// shipped reports whether a limit is one of a fresh install, as it was shipped.
func shipped(r *LimitRule) bool {
	return slices.ContainsFunc(limit.Defaults(), func(d limit.Default) bool {
		return reflect.DeepEqual(r.Limit, d.Limit) && r.Adapt == d.Adapt && (r.Scope == OutsideOnly || !d.Outside) && slices.Equal(r.When.Origins, d.Origins)
	})
}

// Over reports whether a bucket has no room for one more, or is shut, as far as
// its value tells whose it is. One that cannot be asked counts as over: nobody
// knows that it has room again.
func (l *Limits) Over(ctx context.Context, now time.Time, s *Switches, name, value string) bool {
	if l == nil || l.names[name] == nil || value == "" {
		return false
	}
	r := l.names[name]
	o := l.whose(r, value)
	in, _ := l.inForce(r, now, s, &o, value, s.OnProbation(now, &o))
	charge := in.Charge(value, 1, []limit.Item{1})
	if r.Counts == limit.Bounces {
		charge.Amount = 0
	}
	var out limit.Outcome
	err := l.opt.Store.Peek(ctx, now, &limit.Step{Charges: []limit.Charge{charge}, Known: limit.Known{Account: value}}, &out)
	return err != nil || !out.Taken
}

// whose is who has a bucket of a rule, and whose customer that is, as far as its
// value tells.
func (l *Limits) whose(r *limitRule, value string) origin.Origin {
	o := originOf(value, len(r.Per))
	if l.opt.Customers != nil && !o.Customer.Known() {
		o.Customer = l.opt.Customers(&o)
	}
	return o
}
