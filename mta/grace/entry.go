package grace

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// entry is a message as it lies in the folder, or the note of one that is back.
type entry struct {
	Kept
	path string // Name, with openSuffix if open, backSuffix if back, or noteSuffix
	open bool
	back bool
}

// walk calls fn with every message, the longest deleted first, a day after the other
// and holding one day's names. What has another name is none of ours; what leaves
// meanwhile is passed over.
func walk(root *os.Root, fn func(entry) error) error {
	days, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("read the grace folder: %w", err)
	}
	for _, d := range days { // of older versions, which have none
		if k, ok := parseName(d.Name()); ok && d.Type().IsRegular() {
			if err := walkFlat(d, k, fn); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("read the grace folder: %w", err)
			}
		}
	}
	for _, d := range days {
		if d.IsDir() && isDay(d.Name()) {
			if err := walkDay(root, d.Name(), fn); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("read the grace folder: %w", err)
			}
		}
	}
	return nil
}

func walkFlat(d fs.DirEntry, k Kept, fn func(entry) error) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	k.Deleted, k.Size = info.ModTime().UTC(), info.Size()
	return fn(entry{Kept: k, path: k.Name})
}

// inDay is a name in a day's directory.
type inDay struct {
	at      string
	deleted int64 // Unix microseconds
}

func walkDay(root *os.Root, day string, fn func(entry) error) error {
	dir, err := root.Open(day)
	if err != nil {
		return err
	}
	defer dir.Close()
	all, err := namesOf(dir, day)
	if err != nil {
		return err
	}
	for _, n := range all {
		base, suffix, _ := strings.Cut(n.at, "~")
		k, _ := parseName(path.Join(day, base))
		e := entry{Kept: k, path: path.Join(day, n.at), open: "~"+suffix == openSuffix, back: "~"+suffix == backSuffix}
		there := false
		if "~"+suffix == noteSuffix {
			e.NewID, there = noted(dir, base)
		} else {
			e.Size, there = sizeAt(dir, n.at)
		}
		if !there {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// namesOf are the names of a day's messages and notes, the longest deleted first.
func namesOf(dir *os.File, day string) (all []inDay, err error) {
	const some = 1000
	for {
		names, err := dir.Readdirnames(some)
		for _, at := range names {
			base, suffix, cut := strings.Cut(at, "~")
			if cut && "~"+suffix != openSuffix && "~"+suffix != backSuffix && "~"+suffix != noteSuffix {
				continue
			}
			if k, ok := parseName(path.Join(day, base)); ok {
				all = append(all, inDay{at, k.Deleted.UnixMicro()})
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b inDay) int { return cmp.Or(cmp.Compare(a.deleted, b.deleted), cmp.Compare(a.at, b.at)) })
	return all, nil
}

// noted reads the note of a message whose copy is gone.
func noted(dir *os.File, base string) (newID string, is bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base+backSuffix, &st, unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		return "", false
	}
	buf := make([]byte, maxName)
	n, err := unix.Readlinkat(int(dir.Fd()), base+noteSuffix, buf)
	if err != nil || n <= 0 {
		return "", false
	}
	return string(buf[:n]), mta.ValidQueueID(string(buf[:n]))
}

// sizeAt adds up a message's files; false if there is none.
func sizeAt(dir *os.File, at string) (size int64, there bool) {
	var st unix.Stat_t
	for _, part := range partNames {
		if unix.Fstatat(int(dir.Fd()), at+"/"+part, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			size, there = size+st.Size, true
		}
		if there && part == partNames[0] {
			break // Postfix's is alone
		}
	}
	if !there && unix.Fstatat(int(dir.Fd()), at, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		return st.Size, true // was a flat one
	}
	return size, there
}

// keep links or copies a file into a message's directory. A link is not to be had
// across file systems and mounts, nor without CAP_FOWNER.
func keep(dir *os.File, p Part) error {
	if !slices.Contains(partNames, p.Name) {
		return fmt.Errorf("got part %q, want one of %v", p.Name, partNames)
	}
	from := "/proc/self/fd/" + strconv.Itoa(int(p.File.Fd()))
	if unix.Linkat(unix.AT_FDCWD, from, int(dir.Fd()), p.Name, unix.AT_SYMLINK_FOLLOW) == nil {
		return nil
	}
	info, err := p.File.Stat()
	if err != nil {
		return err
	}
	fd, err := unix.Openat(int(dir.Fd()), p.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), p.Name)
	n, err := io.Copy(to, io.NewSectionReader(p.File, 0, info.Size()))
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	if err == nil && n != info.Size() {
		err = fmt.Errorf("copied %d octets of %d", n, info.Size())
	}
	return err
}
