package desk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// holdQueued holds what an account has in the queue, and once more what came there
// meanwhile, some hundred messages at a time. When ctx ends the batch in hand is ended
// and no other begun.
func (d *Desk) holdQueued(ctx context.Context, now time.Time, by By, account, reason string) (held int, err error) {
	// What an act under way lets go is in the queue when that is over; a later one
	// knows of the suspension.
	d.acting.Lock()
	d.acting.Unlock() //nolint:staticcheck // it is waited for, not kept
	held, err = d.holdAccepted(ctx, now, by, account, reason)
	if held == 0 && err != nil || errors.Is(err, errStopped) {
		return held, err
	}
	// What was accepted just before the switch may be a moment late, in the queue
	// and in the journal.
	behind := d.upToDate(ctx)
	if behind != nil {
		behind = fmt.Errorf("the journal is not up to date: %w", behind)
	}
	more, err := d.holdAccepted(ctx, now, by, account, reason)
	return held + more, errors.Join(err, behind)
}

// holdAccepted holds what the journal knows to be of the account. It looks without
// keeping other acts waiting.
func (d *Desk) holdAccepted(ctx context.Context, now time.Time, by By, account, reason string) (held int, err error) {
	o := QueueOrder{Verb: "hold", Filter: QueueFilter{Account: account}}
	r := newRun(func(Step) error { return nil }, false)
	c, err := d.choose(ctx, now, &o, r, queueVerbs[o.Verb])
	if err != nil {
		return 0, err
	}
	failed, begun := 0, time.Now()
	var first error
	err = r.batches(ctx, c.Len(), func(ctx context.Context, from, to int) ([]Done, error) {
		done, err := d.holdSuspended(ctx, now.Add(time.Since(begun)), by, reason, c.part(from, to))
		for i := range done {
			if done[i].Error != "" {
				failed++
				first = cmp.Or(first, errors.New(done[i].Error))
			}
		}
		return done, err
	})
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d messages: %w", failed, first))
	}
	return r.sum.Counts[mta.Done.String()], err
}

// holdSuspended holds one batch and journals each message: before, so that none is
// held without its reason.
func (d *Desk) holdSuspended(ctx context.Context, now time.Time, by By, reason string, part []*chosen) ([]Done, error) {
	defer d.oneAct()()
	entries := make([]journal.Record, len(part))
	for i, c := range part {
		e := c.entry(now, reason)
		e.Rule = policy.RuleSuspended
		entries[i] = e
	}
	d.append(entries...)
	results, err := d.Queue.Hold(ctx, targetsOf(part), reason)
	if err = d.beside("suspend", results, err); err != nil {
		return nil, err
	}
	done := outcomes(part, results)
	var back []journal.Record
	for i := range done {
		why := "it had left before it could be held"
		switch m := &done[i]; {
		case m.Outcome == mta.Done.String():
			if d.Room != nil {
				d.Room.Add(d.roomOf(m.Account, m.Site, m.Template), m.Size)
			}
			continue
		case m.unsure:
			continue // reconciliation finds out
		case m.Error != "":
			why = "it could not be held: " + m.Error
		}
		back = append(back, part[i].change(now, by, why, journal.StateGone))
	}
	if len(back) > 0 {
		d.append(back...)
	}
	return done, nil
}
