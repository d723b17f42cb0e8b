package desk

import (
	"context"
	"fmt"
	"strings"
	"time"

	"relayguard/policy"
)

// Pacing is how held mail is released by itself. A time of 0 leaves that out.
type Pacing struct {
	Release       bool          // false: nothing is, as in the phase observe
	MaxAge        time.Duration // what was held longer waits for an admin
	BouncePercent int           // of what a line released; beyond it the line stops. 0: it does not
	RemindAfter   time.Duration // what was held longer is told once a day
	DeleteAfter   time.Duration // what was held longer is deleted
}

// Bounds of one Pace.
const (
	maxReleases = 100
	maxLooked   = 1000

	lookShare = 20 // times as long as a look takes pass until the next
)

const (
	payWait     = 5 * time.Second  // to pay for all that one Pace releases
	haltedPause = 10 * time.Second // until a line that is stopped is looked at again
	errorPause  = time.Minute      // until one whose limits could not be asked is asked again
	leastPause  = time.Second

	// paidFor is how long mail that was paid for and not released need not be paid
	// for again: Redis gives a repeat for as long, and what passes later is not in
	// the windows that were paid.
	paidFor = time.Minute
	// maxPaid is how often mail is paid for: once, and once more after a crash or a
	// queue that did not do it.
	maxPaid = 2

	reasonPaced = "its limits have room for it again"
)

// chargeID names the step that pays for a release.
func chargeID(decisionID string) string { return "release:" + decisionID }

// Enqueue lets mail that was held wait for its limits. It is called on the mail
// path, after the hold was journaled; it waits for nobody.
func (d *Desk) Enqueue(w policy.Waiting) {
	if d.Waiting == nil || w.QueueID == "" || !d.pacing().Release {
		return // without an id Reconcile finds it, when it has looked
	}
	w.ID, w.QueueID = strings.Clone(w.ID), strings.Clone(w.QueueID)
	d.Waiting.Add(w)
}

func (d *Desk) pacing() Pacing {
	if d.Pacing == nil {
		return Pacing{}
	}
	return d.Pacing()
}

// Pace releases held mail for which its limits have room again, at most 100
// messages, and more where it must wait between two looks at the queue; it is called
// every second. Each is paid for, then journaled as asked
// for, then released: a crash between leaves it to the next start, which pays once
// more, or to Reconcile, which does what was asked for. One call at a time; a
// second one does nothing.
func (d *Desk) Pace(ctx context.Context, now time.Time) {
	if d.Waiting == nil || d.Pay == nil || !d.turn.TryLock() {
		return
	}
	defer d.turn.Unlock()
	p := d.pacing()
	if !p.Release {
		d.Waiting.Clear() // new mail queues behind nothing that never goes
		return
	}
	d.bounces.forget(now)
	d.tellBounces(now)
	if gone := d.Waiting.Expire(now, p.MaxAge); len(gone) > 0 {
		d.leave(ctx, now, gone, fmt.Sprintf("it waited longer than hold.max_age (%v) for its limits; an admin releases or deletes it", p.MaxAge))
	}
	most := d.mayLook(now)
	if most == 0 || d.pausing(now, pacePause) {
		return
	}
	if d.failedBefore(pacePause) { // nothing is paid for a queue that is away
		d.paceLooks(now)
		if _, err := d.heldQueue(ctx, map[string]bool{}); err != nil {
			d.paceFailed(now, err)
			return
		}
		most = 1
	}
	d.releasePaid(ctx, now, d.pay(ctx, now, p, most))
}

// mayLook is how many messages Pace may release now. Where much is queued, one look
// at the queue takes seconds: so that this does not wear the server down, Pace lets
// lookShare times as long pass before its next one, and releases more at once then.
// 0: it waits. A clock that was set back makes it wait no longer.
func (d *Desk) mayLook(now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest := lookShare * d.looking
	if rest < leastPause {
		return maxReleases
	}
	if since := now.Sub(d.paced); since >= 0 && since < rest {
		return 0
	}
	return min(maxReleases*int(rest/time.Second), maxLooked)
}

func (d *Desk) paceLooks(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paced = now
}

// pacePause names the pause after a release that failed.
const pacePause = "pace"

func (d *Desk) paceFailed(now time.Time, err error) {
	d.pause(now, pacePause)
	d.tellOnce(pacePause, "held mail cannot be released by itself; it is tried again", "error", err)
}

// pay pays for as much mail as its limits have room for, one message of each
// account's lines in turn, and takes it out of its lines.
func (d *Desk) pay(ctx context.Context, now time.Time, p Pacing, most int) (paid []policy.Waiting) {
	heads := d.Waiting.Heads(now)
	if len(heads) == 0 {
		return nil
	}
	board := policy.NewSwitches(d.Switches.All(now))
	if board.Stopped(now) != nil {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, payWait)
	defer cancel()
	leaving := map[string][]policy.Waiting{} // by why
	for looked := 0; looked < len(heads) && looked < maxLooked && len(paid) < most; looked++ {
		w := heads[looked]
		t, err := d.payOne(asking, now, p, board, &w)
		if err != nil { // as likely as not, the next one's cannot be asked either
			d.Waiting.Later(w.QueueID, w.ID, now.Add(errorPause))
			d.tellOnce(payFailure, "it cannot be found out whether held mail fits its limits; it is tried again", "queue_id", w.QueueID, "error", err)
			break
		}
		if !t.until.IsZero() {
			d.Waiting.Later(w.QueueID, w.ID, t.until)
			continue
		}
		switch there := d.Waiting.Remove(w.QueueID, w.ID); {
		case !there: // an admin was quicker
		case t.leaves != "":
			leaving[t.leaves] = append(leaving[t.leaves], w)
		default:
			paid = append(paid, w)
		}
		heads = append(heads, d.Waiting.HeadsOf(now, w.Waits.Lines())...)
	}
	for why, gone := range leaving {
		d.leave(ctx, now, gone, why)
	}
	return paid
}

const payFailure = "pay"

// turn is what a message at the head of its lines does; the zero value: it was
// paid for, and goes.
type turn struct {
	until  time.Time // it is not asked about again before
	leaves string    // why it waits for an admin from now on
}

func (d *Desk) payOne(ctx context.Context, now time.Time, p Pacing, board *policy.Switches, w *policy.Waiting) (turn, error) {
	if late := w.HeldAt.Add(coming); now.Before(late) { // it may not be in the queue yet
		return turn{until: late}, nil
	}
	if d.halted(now, p, board, w) != "" {
		return turn{until: now.Add(haltedPause)}, nil
	}
	switch before := d.payments.of(w); {
	case before.times > 0 && !now.Before(before.at) && now.Sub(before.at) < paidFor:
		return turn{}, nil
	case before.times >= maxPaid:
		return turn{leaves: "it was paid for twice and could not be released; an admin releases or deletes it"}, nil
	}
	did, err := d.Pay(ctx, now, w.Waits, chargeID(w.ID))
	if err != nil {
		return turn{}, err
	}
	d.mended(payFailure)
	switch {
	case did.Taken:
		d.payments.add(w, now, did)
		return turn{}, nil
	case did.Never:
		return turn{leaves: "it never fits, so it is not released by itself: " + did.Reason}, nil
	case did.FreeAt.After(now.Add(leastPause)):
		return turn{until: did.FreeAt}, nil
	}
	return turn{until: now.Add(leastPause)}, nil
}

// halted says why nothing that waits in the message's lines is released by
// itself, "" if it is.
func (d *Desk) halted(now time.Time, p Pacing, board *policy.Switches, w *policy.Waiting) string {
	o := &w.Waits.Origin
	if board.Stopped(now) != nil {
		return "all mail to the outside is stopped"
	}
	if s := board.Suspended(now, o); s != nil {
		return "suspended: " + s.Reason
	}
	if s := board.Paused(now, o); s != nil {
		return "paused: " + s.Reason
	}
	if d.Abused != nil && d.Abused(w.Waits) {
		return "an incident of abuse is open"
	}
	for _, k := range w.Waits.Lines() {
		if why := d.bounces.tooMany(k, p.BouncePercent); why != "" {
			return why
		}
	}
	return ""
}
