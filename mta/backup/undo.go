package backup

import (
	"fmt"
	"strings"
	"time"
)

// Undone is what Undo did.
type Undone struct {
	Backup   string   // directory
	Restored []string // files
	Earlier  bool     // a backup before that one is not undone yet
}

// Undo puts an instance's files back as they were before the last change that is
// not undone, byte for byte. It refuses with ErrChangedSince when one was changed by
// somebody else, unless forced: those changes would be lost. Names are those of the
// files that may be among them. same, if there is one, tells of a file that is
// another now whether it says what the change made it say.
func Undo(root, configDir string, names []string, force bool, same func(dir, path string) (bool, error)) (Undone, error) {
	dir, m, err := last(root, configDir, names)
	if err != nil {
		return Undone{}, err
	}
	out := Undone{Backup: dir}
	changed, err := m.changedSince(dir, same)
	if err != nil {
		return Undone{}, fmt.Errorf("compare settings with %s: %w", dir, err)
	}
	if len(changed) > 0 && !force {
		return out, fmt.Errorf("restore the settings of %s: %s: %w; compare with the copies there, then undo with force or by hand", m.Time.Format(time.RFC3339), strings.Join(changed, ", "), ErrChangedSince)
	}
	if err := m.Restore(dir); err != nil {
		return out, err
	}
	for _, o := range m.Files {
		out.Restored = append(out.Restored, o.Path)
	}
	m.Undone = true
	if err := m.Save(dir); err != nil {
		return out, err
	}
	_, _, err = last(root, configDir, names)
	out.Earlier = err == nil
	return out, nil
}
