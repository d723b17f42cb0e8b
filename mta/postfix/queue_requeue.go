package postfix

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// RequeueMail sends held mail through Postfix's front door again: it is taken
// off hold, gets a new id, and its lifetime begins anew; the arrival time stays.
// Milters do not see it, but header_checks, body_checks and the rewriting of
// addresses are applied once more, so a HOLD among them holds it again.
//
// The new id is told, in a call with up to a thousand targets, where it can be
// found in the queue within 3 seconds and is beyond doubt: another id, the same
// sender, arrival and recipients. Mail that is delivered at once is missed. The
// log knows all of them: pickup says "NEWID: uid=... orig_id=OLDID".
//
// An error that is ErrNotStarted comes with results that stand: the mail waits
// in maildrop for Postfix to look there, which it does every minute.
func (i *Instance) RequeueMail(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return i.requeueFrom(ctx, targets, requeueAct, nil)
}

// RequeueQueued does it with deferred mail, too. What is coming in or being
// delivered is Failed: it could be sent twice. It does not ask who held a message.
func (i *Instance) RequeueQueued(ctx context.Context, targets []mta.Target) ([]mta.Result, error) {
	return i.requeueFrom(ctx, targets, requeueIdleAct, []string{"incoming", "active"})
}

var errBusy = errors.New("it is being delivered now; try again later")

func (i *Instance) requeueFrom(ctx context.Context, targets []mta.Target, a act, busy []string) ([]mta.Result, error) {
	tellIDs := len(targets) <= partSize
	results, err := inParts(ctx, targets, func(part []mta.Target) ([]mta.Result, error) {
		look, err := i.look(part, slices.Concat(a.from, busy))
		if err != nil {
			return nil, err
		}
		results, ids := look.judge(part, a.from)
		if err = i.requeue(ctx, a, part, results, ids, tellIDs); err != nil {
			err = fmt.Errorf("%w: %w", mta.ErrNotStarted, err)
		}
		for n, r := range results {
			if _, fate, _ := look.find(part[n], busy); r.Fate == mta.Gone && fate == mta.Done {
				results[n].Fate, results[n].Err = mta.Failed, errBusy
			}
		}
		return results, err
	})
	if err != nil {
		err = fmt.Errorf("requeue mail: %w", err)
	}
	return results, err
}

func (i *Instance) requeue(ctx context.Context, a act, targets []mta.Target, results []mta.Result, ids []string, tellIDs bool) error {
	if len(ids) == 0 {
		return nil
	}
	var moved map[string]likeness
	if tellIDs {
		moved = i.likenesses(a.from, ids)
	}
	begun := time.Now()
	i.do(ctx, a, targets, results, ids)
	asked := make(map[string]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	done := slices.DeleteFunc(doneOf(results), func(id string) bool { return !asked[id] })
	if len(done) == 0 {
		return nil
	}
	// W: wake up (pickup(8)).
	if err := i.kick(ctx, "pickup", "W"); err != nil || !tellIDs {
		return err
	}
	requeued := map[string]likeness{}
	for _, id := range done {
		if like, ok := moved[id]; ok {
			requeued[id] = like
		}
	}
	fresh := i.newIDs(ctx, requeued, begun)
	for n, r := range results {
		if r.Fate == mta.Done {
			results[n].NewID = fresh[r.ID]
		}
	}
	return nil
}

// likeness is a digest of what a message keeps when it is requeued.
type likeness [sha256.Size]byte

// likenessOf reads a queue file; false if there is none that can be read.
func likenessOf(s *spool, queue, id string) (like likeness, ok bool) {
	file, _, err := s.open(queue, id)
	if err != nil {
		return like, false
	}
	defer file.Close()
	e, err := readEnvelope(file, true)
	if err != nil {
		return like, false
	}
	digest := sha256.New()
	fmt.Fprintf(digest, "%d %q %q %q", e.arrival.Unix(), e.micros, e.sender, e.recipients)
	return likeness(digest.Sum(nil)), true
}

func (i *Instance) likenesses(queues, ids []string) map[string]likeness {
	s, err := i.openSpool()
	if err != nil {
		return nil
	}
	defer s.Close()
	all := make(map[string]likeness, len(ids))
	for _, id := range ids {
		for _, queue := range queues {
			if like, ok := likenessOf(s, queue, id); ok {
				all[id] = like
				break
			}
		}
	}
	return all
}

// newIDs looks for requeued messages under their new ids, until all have left
// maildrop or 3 seconds are over. It does its best: errors are no news.
func (i *Instance) newIDs(ctx context.Context, moved map[string]likeness, begun time.Time) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := i.openSpool()
	if err != nil {
		return nil
	}
	defer s.Close()
	f := fresh{spool: s, begun: begun.Add(-time.Second), moved: moved, old: map[likeness]int{}, now: map[likeness]map[string]bool{}, read: map[string]bool{}}
	for _, like := range moved {
		f.old[like]++
	}
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		waiting := f.inMaildrop()
		for _, queue := range onItsWay {
			f.lookIn(ctx, queue)
		}
		if !waiting || !mta.Sleep(ctx, pause) {
			break
		}
	}
	f.lookIn(ctx, "hold") // which may be long
	return f.ids()
}

// fresh looks for messages that have come since begun.
type fresh struct {
	spool *spool
	begun time.Time
	moved map[string]likeness
	old   map[likeness]int // how many of the moved have it
	now   map[likeness]map[string]bool
	read  map[string]bool
}

func (f *fresh) inMaildrop() bool {
	for id := range f.moved {
		if _, err := f.spool.root.Lstat("maildrop/" + id); err == nil {
			return true
		}
	}
	return false
}

// lookIn reads what is new in a queue, or a directory of it: in those that have
// changed, the files that have.
func (f *fresh) lookIn(ctx context.Context, at string) {
	dir, err := f.spool.root.Open(at)
	if err != nil {
		return
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return
	}
	changed := info.ModTime().After(f.begun)
	for ctx.Err() == nil {
		entries, err := dir.ReadDir(1000)
		for _, e := range entries {
			switch {
			case e.IsDir():
				f.lookIn(ctx, at+"/"+e.Name())
			case changed && e.Type().IsRegular() && !f.read[e.Name()]:
				f.readNew(int(dir.Fd()), at, e.Name())
			}
		}
		if err != nil {
			return
		}
	}
}

func (f *fresh) readNew(dir int, at, id string) {
	var st unix.Stat_t
	if _, was := f.moved[id]; was || !ValidQueueID(id) || unix.Fstatat(dir, id, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || time.Unix(st.Ctim.Unix()).Before(f.begun) {
		return
	}
	queue, _, _ := strings.Cut(at, "/")
	like, ok := likenessOf(f.spool, queue, id)
	if !ok {
		return // it may be complete the next time
	}
	if f.read[id] = true; f.old[like] == 0 {
		return
	}
	if f.now[like] == nil {
		f.now[like] = map[string]bool{}
	}
	f.now[like][id] = true
}

// ids are the new ids that are beyond doubt, by the old ones.
func (f *fresh) ids() map[string]string {
	ids := map[string]string{}
	for old, like := range f.moved {
		if f.old[like] == 1 && len(f.now[like]) == 1 {
			for id := range f.now[like] {
				ids[old] = id
			}
		}
	}
	return ids
}
