// Package scan reads every place of a plan and keeps what it says, so that a
// change of one file costs reading that place alone.
//
// It decides nothing: the graph of package judge does. The trap: tables that
// cannot be listed are tried with the addresses that are known, and those are
// known only when the rest was read; so they are read twice in a full scan.
package scan

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/forward"
	"relayguard/forward/judge"
)

// Planner makes the plan of what there is to be read, from what is configured
// by then. Known are addresses to try on tables that cannot be listed.
type Planner func(ctx context.Context, known func() []string) forward.Plan

// Options of a scanner. The zero value is fit for use.
type Options struct {
	Workers int // read at once; 0: as many as there are processors
	// Progress is told how many units are read, by several goroutines at once.
	Progress func(done, total int)
}

// Change is what one unit's reading changed.
type Change struct {
	Unit string
	judge.Delta
}

// Scanner holds what was read. Safe for concurrent use; one scan runs at a time,
// the others wait.
type Scanner struct {
	planner Planner
	o       Options

	full     sync.Mutex // held by who plans: All and Quick
	scanning sync.Mutex // held by who reads single units, or puts a plan in force

	reread uint64 // units read by themselves so far

	asked atomic.Bool // somebody asked for known addresses
	known atomic.Pointer[[]string]

	graph atomic.Pointer[judge.Graph] // asked while mail waits: behind no lock

	usual   map[string]bool // sources of gaps that the plan always has; only who scans
	odd     time.Time       // since when there are others
	emptied time.Time       // since when most places say nothing; only who scans

	mu    sync.RWMutex // held for moments only
	plan  forward.Plan
	units map[string]*unit
	places
	turn uint64 // grows with the paths
}

type unit struct {
	forward.Unit
	forward.Reading                 // the last one
	reread          uint64          // the turn of the last Again that read it
	usual           map[string]bool // sources of its gaps when it was last read as far as ever
}

// take remembers a reading. What a place said before stands, if something of it
// cannot be read by now that could: a database that is away forwards nothing less,
// nor does a list whose file is closed.
func (u *unit) take(r forward.Reading, before *unit) {
	usual := make(map[string]bool, len(r.Gaps))
	for _, g := range r.Gaps {
		usual[g.Source] = true
	}
	if before != nil && slices.ContainsFunc(r.Gaps, func(g forward.Gap) bool { return !before.usual[g.Source] }) {
		there := make(map[forward.Rule]bool, len(r.Rules))
		for _, rule := range r.Rules {
			there[rule] = true
		}
		r.Rules = slices.Clip(r.Rules)
		for _, rule := range before.Rules {
			if !there[rule] {
				r.Rules = append(r.Rules, rule)
			}
		}
		usual = before.usual
	}
	u.Reading, u.usual = r, usual
}

// New makes a scanner that has read nothing.
func New(planner Planner, o Options) *Scanner {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	s := &Scanner{planner: planner, o: o, units: map[string]*unit{}}
	s.graph.Store(judge.New(forward.World{}))
	s.known.Store(&[]string{})
	return s
}

// All makes a new plan, reads every unit of it, and returns what differs from
// what was known. After the first scan that is everything. It ends early, with
// ctx's error and nothing changed, when ctx ends.
//
// Single units may be read again meanwhile.
func (s *Scanner) All(ctx context.Context) ([]Change, error) {
	s.full.Lock()
	defer s.full.Unlock()
	begin := s.turns()
	plan := s.newPlan(ctx)
	units := make([]*unit, len(plan.Units))
	for i := range plan.Units {
		units[i] = &unit{Unit: plan.Units[i]}
	}
	s.learnKnown(&plan, nil)
	readings, err := s.read(ctx, units)
	if err != nil {
		return nil, err
	}
	if s.asked.Load() { // by now all addresses are known
		s.learnKnown(&plan, readings)
		if err := s.again(ctx, units, readings); err != nil {
			return nil, err
		}
	}
	return s.replace(ctx, begin, plan, units, readings), nil
}

// Quick makes a new plan and reads only the server's units of it and those that
// are new or look elsewhere than before: what a changed setting changes for
// everybody is known at once. It is no full scan: call All after it.
func (s *Scanner) Quick(ctx context.Context) ([]Change, error) {
	s.full.Lock()
	defer s.full.Unlock()
	begin := s.turns()
	plan := s.newPlan(ctx)
	units := make([]*unit, len(plan.Units))
	readings := make([]forward.Reading, len(plan.Units))
	var fresh []*unit
	var at []int
	for i := range plan.Units {
		units[i] = &unit{Unit: plan.Units[i]}
		s.mu.RLock()
		old := s.units[plan.Units[i].ID]
		s.mu.RUnlock()
		if old != nil && !old.Server && slices.Equal(old.Paths, units[i].Paths) {
			readings[i] = old.Reading
			continue
		}
		fresh, at = append(fresh, units[i]), append(at, i)
	}
	read, err := s.read(ctx, fresh)
	if err != nil {
		return nil, err
	}
	for i, n := range at {
		readings[n] = read[i]
	}
	return s.replace(ctx, begin, plan, units, readings), nil
}

// turns is how many units were read by themselves so far.
func (s *Scanner) turns() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.reread
}

// newPlan makes a plan. If something cannot be read by now that could before, what
// the plan lacks is kept as it was: a database that is away has no fewer domains,
// and a mail server whose settings are being written no fewer rules.
func (s *Scanner) newPlan(ctx context.Context) forward.Plan {
	plan := s.planner(ctx, s.knownAddresses)
	s.mu.RLock()
	defer s.mu.RUnlock()
	odd := slices.ContainsFunc(plan.Gaps, func(g forward.Gap) bool { return !s.usual[g.Source] })
	switch now := time.Now(); {
	case s.usual == nil || !odd:
		s.odd = time.Time{}
		return plan
	case s.odd.IsZero():
		s.odd = now
	case now.Sub(s.odd) > keepMissing:
		s.usual = nil // learnt anew
		return plan
	}
	plan.Add(forward.Plan{World: s.plan.World, Units: s.plan.Units, Uses: s.plan.Uses})
	slices.Sort(plan.Uses)
	plan.Uses = slices.Compact(plan.Uses)
	return plan
}

// keepMissing is how long what a plan lacks is kept because something cannot be
// read.
const keepMissing = 24 * time.Hour

// again reads the server's units once more: its tables may have asked for known
// addresses.
func (s *Scanner) again(ctx context.Context, units []*unit, readings []forward.Reading) error {
	var server []*unit
	var at []int
	for i, u := range units {
		if u.Server {
			server, at = append(server, u), append(at, i)
		}
	}
	more, err := s.read(ctx, server)
	if err != nil {
		return err
	}
	for i, n := range at {
		readings[n] = more[i]
	}
	return nil
}

// read reads units, several at once.
func (s *Scanner) read(ctx context.Context, units []*unit) ([]forward.Reading, error) {
	readings := make([]forward.Reading, len(units))
	var next, done atomic.Int64
	var workers sync.WaitGroup
	for range min(s.o.Workers, len(units)) {
		workers.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(units) || ctx.Err() != nil {
					return
				}
				readings[n] = units[n].Read(ctx)
				if d := done.Add(1); s.o.Progress != nil {
					s.o.Progress(int(d), len(units))
				}
			}
		})
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("scan forwarding rules: %d of %d places read: %w", done.Load(), len(units), err)
	}
	return readings, nil
}

// replace puts a full scan in place of what was known.
func (s *Scanner) replace(ctx context.Context, begin uint64, plan forward.Plan, units []*unit, readings []forward.Reading) []Change {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	for i, u := range units {
		if old := s.units[u.ID]; old != nil && old.reread > begin { // it has changed since this scan began
			readings[i], u.reread = u.Read(ctx), old.reread
		}
	}
	rules := make(map[string][]forward.Rule, len(units))
	s.away(units, readings)
	for i, u := range units {
		u.take(readings[i], s.units[u.ID]) // only who scans changes s.units
		rules[u.ID] = u.Rules
	}
	graph := judge.New(plan.World)
	graph.Load(rules)
	changes := differences(s.Graph().Findings(), graph.Findings())
	if s.usual == nil { // what cannot be read at first is not what goes missing later
		s.usual = map[string]bool{}
		for _, g := range plan.Gaps {
			s.usual[g.Source] = true
		}
	}
	byID := make(map[string]*unit, len(units))
	for _, u := range units {
		byID[u.ID] = u
	}
	ways := newPlaces(byID, &plan)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.plan, s.units, s.places = plan, byID, ways
	s.turn++
	s.graph.Store(graph)
	return changes
}

// Where so many places have lost all their rules at once, and most of those that had
// any, something is not mounted.
const manyAway = 20

// away makes a gap of each place that said something and now says nothing, if these
// are most of all at once.
func (s *Scanner) away(units []*unit, readings []forward.Reading) {
	had, lost := 0, 0
	gone := func(i int) bool {
		old := s.units[units[i].ID]
		return old != nil && len(old.Rules) > 0 && len(readings[i].Rules)+len(readings[i].Gaps) == 0
	}
	for i, u := range units {
		if old := s.units[u.ID]; old != nil && len(old.Rules) > 0 {
			had++
		}
		if gone(i) {
			lost++
		}
	}
	if lost <= manyAway || 2*lost <= had {
		s.emptied = time.Time{}
		return
	}
	switch now := time.Now(); {
	case s.emptied.IsZero():
		s.emptied = now
	case now.Sub(s.emptied) > keepMissing: // they are gone
		return
	}
	for i, u := range units {
		if gone(i) {
			readings[i].Gaps = []forward.Gap{{Source: u.ID, Why: "most places have lost their rules at once: is something not mounted?"}}
		}
	}
}

// Polled are the units that nobody tells changes of.
func (s *Scanner) Polled() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var ids []string
	for id, u := range s.units {
		if u.Poll {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Again reads some units anew and returns what changed. Units that are not in
// the plan are passed over.
func (s *Scanner) Again(ctx context.Context, ids []string) ([]Change, error) {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	var stale []*unit
	s.mu.RLock()
	for _, id := range ids {
		if u := s.units[id]; u != nil {
			stale = append(stale, u)
		}
	}
	s.mu.RUnlock()
	readings, err := s.read(ctx, stale)
	if err != nil {
		return nil, err
	}
	graph := s.Graph()
	var changes []Change
	for i, u := range stale {
		s.remember(u, readings[i])
		if delta := graph.Set(u.ID, u.Rules); len(delta.Appeared)+len(delta.Gone) > 0 {
			changes = append(changes, Change{Unit: u.ID, Delta: delta})
		}
	}
	return changes, nil
}

// remember takes one unit's reading.
func (s *Scanner) remember(u *unit, r forward.Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := !slices.Equal(u.Uses, r.Uses)
	u.take(r, u)
	s.reread++
	u.reread = s.reread
	if moved {
		s.turn++
		s.places.add(u, false) // what it no longer uses costs one reading too many
	}
}

// Unit finds one by its ID.
func (s *Scanner) Unit(id string) (forward.Unit, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := s.units[id]
	if u == nil {
		return forward.Unit{}, false
	}
	return u.Unit, true
}

// Whole reports whether the unit with that ID was read without a gap the last time.
func (s *Scanner) Whole(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := s.units[id]
	return u != nil && len(u.Gaps) == 0
}

// Of are the findings that a unit's rules make.
func (s *Scanner) Of(id string) []forward.Finding {
	return slices.DeleteFunc(s.Graph().Findings(), func(f forward.Finding) bool { return f.Unit != id })
}

// Units is how many there are.
func (s *Scanner) Units() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.units)
}

// Graph is the present state; it goes on changing. It may be asked while mail
// waits: no scan holds it up.
func (s *Scanner) Graph() *judge.Graph { return s.graph.Load() }

// World is what the present plan takes for ours.
func (s *Scanner) World() forward.World {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.plan.World
}

// Gaps is what could not be read, by source.
func (s *Scanner) Gaps() []forward.Gap {
	s.mu.RLock()
	defer s.mu.RUnlock()
	gaps := slices.Clone(s.plan.Gaps)
	for _, u := range s.units {
		gaps = append(gaps, u.Gaps...)
	}
	slices.SortFunc(gaps, func(a, b forward.Gap) int {
		if c := strings.Compare(a.Source, b.Source); c != 0 {
			return c
		}
		return strings.Compare(a.Why, b.Why)
	})
	return slices.Compact(gaps)
}
