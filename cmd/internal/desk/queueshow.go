package desk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// QueueShow tells all that may be told of some messages in the queue, in the order in
// which they are named; what is not there is left out. The same id in two instances is
// two messages.
func (d *Desk) QueueShow(ctx context.Context, now time.Time, l QueueLook) ([]QueueShown, error) {
	if len(l.IDs) == 0 || slices.Contains(l.IDs, "") {
		return nil, fmt.Errorf("%w: queue show: name ids", ErrUsage)
	}
	type name struct{ instance, id string }
	all, at := []QueueShown{}, map[name]int{}
	_, _, err := d.scan(ctx, now, &QueueFilter{IDs: l.IDs, Instance: l.Instance}, nil, func(m *found) error {
		if i, twice := at[name{m.Instance, m.QueueID}]; twice { // it moved: the later counts
			all[i].Queued = m.Queued
			return nil
		}
		at[name{m.Instance, m.QueueID}] = len(all)
		all = append(all, QueueShown{Queued: m.Queued})
		return nil
	})
	if err != nil {
		return nil, err
	}
	place := make(map[string]int, len(l.IDs))
	for i, id := range slices.Backward(l.IDs) {
		place[id] = i + 1
	}
	named := func(m *QueueShown) int { return cmp.Or(place[m.QueueID], place[m.ID]) }
	slices.SortStableFunc(all, func(a, b QueueShown) int { return cmp.Compare(named(&a), named(&b)) })
	for i := range all {
		d.tellDecision(ctx, &all[i])
	}
	return all, nil
}

// tellDecision adds what the journal says of a message; what the queue says is told
// without, too.
func (d *Desk) tellDecision(ctx context.Context, m *QueueShown) {
	known, err := d.Journal.Explain(ctx, cmp.Or(m.ID, m.QueueID))
	if err != nil {
		return
	}
	for i := range known {
		k := &known[i]
		if k.Decision.ID != "" && k.Decision.ID == m.ID {
			shown := decisionOf(&k.Decision)
			m.Decision = &shown
		}
		for n := range k.Holds {
			if h := &k.Holds[n]; h.DecisionID == m.ID && (h.QueueID == m.QueueID || h.NewQueueID == m.QueueID) {
				m.Held = append(m.Held, heldOf(h))
			}
		}
	}
}
