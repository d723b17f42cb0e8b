package desk

import (
	"context"
	"errors"
	"sync"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// payments are those for mail that is still held. The zero value has none; safe
// for concurrent use.
type payments struct {
	mu  sync.Mutex
	all map[holdName]payment
}

type payment struct {
	at    time.Time // the last time
	times int
	paid  policy.Paid // what it was; nothing of an earlier run's
}

func nameOf(w *policy.Waiting) holdName { return holdName{w.QueueID, w.ID} }

func (p *payments) of(w *policy.Waiting) payment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all[nameOf(w)]
}

func (p *payments) add(w *policy.Waiting, at time.Time, paid policy.Paid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[holdName]payment{}
	}
	p.all[nameOf(w)] = payment{at, p.all[nameOf(w)].times + 1, paid}
}

// known learns of the payment of an earlier run.
func (p *payments) known(w *policy.Waiting, at time.Time) {
	if p.of(w).times == 0 {
		p.add(w, at, policy.Paid{})
	}
}

// keep forgets all others.
func (p *payments) keep(held map[holdName]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range p.all {
		if !held[n] {
			delete(p.all, n)
		}
	}
}

// releasePaid releases what was paid for, in one call to the queue. What could
// not be released goes back into its lines.
func (d *Desk) releasePaid(ctx context.Context, now time.Time, paid []policy.Waiting) {
	if len(paid) == 0 {
		return
	}
	open := map[holdName]policy.Waiting{}
	chosen := make([]journal.Hold, len(paid))
	for i, w := range paid {
		open[nameOf(&w)] = w
		chosen[i] = journal.Hold{QueueID: w.QueueID, DecisionID: w.ID, State: journal.StateHeld}
	}
	d.paceLooks(now)
	done, err := d.settle(ctx, now, guardItself, reasonPaced, "release", chosen, func(part []journal.Hold) []journal.Hold {
		return d.stillDue(now, part, open)
	})
	released := 0
	for _, m := range done {
		name := holdName{m.QueueID, m.ID}
		w := open[name]
		switch {
		case m.Outcome == "done":
			released++
			d.wentOut(now, w, m.NewID)
			delete(open, name)
		case m.Outcome != "failed" || m.unsure: // gone, or for Reconcile to find out
			delete(open, name)
		default:
			d.Log.Warn("held mail could not be released by itself", "queue_id", m.QueueID, "error", m.Error)
		}
	}
	switch {
	case ctx.Err() != nil: // the daemon ends
		return
	case err != nil:
		d.paceFailed(now, err)
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return // it may have been done: Reconcile finds out
		}
	default:
		d.mended(pacePause)
	}
	for _, w := range open {
		d.Waiting.Add(w)
	}
	if released > 0 {
		d.Log.Info("held mail is released as its limits have room for it", "messages", released)
	}
}

// stillDue leaves out what was stopped since it was paid for, which stays open,
// and what somebody else has begun to do something with. No other act is under
// way.
func (d *Desk) stillDue(now time.Time, part []journal.Hold, open map[holdName]policy.Waiting) (due []journal.Hold) {
	p, board := d.pacing(), policy.NewSwitches(d.Switches.All(now))
	for _, h := range part {
		name := holdName{h.QueueID, h.DecisionID}
		w := open[name]
		if h.State != journal.StateHeld {
			delete(open, name)
			continue
		}
		if d.halted(now, p, board, &w) == "" {
			h.ChargeID = chargeID(w.ID)
			due = append(due, h)
		}
	}
	return due
}

// wentOut remembers what was released, to learn what became of it.
func (d *Desk) wentOut(now time.Time, w policy.Waiting, newID string) {
	d.bounces.released(now, &w, newID)
	if d.Released == nil {
		return
	}
	paid := d.payments.of(&w).paid
	if newID != "" {
		w.QueueID = newID
	}
	d.Released(now, w, paid)
}

// leave lets mail that was taken out of its lines wait for an admin, and notes
// why.
func (d *Desk) leave(ctx context.Context, now time.Time, gone []policy.Waiting, why string) {
	chosen := make([]journal.Hold, len(gone))
	d.mu.Lock()
	if d.left == nil {
		d.left = map[holdName]bool{}
	}
	for i, w := range gone {
		d.left[nameOf(&w)] = true
		chosen[i] = journal.Hold{QueueID: w.QueueID, DecisionID: w.ID}
	}
	d.mu.Unlock()
	d.Log.Warn("held mail waits for an admin from now on", "messages", len(gone), "oldest", gone[0].QueueID, "account", gone[0].Waits.Origin.Name(), "why", why)
	d.acting.Lock() // else an act would be taken back
	defer d.acting.Unlock()
	held, err := d.again(ctx, chosen)
	if err != nil {
		return // the log has it
	}
	var notes []journal.Record
	for _, h := range held {
		if h.State == journal.StateHeld {
			notes = append(notes, journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, State: journal.StateHeld, By: guardItself.Name, Reason: why})
		}
	}
	if len(notes) > 0 {
		d.append(notes...)
	}
}
