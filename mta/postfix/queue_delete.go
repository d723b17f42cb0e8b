package postfix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// DeleteMail deletes held mail. With a folder, which is this instance's alone, each
// message is kept there first, for Restore; what cannot be kept is Failed and stays
// on hold. After grace.ErrFull, which it is when no room is left, nothing more is
// tried. What a delivery that began before the hold still has is Failed, too: its
// copy would not know who got it, and be sent twice.
//
// What could not be deleted after all (Gone: somebody released it in between)
// has no copy. An error that comes with results says that such a copy could not
// be removed. After a kill -9 there may be copies of what is still in the queue;
// the next DeleteMail or Settle removes them.
func (i *Instance) DeleteMail(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return i.delete(ctx, targets, keep, (*deletion).held)
}

// DeleteQueued deletes mail in any queue: what is on its way is put on hold
// first, so that its copy is whole. What then cannot be deleted goes to the
// deferred queue; after a kill -9 in between it is on hold. It does not ask who held
// a message.
//
// The active queue is also where thousands wait for their turn. What a delivery has
// at this moment is Failed and goes on; if that began in the moment before the hold,
// it is Failed and stays on hold, for in the deferred queue it could be sent twice.
// Without a folder it is deleted all the same: nobody can send it again.
func (i *Instance) DeleteQueued(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return i.delete(ctx, targets, keep, (*deletion).any)
}

func (i *Instance) delete(ctx context.Context, targets []mta.Target, keep *grace.Folder, part func(*deletion, context.Context, []mta.Target) ([]mta.Result, error)) ([]mta.Result, error) {
	d := deletion{instance: i}
	if keep != nil && len(targets) > 0 {
		var err error
		if d.box, err = keep.Open(ctx); err != nil {
			return nil, fmt.Errorf("delete mail: %w", err)
		}
		defer d.box.Close()
		if err := i.settle(d.box); err != nil {
			return nil, fmt.Errorf("delete mail: %w", err)
		}
	}
	results, err := inParts(ctx, targets, func(targets []mta.Target) ([]mta.Result, error) {
		if d.full != nil {
			return failed(targets, d.full), nil
		}
		return part(&d, ctx, targets)
	})
	if err != nil {
		err = fmt.Errorf("delete mail: %w", err)
	}
	return results, err
}

func failed(targets []mta.Target, err error) []mta.Result {
	results := make([]mta.Result, len(targets))
	for n, t := range targets {
		results[n] = mta.Result{ID: t.ID, Err: err}
	}
	return results
}

// deletion is one delete, over all its parts.
type deletion struct {
	instance *Instance
	box      *grace.Box // nil: no copies
	full     error      // grace.ErrFull
}

// held deletes what is on hold.
func (d *deletion) held(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	i := d.instance
	look, err := i.look(targets, deleteAct.from)
	if err != nil {
		return nil, err
	}
	results, ids := look.judge(targets, deleteAct.from)
	if d.box == nil {
		i.do(ctx, deleteAct, targets, results, ids)
		return results, nil
	}
	if ids, err = d.keep(ctx, look, targets, results); err == nil {
		err = d.box.Sync()
	}
	if err != nil {
		for n := range results {
			if results[n].Err == errPending {
				results[n].Err = err
			}
		}
		ids = nil
	}
	i.do(ctx, deleteAct, targets, results, ids, d.box.Lock())
	err = nil
	for n, r := range results { // the copy of what was not deleted would come back twice
		if f, fate, _ := look.find(targets[n], deleteAct.from); fate == mta.Done && r.Fate != mta.Done {
			err = errors.Join(err, d.box.Drop(f.QueueFile))
		}
	}
	return results, err
}

// keep keeps what is pending and returns the ids that may be deleted.
func (d *deletion) keep(ctx context.Context, look look, targets []mta.Target, results []mta.Result) ([]string, error) {
	s, err := d.instance.openSpool()
	if err != nil {
		return nil, err
	}
	defer s.Close()
	busy, err := readLocks() // now nothing of this is given to a delivery any more
	if err != nil {
		return nil, err
	}
	var kept []string
	tried := make(map[string]error, len(targets))
	for n := range results {
		r := &results[n]
		if r.Err != errPending {
			continue
		}
		err, before := tried[r.ID]
		if !before {
			if err = ctx.Err(); err == nil {
				f, _, _ := look.find(targets[n], deleteAct.from)
				err = d.keepOne(s, f, targets[n], busy)
			}
			if tried[r.ID] = err; err == nil {
				kept = append(kept, r.ID)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, mta.ErrGone):
			r.Fate, r.Err = mta.Gone, nil
		default:
			if r.Err = err; errors.Is(err, grace.ErrFull) {
				d.full = err
			}
		}
	}
	return kept, nil
}

// keepOne keeps one message: the very file whose envelope is the target's.
func (d *deletion) keepOne(s *spool, seen sighting, t mta.Target, busy locks) error {
	f, file := d.instance.sightFile(s, seen.Queue, seen.ID)
	if f.err != nil {
		return f.err
	}
	if file == nil {
		return mta.ErrGone
	}
	defer file.Close()
	if !f.is(t) {
		return mta.ErrGone
	}
	if busy[f.inode] {
		return errBusy
	}
	return d.box.Put(time.Now(), seen.QueueFile, grace.Part{Name: "queue", File: file})
}

// any puts what is on its way on hold, and then deletes.
func (d *deletion) any(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	i := d.instance
	look, err := i.look(targets, anyQueue)
	if err != nil {
		return nil, err
	}
	holding, ids := look.judge(targets, onItsWay)
	if d.box != nil {
		if ids, err = look.idle(targets, holding, ids); err != nil {
			return nil, err
		}
	}
	i.do(ctx, holdAct, targets, holding, ids)
	results, err := d.held(ctx, targets)
	var back []mta.Target
	for n := range targets {
		switch {
		case results != nil && holding[n].Fate == mta.Done && errors.Is(results[n].Err, errBusy):
			results[n].Err = fmt.Errorf("%w; it is on hold now", errBusy)
		case results == nil && holding[n].Fate == mta.Done, results != nil && holding[n].Fate == mta.Done && results[n].Fate == mta.Failed:
			back = append(back, targets[n])
		case results != nil && results[n].Fate == mta.Gone && holding[n].Fate != mta.Done:
			results[n] = holding[n] // Failed, Changed
		}
	}
	if len(back) > 0 {
		i.letGo(ctx, back)
	}
	return results, err
}

// idle are the ids of those that no delivery has; the others are settled as Failed.
func (l look) idle(targets []mta.Target, results []mta.Result, ids []string) ([]string, error) {
	busy, err := readLocks()
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for n, t := range targets {
		if f, fate, _ := l.find(t, onItsWay); fate == mta.Done && busy[f.inode] && results[n].Err == errPending {
			results[n].Err, out[t.ID] = errBusy, true
		}
	}
	return slices.DeleteFunc(ids, func(id string) bool { return out[id] }), nil
}

// letGo takes mail off hold that was put there in passing. It does its best: what
// stays on hold is seen there.
func (i *Instance) letGo(ctx context.Context, targets []mta.Target) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actWait)
	defer cancel()
	look, err := i.look(targets, releaseAct.from)
	if err != nil {
		return
	}
	results, ids := look.judge(targets, releaseAct.from)
	i.do(ctx, releaseAct, targets, results, ids)
}

// Settle removes copies of what is still in the queue, which a delete that died
// left. It waits for a delete that is under way.
func (i *Instance) Settle(ctx context.Context, keep *grace.Folder) error {
	if _, err := os.Lstat(keep.Dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	box, err := keep.Open(ctx)
	if err != nil {
		return fmt.Errorf("settle deleted mail: %w", err)
	}
	defer box.Close()
	if err := i.settle(box); err != nil {
		return fmt.Errorf("settle deleted mail: %w", err)
	}
	return nil
}

func (i *Instance) settle(box *grace.Box) error {
	unfinished := box.Unfinished()
	if len(unfinished) == 0 {
		return nil
	}
	s, err := i.openSpool()
	if err != nil {
		return err
	}
	defer s.Close()
	for _, k := range unfinished {
		if !ValidQueueID(k.ID) {
			continue
		}
		queued, err := i.stillQueued(s, k)
		if err != nil { // it stays unfinished until that can be told
			continue
		}
		if err := box.Finish(k, queued); err != nil {
			return err
		}
	}
	return nil
}

// stillQueued tells whether a message that is kept is in the queue, too. What is there
// and cannot be read may be it: an error.
func (i *Instance) stillQueued(s *spool, k grace.Kept) (bool, error) {
	for _, queue := range anyQueue {
		switch f, there := i.sight(s, queue, k.ID); {
		case there && f.err != nil:
			return false, f.err
		case there && f.Arrival.Unix() == k.Arrival.Unix():
			return true, nil
		}
	}
	return false, nil
}
