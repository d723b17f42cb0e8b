package policy

import (
	"slices"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// untilUsual is how long it takes until something is known of what is usual: two
// days that count, and the next.
const untilUsual = 3 * 24 * time.Hour

// rushes is which part of a day that has grown may come within a burst: a sale
// begins at ten.
const rushes = 3

// adapted is what a rule charges to a bucket that may have grown with what it is
// used to. Where nothing is known yet, its longer windows only count: a shop's
// orders all go to new customers, also on the day of installation.
func (l *Limits) adapted(r *limitRule, now time.Time, o *origin.Origin, value string, probation bool) (in *limit.Limit, grown bool) {
	if l.unusual(now, r.phase, o) {
		if probation {
			return &r.halfYoung, false
		}
		return &r.young, false
	}
	var counts [limit.MaxWindows]int64
	key := limit.Key{Limit: r.Name, Value: value}
	rush := int64(0)
	for i, w := range r.whole.Windows {
		counts[i] = times(l.opt.Peaks.Largest(now, key, w.Length, r.Adapt.Days), r.Adapt.Times)
		if counts[i] > w.Count && w.Length >= 24*time.Hour {
			rush = max(rush, counts[i]/rushes)
		}
	}
	for i, w := range r.whole.Windows {
		if w.Burst {
			counts[i] = max(counts[i], rush)
		}
		grown = grown || counts[i] > w.Count
	}
	switch {
	case !grown && probation:
		return &r.half, false
	case !grown:
		return &r.whole, false
	}
	adapted := r.whole
	adapted.Windows = slices.Clone(adapted.Windows)
	for i := range adapted.Windows {
		w := &adapted.Windows[i]
		w.Count = max(w.Count, counts[i])
	}
	if probation {
		adapted = adapted.Halved()
	}
	return &adapted, true
}

// Everybody is to whom Peaks grants patience when a guard begins to learn what is
// usual, in whatever phase: an installation, or an upgrade of one that did not.
const Everybody = "server"

// unusual reports whether nothing is known yet of what is usual: while the guard
// learns, of a site or an account that is new to it; in any phase, of a site that
// an admin has registered just now.
func (l *Limits) unusual(now time.Time, phase Phase, o *origin.Origin) bool {
	met, granted := l.opt.Peaks.Met(l.abode(o))
	began, all := l.opt.Peaks.Met(Everybody)
	switch {
	case granted && now.Sub(met) < untilUsual, all && now.Sub(began) < untilUsual:
		return true
	case phase != Learning:
		return false
	}
	since := l.opt.Peaks.Since()
	return since.IsZero() || now.Sub(since) < untilUsual || l.abode(o) != "" && (met.IsZero() || now.Sub(met) < untilUsual)
}

// meet remembers since when a site or an account is known. That a web node signs
// for a site begins when it is registered there: then its orders did not begin
// today.
func (l *Limits) meet(now time.Time, o *origin.Origin) {
	who := l.abode(o)
	if met, _ := l.opt.Peaks.Met(who); met.IsZero() && o.Node.Known() && o.Site.Proven() {
		l.opt.Peaks.Grant(now, who)
		return
	}
	l.opt.Peaks.Meet(now, who)
	l.opt.Peaks.Meet(now, Everybody) // who was granted patience while the clock was ahead has it from now
}

// times is a product that still bounds something.
func times(count, factor int64) int64 {
	if count > 0 && factor > (limit.MaxCount-1)/count {
		return limit.MaxCount - 1
	}
	return count * factor
}

// note remembers what the windows of rules that adapt hold after a message that
// is charged.
func (l *Limits) note(t *taking) {
	if l.opt.Peaks == nil {
		return
	}
	looked, started := false, false
	for i := range t.out.Uses {
		u := &t.out.Uses[i]
		r := t.rules[u.Charge]
		if !r.Adapt.On() || u.Amount == 0 || r.tells && !t.fits(u.Charge) {
			continue
		}
		if !started {
			l.opt.Peaks.Start(t.now)
			l.meet(t.now, &t.keys.o)
			started = true
		}
		if u.Window.Length != 24*time.Hour && times(u.Used+u.Amount, r.Adapt.Times) <= r.own(u.Window.Length) {
			continue // it makes no difference; of a day everything counts
		}
		if !looked && l.opt.Peaks.Voided(t.now, limit.Key{Value: l.abode(&t.keys.o)}) {
			return // of abuse of another bucket of the same site
		}
		looked = true
		l.opt.Peaks.Note(t.now, t.step.Charges[u.Charge].Key, u.Window.Length, u.Used, u.Amount)
	}
}

// own is the count of the rule's own window of that length; MaxCount without one.
func (r *limitRule) own(length time.Duration) int64 {
	for _, w := range r.LimitRule.Windows {
		if w.Length == length {
			return w.Count
		}
	}
	return limit.MaxCount
}

// void makes the day count for nothing in the buckets that a message has shut, and
// in all of its site, or else of its account.
func (l *Limits) void(t *taking) {
	peaks := l.opt.Peaks
	if peaks == nil || l.observe {
		return
	}
	tripped := false
	for i := range t.step.Charges {
		c := &t.step.Charges[i]
		if c.Kind != limit.Abuse || c.Tells || !t.out.Latched[i] {
			continue
		}
		tripped = true
		if !peaks.Voided(t.now, c.Key) {
			peaks.VoidKey(t.now, c.Key)
		}
	}
	abode := limit.Key{Value: l.abode(&t.keys.o)}
	if !tripped || abode.Value == "" || peaks.Voided(t.now, abode) {
		return
	}
	peaks.Void(t.now, abode.Value)
}

// abode is the site of a message, else the account unless many share it; "" if
// there is neither.
func (l *Limits) abode(o *origin.Origin) string {
	switch kind, _ := o.Account(); {
	case o.Site.Proven():
		return "site:" + o.Site.Value
	case kind == origin.KindLogin, kind == origin.KindLocalUser && !l.isShared(o):
		return o.Stable()
	}
	return ""
}
