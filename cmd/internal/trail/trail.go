// Package trail follows mail that the guard let pass through the MTA's log: what
// an alias or a list turned it into is charged afterwards and remembered for the
// next message, what bounced is charged, a retry of what the MTA queued is no
// longer free, and the journal learns what was delivered.
//
// It is fed from two sides that know nothing of each other: the guard tells what
// it accepted, the log what became of it, perhaps seconds later and perhaps
// twice. Trap: Postfix logs the copy that a .forward makes before the line that
// says whose copy it is. Sendmail never says how many recipients an alias made of
// one, nor, at its usual log level, that a message has left: they are counted as
// they are delivered or returned.
//
// A log that syslog writes is not proof: any local account can have a line
// written there in the name of Postfix. So what one message can be charged
// afterwards, or teach, is bounded, and one that is said to have left the queue
// is followed for some minutes more. The sender on a line does not tell a forged one: who may
// run mailq knows the true one, and Postfix logs it as it rewrote it (canonical
// maps, SRS, an appended domain). To leave what differs uncharged would be worse:
// senders could choose to be rewritten.
package trail

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/journal"
	"relayguard/mta/maillog"
	"relayguard/policy/limit"
)

// Options are what a trail tells. Buckets, Retries and Expansions may be nil.
type Options struct {
	Buckets    limit.Store
	Retries    *limit.Retries
	Expansions *Expansions // learns what addresses stand for
	Log        *slog.Logger

	// Note keeps a record; it must not wait.
	Note func(journal.Record)
	// Held is told that a milter held a message, Requeued that a message has
	// another queue id now, Outcome how so many deliveries of a message that the
	// guard saw under that id ended, or that they were deferred. Each may be nil.
	Held     func(queueID string, at time.Time)
	Requeued func(oldID, newID string, at time.Time)
	Outcome  func(queueID, status string, n int)

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
	left   []leaver       // to be forgotten, about in the order in which they left
	counts Counts
}

// Counts are totals since the start.
type Counts struct {
	Expanded   int64 // recipients charged afterwards, to at least one bucket
	Foreseen   int64 // recipients that aliases added, as was charged in advance
	Beyond     int64 // recipients not charged: more than one message is charged for
	Delivered  int64
	Deferred   int64
	Bounced    int64
	Returned   int64 // of those, charged to at least one bucket
	AuthFailed int64
}

// queued is a message in the queue whose origin is not known, perhaps not yet.
type queued struct {
	recipients int
	at         time.Time // in the log
}

// leaver is a message that left the queue, as the log has it.
type leaver struct {
	id string
	*message
}

// copyWithin is how far apart in the log a copy may be from the line that says
// whose copy it is; what is further apart had the same id by chance.
const copyWithin = 10 * time.Minute

// lingers is how long after a message left the queue, by the times in the log,
// lines with its id are still its own; later ones are those of another that has
// its id. A forged "removed" does not end what is charged to it.
const lingers = copyWithin

// What is remembered: accepted mail is queued within moments, and deferred for
// days; its deliveries are counted in the journal whether it is remembered or
// not.
const (
	maxPassed = 100_000
	maxEarly  = 10_000
	maxLeft   = 20_000
)

// New makes a trail.
func New(o Options) *Trail {
	return &Trail{o: o, passed: newRecent[*message](maxPassed), early: newRecent[queued](maxEarly)}
}

// Accepted learns of a message that goes on its way. Nothing of m is kept.
func (t *Trail) Accepted(queueID string, m Passed) {
	if queueID == "" {
		return
	}
	root := newMail(strings.Clone(queueID), &m, t.o.Expansions)
	recipients := m.Recipients
	if t.o.Copies != nil {
		recipients += t.o.Copies()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.passed.put(root.id, &message{mail: root, recipients: recipients})
}

// Event learns of a line of the MTA's log.
func (t *Trail) Event(ctx context.Context, now time.Time, e maillog.Event) {
	switch e.Kind {
	case maillog.Queued:
		if e.Service == maillog.ServiceSendmail { // not decided on yet, and without aliases
			return
		}
		if t.o.Retries != nil {
			t.o.Retries.Queued(e.QueueID)
		}
		t.charge(ctx, now, e.QueueID, queued{e.Recipients, e.Time})
	case maillog.Forwarded:
		t.forwarded(ctx, now, &e)
		t.delivery(ctx, now, &e)
	case maillog.Delivery:
		t.delivery(ctx, now, &e)
		if e.Service == maillog.ServiceSendmail {
			t.fared(ctx, now, &e)
		}
	case maillog.Cloned:
		t.forwarded(ctx, now, &e)
	case maillog.Held:
		if e.By == maillog.ByMilter && t.o.Held != nil {
			t.o.Held(strings.Clone(e.QueueID), e.Time)
		}
	case maillog.Pickup:
		if e.OrigID != "" {
			t.requeued(&e)
		}
	case maillog.Removed:
		t.removed(now, &e)
	case maillog.AuthFailed:
		t.count(func(c *Counts) { c.AuthFailed += int64(max(e.Count, 1)) })
	}
}

// charge takes what a message has more recipients than it was charged for.
func (t *Trail) charge(ctx context.Context, now time.Time, queueID string, q queued) {
	t.mu.Lock()
	m, known := t.live(queueID, q.at)
	if !known || !m.left.IsZero() { // perhaps another's already
		t.early.put(strings.Clone(queueID), q)
	}
	if !known {
		t.mu.Unlock()
		return
	}
	more := max(q.recipients-m.recipients, 0)
	m.recipients += more
	m.grew(now, more, t.o.Expansions)
	more, foreseen := m.foreseen(more)
	beyond, tell := 0, false
	if len(m.charges) == 0 || t.o.Buckets == nil {
		more = 0
	} else {
		more, beyond, tell = m.take(more)
	}
	t.counts.Expanded += int64(more)
	t.counts.Foreseen += int64(foreseen)
	t.counts.Beyond += int64(beyond)
	t.mu.Unlock()
	if tell {
		t.o.Log.Warn("a message has more recipients by aliases than are charged for one; a list, or a forged line in the MTA's log",
			"queue_id", queueID, "message", m.id, "recipients", q.recipients, "not_charged", beyond, "at_most", maxGrowth)
	}
	if err := t.add(ctx, now, m.charges, more); err != nil {
		t.o.Log.Warn("charge the expansion of an alias", "queue_id", queueID, "recipients", more, "error", err)
	}
}

// fared learns of a recipient on Sendmail that was delivered or returned, and that
// the message is in its queue at all.
func (t *Trail) fared(ctx context.Context, now time.Time, e *maillog.Event) {
	if t.o.Retries != nil {
		t.o.Retries.Queued(e.QueueID)
	}
	if e.Status == maillog.Deferred {
		return
	}
	t.mu.Lock()
	m, known := t.live(e.QueueID, e.Time)
	if !known {
		t.mu.Unlock()
		return
	}
	m.fared += max(e.Count, 1)
	q := queued{m.fared, e.Time}
	t.mu.Unlock()
	t.charge(ctx, now, e.QueueID, q)
}

// add takes so much from each bucket, whether it fits or not.
func (t *Trail) add(ctx context.Context, now time.Time, charges []limit.Charge, amount int) error {
	if len(charges) == 0 || amount == 0 || t.o.Buckets == nil {
		return nil
	}
	charges = slices.Clone(charges)
	for i := range charges {
		charges[i].Amount = int64(amount)
	}
	return t.o.Buckets.Add(ctx, now, &limit.Step{Charges: charges})
}

// forwarded learns whose copy a message is: one recipient of the original, which
// was charged, has become those of the copy.
func (t *Trail) forwarded(ctx context.Context, now time.Time, e *maillog.Event) {
	t.mu.Lock()
	m, known := t.live(e.QueueID, e.Time)
	id := strings.Clone(e.NewID)
	if c, again := t.passed.get(id); !known || again && c.id == m.id {
		t.mu.Unlock() // nobody's, or the line was read twice
		return
	}
	m.forwarded = true
	t.passed.put(id, &message{mail: m.mail, recipients: 1, copy: true})
	q, early := t.early.get(id)
	t.mu.Unlock()
	if early && e.Time.Sub(q.at).Abs() <= copyWithin {
		t.charge(ctx, now, id, q)
	}
}

// live is the message that has an id in the queue at that time of the log, or had
// it moments before.
func (t *Trail) live(queueID string, at time.Time) (*message, bool) {
	m, known := t.passed.get(queueID)
	if !known || m.done || !m.left.IsZero() && at.Sub(m.left) > lingers {
		return nil, false
	}
	return m, true
}

// removed has what left the queue forgotten in some minutes, as its id may come
// back for another. A copy may have left before it is known whose it was: its
// recipients stay in early.
func (t *Trail) removed(now time.Time, e *maillog.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, known := t.live(e.QueueID, e.Time); known && m.left.IsZero() {
		m.left = e.Time
		t.left = append(t.left, leaver{strings.Clone(e.QueueID), m})
		if !m.copy {
			m.removed = true
			m.settle(now, t.o.Expansions)
		}
	}
	for len(t.left) > 0 && (len(t.left) > maxLeft || e.Time.Sub(t.left[0].left) > lingers) {
		t.forget(t.left[0])
		t.left = t.left[1:]
	}
}

// forget keeps no more of a message than that its id is none of its any more.
func (t *Trail) forget(l leaver) {
	if m, known := t.passed.get(l.id); known && m == l.message && !m.left.IsZero() {
		t.passed.put(l.id, &message{mail: &mail{id: m.id}, done: true})
	}
}

// requeued follows a message to its new id.
func (t *Trail) requeued(e *maillog.Event) {
	oldID, newID := strings.Clone(e.OrigID), strings.Clone(e.QueueID)
	t.mu.Lock()
	m, known := t.live(oldID, e.Time)
	if !known {
		m = &message{mail: &mail{id: oldID}}
	}
	m.left, m.removed = time.Time{}, m.removed && m.copy // it is in the queue
	if n, again := t.passed.get(newID); again && n.id == m.id {
		t.mu.Unlock() // the line was read twice
		return
	}
	t.passed.put(newID, m)
	t.mu.Unlock()
	if t.o.Requeued != nil {
		t.o.Requeued(oldID, newID, e.Time)
	}
}

// delivery tells how a recipient fared, under the id that the guard saw.
func (t *Trail) delivery(ctx context.Context, now time.Time, e *maillog.Event) {
	n := max(e.Count, 1)
	id, status := strings.Clone(e.QueueID), strings.Clone(e.Status)
	var charges []limit.Charge
	returned := 0
	t.mu.Lock()
	if m, known := t.live(id, e.Time); known {
		id = m.id
		m.delivered(now, e, n, t.o.Expansions)
		if status == maillog.Bounced || status == maillog.Expire {
			charges, returned = m.bounces, m.bounce(n)
		}
	}
	switch status {
	case maillog.Sent:
		t.counts.Delivered += int64(n)
	case maillog.Deferred:
		t.counts.Deferred += int64(n)
	case maillog.Bounced, maillog.Expire:
		t.counts.Bounced += int64(n)
		t.counts.Returned += int64(returned)
	}
	t.mu.Unlock()
	if err := t.add(ctx, now, charges, returned); err != nil {
		t.o.Log.Warn("charge a bounce", "queue_id", e.QueueID, "recipients", returned, "error", err)
	}
	t.o.Note(journal.Delivery{QueueID: id, Time: e.Time, Status: status, N: n})
	if t.o.Outcome != nil {
		t.o.Outcome(id, status, n)
	}
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
