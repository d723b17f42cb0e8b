package phpsetup

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// What everybody needs of a file or a directory on the way to it.
const (
	othersRead fs.FileMode = 0o004
	othersPass fs.FileMode = 0o001 // or run, of a program
)

// shut says what keeps other accounts, as which sites run, from a file: a
// directory on its way below root that they cannot pass, or the file itself. What
// is not there yet is made so that they can. nil: nothing, or the way cannot be
// seen. Access lists (acl(5)) are not looked at.
func shut(root, path string, want fs.FileMode) error {
	if !filepath.IsAbs(path) {
		return nil
	}
	real, err := filepath.EvalSymlinks(path)
	for errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
		path, want = filepath.Dir(path), othersPass
		real, err = filepath.EvalSymlinks(path)
	}
	top, topErr := filepath.EvalSymlinks(cmp.Or(root, "/"))
	if err != nil || topErr != nil {
		return nil
	}
	for at := real; at != top && at != "/"; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			return nil
		}
		if mode := info.Mode().Perm(); mode&want != want {
			return fmt.Errorf("%s has mode %04o, so that the accounts of sites cannot %s it; first: chmod %s %s", at, mode, verb(info, want), remedy(info, want), at)
		}
		want = othersPass
	}
	return nil
}

func verb(info fs.FileInfo, want fs.FileMode) string {
	switch {
	case info.IsDir():
		return "pass"
	case want&othersPass != 0:
		return "run"
	}
	return "read"
}

func remedy(info fs.FileInfo, want fs.FileMode) string {
	if info.IsDir() || want&othersPass != 0 {
		return "a+rx"
	}
	return "a+r"
}

// makeDirs is os.MkdirAll whatever the umask: what it makes everybody can pass.
func makeDirs(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeDirs(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o755)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Chmod(dir, 0o755)
}
