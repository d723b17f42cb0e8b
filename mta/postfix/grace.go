package postfix

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/mta"
	"relayguard/mta/backup"

	"golang.org/x/sys/unix"
)

// Grace is the folder where deleted mail stays for a while, as the queue files
// that it was. The zero value but for Dir has the defaults. It needs root; two
// programs may use one folder.
type Grace struct {
	Dir   string        // made 0700 if it is not there; below directories that only root may change
	Count int           // messages at most; 0: 20,000
	Bytes int64         // octets at most; 0: 1 GiB
	Age   time.Duration // how long they stay; 0: 7 days
}

const (
	graceCount = 20_000
	graceBytes = 1 << 30
	graceAge   = 7 * 24 * time.Hour
)

// Kept is one deleted message in the grace folder.
type Kept struct {
	Name    string // of its file; what Restore wants
	ID      string // that it had in the queue
	Arrival time.Time
	Deleted time.Time
	Size    int64 // of the file, octets
}

// ValidKept reports whether a file of the grace folder can have that name.
func ValidKept(name string) bool {
	_, _, ok := keptName(name)
	return ok && len(name) <= maxKeptName
}

const maxKeptName = 100

// List tells what is in the folder, the longest deleted first. A folder that
// is not there is empty.
func (g *Grace) List() ([]Kept, error) {
	root, err := g.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return listKept(root)
}

// Sweep removes what was deleted longer ago than Age, and the oldest beyond the
// caps, and returns how many. It waits for a delete that is under way.
func (g *Grace) Sweep(ctx context.Context, now time.Time) (removed int, err error) {
	if _, err := os.Lstat(g.Dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	box, err := g.box(ctx)
	if err != nil {
		return 0, err
	}
	defer box.close()
	age := cmp.Or(g.Age, graceAge)
	for len(box.kept) > 0 && now.Sub(box.kept[0].Deleted) > age {
		if err := box.dropOldest(); err != nil {
			return removed, err
		}
		removed++
	}
	halves, err := fs.Glob(box.root.FS(), "*"+halfSuffix)
	for _, name := range halves { // of a delete that died, for we are alone
		err = errors.Join(err, g.drop(box.root, name))
	}
	more, roomErr := box.makeRoom(0, 0)
	return removed + more, errors.Join(err, roomErr)
}

// halfSuffix ends the name of a copy until it is complete.
const halfSuffix = ".part"

func (g *Grace) open(create bool) (*os.Root, error) {
	resolve := backup.Trusted
	if create {
		resolve = backup.MakeTrusted
	}
	dir, err := resolve(g.Dir)
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(dir)
	}
	if err == nil && create {
		err = root.Chmod(".", 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open the grace folder: %w", err)
	}
	return root, nil
}

func (g *Grace) drop(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("empty the grace folder: %w", err)
	}
	return nil
}

// listKept reads the folder; files with other names are none of ours.
func listKept(root *os.Root) ([]Kept, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("read the grace folder: %w", err)
	}
	var kept []Kept
	for _, e := range entries {
		id, arrival, ok := keptName(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the grace folder: %w", err)
		}
		kept = append(kept, Kept{Name: e.Name(), ID: id, Arrival: arrival, Deleted: info.ModTime(), Size: info.Size()})
	}
	slices.SortStableFunc(kept, func(a, b Kept) int { return a.Deleted.Compare(b.Deleted) })
	return kept, nil
}

// nameKept is the id and the second of arrival, which no other message has.
func nameKept(f mta.QueueFile) string { return f.ID + "." + strconv.FormatInt(f.Arrival.Unix(), 10) }

func keptName(name string) (id string, arrival time.Time, ok bool) {
	id, seconds, _ := strings.Cut(name, ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	return id, time.Unix(n, 0).UTC(), err == nil && n >= 0 && ValidQueueID(id)
}

func sum(kept []Kept) (bytes int64) {
	for _, k := range kept {
		bytes += k.Size
	}
	return bytes
}

// graceBox is the folder during one delete.
type graceBox struct {
	grace *Grace
	root  *os.Root
	dir   *os.File // locked
	kept  []Kept   // the oldest first
	bytes int64
}

// box opens the folder for one delete, alone: of two that delete the same
// message the second would else remove the first one's copy. Close it.
func (g *Grace) box(ctx context.Context) (*graceBox, error) {
	root, err := g.open(true)
	if err != nil {
		return nil, err
	}
	b := &graceBox{grace: g, root: root}
	if b.dir, err = root.Open("."); err == nil {
		err = lock(ctx, b.dir)
	}
	if err == nil {
		b.kept, err = listKept(root)
	}
	if err != nil {
		b.close()
		return nil, fmt.Errorf("open the grace folder: %w", err)
	}
	b.bytes = sum(b.kept)
	return b, nil
}

// lock waits for the folder to be nobody else's; closing it lets it go.
func lock(ctx context.Context, dir *os.File) error {
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if !sleep(ctx, 50*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (b *graceBox) close() {
	if b.dir != nil {
		b.dir.Close()
	}
	b.root.Close()
}

// makeRoom removes the oldest until that many more fit.
func (b *graceBox) makeRoom(count int, bytes int64) (removed int, err error) {
	mostCount, mostBytes := cmp.Or(b.grace.Count, graceCount), cmp.Or(b.grace.Bytes, graceBytes)
	for len(b.kept) > 0 && (len(b.kept)+count > mostCount || b.bytes+bytes > mostBytes) {
		if err := b.dropOldest(); err != nil {
			return removed, err
		}
		removed++
	}
	if count > mostCount || bytes > mostBytes {
		return removed, fmt.Errorf("keep for the grace time: %d octets do not fit, at most %d do", bytes, mostBytes)
	}
	return removed, nil
}

func (b *graceBox) dropOldest() error {
	if err := b.grace.drop(b.root, b.kept[0].Name); err != nil {
		return err
	}
	b.bytes -= b.kept[0].Size
	b.kept = b.kept[1:]
	return nil
}

// keep copies a held message into the folder.
func (b *graceBox) keep(spool *spool, f mta.QueueFile) error {
	from, info, err := spool.openHeld(f.ID)
	if err != nil {
		return fmt.Errorf("keep %s for the grace time: %w", f.ID, err)
	}
	defer from.Close()
	if _, err := b.makeRoom(1, info.Size()); err != nil {
		return err
	}
	name := nameKept(f)
	half := name + halfSuffix
	b.root.Remove(half) // of one that died
	to, err := b.root.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("keep %s for the grace time: %w", f.ID, err)
	}
	n, err := io.Copy(to, from)
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	if err == nil && n != info.Size() {
		err = fmt.Errorf("copied %d octets of %d", n, info.Size())
	}
	if err == nil {
		err = b.root.Rename(half, name)
	}
	if err != nil {
		b.root.Remove(half)
		return fmt.Errorf("keep %s for the grace time: %w", f.ID, err)
	}
	b.kept = append(b.kept, Kept{Name: name, Size: n})
	b.bytes += n
	return nil
}

// sync makes all copies survive a power cut, in one step for all.
func (b *graceBox) sync() error {
	if err := unix.Syncfs(int(b.dir.Fd())); err != nil {
		return fmt.Errorf("keep for the grace time: %w", err)
	}
	return nil
}

// DeleteMail deletes held mail. With a grace folder each message is copied
// there first, for Restore; what could not be copied is not deleted. The folder
// is kept under its caps by removing the longest deleted, so of one delete that
// is larger than the caps only the end is kept.
//
// What could not be deleted after all (Gone: somebody released it in between)
// has no copy. An error that comes with results says that such a copy could not
// be removed.
func (i *Instance) DeleteMail(ctx context.Context, targets []mta.Target, grace *Grace) ([]mta.Result, error) {
	look, err := i.look(ctx, targets)
	if err != nil {
		return nil, fmt.Errorf("delete mail: %w", err)
	}
	results, ids := look.judge(targets, deleteAct.from)
	if len(ids) == 0 {
		return results, nil
	}
	if grace == nil {
		i.do(ctx, deleteAct, targets, results, ids)
		return results, nil
	}
	box, err := grace.box(ctx)
	if err != nil {
		return nil, fmt.Errorf("delete mail: %w", err)
	}
	defer box.close()
	copied, err := i.keepAll(ctx, box, look, targets, results)
	if err != nil {
		return nil, fmt.Errorf("delete mail: %w", err)
	}
	i.do(ctx, deleteAct, targets, results, copied)
	ourCopy := make(map[string]bool, len(copied))
	for _, id := range copied {
		ourCopy[id] = true
	}
	for n, r := range results { // the copy of what was not deleted would come back twice
		if f, fate := look.find(targets[n], deleteAct.from); fate == mta.Done && r.Fate != mta.Done && ourCopy[r.ID] {
			err = errors.Join(err, grace.drop(box.root, nameKept(f.QueueFile)))
		}
	}
	return results, err
}

// keepAll copies what is pending and returns the ids that may be deleted.
func (i *Instance) keepAll(ctx context.Context, box *graceBox, look look, targets []mta.Target, results []mta.Result) ([]string, error) {
	spool, err := i.openSpool()
	if err != nil {
		return nil, err
	}
	defer spool.root.Close()
	var copied []string
	tried := map[string]error{}
	for n := range results {
		r := &results[n]
		if r.Err != errPending {
			continue
		}
		failed, before := tried[r.ID]
		if !before {
			if failed = ctx.Err(); failed == nil {
				f, _ := look.find(targets[n], deleteAct.from)
				failed = box.keep(spool, f.QueueFile)
			}
			tried[r.ID] = failed
			if failed == nil {
				copied = append(copied, r.ID)
			}
		}
		switch {
		case errors.Is(failed, fs.ErrNotExist):
			r.Fate, r.Err = mta.Gone, nil
		case failed != nil:
			r.Err = failed
		}
	}
	return copied, box.sync()
}

// Restore puts a deleted message back on hold, from where ReleaseMail delivers
// it, and takes it out of the grace folder. It has a new id; envelope, content
// and arrival time are as they were. ErrGone: nothing of that name.
func (i *Instance) Restore(ctx context.Context, grace *Grace, name string) (newID string, err error) {
	if !ValidKept(name) {
		return "", fmt.Errorf("restore mail: got name %q, want one that is in the grace folder", clip(name))
	}
	root, err := grace.open(false)
	var dir, from *os.File
	if err == nil {
		defer root.Close()
		dir, err = root.Open(".")
	}
	if err == nil {
		defer dir.Close()
		if err = lock(ctx, dir); err == nil { // else two could both restore it
			from, err = root.Open(name)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = mta.ErrGone
	}
	if err != nil {
		return "", fmt.Errorf("restore %s: %w", name, err)
	}
	defer from.Close()
	spool, err := i.openSpool()
	if err == nil {
		defer spool.root.Close()
		newID, err = spool.hold(from)
	}
	if err == nil {
		err = grace.drop(root, name)
	}
	if err != nil {
		return newID, fmt.Errorf("restore %s: %w", name, err)
	}
	return newID, ctx.Err()
}
