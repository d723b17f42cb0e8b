package postfix

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"relayguard/mta"
)

// act is one of postsuper's acts on single messages.
type act struct {
	flag string
	says string   // what it prints of a message when it did it
	from []string // the only queues that it touches
	to   []string // where it puts a message
}

var (
	onItsWay = []string{"incoming", "active", "deferred"}
	anyQueue = []string{"hold", "incoming", "active", "deferred"}

	holdAct        = act{"-h", "placed on hold", onItsWay, []string{"hold"}}
	releaseAct     = act{"-H", "released from hold", []string{"hold"}, onItsWay}
	deleteAct      = act{"-d", "removed", []string{"hold"}, nil}
	requeueAct     = act{"-r", "requeued", []string{"hold"}, []string{"maildrop"}}
	requeueIdleAct = act{"-r", "requeued", []string{"hold", "deferred"}, []string{"maildrop"}}
)

// HoldMail puts mail that is on its way on hold. What is held already is Gone,
// for it may be somebody else's hold. A message that is being delivered at this
// moment is delivered to the recipients in hand; the held file knows them as
// done, so a release does not send twice.
//
// Like every act on the queue it needs root, compares each target with its queue
// file, and touches only the queues named. It works in parts of a thousand: when
// ctx ends the rest is Failed with its error, what was done stands, and the same
// call does the rest another time. A target of another instance is Gone. An error
// without results means that nothing was done.
func (i *Instance) HoldMail(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	results, err := inParts(ctx, targets, func(part []mta.Target) ([]mta.Result, error) {
		look, err := i.look(part, holdAct.from)
		if err != nil {
			return nil, err
		}
		results, ids := look.judge(part, holdAct.from)
		i.do(ctx, holdAct, part, results, ids)
		return results, nil
	})
	if err != nil {
		err = fmt.Errorf("hold mail: %w", err)
	}
	return results, err
}

// do acts on ids and settles their pending results. What postsuper did not
// confirm is looked for again: it left, or it failed. The child inherits these
// files.
func (i *Instance) do(ctx context.Context, a act, targets []mta.Target, results []mta.Result, ids []string, inherits ...*os.File) {
	done, err := i.persist(ctx, a, ids, inherits)
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
	if len(left) == 0 {
		return
	}
	again, lookErr := i.look(leftTargets, slices.Concat(a.from, a.to))
	for n, at := range left {
		if results[at].Err = lookErr; lookErr == nil {
			results[at] = a.unconfirmed(again, leftTargets[n], err)
		}
	}
}

// persist runs postsuper, and again for the rest as long as it gets on: with
// maillog_file, while Postfix is stopped, it ends after each message, for it cannot
// open the log (observed, 3.7.11). The error is the first one: whatever was not
// confirmed may have been done all the same.
func (i *Instance) persist(ctx context.Context, a act, ids []string, inherits []*os.File) (done map[string]bool, err error) {
	done = make(map[string]bool, len(ids))
	for len(ids) > 0 {
		did, bad := i.postsuper(ctx, a, ids, inherits...)
		maps.Copy(done, did)
		if err = firstOf(err, bad); bad == nil || len(did) == 0 || ctx.Err() != nil {
			break
		}
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return did[id] })
	}
	return done, err
}

// unconfirmed is what became of a target that postsuper did not say it did. One
// that was broken off, by err, may have done it and not said so: then the message
// is where the act puts it. A deleted one is nowhere, as one that was delivered
// after somebody released it; it counts as deleted, for then its copy stays.
func (a act) unconfirmed(now look, t mta.Target, err error) mta.Result {
	r := mta.Result{ID: t.ID}
	if _, r.Fate, r.Err = now.find(t, a.from); r.Fate == mta.Failed {
		return r
	}
	switch {
	case r.Fate == mta.Done && err != nil:
		r.Fate, r.Err = mta.Failed, err
	case r.Fate == mta.Done:
		r.Fate, r.Err = mta.Failed, fmt.Errorf("postsuper %s passed over %s, which is still there", a.flag, t.ID)
	case err == nil || r.Fate == mta.Changed:
	case len(a.to) == 0:
		r.Fate = mta.Done
	default:
		if _, fate, _ := now.find(t, a.to); fate == mta.Done {
			r.Fate = mta.Done
		}
	}
	return r
}
