package postfix

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"relayguard/mta"
	"relayguard/mta/grace"
)

// Restore puts a deleted message back on hold, from where ReleaseMail delivers
// it, and takes it out of the folder. It has a new id; envelope, content and
// arrival time are as they were. ErrGone: nothing of that name, or the message is
// still in the queue, for its delete was broken off. Where an earlier Restore was
// broken off, it looks for what that put back, and returns its id.
//
// The folder is this instance's alone: what lies there is its own, by whatever name
// it went when it was deleted.
func (i *Instance) Restore(ctx context.Context, keep *grace.Folder, name string) (newID string, err error) {
	if !grace.ValidName(name) {
		return "", fmt.Errorf("restore mail: got name %q, want one that is in the grace folder", clip(name))
	}
	err = keep.TakeBack(ctx, name, func(k grace.Kept, parts map[string]*os.File, again bool) error {
		file := parts["queue"]
		if file == nil {
			return errors.New("it is not Postfix's")
		}
		newID, err = i.putBack(ctx, k, file, again)
		return err
	})
	if err != nil {
		return newID, fmt.Errorf("restore mail: %w", err)
	}
	return newID, ctx.Err()
}

func (i *Instance) putBack(ctx context.Context, k grace.Kept, file *os.File, again bool) (newID string, err error) {
	s, err := i.openSpool()
	if err != nil {
		return "", err
	}
	defer s.Close()
	if !ValidQueueID(k.ID) {
		return "", fmt.Errorf("got queue id %q: not one of Postfix's", clip(k.ID))
	}
	if i.stillQueued(s, k) {
		return "", fmt.Errorf("it is still in the queue as %s: %w", k.ID, mta.ErrGone)
	}
	if again {
		if newID, err = i.sameIn(ctx, s, file); newID != "" || err != nil {
			return newID, err
		}
		if err := s.clearHalves(); err != nil {
			return "", err
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	return s.hold(file)
}

// sameIn looks through the queue for the message of a file: the same microsecond
// of arrival, sender and content, which has a Received field with its first id.
func (i *Instance) sameIn(ctx context.Context, s *spool, file *os.File) (id string, err error) {
	want, err := readEnvelope(file, false)
	if err != nil {
		return "", err
	}
	found := errors.New("found")
	for _, queue := range anyQueue {
		err := fs.WalkDir(s.root.FS(), queue, func(at string, d fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if !d.Type().IsRegular() || !ValidQueueID(d.Name()) {
				return nil
			}
			f, _, err := s.open(queue, path.Base(at))
			if err != nil {
				return nil
			}
			defer f.Close()
			e, err := readEnvelope(f, false)
			if err == nil && e.like(want) && sameContent(f, file, e, want) {
				id = d.Name()
				return found
			}
			return nil
		})
		if errors.Is(err, found) {
			return id, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

func (e envelope) like(o envelope) bool {
	return e.arrival.Equal(o.arrival) && e.micros == o.micros && e.sender == o.sender && e.size == o.size
}

// sameContent compares what is between the envelopes.
func sameContent(a, b *os.File, ea, eb envelope) bool {
	if ea.size < 0 || ea.offset < 0 || eb.offset < 0 {
		return false
	}
	var sums [2][]byte
	for n, in := range []*io.SectionReader{io.NewSectionReader(a, ea.offset, ea.size), io.NewSectionReader(b, eb.offset, eb.size)} {
		digest := sha256.New()
		if read, err := io.Copy(digest, in); err != nil || read != ea.size {
			return false
		}
		sums[n] = digest.Sum(nil)
	}
	return bytes.Equal(sums[0], sums[1])
}
