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

// RestoreMail puts deleted messages, by their names in the folder, back on hold, from
// where ReleaseMail delivers them, and takes them out of the folder. Each has a new
// id; envelope, content and arrival time are as they were. What was restored before,
// and not yet forgotten (grace.Folder.Forget), is Done again with the id that it got
// then, wherever it may be now. Gone: nothing of that name, or the message is still
// in the queue, for its delete was broken off. Where an earlier restore was broken
// off, it finds out how far that came.
//
// All are written, then all brought to disk, then all given their names: that may be
// broken off at any point. When ctx ends what is not yet written is Failed. An error
// beside results says that a power cut may undo what they say. Results go by name.
//
// The folder is this instance's alone: what lies there is its own, by whatever name
// it went when it was deleted.
func (i *Instance) RestoreMail(ctx context.Context, keep *grace.Folder, names []string) ([]mta.Result, error) {
	results := make([]mta.Result, len(names))
	for n, name := range names {
		results[n] = mta.Result{ID: name, Fate: mta.Gone}
	}
	r, err := keep.Return(ctx)
	if errors.Is(err, mta.ErrGone) {
		return results, nil
	}
	if err != nil {
		return nil, fmt.Errorf("restore mail: %w", err)
	}
	defer r.Close()
	s, err := i.openSpool()
	if err != nil {
		return nil, fmt.Errorf("restore mail: %w", err)
	}
	defer s.Close()
	b := &restoration{instance: i, spool: s, folder: r}
	if err := b.do(ctx, results); err != nil {
		return results, fmt.Errorf("restore mail: %w", err)
	}
	return results, nil
}

// restoration is one RestoreMail.
type restoration struct {
	instance *Instance
	spool    *spool
	folder   *grace.Return
	all      []*restored
}

// restored is a message on its way back.
type restored struct {
	*grace.Copy
	result *mta.Result
}

func (b *restoration) do(ctx context.Context, results []mta.Result) error {
	for n := range results {
		one := &restored{result: &results[n]}
		if err := b.begin(one); err != nil {
			one.failed(err)
		} else if one.result.Fate != mta.Done && one.result.Fate != mta.Gone {
			b.all = append(b.all, one)
		}
	}
	b.each(b.find(ctx))
	b.each(func(one *restored) error {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, b.folder.Undo(one.Copy))
		}
		return b.write(one)
	})
	if len(b.all) > 0 { // nothing has a name in the queue before it is on disk
		if err := errors.Join(b.spool.sync(), b.folder.Sync()); err != nil {
			b.each(func(one *restored) error { return errors.Join(err, b.undo(one)) })
		}
	}
	b.each(b.place)
	var sync error
	if len(b.all) > 0 { // the names, before the copies go
		sync = b.spool.sync()
	}
	for _, one := range b.all {
		one.result.Fate, one.result.NewID, one.result.Err = mta.Done, one.NewID, nil
		if sync == nil {
			sync = b.folder.Done(one.Copy)
		}
	}
	return sync
}

// each takes those out of the line that fn has an error for, or settles.
func (b *restoration) each(fn func(*restored) error) {
	var rest []*restored
	for _, one := range b.all {
		if err := fn(one); err != nil {
			one.failed(err)
		} else if one.result.Err == errPending {
			rest = append(rest, one)
		}
	}
	b.all = rest
}

func (one *restored) failed(err error) {
	one.result.Fate, one.result.Err = mta.Failed, err
	if errors.Is(err, mta.ErrGone) {
		one.result.Fate, one.result.Err = mta.Gone, nil
	}
}

func (one *restored) done(newID string) {
	one.result.Fate, one.result.NewID, one.result.Err = mta.Done, newID, nil
}

// half is what a message is called in the hold queue until it is back: of its copy's
// name, which only it has.
func (one *restored) half() string { return halfOf(one.Name) }

func halfOf(name string) string { return "hold/" + halfName + path.Base(name) }

// begin marks a copy, and settles what was done before.
func (b *restoration) begin(one *restored) (err error) {
	if one.Copy, err = b.folder.Begin(one.result.ID); err != nil {
		return err
	}
	one.result.Fate, one.result.Err = mta.Failed, errPending
	if one.Gone {
		one.done(one.NewID)
		return nil
	}
	if !ValidQueueID(one.ID) {
		return errors.Join(fmt.Errorf("got queue id %q: not one of Postfix's", clip(one.ID)), b.folder.Undo(one.Copy))
	}
	_, err = b.spool.root.Lstat(one.half())
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return errors.Join(err, b.folder.Undo(one.Copy))
	case one.NewID != "" && err != nil: // it got its name
		one.done(one.NewID)
		return b.folder.Done(one.Copy)
	case err == nil: // it did not
		if err := b.unwrite(one); err != nil {
			return err
		}
	}
	queued, err := b.instance.stillQueued(b.spool, one.Kept)
	if err != nil {
		return errors.Join(err, b.folder.Undo(one.Copy))
	}
	if queued {
		return errors.Join(fmt.Errorf("it is still in the queue as %s: %w", one.ID, mta.ErrGone), b.folder.Done(one.Copy))
	}
	return nil
}

// find looks through the queue, once for all, for what a restore put back that was
// broken off and has no note: one of an older version, or before a power cut.
func (b *restoration) find(ctx context.Context) func(*restored) error {
	wanted := map[sameAs][]*restored{}
	b.each(func(one *restored) error {
		if !one.Again {
			return nil
		}
		file, err := b.file(one)
		if err != nil {
			return err
		}
		defer file.Close()
		e, err := readEnvelope(file, false)
		if err == nil {
			wanted[e.sameAs()] = append(wanted[e.sameAs()], one)
		}
		return err
	})
	if len(wanted) == 0 {
		return func(*restored) error { return nil }
	}
	found, err := b.search(ctx, wanted)
	return func(one *restored) error {
		switch id := found[one]; {
		case one.Again && err != nil:
			return err
		case id != "":
			one.done(id)
			return errors.Join(b.folder.Note(one.Copy, id), b.folder.Done(one.Copy))
		}
		return nil
	}
}

// sameAs is what two files of one message have in common, before their content is
// compared, which has a Received field with its first id.
type sameAs struct {
	second int64
	micros string
	sender string
	size   int64
}

func (e envelope) sameAs() sameAs { return sameAs{e.arrival.Unix(), e.micros, e.sender, e.size} }

func (b *restoration) search(ctx context.Context, wanted map[sameAs][]*restored) (map[*restored]string, error) {
	found := map[*restored]string{}
	for _, queue := range anyQueue {
		err := fs.WalkDir(b.spool.root.FS(), queue, func(at string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil { // a queue, or a part of it, that nobody made or that goes meanwhile
				return nil
			}
			if errors.Is(err, fs.ErrNotExist) {
				return ctx.Err() // it went: the rest is looked at all the same
			}
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if !d.Type().IsRegular() || !ValidQueueID(d.Name()) {
				return nil
			}
			f, _, err := b.spool.open(queue, d.Name())
			if err != nil {
				return nil
			}
			defer f.Close()
			e, err := readEnvelope(f, false)
			if err != nil {
				return nil
			}
			for _, one := range wanted[e.sameAs()] {
				if found[one] == "" && b.isOf(f, e, one) {
					found[one] = d.Name()
					break
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// isOf tells whether a queue file is that of a copy.
func (b *restoration) isOf(f *os.File, e envelope, one *restored) bool {
	file, err := b.file(one)
	if err != nil {
		return false
	}
	defer file.Close()
	of, err := readEnvelope(file, false)
	return err == nil && sameContent(f, file, e, of)
}

// file is a copy's queue file.
func (b *restoration) file(one *restored) (*os.File, error) {
	parts, err := b.folder.Files(one.Copy)
	if err != nil {
		return nil, err
	}
	file := parts["queue"]
	for _, p := range parts {
		if p != file {
			p.Close()
		}
	}
	if file == nil {
		return nil, errors.New("it is not Postfix's")
	}
	return file, nil
}

// write writes a message into the hold queue, and notes its id, without giving it
// its name there.
func (b *restoration) write(one *restored) error {
	file, err := b.file(one)
	if err != nil {
		return errors.Join(err, b.folder.Undo(one.Copy))
	}
	defer file.Close()
	id, err := b.spool.half(one.half(), file)
	if err == nil {
		err = b.folder.Note(one.Copy, id)
	}
	if err != nil {
		return errors.Join(err, b.undo(one))
	}
	return nil
}

// place gives a message its name.
func (b *restoration) place(one *restored) error {
	if err := b.spool.place(one.half(), one.NewID); err != nil {
		return errors.Join(err, b.undo(one))
	}
	return nil
}

// undo takes back what was done for a message that has no name in the queue.
func (b *restoration) undo(one *restored) error {
	if err := b.unwrite(one); err != nil {
		return err
	}
	return b.folder.Undo(one.Copy)
}

// unwrite takes back write. The note goes first, and for good: without the half it
// would say that the message is back.
func (b *restoration) unwrite(one *restored) error {
	noted := one.NewID != ""
	if err := b.folder.Unnote(one.Copy); err != nil {
		return err
	}
	if noted {
		if err := b.folder.Sync(); err != nil {
			return err
		}
	}
	if err := b.spool.root.Remove(one.half()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
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

// TidyRestores removes from the hold queue what restores that died left there, but of
// copies that still wait to be restored: who does that needs it.
func (i *Instance) TidyRestores(ctx context.Context, keep *grace.Folder) error {
	if _, err := os.Lstat(keep.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	box, err := keep.Open(ctx) // nobody restores meanwhile
	if err != nil {
		return fmt.Errorf("tidy up after restores: %w", err)
	}
	defer box.Close()
	s, err := i.openSpool()
	if err != nil {
		return fmt.Errorf("tidy up after restores: %w", err)
	}
	defer s.Close()
	needed := map[string]bool{}
	for _, k := range box.Returning() {
		needed[halfOf(k.Name)] = true
	}
	halves, err := fs.Glob(s.root.FS(), "hold/"+halfName+"*")
	for _, name := range halves {
		if !needed[name] {
			err = errors.Join(err, s.root.Remove(name))
		}
	}
	return err
}
