package postfix

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"relayguard/mta"
)

// ReleaseMail takes mail off hold and has it delivered. An error that is
// ErrNotStarted comes with results that stand. Once it has begun, only ctx's
// deadline cuts it short.
//
// postsuper -H alone moves the mail to the deferred queue, where it would wait
// for up to queue_run_delay. So delivery is started: up to a hundred messages by
// postqueue -i each (5 ms), more by one request to the queue manager to look
// through the deferred queue for what is due. What is due follows from the
// file's time: a message held before its first try is due; one held between two
// tries is not, so up to a hundred of those are started singly, and further ones
// wait for their time, an hour or so. postqueue -f is never used: it would try
// all deferred mail of everybody.
//
// Postfix bounces a message past maximal_queue_lifetime (bounce_queue_lifetime
// for the null sender) only when a try to deliver it ends in a temporary
// failure; so a released old one gets one try. That is why such mail is
// requeued instead, by RequeueMail's rules.
func (i *Instance) ReleaseMail(ctx context.Context, targets []mta.Target, how mta.Release) ([]mta.Result, error) {
	look, err := i.look(ctx, targets)
	if err != nil {
		return nil, fmt.Errorf("release mail: %w", err)
	}
	results, pending := look.judge(targets, releaseAct.from)
	old := map[string]bool{}
	tried := map[string]bool{}
	for n, t := range targets {
		if results[n].Err == errPending {
			f, _ := look.find(t, releaseAct.from)
			old[t.ID], tried[t.ID] = i.tooOld(f.QueueFile, how), f.Reason != ""
		}
	}
	var ids, requeue []string
	for _, id := range pending {
		if old[id] {
			requeue = append(requeue, id)
		} else {
			ids = append(ids, id)
		}
	}
	ctx, cancel := toItsEnd(ctx)
	defer cancel()
	i.do(ctx, releaseAct, targets, results, ids)
	var released, waiting []string // each once; waiting: those with a time of their next try
	for _, r := range results {
		if again, first := tried[r.ID]; r.Fate == mta.Done && first {
			delete(tried, r.ID)
			released = append(released, r.ID)
			if again {
				waiting = append(waiting, r.ID)
			}
		}
	}
	err = i.deliver(ctx, released, waiting)
	if len(requeue) > 0 {
		err = errors.Join(err, i.requeue(ctx, look, targets, results, requeue))
	}
	if err != nil {
		return results, fmt.Errorf("release mail: %w: %w", mta.ErrNotStarted, err)
	}
	return results, nil
}

// toItsEnd is ctx but for its being cancelled: who asked may be gone, as after a
// kill -9, and what is off hold and not started would wait for queue_run_delay.
func toItsEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, end)
}

// tooOld tells whether a message should be requeued rather than released.
func (i *Instance) tooOld(f mta.QueueFile, how mta.Release) bool {
	if how.Margin < 0 {
		return false
	}
	name := "maximal_queue_lifetime"
	if f.Sender == "" {
		name = "bounce_queue_lifetime"
	}
	lifetime, ok := parseTime(i.Setting(name))
	if !ok {
		lifetime = 5 * 24 * time.Hour // Postfix's default
	}
	margin := how.Margin
	if margin == 0 {
		margin = min(24*time.Hour, lifetime/2)
	}
	return how.Now.Sub(f.Arrival) > lifetime-margin
}

const (
	nudgeEach     = 100 // messages that are started one by one
	nudgeParallel = 4
)

// deliver starts the delivery of mail that is in the deferred queue now.
func (i *Instance) deliver(ctx context.Context, ids, waiting []string) error {
	if len(ids) == 0 {
		return nil
	}
	each := ids
	if len(ids) > nudgeEach {
		each = waiting[:min(len(waiting), nudgeEach)]
	}
	err := i.nudge(ctx, each)
	if err == nil && len(ids) <= nudgeEach {
		return nil
	}
	// D: look through the deferred queue (qmgr(8)); mail that is not yet due stays.
	return i.kick(ctx, "qmgr", "D")
}

// kick sends a request to a service, and tries again if that fails: a service
// that closes its end too soon kills postkick(1) with SIGPIPE (observed of a third
// of all kicks, 3.7.11). What came twice is done once.
func (i *Instance) kick(ctx context.Context, service, request string) error {
	const tries, pause = 5, 50 * time.Millisecond
	var err error
	for range tries {
		if _, err = i.tools.run(ctx, nil, 1<<10, "postkick", i.tools.inDir(i.ConfigDir, "public", service, request)...); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
	return err
}

// nudge runs postqueue -i for each id. A message that is gone is passed over
// in silence by Postfix.
func (i *Instance) nudge(ctx context.Context, ids []string) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var first error
	next := make(chan string)
	for range min(nudgeParallel, len(ids)) {
		wait.Go(func() {
			for id := range next {
				_, err := i.tools.run(ctx, nil, 1<<10, "postqueue", i.tools.inDir(i.ConfigDir, "-i", id)...)
				mu.Lock()
				first = firstOf(first, err)
				mu.Unlock()
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	wait.Wait()
	return first
}

func firstOf(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// RequeueMail sends held mail through Postfix's front door again: it is taken
// off hold, gets a new id, and its lifetime begins anew; the arrival time stays.
// Milters do not see it, but header_checks, body_checks and the rewriting of
// addresses are applied once more, so a HOLD among them holds it again.
//
// The new id is told where it can be found in the queue within 3 seconds and is
// beyond doubt: another id, the same sender, arrival and recipients. Mail that
// is delivered at once is missed. The log knows all of them: pickup says
// "NEWID: uid=... orig_id=OLDID".
//
// An error that is ErrNotStarted comes with results that stand: the mail waits
// in maildrop for Postfix to look there, which it does every minute.
func (i *Instance) RequeueMail(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	look, err := i.look(ctx, targets)
	if err != nil {
		return nil, fmt.Errorf("requeue mail: %w", err)
	}
	results, ids := look.judge(targets, requeueAct.from)
	if err := i.requeue(ctx, look, targets, results, ids); err != nil {
		return results, fmt.Errorf("requeue mail: %w: %w", mta.ErrNotStarted, err)
	}
	return results, nil
}

func (i *Instance) requeue(ctx context.Context, before look, targets []mta.Target, results []mta.Result, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	i.do(ctx, requeueAct, targets, results, ids)
	asked := make(map[string]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	moved := map[string]sighting{}
	for n, r := range results {
		if r.Fate == mta.Done && asked[r.ID] {
			moved[r.ID], _ = before.find(targets[n], requeueAct.from)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	// W: wake up (pickup(8)).
	if err := i.kick(ctx, "pickup", "W"); err != nil {
		return err
	}
	fresh := i.newIDs(ctx, moved)
	for n := range results {
		results[n].NewID = fresh[results[n].ID]
	}
	return nil
}

// likeness is a digest of what a message keeps when it is requeued.
type likeness [sha256.Size]byte

func likenessOf(f mta.QueueFile) likeness {
	digest := sha256.New()
	fmt.Fprintf(digest, "%d %q %d %q", f.Arrival.Unix(), f.Sender, f.More, f.Recipients)
	return likeness(digest.Sum(nil))
}

// newIDs looks for requeued messages under their new ids, until all have left
// maildrop or 3 seconds are over. It does its best: errors are no news.
func (i *Instance) newIDs(ctx context.Context, moved map[string]sighting) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	old := map[likeness]int{} // how many of the moved have it
	for _, f := range moved {
		old[f.like]++
	}
	now := map[likeness]map[string]bool{} // ids seen
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		inDrop := false
		i.ScanQueue(ctx, func(f mta.QueueFile) error {
			_, was := moved[f.ID]
			if f.Queue == "maildrop" {
				inDrop = inDrop || was
			} else if like := likenessOf(f); !was && old[like] > 0 {
				if now[like] == nil {
					now[like] = map[string]bool{}
				}
				now[like][f.ID] = true
			}
			return nil
		})
		if !inDrop || !sleep(ctx, pause) {
			break
		}
	}
	fresh := map[string]string{}
	for id, f := range moved {
		if old[f.like] == 1 && len(now[f.like]) == 1 {
			for newID := range now[f.like] {
				fresh[id] = newID
			}
		}
	}
	return fresh
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
