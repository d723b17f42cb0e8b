package desk

import (
	"context"
	"errors"
	"fmt"
	"time"

	"relayguard/journal"
	"relayguard/mta/postfix"
	"relayguard/policy"
)

// Stopped is what the red switch did.
type Stopped struct {
	Held    int      `json:"held"` // messages that were in the queue
	Caveats []string `json:"caveats,omitempty"`
}

// Stop pulls the red switch: new mail to the outside is held by the guard, what
// is in the queue by the MTA, and nothing goes out meanwhile. Inbound mail is not
// touched.
func (d *Desk) Stop(ctx context.Context, now time.Time, by By, reason string) (Stopped, error) {
	var out Stopped
	d.append(d.audit(now, by, "stop", "all mail to the outside", reason, ""))
	// First the guard, so that nothing new gets into the queue.
	if _, err := d.Switches.Set(policy.Switch{Kind: policy.Stop, Reason: reason, By: by.Name, Since: now}); err != nil {
		out.Caveats = append(out.Caveats, err.Error())
	}
	did, err := d.Queue.Stop(ctx) // waits for no other act: seconds count
	if err != nil {
		return out, fmt.Errorf("new mail is held, but what is in the queue goes on: %w", err)
	}
	out.Caveats = append(out.Caveats, did.Caveats...)
	for _, f := range did.Failed {
		out.Caveats = append(out.Caveats, fmt.Sprintf("%s is not on hold, only deferred: %v", f.ID, f.Err))
	}
	var entries []journal.Record
	for _, q := range did.Held {
		account, decision := d.owner(ctx, q.ID, q.Arrival)
		entries = append(entries, journal.Held{QueueID: q.ID, DecisionID: decision, Account: account, Rule: policy.RuleStopped, Reason: "all mail to the outside is stopped: " + reason,
			MailFrom: q.Sender, Arrival: q.Arrival, HeldAt: now, Size: q.Size, Recipients: len(q.Recipients) + q.More, Domains: domains(q.Recipients)})
		if d.Room != nil {
			d.Room.Add(account, q.Size)
		}
	}
	if out.Held = len(entries); out.Held > 0 {
		d.append(entries...)
	}
	return out, nil
}

// owner finds the decision about a message in the queue.
func (d *Desk) owner(ctx context.Context, queueID string, arrival time.Time) (account, decision string) {
	all, err := d.Journal.Explain(ctx, queueID)
	if err == nil {
		for _, e := range all {
			if !arrival.After(e.Decision.Time.Add(2*time.Second)) && e.Decision.Time.Sub(arrival) < 24*time.Hour {
				return e.Decision.Account, e.Decision.ID
			}
		}
	}
	return "unknown", ""
}

// Started is what taking the red switch back did.
type Started struct {
	Was      bool           `json:"was"` // stopped
	Released map[string]int `json:"released,omitempty"`
	Kept     int            `json:"kept"` // messages that stay held
	Remarks  []string       `json:"remarks,omitempty"`
}

// Start takes the red switch back and releases what it held, unless keep: then
// an admin goes through it.
func (d *Desk) Start(ctx context.Context, now time.Time, by By, reason string, keep bool) (Started, error) {
	var out Started
	d.append(d.audit(now, by, "start", "all mail to the outside", reason, ""))
	gone, err := d.Switches.Remove(func(s policy.Switch) bool { return s.Kind == policy.Stop })
	if err != nil {
		out.Remarks = append(out.Remarks, err.Error())
	}
	out.Was = len(gone) > 0
	did, err := d.Queue.Start(ctx, keep)
	if err != nil && !errors.Is(err, postfix.ErrNotStopped) {
		return out, fmt.Errorf("new mail is taken again, but the MTA's deliveries are still stopped: %w", err)
	}
	out.Remarks = append(out.Remarks, did.Caveats...)
	out.Was = out.Was || err == nil
	f := Filter{Rule: policy.RuleStopped}
	if err := d.released(ctx, now, by, reason, f, did.Released, &out); err != nil {
		return out, err
	}
	if keep {
		held, err := d.find(ctx, now, f)
		out.Kept = len(held)
		return out, err
	}
	r, err := d.Release(ctx, now, by, Order{Filter: f, Reason: reason})
	for outcome, n := range r.Counts {
		out.Released[outcome] += n
	}
	return out, err
}

// released journals what the MTA's side released by itself. That it does so,
// whatever the journal knows of it, leaves nothing behind when an entry is missing.
func (d *Desk) released(ctx context.Context, now time.Time, by By, reason string, f Filter, results []postfix.Result, out *Started) error {
	out.Released = map[string]int{}
	if len(results) == 0 {
		return nil
	}
	holds, err := d.find(ctx, now, f)
	if err != nil {
		return err
	}
	byID := map[string]int{}
	for i, h := range holds {
		byID[h.QueueID] = i
	}
	var done []Done
	for _, r := range results {
		out.Released[r.Fate.String()]++
		if i, ok := byID[r.ID]; ok && r.Fate == postfix.Done {
			done = append(done, Done{Held: heldOf(&holds[i]), Outcome: "done", NewID: r.NewID})
		}
	}
	d.settled(now, by, reason, journal.StateReleased, done)
	return nil
}
