package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The journal's directory belongs to the daemon, which reads what strangers
// send. Root, when it does without the daemon, lets no name in there lead it
// elsewhere, and waits for nothing that is no file.

// errStrangeLink says that whom root does not trust made a symbolic link.
var errStrangeLink = errors.New("it is a symbolic link of another account")

// openPlace opens a directory. Symbolic links on the way count only if root or
// this process's account made them.
func openPlace(dir string) (*os.Root, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	const mostLinks = 40 // as many as Linux follows
	for range mostLinks {
		place, leads, err := descend(dir)
		if err != nil || leads == "" {
			return place, err
		}
		dir = leads
	}
	return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.ELOOP}
}

// descend goes down a path step by step; at a link it stops, and says where the
// whole path leads by it.
func descend(dir string) (place *os.Root, leads string, err error) {
	at, err := os.OpenRoot("/")
	if err != nil {
		return nil, "", err
	}
	defer func() {
		if place == nil {
			at.Close()
		}
	}()
	name := "/"
	steps := strings.FieldsFunc(dir, func(r rune) bool { return r == '/' })
	for i, step := range steps {
		info, err := at.Lstat(step)
		if err != nil {
			return nil, "", &fs.PathError{Op: "open", Path: filepath.Join(name, step), Err: errors.Unwrap(err)}
		}
		if info.Mode().Type() == fs.ModeSymlink {
			to, err := at.Readlink(step)
			if err == nil && !trusted(info) {
				err = fmt.Errorf("open %s: %w", filepath.Join(name, step), errStrangeLink)
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(name, to)
			}
			return nil, filepath.Join(append([]string{to}, steps[i+1:]...)...), err
		}
		name = filepath.Join(name, step)
		next, err := at.OpenRoot(step)
		if err != nil {
			return nil, "", fmt.Errorf("open %s: %w", name, err)
		}
		at.Close()
		at = next
		if now, err := at.Stat("."); err != nil || !os.SameFile(info, now) {
			return nil, "", errors.Join(fmt.Errorf("open %s: another directory came there meanwhile", name), err)
		}
	}
	return at, "", nil
}

func trusted(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && (s.Uid == 0 || int(s.Uid) == os.Geteuid())
}

// openPlain opens a file for reading; anything but a file is an error, and
// nothing is waited for.
func openPlain(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notPlain(name, info)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

func notPlain(name string, info fs.FileInfo) error {
	return fmt.Errorf("open %s: it is no file but %v", name, info.Mode().Type())
}
