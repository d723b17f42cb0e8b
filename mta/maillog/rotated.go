package maillog

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rotatedFile is a file that belongs to the log, by its name.
type rotatedFile struct {
	path     string
	number   int    // PATH.1; 0: the log itself
	date     string // PATH-20261122
	gz       bool
	modified time.Time
}

// maxRotated bounds how many files of a log are looked at.
const maxRotated = 1000

// rotated lists the files of a log, the newest first: the log itself, then by
// number or date. Where a file is there plain and compressed (just being
// made), the plain one comes first.
func rotated(path string) ([]rotatedFile, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list the files of mail log %s: %w", path, err)
	}
	var files []rotatedFile
	for _, entry := range entries {
		suffix, ok := strings.CutPrefix(entry.Name(), filepath.Base(path))
		if !ok || len(files) >= maxRotated {
			continue
		}
		file := rotatedFile{path: filepath.Join(filepath.Dir(path), entry.Name())}
		if suffix != "" && !file.parse(suffix) {
			continue
		}
		info, err := os.Stat(file.path)
		if err != nil || !info.Mode().IsRegular() {
			continue // gone meanwhile, or nothing of ours
		}
		file.modified = info.ModTime()
		files = append(files, file)
	}
	slices.SortStableFunc(files, func(a, b rotatedFile) int {
		isLog := func(f rotatedFile) int {
			if f.number == 0 && f.date == "" {
				return 0
			}
			return 1
		}
		byAge := cmp.Compare(a.number, b.number)
		switch {
		case a.date != "" && b.date != "":
			byAge = cmp.Compare(b.date, a.date)
		case a.date != "" || b.date != "":
			byAge = b.modified.Compare(a.modified)
		}
		return cmp.Or(cmp.Compare(isLog(a), isLog(b)), byAge, compareBool(a.gz, b.gz))
	})
	return files, nil
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// parse reads what follows the log's name: ".1", "-20261122",
// ".20261122-083836", each also with ".gz".
func (r *rotatedFile) parse(suffix string) bool {
	suffix, r.gz = strings.CutSuffix(suffix, ".gz")
	if len(suffix) < 2 || suffix[0] != '.' && suffix[0] != '-' || strings.Trim(suffix[1:], "0123456789-_T") != "" {
		return false
	}
	if n, err := strconv.Atoi(suffix[1:]); err == nil && suffix[0] == '.' && n > 0 && n < 100_000 {
		r.number = n
		return true
	}
	r.date = suffix[1:]
	return true
}
