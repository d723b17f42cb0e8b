package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// ScanQueue calls fn with every message in the queues, one at a time, in the order
// of the directories and without keeping any. It tells quarantined mail as "hold",
// what somebody has locked as "active", what was tried before as "deferred", the
// rest as "incoming", and all of the submission program's as "maildrop".
//
// A message that moves during the scan may be missed or come twice: a caller that
// must not count it twice looks at the ID. One that is still being received is not
// listed. Size is of header and body.
//
// It ends at fn's first error and returns that, and when ctx ends. What cannot be
// read, has no body, or was set aside by Sendmail as unreadable (Qf) is left out
// and told by a *mta.SkippedError after all others. It needs root. It takes each
// file's lock for a moment, as mailq(1) does. On its way it removes what an act of
// this package that was killed left over.
func (i *Instance) ScanQueue(ctx context.Context, fn func(mta.QueueFile) error) error {
	s, err := i.openSpool(true)
	if err != nil {
		return err
	}
	defer s.close()
	scan := scanner{spool: s, buf: make([]byte, 64<<10)}
	for _, d := range s.dirs {
		if err := scan.dir(ctx, d, fn); err != nil {
			return err
		}
	}
	if scan.skipped.Lines > 0 {
		return &scan.skipped
	}
	return nil
}

type scanner struct {
	*spool
	buf     []byte
	last    []byte // the control file that was read last, in buf
	skipped mta.SkippedError
}

func (s *scanner) dir(ctx context.Context, d *dir, fn func(mta.QueueFile) error) error {
	fd, err := unix.Openat(d.qf, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("read Sendmail's queue: %w", &os.PathError{Op: "open", Path: d.Qf, Err: err})
	}
	f := os.NewFile(uintptr(fd), d.Qf)
	defer f.Close()
	const batch = 1024 // names at a time, of 100,000 there may be
	for {
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			letter, id, ok := controlName(name)
			if !ok {
				if err := s.sweep(d, name); err != nil {
					s.skip(err)
				}
				continue
			}
			q, err := s.read(d, letter, id)
			switch {
			case err != nil:
				s.skip(err)
			case q.ID != "":
				if err := fn(q); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read Sendmail's queue: %w", err)
		}
	}
}

func (s *scanner) skip(err error) {
	if s.skipped.Lines++; s.skipped.First == nil {
		s.skipped.First = err
	}
}

// controlName tells whether a file has a name of control files: qf, hf, or Qf.
func controlName(name string) (letter byte, id string, ok bool) {
	if len(name) < 3 || name[1] != 'f' || name[0] != 'q' && name[0] != 'h' && name[0] != 'Q' {
		return 0, "", false
	}
	return name[0], name[2:], true
}

// read is without an ID for what is no message, or none any more, or not yet.
func (s *scanner) read(d *dir, letter byte, id string) (mta.QueueFile, error) {
	path := d.Qf + "/" + string(letter) + "f" + id
	if !ValidQueueID(id) {
		return mta.QueueFile{}, fmt.Errorf("%s has no name that Sendmail gives", clipPath(path))
	}
	if letter == 'Q' {
		return mta.QueueFile{}, fmt.Errorf("%s was set aside by Sendmail, which could not read it", path)
	}
	c, busy, err := s.control(d, letter, id)
	if c == nil || err != nil {
		return mta.QueueFile{}, err
	}
	if !c.Complete {
		if busy {
			return mta.QueueFile{}, nil // being received
		}
		return mta.QueueFile{}, s.stillThere(d, letter, id, errors.New("it is incomplete"))
	}
	q := c.queueFile(id)
	q.Queue = queueOf(d, letter, c, busy)
	data, err := s.dataDir(d, c)
	var size int64
	if err == nil {
		size, err = data.dataSize(id)
	}
	if errors.Is(err, fs.ErrNotExist) && (busy || d.locked(letter, id)) {
		return mta.QueueFile{}, nil // delivered: Sendmail removes the body first
	}
	if err != nil {
		return mta.QueueFile{}, s.stillThere(d, letter, id, err)
	}
	q.Size += size
	return q, nil
}

// locked tells whether somebody has a control file for himself now.
func (d *dir) locked(letter byte, id string) bool {
	fd, err := unix.Openat(d.qf, string(letter)+"f"+id, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return locked(fd)
}

// stillThere is err unless the message has left meanwhile.
func (s *scanner) stillThere(d *dir, letter byte, id string, err error) error {
	var st unix.Stat_t
	name := string(letter) + "f" + id
	if errors.Is(unix.Fstatat(d.qf, name, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("read %s/%s: %w", d.Qf, name, err)
}

func queueOf(d *dir, letter byte, c *Control, busy bool) string {
	switch {
	case d.Client:
		return "maildrop"
	case letter == 'h' || c.Quarantined:
		return "hold"
	case busy:
		return "active"
	case c.Tries > 0 || !c.LastTry.IsZero() || c.Status != "":
		return "deferred"
	}
	return "incoming"
}

// control reads a control file as it is, without keeping it locked. It is nil for
// one that has left.
func (s *scanner) control(d *dir, letter byte, id string) (c *Control, busy bool, err error) {
	name := string(letter) + "f" + id
	fd, err := unix.Openat(d.qf, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: d.Qf + "/" + name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, &os.PathError{Op: "stat", Path: d.Qf + "/" + name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&unix.S_IWOTH != 0 || !d.Client && !slices.Contains(s.owners, st.Uid) {
		return nil, false, fmt.Errorf("%s/%s is not a control file of Sendmail's accounts", d.Qf, name)
	}
	busy = locked(fd)
	data, whole, err := s.slurp(fd)
	if err != nil {
		return nil, false, &os.PathError{Op: "read", Path: d.Qf + "/" + name, Err: err}
	}
	if len(data) == 0 {
		return nil, false, nil // just made; Sendmail removes it when nothing follows
	}
	s.last = data
	if c, err = ParseControl(data); err != nil {
		return nil, false, fmt.Errorf("read %s/%s: %w", d.Qf, name, err)
	}
	if !whole {
		c.More, c.Complete = -1, true
	}
	return c, busy, nil
}

// slurp reads a file into the buffer, which keeps its size; of more than maxControl
// it reads the beginning and is false.
func (s *scanner) slurp(fd int) (data []byte, whole bool, err error) {
	n := 0
	for {
		if n == len(s.buf) {
			if n >= maxControl {
				return s.buf[:n], false, nil
			}
			s.buf = append(s.buf, make([]byte, len(s.buf))...)
		}
		var got int
		err := retryInterrupted(func() (err error) { got, err = unix.Pread(fd, s.buf[n:], int64(n)); return err })
		if err != nil {
			return nil, false, err
		}
		if got == 0 {
			return s.buf[:n], true, nil
		}
		n += got
	}
}

// clipPath shortens what a stranger may have named.
func clipPath(path string) string { return fmt.Sprintf("%.300q", path) }
