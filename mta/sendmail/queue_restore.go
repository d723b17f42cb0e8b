package sendmail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"

	"golang.org/x/sys/unix"
)

// Restore puts a deleted message back into quarantine, with the reason that it had,
// and takes it out of the folder. It has a new id that no other message has or ever
// gets; envelope, content and arrival time are as they were. Where an earlier
// Restore was broken off it finds what that put back, and returns its id.
// mta.ErrGone: nothing of that name, or the message is still in the queue, for its
// delete was broken off. An error with an id: it is there, but a power cut may undo
// that.
func (i *Instance) Restore(ctx context.Context, keep *grace.Folder, name string) (newID string, err error) {
	s, err := i.openSpool(false)
	if err != nil {
		return "", fmt.Errorf("restore mail: %w", err)
	}
	defer s.close()
	err = keep.TakeBack(ctx, name, func(k grace.Kept, parts map[string]*os.File, _ bool) error {
		qf, df := parts["qf"], parts["df"]
		if qf == nil || df == nil || !ValidQueueID(k.ID) {
			return errors.New("it is not Sendmail's")
		}
		there, err := s.queued(k.ID, k.Arrival)
		if err == nil && there {
			err = fmt.Errorf("it is still in the queue as %s: %w", k.ID, mta.ErrGone)
		}
		if err == nil {
			newID, err = s.restore(k, qf, df)
		}
		return err
	})
	if err != nil {
		return newID, fmt.Errorf("restore mail: %w", err)
	}
	return newID, ctx.Err()
}

func (s *spool) restore(k grace.Kept, qf, df *os.File) (id string, err error) {
	data, err := io.ReadAll(io.LimitReader(qf, maxControl+1))
	if err != nil {
		return "", err
	}
	c, err := ParseControl(data)
	if err == nil && (!c.Complete || len(data) > maxControl) {
		err = errors.New("its control file is incomplete")
	}
	if err != nil {
		return "", err
	}
	id = restoredID(k)
	switch there, err := s.queued(id, time.Time{}); { // whatever became of it since
	case err != nil:
		return "", err
	case there:
		return id, nil
	}
	d := s.dirs[0]
	for _, half := range []string{"tf" + id + halfSuffix, "df" + id} { // of one who died
		if err := errors.Join(remove(d.qf, d.Qf, half), remove(d.df, d.Df, half)); err != nil {
			return "", err
		}
	}
	if err := d.restoreData(df, id); err != nil {
		return "", errors.Join(err, remove(d.df, d.Df, "df"+id))
	}
	reason := cmp.Or(c.Reason, "restored")
	if err := d.restoreControl(change{hold: true, reason: reason, moved: true}.apply(data), id); err != nil {
		return "", errors.Join(err, remove(d.df, d.Df, "df"+id))
	}
	for _, fd := range []int{d.df, d.qf} {
		if err := unix.Fsync(fd); err != nil {
			return id, fmt.Errorf("write %s to disk: %w", d.Qf, err)
		}
	}
	return id, nil
}

const restoredMode = 0o640 // as Debian's QueueFileMode; Sendmail gives it its own with the next writing

func (d *dir) restoreData(from *os.File, id string) error {
	path := d.Df + "/df" + id
	fd, err := unix.Openat(d.df, "df"+id, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if _, err = io.Copy(f, from); err == nil {
		err = f.Chmod(restoredMode)
	}
	if err == nil {
		err = f.Sync()
	}
	return err
}

// restoreControl writes the control file beside and gives it its name, unless
// somebody has that.
func (d *dir) restoreControl(data []byte, id string) error {
	half := "tf" + id + halfSuffix
	f, err := d.create(half, restoredMode, os.Geteuid(), -1)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Linkat(d.qf, half, d.qf, "hf"+id, 0)
	}
	if rest := remove(d.qf, d.Qf, half); err != nil { // else the message is there; a scan removes the rest
		err = errors.Join(err, rest)
	}
	return err
}
