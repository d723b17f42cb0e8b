package policy

import (
	"cmp"
	"slices"
	"time"

	"relayguard/policy/address"
	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// taking is what one message takes, and what became of it. They are used again:
// nothing of one may be kept.
type taking struct {
	now    time.Time
	s      *Switches
	rcpts  []recipient
	scoped [3]tally // of all recipients, by Scope; made when asked for
	keys   keys
	items  []limit.Item // room for those of charges

	step    limit.Step
	rules   []*limitRule // of each charge
	retry   []bool       // of each charge: all it counts was charged before
	free    bool         // the whole message is a free retry
	tooMany string       // the rule by which there are more charges than a step can have

	usual  *usual    // what a bulk order stands in for
	behind []waiting // what waits already
	out    limit.Outcome
	names  []string // room for recipients
}

// recipient is one that counts.
type recipient struct {
	to     string
	domain string // where a rule asks for it
	item   limit.Item
	weight int // how many it stands for
	free   bool
	inside bool
}

// tally is what some of the recipients come to.
type tally struct {
	made       bool
	present    int   // recipients, free or not
	messages   int64 // 0 if all of them are free
	recipients int64
	items      []limit.Item
}

func (l *Limits) begin(now time.Time, s *Switches, m *Message, o *origin.Origin) *taking {
	t := l.takings.Get().(*taking)
	t.now, t.s = now, s
	t.keys.reset(l, m, o)
	return t
}

// end gives the taking back, unless a huge message made it huge.
func (l *Limits) end(t *taking) {
	if cap(t.rcpts) > 1024 || cap(t.items) > 4096 || cap(t.step.Charges) > 64 {
		return
	}
	clear(t.rcpts)
	clear(t.step.Charges)
	clear(t.names)
	*t = taking{
		rcpts: t.rcpts[:0], items: t.items[:0], rules: t.rules[:0], retry: t.retry[:0], behind: t.behind[:0], names: t.names[:0], out: t.out,
		step: limit.Step{Charges: t.step.Charges[:0], Known: limit.Known{Items: t.step.Known.Items[:0]}}, keys: keys{buf: t.keys.buf[:0]},
	}
	l.takings.Put(t)
}

// prepare looks at the recipients once their Free is known.
func (l *Limits) prepare(t *taking) {
	t.free = true
	for i := range t.rcpts {
		r := &t.rcpts[i]
		t.free = t.free && r.free
		if l.items {
			r.item = l.opt.Item(r.to)
		}
		if l.domains {
			a, _ := address.Parse(r.to)
			r.domain = a.Domain
		}
	}
	if l.domains {
		slices.SortFunc(t.rcpts, func(a, b recipient) int { return cmp.Compare(a.domain, b.domain) })
	}
	if l.knows && l.remembers(&t.keys.o) {
		t.step.Known.Account = t.keys.stable()
		for i := range t.rcpts {
			t.step.Known.Items = append(t.step.Known.Items, t.rcpts[i].item)
		}
		t.step.Known.Items = unique(t.step.Known.Items)
	}
}

// remembers reports whether whom an origin writes to matters to a rule on
// first-time recipients, now or as soon as more is known of it.
func (l *Limits) remembers(o *origin.Origin) bool {
	kind, _ := o.Account()
	web := kind == origin.KindLocalUser || kind == origin.KindNode || o.Site.Known()
	return slices.ContainsFunc(l.rules, func(r limitRule) bool {
		return r.Counts == limit.FirstTime && !slices.ContainsFunc(r.Per, func(p limit.Per) bool {
			switch p {
			case limit.Login:
				return kind != origin.KindLogin
			case limit.LocalUser, limit.SharedUser:
				return kind != origin.KindLocalUser
			case limit.Site, limit.Plugin:
				return !web
			case limit.Template:
				return !web && !o.Template.Known()
			case limit.Network, limit.Machine:
				return kind != origin.KindNetwork
			}
			return false
		})
	})
}

func unique(items []limit.Item) []limit.Item {
	slices.Sort(items)
	return slices.Compact(items)
}

// charges lists what the message takes of each bucket. One that takes nothing, a
// free retry, is listed too: a shut bucket stops it. At RCPT, rules that tell and
// those that need the whole message are left out.
func (l *Limits) charges(t *taking, atRCPT bool) {
	o := &t.keys.o
	probation := t.s.OnProbation(t.now, o)
	kind, _ := o.Account()
	for i := range l.rules {
		r := &l.rules[i]
		if kind == origin.KindUnknown && !r.template { // strangers share no bucket
			continue
		}
		if atRCPT && (r.tells || r.when.atEnd) || !r.when.from(o) || !r.when.at(t.now, l.opt.Location) || !r.when.message(t.keys.m) || t.s.Lifted(t.now, o, r.Name) {
			continue
		}
		if !slices.Contains(r.Per, limit.RecipientDomain) {
			if all := t.all(r.Scope); all.present > 0 {
				l.charge(t, r, probation, "", all)
			}
			continue
		}
		for rest := t.rcpts; len(rest) > 0; {
			n := 1
			for n < len(rest) && rest[n].domain == rest[0].domain {
				n++
			}
			if sum := t.tally(rest[:n], r.Scope); sum.present > 0 {
				l.charge(t, r, probation, rest[0].domain, &sum)
			}
			rest = rest[n:]
		}
	}
}

// charge adds what a rule charges for these recipients.
func (l *Limits) charge(t *taking, r *limitRule, probation bool, domain string, sum *tally) {
	value := t.keys.of(r, domain)
	if value == "" {
		return
	}
	if len(t.step.Charges) == limit.MaxCharges {
		if !r.tells { // those come first
			t.tooMany = r.Name
		}
		return
	}
	in, _ := l.inForce(r, t.now, t.s, &t.keys.o, value, probation)
	amount, items := t.amount(r, sum)
	t.add(r, in.Charge(value, amount, items), sum.messages == 0)
}

// amount is what a rule counts of these recipients.
func (t *taking) amount(r *limitRule, sum *tally) (amount int64, items []limit.Item) {
	switch r.Counts {
	case limit.Messages:
		amount = sum.messages
	case limit.Recipients:
		amount = sum.recipients
	case limit.Bytes:
		amount = sum.messages * octets(t.keys.m.Size)
	case limit.Distinct, limit.FirstTime:
		items = sum.items
	}
	return amount, items
}

func (t *taking) add(r *limitRule, c limit.Charge, retry bool) {
	c.Tells = r.tells || soft(c.Windows)
	t.step.Charges, t.rules, t.retry = append(t.step.Charges, c), append(t.rules, r), append(t.retry, retry)
}

// all is the tally of all recipients in a scope.
func (t *taking) all(s Scope) *tally {
	if !t.scoped[s].made {
		t.scoped[s] = t.tally(t.rcpts, s)
	}
	return &t.scoped[s]
}

func (t *taking) tally(rcpts []recipient, s Scope) tally {
	sum := tally{made: true}
	from, counted := len(t.items), t.keys.limits.items
	for i := range rcpts {
		r := &rcpts[i]
		if !s.has(r.inside) {
			continue
		}
		sum.present++
		if !r.free {
			sum.messages = 1
			sum.recipients += int64(r.weight)
			if counted {
				t.items = append(t.items, r.item)
			}
		}
	}
	sum.items = unique(t.items[from:])
	return sum
}

// keepCharges drops those that keep says no to.
func (t *taking) keepCharges(keep func(i int) bool) {
	n := 0
	for i := range t.rules {
		if keep(i) {
			t.step.Charges[n], t.rules[n], t.retry[n] = t.step.Charges[i], t.rules[i], t.retry[i]
			n++
		}
	}
	t.step.Charges, t.rules, t.retry = t.step.Charges[:n], t.rules[:n], t.retry[:n]
}
