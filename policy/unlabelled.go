package policy

import (
	"context"
	"fmt"
	"slices"

	"relayguard/policy/limit"
)

// findUnlabelled finds the bucket that mail is charged to of which the site is
// known and the plugin is not: one of a plugin of the site that is shut, so that a
// plugin does not get on by leaving out its label; else one that all such mail of
// the site has together. It is never charged to a plugin that is not shut: who
// leaves labels out is not to shut that by which passwords are reset.
func (l *Limits) findUnlabelled(ctx context.Context, sites *Sites, t *taking) error {
	o := &t.keys.o
	if !l.plugins || !o.Site.Proven() || o.Plugin.Proven() {
		return nil
	}
	value := func(plugin string) string { return "plugin:" + plugin + "@" + o.Site.Value }
	t.keys.unlabelled = value(Unlabelled)
	all := sites.Names(o.Site.Value)
	if len(all) == 0 || len(all) == 1 && all[0] == Unlabelled {
		return nil
	}
	for i := range l.rules {
		r := &l.rules[i]
		if !ofPlugin(r.Per) || !r.when.from(o) || t.s.Lifted(t.now, o, r.Name) {
			continue
		}
		for names := range slices.Chunk(all, limit.MaxCharges) {
			step := limit.Step{Known: limit.Known{Account: t.keys.stable()}}
			for _, name := range names {
				step.Charges = append(step.Charges, r.whole.Charge(value(name), 0, nil))
			}
			var out limit.Outcome
			if err := l.opt.Store.Peek(ctx, t.now, &step, &out); err != nil {
				return fmt.Errorf("look for a plugin that is shut: %w", err)
			}
			if at := slices.Index(out.Latched, true); at >= 0 {
				t.keys.unlabelled = step.Charges[at].Key.Value
				return nil
			}
		}
	}
	return nil
}

// noteShut remembers which plugins of the message's site have a bucket that is
// shut: their names do not make room for others.
func (s *Sites) noteShut(t *taking) {
	for i, r := range t.rules {
		if !ofPlugin(r.Per) || i >= len(t.out.Latched) {
			continue
		}
		if o := originOf(t.step.Charges[i].Key.Value, 1); o.Plugin.Known() {
			s.setShut(o.Site.Value, o.Plugin.Value, t.out.Latched[i])
		}
	}
}
