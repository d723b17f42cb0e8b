package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Times of the filler.
const (
	fillPeriod   = 200 * time.Millisecond
	fillBackOff  = 2 * time.Second // longest pause between attempts
	resetPause   = time.Minute     // between two databases given up, lest a bad disk keeps us busy
	suspectPause = 10 * time.Minute
	checkTime    = 10 * time.Second // quick_check when a query met damage
	readRetries  = 20               // of a segment that cannot be read, before it is left out
	purgePeriod  = time.Hour
	sizePeriod   = 10 * time.Second // between two looks at the size of the database
)

// filler brings the log into the database. Its goroutine alone writes there.
type filler struct {
	j    *Journal
	path string
	scan scanner

	database  *database // nil: not open
	lastReset time.Time
	old       string    // a broken database put aside that no new one took the rows of yet
	retry     time.Time // of the database
	pause     time.Duration
	unread    int // attempts to read the same place

	jobs     chan job
	kicks    chan struct{}
	suspect  atomic.Bool // a query met damage
	examined time.Time   // when one last did

	mu      sync.Mutex
	at      position // in the database
	err     error    // why it goes no further
	changed chan struct{}

	readingMu sync.RWMutex
	reading   *sql.DB // nil: not open

	damaged, filled, purgedEarly, lag atomic.Int64
}

// job is work for the filler's goroutine.
type job struct {
	work func(*database) error
	done chan error
}

func newFiller(j *Journal) *filler {
	path := filepath.Join(j.options.Dir, databaseName)
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return &filler{
		j:       j,
		path:    path,
		scan:    scanner{dir: j.file.dir},
		jobs:    make(chan job),
		kicks:   make(chan struct{}, 1),
		changed: make(chan struct{}),
	}
}

// open opens the database, a new one in place of one that is broken.
func (f *filler) open(ctx context.Context) {
	d, err := f.openFile(ctx)
	if isBroken(err) {
		d, err = f.reset(ctx, err)
	}
	if err != nil {
		f.failed(err)
		f.openReadOnly()
		return
	}
	switch end := f.j.file.end.Load(); {
	case *end == (position{}):
		f.j.file.end.CompareAndSwap(end, &position{d.at.segment, d.at.offset}) // the log was emptied: new segments come after the old ones
	case d.at == (position{}):
		f.j.log.Warn("journal database is new: it is filled from the log that is left", "log_bytes", f.j.file.bytes.Load())
	}
	reading, err := openReading(f.path, "mode=rw")
	if err != nil {
		d.close()
		f.failed(err)
		return
	}
	f.database = d
	f.setReading(reading)
	f.opened(d.at)
}

// openReadOnly lets queries see what there is if nothing can be written.
func (f *filler) openReadOnly() {
	if f.pool() != nil {
		return
	}
	if reading, err := openExisting(f.path); err == nil {
		f.setReading(reading)
	}
}

// reset puts a broken database aside and makes a new one.
func (f *filler) reset(ctx context.Context, cause error) (*database, error) {
	now := f.j.options.Now()
	if !f.lastReset.IsZero() && now.Sub(f.lastReset) < resetPause {
		return nil, fmt.Errorf("broken again soon after it was made new: %w", cause)
	}
	f.closeAll()
	aside, err := putAside(f.path, now)
	if err != nil {
		return nil, err
	}
	f.lastReset = now
	f.j.tellReset(fmt.Sprintf("broken database put aside as %s, a new one takes what can be read of it and the log that is left", aside), cause)
	f.old = aside
	return f.openFile(ctx)
}

// openFile opens the database, and tells what a new one took of a broken one.
func (f *filler) openFile(ctx context.Context) (*database, error) {
	d, err := openDatabase(ctx, f.path, f.old)
	if err != nil || f.old == "" {
		return d, err
	}
	f.j.log.Warn("journal rows saved from the broken database", d.saved...)
	f.old = ""
	return d, nil
}

func (f *filler) closeAll() {
	f.setReading(nil)
	if f.database != nil {
		f.database.close()
		f.database = nil
	}
}

// setReading replaces the pool of queries. Queries that run on the old one end
// with an error.
func (f *filler) setReading(db *sql.DB) {
	f.readingMu.Lock()
	old := f.reading
	f.reading = db
	f.readingMu.Unlock()
	if old != nil {
		old.Close()
	}
}

func (f *filler) pool() *sql.DB {
	f.readingMu.RLock()
	defer f.readingMu.RUnlock()
	return f.reading
}

// kick makes the filler look at the log soon.
func (f *filler) kick() {
	select {
	case f.kicks <- struct{}{}:
	default:
	}
}

func (f *filler) run() {
	tick := time.NewTicker(fillPeriod)
	defer tick.Stop()
	purge := time.NewTicker(purgePeriod)
	defer purge.Stop()
	size := time.NewTicker(sizePeriod)
	defer size.Stop()
	f.catchUp()
	f.deleteSegments()
	f.purge(f.j.options.Now())
	for {
		select {
		case <-f.j.stop:
			return
		case job := <-f.jobs:
			f.do(job)
			continue
		case <-purge.C:
			f.purge(f.j.options.Now())
			continue
		case <-size.C:
			f.shrink()
			continue
		case <-f.kicks:
		case <-tick.C:
		}
		f.catchUp()
	}
}

// catchUp fills until all that is written is in the database, or until it goes
// no further.
func (f *filler) catchUp() {
	for {
		select {
		case <-f.j.stop:
			return
		case job := <-f.jobs:
			f.do(job)
		default:
		}
		more, err := f.step()
		if err != nil {
			f.setLag()
			return
		}
		if !more {
			f.lag.Store(0)
			return
		}
	}
}

// step brings one batch into the database.
func (f *filler) step() (more bool, err error) {
	if time.Now().Before(f.retry) {
		return false, f.lastError()
	}
	if f.suspect.Swap(false) && f.database != nil {
		if err := f.examine(); err != nil {
			return false, f.recover(err)
		}
	}
	if f.database == nil {
		if f.open(context.Background()); f.database == nil {
			return false, f.lastError()
		}
	}
	end := *f.j.file.end.Load()
	at := f.database.at
	if end.segment < at.segment { // another log than the one that was read
		f.j.log.Warn("journal log is older than what the database has of it: read from its beginning", "segment", end.segment, "read", at.segment)
		at = position{}
	}
	b, err := f.scan.read(at, end)
	if err != nil && b.lines == 0 {
		if f.unread++; f.unread < readRetries || b.next.segment >= end.segment {
			return false, f.failed(err)
		}
		f.j.log.Error("journal log segment left out: it cannot be read", "segment", b.next.segment, "offset", b.next.offset, "error", err.Error())
		b.next = position{segment: b.next.segment + 1}
	}
	f.unread = 0
	if b.next == f.database.at {
		f.reached(b.next)
		return false, nil
	}
	faults, err := f.database.store(&b)
	if err != nil {
		return false, f.recover(err)
	}
	f.filled.Add(int64(b.lines - b.damaged))
	if bad := b.damaged + faults; bad > 0 {
		f.damaged.Add(int64(bad))
		f.j.log.Warn("journal lines could not be read", "lines", bad, "segment", b.next.segment)
	}
	f.reached(b.next)
	if b.next.segment != at.segment {
		f.deleteSegments()
	}
	return b.next.before(end), nil
}

// examine looks for the damage that a query met. The database is opened anew
// for it: what this side has in its cache may be well. If it finds nothing twice
// within a short time the queries are believed.
func (f *filler) examine() error {
	now := time.Now()
	again := !f.examined.IsZero() && now.Sub(f.examined) < suspectPause
	f.examined = now
	f.closeAll()
	if again {
		return fmt.Errorf("%w: a query met damage again", errBroken)
	}
	f.open(context.Background())
	if f.database == nil {
		return f.lastError()
	}
	return f.database.check(context.Background(), checkTime)
}

// recover does what can be done about an error of the database.
func (f *filler) recover(err error) error {
	if isBroken(err) {
		d, resetErr := f.reset(context.Background(), err)
		if resetErr != nil {
			f.closeAll()
			return f.failed(errors.Join(err, resetErr))
		}
		reading, openErr := openReading(f.path, "mode=rw")
		if openErr != nil {
			d.close()
			return f.failed(openErr)
		}
		f.database = d
		f.setReading(reading)
		f.opened(d.at)
		f.kick()
		return err
	}
	if f.database != nil { // a fresh one may see that the disk is well again
		f.database.close()
		f.database = nil
	}
	return f.failed(fmt.Errorf("fill database: %w", err))
}

// failed tells that the database goes no further, and when to try again.
func (f *filler) failed(err error) error {
	f.pause = min(fillBackOff, max(fillPeriod, 2*f.pause))
	f.retry = time.Now().Add(f.pause)
	f.mu.Lock()
	f.err = err
	f.announce()
	f.mu.Unlock()
	f.j.setDatabaseHealth(err)
	return err
}

func (f *filler) lastError() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// opened tells how far a database that was just opened has the log. Whether it takes
// rows again shows itself when it is given some: a full disk can be opened.
func (f *filler) opened(p position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at != p {
		f.at = p
		f.announce()
	}
}

// reached tells that the database has the log so far, and goes on.
func (f *filler) reached(p position) {
	f.pause, f.retry = 0, time.Time{}
	f.mu.Lock()
	cleared := f.err != nil
	if f.at != p || cleared {
		f.at, f.err = p, nil
		f.announce()
	}
	f.mu.Unlock()
	if cleared {
		f.j.setDatabaseHealth(nil)
	}
}

// announce wakes who waits; the caller holds mu.
func (f *filler) announce() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// wait waits until the database has the log up to target.
func (f *filler) wait(ctx context.Context, target position) error {
	for {
		f.mu.Lock()
		at, err, changed := f.at, f.err, f.changed
		f.mu.Unlock()
		if !at.before(target) {
			return nil
		}
		if err != nil {
			return err
		}
		f.kick()
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the journal's database: %w", ctx.Err())
		case <-f.j.stop:
			return ErrClosed
		case <-changed:
		}
	}
}

// ask runs work on the writing side.
func (f *filler) ask(ctx context.Context, work func(*database) error) error {
	job := job{work, make(chan error, 1)}
	select {
	case f.jobs <- job:
	case <-ctx.Done():
		return ctx.Err()
	case <-f.j.stop:
		return ErrClosed
	}
	select {
	case err := <-job.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *filler) do(j job) {
	if f.database == nil {
		j.done <- fmt.Errorf("journal database: %w", errors.Join(errors.New("not open"), f.lastError()))
		return
	}
	err := j.work(f.database)
	if err != nil && isBroken(err) {
		f.suspect.Store(true)
	}
	j.done <- err
}

// deleteSegments deletes those that the database has and that are neither among
// the newest Options.KeepLogBytes nor within retention.
func (f *filler) deleteSegments() {
	if f.database == nil {
		return
	}
	segments, err := listSegments(f.j.file.dir)
	if err != nil {
		return // told when it is read
	}
	oldest := f.j.options.Now().Add(-f.j.options.Retention.Addresses)
	var kept int64
	for i := len(segments) - 1; i >= 0; i-- {
		s := segments[i]
		if s.number >= f.database.at.segment {
			continue
		}
		if kept += s.size; kept <= f.j.options.KeepLogBytes && s.newest.After(oldest) {
			continue
		}
		if err := os.Remove(filepath.Join(f.j.file.dir, segmentName(s.number))); err != nil {
			f.j.log.Warn("journal log segment cannot be deleted", "segment", s.number, "error", err.Error())
			continue
		}
		f.j.file.bytes.Add(-s.size)
	}
}

// setLag counts the log that is not in the database.
func (f *filler) setLag() {
	f.mu.Lock()
	at := f.at
	f.mu.Unlock()
	segments, err := listSegments(f.j.file.dir)
	if err != nil {
		return
	}
	var lag int64
	for _, s := range segments {
		switch {
		case s.number > at.segment:
			lag += s.size
		case s.number == at.segment:
			lag += max(0, s.size-at.offset)
		}
	}
	f.lag.Store(lag)
}

// close ends it; its goroutine has ended.
func (f *filler) close() error {
	f.scan.close()
	f.setReading(nil)
	if f.database == nil {
		return nil
	}
	d := f.database
	f.database = nil
	if err := d.close(); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	return nil
}
