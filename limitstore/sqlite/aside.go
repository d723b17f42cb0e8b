package sqlite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	brokenMark = ".broken-"
	brokenKept = 2                   // files put aside
	brokenTime = 30 * 24 * time.Hour // then they go: their keys are addresses
)

// putAside renames a broken file and keeps the newest few of those.
func putAside(path string, now time.Time) (string, error) {
	old := brokenOnes(path)
	at := now.Unix()
	if len(old) > 0 {
		at = max(at, old[len(old)-1]+1)
	}
	aside := asideName(path, at)
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("put broken file aside: %w", err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("put broken file aside: %w", err)
		}
	}
	for _, n := range old[:max(0, len(old)+1-brokenKept)] {
		_ = removeBroken(path, n) // tidy tries again
	}
	return aside, nil
}

// lengthen makes a file that was cut short as long as it says it is: SQLite
// reads nothing of it else. What is missing takes no room, and reads as broken.
func lengthen(path string) {
	const pageSize, pages, most = 16, 28, 1 << 40 // where they are, and what no file of ours is
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return // then it is not read
	}
	defer f.Close()
	var head [32]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return
	}
	size := int64(binary.BigEndian.Uint16(head[pageSize:]))
	if size == 1 {
		size = 1 << 16
	}
	size *= int64(binary.BigEndian.Uint32(head[pages:]))
	if info, err := f.Stat(); err == nil && info.Size() < size && size <= most {
		_ = f.Truncate(size)
	}
}

func asideName(path string, at int64) string { return path + brokenMark + strconv.FormatInt(at, 10) }

// newestAside is the file that was put aside last, or nothing's name.
func newestAside(path string) string {
	old := brokenOnes(path)
	if len(old) == 0 {
		return ""
	}
	return asideName(path, old[len(old)-1])
}

// removeBroken deletes the file that was put aside at n.
func removeBroken(path string, n int64) error {
	var errs []error
	for _, suffix := range []string{"-wal", "-shm", ""} { // the name that is looked for last
		if err := os.Remove(asideName(path, n) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeBrokenBefore deletes those that were put aside before oldest.
func removeBrokenBefore(path string, oldest time.Time) error {
	var errs []error
	for _, n := range brokenOnes(path) {
		if n < oldest.Unix() {
			errs = append(errs, removeBroken(path, n))
		}
	}
	return errors.Join(errs...)
}

// brokenOnes are the times of the files put aside, oldest first.
func brokenOnes(path string) []int64 {
	var times []int64
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		if digits, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+brokenMark); ok {
			if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
				times = append(times, n)
			}
		}
	}
	slices.Sort(times)
	return times
}
