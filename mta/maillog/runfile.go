package maillog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayguard/mta"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle bounds how often a busy log is read: many lines at once instead
	// of each with its own wake-up.
	settle = 10 * time.Millisecond
	// lookAgain, lookTries: a rotation renames file after file, and a listing
	// made meanwhile may miss one.
	lookAgain = 100 * time.Millisecond
	lookTries = 5
	// unseen is how long a log may be unobserved before more than one rotation is thought possible.
	unseen = time.Minute
)

// runFile follows a file.
func (f *Follower) runFile(ctx context.Context, fn func(Event, Position) error) error {
	wake, stop := f.watch()
	defer stop()
	r := &fileRun{Follower: f, fn: fn}
	defer func() {
		if r.current != nil {
			r.current.close()
		}
	}()
	var complaint string
	for {
		err := r.step(ctx)
		switch fault := (*readError)(nil); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &fault):
			if fault.Error() != complaint { // once a fault, not once a look
				f.o.Log.Warn("mail log not read", "err", fault.error)
			}
			complaint = fault.Error()
		case err != nil:
			return err
		default:
			complaint = ""
		}
		if r.more {
			continue
		}
		if f.o.Once {
			f.tellGap(f.o.Now())
			return err
		}
		if !mta.Sleep(ctx, settle) {
			return ctx.Err()
		}
		timer := time.NewTimer(f.o.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch tells of changes to the files of the log. Without it (the directory
// is missing, no inotify left) the poll alone has to do.
func (f *Follower) watch() (wake <-chan struct{}, stop func()) {
	changed := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		if err = watcher.Add(filepath.Dir(f.o.Path)); err != nil {
			watcher.Close()
		}
	}
	if err != nil {
		f.o.Log.Warn("changes of the mail log are not told, it is polled", "path", f.o.Path, "err", err)
		return changed, func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case event, ok := <-watcher.Events:
				if !ok {
					return
				}
				if event.Op == fsnotify.Chmod || !strings.HasPrefix(event.Name, f.o.Path) {
					continue
				}
			case _, ok := <-watcher.Errors: // an overflow: look
				if !ok {
					return
				}
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, func() { watcher.Close(); <-done }
}

// fileRun is one Run over files.
type fileRun struct {
	*Follower
	fn      func(Event, Position) error
	current *logFile // nil: to be found
	more    bool     // step has something to do at once
	looked  time.Time
}

// step reads what is there now.
func (r *fileRun) step(ctx context.Context) error {
	r.more = false
	if r.current == nil {
		if err := r.find(ctx); err != nil || r.current == nil {
			return err
		}
	}
	changed, err := r.changed()
	if err != nil {
		return err
	}
	if changed {
		// Emptied, perhaps after it was copied: the copy may hold more.
		r.drop()
		r.more = true
		return nil
	}
	next, gone, err := r.next()
	if err != nil {
		return err
	}
	if err := r.read(ctx); err != nil {
		var fault *readError
		switch {
		case next == nil:
		case errors.As(err, &fault) && r.current.compressed():
			r.lose("a compressed log cannot be read to its end")
			r.skipTo(next)
		default:
			next.close()
		}
		return err
	}
	if next == nil && !gone { // all is read; what comes now is new
		r.tellGap(r.o.Now())
		r.from = time.Time{}
		r.reach(r.pos)
	}
	r.skipTo(next)
	return nil
}

// changed tells whether the file is not the one any more that was opened: it
// was emptied, or emptied and written anew.
func (r *fileRun) changed() (bool, error) {
	if r.current.compressed() {
		return false, nil
	}
	info, err := r.current.file.Stat()
	if err != nil {
		return false, &readError{err}
	}
	if info.Size() < r.current.offset+int64(r.current.pending) {
		return true, nil
	}
	head, err := r.current.readHead()
	if err != nil {
		return false, &readError{err}
	}
	return r.current.head != "" && head != r.current.head, nil
}

// next opens the file that came after the current one, at its start; nil if
// the current one is the newest, or the next one is still empty: then the old
// one may still be written to. Gone: there is no log now.
func (r *fileRun) next() (next *logFile, gone bool, err error) {
	before := r.looked
	r.looked = r.o.Now()
	info, err := os.Stat(r.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, &readError{err}
	}
	if os.SameFile(info, r.current.info) {
		return nil, false, nil
	}
	files, err := rotated(r.o.Path)
	if err != nil {
		return nil, false, &readError{err}
	}
	var newer *logFile // of those looked at, the oldest
	damaged := false
	for _, file := range files {
		l, err := openLog(file.path)
		if err != nil {
			damaged = damaged || !errors.Is(err, fs.ErrNotExist)
			continue
		}
		if os.SameFile(l.info, r.current.info) || r.current.head != "" && l.head == r.current.head {
			l.close()
			if newer = nonEmpty(newer); newer != nil && damaged {
				r.lose("a rotated log cannot be read")
			}
			return newer, false, nil
		}
		if newer != nil {
			newer.close()
		}
		newer = l
	}
	if newer != nil {
		newer.close()
	}
	// The current one is removed, or compressed in a way that is not known.
	if !before.IsZero() && r.looked.Sub(before) < unseen {
		l, err := openLog(r.o.Path)
		if err != nil {
			return nil, false, &readError{err}
		}
		return nonEmpty(l), false, nil
	}
	r.drop()
	r.more = true
	return nil, false, errMoved
}

// errMoved only ends a step.
var errMoved = &readError{errors.New("the mail log was rotated more than once")}

func nonEmpty(l *logFile) *logFile {
	if l != nil && l.head == "" {
		l.close()
		return nil
	}
	return l
}

// skipTo goes on with the next file; a last line without its end is given up.
func (r *fileRun) skipTo(next *logFile) {
	if next == nil {
		return
	}
	if r.current.pending > 0 || r.current.skipping {
		r.count(func(c *Counts) { c.Lines++; c.Foreign++ })
	}
	r.drop()
	r.take(next)
	r.more = true
}

func (r *fileRun) drop() {
	r.current.close()
	r.current = nil
}

// take makes a file the current one and its place the position.
func (r *fileRun) take(l *logFile) {
	r.current = l
	p := l.position(l.offset)
	p.At = r.pos.At
	r.reach(p)
}

func (r *fileRun) read(ctx context.Context) error {
	current := r.current
	now := r.o.Now()
	return current.read(ctx, func(text []byte, end int64) error {
		l, ok := ParseLine(strings.TrimSuffix(string(text), "\r"), now, r.o.Zone)
		p := current.position(end)
		if !ok {
			r.count(func(c *Counts) { c.Lines++; c.Foreign++ })
			p.At = r.pos.At
			r.reach(p)
			return nil
		}
		return r.line(l, p, r.fn)
	}, func() { r.count(func(c *Counts) { c.Lines++; c.Long++ }) })
}

// find opens the file in which the position lies, at its place. None found:
// lines are lost, and what is left is read from its time on.
func (r *fileRun) find(ctx context.Context) error {
	if r.pos == (Position{}) {
		return r.begin()
	}
	nowhere := r.pos.head == "" && r.pos.inode == 0
	for try := 0; !nowhere && try < lookTries; try++ {
		if try > 0 && !mta.Sleep(ctx, lookAgain) {
			return ctx.Err()
		}
		files, err := rotated(r.o.Path)
		if err != nil {
			continue // told below, if it stays
		}
		for _, file := range files {
			l, err := openLog(file.path)
			if err != nil {
				continue
			}
			if l.is(r.pos) {
				offset := r.pos.offset
				if r.pos.head == "" {
					offset = 0 // no line was complete
				}
				if ok, _ := l.seek(offset); ok {
					r.take(l)
					return nil
				}
			}
			l.close()
		}
	}
	l, err := r.oldestSince(r.pos.At)
	if err != nil || l == nil {
		return err
	}
	if !nowhere {
		r.lose("the log that was read last is gone: removed, emptied or compressed")
	}
	r.from = r.pos.At
	r.take(l)
	return nil
}

// begin opens the log for a first start. When there is none yet, all that
// will be in it is new.
func (r *fileRun) begin() error {
	if !r.from.IsZero() {
		l, err := r.oldestSince(r.from)
		if err == nil && l != nil {
			r.pos.At = r.from.UTC().Truncate(time.Microsecond)
			r.take(l)
		}
		return err
	}
	l, err := openLog(r.o.Path)
	if errors.Is(err, fs.ErrNotExist) {
		r.reach(Position{At: r.o.Now().UTC().Truncate(time.Microsecond)})
		return nil
	}
	if err == nil {
		err = l.seekEnd()
	}
	if err != nil {
		return &readError{err}
	}
	r.take(l)
	p := r.pos
	p.At = r.o.Now().UTC().Truncate(time.Microsecond)
	r.reach(p)
	return nil
}

// oldestSince opens the file that holds the first line from that time on, or
// all of whose older ones may be gone; nil: there is no file.
func (r *fileRun) oldestSince(from time.Time) (*logFile, error) {
	oldest, err := openLog(r.o.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &readError{err} // somebody will make it readable
	}
	if oldest != nil && oldest.beginsBefore(from.Truncate(time.Second), r.o.Now(), r.o.Zone) {
		return oldest, nil
	}
	files, err := rotated(r.o.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if oldest != nil {
			oldest.close()
		}
		return nil, &readError{err}
	}
	for _, file := range files {
		l, err := openLog(file.path)
		if err != nil {
			continue // gone meanwhile, or damaged
		}
		if oldest != nil {
			oldest.close()
		}
		if oldest = l; l.beginsBefore(from.Truncate(time.Second), r.o.Now(), r.o.Zone) {
			break
		}
	}
	return oldest, nil
}
