package resolve

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"relayguard/rbl"
)

// A machine's configuration is read within bounds: such files have a few hundred
// lines, and block lists that are included in one have millions.
const (
	mostFile  = 1 << 20 // octets of one file
	mostFiles = 200     // of one program, with all that is included
	mostDepth = 8       // of files that include files, and of braces
)

// tree is a file system with a machine's configuration in it.
type tree struct {
	root  string // "" is the machine's own
	files int    // read so far
}

func (t *tree) path(name string) string {
	if t.root == "" {
		return name
	}
	return filepath.Join(t.root, filepath.Clean("/"+name)) // never above it
}

// read is the text of a file, all of it or an error.
func (t *tree) read(name string) (string, error) {
	if t.files++; t.files > mostFiles {
		return "", fmt.Errorf("read %s: more than %d files are included", name, mostFiles)
	}
	text, err := rbl.ReadFile(t.path(name), mostFile)
	return string(text), err
}

// readIfThere is read, with nothing for a file that is not there.
func (t *tree) readIfThere(name string) (string, error) {
	text, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return text, err
}

// glob lists the files of a pattern, by their names in the tree. A name relative
// to nothing lies in dir.
func (t *tree) glob(dir, pattern string) []string {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(dir, pattern)
	}
	found, err := filepath.Glob(t.path(pattern))
	if err != nil {
		return nil // no program takes such a pattern either
	}
	names := make([]string, 0, len(found))
	for _, path := range found {
		if t.root != "" {
			path = "/" + mustRel(t.root, path)
		}
		names = append(names, path)
	}
	return names
}

// mustRel is the path below root, where it surely is.
func mustRel(root, path string) string {
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return path
	}
	return rel
}

// has reports whether one of the files is there.
func (t *tree) has(names ...string) bool {
	for _, name := range names {
		if _, err := os.Stat(t.path(name)); err == nil {
			return true
		}
	}
	return false
}
