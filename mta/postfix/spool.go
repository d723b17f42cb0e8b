package postfix

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spool is the queue's directory, for the two things that no tool of Postfix
// does: copying a held file, and putting it back. The directories in it belong
// to Postfix's account, which must not lead root elsewhere: nothing is followed
// out of it, and only that account's own files are read.
type spool struct {
	root      *os.Root
	uid, gid  int
	hashDepth int // levels of directories in the hold queue
}

// readyMode is the mode of a complete queue file (MAIL_QUEUE_STAT_READY);
// Postfix leaves any other alone.
const readyMode = 0o700

func (i *Instance) openSpool() (*spool, error) {
	owner, err := user.Lookup(i.Setting("mail_owner"))
	if err != nil {
		return nil, fmt.Errorf("open Postfix's queue: %w", err)
	}
	s := &spool{}
	if s.uid, err = strconv.Atoi(owner.Uid); err == nil {
		s.gid, err = strconv.Atoi(owner.Gid)
	}
	if names, bad := splitList(i.Setting("hash_queue_names")); bad == nil && err == nil && slices.Contains(names, "hold") {
		s.hashDepth, err = strconv.Atoi(i.Setting("hash_queue_depth"))
	}
	if err == nil {
		s.root, err = os.OpenRoot(i.QueueDir)
	}
	if err != nil {
		return nil, fmt.Errorf("open Postfix's queue: %w", err)
	}
	return s, nil
}

// held is where a message with that id lies on hold: in a directory for each
// of the first letters if hold is hashed; of a long id those are its
// microseconds, in hexadecimal.
func (s *spool) held(id string) string {
	letters := id
	if z := strings.LastIndexByte(id, 'z'); z >= 10 {
		micros := 0
		for _, c := range id[z-4 : z] {
			micros = micros*len(longIDLetters) + strings.IndexRune(longIDLetters, c)
		}
		letters = fmt.Sprintf("%05X", micros)
	}
	dir := "hold"
	for n := range s.hashDepth {
		letter := "_"
		if n < len(letters) {
			letter = letters[n : n+1]
		}
		dir = path.Join(dir, letter)
	}
	return path.Join(dir, id)
}

// openHeld opens a held message; fs.ErrNotExist if it is not there.
func (s *spool) openHeld(id string) (*os.File, fs.FileInfo, error) {
	// O_NONBLOCK: a pipe of that name must not hold us up.
	f, err := s.root.OpenFile(s.held(id), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	var named fs.FileInfo // os.Root follows a link that stays inside, whatever the flags
	if err == nil {
		named, err = s.root.Lstat(s.held(id))
	}
	if err == nil {
		sys, ok := info.Sys().(*syscall.Stat_t)
		if !os.SameFile(named, info) || !info.Mode().IsRegular() || info.Mode().Perm()&0o700 != readyMode || !ok || int(sys.Uid) != s.uid || sys.Nlink != 1 {
			err = fmt.Errorf("%s is not a complete queue file of Postfix's account", s.held(id))
		}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// hold writes a queue file into the hold queue, under an id as Postfix makes
// them: the microsecond and the inode (a short one, which Postfix takes with
// enable_long_queue_ids, too). Until it is complete it has a mode that Postfix
// takes for unfinished. An error with an id: it is there, but a power cut may
// undo that.
func (s *spool) hold(from io.Reader) (id string, err error) {
	half := fmt.Sprintf("hold/relayguard_%d_%d", os.Getpid(), time.Now().UnixNano())
	f, err := s.root.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	defer s.root.Remove(half)
	if _, err = io.Copy(f, from); err == nil {
		err = f.Chown(s.uid, s.gid)
	}
	if err == nil {
		err = f.Sync()
	}
	var info fs.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	if err != nil {
		return "", err
	}
	sys, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s: its inode cannot be told", half)
	}
	id = fmt.Sprintf("%05X%X", time.Now().Nanosecond()/1000, sys.Ino)
	if err := s.makeDirs(path.Dir(s.held(id))); err != nil {
		return "", err
	}
	if err := s.root.Link(half, s.held(id)); err != nil { // never over another message
		return "", err
	}
	if err := s.root.Remove(half); err != nil {
		return "", err
	}
	if err := f.Chmod(readyMode); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	dir, err := s.root.Open(path.Dir(s.held(id)))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return id, dir.Sync() // the name, too, before the copy elsewhere goes
}

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
