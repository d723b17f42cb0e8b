package sendmail

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// errBusy says that somebody else has a message locked: Sendmail delivers it now.
var errBusy = errors.New("being delivered at this moment")

// lock takes a file for us alone, without waiting: as Sendmail does on Linux by
// flock(2), and by fcntl(2) as one does that was built without HASFLOCK (conf.h).
func lock(fd int) error {
	err := retryInterrupted(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
		err = retryInterrupted(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk) })
	}
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EACCES) {
		return errBusy
	}
	return err
}

// locked tells whether somebody has the file for himself. Like mailq(1) it takes
// the lock for a moment.
func locked(fd int) bool {
	if errors.Is(unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK) {
		return true
	}
	unix.Flock(fd, unix.LOCK_UN)
	lk := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lk) == nil && lk.Type != unix.F_UNLCK
}

// entry is a control file that is ours: locked, read, and the one that has the name.
type entry struct {
	dir     *dir
	letter  byte // 'q' or 'h'
	id      string
	file    *os.File
	stat    unix.Stat_t
	data    []byte // all of it
	control *Control
}

func (e *entry) close() { e.file.Close() }

func (e *entry) name() string { return string(e.letter) + "f" + e.id }

// held tells that Sendmail will not deliver it: it is quarantined, by name or, as
// between the two renames of an act, by its q line.
func (e *entry) held() bool { return e.letter == 'h' || e.control.Quarantined }

// take locks and reads a control file. fs.ErrNotExist: there is none; errBusy.
func (s *spool) take(d *dir, letter byte, id string) (*entry, error) {
	const tries = 4 // it was replaced between opening and locking
	for range tries {
		e := &entry{dir: d, letter: letter, id: id}
		fd, err := unix.Openat(d.qf, e.name(), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: d.Qf + "/" + e.name(), Err: err}
		}
		e.file = os.NewFile(uintptr(fd), d.Qf+"/"+e.name())
		same, err := e.lock()
		if err == nil && same {
			if err = e.read(s.owners); err == nil {
				return e, nil
			}
		}
		e.close()
		if err != nil {
			return nil, err
		}
	}
	return nil, errBusy
}

// lock is false if the name is another file's by now (readqf in queue.c has the
// same race).
func (e *entry) lock() (same bool, err error) {
	fd := int(e.file.Fd())
	if err := unix.Fstat(fd, &e.stat); err != nil {
		return false, err
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, fmt.Errorf("%s is not a regular file", e.file.Name())
	}
	if err := lock(fd); err != nil {
		return false, err
	}
	var named unix.Stat_t
	err = unix.Fstatat(e.dir.qf, e.name(), &named, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err == nil { // the lock may have been waited for by nobody, but the file may have grown
		err = unix.Fstat(fd, &e.stat)
	}
	return named.Dev == e.stat.Dev && named.Ino == e.stat.Ino, err
}

// read reads the whole file, if it is one that Sendmail itself would take.
func (e *entry) read(owners []uint32) error {
	path := e.file.Name()
	switch {
	case !slices.Contains(owners, e.stat.Uid) || e.stat.Mode&unix.S_IWOTH != 0:
		return fmt.Errorf("%s is not a control file of Sendmail's accounts", path)
	case e.stat.Size > maxControl:
		return fmt.Errorf("%s has over %d octets", path, maxControl)
	}
	e.data = make([]byte, e.stat.Size)
	if _, err := e.file.ReadAt(e.data, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var err error
	if e.control, err = ParseControl(e.data); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if !e.control.Complete {
		return fmt.Errorf("read %s: it is incomplete", path)
	}
	return nil
}

// openData opens a message's body. fs.ErrNotExist: there is none.
func (s *spool) openData(e *entry) (*os.File, error) {
	d, err := s.dataDir(e.dir, e.control)
	if err != nil {
		return nil, err
	}
	return d.openData(e.id)
}

func (d *dir) openData(id string) (*os.File, error) {
	path := d.Df + "/df" + id
	fd, err := unix.Openat(d.df, "df"+id, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// dataSize is the size of a body; fs.ErrNotExist.
func (d *dir) dataSize(id string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.df, "df"+id, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: d.Df + "/df" + id, Err: err}
	}
	return st.Size, nil
}
