// Package wholefile replaces a file of the daemon's own as a whole: after a crash
// or a power cut it is the old one or the new one. One writer at a time for each
// file; the directory must be the daemon's own.
package wholefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrSame is returned by a write that finds that the file says so already: it stays,
// and that is no error.
var ErrSame = errors.New("the file is the same")

// Write puts what write writes in the place of the file, mode 0600.
func Write(path string, write func(io.Writer) error) error {
	part, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(part.Name())
	if err = write(part); err == nil {
		err = part.Sync()
	}
	switch err := errors.Join(err, part.Close()); {
	case errors.Is(err, ErrSame):
		return nil
	case err != nil:
		return err
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// PutAside moves a wrong file away, over none that is there, and says where to:
// PATH.bad, PATH.bad2, up to PATH.bad9.
func PutAside(path string) (aside string, err error) {
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
