package grace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// Part is one file of a message: "queue" of Postfix's, "qf" and "df" of
// Sendmail's. The file is the caller's to close.
type Part struct {
	Name string
	File *os.File
}

// partNames are all that there may be.
var partNames = []string{"queue", "qf", "df"}

// Box is the folder during one delete: nobody else puts, sweeps or takes
// meanwhile, for of two that delete the same message the second would else remove
// the first one's copy. Not for concurrent use. Close it.
type Box struct {
	folder     *Folder
	root       *os.Root
	dir        *os.File // locked
	count      int
	bytes      int64
	swept      bool
	put        map[message]stored
	unfinished []entry
	returning  []Kept
}

// message is what names a message while it is in the queue.
type message struct {
	instance, id string
	arrival      int64
}

func messageOf(q mta.QueueFile) message { return message{q.Instance, q.ID, q.Arrival.Unix()} }

// stored is a copy made by this box; path without openSuffix.
type stored struct {
	path string
	size int64
}

// Open makes the folder if need be, waits until nobody else has it, and counts
// what is there.
func (f *Folder) Open(ctx context.Context) (*Box, error) {
	b, err := f.lock(ctx)
	if err != nil {
		return nil, err
	}
	b.put = map[message]stored{}
	err = walk(b.root, func(e entry) error {
		switch {
		case e.NewID != "": // a note takes no room
			return ctx.Err()
		case e.open:
			b.unfinished = append(b.unfinished, e)
		case e.back:
			b.returning = append(b.returning, e.Kept)
		}
		b.count++
		b.bytes += e.Size
		return ctx.Err()
	})
	if err != nil {
		b.release()
		return nil, err
	}
	return b, nil
}

func (f *Folder) lock(ctx context.Context) (*Box, error) {
	root, err := f.open(true)
	if err != nil {
		return nil, err
	}
	b := &Box{folder: f, root: root}
	if b.dir, err = lockDir(ctx, root); err != nil {
		b.release()
		return nil, fmt.Errorf("open the grace folder: %w", err)
	}
	return b, nil
}

// lockDir waits for the folder to be nobody else's; closing it lets it go.
func lockDir(ctx context.Context, root *os.Root) (*os.File, error) {
	const pause = 50 * time.Millisecond
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return dir, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(pause):
				continue
			}
		}
		dir.Close()
		return nil, err
	}
}

func (b *Box) release() {
	if b.dir != nil {
		b.dir.Close()
	}
	b.root.Close()
}

// Unfinished are copies whose delete was broken off: the message may still be in
// the queue. Whoever knows that tells Finish. Left alone they count as deleted.
func (b *Box) Unfinished() []Kept {
	var all []Kept
	for _, e := range b.unfinished {
		all = append(all, e.Kept)
	}
	return all
}

// Returning are copies whose return was broken off: who undeletes them again needs
// what was begun.
func (b *Box) Returning() []Kept { return b.returning }

// Finish settles one of Unfinished: its copy goes if the message is still in the
// queue, else it stays.
func (b *Box) Finish(k Kept, queued bool) error {
	for n, e := range b.unfinished {
		if e.Name != k.Name {
			continue
		}
		b.unfinished = append(b.unfinished[:n:n], b.unfinished[n+1:]...)
		if !queued {
			return b.commit(k.Name)
		}
		b.count--
		b.bytes -= e.Size
		return remove(b.root, e.path)
	}
	return nil
}

// Put keeps a message that is deleted next: q's instance, id and arrival name it.
// Its files are linked where the file system allows that, else copied. A kept
// message is there as a whole or not at all. A second Put of it does nothing.
// ErrFull: the caps leave no room for it.
func (b *Box) Put(now time.Time, q mta.QueueFile, parts ...Part) error {
	if _, there := b.put[messageOf(q)]; there {
		return nil
	}
	day, base := nameOf(q, now)
	name := path.Join(day, base)
	size, err := sizeOf(parts)
	switch {
	case err != nil:
	case !ValidName(name):
		err = errors.New("got a queue id or an instance that no file can be named by")
	default:
		err = b.room(now, size)
	}
	if err == nil {
		err = b.make(day, name, parts)
	}
	if err != nil {
		return fmt.Errorf("keep %s for the grace time: %w", cut(q.ID), err)
	}
	b.put[messageOf(q)] = stored{name, size}
	b.count++
	b.bytes += size
	return nil
}

// cut shortens what goes into an error.
func cut(id string) string { return fmt.Sprintf("%.100q", id) }

func sizeOf(parts []Part) (size int64, err error) {
	for _, p := range parts {
		info, err := p.File.Stat()
		if err != nil {
			return 0, err
		}
		if !info.Mode().IsRegular() {
			return 0, fmt.Errorf("%s is not a file", p.File.Name())
		}
		size += info.Size()
	}
	return size, nil
}

// room tells whether that many octets more fit, after what is past its time has
// left, if need be.
func (b *Box) room(now time.Time, size int64) error {
	for {
		if b.count < cmp.Or(b.folder.Count, defaultCount) && size <= cmp.Or(b.folder.Bytes, defaultBytes)-b.bytes {
			return nil
		}
		if b.swept {
			return ErrFull
		}
		b.swept = true
		removed, bytes, err := b.folder.sweep(context.Background(), b.root, now)
		b.count -= removed
		b.bytes -= bytes
		if err != nil {
			return err
		}
	}
}

func (b *Box) make(day, name string, parts []Part) (err error) {
	if err := b.root.Mkdir(day, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	half := name + halfSuffix
	if err := b.root.Mkdir(half, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.root.RemoveAll(half))
		}
	}()
	dir, err := b.root.Open(half)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, p := range parts {
		if err := keep(dir, p); err != nil {
			return err
		}
	}
	return b.root.Rename(half, name+openSuffix)
}

// Drop removes the copy that this box made of a message, which was not deleted
// after all.
func (b *Box) Drop(q mta.QueueFile) error {
	s, there := b.put[messageOf(q)]
	if !there {
		return nil
	}
	delete(b.put, messageOf(q))
	b.count--
	b.bytes -= s.size
	return remove(b.root, s.path+openSuffix)
}

// Sync makes all copies survive a power cut, in one step for all.
func (b *Box) Sync() error {
	if err := unix.Syncfs(int(b.dir.Fd())); err != nil {
		return fmt.Errorf("keep for the grace time: %w", err)
	}
	return nil
}

// Close ends the delete: what was put and not dropped counts as deleted. Of what
// it cannot mark so, only Unfinished is told the next time.
func (b *Box) Close() {
	for _, s := range b.put {
		b.commit(s.path)
	}
	b.release()
}

// commit marks a copy as that of a deleted message, and makes its files root's
// alone; of those that still have another name, the queue's, nothing is changed.
func (b *Box) commit(name string) error {
	for _, part := range partNames {
		at := path.Join(name+openSuffix, part)
		var st unix.Stat_t
		if unix.Fstatat(int(b.dir.Fd()), at, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Nlink != 1 {
			continue
		}
		if err := errors.Join(b.root.Chmod(at, 0o600), b.root.Lchown(at, os.Geteuid(), os.Getegid())); err != nil {
			return fmt.Errorf("keep %s for the grace time: %w", name, err)
		}
	}
	if err := b.root.Rename(name+openSuffix, name); err != nil {
		return fmt.Errorf("keep %s for the grace time: %w", name, err)
	}
	return nil
}

// remove takes a message out of the folder: whole or not at all, and not an error
// if it is not there.
func remove(root *os.Root, at string) error {
	err := root.Remove(at) // a flat one
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		half, _, _ := strings.Cut(at, "~")
		half += halfSuffix
		if err = root.Rename(at, half); err == nil {
			err = root.RemoveAll(half)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("empty the grace folder: %w", err)
	}
	return nil
}

// Lock is the folder's lock, for a child process that deletes (exec.Cmd.ExtraFiles):
// whoever inherits it keeps the folder locked to its own end, also after a kill -9
// of ours. Close closes it.
func (b *Box) Lock() *os.File { return b.dir }
