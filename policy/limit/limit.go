package limit

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxWindows is how many windows a limit can have.
const MaxWindows = 6

// Limit is a rule that counts. It is not changed after Check.
type Limit struct {
	Name    string // as configured; names its buckets, too
	Per     []Per  // parts of the key, one or several, each once
	Counts  Unit
	Kind    Kind
	Windows []Window // of different lengths; all must have room
}

// Check returns every fault of the limit, joined.
func (l Limit) Check() error {
	at := l.Name
	var errs []error
	if l.Name == "" {
		at = "limit"
		errs = append(errs, errors.New("limit.name: got none; name it, verdicts cite it"))
	}
	errs = append(errs, checkPer(at, l.Per)...)
	if l.Counts < Messages || l.Counts > Bounces {
		errs = append(errs, fmt.Errorf("%s.counts: got %s, want one of %q", at, l.Counts, Units()))
	}
	if l.Kind != Volume && l.Kind != Abuse {
		errs = append(errs, fmt.Errorf("%s.kind: got %s, want one of %q", at, l.Kind, Kinds()))
	}
	return errors.Join(append(errs, checkWindows(at, l.Windows)...)...)
}

func checkPer(at string, per []Per) []error {
	var errs []error
	if len(per) == 0 {
		errs = append(errs, fmt.Errorf("%s.per: got none, want one or several of %q", at, Pers()))
	}
	for i, p := range per {
		switch {
		case p < Login || p > Server:
			errs = append(errs, fmt.Errorf("%s.per: got %s, want one of %q", at, p, Pers()))
		case slices.Contains(per[:i], p):
			errs = append(errs, fmt.Errorf("%s.per: got %q a second time; name it once", at, p))
		}
	}
	return errs
}

func checkWindows(at string, windows []Window) []error {
	var errs []error
	if len(windows) < 1 || len(windows) > MaxWindows {
		errs = append(errs, fmt.Errorf("%s.windows: got %d, want 1 to %d; delete the limit to lift it", at, len(windows), MaxWindows))
	}
	for i, w := range windows {
		at := fmt.Sprintf("%s.windows[%d]", at, i)
		if err := w.check(at); err != nil {
			errs = append(errs, err)
		}
		for _, other := range windows[:i] {
			if other.Length == w.Length {
				errs = append(errs, fmt.Errorf("%s.length: got %s a second time; keep the smaller count", at, w.Length))
				break
			}
		}
		if w.Burst && slices.ContainsFunc(windows, func(o Window) bool { return o.Length < w.Length }) {
			errs = append(errs, fmt.Errorf("%s.length: got %s for the burst, want the shortest of the limit's windows", at, w.Length))
		}
	}
	return errs
}

// Softened is the limit as it acts while the guard learns: its burst is hard,
// its other windows only tell. An abuse limit stays as it is.
func (l Limit) Softened() Limit {
	if l.Kind == Abuse {
		return l
	}
	return l.with(func(w *Window) { w.Soft = w.Soft || !w.Burst })
}

// Halved is the limit on probation: half of each count, at least 1.
func (l Limit) Halved() Limit {
	return l.with(func(w *Window) { w.Count = max(w.Count/2, 1) })
}

// with is a copy with changed windows. It has the name, so the buckets too.
func (l Limit) with(change func(*Window)) Limit {
	l.Windows = slices.Clone(l.Windows)
	for i := range l.Windows {
		change(&l.Windows[i])
	}
	return l
}

// Charge is what a message takes from the bucket of value. Distinct and
// FirstTime count the items, all other units the amount, of which Bounces only
// asks when it is 0. Neither windows nor items are copied.
func (l *Limit) Charge(value string, amount int64, items []Item) Charge {
	return Charge{Key: Key{Limit: l.Name, Value: value}, Kind: l.Kind, Counts: l.Counts, Windows: l.Windows, Amount: amount, Items: items}
}

// Default is a limit of a fresh install, and when it is asked.
type Default struct {
	Limit
	Adapt   Adapt
	Outside bool     // only recipients outside count
	Origins []string // patterns of whose mail it is about; none: everybody's
}

// Defaults are the limits of a fresh install, for the keys that this package
// knows. The caller owns the slice.
func Defaults() []Default {
	const hour, day = time.Hour, 24 * time.Hour
	volume := func(name string, per Per, windows ...Window) Default {
		return Default{Limit: Limit{Name: name, Per: []Per{per}, Counts: Recipients, Kind: Volume, Windows: windows}}
	}
	burst := func(count int64) Window { return Window{Count: count, Length: 10 * time.Minute, Burst: true} }
	strangers := func(name string, per Per) Default {
		return Default{
			Limit: Limit{Name: name, Per: []Per{per}, Counts: FirstTime, Kind: Abuse, Windows: []Window{burst(25), {Count: 40, Length: day}}},
			Adapt: Adapt{Times: 3, Days: 21},
		}
	}
	template := strangers("template-first-time", Template)
	template.Outside, template.Origins = true, []string{"local_user:*", "node:*"}
	return []Default{
		volume("login-volume", Login, burst(150), Window{Count: 300, Length: hour}, Window{Count: 1500, Length: day}),
		volume("local-user-volume", LocalUser, burst(150), Window{Count: 300, Length: hour}, Window{Count: 2000, Length: day}),
		volume("shared-user-volume", SharedUser, burst(1500), Window{Count: 3000, Length: hour}, Window{Count: 20000, Length: day}),
		volume("site-volume", Site, burst(150), Window{Count: 300, Length: hour}, Window{Count: 2000, Length: day}),
		volume("machine-volume", Machine, burst(250), Window{Count: 500, Length: hour}),
		strangers("plugin-first-time", Plugin),
		template,
	}
}
