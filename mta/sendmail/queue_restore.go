package sendmail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/grace"

	"golang.org/x/sys/unix"
)

// RestoreMail puts deleted messages, by their names in the folder, back into
// quarantine, with the reasons that they had, and takes them out of the folder. Each
// has a new id that no other message has or ever gets; envelope, content and arrival
// time are as they were. What was restored before, and not yet forgotten
// (grace.Folder.Forget), is Done again with its id, wherever it may be now. Gone:
// nothing of that name, or the message is still in the queue, for its delete was
// broken off. Where an earlier restore was broken off, it finds out how far that came.
//
// All are written, then all brought to disk, then all given their names: that may be
// broken off at any point. When ctx ends what is not yet written is Failed. An error
// beside results says that a power cut may undo what they say. Results go by name.
func (i *Instance) RestoreMail(ctx context.Context, keep *grace.Folder, names []string) ([]mta.Result, error) {
	results := make([]mta.Result, len(names))
	for n, name := range names {
		results[n] = mta.Result{ID: name, Fate: mta.Gone}
	}
	s, err := i.openSpool(false)
	if err != nil {
		return nil, fmt.Errorf("restore mail: %w", err)
	}
	defer s.close()
	r, err := keep.Return(ctx)
	if errors.Is(err, mta.ErrGone) {
		return results, nil
	}
	if err != nil {
		return nil, fmt.Errorf("restore mail: %w", err)
	}
	defer r.Close()
	b := &restoration{spool: s, dir: s.dirs[0], folder: r}
	if err := b.do(ctx, results); err != nil {
		return results, fmt.Errorf("restore mail: %w", err)
	}
	return results, nil
}

// restoration is one RestoreMail.
type restoration struct {
	spool  *spool
	dir    *dir // where all go
	folder *grace.Return
	all    []*restored
}

// restored is a message on its way back.
type restored struct {
	*grace.Copy
	id     string // that it gets
	result *mta.Result
}

// errPending marks what is not settled yet.
var errPending = errors.New("not yet tried")

func (b *restoration) do(ctx context.Context, results []mta.Result) error {
	for n := range results {
		b.all = append(b.all, &restored{result: &results[n]})
		results[n].Fate, results[n].Err = mta.Failed, errPending
	}
	b.each(b.begin)
	b.each(func(one *restored) error {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, b.folder.Undo(one.Copy))
		}
		return b.write(one)
	})
	if len(b.all) > 0 { // nothing has a name in the queue before it is on disk
		if err := errors.Join(b.dir.sync(), b.folder.Sync()); err != nil {
			b.each(func(one *restored) error { return errors.Join(err, b.undo(one)) })
		}
	}
	b.each(b.place)
	var sync error
	if len(b.all) > 0 { // the names, before the copies go
		sync = b.dir.sync()
	}
	for _, one := range b.all {
		one.done()
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
		err := fn(one)
		switch {
		case errors.Is(err, mta.ErrGone):
			one.result.Fate, one.result.Err = mta.Gone, nil
		case err != nil:
			one.result.Fate, one.result.Err = mta.Failed, err
		case one.result.Err == errPending:
			rest = append(rest, one)
		}
	}
	b.all = rest
}

func (one *restored) done() {
	one.result.Fate, one.result.NewID, one.result.Err = mta.Done, one.id, nil
}

// backSuffix ends the name of the control file of a message that is being put back.
// It is none of halfSuffix: what a scan finds of these it removes, while of this a
// restore that was broken off must know whether it is still there.
const backSuffix = ".rgback"

func halfOf(id string) string { return "tf" + id + backSuffix }

// begin marks a copy, and settles what was done before.
func (b *restoration) begin(one *restored) (err error) {
	if one.Copy, err = b.folder.Begin(one.result.ID); err != nil {
		return err
	}
	one.id = cmp.Or(one.NewID, restoredID(one.Kept))
	if one.Gone {
		one.done()
		return nil
	}
	if !ValidQueueID(one.ID) {
		return errors.Join(errors.New("it is not Sendmail's"), b.folder.Undo(one.Copy))
	}
	var st unix.Stat_t
	err = unix.Fstatat(b.dir.qf, halfOf(one.id), &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return errors.Join(fmt.Errorf("look for %s: %w", halfOf(one.id), err), b.folder.Undo(one.Copy))
	}
	if one.NewID != "" && err != nil { // it got its name
		one.done()
		return b.folder.Done(one.Copy)
	}
	there, err := b.spool.queued(one.id, time.Time{}) // before a power cut, or by an older version
	if err == nil && there {
		if one.done(); one.NewID == "" {
			err = b.folder.Note(one.Copy, one.id)
		}
		return errors.Join(err, b.folder.Done(one.Copy))
	}
	if err == nil {
		there, err = b.spool.queued(one.ID, one.Arrival)
	}
	switch {
	case err != nil:
		return errors.Join(err, b.folder.Undo(one.Copy))
	case there:
		return errors.Join(fmt.Errorf("it is still in the queue as %s: %w", one.ID, mta.ErrGone), b.folder.Done(one.Copy))
	}
	return b.clear(one)
}

// clear removes what one who died left of a message. The note goes first, and for
// good: without the half it would say that the message is back.
func (b *restoration) clear(one *restored) error {
	noted := one.NewID != ""
	if err := b.folder.Unnote(one.Copy); err != nil {
		return err
	}
	if noted {
		if err := b.folder.Sync(); err != nil {
			return err
		}
	}
	return errors.Join(remove(b.dir.qf, b.dir.Qf, halfOf(one.id)), remove(b.dir.df, b.dir.Df, "df"+one.id))
}

// undo takes back what was done for a message that has no name in the queue.
func (b *restoration) undo(one *restored) error {
	err := b.clear(one)
	if err == nil {
		err = b.folder.Undo(one.Copy)
	}
	return err
}

// write writes a message's body, and its control file under another name, and notes
// its id.
func (b *restoration) write(one *restored) error {
	parts, err := b.folder.Files(one.Copy)
	for _, p := range parts {
		defer p.Close()
	}
	if err == nil && (parts["qf"] == nil || parts["df"] == nil) {
		err = errors.New("it is not Sendmail's")
	}
	var data []byte
	if err == nil {
		data, err = controlOf(parts["qf"])
	}
	if err == nil {
		err = b.dir.restoreData(parts["df"], one.id)
	}
	if err == nil {
		err = b.dir.restoreControl(data, one.id)
	}
	if err == nil {
		err = b.folder.Note(one.Copy, one.id)
	}
	if err != nil {
		return errors.Join(err, b.undo(one))
	}
	return nil
}

// controlOf is the control file of a copy, with its message on hold.
func controlOf(qf *os.File) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(qf, maxControl+1))
	if err != nil {
		return nil, err
	}
	c, err := ParseControl(data)
	if err == nil && (!c.Complete || len(data) > maxControl) {
		err = errors.New("its control file is incomplete")
	}
	if err != nil {
		return nil, err
	}
	return change{hold: true, reason: cmp.Or(c.Reason, "restored"), moved: true}.apply(data), nil
}

const restoredMode = 0o640 // as Debian's QueueFileMode; Sendmail gives it its own with the next writing

func (d *dir) restoreData(from *os.File, id string) error {
	path := d.Df + "/df" + id
	fd, err := unix.Openat(d.df, "df"+id, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if _, err = io.Copy(f, from); err == nil {
		err = f.Chmod(restoredMode)
	}
	return err
}

// restoreControl writes the control file beside.
func (d *dir) restoreControl(data []byte, id string) error {
	f, err := d.create(halfOf(id), restoredMode, os.Geteuid(), -1)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(data)
	return err
}

// place gives a message its name, in one step, unless somebody has that.
func (b *restoration) place(one *restored) error {
	d, half, name := b.dir, halfOf(one.id), "hf"+one.id
	err := unix.Renameat2(d.qf, half, d.qf, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without; nobody else makes such an id
		if err = unix.Faccessat(d.qf, name, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW); errors.Is(err, unix.ENOENT) {
			err = unix.Renameat(d.qf, half, d.qf, name)
		} else if err == nil {
			err = unix.EEXIST
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("put %s on hold: %w", one.id, err), b.undo(one))
	}
	return nil
}

// sync brings what was written to disk, in one step: bodies may lie elsewhere than
// control files.
func (d *dir) sync() error {
	for _, fd := range []int{d.df, d.qf} {
		if err := unix.Syncfs(fd); err != nil {
			return fmt.Errorf("write %s to disk: %w", d.Qf, err)
		}
	}
	return nil
}

// TidyRestores removes from the queue what restores that died left there, but of
// copies that still wait to be restored: who does that needs it.
func (i *Instance) TidyRestores(ctx context.Context, keep *grace.Folder) error {
	if _, err := os.Lstat(keep.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := i.openSpool(false)
	if err != nil {
		return fmt.Errorf("tidy up after restores: %w", err)
	}
	defer s.close()
	box, err := keep.Open(ctx) // nobody restores meanwhile
	if err != nil {
		return fmt.Errorf("tidy up after restores: %w", err)
	}
	defer box.Close()
	needed := map[string]bool{}
	for _, k := range box.Returning() {
		needed[restoredID(k)] = true
	}
	d := s.dirs[0]
	names, err := namesWith(d.Qf, "tf", backSuffix)
	for _, name := range names {
		id := strings.TrimSuffix(strings.TrimPrefix(name, "tf"), backSuffix)
		if ValidQueueID(id) && !needed[id] {
			err = errors.Join(err, remove(d.df, d.Df, "df"+id), remove(d.qf, d.Qf, name))
		}
	}
	return err
}

// namesWith are the names in a directory with that beginning and end.
func namesWith(path, begin, end string) (names []string, err error) {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), begin) && strings.HasSuffix(e.Name(), end) {
			names = append(names, e.Name())
		}
	}
	return names, err
}
