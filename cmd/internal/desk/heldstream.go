package desk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"relayguard/journal"
)

// lookWait bounds how long a listing waits for a fresh look at the queue.
const lookWait = 900 * time.Millisecond

// lookLimit bounds a look that nobody waits for any more.
const lookLimit = 5 * time.Minute

// fresh is how old a look may be that is as good as a new one.
const fresh = 2 * time.Second

// EachHeld calls send with held mail, the longest held first; then, only if nothing
// chooses, with that of others. It keeps none of it.
func (d *Desk) EachHeld(ctx context.Context, now time.Time, f Filter, send func(Held) error) (HeldEnd, error) {
	d.mu.Lock()
	before := d.lookedAt
	d.mu.Unlock()
	d.refresh(ctx, now)
	late := d.late(ctx)
	var end HeldEnd
	more, err := d.eachUpTo(ctx, now, f, func(h *journal.Hold) error {
		m := heldOf(h)
		m.Paced = d.Waiting != nil && d.Waiting.Has(m.QueueID, m.ID)
		end.Messages++
		end.Bytes += m.Size
		return send(m)
	})
	if err != nil {
		return end, err
	}
	end.More = more
	d.mu.Lock()
	foreign := d.foreign
	end.Foreign, end.Looked = d.others, d.lookedAt
	if err := cmp.Or(d.lookErr, late); err != nil {
		end.Stale = err.Error()
	}
	end.Older = end.Stale == "" && d.lookedAt.Equal(before) && now.Sub(before) > fresh
	d.mu.Unlock()
	if f.chooses() {
		return end, nil
	}
	for i := range foreign {
		if err := send(foreign[i]); err != nil {
			return end, err
		}
	}
	return end, nil
}

// refresh has the queue looked at and waits for that, for lookWait at most: a longer
// look goes on, for who lists next. Where looks take longer, lookShare times as long
// pass between two of them.
func (d *Desk) refresh(ctx context.Context, now time.Time) {
	d.mu.Lock()
	if d.looking > lookWait && now.Sub(d.lookedAt) < lookShare*d.looking {
		d.mu.Unlock()
		return
	}
	over := d.refreshed
	if over == nil { // else one goes on
		over = make(chan struct{})
		d.refreshed = over
		go func() {
			look, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookLimit)
			defer cancel()
			d.freshen(look, now)
			d.mu.Lock()
			d.refreshed = nil
			d.mu.Unlock()
			close(over)
		}()
	}
	d.mu.Unlock()
	patience := time.NewTimer(lookWait)
	defer patience.Stop()
	select {
	case <-over:
	case <-patience.C:
	case <-ctx.Done():
	}
}

// late says why the journal does not yet have all that was decided, if it does not
// within lookWait: a look that nobody waited for has not said it.
func (d *Desk) late(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	if err := d.upToDate(ctx); err != nil {
		return fmt.Errorf("the journal is not up to date: %w", err)
	}
	return nil
}

// ActOnHeld releases or deletes what the guard or an admin holds, as ActOnQueue does
// it to what is in the queue.
func (d *Desk) ActOnHeld(ctx context.Context, now time.Time, by By, o HeldOrder, send func(Step) error) error {
	verb := o.Verb
	switch {
	case verb != "release" && verb != "delete":
		return fmt.Errorf("%w: held %q, want release or delete", ErrUsage, verb)
	case !o.Filter.chooses() && !o.Filter.All:
		return ErrEverything
	case verb == "delete" && o.NoCopy:
		verb = forGood
	}
	if err := d.upToDate(ctx); err != nil {
		d.Log.Warn("held "+o.Verb+": the journal is not up to date, what was held last may be left out", "error", err)
	}
	r, begun := newRun(send, o.Tell), time.Now()
	all, err := d.chooseHeld(ctx, now, &o, r)
	if err != nil {
		return r.unchosen(ctx, err)
	}
	var there *heldFiles
	if !o.DryRun && all.Len() > 0 {
		if there, err = d.heldQueueOf(ctx, func(id string) bool { return all.count(id) > 0 }); ctx.Err() != nil {
			return r.unchosen(ctx, err)
		} else if err != nil {
			return fmt.Errorf("held %s: %w", o.Verb, err)
		}
		d.append(d.audit(now, by, "held "+verb, fmt.Sprintf("%d messages", all.Len()), o.Reason, chosenBy(o.Filter)))
	}
	clock := func() time.Time { return now.Add(time.Since(begun)) }
	err = r.batches(ctx, all.Len(), func(ctx context.Context, from, to int) ([]Done, error) {
		holds := all.holds(from, to)
		if release := o.Verb == "release" && d.Releasing != nil; o.DryRun || release {
			if holds, err = d.again(ctx, holds); err != nil {
				return nil, err
			}
			if o.DryRun {
				return wouldHeld(holds), nil
			}
			for i := range holds {
				d.Releasing(ctx, &holds[i])
			}
		}
		return d.settleSome(ctx, clock(), by, o.Reason, verb, holds, there, nil)
	})
	return d.ended(clock(), by, "held "+verb, o.DryRun, r, err)
}

// heldNames are holds that an act is to be done to; the journal has the rest.
type heldNames struct{ idShelf }

// chooseHeld finds what an order is about.
func (d *Desk) chooseHeld(ctx context.Context, now time.Time, o *HeldOrder, r *run) (*heldNames, error) {
	var all heldNames
	var bytes int64
	named := make(map[string]bool, len(o.Filter.IDs)) // true: it chose something
	for _, id := range o.Filter.IDs {
		named[id] = false
	}
	err := d.each(ctx, now, o.Filter, func(h *journal.Hold) error {
		if len(named) == 0 && lost(h) { // that a milter held it is not that we did: only who names it may touch it
			return nil
		}
		for _, id := range []string{h.QueueID, h.DecisionID} {
			if _, is := named[id]; is {
				named[id] = true
			}
		}
		all.keep(&Queued{QueueID: h.QueueID, ID: h.DecisionID, Size: h.Size, Arrival: time.Unix(0, 0)}) // an id may be in several holds
		bytes += h.Size
		return nil
	})
	if err != nil {
		return nil, err
	}
	unknown := slices.DeleteFunc(slices.Clone(o.Filter.IDs), func(id string) bool { return named[id] })
	return &all, r.chosen(all.Len(), bytes, unknown)
}

// holds are some of them, as little as is known of them.
func (l *heldNames) holds(from, to int) []journal.Hold {
	some := make([]journal.Hold, 0, to-from)
	for n := from; n < to; n++ {
		m := l.At(n)
		some = append(some, journal.Hold{QueueID: m.QueueID, DecisionID: m.ID, Size: m.Size, State: journal.StateHeld})
	}
	return some
}

func wouldHeld(holds []journal.Hold) (out []Done) {
	for i := range holds {
		if holds[i].State.Open() {
			out = append(out, Done{Held: heldOf(&holds[i]), Outcome: outcomeWould})
		}
	}
	return out
}
