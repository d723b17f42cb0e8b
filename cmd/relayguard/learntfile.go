package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// learntFile is where something that is learnt is while no daemon runs. One
// goroutine at a time uses it.
type learntFile struct {
	path string
	load func(io.Reader) error
	save func(io.Writer) error

	stuck   bool              // what is there cannot be read nor put aside: it is not overwritten
	written bool              // by this run, and that was
	sum     [sha256.Size]byte // what it wrote
}

// read loads the file, if there is one. One with something wrong in it is put
// aside; one that cannot be opened stays where it is, and is not written either.
func (f *learntFile) read() error {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		f.stuck = true
		return fmt.Errorf("%w; nothing is written there before a restart that can read it", err)
	}
	defer file.Close()
	err = f.load(file)
	if err == nil {
		return nil
	}
	aside, asideErr := putAside(f.path)
	if asideErr != nil {
		f.stuck = true
		return fmt.Errorf("read %s: %w; %w: nothing is written there before it is gone and the daemon restarted", f.path, err, asideErr)
	}
	return fmt.Errorf("read %s: %w; it is kept as %s", f.path, err, aside)
}

// putAside moves a wrong file away, over none that is there, and says where to.
func putAside(path string) (aside string, err error) {
	for n := 1; n < 10; n++ {
		aside = path + ".bad"
		if n > 1 {
			aside = fmt.Sprintf("%s.bad%d", path, n)
		}
		if err = os.Link(path, aside); err == nil {
			return aside, os.Remove(path)
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	return "", fmt.Errorf("it cannot be put aside either: %w", err)
}

// write puts a whole new file in the place of the old one, over a power cut too,
// unless that says the same.
func (f *learntFile) write() error {
	if f.stuck {
		return nil
	}
	part, err := os.OpenFile(f.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	defer os.Remove(part.Name())
	hash := sha256.New()
	err = f.save(io.MultiWriter(part, hash))
	sum := [sha256.Size]byte(hash.Sum(nil))
	if err == nil && f.is(sum) {
		return part.Close()
	}
	if err == nil {
		err = part.Sync()
	}
	if err = errors.Join(err, part.Close()); err == nil {
		err = os.Rename(part.Name(), f.path)
	}
	if err == nil {
		f.written, f.sum = true, sum
		err = syncDir(filepath.Dir(f.path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}

// is reports whether what was written has that sum, and nobody has removed it.
func (f *learntFile) is(sum [sha256.Size]byte) bool {
	if !f.written || f.sum != sum {
		return false
	}
	_, err := os.Lstat(f.path)
	return err == nil
}

// syncDir writes the names in a directory to the disk.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
