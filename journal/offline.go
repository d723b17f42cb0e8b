package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Offline is the journal for what cannot wait until the daemon is back: it is
// read as a Reader reads it, and what is appended goes into a segment of the log
// that the next daemon fills its database from. While it is open no daemon
// starts, so close it soon. Not safe for concurrent use.
type Offline struct {
	dir   string
	place *os.Root
	lock  *os.File // of place

	reader *Reader
	stale  bool     // something was appended since reader was opened
	file   *os.File // nil: nothing was appended yet
}

// OpenOffline opens the journal in dir ("" is DefaultDir). ErrInUse: a daemon,
// or somebody else who does without one, has it.
func OpenOffline(dir string) (*Offline, error) {
	set(&dir, DefaultDir)
	place, err := openPlace(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	o := &Offline{dir: dir, place: place}
	if o.lock, err = place.Open("."); err == nil {
		err = syscall.Flock(int(o.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		o.Close()
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	if o.reader, err = OpenReader(dir); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// Remarks say what is missing or damaged, for an admin.
func (o *Offline) Remarks() []string { return o.reader.Remarks }

// Append writes the records with one write(2), and onto the disk, before it
// returns. After an error none or some of them are written.
func (o *Offline) Append(records ...Record) error {
	var lines []byte
	for _, r := range records {
		var err error
		if lines, err = appendLine(lines, r); err != nil {
			return fmt.Errorf("append to journal: %w", err)
		}
	}
	if err := o.open(); err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	o.stale = true
	_, err := o.file.Write(lines)
	if err = errors.Join(err, datasync(o.file)); err != nil {
		o.file.Close() // what a broken write left costs no other line
		o.file = nil
		return fmt.Errorf("append to journal: %w", err)
	}
	return nil
}

// open makes a segment after all others. It belongs to who has the directory:
// root writes it, the daemon reads and deletes it.
func (o *Offline) open() error {
	if o.file != nil {
		return nil
	}
	log, err := o.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	entries, err := fs.ReadDir(log.FS(), ".")
	if err != nil {
		return err
	}
	segments, err := segmentsOf(entries)
	if err != nil {
		return err
	}
	number := max(time.Now().Unix(), o.reader.filled()+1)
	if len(segments) > 0 {
		number = max(number, segments[len(segments)-1].number+1)
	}
	file, err := log.OpenFile(segmentName(number), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(o.handOver(file), syncPlace(log)); err != nil {
		file.Close()
		return err
	}
	o.file = file
	return nil
}

// openLog opens the log's directory, and makes it where there is none.
func (o *Offline) openLog() (*os.Root, error) {
	made := o.place.Mkdir(logDirectory, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return nil, made
	}
	log, err := o.place.OpenRoot(logDirectory) // and nothing outside of place
	if err != nil {
		return nil, err
	}
	if made == nil {
		var dir *os.File
		if dir, err = log.Open("."); err == nil {
			err = errors.Join(o.handOver(dir), dir.Close())
		}
	}
	if err != nil {
		log.Close()
		return nil, err
	}
	return log, nil
}

func syncPlace(place *os.Root) error {
	dir, err := place.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// filled is the last segment that the database has something of.
func (r *Reader) filled() (number int64) {
	if r.file != nil {
		_ = r.file.QueryRow("SELECT segment FROM checkpoint").Scan(&number) // what cannot be read says nothing
	}
	return number
}

// handOver gives what root made to the daemon's account. It is what was opened,
// whatever has its name by now.
func (o *Offline) handOver(made *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := o.lock.Stat()
	if err != nil {
		return err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return made.Chown(int(s.Uid), int(s.Gid))
}

// read is a reader that has seen what was appended.
func (o *Offline) read() (*Reader, error) {
	if o.stale {
		if err := o.reader.readLog(context.Background(), filepath.Join(o.dir, logDirectory)); err != nil {
			return nil, err
		}
		o.stale = false
	}
	return o.reader, nil
}

// fromReader asks a reader.
func fromReader[T any](o *Offline, ask func(*Reader) (T, error)) (T, error) {
	r, err := o.read()
	if err != nil {
		var none T
		return none, err
	}
	return ask(r)
}

// Explain is Journal.Explain.
func (o *Offline) Explain(ctx context.Context, id string) ([]Explanation, error) {
	return fromReader(o, func(r *Reader) ([]Explanation, error) { return r.Explain(ctx, id) })
}

// Decisions is Journal.Decisions.
func (o *Offline) Decisions(ctx context.Context, q Query) ([]Decision, error) {
	return fromReader(o, func(r *Reader) ([]Decision, error) { return r.Decisions(ctx, q) })
}

// Holds is Journal.Holds.
func (o *Offline) Holds(ctx context.Context, q HoldQuery) ([]Hold, error) {
	return fromReader(o, func(r *Reader) ([]Hold, error) { return r.Holds(ctx, q) })
}

// Close ends it; a daemon may start then.
func (o *Offline) Close() error {
	var errs []error
	if o.file != nil {
		errs = append(errs, o.file.Close())
	}
	if o.reader != nil {
		errs = append(errs, o.reader.Close())
	}
	if o.lock != nil {
		errs = append(errs, o.lock.Close())
	}
	return errors.Join(append(errs, o.place.Close())...)
}
