package desk

import (
	"context"
	"strings"
	"time"

	"relayguard/cmd/internal/holds"
	"relayguard/journal"
	"relayguard/mta/postfix"
	"relayguard/policy/address"
)

// guardItself is who does what the guard does by itself.
var guardItself = By{Name: "relayguard", LoginUID: -1}

// Reasons of the guard's own entries.
const (
	reasonLost = "lost: the MTA's log says that a milter held it, the journal does not say why"
	reasonGone = "it is no longer in the hold queue, and the guard did not take it out"
)

// young is how long a hold may be in the journal before its message is in the
// queue: the entry is written before the MTA is answered.
const young = time.Minute

// Reconcile looks at the hold queue and puts the journal right: what is asked
// for and not done is done again, what left is closed, what is held without an
// entry gets one. Other people's holds are counted and left alone.
func (d *Desk) Reconcile(ctx context.Context, now time.Time) error {
	entries, holdsNow, err := d.compare(ctx)
	d.mu.Lock()
	d.lookErr = err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	var records []journal.Record
	var redo = map[string][]journal.Hold{}
	totals := map[string]holds.Total{}
	ours := map[string]bool{}
	for _, h := range holdsNow {
		e, there := entries[h.QueueID]
		there = there && matches(h, e)
		switch {
		case there:
			ours[h.QueueID] = true
			t := totals[h.Account]
			totals[h.Account] = holds.Total{Messages: t.Messages + 1, Bytes: t.Bytes + h.Size}
			if h.State == journal.StateReleasing {
				redo["release"] = append(redo["release"], h)
			} else if h.State == journal.StateDeleting {
				redo["delete"] = append(redo["delete"], h)
			}
			if h.Arrival.Unix() != e.Arrival.Unix() && h.State == journal.StateHeld {
				records = append(records, journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, State: journal.StateHeld, By: guardItself.Name, Arrival: e.Arrival})
			}
		case now.Sub(h.HeldAt) < young:
			t := totals[h.Account] // on its way into the queue
			totals[h.Account] = holds.Total{Messages: t.Messages + 1, Bytes: t.Bytes + h.Size}
		default:
			records = append(records, ended(now, h))
		}
	}
	foreign, others := d.strangers(now, entries, ours, &records, totals)
	if len(records) > 0 {
		d.append(records...)
	}
	if d.Room != nil {
		d.Room.Set(totals)
	}
	d.mu.Lock()
	d.foreign, d.others, d.lookedAt = foreign, others, now
	d.mu.Unlock()
	for verb, again := range redo {
		d.Log.Info("an act on held mail that was cut off is done again", "verb", verb, "messages", len(again))
		if _, err := d.settle(ctx, now, guardItself, "again, after it was cut off", verb, again); err != nil {
			return err
		}
	}
	return nil
}

// compare reads the queue before the journal: what the queue has was journaled
// before it came there, so an entry that is not found is not there.
func (d *Desk) compare(ctx context.Context) (map[string]postfix.QueueFile, []journal.Hold, error) {
	d.acting.Lock() // an act is between two states
	defer d.acting.Unlock()
	entries, err := d.heldQueue(ctx)
	if err != nil {
		return nil, nil, err
	}
	all, err := d.Journal.Holds(ctx, journal.HoldQuery{})
	return entries, all, err
}

// ended closes a hold whose message left the queue.
func ended(now time.Time, h journal.Hold) journal.HoldChange {
	c := journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, By: guardItself.Name}
	switch h.State {
	case journal.StateReleasing:
		c.State = journal.StateReleased
	case journal.StateDeleting:
		c.State = journal.StateDeleted
	default:
		c.State, c.Reason = journal.StateGone, reasonGone
	}
	return c
}

// strangers are held messages without an entry: ours, if the MTA's log says that
// a milter held them, and else somebody else's.
func (d *Desk) strangers(now time.Time, entries map[string]postfix.QueueFile, ours map[string]bool, records *[]journal.Record, totals map[string]holds.Total) (foreign []postfix.QueueFile, others int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, e := range entries {
		switch at, milter := d.byMilter[id]; {
		case ours[id]:
		case milter && !e.Arrival.After(at.Add(time.Second)):
			*records = append(*records, journal.Held{QueueID: id, Account: "unknown", Rule: "", Reason: reasonLost, MailFrom: e.Sender,
				Arrival: e.Arrival, HeldAt: at, Size: e.Size, Recipients: len(e.Recipients) + e.More, Domains: domains(e.Recipients)})
			t := totals["unknown"]
			totals["unknown"] = holds.Total{Messages: t.Messages + 1, Bytes: t.Bytes + e.Size}
		default:
			if others++; len(foreign) < maxForeign {
				foreign = append(foreign, e)
			}
		}
	}
	for id, at := range d.byMilter {
		if _, there := entries[id]; !there && now.Sub(at) > young {
			delete(d.byMilter, id)
		}
	}
	return foreign, others
}

// HeldByMilter learns from the MTA's log that a milter held a message.
func (d *Desk) HeldByMilter(queueID string, at time.Time) {
	const most = 100_000 // what is held at all, several times
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byMilter == nil {
		d.byMilter = map[string]time.Time{}
	}
	if len(d.byMilter) < most {
		d.byMilter[queueID] = at
	}
}

// domains counts recipients by domain: all that is told of them.
func domains(rcpts []string) map[string]int {
	all := map[string]int{}
	for _, to := range rcpts {
		domain := ""
		if i := strings.LastIndexByte(to, '@'); i >= 0 {
			domain = address.Domain(to[i+1:])
		}
		all[domain]++
	}
	return all
}

// Requeued learns from the MTA's log that a message which was held has another
// queue id now.
func (d *Desk) Requeued(oldID, newID string, at time.Time) {
	all, err := d.Journal.Explain(context.Background(), oldID)
	if err != nil || len(all) == 0 || len(all[0].Holds) == 0 || all[0].Holds[0].State == journal.StateHeld {
		return // not ours, or not our doing
	}
	h := all[0].Holds[0]
	d.append(journal.HoldChange{QueueID: oldID, DecisionID: h.DecisionID, Time: at, State: h.State, By: h.ChangedBy, NewQueueID: newID})
}

// Looked tells how many messages others hold, and what was wrong with the last
// look at the queue.
func (d *Desk) Looked() (foreign int, problem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lookErr != nil {
		problem = d.lookErr.Error()
	}
	return d.others, problem
}
