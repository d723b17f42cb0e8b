package phpsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ErrUntrusted says that others could put another program in a place.
var ErrUntrusted = errors.New("others may change it")

// trusted refuses a program of which somebody else than root, or we ourselves,
// could make another: all mail of all accounts goes through it. A group that may
// write is left to the system: Debian had such a one for /usr/local.
func trusted(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("install %s: not an absolute path", path)
	}
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return fmt.Errorf("install %s: %w", path, err)
		}
		sys, ok := info.Sys().(*syscall.Stat_t)
		sticky := at != path && info.Mode()&fs.ModeSticky != 0 // nobody renames there what is ours
		switch {
		case info.Mode()&fs.ModeSymlink != 0 && at == path:
			return fmt.Errorf("install %s: it is a symbolic link; name what it points to", path)
		case !ok || sys.Uid != 0 && int(sys.Uid) != os.Geteuid():
			return fmt.Errorf("install %s: %s is not root's: %w; install relayguard below /usr/local/sbin first (make install)", path, at, ErrUntrusted)
		case info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o002 != 0 && !sticky:
			return fmt.Errorf("install %s: everybody may write to %s: %w", path, at, ErrUntrusted)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}
