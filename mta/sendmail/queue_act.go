package sendmail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// HoldMail quarantines mail that is on its way, with that reason. What is held
// already is Gone, for it may be somebody else's hold; one that somebody began to
// hold and did not come to the end with is held for his reason then, and Gone, too.
// A message that is being delivered at this moment is left alone and Failed.
//
// Like every act on the queue it needs root, takes Sendmail's own lock, compares
// each target with the control file under that lock, and costs the same however
// many messages there are. Whenever it is killed, each message is wholly in one
// state; what was left is done by calling it again. Targets after ctx's end are
// Failed. An error without results means that nothing was done.
func (i *Instance) HoldMail(ctx context.Context, targets []mta.Target, reason string) ([]mta.Result, error) {
	results, err := i.act(ctx, targets, func(s *spool, t mta.Target) (mta.QueueFile, mta.Fate, error) {
		e, fate, err := s.seek(t, "q", func(e *entry) bool { return !e.held() })
		if e == nil {
			return mta.QueueFile{}, fate, err
		}
		defer e.close()
		return s.hold(e, Reason(reason))
	})
	if err != nil {
		return results, fmt.Errorf("hold mail: %w", err)
	}
	return results, nil
}

// hold leaves the reason as it is where the message has a quarantined file already,
// besides the one that is delivered.
func (s *spool) hold(e *entry, reason string) (mta.QueueFile, mta.Fate, error) {
	other, err := s.take(e.dir, 'h', e.id)
	if errors.Is(err, fs.ErrNotExist) {
		return e.done(e.hold(reason))
	}
	if err != nil {
		return mta.QueueFile{}, mta.Failed, err
	}
	defer other.close()
	if !e.control.queueFile(e.id).Target().Matches(other.control.queueFile(e.id)) {
		return mta.QueueFile{}, mta.Failed, fmt.Errorf("%s/hf%s is another message", e.dir.Qf, e.id)
	}
	first := cmp.Or(other.control.Reason, reason)
	file, fate, err := e.done(e.hold(first))
	if fate == mta.Done && first != reason {
		fate = mta.Gone
	}
	return file, fate, err
}

// done is what became of an entry after an act that ended with err.
func (e *entry) done(err error) (mta.QueueFile, mta.Fate, error) {
	if err != nil {
		return mta.QueueFile{}, mta.Failed, err
	}
	return e.control.queueFile(e.id), mta.Done, nil
}

// seek takes the control file of a target, of those of these letters that are
// wanted. Without one it tells why.
func (s *spool) seek(t mta.Target, letters string, wanted func(*entry) bool) (*entry, mta.Fate, error) {
	var problem error
	fate := mta.Gone
	for _, d := range s.dirs {
		for n := range len(letters) {
			e, err := s.take(d, letters[n], t.ID)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				problem = errors.Join(problem, err)
				continue
			}
			if wanted(e) {
				if t.Matches(e.control.queueFile(t.ID)) {
					return e, mta.Done, nil
				}
				fate = mta.Changed
			}
			e.close()
		}
	}
	if problem != nil {
		return nil, mta.Failed, problem
	}
	return nil, fate, nil
}

// twin is the other file of a message that has two, a qf beside its hf: whoever
// quarantined or released it with sendmail -Q was killed in between. nil: none.
func (s *spool) twin(e *entry) (*entry, error) {
	if e.letter != 'h' {
		return nil, nil
	}
	other, err := s.take(e.dir, 'q', e.id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && !e.control.queueFile(e.id).Target().Matches(other.control.queueFile(e.id)) {
		other.close()
		err = fmt.Errorf("%s/qf%s is another message", e.dir.Qf, e.id)
	}
	if err != nil {
		return nil, err
	}
	return other, nil
}

const (
	workers   = 8 // that wait for the disk
	busyTries = 3 // for those whose lock somebody had
	busyPause = 100 * time.Millisecond
)

// actOn does something with one target's message, and says which it was.
type actOn func(s *spool, t mta.Target) (mta.QueueFile, mta.Fate, error)

// act calls do for each target, and again for those that somebody had locked: a
// listing or a queue run that only looks has a lock for a moment.
func (i *Instance) act(ctx context.Context, targets []mta.Target, do actOn) ([]mta.Result, error) {
	s, err := i.openSpool(false)
	if err != nil {
		return nil, err
	}
	defer s.close()
	results := make([]mta.Result, len(targets))
	var all []int
	for n, t := range targets {
		results[n].ID = t.ID
		if !ValidQueueID(t.ID) {
			results[n].Err = fmt.Errorf("got queue id %q: not one of Sendmail's", clip(t.ID))
			continue
		}
		all = append(all, n)
	}
	left := all
	for try := range busyTries {
		if try > 0 && !mta.Sleep(ctx, busyPause) {
			break
		}
		s.each(ctx, targets, results, left, do)
		var busy []int
		for _, n := range left {
			if errors.Is(results[n].Err, errBusy) {
				busy = append(busy, n)
			}
		}
		if left = busy; len(left) == 0 {
			break
		}
	}
	return results, s.sync()
}

// each lets several workers act, one of them on all targets of one id.
func (s *spool) each(ctx context.Context, targets []mta.Target, results []mta.Result, left []int, do actOn) {
	byID := make(map[string][]int, len(left))
	var ids []string
	for _, n := range left {
		id := targets[n].ID
		if len(byID[id]) == 0 {
			ids = append(ids, id)
		}
		byID[id] = append(byID[id], n)
	}
	var wait sync.WaitGroup
	next := make(chan string)
	for range min(workers, len(ids)) {
		wait.Go(func() {
			for id := range next {
				s.one(ctx, targets, results, byID[id], do)
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	wait.Wait()
}

// one acts on an id that may be named more than once.
func (s *spool) one(ctx context.Context, targets []mta.Target, results []mta.Result, at []int, do actOn) {
	var did *mta.QueueFile
	for _, n := range at {
		r := &results[n]
		if err := ctx.Err(); err != nil {
			r.Fate, r.Err = mta.Failed, err
			continue
		}
		if did != nil && targets[n].Matches(*did) {
			r.Fate, r.Err = mta.Done, nil
			continue
		}
		var f mta.QueueFile
		if f, r.Fate, r.Err = do(s, targets[n]); r.Fate == mta.Done {
			did = &f
		}
	}
}

// sync makes the names survive a power cut. The contents are on disk before.
func (s *spool) sync() error {
	for _, d := range s.dirs {
		if err := retryInterrupted(func() error { return unix.Fsync(d.qf) }); err != nil {
			return fmt.Errorf("write %s to disk: %w", d.Qf, err)
		}
	}
	return nil
}
