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
			return d.entry.done(s.deleteAll(d))
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
	return d, mta.Done, nil
}

func (s *spool) deleteAll(d *doomed) error {
	if d.twin != nil { // first, for it may be delivered
		if err := remove(d.twin.dir.qf, d.twin.dir.Qf, d.twin.name()); err != nil {
			return err
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

// settle tells the grace folder what became of deletes that were killed.
func (s *spool) settle(box *grace.Box) error {
	for _, k := range box.Unfinished() {
		if !ValidQueueID(k.ID) {
			continue
		}
		if err := box.Finish(k, s.queued(k)); err != nil {
			return err
		}
	}
	return nil
}

// queued tells whether a kept message is still, or again, in the queue.
func (s *spool) queued(k grace.Kept) bool {
	scan := scanner{spool: s, buf: make([]byte, 64<<10)}
	for _, d := range s.dirs {
		for _, letter := range []byte("hq") {
			if c, _, err := scan.control(d, letter, k.ID); err != nil || c != nil && c.Created.Equal(k.Arrival) {
				return true
			}
		}
	}
	return false
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
		if try > 0 && !sleep(ctx, busyPause/busyTries) {
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

// deleteKept deletes what has a copy on disk, or else drops the copy.
func (s *spool) deleteKept(d *doomed, box *grace.Box, r *mta.Result, onDisk error) {
	defer d.close()
	if r.Err == nil {
		r.Err = onDisk
	}
	if r.Err == nil {
		r.Err = s.deleteAll(d)
	}
	r.Fate = mta.Done
	if r.Err != nil {
		r.Fate = mta.Failed
		r.Err = errors.Join(r.Err, box.Drop(d.queueFile()))
	}
}

// newest is the file that knows who has the message already.
func (d *doomed) newest() *entry {
	if d.twin != nil {
		return d.twin
	}
	return d.entry
}
