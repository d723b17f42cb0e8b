package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// ErrUntrusted says that somebody else could have written a  What Undo
// restores becomes Postfix's configuration, with all that runs as root there.
var ErrUntrusted = errors.New("others may change it")

// maxBackupFile bounds a copy or manifest; a main.cf has some kilobytes.
const maxBackupFile = 16 << 20

// Trusted resolves a directory that nobody but root and we may write to, nor
// put another in its place: so for every directory above it. A sticky one (/tmp)
// may be above it, for nobody renames there what is ours.
func Trusted(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return "", err
		}
		if err := ours(at, info, at != dir && info.Mode()&fs.ModeSticky != 0); err != nil {
			return "", err
		}
		if at == dir && !info.IsDir() {
			return "", fmt.Errorf("%s is not a directory", at)
		}
		if at == filepath.Dir(at) {
			return dir, nil
		}
	}
}

// ours reports by an error what belongs to somebody else, or what others may
// write to.
func ours(path string, info fs.FileInfo, shared bool) error {
	sys, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%s: its owner cannot be told", path)
	case sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d: %w", path, sys.Uid, ErrUntrusted)
	case info.Mode().Perm()&0o022 != 0 && !shared:
		return fmt.Errorf("%s has mode %04o: %w", path, info.Mode().Perm(), ErrUntrusted)
	}
	return nil
}

// MakeTrusted makes the directory of the backups and returns it resolved. It
// looks at what is there already before it makes anything below it.
func MakeTrusted(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := Trusted(at); err == nil {
			break
		} else if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return "", err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return Trusted(dir)
}

// Read reads a regular file of ours; no link is followed.
func Read(path string) ([]byte, error) { return ReadUpTo(path, maxBackupFile) }

func ReadUpTo(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s: not a file of at most %d octets", path, most)
	}
	if err := ours(path, info, false); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// checkPaths lets a manifest name only the files that setup changes, and copies
// beside itself.
func (m *Manifest) checkPaths(configDir string, names []string) error {
	for n, o := range m.Files {
		name := filepath.Base(o.Path)
		if o.Path != filepath.Join(configDir, name) || !slices.Contains(names, name) {
			return fmt.Errorf("it names %s, which setup never changes", o.Path)
		}
		if o.Copy != strconv.Itoa(n)+"-"+name {
			return fmt.Errorf("it names the copy %s", o.Copy)
		}
	}
	return nil
}

// SyncDir makes the names in a directory survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
