package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
		fd, err := unix.Openat(d.qf, "tf"+t.ID+goneSuffix, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		e := &entry{dir: d, letter: 't', id: t.ID + goneSuffix, file: os.NewFile(uintptr(fd), d.Qf+"/tf"+t.ID+goneSuffix)}
		same, err := e.lock()
		if err == nil && same {
			err = e.read(s.owners)
		}
		if err == nil && same && t.Matches(e.control.queueFile(t.ID)) {
			var data *dir
			if data, err = s.dataDir(d, e.control); err == nil {
				err = s.deleteRest(d, data, t.ID)
			}
			e.close()
			if err != nil {
				return nil, mta.Failed, err
			}
			return nil, mta.Done, nil
		}
		e.close()
	}
	return nil, mta.Gone, nil
}

const keepAtOnce = 128 // messages that are copied, brought to disk and then deleted

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
	first := map[string]int{} // a target that has that id
	for n, t := range targets {
		if before, again := first[t.ID]; again {
			if d := taken[before]; d != nil && t.Matches(d.entry.control.queueFile(t.ID)) {
				continue // as the other
			}
		}
		r := &results[n]
		if r.Err = ctx.Err(); r.Err == nil && !ValidQueueID(t.ID) {
			r.Err = fmt.Errorf("got queue id %q: not one of Sendmail's", clip(t.ID))
		}
		if r.Err != nil {
			continue
		}
		var d *doomed
		for try := range busyTries {
			if try > 0 && !sleep(ctx, busyPause/busyTries) {
				break
			}
			if d, r.Fate, r.Err = s.doomed(t, wanted); !errors.Is(r.Err, errBusy) {
				break
			}
		}
		if d == nil {
			continue
		}
		first[t.ID] = n
		if taken[n] = d; d.body != nil {
			r.Err = box.Put(time.Now(), d.entry.control.queueFile(t.ID), grace.Part{Name: "qf", File: d.newest().file}, grace.Part{Name: "df", File: d.body})
		}
	}
	syncErr := box.Sync()
	for n, d := range taken {
		if d == nil {
			continue
		}
		r := &results[n]
		if r.Err == nil {
			r.Err = syncErr
		}
		if r.Err == nil {
			r.Err = s.deleteAll(d)
		}
		if r.Fate = mta.Done; r.Err != nil {
			r.Fate = mta.Failed
			r.Err = errors.Join(r.Err, box.Drop(d.entry.control.queueFile(r.ID)))
		}
		d.close()
	}
	for n, t := range targets {
		if before, again := first[t.ID]; again && before != n && results[n].Fate == mta.Failed && results[n].Err == nil {
			results[n] = results[before]
		}
	}
}

// newest is the file that knows who has the message already.
func (d *doomed) newest() *entry {
	if d.twin != nil {
		return d.twin
	}
	return d.entry
}
