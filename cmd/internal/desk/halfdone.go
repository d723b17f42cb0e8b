package desk

import (
	"context"
	"fmt"
	"time"

	"relayguard/journal"
	"relayguard/mta"
)

// undone are deletes of queued mail that were cut off before all of it was on hold:
// the journal says of each message that it is to be deleted, and it is in another
// queue still.
type undone struct {
	holds []journal.Hold
	files []mta.QueueFile // of holds
}

// lookElsewhere finds, of mail that is to be deleted and was not on hold, what is in
// any queue: what put it on hold may have gone on meanwhile.
func (d *Desk) lookElsewhere(ctx context.Context, missing []journal.Hold) (undone, error) {
	var out undone
	if len(missing) == 0 {
		return out, nil
	}
	byID := make(map[string][]int, len(missing))
	for i, h := range missing {
		byID[h.QueueID] = append(byID[h.QueueID], i)
	}
	taken := map[int]int{} // by place in missing
	err := d.Queue.List(ctx, func(q mta.QueueFile) error {
		for _, i := range byID[q.ID] {
			if !matches(missing[i], q) {
				continue
			}
			q.Recipients, q.Reason = nil, ""
			if n, twice := taken[i]; twice { // it moved: the later counts
				out.files[n] = q
				continue
			}
			taken[i] = len(out.holds)
			out.holds, out.files = append(out.holds, missing[i]), append(out.files, q)
		}
		return nil
	})
	return out, d.skipped(err)
}

// deleteUndone brings them to their end.
func (d *Desk) deleteUndone(ctx context.Context, now time.Time, left undone) error {
	if len(left.holds) == 0 {
		return nil
	}
	d.Log.Info("an act on queued mail that was cut off is done again", "verb", "delete", "messages", len(left.holds))
	defer d.oneAct()()
	holds, err := d.again(ctx, left.holds)
	if err != nil {
		return fmt.Errorf("queue delete, again: %w", err)
	}
	var part []*chosen
	var by []By
	for i, h := range holds {
		if h.State != journal.StateDeleting { // somebody was quicker
			continue
		}
		q := &left.files[i]
		part = append(part, &chosen{Queued{Instance: q.Instance, Queue: q.Queue, Account: h.Account, Rule: h.Rule, QueueID: q.ID, MailFrom: q.Sender, ID: h.DecisionID,
			Arrival: q.Arrival, Size: q.Size}})
		by = append(by, By{Name: h.ChangedBy})
	}
	if len(part) == 0 {
		return nil
	}
	results, err := d.Queue.DeleteQueued(ctx, targetsOf(part))
	if err = d.beside("queue delete, again", results, err); err != nil {
		return err // it stands as asked for, and the next look finds it
	}
	order := QueueOrder{Verb: "delete", Reason: "again, after it was cut off"}
	var records []journal.Record
	for i, m := range outcomes(part, results) {
		if c, changes := part[i].became(now, by[i], &order, &m, journal.StateDeleted); changes {
			records = append(records, c)
		}
	}
	if len(records) > 0 {
		d.append(records...)
	}
	return nil
}
