// Package trail follows mail that the guard let pass through the MTA's log: what
// an alias or a list turned it into is charged afterwards, a retry of what the
// MTA queued is no longer free, and the journal learns what was delivered.
//
// It is fed from two sides that know nothing of each other: the guard tells what
// it accepted, the log what became of it, perhaps seconds later and perhaps
// twice. Trap: Postfix logs the copy that a .forward makes before the line that
// says whose copy it is.
//
// A log that syslog writes is not proof: any local account can have a line
// written there in the name of Postfix. So what one message can be charged
// afterwards is bounded. The sender on a line does not tell a forged one: who may
// run mailq knows the true one, and Postfix logs it as it rewrote it (canonical
// maps, SRS, an appended domain). To leave what differs uncharged would be worse:
// senders could choose to be rewritten.
package trail

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"relayguard/journal"
	"relayguard/mta/maillog"
	"relayguard/policy/limit"
)

// Options are what a trail tells. Buckets and Retries may be nil.
type Options struct {
	Buckets limit.Store
	Retries *limit.Retries
	Log     *slog.Logger

	// Note keeps a record; it must not wait.
	Note func(journal.Record)
	// Held is told that a milter held a message, Requeued that a message has
	// another queue id now.
	Held     func(queueID string, at time.Time)
	Requeued func(oldID, newID string, at time.Time)

	// Copies tells how many recipients the MTA adds to each message by itself
	// (always_bcc and the like): they are nobody's doing.
	Copies func() int // nil: none
}

// Trail keeps what was accepted lately. Safe for concurrent use.
type Trail struct {
	o Options

	mu     sync.Mutex
	passed recent[*message]
	early  recent[queued] // messages that nobody has claimed yet
	counts Counts
}

// Counts are totals since the start.
type Counts struct {
	Expanded   int64 // recipients charged afterwards, to at least one bucket
	Beyond     int64 // recipients not charged: more than one message is charged for
	Delivered  int64
	Deferred   int64
	Bounced    int64
	AuthFailed int64
}

// message is what was accepted, or a copy of it.
type message struct {
	root       string // queue id of the message that the guard saw
	charges    []limit.Charge
	recipients int     // charged or free, so far; or beyond what is charged
	growth     *growth // shared with its copies
	done       bool    // it left the queue: who has its id now is another
}

// growth is what a message and its copies were charged afterwards.
type growth struct {
	charged int
	told    bool // that there was more
}

// queued is a message in the queue whose origin is not known, perhaps not yet.
type queued struct {
	recipients int
	at         time.Time // in the log
}

// copyWithin is how far apart in the log a copy may be from the line that says
// whose copy it is; what is further apart had the same id by chance.
const copyWithin = 10 * time.Minute

// maxGrowth bounds what one message, all its copies together, is charged
// afterwards: more than a mailing list of a usual size has, and little enough
// that a forged line cannot shut a sender out for longer than its windows last.
const maxGrowth = 1000

// What is remembered: accepted mail is queued within moments, and deferred for
// days; its deliveries are counted in the journal whether it is remembered or
// not.
const (
	maxPassed = 100_000
	maxEarly  = 10_000
)

// New makes a trail.
func New(o Options) *Trail {
	return &Trail{o: o, passed: newRecent[*message](maxPassed), early: newRecent[queued](maxEarly)}
}

// Accepted learns of a message that goes on its way. The charges are not
// changed.
func (t *Trail) Accepted(queueID string, charges []limit.Charge, recipients int) {
	if queueID == "" {
		return
	}
	if t.o.Copies != nil {
		recipients += t.o.Copies()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passed.put(strings.Clone(queueID), &message{root: strings.Clone(queueID), charges: charges, recipients: recipients, growth: new(growth)})
}

// Event learns of a line of the MTA's log.
func (t *Trail) Event(ctx context.Context, now time.Time, e maillog.Event) {
	switch e.Kind {
	case maillog.Queued:
		if t.o.Retries != nil {
			t.o.Retries.Queued(e.QueueID)
		}
		t.charge(ctx, now, e.QueueID, queued{e.Recipients, e.Time})
	case maillog.Forwarded:
		t.forwarded(ctx, now, &e)
		t.delivery(&e)
	case maillog.Delivery:
		t.delivery(&e)
	case maillog.Held:
		if e.By == maillog.ByMilter && t.o.Held != nil {
			t.o.Held(strings.Clone(e.QueueID), e.Time)
		}
	case maillog.Pickup:
		if e.OrigID != "" {
			t.requeued(&e)
		}
	case maillog.Removed:
		t.removed(e.QueueID)
	case maillog.AuthFailed:
		t.count(func(c *Counts) { c.AuthFailed += int64(max(e.Count, 1)) })
	}
}

// charge takes what a message has more recipients than it was charged for.
func (t *Trail) charge(ctx context.Context, now time.Time, queueID string, q queued) {
	t.mu.Lock()
	m, known := t.passed.get(queueID)
	if !known || m.done {
		t.early.put(strings.Clone(queueID), q)
		t.mu.Unlock()
		return
	}
	more := max(q.recipients-m.recipients, 0)
	m.recipients += more
	beyond, tell := 0, false
	if len(m.charges) == 0 || t.o.Buckets == nil {
		more = 0
	} else {
		more, beyond, tell = m.growth.take(more)
	}
	t.counts.Expanded += int64(more)
	t.counts.Beyond += int64(beyond)
	t.mu.Unlock()
	if tell {
		t.o.Log.Warn("a message has more recipients by aliases than are charged for one; a list, or a forged line in the MTA's log",
			"queue_id", queueID, "message", m.root, "recipients", q.recipients, "not_charged", beyond, "at_most", maxGrowth)
	}
	if more == 0 {
		return
	}
	charges := make([]limit.Charge, len(m.charges))
	for i, c := range m.charges {
		c.Amount = int64(more)
		charges[i] = c
	}
	if err := t.o.Buckets.Add(ctx, now, charges); err != nil {
		t.o.Log.Warn("charge the expansion of an alias", "queue_id", queueID, "recipients", more, "error", err)
	}
}

// take takes so many recipients more, as far as there is room. Tell: for the
// first time there was not.
func (g *growth) take(more int) (taken, beyond int, tell bool) {
	taken = min(more, maxGrowth-g.charged)
	g.charged += taken
	beyond = more - taken
	tell = beyond > 0 && !g.told
	g.told = g.told || beyond > 0
	return taken, beyond, tell
}

// forwarded learns whose copy a message is: one recipient of the original, which
// was charged, has become those of the copy.
func (t *Trail) forwarded(ctx context.Context, now time.Time, e *maillog.Event) {
	t.mu.Lock()
	m, known := t.passed.get(e.QueueID)
	id := strings.Clone(e.NewID)
	if c, again := t.passed.get(id); !known || m.done || again && c.root == m.root {
		t.mu.Unlock() // nobody's, or the line was read twice
		return
	}
	t.passed.put(id, &message{root: m.root, charges: m.charges, recipients: 1, growth: m.growth})
	q, early := t.early.get(id)
	t.mu.Unlock()
	if early && e.Time.Sub(q.at).Abs() <= copyWithin {
		t.charge(ctx, now, id, q)
	}
}

// removed forgets what left the queue, as its id may come back for another. A
// copy may have left before it is known whose it was: its recipients stay in
// early.
func (t *Trail) removed(queueID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, known := t.passed.get(queueID); known && !m.done {
		t.passed.put(strings.Clone(queueID), &message{root: m.root, done: true})
	}
}

// requeued follows a message to its new id.
func (t *Trail) requeued(e *maillog.Event) {
	oldID, newID := strings.Clone(e.OrigID), strings.Clone(e.QueueID)
	t.mu.Lock()
	m, known := t.passed.get(oldID)
	if !known || m.done {
		m = &message{root: oldID, growth: new(growth)}
	}
	if n, again := t.passed.get(newID); again && n.root == m.root {
		t.mu.Unlock() // the line was read twice
		return
	}
	t.passed.put(newID, m)
	t.mu.Unlock()
	if t.o.Requeued != nil {
		t.o.Requeued(oldID, newID, e.Time)
	}
}

func (t *Trail) delivery(e *maillog.Event) {
	n := max(e.Count, 1)
	t.mu.Lock()
	id := strings.Clone(e.QueueID)
	if m, known := t.passed.get(id); known && !m.done {
		id = m.root
	}
	switch e.Status {
	case maillog.Sent:
		t.counts.Delivered += int64(n)
	case maillog.Deferred:
		t.counts.Deferred += int64(n)
	case maillog.Bounced, maillog.Expire:
		t.counts.Bounced += int64(n)
	}
	t.mu.Unlock()
	t.o.Note(journal.Delivery{QueueID: id, Time: e.Time, Status: strings.Clone(e.Status), N: n})
}

func (t *Trail) count(change func(*Counts)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.counts)
}

// Counts returns the totals.
func (t *Trail) Counts() Counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}
