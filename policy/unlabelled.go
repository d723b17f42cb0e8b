package policy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// tightest is how much room the buckets of a site's plugins have: mail without a
// name gets no more than the least of them, so that a plugin gains nothing by
// leaving out its label. It is charged to a bucket of its own all the same: who
// abuses it is not to shut that of a plugin that did nothing, such as the one by
// which passwords are reset.
type tightest struct {
	shut  string // bucket value of a plugin that is shut; "": none is
	rooms []room
}

// room is what a window of a rule has left for mail without a name.
type room struct {
	rule   *limitRule
	length time.Duration
	least  int64 // of the buckets of all plugins
}

// findTightest finds what there is for mail of which the site is known and the
// plugin is not. Of the site's own software only that matters which is shut.
func (l *Limits) findTightest(ctx context.Context, sites *Sites, t *taking) error {
	o := &t.keys.o
	if !l.plugins || !o.Site.Proven() || o.Plugin.Proven() {
		return nil
	}
	site := o.Site.Value
	sites.Admit(t.now, site, Unlabelled)
	names := sites.Names(site)
	found := &tightest{}
	if len(names) > 1 || len(names) == 1 && names[0] != Unlabelled {
		for i := range l.rules {
			if r := &l.rules[i]; ofPlugin(r.Per) && !t.s.Lifted(t.now, o, r.Name) {
				if err := l.lookAt(ctx, r, t, sites, names, found); err != nil {
					return err
				}
			}
		}
	}
	if t.keys.unlabelled = found.shut; found.shut == "" {
		t.keys.unlabelled, t.keys.rooms = "plugin:"+Unlabelled+"@"+site, found.rooms
	}
	return nil
}

// lookAt asks how the buckets of plugins of a site stand under a rule.
func (l *Limits) lookAt(ctx context.Context, r *limitRule, t *taking, sites *Sites, names []string, found *tightest) error {
	probation := t.s.OnProbation(t.now, &t.keys.o)
	site := t.keys.o.Site.Value
	for part := range slices.Chunk(names, limit.MaxCharges) {
		step := limit.Step{Known: limit.Known{Account: t.keys.stable()}}
		for _, name := range part {
			o := t.keys.o
			o.Plugin = origin.Key{Value: name, Confidence: origin.Signed}
			value := "plugin:" + name + "@" + site
			in, _ := l.inForce(r, t.now, t.s, &o, value, probation)
			step.Charges = append(step.Charges, in.Charge(value, 0, nil))
		}
		var out limit.Outcome
		if err := l.opt.Store.Peek(ctx, t.now, &step, &out); err != nil {
			return fmt.Errorf("look for the plugin with the least room: %w", err)
		}
		for i := range out.Uses {
			if u := &out.Uses[i]; !u.Window.Soft {
				found.add(r, part[u.Charge], u)
			}
		}
		for i, latched := range out.Latched {
			if sites.setShut(site, part[i], latched); latched && found.shut == "" {
				found.shut = step.Charges[i].Key.Value
			}
		}
	}
	return nil
}

// add takes in how one window of a plugin's bucket stands.
func (f *tightest) add(r *limitRule, plugin string, u *limit.Use) {
	i := slices.IndexFunc(f.rooms, func(one room) bool { return one.rule == r && one.length == u.Window.Length })
	if i < 0 {
		i = len(f.rooms)
		f.rooms = append(f.rooms, room{rule: r, length: u.Window.Length, least: limit.MaxCount})
	}
	if plugin != Unlabelled && plugin != origin.OwnSoftware {
		f.rooms[i].least = min(f.rooms[i].least, max(u.Window.Count-u.Used, 0))
	}
}

// squeezed are the windows of the bucket of mail without a name: together with any
// plugin of the site it is no more than that plugin may send.
func (k *keys) squeezed(r *limitRule, value string, in *limit.Limit) *limit.Limit {
	if len(k.rooms) == 0 || value != k.unlabelled {
		return in
	}
	small := *in
	small.Windows = slices.Clone(in.Windows)
	for i := range small.Windows {
		w := &small.Windows[i]
		for _, one := range k.rooms {
			if one.rule == r && one.length == w.Length && !w.Soft {
				w.Count = max(min(w.Count, one.least), 1)
			}
		}
	}
	return &small
}

// noteShut remembers which plugins of the message's site have a bucket that is
// shut.
func (s *Sites) noteShut(t *taking) {
	for i, r := range t.rules {
		if !ofPlugin(r.Per) || !t.out.Latched[i] {
			continue
		}
		if o := originOf(t.step.Charges[i].Key.Value, 1); o.Plugin.Known() {
			s.setShut(o.Site.Value, o.Plugin.Value, true)
		}
	}
}
