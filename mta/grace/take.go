package grace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"relayguard/mta"
)

// Take hands a message's files, open for reading and by the names of their parts,
// to put, and takes the message out of the folder if put has no error. The files
// are closed then. Nobody else has the folder meanwhile. mta.ErrGone: there is no
// message of that name; put may say so, too, of one that is still in the queue:
// then its copy goes.
func (f *Folder) Take(ctx context.Context, name string, put func(parts map[string]*os.File) error) error {
	return f.TakeBack(ctx, name, func(_ Kept, parts map[string]*os.File, _ bool) error { return put(parts) })
}

// TakeBack is Take for who must not put a message back twice: again says that an
// earlier Take of it was broken off in the middle of put, by a crash or a kill -9,
// and nobody knows how far it got.
func (f *Folder) TakeBack(ctx context.Context, name string, put func(k Kept, parts map[string]*os.File, again bool) error) error {
	k, ok := parseName(name)
	if !ok {
		return fmt.Errorf("take from the grace folder: got name %.100q, want one that is in it", name)
	}
	err := f.take(ctx, k, put)
	if errors.Is(err, fs.ErrNotExist) {
		err = mta.ErrGone
	}
	if err != nil {
		return fmt.Errorf("take %s from the grace folder: %w", name, err)
	}
	return nil
}

func (f *Folder) take(ctx context.Context, k Kept, put func(Kept, map[string]*os.File, bool) error) error {
	root, err := f.open(false)
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := lockDir(ctx, root)
	if err != nil {
		return err
	}
	defer dir.Close()
	at, again, err := begin(root, k)
	if err != nil {
		return err
	}
	parts, err := openParts(root, at)
	defer func() {
		for _, p := range parts {
			p.Close()
		}
	}()
	if err != nil {
		return err
	}
	for _, p := range parts {
		info, err := p.Stat()
		if err != nil {
			return err
		}
		k.Size += info.Size()
	}
	switch err := put(k, parts, again); {
	case err == nil:
		return remove(root, at)
	case errors.Is(err, mta.ErrGone):
		return errors.Join(err, remove(root, at))
	case again || at == k.Name:
		return err
	default:
		return errors.Join(err, root.Rename(at, k.Name))
	}
}

// begin finds a message and marks it as being put back; again if it is already. A
// flat one is not marked.
func begin(root *os.Root, k Kept) (at string, again bool, err error) {
	back := k.Name + backSuffix
	if _, err := root.Lstat(back); err == nil {
		return back, true, nil
	}
	if k.Deleted.IsZero() {
		_, err := root.Lstat(k.Name)
		return k.Name, false, err
	}
	for _, at := range []string{k.Name, k.Name + openSuffix} {
		if err = root.Rename(at, back); !errors.Is(err, fs.ErrNotExist) {
			return back, false, err
		}
	}
	return "", false, err
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
