// Package ledger remembers which forwarding rules there were, who approved which,
// and says of each change whether somebody must know at once.
//
// The first comparison is the baseline: what is there then is Existing, to be
// reviewed, and nobody is woken for it. Everything is appended to one file whose
// records are chained by hash; whoever gets the head of the chain out of the
// machine now and then (Head) can tell later whether it was rewritten.
//
// The trap: who owns the machine can delete the whole file, and what he planted
// is baseline then. A new baseline is an event of its own, and the head that
// starts again from nothing shows it to whoever gets the heartbeat.
package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/forward"
)

// Status says how far a finding was looked at.
type Status string

const (
	Existing Status = "existing" // there at the first scan, not reviewed
	New      Status = "new"      // came since, not reviewed
	Approved Status = "approved"
)

// Errors of Approve and Revoke.
var (
	ErrUnknown     = errors.New("no such forwarding rule")
	ErrNotApproved = errors.New("it is not approved")
	ErrAmbiguous   = errors.New("more than one forwarding rule begins so")
)

// Approval is an admin's word that a rule may be: for its owner, mechanism,
// target and mode, and for the digest that it had. It does not count while the
// source of the rule differs from what runs.
type Approval struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // zero: for good
}

// Entry is a finding and what is known of it.
type Entry struct {
	forward.Finding
	Status   Status         `json:"status"`
	Classes  []Class        `json:"classes"`
	Action   Action         `json:"action"`
	First    time.Time      `json:"first,omitzero"` // seen
	Since    time.Time      `json:"since,omitzero"` // in its present form
	Gone     time.Time      `json:"gone,omitzero"`  // zero: it is there
	Writer   forward.Writer `json:"writer"`
	Approval *Approval      `json:"approval,omitempty"`

	// Strange: an account wrote it that is not expected there.
	Strange bool `json:"strange,omitempty"`
	// Behind: it is told of with the rule at the end of its chain, which came at the
	// same time and matters as much.
	Behind bool `json:"behind,omitempty"`
	// Hop: its way to the rule at the end of its chain is what is new about it.
	Hop bool `json:"hop,omitempty"`
	// Fan: three or more unrelated owners fed its target when it came.
	Fan bool `json:"fan,omitempty"`
	// Waits: it differs from its source for a moment only, perhaps: a text that is
	// written before it is compiled. It is told of if that lasts.
	Waits bool `json:"waits,omitempty"`
}

// What an Event is about.
const (
	Baseline = "baseline" // Count findings are there at the first scan
	Appeared = "appeared"
	Changed  = "changed" // same owner, mechanism, target and mode; another verdict, program or compiled form
	Returned = "returned"
	Vanished = "gone"
	Granted  = "approved"
	Revoked  = "revoked"
	Expired  = "expired" // the approval
	Broken   = "broken"  // the chain: Why
	Widened  = "inside"  // what counts as inside: Names says what came and went
	Crowded  = "crowded" // an owner has more rules than are remembered: Why
)

// Event is a change. Action says who is to know of it, and when.
type Event struct {
	Kind   string
	Entry  Entry
	Action Action
	Time   time.Time
	Count  int
	Why    string
	Names  []string
}

// Seen says how a change was noticed.
type Seen struct {
	Writers  []forward.Writer // who wrote, as far as the kernel told
	Expected []int            // accounts that may write there beside Rules.Writers
	Nobody   bool             // nobody can tell who wrote it: a database
}

const (
	// backSoon is how long a rule may be away and still be the one that it was: a
	// home that was not mounted. Later it is a new one.
	backSoon = time.Hour
	// differsFor is how long a text may differ from its compiled form before that is
	// told: as long as somebody writes the one and compiles the other.
	differsFor = 2 * time.Minute
	// keepGone is how long a rule that is no more is remembered, maxGone how many.
	keepGone = 30 * 24 * time.Hour
	maxGone  = 20_000
	// maxOwned is how many rules of one owner are remembered.
	maxOwned = 10_000
)

// Ledger is the memory. Safe for concurrent use; one process has it at a time.
type Ledger struct {
	mu      sync.Mutex
	rules   Rules
	file    *chain
	entries map[string]*Entry
	based   bool // there was a baseline
	basedAt time.Time
	fans    fans
	owned   map[string]int // entries that are there, by owner
	crowded map[string]bool
	gone    int
	forgot  time.Time // when those gone for long were looked for
	ours    []string  // what counts as inside: "domain corp.test", "host 192.0.2.1"; nil: not known yet
	broken  string

	approved atomic.Pointer[map[string]bool] // ids and pairs
}

func empty(rules Rules) *Ledger {
	return &Ledger{rules: rules, entries: map[string]*Entry{}, fans: fans{}, owned: map[string]int{}, crowded: map[string]bool{}}
}

// Open reads the ledger of a directory, or begins one. A chain that was broken
// is no error: what stands before the break is believed, the file is put aside,
// and Broken says so. Close it.
func Open(dir string, rules Rules) (*Ledger, error) {
	l := empty(rules)
	file, err := openChain(dir, l.replay)
	if err != nil {
		return nil, err
	}
	l.file, l.broken = file, file.broken
	if l.broken != "" {
		if err := l.file.begin(l.snapshot()); err != nil {
			return nil, errors.Join(err, file.close())
		}
	}
	l.learnApproved()
	return l, nil
}

// Peek reads the ledger of a directory, which another process may have open, into
// one that keeps nothing. fs.ErrNotExist: there is none.
func Peek(dir string, rules Rules) (*Ledger, error) {
	l := empty(rules)
	file, err := os.Open(filepath.Join(dir, chainName))
	if err != nil {
		return nil, fmt.Errorf("read the ledger of forwarding rules: %w", err)
	}
	defer file.Close()
	c := &chain{path: file.Name(), file: file}
	if _, err := c.scan(l.replay); err != nil {
		return nil, err
	}
	l.broken = c.broken
	l.learnApproved()
	return l, nil
}

// Memory is a ledger that keeps nothing and has no baseline: for one look.
func Memory(rules Rules) *Ledger {
	l := empty(rules)
	l.based = true
	return l
}

// Close gives the file back.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.close()
}

// Broken says where the chain was broken when it was opened; empty: it was not.
func (l *Ledger) Broken() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Use puts other rules in force, for what comes from now on.
func (l *Ledger) Use(rules Rules) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = rules
	for _, e := range l.entries {
		l.classify(e)
	}
}

// replay takes one record of the file.
func (l *Ledger) replay(r *record) {
	switch r.Kind {
	case Baseline:
		l.based, l.basedAt = true, r.Time
	case Widened:
		if l.ours = r.Ours; l.ours == nil {
			l.ours = []string{} // nothing is not "not known yet"
		}
	case Vanished:
		if e := l.entries[r.ID]; e != nil && e.Gone.IsZero() {
			l.leave(e, r.Time)
		}
	default:
		if r.Entry != nil {
			l.put(r.Entry)
		}
	}
}

// put remembers an entry in place of what has its ID.
func (l *Ledger) put(e *Entry) {
	if old := l.entries[e.ID]; old != nil {
		l.uncount(old)
	}
	l.entries[e.ID] = e
	l.count(e, 1)
}

// leave notes that an entry is no more.
func (l *Ledger) leave(e *Entry, now time.Time) {
	l.uncount(e)
	e.Gone = now
	l.count(e, 1)
}

func (l *Ledger) uncount(e *Entry) { l.count(e, -1) }

// count keeps the numbers that an entry is part of.
func (l *Ledger) count(e *Entry, n int) {
	if !e.Gone.IsZero() {
		l.gone += n
		return
	}
	if l.owned[e.Owner] += n; l.owned[e.Owner] == 0 {
		delete(l.owned, e.Owner)
		delete(l.crowded, e.Owner)
	}
	if e.feeds() {
		l.fans.add(e.Target, localPart(e.Owner), n)
	}
}

// Based reports whether there was a baseline, and when; zero for a ledger in
// memory.
func (l *Ledger) Based() (at time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.basedAt, l.based
}

// All compares a full scan with what is remembered. The first time it makes the
// baseline.
//
// Keep says of places by the ids of their units that nothing can be said of them now:
// what is known of them stands; nil: there are none.
func (l *Ledger) All(now time.Time, findings []forward.Finding, seen func(*forward.Finding) Seen, keep func(unit string) bool) ([]Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.based {
		return l.baseline(now, findings)
	}
	there := make(map[string]bool, len(findings))
	for i := range findings {
		there[findings[i].ID] = true
	}
	var gone []forward.Finding
	for _, id := range slices.Sorted(maps.Keys(l.entries)) {
		if e := l.entries[id]; !there[id] && e.Gone.IsZero() && (keep == nil || !keep(e.Unit)) {
			gone = append(gone, e.Finding)
		}
	}
	return l.some(now, findings, gone, seen)
}

// baseline takes everything as it is.
func (l *Ledger) baseline(now time.Time, findings []forward.Finding) ([]Event, error) {
	records := l.adopt(now, findings)
	records = append(records, &record{Kind: Baseline, Time: now, Count: len(findings)})
	if err := l.write(records); err != nil {
		return nil, err
	}
	l.based, l.basedAt = true, now
	return []Event{{Kind: Baseline, Time: now, Count: len(findings), Action: Alert}}, nil
}

// adopt takes findings as existing.
func (l *Ledger) adopt(now time.Time, findings []forward.Finding) []*record {
	records := make([]*record, 0, len(findings)+1)
	for i := range findings {
		e := &Entry{Finding: findings[i], Status: Existing, First: now, Since: now, Writer: forward.UnknownWriter, Behind: !findings[i].Direct()}
		l.put(e)
		records = append(records, &record{Kind: Appeared, Time: now, Entry: e})
	}
	for _, r := range records {
		l.classifyFan(r.Entry)
	}
	return records
}

// Adopt takes findings of a place as existing that could not be read when the
// baseline was made, or was not looked at: a database that was away. What is known
// already stays as it is.
func (l *Ledger) Adopt(now time.Time, place string, findings []forward.Finding) ([]Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var fresh []forward.Finding
	for i := range findings {
		if l.entries[findings[i].ID] == nil {
			fresh = append(fresh, findings[i])
		}
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	err := l.write(l.adopt(now, fresh))
	return []Event{{Kind: Baseline, Time: now, Count: len(fresh), Why: place, Action: Alert}}, err
}

// Knows reports whether any rule of a unit was ever there.
func (l *Ledger) Knows(unit string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Unit == unit {
			return true
		}
	}
	return false
}

// Some compares findings that appeared or changed, and those that are gone. What
// is known already in the same form is passed over. The events are to be told also
// if they could not be written.
func (l *Ledger) Some(now time.Time, appeared, gone []forward.Finding, seen func(*forward.Finding) Seen) ([]Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.some(now, appeared, gone, seen)
}

func (l *Ledger) some(now time.Time, appeared, gone []forward.Finding, seen func(*forward.Finding) Seen) ([]Event, error) {
	still := make(map[string]bool, len(appeared))
	for i := range appeared {
		still[appeared[i].ID] = true
	}
	events, records := l.vanish(now, gone, still)
	var came []Event
	for i := range appeared {
		e, kind := l.meet(now, &appeared[i])
		if kind == "" {
			continue
		}
		if e = l.admit(e); e == nil {
			if crowded := l.crowd(now, &appeared[i]); crowded != nil {
				events = append(events, *crowded)
			}
			continue
		}
		s := Seen{Nobody: true}
		if seen != nil {
			s = seen(&appeared[i])
		}
		l.writtenBy(e, s)
		l.put(e)
		came = append(came, Event{Kind: kind, Entry: *e, Time: now})
	}
	l.judge(came)
	for i := range came {
		e := l.entries[came[i].Entry.ID]
		came[i].Entry, came[i].Action = *e, l.loud(came[i].Kind, e)
		records = append(records, &record{Kind: came[i].Kind, Time: now, Entry: e})
	}
	err := l.write(records)
	l.learnApproved()
	return append(events, came...), err
}

// loud is what becomes of a change.
func (l *Ledger) loud(kind string, e *Entry) Action {
	switch {
	case e.Status != New || kind == Returned && e.Action != Alert:
		return Ignore
	case e.Waits && kind == Changed:
		return Ignore
	case e.Waits:
		return min(e.Action, Digest)
	}
	return e.Action
}

// judge finds out what matters of rules that came together. All are there by now:
// one target that many feed at once is seen.
func (l *Ledger) judge(came []Event) {
	ends := map[string]Action{} // of the rules that name their target themselves
	var behind []*Entry
	for i := range came {
		e := l.entries[came[i].Entry.ID]
		if !e.Direct() {
			behind = append(behind, e)
			continue
		}
		l.classifyFan(e)
		ends[pair(e.Owner, e.Target)] = e.Action
	}
	for _, e := range behind {
		last := e.Chain[len(e.Chain)-1]
		end, together := ends[pair(last, e.Target)]
		e.Behind = false
		l.setHop(e, !together)
		if l.classifyFan(e); together && end >= e.Action {
			e.Behind = true
			l.classify(e)
		}
	}
	for _, e := range behind { // with all who feed a target
		if e.Hop {
			l.classifyFan(e)
		}
	}
}

func (l *Ledger) setHop(e *Entry, is bool) {
	l.uncount(e)
	e.Hop = is
	l.count(e, 1)
}

// classifyFan is classify with another look at how many feed the target.
func (l *Ledger) classifyFan(e *Entry) {
	e.Fan = e.feeds() && l.fans.of(e.Target) >= fanIn
	l.classify(e)
}

// vanish notes what is no more.
func (l *Ledger) vanish(now time.Time, gone []forward.Finding, still map[string]bool) (events []Event, records []*record) {
	for i := range gone {
		e := l.entries[gone[i].ID]
		if e == nil || !e.Gone.IsZero() || still[e.ID] {
			continue
		}
		l.leave(e, now)
		records = append(records, &record{Kind: Vanished, Time: now, ID: e.ID})
		events = append(events, Event{Kind: Vanished, Entry: *e, Action: min(e.Action, Digest), Time: now})
	}
	l.forget(now)
	return events, records
}

// meet says what is new about a finding; kind is empty if nothing is.
func (l *Ledger) meet(now time.Time, f *forward.Finding) (e *Entry, kind string) {
	old := l.entries[f.ID]
	if old == nil {
		return &Entry{Finding: *f, Status: New, First: now, Since: now, Writer: forward.UnknownWriter, Waits: f.Differs != "" && !f.Leaves(), Behind: !f.Direct()}, Appeared
	}
	next := *old
	next.Finding, next.Since, next.Gone, next.Behind, next.Hop = *f, now, time.Time{}, !f.Direct(), false
	next.Approved = old.Approved
	same := old.Digest == f.Digest && old.Verdict == f.Verdict
	switch {
	case !old.Gone.IsZero() && same && old.Differs == f.Differs && now.Sub(old.Gone) < backSoon:
		return &next, Returned
	case !old.Gone.IsZero():
		next.Status, kind = New, Appeared
	case same && old.Differs == f.Differs:
		next.Since, next.Behind, next.Hop = old.Since, old.Behind, old.Hop
		l.uncount(old)
		*old = next // only where it stands, or by which way
		l.count(old, 1)
		return nil, ""
	case same && f.Differs == "": // it was compiled
		next.Waits = false
		if next.Approval != nil {
			next.Status = Approved
		}
		next.Approved = next.Status == Approved
		return &next, Returned
	case same:
		next.Waits, next.Approved, kind = true, false, Changed
		if next.Status == Approved {
			next.Status = New
		}
		return &next, kind
	case old.Verdict == forward.Dormant || old.Verdict == forward.Broken: // it was a word on paper
		next.Status, kind = New, Appeared
	default:
		next.Status, kind = New, Changed
	}
	next.Waits = f.Differs != "" && !f.Leaves()
	if next.Approval != nil && same && f.Differs == "" {
		next.Status = Approved
	} else if old.Digest != f.Digest {
		next.Approval = nil // it was for something else
	} else if next.Approval != nil && old.Verdict == forward.Dormant { // back in force
		next.Status = Approved
	}
	next.Approved = next.Status == Approved
	return &next, kind
}

// admit says whether there is room for one more rule of the owner; nil: there is
// not.
func (l *Ledger) admit(e *Entry) *Entry {
	if old := l.entries[e.ID]; old != nil && old.Gone.IsZero() || e.Server || e.Owner == forward.Everybody || l.owned[e.Owner] < maxOwned {
		return e
	}
	return nil
}

// crowd tells once that an owner has more rules than are remembered.
func (l *Ledger) crowd(now time.Time, f *forward.Finding) *Event {
	if l.crowded[f.Owner] {
		return nil
	}
	l.crowded[f.Owner] = true
	return &Event{Kind: Crowded, Time: now, Action: Alert, Entry: Entry{Finding: *f, Status: New, Writer: forward.UnknownWriter}, Count: maxOwned,
		Why: fmt.Sprintf("%s has more than %d forwarding rules; those beyond are not remembered", f.Owner, maxOwned)}
}

// forget drops rules that have been gone for long, the oldest first where there are
// too many. What was approved stays for as long as it was approved.
func (l *Ledger) forget(now time.Time) {
	if l.gone <= maxGone && now.Sub(l.forgot) < time.Hour {
		return
	}
	l.forgot = now
	var old []*Entry
	for _, e := range l.entries {
		if !e.Gone.IsZero() && (e.Approval == nil || l.gone > 2*maxGone) {
			old = append(old, e)
		}
	}
	slices.SortFunc(old, func(a, b *Entry) int { return a.Gone.Compare(b.Gone) })
	for _, e := range old {
		if l.gone <= maxGone && now.Sub(e.Gone) < keepGone {
			return
		}
		delete(l.entries, e.ID)
		l.gone--
	}
}

// World compares what counts as inside with what is remembered: a domain or a next
// hop that an intruder adds there would make his rules look harmless. The first
// time it is taken as it is.
func (l *Ledger) World(now time.Time, w *forward.World) ([]Event, error) {
	ours := []string{}
	for domain, is := range w.Inside {
		if is {
			ours = append(ours, "domain "+domain)
		}
	}
	for host, is := range w.Hosts {
		if is {
			ours = append(ours, "host "+host)
		}
	}
	slices.Sort(ours)
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(ours, l.ours) {
		return nil, nil
	}
	var events []Event
	if l.ours != nil {
		var names []string
		for _, is := range without(ours, l.ours) {
			names = append(names, is+" counts as inside now")
		}
		for _, was := range without(l.ours, ours) {
			names = append(names, was+" does no longer")
		}
		events = []Event{{Kind: Widened, Action: l.rules.Policy[Server], Time: now, Count: len(names), Names: names, Why: strings.Join(names[:min(len(names), 20)], "; ")}}
	}
	l.ours = ours
	return events, l.write([]*record{{Kind: Widened, Time: now, Ours: ours}})
}

// without are the elements of a that b has not; both are sorted.
func without(a, b []string) []string {
	var left []string
	for _, s := range a {
		if _, found := slices.BinarySearch(b, s); !found {
			left = append(left, s)
		}
	}
	return left
}

// Find is one entry by its ID or the beginning of it, which fits no other.
func (l *Ledger) Find(id string) (Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(id)
	if err != nil {
		return Entry{}, err
	}
	return *e, nil
}

func (l *Ledger) find(id string) (*Entry, error) {
	if e := l.entries[id]; e != nil {
		return e, nil
	}
	var found *Entry
	for key, e := range l.entries {
		if len(id) >= 4 && strings.HasPrefix(key, id) {
			if found != nil {
				return nil, fmt.Errorf("%s: %w", id, ErrAmbiguous)
			}
			found = e
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w", id, ErrUnknown)
	}
	return found, nil
}

// Approve lets a rule be. Until zero: for good.
func (l *Ledger) Approve(now time.Time, id string, a Approval) (Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(id)
	if err != nil {
		return Event{}, err
	}
	a.At = now
	before := *e
	e.Approval, e.Status, e.Approved, e.Waits = &a, Approved, true, false
	if err := l.write([]*record{{Kind: Granted, Time: now, Entry: e}}); err != nil {
		*e = before
		return Event{}, err
	}
	l.learnApproved()
	return Event{Kind: Granted, Entry: *e, Action: Alert, Time: now}, nil
}

// Revoke takes an approval back.
func (l *Ledger) Revoke(now time.Time, id, by string) (Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := l.find(id)
	if err != nil {
		return Event{}, err
	}
	if e.Approval == nil {
		return Event{}, fmt.Errorf("%s: %w", forward.ShortID(e.ID), ErrNotApproved)
	}
	before := *e
	e.Approval, e.Status, e.Approved = nil, New, false
	if err := l.write([]*record{{Kind: Revoked, Time: now, Entry: e, By: by}}); err != nil {
		*e = before
		return Event{}, err
	}
	l.learnApproved()
	return Event{Kind: Revoked, Entry: *e, Action: Alert, Time: now, Why: by}, nil
}

// Approved reports whether a rule is approved: by its ID, or by its owner and target
// whatever the mechanism. It takes no lock: the mail path asks it.
func (l *Ledger) Approved(id, owner, target string) bool {
	a := l.approved.Load()
	return a != nil && ((*a)[id] || (*a)[pair(owner, target)])
}

// learnApproved makes what Approved goes by.
func (l *Ledger) learnApproved() {
	all := map[string]bool{}
	for id, e := range l.entries {
		if e.Status == Approved && e.Gone.IsZero() {
			all[id] = true
			all[pair(e.Owner, e.Target)] = true
		}
	}
	l.approved.Store(&all)
}

func pair(owner, target string) string {
	return "\x00" + strings.ToLower(owner) + "\x00" + strings.ToLower(target)
}

// Expire ends the approvals whose time is over, and tells of what has differed from
// its source for too long. Call it every minute.
func (l *Ledger) Expire(now time.Time) ([]Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var events []Event
	var records []*record
	for _, id := range slices.Sorted(maps.Keys(l.entries)) {
		e := l.entries[id]
		kind := ""
		switch {
		case e.Approval != nil && !e.Approval.Until.IsZero() && !e.Approval.Until.After(now):
			e.Approval, e.Approved, kind = nil, false, Expired
			if e.Status == Approved {
				e.Status = New
			}
		case e.Waits && e.Gone.IsZero() && now.Sub(e.Since) >= differsFor:
			e.Waits, kind = false, Changed
			if e.Status == Existing {
				e.Status = New
			}
		default:
			continue
		}
		l.classify(e)
		records = append(records, &record{Kind: kind, Time: now, Entry: e})
		if e.Gone.IsZero() {
			events = append(events, Event{Kind: kind, Entry: *e, Action: l.loud(kind, e), Time: now})
		}
	}
	if len(records) == 0 {
		return nil, nil
	}
	err := l.write(records)
	l.learnApproved()
	return events, err
}

// Entries are all that are there, and with gone those that are not any more; by
// owner, mechanism and target.
func (l *Ledger) Entries(gone bool) []Entry {
	l.mu.Lock()
	all := make([]Entry, 0, len(l.entries))
	for _, e := range l.entries {
		if gone || e.Gone.IsZero() {
			all = append(all, *e)
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Owner, b.Owner), strings.Compare(string(a.Mechanism), string(b.Mechanism)), strings.Compare(a.Target, b.Target), strings.Compare(a.ID, b.ID))
	})
	return all
}

// Numbers are how many rules are there, and how many of them are Due.
func (l *Ledger) Numbers() (there, due int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e.Gone.IsZero() {
			there++
		}
		if e.Due() {
			due++
		}
	}
	return there, due
}

// Due reports whether an entry is one that should alert and is not approved.
func (e *Entry) Due() bool {
	return e.Status == New && e.Gone.IsZero() && e.Action == Alert && !e.Waits
}

// Head is the end of the chain: how many records there were, and the hash of the
// last one. Empty for a ledger in memory.
func (l *Ledger) Head() (records int64, hash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, ""
	}
	return l.file.seq, l.file.last
}

// write appends records, and makes the file anew when most of it is past.
func (l *Ledger) write(records []*record) error {
	if l.file == nil || len(records) == 0 {
		return nil
	}
	if err := l.file.append(records); err != nil {
		return err
	}
	if l.file.lines > 20_000+4*int64(len(l.entries)) {
		_ = l.file.begin(l.snapshot()) // what was written stands; the next write tries again
	}
	return nil
}

// snapshot are the records that make the present state.
func (l *Ledger) snapshot() []*record {
	var records []*record
	if l.based {
		records = append(records, &record{Kind: Baseline, Time: l.basedAt, Count: len(l.entries)})
	}
	if l.ours != nil {
		records = append(records, &record{Kind: Widened, Ours: l.ours})
	}
	for _, id := range slices.Sorted(maps.Keys(l.entries)) {
		records = append(records, &record{Kind: Appeared, Entry: l.entries[id]})
	}
	return records
}
