package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// Manifest describes one backup: what the files were before, and what Apply
// made of them.
type Manifest struct {
	Time      time.Time  `json:"time"`
	ConfigDir string     `json:"config_dir"`
	Files     []original `json:"files"`
	Undone    bool       `json:"undone"`
}

type original struct {
	Path   string      `json:"path"`
	Absent bool        `json:"absent"` // it was not there
	Mode   fs.FileMode `json:"mode"`
	UID    int         `json:"uid"`
	GID    int         `json:"gid"`
	Before string      `json:"sha256_before"`
	After  string      `json:"sha256_after"` // empty until Apply ended
	Copy   string      `json:"copy"`         // name in the backup's directory
}

// ManifestName is the file in a backup that describes it.
const ManifestName = "manifest.json"

// BackUp copies files into a new directory below root, named for the time. Root
// must be ours alone.
func BackUp(root, configDir string, now time.Time, paths []string) (dir string, m Manifest, err error) {
	if root, err = MakeTrusted(root); err != nil {
		return "", m, fmt.Errorf("back up settings: %w", err)
	}
	stamp := now.UTC().Format("20060102-150405.000000")
	dir = filepath.Join(root, stamp)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", m, fmt.Errorf("back up settings: %w", err)
	}
	m = Manifest{Time: now.UTC(), ConfigDir: configDir}
	for n, path := range paths {
		o := original{Path: path, Copy: strconv.Itoa(n) + "-" + filepath.Base(path)}
		text, err := ReadIfThere(path)
		if err != nil {
			return "", m, fmt.Errorf("back up settings: %w", err)
		}
		if o.Absent = text == nil; !o.Absent {
			info, err := os.Stat(path)
			if err != nil {
				return "", m, fmt.Errorf("back up settings: %w", err)
			}
			o.Mode = info.Mode().Perm()
			if sys, ok := info.Sys().(*syscall.Stat_t); ok {
				o.UID, o.GID = int(sys.Uid), int(sys.Gid)
			}
			o.Before = Digest(text)
			if err := Replace(filepath.Join(dir, o.Copy), text, 0o600, -1, -1); err != nil {
				return "", m, fmt.Errorf("back up settings: %w", err)
			}
		}
		m.Files = append(m.Files, o)
	}
	return dir, m, m.Save(dir)
}

func (m *Manifest) Save(dir string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = Replace(filepath.Join(dir, ManifestName), append(text, '\n'), 0o600, -1, -1)
	}
	if err != nil {
		return fmt.Errorf("write %s of backup %s: %w", ManifestName, dir, err)
	}
	return nil
}

// Finish notes what Apply made of the files.
func (m *Manifest) Finish(dir string) error {
	for n := range m.Files {
		text, err := ReadIfThere(m.Files[n].Path)
		if err != nil {
			return fmt.Errorf("note the new settings in %s: %w", dir, err)
		}
		m.Files[n].After = Digest(text)
	}
	return m.Save(dir)
}

// changedSince names the files that are no longer as Apply left them.
func (m *Manifest) changedSince(dir string, same func(dir, path string) (bool, error)) ([]string, error) {
	var changed []string
	for _, o := range m.Files {
		text, err := ReadIfThere(o.Path)
		if err != nil {
			return nil, err
		}
		got := Digest(text)
		asLeft := got == o.After || o.After == "" && got == o.Before
		if !asLeft && same != nil {
			if asLeft, err = same(dir, o.Path); err != nil {
				return nil, err
			}
		}
		if !asLeft {
			changed = append(changed, o.Path)
		}
	}
	return changed, nil
}

// Restore puts every file back as it was, or tries to and names what it could
// not.
func (m *Manifest) Restore(dir string) error {
	var errs []error
	for _, o := range m.Files {
		if o.Absent {
			if err := os.Remove(o.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove what was not there: %w", err))
			}
			continue
		}
		text, err := Read(filepath.Join(dir, o.Copy))
		if err == nil && Digest(text) != o.Before {
			err = fmt.Errorf("the copy %s is not what was backed up", filepath.Join(dir, o.Copy))
		}
		if err == nil {
			err = Replace(o.Path, text, o.Mode, o.UID, o.GID)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("restore %s: %w", o.Path, err))
		}
	}
	return errors.Join(errs...)
}

// last finds the newest backup of an instance that was not undone.
func last(root, configDir string, names []string) (dir string, m Manifest, err error) {
	real, err := Trusted(root)
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(real)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", m, fmt.Errorf("look for backups: %w", err)
	}
	for _, entry := range slices.Backward(entries) { // by name, so by time
		dir = filepath.Join(real, entry.Name())
		m, err := readManifest(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", m, fmt.Errorf("read backup %s: %w", dir, err)
		case m.ConfigDir != configDir || m.Undone:
			continue
		}
		if err := m.checkPaths(configDir, names); err != nil {
			return "", m, fmt.Errorf("read backup %s: %w", dir, err)
		}
		return dir, m, nil
	}
	return "", m, fmt.Errorf("look for backups of %s in %s: %w", configDir, root, ErrNone)
}

func readManifest(dir string) (m Manifest, err error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return m, err
	}
	if !info.IsDir() {
		return m, fs.ErrNotExist
	}
	if err := ours(dir, info, false); err != nil {
		return m, err
	}
	text, err := Read(filepath.Join(dir, ManifestName))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	return m, err
}

// ErrNone says that there is nothing to undo.
var ErrNone = errors.New("no backup that is not undone already")

// ErrChangedSince says that somebody else changed the files after Apply.
var ErrChangedSince = errors.New("changed since by somebody else")

// ReadIfThere returns nil for a file that is not there.
func ReadIfThere(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && text == nil {
		text = []byte{}
	}
	return text, err
}

// Digest of a file's text; of one that is not there it is "absent".
func Digest(text []byte) string {
	if text == nil {
		return "absent"
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Rewrite is Replace with the owner and mode that the file has.
func Rewrite(path string, text []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	uid, gid := -1, -1
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		uid, gid = int(sys.Uid), int(sys.Gid)
	}
	return Replace(path, text, info.Mode().Perm(), uid, gid)
}

// Replace writes a file beside the old one and renames it into place, so
// that readers see the old or the new, also after a power cut.
func Replace(path string, text []byte, mode fs.FileMode, uid, gid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".relayguard-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && uid >= 0 {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
