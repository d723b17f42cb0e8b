package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"

	"golang.org/x/sys/unix"
)

// DeleteMail deletes held mail. With keep each message is kept there first, or it
// is not deleted; nil: there is no copy. See HoldMail for what all acts have in
// common.
func (i *Instance) DeleteMail(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return i.delete(ctx, targets, keep, (*entry).held)
}

// DeleteQueued is DeleteMail for mail wherever it is in the MTA's queue.
func (i *Instance) DeleteQueued(ctx context.Context, targets []mta.Target, keep *grace.Folder) ([]mta.Result, error) {
	return i.delete(ctx, targets, keep, func(*entry) bool { return true })
}

func (i *Instance) delete(ctx context.Context, targets []mta.Target, keep *grace.Folder, wanted func(*entry) bool) ([]mta.Result, error) {
	var results []mta.Result
	var err error
	if keep == nil {
		results, err = i.act(ctx, targets, func(s *spool, t mta.Target) (mta.QueueFile, mta.Fate, error) {
			d, fate, err := s.doomed(t, wanted)
			if d == nil {
				return mta.QueueFile{}, fate, err
			}
			defer d.close()
			_, err = s.deleteAll(d)
			return d.entry.done(err)
		})
	} else {
		results, err = i.deleteKeeping(ctx, targets, keep, wanted)
	}
	if err != nil {
		return results, fmt.Errorf("delete mail: %w", err)
	}
	return results, nil
}

// doomed is a message that is deleted next, all its files locked or open.
type doomed struct {
	entry *entry
	twin  *entry   // nil: it has none
	body  *os.File // nil: it is not there any more
}

func (d *doomed) close() {
	d.entry.close()
	if d.twin != nil {
		d.twin.close()
	}
	if d.body != nil {
		d.body.Close()
	}
}

// doomed takes a target's files. Without them it tells why; Done: a delete that was
// killed had begun with it, and it is over now.
func (s *spool) doomed(t mta.Target, wanted func(*entry) bool) (*doomed, mta.Fate, error) {
	e, fate, err := s.seek(t, "hq", wanted)
	if e == nil {
		if fate == mta.Gone {
			return s.finishDelete(t)
		}
		return nil, fate, err
	}
	d := &doomed{entry: e}
	if d.twin, err = s.twin(e); err == nil {
		if d.body, err = s.openData(e); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		d.close()
		return nil, mta.Failed, err
	}
	e.slim()
	if d.twin != nil {
		d.twin.slim()
	}
	return d, mta.Done, nil
}

// slim forgets what a delete does not need: of megabytes some hundred octets stay,
// for hundreds of messages wait for the disk together.
func (e *entry) slim() {
	e.data, e.control.Recipients = nil, nil
}

// deleteAll tells whether the message is out of the queue, even with an error.
func (s *spool) deleteAll(d *doomed) (begun bool, err error) {
	if d.twin != nil { // first, for it may be delivered
		if err := remove(d.twin.dir.qf, d.twin.dir.Qf, d.twin.name()); err != nil {
			return false, err
		}
	}
	return s.delete(d.entry)
}

// finishDelete removes what a delete that was killed left of a message.
func (s *spool) finishDelete(t mta.Target) (*doomed, mta.Fate, error) {
	for _, d := range s.dirs {
		finished, err := s.finish(d, t.ID, func(c *Control) bool { return t.Matches(c.queueFile(t.ID)) })
		if err != nil {
			return nil, mta.Failed, err
		}
		if finished {
			return nil, mta.Done, nil
		}
	}
	return nil, mta.Gone, nil
}

// finish is false if there is nothing to do, or somebody is at it.
func (s *spool) finish(d *dir, id string, wanted func(*Control) bool) (bool, error) {
	e, err := s.take(d, 't', id+goneSuffix)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer e.close()
	if !wanted(e.control) {
		return false, nil
	}
	data, err := s.dataDir(d, e.control)
	if err != nil {
		return false, err
	}
	return true, s.deleteRest(d, data, id)
}

// sweep removes what somebody who was killed left beside the control files: the
// rest of a deleted message, half a control file.
func (s *spool) sweep(d *dir, name string) error {
	rest, _ := strings.CutPrefix(name, "tf")
	if id, ok := strings.CutSuffix(rest, goneSuffix); ok && ValidQueueID(id) {
		_, err := s.finish(d, id, func(*Control) bool { return true })
		return err
	}
	if id, ok := strings.CutSuffix(rest, halfSuffix); ok && ValidQueueID(id) {
		return d.removeHalf(name)
	}
	return nil
}

// removeHalf leaves alone what is being written.
func (d *dir) removeHalf(name string) error {
	const young = time.Minute // perhaps not yet locked
	fd, err := unix.Openat(d.qf, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || time.Since(time.Unix(st.Ctim.Unix())) < young || lock(fd) != nil {
		return nil
	}
	return remove(d.qf, d.Qf, name)
}

const keepAtOnce = 256 // messages that are copied, brought to disk and then deleted

// deleteKeeping deletes in parts: what is locked and copied waits for the disk
// together.
func (i *Instance) deleteKeeping(ctx context.Context, targets []mta.Target, keep *grace.Folder, wanted func(*entry) bool) ([]mta.Result, error) {
	s, err := i.openSpool(false)
	if err != nil {
		return nil, err
	}
	defer s.close()
	box, err := keep.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer box.Close()
	if err := s.settle(box); err != nil {
		return nil, err
	}
	results := make([]mta.Result, len(targets))
	for n, t := range targets {
		results[n].ID = t.ID
	}
	for from := 0; from < len(targets); from += keepAtOnce {
		to := min(from+keepAtOnce, len(targets))
		s.deletePart(ctx, box, targets[from:to], results[from:to], wanted)
	}
	return results, s.sync()
}

// Settle removes copies of what is still in the queue, which a delete that died
// left. It waits for a delete that is under way.
func (i *Instance) Settle(ctx context.Context, keep *grace.Folder) error {
	if _, err := os.Lstat(keep.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := i.openSpool(false)
	if err != nil {
		return fmt.Errorf("settle deleted mail: %w", err)
	}
	defer s.close()
	box, err := keep.Open(ctx)
	if err == nil {
		err = s.settle(box)
		box.Close()
	}
	if err != nil {
		return fmt.Errorf("settle deleted mail: %w", err)
	}
	return nil
}

// settle tells the grace folder what became of deletes that were killed. Where
// nobody can tell, the copy stays unfinished.
func (s *spool) settle(box *grace.Box) error {
	for _, k := range box.Unfinished() {
		if !ValidQueueID(k.ID) {
			continue
		}
		there, err := s.queued(k.ID, k.Arrival)
		if err != nil {
			continue
		}
		if err := box.Finish(k, there); err != nil {
			return err
		}
	}
	return nil
}

// queued tells whether a message is in the queue with all that it needs. A later
// creation time than it had means that its lifetime began anew (RequeueMail), for
// Sendmail gives no id twice. An error: there is something that cannot be read.
func (s *spool) queued(id string, created time.Time) (bool, error) {
	scan := scanner{spool: s, buf: make([]byte, 64<<10)}
	for _, d := range s.dirs {
		for _, letter := range []byte("hq") {
			c, _, err := scan.control(d, letter, id)
			if err == nil && c != nil && !c.Complete {
				err = fmt.Errorf("%s/%cf%s is incomplete", d.Qf, letter, id)
			}
			if err != nil {
				return false, err
			}
			if c == nil || c.Created.Before(created) {
				continue
			}
			data, err := s.dataDir(d, c)
			if err == nil {
				_, err = data.dataSize(id)
			}
			if err == nil || !errors.Is(err, fs.ErrNotExist) {
				return err == nil, err
			}
		}
	}
	return false, nil
}

func (s *spool) deletePart(ctx context.Context, box *grace.Box, targets []mta.Target, results []mta.Result, wanted func(*entry) bool) {
	taken := make([]*doomed, len(targets))
	same := map[int]int{} // targets that mean the same message as an earlier one
	first := map[string]int{}
	for n, t := range targets {
		if before, again := first[t.ID]; again && t.Matches(taken[before].queueFile()) {
			same[n] = before
			continue
		}
		if taken[n] = s.takeDoomed(ctx, t, &results[n], wanted); taken[n] != nil {
			first[t.ID] = n
			results[n].Err = taken[n].put(box)
		}
	}
	onDisk := box.Sync()
	for n, d := range taken {
		if d != nil {
			s.deleteKept(d, box, &results[n], onDisk)
		}
	}
	for n, before := range same {
		results[n] = results[before]
	}
}

// takeDoomed waits a little for what somebody has locked. nil: r says why.
func (s *spool) takeDoomed(ctx context.Context, t mta.Target, r *mta.Result, wanted func(*entry) bool) (d *doomed) {
	if r.Err = ctx.Err(); r.Err == nil && !ValidQueueID(t.ID) {
		r.Err = fmt.Errorf("got queue id %q: not one of Sendmail's", clip(t.ID))
	}
	if r.Err != nil {
		return nil
	}
	for try := range busyTries {
		if try > 0 && !mta.Sleep(ctx, busyPause/busyTries) {
			break
		}
		if d, r.Fate, r.Err = s.doomed(t, wanted); !errors.Is(r.Err, errBusy) {
			break
		}
	}
	return d
}

func (d *doomed) queueFile() mta.QueueFile { return d.entry.control.queueFile(d.entry.id) }

// put keeps a copy; without a body there is nothing to keep.
func (d *doomed) put(box *grace.Box) error {
	if d.body == nil {
		return nil
	}
	return box.Put(time.Now(), d.queueFile(), grace.Part{Name: "qf", File: d.newest().file}, grace.Part{Name: "df", File: d.body})
}

// deleteKept deletes what has a copy on disk. The copy goes only if the message is
// still in the queue as it was.
func (s *spool) deleteKept(d *doomed, box *grace.Box, r *mta.Result, onDisk error) {
	defer d.close()
	if r.Err == nil {
		r.Err = onDisk
	}
	begun := false
	if r.Err == nil {
		begun, r.Err = s.deleteAll(d)
	}
	switch {
	case r.Err == nil:
		r.Fate = mta.Done
		return
	case begun:
		r.Err = fmt.Errorf("it is out of the queue and its copy is kept, but not all of it is removed: %w", r.Err)
	default:
		r.Err = errors.Join(r.Err, box.Drop(d.queueFile()))
	}
	r.Fate = mta.Failed
}

// newest is the file that knows who has the message already.
func (d *doomed) newest() *entry {
	if d.twin != nil {
		return d.twin
	}
	return d.entry
}
