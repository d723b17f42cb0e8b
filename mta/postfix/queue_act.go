package postfix

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"relayguard/mta"
)

// act is one of postsuper's acts on single messages.
type act struct {
	flag string
	says string   // what it prints of a message when it did it
	from []string // the only queues that it touches
}

var (
	holdAct    = act{"-h", "placed on hold", []string{"incoming", "active", "deferred"}}
	releaseAct = act{"-H", "released from hold", []string{"hold"}}
	deleteAct  = act{"-d", "removed", []string{"hold"}}
	requeueAct = act{"-r", "requeued", []string{"hold"}}
)

// HoldMail puts mail that is on its way on hold. What is held already is Gone,
// for it may be somebody else's hold. A message that is being delivered at this
// moment is delivered to the recipients in hand; the held file knows them as
// done, so a release does not send twice.
//
// Like every act on the queue it needs root, reads the queue once to compare
// each target, touches only the queues named, and is one postsuper(1) for any
// number of targets. An error without results means that nothing was done.
func (i *Instance) HoldMail(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	look, err := i.look(ctx, targets)
	if err != nil {
		return nil, fmt.Errorf("hold mail: %w", err)
	}
	results, ids := look.judge(targets, holdAct.from)
	i.do(ctx, holdAct, targets, results, ids)
	return results, nil
}

// look is what one scan found of some targets.
type look map[string][]sighting

// sighting is a message without its recipients: a bulk may have 20,000 messages
// with 1,000 recipients each.
type sighting struct {
	mta.QueueFile
	like likeness
}

func sightingOf(f mta.QueueFile) sighting {
	s := sighting{f, likenessOf(f)}
	s.Recipients = nil
	return s
}

// look reads the queue once and keeps what has the id of a target.
func (i *Instance) look(ctx context.Context, targets []mta.Target) (look, error) {
	found := make(look, len(targets))
	for _, t := range targets {
		if ValidQueueID(t.ID) {
			found[t.ID] = nil
		}
	}
	if len(found) == 0 {
		return found, nil
	}
	err := i.ScanQueue(ctx, func(f mta.QueueFile) error {
		if _, wanted := found[f.ID]; wanted {
			found[f.ID] = append(found[f.ID], sightingOf(f))
		}
		return nil
	})
	var skipped *mta.SkippedError
	if err != nil && !errors.As(err, &skipped) {
		return nil, err
	}
	return found, nil
}

// find returns the target's file in one of the queues; if there is none, Gone
// or Changed.
func (l look) find(t mta.Target, queues []string) (sighting, mta.Fate) {
	fate := mta.Gone
	for _, f := range l[t.ID] {
		if !slices.Contains(queues, f.Queue) {
			continue
		}
		if t.Matches(f.QueueFile) {
			return f, mta.Done
		}
		fate = mta.Changed
	}
	return sighting{}, fate
}

// judge prepares the results; those that are left to do are Failed for now, and
// their ids are returned, each once.
func (l look) judge(targets []mta.Target, queues []string) (results []mta.Result, ids []string) {
	results = make([]mta.Result, len(targets))
	seen := make(map[string]bool, len(targets))
	for n, t := range targets {
		results[n].ID = t.ID
		if !ValidQueueID(t.ID) {
			results[n].Err = fmt.Errorf("got queue id %q: not one of Postfix's", clip(t.ID))
			continue
		}
		if _, fate := l.find(t, queues); fate != mta.Done {
			results[n].Fate = fate
			continue
		}
		results[n].Err = errPending
		if !seen[t.ID] {
			seen[t.ID] = true
			ids = append(ids, t.ID)
		}
	}
	return results, ids
}

// errPending marks what judge left to do.
var errPending = errors.New("not yet tried")

// do acts on ids and settles their pending results. What postsuper did not
// confirm is looked for again: it left, or it failed.
func (i *Instance) do(ctx context.Context, a act, targets []mta.Target, results []mta.Result, ids []string) {
	done, err := i.postsuper(ctx, a, ids)
	acted := make(map[string]bool, len(ids))
	for _, id := range ids {
		acted[id] = true
	}
	var left []int
	var leftTargets []mta.Target
	for n := range results {
		switch r := &results[n]; {
		case r.Err != errPending || !acted[r.ID]:
		case done[r.ID]:
			r.Fate, r.Err = mta.Done, nil
		default:
			left, leftTargets = append(left, n), append(leftTargets, targets[n])
		}
	}
	again, lookErr := i.look(ctx, leftTargets)
	for _, n := range left {
		r := &results[n]
		_, fate := again.find(targets[n], a.from)
		switch {
		case lookErr != nil:
			r.Err = errors.Join(err, lookErr)
		case fate != mta.Done:
			r.Fate, r.Err = fate, nil
		case err != nil:
			r.Err = err
		default:
			r.Err = fmt.Errorf("postsuper %s passed over %s, which is still there", a.flag, r.ID)
		}
	}
}
