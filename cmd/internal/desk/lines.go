package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// OpenLines lets the mail that the journal says is held wait for its limits
// again. It is called once, before the first message is judged: new mail queues
// behind what waits.
func (d *Desk) OpenLines(ctx context.Context, now time.Time) error {
	all, err := d.Journal.Holds(ctx, journal.HoldQuery{States: []journal.State{journal.StateHeld}})
	if err != nil {
		return fmt.Errorf("find out what held mail waits for its limits: %w", err)
	}
	d.fillLines(now, all, nil)
	return nil
}

// fillLines brings the lines into step with the open holds, newest first, and the
// changes of them that are not in there yet. Mail that was just held may be in
// the lines and not yet in the journal.
func (d *Desk) fillLines(now time.Time, all []journal.Hold, changes []journal.Record) {
	p := d.pacing()
	if d.Waiting == nil || !p.Release {
		return
	}
	open := map[holdName]bool{}
	for i := range all {
		if all[i].State == journal.StateHeld {
			open[holdName{all[i].QueueID, all[i].DecisionID}] = true
		}
	}
	for _, r := range changes {
		if c, is := r.(journal.HoldChange); is && !c.State.Open() {
			delete(open, holdName{c.QueueID, c.DecisionID})
		}
	}
	for _, w := range d.Waiting.All() {
		if !open[nameOf(&w)] && now.Sub(w.HeldAt) >= young {
			d.Waiting.Remove(w.QueueID, w.ID)
		}
	}
	left := d.stillLeft(open)
	for i := range slices.Backward(all) {
		h := &all[i]
		name := holdName{h.QueueID, h.DecisionID}
		if !open[name] || left[name] || p.MaxAge > 0 && now.Sub(h.HeldAt) >= p.MaxAge || d.Waiting.Has(h.QueueID, h.DecisionID) {
			continue
		}
		if w, waits := waitingOf(h); waits && d.Waiting.Add(w) && h.ChargeID != "" {
			d.payments.known(&w, h.Changed)
		}
	}
	d.payments.keep(open)
	d.Waiting.Again() // what Later said was of budgets that may have been changed since
}

// stillLeft forgets what left the lines and is no longer held. The map is the
// caller's.
func (d *Desk) stillLeft(open map[holdName]bool) map[holdName]bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	still := map[holdName]bool{}
	for name := range d.left {
		if open[name] {
			still[name] = true
		} else {
			delete(d.left, name)
		}
	}
	return still
}

// waitingOf reads what a hold waits for; false if it is for an admin.
func waitingOf(h *journal.Hold) (policy.Waiting, bool) {
	if len(h.Waits) == 0 || h.QueueID == "" {
		return policy.Waiting{}, false
	}
	waits := new(policy.Waits)
	if err := json.Unmarshal(h.Waits, waits); err != nil {
		return policy.Waiting{}, false // of another version
	}
	return policy.Waiting{ID: h.DecisionID, QueueID: h.QueueID, HeldAt: h.HeldAt, Size: h.Size, Recipients: h.Recipients, Waits: waits}, true
}

// waitsNoMore takes a message out of its lines with which something else is done.
func (d *Desk) waitsNoMore(h *journal.Hold) {
	if d.Waiting != nil {
		d.Waiting.Remove(h.QueueID, h.DecisionID)
	}
}

// haltedAgain keeps back mail whose paced release was cut off and of whose
// account nothing is to be released by itself any more: it is held again.
func (d *Desk) haltedAgain(now time.Time, part []journal.Hold) (due []journal.Hold) {
	p, board := d.pacing(), policy.NewSwitches(d.Switches.All(now))
	var back []journal.Record
	for _, h := range part {
		w, waits := waitingOf(&h)
		why := ""
		if waits && h.State == journal.StateReleasing && h.ChargeID != "" && h.ChangedBy == guardItself.Name {
			if why = d.halted(now, p, board, &w); why == "" && d.Pacing != nil && !p.Release {
				why = "nothing is released by itself"
			}
		}
		if why == "" {
			due = append(due, h)
			continue
		}
		back = append(back, journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, State: journal.StateHeld, By: guardItself.Name, Reason: why})
	}
	if len(back) > 0 {
		d.append(back...)
	}
	return due
}

// Hurry has every line asked about again at the next Pace: budgets were changed.
func (d *Desk) Hurry() {
	if d.Waiting != nil {
		d.Waiting.Again()
	}
}

// Line is the held mail of one bucket that is released as there is room again.
type Line struct {
	Limit    string    `json:"limit"`
	Key      string    `json:"key"`     // the bucket's value
	Account  string    `json:"account"` // of the oldest
	Waiting  int       `json:"waiting"` // messages
	Oldest   time.Time `json:"oldest"`  // held since
	QueueID  string    `json:"queue_id"`
	NextFree time.Time `json:"next_free,omitzero"` // before it the oldest is not asked about; zero: it is at the next turn
	Stopped  string    `json:"stopped,omitempty"`  // why nothing of it is released by itself
}

// maxLines bounds one answer.
const maxLines = 1000

// Lines are the lines of held mail, that with the oldest message first; at most
// 1,000.
func (d *Desk) Lines(now time.Time) []Line {
	out := []Line{}
	if d.Waiting == nil {
		return out
	}
	all := make([]policy.Line, 0, 16)
	for _, k := range d.Waiting.Keys() {
		if l := d.Waiting.Line(k); l.Waiting > 0 { // it may have left meanwhile
			all = append(all, l)
		}
	}
	slices.SortStableFunc(all, func(a, b policy.Line) int { return a.Oldest.HeldAt.Compare(b.Oldest.HeldAt) })
	p, board := d.pacing(), policy.NewSwitches(d.Switches.All(now))
	for _, l := range all[:min(len(all), maxLines)] {
		w := &l.Oldest
		shown := Line{Limit: l.Key.Limit, Key: l.Key.Value, Account: w.Waits.Origin.Name(), Waiting: l.Waiting, Oldest: w.HeldAt, QueueID: w.QueueID}
		if shown.Stopped = d.halted(now, p, board, w); shown.Stopped == "" && l.Until.After(now) {
			shown.NextFree = l.Until
		}
		out = append(out, shown)
	}
	return out
}

// Complaint lets nothing held of an account be released by itself until an admin
// lifts the pause: what was complained about may be in there.
func (d *Desk) Complaint(now time.Time, by By, account, text string) (policy.Switch, error) {
	subject, value, err := d.Account(account)
	if err != nil {
		return policy.Switch{}, err
	}
	s, err := d.Set(now, by, policy.Switch{Kind: policy.Pause, Subject: subject, Value: value, Reason: "complaint: " + text})
	d.tell(now, d.name(&s), "complaint, noted by "+by.Name+": "+text+"; nothing of it is released by itself")
	return s, err
}

// forgive forgets what bounced of an account's lines, by the value of its
// buckets.
func (d *Desk) forgive(value string) {
	d.bounces.forgive(func(k limit.Key) bool { return slices.Contains(strings.Fields(k.Value), value) })
	d.Hurry()
}
