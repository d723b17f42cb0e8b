package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// OpenLines lets the mail that the journal says is held wait for its limits
// again. It is called once, before the first message is judged: new mail queues
// behind what waits.
func (d *Desk) OpenLines(ctx context.Context, now time.Time) error {
	lines := d.newFill(now)
	if err := d.Journal.EachHold(ctx, journal.HoldQuery{States: []journal.State{journal.StateHeld}}, func(h *journal.Hold) error {
		lines.see(h)
		return nil
	}); err != nil {
		return fmt.Errorf("find out what held mail waits for its limits: %w", err)
	}
	lines.fill()
	return nil
}

// RefillLines is OpenLines while mail is judged: held mail is released by itself
// from now on, and was not before. It waits for acts on the queue.
func (d *Desk) RefillLines(ctx context.Context, now time.Time) error {
	d.turn.Lock() // which may be about to clear the lines
	defer d.turn.Unlock()
	d.acting.Lock() // an act is between two states
	defer d.acting.Unlock()
	if err := d.upToDate(ctx); err != nil {
		return fmt.Errorf("find out what held mail waits for its limits: %w", err)
	}
	return d.OpenLines(ctx, now)
}

// fill brings the lines into step with the open holds: it sees each, the longest
// held first, and then does it.
type fill struct {
	d     *Desk
	now   time.Time
	p     Pacing
	open  map[holdName]bool
	wait  []policy.Waiting // in no line yet
	since []time.Time      // of their payments; zero: not paid
}

func (d *Desk) newFill(now time.Time) *fill {
	return &fill{d: d, now: now, p: d.pacing(), open: map[holdName]bool{}}
}

func (f *fill) off() bool { return f.d.Waiting == nil || !f.p.Release }

func (f *fill) see(h *journal.Hold) {
	if f.off() || h.State != journal.StateHeld {
		return
	}
	f.open[holdName{h.QueueID, h.DecisionID}] = true
	if f.p.MaxAge > 0 && f.now.Sub(h.HeldAt) >= f.p.MaxAge || f.d.Waiting.Has(h.QueueID, h.DecisionID) {
		return
	}
	if w, waits := waitingOf(h); waits {
		paid := h.Changed
		if h.ChargeID == "" {
			paid = time.Time{}
		}
		f.wait, f.since = append(f.wait, w), append(f.since, paid)
	}
}

// fill does it. Mail that was just held may be in the lines and not yet in the
// journal.
func (f *fill) fill() {
	d := f.d
	if f.off() {
		return
	}
	for _, w := range d.Waiting.All() {
		if !f.open[nameOf(&w)] && f.now.Sub(w.HeldAt) >= young {
			d.Waiting.Remove(w.QueueID, w.ID)
		}
	}
	left := d.stillLeft(f.open)
	for i, w := range f.wait {
		if name := nameOf(&w); f.open[name] && !left[name] && d.Waiting.Add(w) && !f.since[i].IsZero() {
			d.payments.known(&w, f.since[i])
		}
	}
	d.payments.keep(f.open)
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

// Line is the held mail of one account before one bucket that is released as
// there is room again.
type Line struct {
	Limit    string    `json:"limit"`
	Key      string    `json:"key"` // the bucket's value
	Account  string    `json:"account"`
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
	all := d.Waiting.List()
	slices.SortStableFunc(all, func(a, b policy.Line) int { return a.Oldest.HeldAt.Compare(b.Oldest.HeldAt) })
	p, board := d.pacing(), policy.NewSwitches(d.Switches.All(now))
	for _, l := range all[:min(len(all), maxLines)] {
		w := &l.Oldest
		shown := Line{Limit: l.Bucket.Limit, Key: l.Bucket.Value, Account: w.Waits.Origin.Name(), Waiting: l.Waiting, Oldest: w.HeldAt, QueueID: w.QueueID}
		if shown.Stopped = d.halted(now, p, board, w); shown.Stopped == "" && l.Until.After(now) {
			shown.NextFree = l.Until
		}
		out = append(out, shown)
	}
	return out
}

// forgive forgets what bounced of the lines of an account, or of those of a site or
// plugin, by the value of its buckets.
func (d *Desk) forgive(value string) {
	d.bounces.forgive(func(k policy.LineKey) bool { return k.Account == value || policy.HasPart(k.Bucket.Value, value) })
	d.Hurry()
}
