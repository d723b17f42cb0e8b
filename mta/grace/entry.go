package grace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is a message as it lies in the folder.
type entry struct {
	Kept
	path string // Name, with openSuffix if open, or backSuffix
	open bool
}

// walk calls fn with every message, a day after the other and holding one day's
// names. What has another name is none of ours; what leaves meanwhile is passed
// over.
func walk(root *os.Root, fn func(entry) error) error {
	days, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("read the grace folder: %w", err)
	}
	for _, d := range days {
		if d.IsDir() && isDay(d.Name()) {
			err = walkDay(root, d.Name(), fn)
		} else if k, ok := parseName(d.Name()); ok && d.Type().IsRegular() {
			err = walkFlat(d, k, fn)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the grace folder: %w", err)
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

func walkDay(root *os.Root, day string, fn func(entry) error) error {
	dir, err := root.Open(day)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, at := range names {
		base, open := strings.CutSuffix(at, openSuffix)
		base = strings.TrimSuffix(base, backSuffix)
		k, ok := parseName(path.Join(day, base))
		if !ok {
			continue
		}
		if k.Size, ok = sizeAt(dir, at); !ok {
			continue
		}
		if err := fn(entry{Kept: k, path: path.Join(day, at), open: open}); err != nil {
			return err
		}
	}
	return nil
}

// sizeAt adds up a message's files; false if there is none.
func sizeAt(dir *os.File, at string) (size int64, there bool) {
	for _, part := range partNames {
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), at+"/"+part, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			size, there = size+st.Size, true
		}
		if there && part == partNames[0] {
			break // Postfix's is alone
		}
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
