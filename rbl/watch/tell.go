package watch

import (
	"context"
	"time"
)

const (
	tellWithin     = time.Minute
	firstTellAgain = 30 * time.Second
	lastTellAgain  = time.Hour
)

// tellUntil tells what there is to tell, as it comes, until ctx ends.
func (w *Watch) tellUntil(ctx context.Context) {
	told := map[int64]bool{} // and not yet noted as such
	wait := time.Duration(0)
	for {
		more, err := w.tell(ctx, told)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && more:
			wait = 0
			continue
		case err == nil:
			wait = 0
			select {
			case <-w.news:
			case <-ctx.Done():
				return
			}
			continue
		}
		wait = min(max(2*wait, firstTellAgain), lastTellAgain)
		w.o.Log.Warn("events of blocklists were not told; it is tried again", "after", wait, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// tell tells what nobody was told of, and notes that. more: there may be others.
func (w *Watch) tell(ctx context.Context, told map[int64]bool) (more bool, err error) {
	events, err := w.o.Store.Untold(ctx)
	if err != nil || len(events) == 0 {
		return false, err
	}
	fresh := events[:0:0]
	ids := make([]int64, 0, len(events))
	for _, e := range events {
		ids = append(ids, e.ID)
		if !told[e.ID] {
			fresh = append(fresh, e)
		}
	}
	if len(fresh) > 0 && w.o.Tell != nil {
		within, cancel := context.WithTimeout(ctx, tellWithin)
		defer cancel()
		if err := w.o.Tell(within, fresh); err != nil {
			return false, err
		}
	}
	for _, id := range ids {
		told[id] = true
	}
	// Also if ctx has ended meanwhile: they were told.
	if err := w.o.Store.Told(context.WithoutCancel(ctx), ids...); err != nil {
		return false, err
	}
	clear(told)
	return true, nil
}
