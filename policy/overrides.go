package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// subjectOrder is from what is about the least to what is about the most.
var subjectOrder = [...][]Subject{
	{SubjectKey}, {SubjectPlugin}, {SubjectSite}, {SubjectLogin, SubjectLocalUser, SubjectTrusted}, {SubjectDomain}, {SubjectCustomer},
}

func levelOf(s Subject) int {
	return slices.IndexFunc(subjectOrder[:], func(level []Subject) bool { return slices.Contains(level, s) })
}

// source says where the windows of a limit come from.
type source struct {
	set     *Switch // nil: the rule itself
	byHand  bool    // ordered while the guard runs, not configured
	halved  bool
	lifted  bool // it does not count at all
	adapted bool // it has grown with what is usual
	young   bool // only its burst bounds: it is not known yet what is usual
}

// inForce is what a rule charges to a bucket of an origin: its own windows or
// those set in their place, half of them on probation. Of what is set, that about
// the least counts; of two that are about the same, what was ordered by hand. Where
// nothing is set its own windows may have grown.
func (l *Limits) inForce(r *limitRule, now time.Time, s *Switches, o *origin.Origin, value string, probation bool) (*limit.Limit, source) {
	from := source{set: s.Override(now, o, r.Name, value), halved: probation}
	from.byHand = from.set != nil
	if sw := l.overrides.Override(now, o, r.Name, value); sw != nil && (from.set == nil || levelOf(sw.Subject) < levelOf(from.set.Subject)) {
		from.set, from.byHand = sw, false
	}
	switch {
	case from.set != nil:
		return r.with(from.set.Windows, probation), from
	case r.Adapt.On() && l.opt.Peaks != nil:
		in, adapted := l.adapted(r, now, o, value, probation)
		from.adapted, from.young = adapted, in == &r.young || in == &r.halfYoung
		return in, from
	case probation:
		return &r.half, from
	}
	return &r.whole, from
}

// with is what the rule would charge if it had other windows.
func (r *limitRule) with(windows []limit.Window, probation bool) *limit.Limit {
	in := r.whole
	in.Windows = windows
	if r.phase == Learning && !r.tells {
		in.Windows = withBurst(windows, r.whole.Windows)
		in = in.Softened()
	}
	if probation {
		in = in.Halved()
	}
	in.Windows = beside(in.Windows, r.whole.Windows)
	return &in
}

// withBurst are windows with the rule's own burst if they have none: it is what
// acts while the guard learns, and a smaller limit is not to let more pass.
func withBurst(windows, own []limit.Window) []limit.Window {
	i := slices.IndexFunc(own, func(w limit.Window) bool { return w.Burst })
	if i < 0 || len(windows) >= limit.MaxWindows || slices.ContainsFunc(windows, func(w limit.Window) bool { return w.Burst || w.Length <= own[i].Length }) {
		return windows
	}
	return append(slices.Clone(windows), own[i])
}

// beside are windows that stand in for a rule's own. Lengths that only the rule
// has go on to be counted, without a bound: what is set for a time would else be
// a fresh budget after it.
func beside(windows, own []limit.Window) []limit.Window {
	all := slices.Clone(windows)
	longest := slices.SortedFunc(slices.Values(own), func(a, b limit.Window) int { return cmp.Compare(b.Length, a.Length) })
	for _, w := range longest {
		if len(all) < limit.MaxWindows && !slices.ContainsFunc(all, func(o limit.Window) bool { return o.Length == w.Length }) {
			all = append(all, limit.Window{Count: limit.MaxCount, Length: w.Length, Soft: true})
		}
	}
	return all
}

// bounded reports whether a window bounds anything.
func bounded(w limit.Window) bool { return w.Count < limit.MaxCount }

// InForce is the limit as it is for one bucket, whose value tells the account;
// nil if there is no such limit.
func (l *Limits) InForce(now time.Time, s *Switches, name, value string) *limit.Limit {
	if l == nil || l.names[name] == nil {
		return nil
	}
	r := l.names[name]
	o := l.whose(r, value)
	in, _ := l.inForce(r, now, s, &o, value, s.OnProbation(now, &o))
	found := *in
	if r.tells {
		found = allSoft(found)
	}
	found.Kind = r.Kind
	found.Windows = slices.DeleteFunc(slices.Clone(found.Windows), func(w limit.Window) bool { return !bounded(w) })
	return &found
}

// originOf is who has a bucket of so many parts, as far as its value tells.
func originOf(value string, parts int) origin.Origin {
	o := origin.Origin{UID: origin.NoUID, NodeUID: origin.NoUID}
	all := []string{value}
	if parts > 1 {
		all = strings.Split(value, " ")
	}
	for _, part := range all {
		kind, v, _ := strings.Cut(part, ":")
		if parts > 1 {
			v = strings.ReplaceAll(v, "%20", " ")
		}
		key := origin.Key{Value: v, Confidence: origin.Kernel}
		switch kind {
		case "login":
			o.Login = key
		case "local_user":
			account, node, on := strings.Cut(v, "@")
			o.LocalUser = key
			switch uid, ok := parseUID(account); {
			case ok && on:
				o.NodeUID = uid
			case ok:
				o.UID = uid
			}
			if on {
				o.Node = origin.Key{Value: node, Confidence: origin.Kernel}
			}
		case "node":
			o.Node = key
		case "network":
			o.Network = key
		case "template":
			o.Template = key
		case "customer":
			o.Customer = key
		case "site", "domain":
			o.Site = key
		case "plugin":
			if at := strings.LastIndexByte(key.Value, '@'); at >= 0 {
				o.Plugin, o.Site = origin.Key{Value: key.Value[:at], Confidence: origin.Kernel}, origin.Key{Value: key.Value[at+1:], Confidence: origin.Kernel}
			}
		}
	}
	return o
}
