package postfix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spool is the queue's directory, for what no tool of Postfix does: telling of one
// message whether it is the one that is meant, keeping a held file, and putting it
// back. The directories in it belong to Postfix's account, which must not lead root
// elsewhere: no link is followed, and only that account's own files are read. Not
// for concurrent use. Close it.
type spool struct {
	root     *os.Root
	dir      *os.File // the same directory
	uid, gid int
	hashed   []string // queues with a directory for each of the first letters
	depth    int      // of those
	opened   map[string]int
}

const (
	// readyMode is the mode of a complete queue file (MAIL_QUEUE_STAT_READY);
	// Postfix leaves any other alone.
	readyMode = 0o700
	// maxOpened is how many of the queue's directories stay open; two levels of
	// hashing have 256.
	maxOpened = 300
)

func (i *Instance) openSpool() (*spool, error) {
	s := &spool{opened: map[string]int{}}
	owner, err := user.Lookup(i.Setting("mail_owner"))
	if err == nil {
		s.uid, err = strconv.Atoi(owner.Uid)
	}
	if err == nil {
		s.gid, err = strconv.Atoi(owner.Gid)
	}
	if names, bad := splitList(i.Setting("hash_queue_names")); bad == nil && err == nil && len(names) > 0 {
		s.hashed = names
		s.depth, err = strconv.Atoi(i.Setting("hash_queue_depth"))
	}
	if err == nil {
		s.root, err = os.OpenRoot(i.QueueDir)
	}
	if err == nil {
		if s.dir, err = s.root.Open("."); err != nil {
			s.root.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open Postfix's queue: %w", err)
	}
	return s, nil
}

func (s *spool) Close() {
	for _, fd := range s.opened {
		unix.Close(fd)
	}
	s.dir.Close()
	s.root.Close()
}

// dirOf is where a message with that id lies in a queue: in a directory for each
// of the first letters if the queue is hashed; of a long id those are its
// microseconds, in hexadecimal.
func (s *spool) dirOf(queue, id string) string {
	if !slices.Contains(s.hashed, queue) {
		return queue
	}
	letters := id
	if z := strings.LastIndexByte(id, 'z'); z >= 10 {
		micros := 0
		for _, c := range id[z-4 : z] {
			micros = micros*len(longIDLetters) + strings.IndexRune(longIDLetters, c)
		}
		letters = fmt.Sprintf("%05X", micros)
	}
	for n := range s.depth {
		letter := "_"
		if n < len(letters) {
			letter = letters[n : n+1]
		}
		queue += "/" + letter
	}
	return queue
}

// open opens a message's complete queue file. fs.ErrNotExist: there is none, or
// what has its name is not complete, not a file. The id must be valid.
func (s *spool) open(queue, id string) (*os.File, *unix.Stat_t, error) {
	at := s.dirOf(queue, id)
	dir, err := s.openDir(at)
	if err != nil {
		return nil, nil, err
	}
	if _, kept := s.opened[at]; !kept {
		defer unix.Close(dir)
	}
	name := path.Join(at, id)
	// O_NONBLOCK: a pipe of that name must not hold us up.
	fd, err := unix.Openat(dir, id, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", name, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		switch {
		case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o700 != readyMode:
			err = fs.ErrNotExist
		case int(st.Uid) != s.uid:
			err = errors.New("it does not belong to Postfix's account")
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), &st, nil
}

// openDir opens a directory of the queue, and keeps it open while there are few.
func (s *spool) openDir(at string) (fd int, err error) {
	if fd, ok := s.opened[at]; ok {
		return fd, nil
	}
	fd = int(s.dir.Fd())
	for n, part := range strings.Split(at, "/") {
		next, err := unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if n > 0 {
			unix.Close(fd)
		}
		if err != nil {
			return -1, fmt.Errorf("open %s: %w", at, err)
		}
		fd = next
	}
	if len(s.opened) < maxOpened {
		s.opened[at] = fd
	}
	return fd, nil
}

// half writes a queue file into the hold queue under a name that is none of a
// message's, complete but for that, and returns the id for place. Nothing is synced.
func (s *spool) half(name string, from io.Reader) (id string, err error) {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err = io.Copy(f, from); err == nil {
		err = f.Chown(s.uid, s.gid)
	}
	if err == nil {
		err = f.Chmod(readyMode)
	}
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%05X%X", time.Now().Nanosecond()/1000, st.Ino), nil
}

// place gives what half wrote its name in the hold queue, in one step: an id as
// Postfix makes them, of the microsecond and the inode (a short one, which Postfix
// takes with enable_long_queue_ids, too). Never over another message.
func (s *spool) place(half, id string) error {
	at := s.dirOf("hold", id)
	dir, err := s.openDir(at)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.makeDirs(at); err == nil {
			dir, err = s.openDir(at)
		}
	}
	if err != nil {
		return err
	}
	if _, kept := s.opened[at]; !kept {
		defer unix.Close(dir)
	}
	err = unix.Renameat2(int(s.dir.Fd()), half, dir, id, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without; nobody else can make an id of this inode
		if err = unix.Faccessat(dir, id, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			err = unix.Renameat(int(s.dir.Fd()), half, dir, id)
		} else if err == nil {
			err = unix.EEXIST
		}
	}
	if err != nil {
		return fmt.Errorf("put %s on hold: %w", id, err)
	}
	return nil
}

// sync brings all that was written to the queue to disk, in one step.
func (s *spool) sync() error {
	if err := unix.Syncfs(int(s.dir.Fd())); err != nil {
		return fmt.Errorf("bring Postfix's queue to disk: %w", err)
	}
	return nil
}

// halfName begins the name of what half wrote.
const halfName = "relayguard_"

// makeDirs makes the directories of a hashed queue, as Postfix does.
func (s *spool) makeDirs(dir string) error {
	parts := strings.Split(dir, "/")
	for n := 2; n <= len(parts); n++ {
		at := path.Join(parts[:n]...)
		switch err := s.root.Mkdir(at, 0o700); {
		case os.IsExist(err):
		case err != nil:
			return err
		default:
			if err := s.root.Lchown(at, s.uid, s.gid); err != nil {
				return err
			}
		}
	}
	return nil
}
