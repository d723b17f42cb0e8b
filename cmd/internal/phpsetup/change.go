package phpsetup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Change is one file as it is to be.
type Change struct {
	Path string
	Link string // what a symbolic link points to; "": it is a file
	Text string // of a file
	Was  string // of it now; or what the link points to
	Old  bool   // it is there
	Part string // of Text, to show where the rest stays; "": all of it
	Why  string

	service string // what must be reloaded
	open    bool   // it is ours, and the accounts of sites must be able to read it
	shut    bool   // they cannot, now
}

// Changes reports whether there is something to do.
func (c Change) Changes() bool {
	if c.Link != "" {
		return !c.Old || c.Was != c.Link
	}
	return !c.Old || c.Was != c.Text || c.shut
}

// look fills in what is there.
func (c Change) look() (Change, error) {
	info, err := os.Lstat(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	c.Old = true
	isLink := info.Mode()&fs.ModeSymlink != 0
	switch {
	case c.Link != "" && isLink:
		c.Was, err = os.Readlink(c.Path)
	case c.Link != "":
		err = fmt.Errorf("%s is no symbolic link, and so not relayguard's; move it away", c.Path)
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%s is no file; move it away, or name what it points to", c.Path)
	default:
		var text []byte
		text, err = os.ReadFile(c.Path)
		c.Was, c.shut = string(text), c.open && info.Mode().Perm()&othersRead == 0
	}
	return c, err
}

// apply writes it so that readers see the old or the new.
func (c Change) apply() error {
	if err := makeDirs(filepath.Dir(c.Path)); err != nil {
		return err
	}
	if c.Link != "" {
		part := c.Path + ".new"
		os.Remove(part)
		if err := os.Symlink(c.Link, part); err != nil {
			return err
		}
		return os.Rename(part, c.Path)
	}
	mode, uid, gid := fs.FileMode(0o644), -1, -1
	if info, err := os.Lstat(c.Path); err == nil {
		mode = info.Mode().Perm()
		if c.open {
			mode |= 0o444
		}
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(sys.Uid), int(sys.Gid)
		}
	}
	return replace(c.Path, c.Text, mode, uid, gid)
}

func replace(path, text string, mode fs.FileMode, uid, gid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".relayguard-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && uid >= 0 {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// Apply makes changes, in their order. After an error those before it are made.
func Apply(changes []Change) error {
	for _, c := range changes {
		if !c.Changes() {
			continue
		}
		if err := c.apply(); err != nil {
			return fmt.Errorf("write %s: %w", c.Path, err)
		}
	}
	return nil
}

// Reload names the commands by which the PHPs that changes are about read their
// settings again.
func Reload(changes []Change) []string {
	var all []string
	seen := map[string]bool{}
	for _, c := range changes {
		if c.service != "" && c.Changes() && !seen[c.service] {
			seen[c.service] = true
			all = append(all, c.service)
		}
	}
	return all
}

// service is how a PHP that keeps running is told; "" for one that reads its
// settings each time it starts.
func (p php) service() string {
	switch p.sapi {
	case "fpm":
		return "systemctl reload php" + p.version + "-fpm"
	case "apache2":
		return "systemctl reload apache2"
	case "cli", "phpdbg":
		return ""
	}
	return "(reload what runs PHP " + p.version + " as " + p.sapi + ")"
}
