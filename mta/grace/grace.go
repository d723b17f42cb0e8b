// Package grace keeps deleted mail for a while, as the queue files that it was, in
// a folder of root's alone with a directory for each day. It knows no mail server:
// mta/postfix and mta/sendmail put their files in and take them out.
//
// What is younger than Age never leaves to make room for more: a full folder
// refuses (ErrFull), and then nothing is deleted.
//
// Trap: a copy is made before the message is deleted. After a kill -9 in between
// there are both; see Box.Unfinished.
package grace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"relayguard/mta/backup"

	"golang.org/x/sys/unix"
)

// Folder is where deleted mail stays. The zero value but for Dir has the defaults.
// It needs root; several programs may use one folder.
type Folder struct {
	Dir   string        // made 0700 if it is not there; below directories that only root may change
	Count int           // messages at most; 0: 20,000
	Bytes int64         // octets at most; 0: 1 GiB
	Age   time.Duration // how long they stay; 0: 7 days
}

const (
	defaultCount = 20_000
	defaultBytes = 1 << 30
	defaultAge   = 7 * 24 * time.Hour
)

// Kept is one deleted message.
type Kept struct {
	Name     string // what Take wants
	Instance string `json:",omitempty"` // mta.QueueFile.Instance
	ID       string // that it had in the queue
	Arrival  time.Time
	Deleted  time.Time
	Size     int64  // of its files, octets
	NewID    string `json:",omitempty"` // it is back in the queue, of late: this is only the note of it
}

// ErrFull says that no room is left under the caps.
var ErrFull = errors.New("no room to keep what is deleted (hold.grace_bytes, hold.server_messages): raise them, or delete with --no-copy")

// Each calls fn with what is in the folder, the longest deleted first, and with
// notes of what is back, which have a NewID. It keeps the names of one day, and waits
// for nobody. A folder that is not there is empty. fn's error ends it.
func (f *Folder) Each(fn func(Kept) error) error {
	root, err := f.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return walk(root, func(e entry) error { return fn(e.Kept) })
}

// List is Each without the notes.
func (f *Folder) List() ([]Kept, error) {
	var all []Kept
	err := f.Each(func(k Kept) error {
		if k.NewID == "" {
			all = append(all, k)
		}
		return nil
	})
	return all, err
}

// Sweep removes what was deleted longer than Age before now, and what a program
// that died left half made, and tells how many messages. It waits for a delete
// that is under way.
func (f *Folder) Sweep(ctx context.Context, now time.Time) (removed int, err error) {
	if _, err := os.Lstat(f.Dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	b, err := f.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer b.release()
	removed, _, err = f.sweep(ctx, b.root, now)
	return removed, err
}

// sweep is Sweep by who has the lock.
func (f *Folder) sweep(ctx context.Context, root *os.Root, now time.Time) (removed int, bytes int64, err error) {
	oldest := now.Add(-cmp.Or(f.Age, defaultAge))
	err = walk(root, func(e entry) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !e.Deleted.Before(oldest) {
			return nil
		}
		if err := remove(root, e.path); err != nil {
			return err
		}
		if e.NewID == "" {
			removed++
			bytes += e.Size
		}
		return nil
	})
	return removed, bytes, errors.Join(err, tidy(root))
}

// tidy removes halves and empty days.
func tidy(root *os.Root) error {
	halves, err := fs.Glob(root.FS(), "*/*"+halfSuffix)
	if err != nil {
		return fmt.Errorf("empty the grace folder: %w", err)
	}
	flat, err := fs.Glob(root.FS(), "*.part") // as older versions named theirs
	for _, path := range append(halves, flat...) {
		err = errors.Join(err, root.RemoveAll(path))
	}
	entries, readErr := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if e.IsDir() && isDay(e.Name()) {
			if bad := root.Remove(e.Name()); bad != nil && !errors.Is(bad, unix.ENOTEMPTY) && !errors.Is(bad, unix.EEXIST) {
				err = errors.Join(err, bad)
			}
		}
	}
	if err = errors.Join(err, readErr); err != nil {
		return fmt.Errorf("empty the grace folder: %w", err)
	}
	return nil
}

func (f *Folder) open(create bool) (*os.Root, error) {
	resolve := backup.Trusted
	if create {
		resolve = backup.MakeTrusted
	}
	dir, err := resolve(f.Dir)
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(dir)
	}
	if err == nil && create {
		if err = root.Chmod(".", 0o700); err != nil {
			root.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the grace folder: %w", err)
	}
	return root, nil
}
