package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/mta"
)

// forGood is the verb of a delete that keeps no copy.
const forGood = "delete for good"

// Deleted is a deleted message of which there is a copy.
type Deleted struct {
	Held
	DeletedAt time.Time `json:"deleted_at"`
	name      string    // of the copy
}

// Deleted lists what Restore can put back, the longest deleted first. Of what
// the journal does not know there are queue id, arrival and size.
func (d *Desk) Deleted(ctx context.Context) ([]Deleted, error) {
	kept, err := d.Queue.Kept(ctx)
	if err != nil {
		return nil, fmt.Errorf("list deleted mail: %w", err)
	}
	known := map[string][]journal.Hold{}
	for part := range slices.Chunk(kept, maxAtOnce) {
		ids := make([]string, len(part))
		for i, k := range part {
			ids[i] = k.ID
		}
		all, err := d.Journal.Holds(ctx, journal.HoldQuery{IDs: ids, States: []journal.State{journal.StateDeleted, journal.StateDeleting, journal.StateGone}})
		if err != nil {
			return nil, fmt.Errorf("list deleted mail: %w", err)
		}
		for _, h := range all {
			known[h.QueueID] = append(known[h.QueueID], h)
		}
	}
	out := make([]Deleted, 0, len(kept))
	for _, k := range kept {
		m := Deleted{Held: Held{QueueID: k.ID, Account: "unknown", Arrival: k.Arrival, Size: k.Size, State: string(journal.StateDeleted), HeldBy: byUs}, DeletedAt: k.Deleted, name: k.Name}
		for i, h := range known[k.ID] {
			if h.Arrival.IsZero() || h.Arrival.Unix() == k.Arrival.Unix() { // ids are used again
				m.Held = heldOf(&known[k.ID][i])
				m.Arrival = k.Arrival
				break
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// Restoration asks for deleted mail to come back.
type Restoration struct {
	IDs    []string `json:"ids"` // queue ids that it had, or decision ids
	Reason string   `json:"reason"`
}

// Restore puts deleted mail back on hold, under new queue ids. Where an id is
// that of several, the last deleted is meant.
func (d *Desk) Restore(ctx context.Context, now time.Time, by By, r Restoration) (Report, error) {
	if len(r.IDs) == 0 {
		return Report{}, fmt.Errorf("%w: restore: name ids", ErrUsage)
	}
	all, err := d.Deleted(ctx)
	if err != nil {
		return Report{}, err
	}
	out := Report{Verb: "restore", Counts: map[string]int{}, Messages: []Done{}}
	var chosen []Deleted
	for _, id := range r.IDs {
		i := last(all, func(m *Deleted) bool { return m.QueueID == id || m.ID != "" && m.ID == id })
		switch {
		case i < 0:
			out.Unknown = append(out.Unknown, id)
		case last(chosen, func(m *Deleted) bool { return m.name == all[i].name }) < 0: // else it was named twice
			chosen = append(chosen, all[i])
		}
	}
	if len(chosen) == 0 {
		return out, nil
	}
	d.append(d.audit(now, by, "held restore", strings.Join(names(chosen), " "), r.Reason, ""))
	defer d.oneAct()()
	for _, m := range chosen {
		out.add(d.restore(ctx, now, by, r.Reason, m))
	}
	return out, nil
}

func last(all []Deleted, is func(*Deleted) bool) int {
	for i := len(all) - 1; i >= 0; i-- {
		if is(&all[i]) {
			return i
		}
	}
	return -1
}

func names(all []Deleted) []string {
	out := make([]string, len(all))
	for i, m := range all {
		out[i] = m.QueueID
	}
	return out
}

// restore brings one back, and journals under which id.
func (d *Desk) restore(ctx context.Context, now time.Time, by By, reason string, m Deleted) Done {
	done := Done{Held: m.Held, Outcome: mta.Done.String()}
	var err error
	done.NewID, err = d.Queue.Restore(ctx, m.name)
	switch {
	case done.NewID == "" && errors.Is(err, mta.ErrGone):
		done.Outcome = mta.Gone.String()
		return done
	case done.NewID == "":
		done.Outcome, done.Error = mta.Failed.String(), err.Error()
		return done
	case err != nil: // it is back all the same
		d.Log.Warn("held restore", "queue_id", m.QueueID, "error", err)
	}
	d.append(
		journal.Held{QueueID: done.NewID, DecisionID: m.ID, Account: m.Account, Rule: m.Rule, Reason: m.Reason, MailFrom: m.MailFrom, Arrival: m.Arrival, HeldAt: now,
			Size: m.Size, Recipients: m.Recipients, Domains: m.Domains},
		journal.HoldChange{QueueID: m.QueueID, DecisionID: m.ID, Time: now, State: journal.State(m.State), By: by.Name, Reason: strings.TrimSuffix("restored: "+reason, ": "), NewQueueID: done.NewID},
	)
	if d.Room != nil {
		d.Room.Add(d.roomOf(m.Account, m.Site, m.Template), m.Size)
	}
	return done
}
