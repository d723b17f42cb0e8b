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
// bucket and account, the oldest first. What accounts share, a server's or a
// customer's bucket, has a line of each, and none waits behind another's mail. A
// message that waits for several buckets is in its account's line of each. Lines
// are told what came and what went; they decide nothing else. Safe for
// concurrent use; deterministic.
type Lines struct {
	mu    sync.Mutex
	most  int
	turns uint64 // that were had
	all   map[waitingName]*waiter
	lines map[LineKey]*line
}

// LineKey names a line.
type LineKey struct {
	Bucket  limit.Key
	Account string // origin.Stable
}

// Lines are the lines in which the message waits.
func (w *Waits) Lines() []LineKey {
	account := w.Origin.Stable()
	all := make([]LineKey, len(w.Keys))
	for i, k := range w.Keys {
		all[i] = LineKey{k, account}
	}
	return all
}

type waitingName struct{ queueID, id string }

// waiter is never changed.
type waiter struct {
	Waiting
	lines []LineKey
}

// line is never empty.
type line struct {
	waiting []*waiter // the oldest first
	turn    uint64    // the last: its oldest was told to wait or left, or it began
	until   time.Time // its oldest has no room before
}

// NewLines makes lines for so many messages in all: as many as may be held.
func NewLines(most int) *Lines {
	return &Lines{most: most, all: map[waitingName]*waiter{}, lines: map[LineKey]*line{}}
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
	one := &waiter{w, w.Waits.Lines()}
	l.all[name] = one
	for _, k := range one.lines {
		q := l.lines[k]
		if q == nil {
			q = &line{turn: l.turns} // who comes again and again comes no sooner
			l.lines[k] = q
		}
		i, twice := q.find(one)
		if twice { // the key was named twice
			continue
		}
		if i == 0 { // what was asked was asked of another
			q.until = time.Time{}
		}
		q.waiting = slices.Insert(q.waiting, i, one)
	}
	return true
}

func (q *line) find(w *waiter) (int, bool) {
	return slices.BinarySearchFunc(q.waiting, w, func(a, b *waiter) int { return a.compare(&b.Waiting) })
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

func (l *Lines) remove(w *waiter) {
	delete(l.all, waitingName{w.QueueID, w.ID})
	l.turns++
	for _, k := range w.lines {
		q := l.lines[k]
		if q == nil {
			continue // the key was named twice
		}
		i, there := q.find(w)
		if !there {
			continue
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
		if i == 0 {
			q.turn, q.until = l.turns, time.Time{}
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

// Behind is how many messages of an account wait for a bucket. It implements
// Queue.
func (l *Lines) Behind(k limit.Key, account string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := l.lines[LineKey{k, account}]; q != nil {
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
		out = append(out, w.Waiting)
	}
	slices.SortFunc(out, func(a, b Waiting) int { return a.compare(&b) })
	return out
}

// Heads are the messages whose turn it is: of each account the oldest of every
// line that it is in, of lines that are not to wait longer. Those come first
// whose lines had no turn for longest, and of them the oldest. So who asks only
// about some of them comes to each, and room that accounts share goes round:
// who has more mail waiting gets no more of it.
func (l *Lines) Heads(now time.Time) []Waiting {
	heads := l.ready(now)
	slices.SortFunc(heads, func(a, b head) int { return cmp.Or(cmp.Compare(a.turn, b.turn), a.compare(&b.Waiting)) })
	out := make([]Waiting, len(heads))
	for i, h := range heads {
		out[i] = h.Waiting
	}
	return out
}

type head struct {
	*waiter
	turn uint64
}

func (l *Lines) ready(now time.Time) (heads []head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, q := range l.lines {
		w := q.waiting[0]
		if k != w.lines[0] { // it is listed once
			continue
		}
		if turn, ready := l.turn(w, now); ready {
			heads = append(heads, head{w, turn})
		}
	}
	return heads
}

// HeadsOf is Heads of some lines alone: whose turn it is after a message that
// was in them has left.
func (l *Lines) HeadsOf(now time.Time, lines []LineKey) []Waiting {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Waiting
	for _, k := range lines {
		q := l.lines[k]
		if q == nil {
			continue
		}
		w := q.waiting[0]
		_, ready := l.turn(w, now)
		if ready && !slices.ContainsFunc(out, func(o Waiting) bool { return o.compare(&w.Waiting) == 0 }) {
			out = append(out, w.Waiting)
		}
	}
	return out
}

// turn reports whether it is the message's turn, and the last that one of its
// lines had.
func (l *Lines) turn(w *waiter, now time.Time) (last uint64, ready bool) {
	for _, k := range w.lines {
		q := l.lines[k]
		if q.waiting[0] != w || now.Before(q.until) {
			return last, false
		}
		last = max(last, q.turn)
	}
	return last, true
}

// Later says that a message at the head of its lines has no room before until.
func (l *Lines) Later(queueID, id string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.all[waitingName{queueID, id}]
	if w == nil {
		return
	}
	l.turns++
	for _, k := range w.lines {
		if q := l.lines[k]; q.waiting[0] == w {
			q.turn, q.until = l.turns, until
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
			out = append(out, w.Waiting)
			l.remove(w)
		}
	}
	slices.SortFunc(out, func(a, b Waiting) int { return a.compare(&b) })
	return out
}

// Line is how one line stands.
type Line struct {
	LineKey
	Waiting int
	Oldest  Waiting
	Until   time.Time // its oldest has no room before; zero: not known
}

// List tells of each line, by limit, bucket and account.
func (l *Lines) List() []Line {
	l.mu.Lock()
	out := make([]Line, 0, len(l.lines))
	for k, q := range l.lines {
		out = append(out, Line{k, len(q.waiting), q.waiting[0].Waiting, q.until})
	}
	l.mu.Unlock()
	slices.SortFunc(out, func(a, b Line) int {
		return cmp.Or(strings.Compare(a.Bucket.Limit, b.Bucket.Limit), strings.Compare(a.Bucket.Value, b.Bucket.Value), strings.Compare(a.Account, b.Account))
	})
	return out
}
