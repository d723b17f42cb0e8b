package wordpress

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// longestFile is the most that is read of any file.
const longestFile = 1 << 20

// tree is an open directory of a site's. Names are single components, and no
// link is followed, so that nothing outside can be reached.
type tree struct {
	dir  *os.File
	name string // for errors
}

func (t *tree) close() { t.dir.Close() }

func (t *tree) fd() int { return int(t.dir.Fd()) }

// path is how an entry is called in errors.
func (t *tree) path(name string) string { return t.name + "/" + name }

// component refuses what is not the name of an entry.
func component(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is no name of an entry", name)
	}
	return nil
}

// sub opens a directory below, to be closed. One that is missing is an
// fs.ErrNotExist; a link in its place is an error.
func (t *tree) sub(name string) (*tree, error) { return t.open(name, unix.O_RDONLY) }

func (t *tree) open(name string, mode int) (*tree, error) {
	if err := component(name); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(t.fd(), name, mode|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s is no directory, or a symbolic link: links are not followed", t.path(name))
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: t.path(name), Err: err}
	}
	return &tree{os.NewFile(uintptr(fd), name), t.path(name)}, nil
}

// made is sub of a directory that is made if it is missing.
func (t *tree) made(name string) (*tree, error) {
	sub, err := t.sub(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return sub, err
	}
	if err := unix.Mkdirat(t.fd(), name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, &fs.PathError{Op: "make", Path: t.path(name), Err: err}
	}
	return t.sub(name)
}

// entry is a file's content and what the file system says of it.
type entry struct {
	text []byte
	stat unix.Stat_t
}

// read reads a file; what is no plain file is an error, a FIFO is not waited for.
func (t *tree) read(name string) (*entry, error) {
	if err := component(name); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(t.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: links are not followed", t.path(name))
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: t.path(name), Err: err}
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	e := &entry{}
	if err := unix.Fstat(fd, &e.stat); err != nil {
		return nil, &fs.PathError{Op: "look at", Path: t.path(name), Err: err}
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is no plain file", t.path(name))
	}
	if e.text, err = io.ReadAll(io.LimitReader(file, longestFile)); err != nil {
		return nil, fmt.Errorf("read %s: %w", t.path(name), err)
	}
	return e, nil
}

// write puts a file in its place, whole or not at all. Without replace it must
// not be there yet.
func (t *tree) write(name string, text []byte, mode os.FileMode, replace bool) (err error) {
	if err := component(name); err != nil {
		return err
	}
	random := make([]byte, 8)
	rand.Read(random) // never an error
	part := ".relayguard-" + hex.EncodeToString(random)
	fd, err := unix.Openat(t.fd(), part, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "make a file for", Path: t.path(name), Err: err}
	}
	file := os.NewFile(uintptr(fd), part)
	_, err = file.Write(text)
	if err == nil {
		err = file.Chmod(mode)
	}
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = t.rename(part, name, replace)
	}
	if err != nil {
		unix.Unlinkat(t.fd(), part, 0)
		return fmt.Errorf("write %s: %w", t.path(name), err)
	}
	return t.sync()
}

func (t *tree) rename(part, name string, replace bool) error {
	if replace {
		return unix.Renameat(t.fd(), part, t.fd(), name)
	}
	err := unix.Renameat2(t.fd(), part, t.fd(), name, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Not every file system can do that; a link never replaces either.
	if err := unix.Linkat(t.fd(), part, t.fd(), name, 0); err != nil {
		return err
	}
	return unix.Unlinkat(t.fd(), part, 0)
}

// remove takes a file away.
func (t *tree) remove(name string) error {
	if err := component(name); err != nil {
		return err
	}
	if err := unix.Unlinkat(t.fd(), name, 0); err != nil {
		return &fs.PathError{Op: "remove", Path: t.path(name), Err: err}
	}
	return t.sync()
}

// removeEmpty takes a directory away if nothing is in it.
func (t *tree) removeEmpty(name string) error {
	err := unix.Unlinkat(t.fd(), name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || err == nil {
		return nil
	}
	return &fs.PathError{Op: "remove", Path: t.path(name), Err: err}
}

// sync keeps the directory's entries over a power cut, where it can be done.
func (t *tree) sync() error {
	if err := t.dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return &fs.PathError{Op: "sync", Path: t.name, Err: err}
	}
	return nil
}
