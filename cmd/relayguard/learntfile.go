package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"relayguard/cmd/internal/wholefile"
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
	aside, asideErr := wholefile.PutAside(f.path)
	if asideErr != nil {
		f.stuck = true
		return fmt.Errorf("read %s: %w; %w: nothing is written there before it is gone and the daemon restarted", f.path, err, asideErr)
	}
	return fmt.Errorf("read %s: %w; it is kept as %s", f.path, err, aside)
}

// write puts a whole new file in the place of the old one, unless that says the
// same.
func (f *learntFile) write() error {
	if f.stuck {
		return nil
	}
	var sum [sha256.Size]byte
	err := wholefile.Write(f.path, func(w io.Writer) error {
		hash := sha256.New()
		if err := f.save(io.MultiWriter(w, hash)); err != nil {
			return err
		}
		if hash.Sum(sum[:0]); f.is(sum) {
			return wholefile.ErrSame
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	f.written, f.sum = true, sum
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
