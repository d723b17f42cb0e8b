package sendmail

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"relayguard/mta/backup"
)

// madeCopy is where a backup keeps what Apply made of a cf file: m4 writes the time
// and the machine into comments, so any make in the directory gives another file that
// says the same.
func madeCopy(dir, path string) string { return filepath.Join(dir, "made-"+filepath.Base(path)) }

func keepMade(dir string, files []file) error {
	for _, f := range files {
		if filepath.Ext(f.path) != ".cf" {
			continue
		}
		if err := backup.Replace(madeCopy(dir, f.path), []byte(f.text), 0o600, -1, -1); err != nil {
			return fmt.Errorf("keep what was made of %s: %w", f.path, err)
		}
	}
	return nil
}

// madeAnew reports whether a cf file that is another than Apply left says what Apply
// made it say.
func madeAnew(dir, path string) (bool, error) {
	made, err := backup.Read(madeCopy(dir, path))
	if errors.Is(err, fs.ErrNotExist) { // of a source, or Apply did not come so far
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now, err := backup.ReadIfThere(path)
	if err != nil || now == nil {
		return false, err
	}
	return difference(cfLines(string(made)), cfLines(string(now))) == nil, nil
}
