package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"relayguard/mta/grace"

	"golang.org/x/sys/unix"
)

// Restore puts a deleted message back into quarantine, with the reason that it had,
// and under a new id that no other message has or gets. mta.ErrGone: there is no
// such message. An error with an id: it is there, but a power cut may undo that,
// or the copy stays, too.
func (i *Instance) Restore(ctx context.Context, keep *grace.Folder, name string) (newID string, err error) {
	s, err := i.openSpool(false)
	if err != nil {
		return "", fmt.Errorf("restore mail: %w", err)
	}
	defer s.close()
	err = keep.Take(ctx, name, func(parts map[string]*os.File) error {
		qf, df := parts["qf"], parts["df"]
		if qf == nil || df == nil {
			return errors.New("it is not a message of Sendmail's")
		}
		newID, err = s.restore(qf, df)
		return err
	})
	if err != nil {
		return newID, fmt.Errorf("restore mail: %w", err)
	}
	return newID, nil
}

func (s *spool) restore(qf, df *os.File) (id string, err error) {
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
	d := s.dirs[0]
	if id, err = s.freeID(); err != nil {
		return "", err
	}
	if err := d.restoreData(df, id); err != nil {
		return "", errors.Join(err, remove(d.df, d.Df, "df"+id))
	}
	reason := c.Reason
	if !c.Quarantined {
		reason = "restored"
	}
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

// freeID is an id that no file has.
func (s *spool) freeID() (string, error) {
	const tries = 100
	for range tries {
		id := newID(time.Now())
		if !s.known(id) {
			return id, nil
		}
	}
	return "", errors.New("no queue id is free")
}

func (s *spool) known(id string) bool {
	var st unix.Stat_t
	for _, d := range s.dirs {
		for _, f := range []struct {
			fd   int
			name string
		}{{d.qf, "qf"}, {d.qf, "hf"}, {d.qf, "Qf"}, {d.qf, "tf"}, {d.df, "df"}, {d.xf, "xf"}} {
			if unix.Fstatat(f.fd, f.name+id, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				return true
			}
		}
	}
	return false
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
	return errors.Join(err, remove(d.qf, d.Qf, half))
}
