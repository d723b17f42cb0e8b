package policy

import (
	"slices"
	"sync"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// LimitRule is a limit, when it is asked, and what follows when a message goes
// over it.
type LimitRule struct {
	limit.Limit
	Then    Verdict // Tell, Hold, Defer or Reject
	Observe bool    // decides and records, and stops nothing
	Scope   Scope   // the recipients that count; zero: all
	When    When    // zero: always
	Warn    int     // percent of a hard window from which Decision.Near tells; 0: never

	// Adapt lets each bucket grow with what it is used to, by LimitsOptions.Peaks.
	Adapt limit.Adapt

	// ClientBits4 and ClientBits6 are the bits of an address by which limits per
	// client count. 0: 32 of IPv4, 64 of IPv6, which is what one customer has.
	ClientBits4 int
	ClientBits6 int
}

// LimitsOptions are what limits are made of. Store and Retries outlive them: a
// reload hands them on.
type LimitsOptions struct {
	Phase       Phase
	Rules       []LimitRule
	SharedUIDs  []int    // Unix accounts that many sites share
	SharedUsers []string // the same by name, for those of web nodes
	Overrides   []Switch // of kind Set, from the configuration; they passed Check
	Store       limit.Store
	Retries     *limit.Retries

	// Item is the keyed digest of a recipient. Needed by rules that count distinct
	// or first-time recipients. It must give all forms of one mailbox one digest.
	Item func(rcptTo string) limit.Item

	// Customers is whose customer an origin is, for what asks about a bucket by its
	// value alone. nil: nobody's.
	Customers func(*origin.Origin) origin.Key

	// Peaks is what buckets are used to. It outlives them. nil: no limit adapts.
	Peaks *limit.Peaks

	Expansions Expansions     // nil: each address is one recipient
	Lines      Queue          // nil: nothing waits
	Location   *time.Location // of hours and weekdays; nil: UTC
}

// Expansions tells what addresses stand for. It must not wait, and is safe for
// concurrent use.
type Expansions interface {
	// Of is how many recipients an address stands for, as far as is known; at
	// least 1.
	Of(rcptTo string) int
}

// Queue tells what waits for room under a limit. It must not wait, and is safe
// for concurrent use.
type Queue interface {
	// Behind is how many messages of an account, named by origin.Stable, wait for
	// room in a bucket.
	Behind(key limit.Key, account string) int
}

// Limits are a configuration's limits, ready for use in one phase. Not changed
// once in use; safe for concurrent use.
type Limits struct {
	opt       LimitsOptions
	rules     []limitRule // those that only tell come last
	names     map[string]*limitRule
	shared    map[int]bool
	sharedBy  map[string]bool // on web nodes, by name
	overrides *Switches
	takings   sync.Pool // of *taking
	observe   bool
	refuses   bool // some rule defers or rejects: there may be an answer at RCPT
	items     bool // some rule counts recipients by who they are
	knows     bool // some rule asks whom the account has written to before
	domains   bool // some rule counts by the recipients' domain
	plugins   bool // some rule counts by plugin alone
	templates bool // some rule counts by template
}

// limitRule is a rule as its phase has it.
type limitRule struct {
	LimitRule
	when      when
	phase     Phase
	whole     limit.Limit // what is charged
	half      limit.Limit // the same for accounts on probation
	young     limit.Limit // what is charged in learning until it is known what is usual
	halfYoung limit.Limit // the same for accounts on probation
	tells     bool        // stops nothing, whatever it finds
	template  bool        // counts by template
	bulk      bool        // what an admin allows in bulk is not counted here

	shipped bool // as a fresh install has it
}

// newLimitRule softens a rule. One that only tells still counts as if it acted:
// what it would have stopped is not charged to it. But it shuts nothing, nor does
// any in the phase observe: enforce is not to begin with shut buckets.
func newLimitRule(phase Phase, r LimitRule) limitRule {
	l := limitRule{LimitRule: r, phase: phase, when: newWhen(r.When), whole: r.Limit, tells: r.Observe || r.Then == Tell}
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
	if r.Adapt.On() {
		l.young, l.halfYoung = unboundedButBurst(l.whole), unboundedButBurst(l.half)
	}
	l.template = slices.Contains(r.Per, limit.Template)
	l.bulk = r.Kind == limit.Volume && r.Counts != limit.Bytes && r.Counts != limit.Bounces && ofAccount(r.Per)
	return l
}

// unboundedButBurst is a limit whose longer windows only count.
func unboundedButBurst(l limit.Limit) limit.Limit {
	l.Windows = slices.Clone(l.Windows)
	for i, w := range l.Windows {
		if !w.Burst {
			l.Windows[i].Count, l.Windows[i].Soft = limit.MaxCount, true
		}
	}
	return l
}

// ofAccount reports whether the limit is one of accounts alone.
func ofAccount(per []limit.Per) bool {
	return !slices.ContainsFunc(per, func(p limit.Per) bool {
		return !slices.Contains([]limit.Per{limit.Login, limit.LocalUser, limit.SharedUser, limit.Account, limit.Network}, p)
	})
}

// NewLimits makes limits ready.
func NewLimits(o LimitsOptions) *Limits {
	if o.Location == nil {
		o.Location = time.UTC
	}
	l := &Limits{opt: o, names: map[string]*limitRule{}, shared: map[int]bool{}, sharedBy: map[string]bool{}, observe: o.Phase == Observe}
	if len(o.Overrides) > 0 {
		l.overrides = NewSwitches(o.Overrides)
	}
	for _, uid := range o.SharedUIDs {
		l.shared[uid] = true
	}
	for _, name := range o.SharedUsers {
		l.sharedBy[name] = true
	}
	for _, r := range o.Rules {
		made := newLimitRule(o.Phase, r)
		made.shipped = shipped(&r)
		l.rules = append(l.rules, made)
		l.refuses = l.refuses || r.Then >= Defer
		l.items = l.items || r.Counts == limit.Distinct || r.Counts == limit.FirstTime
		l.knows = l.knows || r.Counts == limit.FirstTime
		l.domains = l.domains || slices.Contains(r.Per, limit.RecipientDomain)
		l.plugins = l.plugins || ofPlugin(r.Per)
		l.templates = l.templates || made.template
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
	for i := range l.rules {
		r := &l.rules[i]
		l.names[r.Name] = r
	}
	l.takings.New = func() any { return new(taking) }
	return l
}

// ofPlugin reports whether the limit is one of plugins alone.
func ofPlugin(per []limit.Per) bool { return len(per) == 1 && per[0] == limit.Plugin }

// allSoft is the limit as one that only tells.
func allSoft(l limit.Limit) limit.Limit {
	l.Windows = slices.Clone(l.Windows)
	for i := range l.Windows {
		l.Windows[i].Soft = true
	}
	return l
}

// has reports whether a rule of that name is a limit.
func (l *Limits) has(name string) bool { return l != nil && l.names[name] != nil }

// Find is the limit of that name as its phase has it; nil if there is none.
func (l *Limits) Find(name string) *limit.Limit {
	if l == nil || l.names[name] == nil {
		return nil
	}
	found := l.names[name].Limit
	return &found
}
