package grace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"relayguard/mta"

	"golang.org/x/sys/unix"
)

// Return is the folder while mail is put back from it, of many messages some at a
// time: nobody else puts, sweeps or takes meanwhile. Not for concurrent use. Close it.
//
// Each message goes through Begin, then either Undo, or Note, the putting back
// itself, and Done. A kill -9 anywhere in between leaves a copy of which Begin tells
// how far it got. What Done leaves is a note of the new id, so that nobody puts a
// message back twice whose id was not heard of; Forget ends that.
//
// Who puts back sees to it that of what was noted one can tell whether it is back,
// even of what has left the queue since: a Note comes before that, and Sync between
// them for the case of a power cut.
type Return struct {
	root *os.Root
	dir  *os.File // locked
}

// Copy is a message that is being put back.
type Copy struct {
	Kept
	// Again says that an earlier return was broken off. Its NewID is what was noted
	// then; without one nobody knows how far it got, unless nothing is ever begun
	// before Note.
	Again bool
	Gone  bool // the copy: it is back as NewID, which somebody noted

	plain string // where it was before
}

func (c *Copy) back() string { return c.Name + backSuffix }
func (c *Copy) note() string { return c.Name + noteSuffix }

// Return waits until nobody else has the folder. mta.ErrGone: there is none.
func (f *Folder) Return(ctx context.Context) (*Return, error) {
	root, err := f.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("put back deleted mail: there is no folder %s: %w", f.Dir, mta.ErrGone)
	}
	if err != nil {
		return nil, err
	}
	dir, err := lockDir(ctx, root)
	if err != nil {
		root.Close()
		return nil, fmt.Errorf("put back deleted mail: %w", err)
	}
	return &Return{root, dir}, nil
}

// Close lets others have the folder.
func (r *Return) Close() {
	r.dir.Close()
	r.root.Close()
}

// Begin marks a message as being put back. mta.ErrGone: there is none of that name.
func (r *Return) Begin(name string) (*Copy, error) {
	k, ok := parseName(name)
	if !ok {
		return nil, fmt.Errorf("put back deleted mail: got name %.100q, want one that is in the grace folder", name)
	}
	c, err := r.begin(k)
	if errors.Is(err, fs.ErrNotExist) {
		err = mta.ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("put back %s: %w", name, err)
	}
	return c, nil
}

func (r *Return) begin(k Kept) (*Copy, error) {
	c := &Copy{Kept: k, plain: k.Name}
	if k.Deleted.IsZero() { // flat: it gets the place of the others
		info, err := r.root.Lstat(k.Name)
		if err != nil {
			return nil, err
		}
		c.Deleted = info.ModTime().UTC()
		day, base := nameOf(mta.QueueFile{ID: k.ID, Arrival: k.Arrival}, c.Deleted)
		if err := r.root.Mkdir(day, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		c.Name = path.Join(day, base)
	}
	if to, err := r.root.Readlink(c.note()); err == nil {
		c.NewID = to
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if _, err := r.root.Lstat(c.back()); err == nil {
		c.Again = true
		return c, nil
	}
	if c.NewID != "" {
		c.Again, c.Gone = true, true
		return c, nil
	}
	err := fs.ErrNotExist
	for _, at := range []string{c.plain, c.Name + openSuffix} {
		if err = r.root.Rename(at, c.back()); err == nil {
			return c, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, err
}

// Files opens a message's files for reading, by the names of their parts. They are
// the caller's to close.
func (r *Return) Files(c *Copy) (map[string]*os.File, error) {
	parts, err := openParts(r.root, c.back())
	if err != nil {
		for _, p := range parts {
			p.Close()
		}
		return nil, fmt.Errorf("put back %s: %w", c.Name, err)
	}
	return parts, nil
}

// Note keeps the id under which a message is put back next.
func (r *Return) Note(c *Copy, newID string) error {
	if err := r.root.Symlink(newID, c.note()); err != nil {
		return fmt.Errorf("put back %s: %w", c.Name, err)
	}
	c.NewID = newID
	return nil
}

// Unnote takes a note back: the message is surely not in the queue.
func (r *Return) Unnote(c *Copy) error {
	if err := r.root.Remove(c.note()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put back %s: %w", c.Name, err)
	}
	c.NewID = ""
	return nil
}

// Undo lets a message lie that was not put back, nor begun to be.
func (r *Return) Undo(c *Copy) error {
	if c.Again {
		return nil
	}
	if err := r.root.Rename(c.back(), c.plain); err != nil {
		return fmt.Errorf("put back %s: %w", c.Name, err)
	}
	return nil
}

// Done removes the copy of a message that is back, and leaves the note; or one whose
// message never left the queue, of which there is none.
func (r *Return) Done(c *Copy) error { return remove(r.root, c.back()) }

// Sync makes marks and notes survive a power cut, in one step for all.
func (r *Return) Sync() error {
	if err := unix.Syncfs(int(r.dir.Fd())); err != nil {
		return fmt.Errorf("put back deleted mail: %w", err)
	}
	return nil
}

// Forget removes the notes of messages that are back, once their new ids are kept
// elsewhere. What has none is passed over.
func (f *Folder) Forget(ctx context.Context, names []string) error {
	r, err := f.Return(ctx)
	if errors.Is(err, mta.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	for _, name := range names {
		k, ok := parseName(name)
		if !ok {
			return fmt.Errorf("forget deleted mail: got name %.100q, want one that was in the grace folder", name)
		}
		c := &Copy{Kept: k}
		if _, there := r.root.Lstat(c.back()); k.Deleted.IsZero() || there == nil {
			continue
		}
		if err := r.Unnote(c); err != nil {
			return err
		}
		day := path.Dir(k.Name)
		r.root.Remove(day) // if it is empty now
	}
	return nil
}

func openParts(root *os.Root, at string) (map[string]*os.File, error) {
	parts := map[string]*os.File{}
	info, err := root.Lstat(at)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		f, err := root.Open(at)
		if err == nil {
			parts[partNames[0]] = f
		}
		return parts, err
	}
	for _, part := range partNames {
		f, err := root.Open(path.Join(at, part))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return parts, err
		}
		parts[part] = f
	}
	if len(parts) == 0 {
		return parts, fs.ErrNotExist
	}
	return parts, nil
}
