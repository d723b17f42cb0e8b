package servertest

import (
	"fmt"
	"os"
	"path/filepath"
)

// Root describes the directory that holds everything of a server.
type Root struct {
	Server  string // whose it is, for errors
	Parent  string // where a new one is made; empty: where temporary files are
	Prefix  string // of its name
	Longest string // path of a Unix socket in it, as long as one can be
}

// longestSocket is the most of a Unix socket's address, in octets.
const longestSocket = 107

// Make makes or, if it is given, checks the directory.
func (r Root) Make(dir string) (root string, temporary bool, err error) {
	if dir == "" {
		if r.Parent != "" {
			err = os.MkdirAll(r.Parent, 0o755)
		}
		if err == nil {
			root, err = os.MkdirTemp(r.Parent, r.Prefix)
		}
		if err == nil {
			err = os.Chmod(root, 0o755)
		}
		if err != nil {
			return "", false, fmt.Errorf("make a directory for %s: %w", r.Server, err)
		}
		temporary = true
	} else if root, err = filepath.Abs(dir); err != nil {
		return "", false, fmt.Errorf("directory for %s: %w", r.Server, err)
	}
	if err = r.check(root); err != nil && temporary {
		os.Remove(root)
	}
	return root, temporary, err
}

func (r Root) check(root string) error {
	if most := longestSocket - len(r.Longest); len(root) > most {
		return fmt.Errorf("directory for %s %s: path has %d bytes, at most %d leave room for Unix sockets", r.Server, root, len(root), most)
	}
	for dir := root; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("directory for %s: %w", r.Server, err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("directory for %s %s: others may not enter %s (mode %v), so %s's own accounts cannot",
				r.Server, root, dir, info.Mode().Perm(), r.Server)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// Remove removes a temporary one, if RELAYGUARD_KEEP is not set.
func (r Root) Remove(root string) error {
	if os.Getenv("RELAYGUARD_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "kept for a look:", root)
		return nil
	}
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("remove %s's directory: %w", r.Server, err)
	}
	return nil
}
