package postfix

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// ReleaseMail takes mail off hold and has it delivered. An error that is
// ErrNotStarted comes with results that stand. When ctx ends, the part of a
// thousand in hand is still done and started; only ctx's deadline cuts it short.
//
// postsuper -H alone moves the mail to the deferred queue, where it would wait
// for up to queue_run_delay. So delivery is started: up to a hundred messages by
// postqueue -i each (5 ms), more by one request to the queue manager to look
// through the deferred queue for what is due. What is due follows from the
// file's time, so that of a message that was held between two tries is set to now
// first. postqueue -f is never used: it would try all deferred mail of everybody.
//
// Postfix bounces a message past maximal_queue_lifetime (bounce_queue_lifetime
// for the null sender) only when a try to deliver it ends in a temporary
// failure; so a released old one gets one try. That is why such mail is
// requeued instead, by RequeueMail's rules.
func (i *Instance) ReleaseMail(ctx context.Context, targets []mta.Target, how mta.Release) ([]mta.Result, error) {
	tellIDs := len(targets) <= partSize
	results, err := inParts(ctx, targets, func(part []mta.Target) ([]mta.Result, error) {
		return i.release(ctx, part, how, tellIDs)
	})
	if err != nil {
		err = fmt.Errorf("release mail: %w", err)
	}
	return results, err
}

func (i *Instance) release(ctx context.Context, targets []mta.Target, how mta.Release, tellIDs bool) ([]mta.Result, error) {
	look, err := i.look(targets, releaseAct.from)
	if err != nil {
		return nil, err
	}
	results, pending := look.judge(targets, releaseAct.from)
	old := map[string]bool{}
	var notDue []string
	now := time.Now()
	for n, t := range targets {
		if results[n].Err == errPending {
			f, _, _ := look.find(t, releaseAct.from)
			if old[t.ID] = i.tooOld(f.QueueFile, how); f.due.After(now) {
				notDue = append(notDue, t.ID)
			}
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
	if len(ids) > nudgeEach {
		i.makeDue(notDue, now)
	}
	i.do(ctx, releaseAct, targets, results, ids)
	err = i.deliver(ctx, doneOf(results))
	if len(requeue) > 0 {
		err = errors.Join(err, i.requeue(ctx, requeueAct, targets, results, requeue, tellIDs))
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", mta.ErrNotStarted, err)
	}
	return results, err
}

// doneOf are the ids that were acted upon, each once.
func doneOf(results []mta.Result) []string {
	var ids []string
	seen := map[string]bool{}
	for _, r := range results {
		if r.Fate == mta.Done && !seen[r.ID] {
			seen[r.ID] = true
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// makeDue sets the time of held files to now. It does its best: what it does not
// reach waits for its time, an hour or so.
func (i *Instance) makeDue(ids []string, now time.Time) {
	s, err := i.openSpool()
	if err != nil {
		return
	}
	defer s.Close()
	at := unix.NsecToTimeval(now.UnixNano())
	for _, id := range ids {
		if file, _, err := s.open("hold", id); err == nil {
			unix.Futimes(int(file.Fd()), []unix.Timeval{at, at})
			file.Close()
		}
	}
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
	name := "maximal_queue_lifetime"
	if f.Sender == "" {
		name = "bounce_queue_lifetime"
	}
	lifetime, ok := parseTime(i.Setting(name))
	if !ok {
		lifetime = 5 * 24 * time.Hour // Postfix's default
	}
	return how.TooOld(how.Now.Sub(f.Arrival), lifetime)
}

const (
	nudgeEach     = 100 // messages that are started one by one
	nudgeParallel = 4
)

// deliver starts the delivery of mail that is in the deferred queue now.
func (i *Instance) deliver(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	if len(ids) <= nudgeEach {
		if i.nudge(ctx, ids) == nil {
			return nil
		}
	}
	// D: look through the deferred queue (qmgr(8)); mail that is not yet due stays.
	return i.kick(ctx, "qmgr", "D")
}

// kick sends a request to a service, and tries again if postkick(1) is killed: a
// service that closes its end too soon does that with SIGPIPE (observed of a third
// of all kicks, 3.7.11). What came twice is done once.
func (i *Instance) kick(ctx context.Context, service, request string) error {
	const tries, pause = 5, 50 * time.Millisecond
	var err error
	for range tries {
		if _, err = i.tools.run(ctx, nil, 1<<10, "postkick", i.tools.inDir(i.ConfigDir, "public", service, request)...); err == nil {
			return nil
		}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() { // Postfix is stopped
			return err
		}
		if !mta.Sleep(ctx, pause) {
			return err
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
				if first == nil {
					first = err
				}
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
