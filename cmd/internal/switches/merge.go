package switches

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/policy"
)

const (
	// maxGone bounds what was taken back and is remembered; the oldest go.
	maxGone = 10_000
	// KeepGone is how long it is remembered that a switch was taken back: a relay
	// that was away for longer may bring it back.
	KeepGone = 30 * 24 * time.Hour
	// maxMerged is how many switches other relays may fill the file with: room for
	// orders of this one is left.
	maxMerged = maxSwitches - 10_000
)

// What is what a switch is about: two about the same are one.
type What struct {
	Kind    policy.SwitchKind `json:"kind"`
	Subject policy.Subject    `json:"subject,omitempty"`
	Value   string            `json:"value,omitempty"`
	Rule    string            `json:"rule,omitempty"`
}

func whatOf(s *policy.Switch) What { return What{s.Kind, s.Subject, s.Value, s.Rule} }

// Gone is a switch that was taken back.
type Gone struct {
	What
	Changed time.Time `json:"changed"`
}

// check brings it into the one form of its switch, or says what is wrong.
func (g *Gone) check() error {
	s := policy.Switch{Kind: g.Kind, Subject: g.Subject, Value: g.Value, Rule: g.Rule}
	if err := s.CheckSubject(); err != nil {
		return err
	}
	g.What, g.Changed = whatOf(&s), stamp(g.Changed)
	return nil
}

// UseClock lets changes be dated by a clock that all relays share, in place of
// this machine's.
func (f *File) UseClock(clock func() time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = clock
}

// OnChange has a function called after each Set and Remove that changed
// something. It must not wait.
func (f *File) OnChange(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onChange = do
}

func (f *File) changed() {
	f.mu.Lock()
	do := f.onChange
	f.mu.Unlock()
	if do != nil {
		do()
	}
}

// after is when a change of what was known is dated: after it, whatever clock
// dated that.
func (f *File) after(what What) time.Time {
	now := time.Now
	if f.clock != nil {
		now = f.clock
	}
	at := stamp(now())
	last := time.Time{}
	if i := slices.IndexFunc(f.all, func(s policy.Switch) bool { return whatOf(&s) == what }); i >= 0 {
		last = changedAt(&f.all[i])
	}
	if i := slices.IndexFunc(f.gone, func(g Gone) bool { return g.What == what }); i >= 0 {
		last = f.gone[i].Changed
	}
	if !at.After(last) {
		at = stamp(last.Add(time.Microsecond))
	}
	return at
}

// changedAt is when a switch was changed last; those of old files do not say.
func changedAt(s *policy.Switch) time.Time {
	if s.Changed.IsZero() {
		return stamp(s.Since)
	}
	return stamp(s.Changed)
}

// bury remembers that a switch was taken back. The red switch is no other relay's
// business.
func (f *File) bury(g Gone) {
	if g.Kind == policy.Stop {
		return
	}
	f.gone = slices.DeleteFunc(f.gone, func(o Gone) bool { return o.What == g.What || g.Changed.Sub(o.Changed) > KeepGone })
	f.gone = append(f.gone, g)
	if len(f.gone) > maxGone {
		f.gone = slices.Delete(f.gone, 0, len(f.gone)-maxGone)
	}
}

// Entry is the last that is known of a switch: as it is, or that it was taken
// back.
type Entry struct {
	What    What
	Changed time.Time
	Switch  *policy.Switch // nil: it was taken back; never modified
}

// Entries lists the last that is known of every switch, the red switch apart.
func (f *File) Entries() []Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Entry, 0, len(f.all)+len(f.gone))
	for _, s := range f.all {
		if s.Kind != policy.Stop {
			all = append(all, entryOf(s))
		}
	}
	for _, g := range f.gone {
		all = append(all, Entry{What: g.What, Changed: g.Changed})
	}
	return all
}

func entryOf(s policy.Switch) Entry {
	s.Changed = changedAt(&s)
	return Entry{What: whatOf(&s), Changed: s.Changed, Switch: &s}
}

// Merged is what a merge changed here.
type Merged struct {
	Arrived []policy.Switch // in force now, or otherwise than they were
	Left    []policy.Switch // taken back, as they were
	Over    int             // not taken: there are too many
}

// Merge takes over what other relays know and what is newer than what this one
// does. The entries must have passed Decode. With an error what it tells is in
// force, but will not outlive the daemon.
func (f *File) Merge(now time.Time, entries []Entry) (Merged, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := make(map[What]Entry, len(f.all)+len(f.gone))
	for i := range f.all {
		known[whatOf(&f.all[i])] = entryOf(f.all[i])
	}
	for _, g := range f.gone {
		known[g.What] = Entry{What: g.What, Changed: g.Changed}
	}
	var m Merged
	newer := map[What]Entry{}
	room := maxMerged - len(f.all)
	for _, e := range entries {
		old, ok := known[e.What]
		switch {
		case e.What.Kind == policy.Stop || ok && !e.Supersedes(&old):
			continue
		case old.Switch == nil && e.Switch == nil && now.Sub(e.Changed) > KeepGone:
			continue
		case old.Switch == nil && e.Switch != nil && e.Switch.Over(now):
			continue // it has ended, and nothing here to end
		case old.Switch == nil && e.Switch != nil && room <= 0:
			m.Over++
			continue
		}
		newer[e.What], known[e.What] = e, e
		switch {
		case e.Switch != nil:
			m.Arrived = append(m.Arrived, *e.Switch)
		case old.Switch != nil:
			m.Left = append(m.Left, *old.Switch)
		}
		if old.Switch == nil && e.Switch != nil {
			room--
		}
	}
	if len(newer) == 0 {
		return m, nil
	}
	return m, f.take(newer)
}

// take puts what is newer into force.
func (f *File) take(newer map[What]Entry) error {
	all := slices.DeleteFunc(slices.Clone(f.all), func(s policy.Switch) bool { _, ok := newer[whatOf(&s)]; return ok })
	f.gone = slices.DeleteFunc(f.gone, func(g Gone) bool { _, ok := newer[g.What]; return ok })
	for _, e := range newer {
		if e.Switch != nil {
			all = append(all, *e.Switch)
		} else {
			f.gone = append(f.gone, Gone{e.What, e.Changed})
		}
	}
	slices.SortFunc(f.gone, func(a, b Gone) int { return a.Changed.Compare(b.Changed) })
	if len(f.gone) > maxGone {
		f.gone = slices.Delete(f.gone, 0, len(f.gone)-maxGone)
	}
	if err := f.use(all); err != nil {
		return errors.Join(fmt.Errorf("merge %d changes of other relays", len(newer)), err)
	}
	return nil
}

// Redate gives what is dated after latest the date of at: a clock was wrong. It
// reports whether there was anything.
func (f *File) Redate(latest, at time.Time) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, found := stamp(at), false
	all, gone := slices.Clone(f.all), slices.Clone(f.gone)
	for i := range all {
		if all[i].Kind != policy.Stop && changedAt(&all[i]).After(latest) {
			all[i].Changed, found = at, true
		}
	}
	for i := range gone {
		if gone[i].Changed.After(latest) {
			gone[i].Changed, found = at, true
		}
	}
	if !found {
		return false, nil
	}
	f.gone = gone
	return true, f.use(all)
}

// Supersedes reports whether e is the newer of two about the same. Of two of the
// same microsecond all relays prefer the same one.
func (e *Entry) Supersedes(o *Entry) bool {
	if c := e.Changed.Compare(o.Changed); c != 0 {
		return c > 0
	}
	return cmp.Compare(string(e.Encode()), string(o.Encode())) > 0
}
