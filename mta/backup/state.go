package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ReadState reads what WriteState wrote under a name into a directory, at most so
// many octets: it becomes a mail server's configuration, so others than root must
// not have been able to write it. fs.ErrNotExist: nothing was written.
func ReadState(dir, name string, most int64, into any) error {
	path := filepath.Join(dir, name)
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	if _, err := Trusted(dir); err != nil {
		return err
	}
	text, err := ReadUpTo(path, most)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// WriteState writes it, so that it survives a power cut. The directory is made if it
// is not there.
func WriteState(dir, name string, state any) error {
	dir, err := MakeTrusted(dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := Replace(filepath.Join(dir, name), append(text, '\n'), 0o600, -1, -1); err != nil {
		return err
	}
	return SyncDir(dir)
}

// RemoveState removes it; what is not there is removed already.
func RemoveState(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return SyncDir(dir)
}
