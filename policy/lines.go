package policy

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/policy/limit"
)

// Waiting is a held message that is released as its limits have room again.
type Waiting struct {
	ID         string // of the decision
	QueueID    string
	HeldAt     time.Time
	Size       int64 // octets
	Recipients int
	Waits      *Waits // shared, never modified
}

// compare orders by age; the ids make it the same order everywhere.
func (w *Waiting) compare(o *Waiting) int {
	return cmp.Or(w.HeldAt.Compare(o.HeldAt), strings.Compare(w.ID, o.ID), strings.Compare(w.QueueID, o.QueueID))
}

// Lines are the lines of held mail before the limits that hold it: one for each
// bucket, the oldest first. A message that waits for several buckets is in the
// line of each. Lines are told what came and what went; they decide nothing
// else. Safe for concurrent use; deterministic.
type Lines struct {
	mu    sync.Mutex
	most  int
	all   map[waitingName]*Waiting
	lines map[limit.Key]*line
}

type waitingName struct{ queueID, id string }

// line is never empty.
type line struct {
	waiting []*Waiting // the oldest first
	asked   time.Time  // when its oldest was last told to wait
	until   time.Time  // its oldest has no room before
}

// NewLines makes lines for so many messages in all: as many as may be held.
func NewLines(most int) *Lines {
	return &Lines{most: most, all: map[waitingName]*Waiting{}, lines: map[limit.Key]*line{}}
}

// SetMost changes for how many messages there is room. Those that wait stay.
func (l *Lines) SetMost(most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = most
}

// Add puts a message into its lines, where its age has it, and reports whether
// it waits now: it does not if it waits for nothing or there is no more room.
// One that waits already is left as it is.
func (l *Lines) Add(w Waiting) bool {
	if w.Waits == nil || len(w.Waits.Keys) == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name := waitingName{w.QueueID, w.ID}
	if l.all[name] != nil {
		return true
	}
	if len(l.all) >= l.most {
		return false
	}
	l.all[name] = &w
	for _, k := range w.Waits.Keys {
		q := l.lines[k]
		if q == nil {
			q = &line{}
			l.lines[k] = q
		}
		i, twice := slices.BinarySearchFunc(q.waiting, &w, (*Waiting).compare)
		if twice { // the key was named twice
			continue
		}
		if i == 0 { // what was asked was asked of another
			q.asked, q.until = time.Time{}, time.Time{}
		}
		q.waiting = slices.Insert(q.waiting, i, &w)
	}
	return true
}

// Remove takes a message out of its lines, and reports whether it was there.
func (l *Lines) Remove(queueID, id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.all[waitingName{queueID, id}]
	if w != nil {
		l.remove(w)
	}
	return w != nil
}

func (l *Lines) remove(w *Waiting) {
	delete(l.all, waitingName{w.QueueID, w.ID})
	for _, k := range w.Waits.Keys {
		q := l.lines[k]
		if q == nil {
			continue // the key was named twice
		}
		i, there := slices.BinarySearchFunc(q.waiting, w, (*Waiting).compare)
		if !there {
			continue
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
		if i == 0 {
			q.asked, q.until = time.Time{}, time.Time{}
		}
		if len(q.waiting) == 0 {
			delete(l.lines, k)
		}
	}
}

// Clear lets nothing wait any more.
func (l *Lines) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.all)
	clear(l.lines)
}

// Behind is how many messages wait for a bucket. It implements Queue.
func (l *Lines) Behind(k limit.Key) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.lines[k]; q != nil {
		return len(q.waiting)
	}
	return 0
}

// Has reports whether a message waits.
func (l *Lines) Has(queueID, id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[waitingName{queueID, id}] != nil
}

// Len is how many messages wait.
func (l *Lines) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// All lists what waits, the oldest first.
func (l *Lines) All() []Waiting {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Waiting, 0, len(l.all))
	for _, w := range l.all {
		out = append(out, *w)
	}
	slices.SortFunc(out, func(a, b Waiting) int { return a.compare(&b) })
	return out
}

// Heads are the messages whose turn it is: the oldest of every line that they
// are in, of lines that are not to wait longer. Those come first whose lines
// were not asked for longest, and of them the oldest; so who asks only about
// some of them comes to each.
func (l *Lines) Heads(now time.Time) []Waiting {
	heads := l.ready(now)
	slices.SortFunc(heads, func(a, b head) int { return cmp.Or(a.asked.Compare(b.asked), a.compare(b.Waiting)) })
	out := make([]Waiting, len(heads))
	for i, h := range heads {
		out[i] = *h.Waiting
	}
	return out
}

type head struct {
	*Waiting // never changed once it waits
	asked    time.Time
}

func (l *Lines) ready(now time.Time) (heads []head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, q := range l.lines {
		w := q.waiting[0]
		if k != w.Waits.Keys[0] { // it is listed once
			continue
		}
		if asked, ready := l.turn(w, now); ready {
			heads = append(heads, head{w, asked})
		}
	}
	return heads
}

// HeadsOf is Heads of some lines alone: whose turn it is after a message that
// was in them has left.
func (l *Lines) HeadsOf(now time.Time, keys []limit.Key) []Waiting {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Waiting
	for _, k := range keys {
		q := l.lines[k]
		if q == nil {
			continue
		}
		w := q.waiting[0]
		_, ready := l.turn(w, now)
		if ready && !slices.ContainsFunc(out, func(o Waiting) bool { return o.compare(w) == 0 }) {
			out = append(out, *w)
		}
	}
	return out
}

// turn reports whether it is the message's turn, and when one of its lines was
// last told to wait.
func (l *Lines) turn(w *Waiting, now time.Time) (asked time.Time, ready bool) {
	for _, k := range w.Waits.Keys {
		q := l.lines[k]
		if q.waiting[0] != w || now.Before(q.until) {
			return asked, false
		}
		if q.asked.After(asked) {
			asked = q.asked
		}
	}
	return asked, true
}

// Later says that a message at the head of its lines has no room before until.
func (l *Lines) Later(now time.Time, queueID, id string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.all[waitingName{queueID, id}]
	if w == nil {
		return
	}
	for _, k := range w.Waits.Keys {
		if q := l.lines[k]; q.waiting[0] == w {
			q.asked, q.until = now, until
		}
	}
}

// Again forgets what Later said: budgets were changed, or may have been.
func (l *Lines) Again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.lines {
		q.until = time.Time{}
	}
}

// Expire takes out what was held maxAge ago or longer, the oldest first; of a
// maxAge of 0 nothing.
func (l *Lines) Expire(now time.Time, maxAge time.Duration) []Waiting {
	if maxAge <= 0 {
		return nil
	}
	oldest := now.Add(-maxAge)
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Waiting
	for _, q := range l.lines {
		for len(q.waiting) > 0 && !q.waiting[0].HeldAt.After(oldest) {
			w := q.waiting[0]
			out = append(out, *w)
			l.remove(w)
		}
	}
	slices.SortFunc(out, func(a, b Waiting) int { return a.compare(&b) })
	return out
}

// Line is how one line stands.
type Line struct {
	Key     limit.Key
	Waiting int
	Oldest  Waiting
	Until   time.Time // its oldest has no room before; zero: not known
}

// Keys are the buckets that mail waits for, in order.
func (l *Lines) Keys() []limit.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]limit.Key, 0, len(l.lines))
	for k := range l.lines {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b limit.Key) int {
		return cmp.Or(strings.Compare(a.Limit, b.Limit), strings.Compare(a.Value, b.Value))
	})
	return out
}

// Line tells of one; Waiting is 0 if there is none.
func (l *Lines) Line(k limit.Key) Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.lines[k]
	if q == nil {
		return Line{Key: k}
	}
	return Line{Key: k, Waiting: len(q.waiting), Oldest: *q.waiting[0], Until: q.until}
}
