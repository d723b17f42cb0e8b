// Package journal keeps what the guard decided, held and was told to do.
//
// A record is first a line of a log: Append writes it before it returns, so
// that kill -9 right after a reply loses nothing; Note buffers it for less than
// 100 ms. One goroutine fills an SQLite database from the log; how far it came
// is stored in the transaction that stores the rows, so each line counts once.
// Searches read the database. Nothing of this is waited for on the mail path,
// and all of it is bounded.
//
// Neither a full or read-only disk nor a broken database stops the guard: stops,
// holds and admin actions wait in memory, and a broken database is put aside; a
// new one takes what can be read of it (open holds, values, incidents, admin
// actions), and the log that is left. Health and the log say so.
//
// The trap: a name for a row can be used again. Queue ids are, so a hold is
// named by queue id and decision id together.
//
// It keeps no recipients' addresses, subjects or bodies; it decides nothing.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Options say where and how much. Zero values stand for what is in brackets.
type Options struct {
	Dir string       // [/var/lib/relayguard/journal]
	Log *slog.Logger // [discards]

	AcceptedPerSecond int   // rows about accepted mail; the rest is dropped and counted [500]
	SegmentBytes      int64 // of one file of the log [8 MiB]
	KeepLogBytes      int64 // of log that the database has, kept to fill a new one from [64 MiB]
	MaxLogBytes       int64 // of log; over it rows about accepted mail are dropped [1 GiB]
	MinFree           int64 // on the disk; below it rows about accepted mail are dropped [64 MiB]
	MaxDatabaseBytes  int64 // in use; over it the oldest rows about accepted mail go early [4 GiB]
	BacklogRecords    int   // stops, holds and admin actions that wait in memory [100,000]
	BacklogBytes      int64 // the same in octets [64 MiB]

	Retention Retention

	// Now is the clock of retention and of what is dropped. [time.Now]
	Now func() time.Time

	// Settle bounds how long a search waits for what was appended just before. [a second]
	Settle time.Duration
}

// Retention is how long rows are kept. Zero values stand for the brackets.
type Retention struct {
	Addresses time.Duration // decisions, closed holds, the log [30 days]
	Totals    time.Duration // and closed incidents [400 days]
	Actions   time.Duration // of admins [3 years]
}

// Defaults, and the bounds that are not configured.
const (
	DefaultDir = "/var/lib/relayguard/journal"

	dayLength = 24 * time.Hour

	notesRecords  = 50_000 // repeats, deliveries, values, incidents that wait
	notesBytes    = 16 << 20
	acceptedBytes = 4 << 20
	acceptedCount = 10_000

	flushDelay = 25 * time.Millisecond // of a Note; with the write well below 100 ms
	flushBytes = 1 << 20               // then at once
	keepPeriod = time.Second           // between fdatasyncs
)

func (o *Options) defaults() {
	set(&o.Dir, DefaultDir)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	set(&o.AcceptedPerSecond, 500)
	set(&o.SegmentBytes, 8<<20)
	set(&o.KeepLogBytes, 64<<20)
	set(&o.MaxLogBytes, 1<<30)
	set(&o.MinFree, 64<<20)
	set(&o.MaxDatabaseBytes, 4<<30)
	set(&o.BacklogRecords, 100_000)
	set(&o.BacklogBytes, 64<<20)
	set(&o.Retention.Addresses, 30*dayLength)
	set(&o.Retention.Totals, 400*dayLength)
	set(&o.Retention.Actions, 3*365*dayLength)
	set(&o.Settle, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
}

func set[T comparable](v *T, standard T) {
	var zero T
	if *v == zero {
		*v = standard
	}
}

// Errors that a caller can tell apart.
var (
	// ErrInUse: another daemon has the journal open.
	ErrInUse = errors.New("the journal is in use by another process")
	// ErrLost: there was no room left even in memory.
	ErrLost = errors.New("no room left in memory: record lost")
	// ErrClosed: the journal is closed.
	ErrClosed = errors.New("the journal is closed")
)

// Journal is the journal opened for writing. Its methods are safe for
// concurrent use.
type Journal struct {
	options Options
	log     *slog.Logger
	queue   queue
	file    logFile
	filler  *filler
	lock    *os.File // locked while we run; nil if there was nothing to lock

	wake   chan struct{} // something was noted
	hurry  chan struct{} // much was noted
	stop   chan struct{}
	closed atomic.Bool
	ended  sync.WaitGroup

	rate     rate
	lowSpace atomic.Bool // less than MinFree
	longLog  atomic.Bool // more than MaxLogBytes
	failing  atomic.Bool // the log cannot be written

	appended, noted, droppedAccepted, dropped, lost atomic.Int64

	healthMu sync.Mutex
	health   Health
}

// Open opens the journal for writing and starts its goroutines; Close ends
// them. It fails only if another process has the journal open. With a broken
// database or a directory that cannot be written it returns a journal that
// works from memory as far as it must, and says so in Health and the log.
func Open(ctx context.Context, options Options) (*Journal, error) {
	options.defaults()
	j := &Journal{
		options: options,
		log:     options.Log,
		wake:    make(chan struct{}, 1),
		hurry:   make(chan struct{}, 1),
		stop:    make(chan struct{}),
		rate:    rate{perSecond: float64(options.AcceptedPerSecond), room: float64(options.AcceptedPerSecond)},
	}
	j.queue.bounds = [classes]bound{
		dear:     {options.BacklogRecords, options.BacklogBytes},
		ordinary: {notesRecords, notesBytes},
		accepted: {acceptedCount, acceptedBytes},
	}
	j.file.dir = filepath.Join(options.Dir, logDirectory)
	j.file.segmentBytes = options.SegmentBytes
	j.file.now = options.Now
	j.file.end.Store(&position{})
	if err := j.acquire(); errors.Is(err, ErrInUse) {
		return nil, err
	} else if err != nil {
		j.file.err = err
		j.signal() // to try again
	}
	segments, err := listSegments(j.file.dir)
	if err != nil {
		j.setLogHealth(fmt.Errorf("read log directory: %w", err))
	}
	for _, s := range segments {
		j.file.bytes.Add(s.size)
		j.file.end.Store(&position{s.number, s.size})
	}
	j.filler = newFiller(j)
	j.filler.open(ctx)
	j.watchSpace()
	j.ended.Go(j.write)
	j.ended.Go(j.keep)
	j.ended.Go(j.filler.run)
	return j, nil
}

const (
	logDirectory = "log"
	databaseName = "journal.db"
)

// acquire makes the directory and locks it, if it can be. The lock is on the
// directory itself: that needs no room on the disk.
func (j *Journal) acquire() error {
	if j.lock != nil {
		return nil
	}
	err := os.MkdirAll(j.file.dir, 0o700)
	dir, openErr := os.Open(j.options.Dir)
	if openErr != nil {
		err = errors.Join(err, openErr)
		j.setLogHealth(fmt.Errorf("make journal directory: %w", err))
		return err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		dir.Close()
		return fmt.Errorf("open journal %s: %w", j.options.Dir, ErrInUse)
	} else if err != nil {
		j.log.Warn("journal directory cannot be locked", "dir", j.options.Dir, "error", err.Error())
	}
	j.lock = dir
	return nil
}

// Append writes the records with one write(2) before it returns. After an
// error they are kept in memory and written as soon as that works again, but
// for what ErrLost says: an error tells that a crash now would lose them.
//
// A record of a size or content that cannot be stored is an error, too; those
// beside it are written.
func (j *Journal) Append(records ...Record) error {
	if j.closed.Load() {
		return ErrClosed
	}
	var last uint64
	var errs []error
	for _, r := range records {
		n, ok, err := j.queue.add(r)
		switch {
		case err != nil:
			j.lost.Add(1)
			errs = append(errs, fmt.Errorf("append to journal: %w", err))
		case !ok:
			errs = append(errs, fmt.Errorf("append to journal: %w", ErrLost))
			j.countLost(r)
		default:
			last = n
			j.appended.Add(1)
		}
	}
	if last == 0 {
		return errors.Join(errs...)
	}
	if err := j.file.flushTo(&j.queue, last); err != nil {
		j.setLogHealth(err)
		j.signal() // to try again
		errs = append(errs, fmt.Errorf("append to journal: %w", err))
	} else if j.failing.Load() {
		j.setLogHealth(nil)
	}
	return errors.Join(errs...)
}

// Spares reports whether Note would take a row about accepted mail. If not, the
// row is counted as dropped: who asks first need not make it.
func (j *Journal) Spares() bool {
	if j.spareNone() || !j.rate.has(j.options.Now()) {
		j.droppedAccepted.Add(1)
		return false
	}
	return true
}

// spareNone reports that rows about accepted mail have to stay out, for the sake
// of what may not be lost.
func (j *Journal) spareNone() bool {
	return j.lowSpace.Load() || j.longLog.Load() || j.failing.Load()
}

// Note takes a record that is written within 100 ms. It never waits for a disk.
// Rows about accepted mail beyond Options.AcceptedPerSecond, and what does not
// fit into the bounds of memory, are dropped and counted.
func (j *Journal) Note(r Record) {
	if j.closed.Load() {
		return
	}
	if r.class() == accepted && (j.spareNone() || !j.rate.take(j.options.Now())) {
		j.droppedAccepted.Add(1)
		return
	}
	_, ok, err := j.queue.add(r)
	switch {
	case err != nil:
		j.lost.Add(1)
		j.log.Error("journal record cannot be stored", "error", err.Error())
		return
	case !ok:
		j.countLost(r)
		return
	}
	j.noted.Add(1)
	j.signal()
	if j.queue.large() {
		select {
		case j.hurry <- struct{}{}:
		default:
		}
	}
}

// signal wakes write.
func (j *Journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// countLost counts a record that found no room.
func (j *Journal) countLost(r Record) {
	switch r.class() {
	case accepted:
		j.droppedAccepted.Add(1)
	case dear:
		if j.lost.Add(1) == 1 {
			j.log.Error("journal loses records: no room left in memory", "records", j.options.BacklogRecords, "bytes", j.options.BacklogBytes)
		}
	default:
		j.dropped.Add(1)
	}
}

// write brings notes to the log, and tries again while the log cannot be
// written.
func (j *Journal) write() {
	const longest = 5 * time.Second
	pause := flushDelay
	for {
		select {
		case <-j.stop:
			return
		case <-j.wake:
		}
		select {
		case <-j.stop:
			return
		case <-time.After(pause):
		case <-j.hurryUnless(pause > flushDelay):
		}
		if err := j.file.flush(&j.queue, true); err != nil {
			j.setLogHealth(err)
			pause = min(2*pause, longest)
			j.signal() // to try again, whether or not something comes
			continue
		}
		pause = flushDelay
		if j.failing.Load() {
			j.setLogHealth(nil)
		}
		j.filler.kick()
	}
}

// hurryUnless is the channel that cuts the delay short, or none.
func (j *Journal) hurryUnless(backingOff bool) <-chan struct{} {
	if backingOff {
		return nil
	}
	return j.hurry
}

// keep syncs the log once a second and looks after its room.
func (j *Journal) keep() {
	tick := time.NewTicker(keepPeriod)
	defer tick.Stop()
	syncFailed := false
	for {
		select {
		case <-j.stop:
			return
		case <-tick.C:
		}
		if j.lock == nil {
			if err := j.acquire(); errors.Is(err, ErrInUse) {
				j.setLogHealth(err)
			}
		}
		j.file.verify()
		err := j.file.sync()
		if err != nil && !syncFailed {
			j.log.Error("journal log may not survive a power failure", "error", err.Error())
		}
		syncFailed = err != nil
		j.watchSpace()
	}
}

// watchSpace looks at the disk and the length of the log, and tells when what
// is written changes with them.
func (j *Journal) watchSpace() {
	free, err := freeBytes(j.options.Dir)
	low := err == nil && free < j.options.MinFree
	if j.lowSpace.Swap(low) != low {
		if low {
			j.log.Error("disk nearly full: rows about accepted mail are not written", "dir", j.options.Dir, "free", free, "wanted", j.options.MinFree)
		} else {
			j.log.Info("disk has room again: rows about accepted mail are written", "dir", j.options.Dir, "free", free)
		}
	}
	length := j.file.bytes.Load()
	long := length > j.options.MaxLogBytes
	if j.longLog.Swap(long) != long {
		if long {
			j.log.Error("journal log too long: rows about accepted mail are not written", "bytes", length, "most", j.options.MaxLogBytes)
		} else {
			j.log.Info("journal log short again: rows about accepted mail are written", "bytes", length)
		}
	}
}

// Sync waits until all that was appended or noted so far is in the database. It
// returns early with the reason if that is not going to happen soon.
func (j *Journal) Sync(ctx context.Context) error {
	if j.closed.Load() {
		return ErrClosed
	}
	if err := j.file.flush(&j.queue, true); err != nil {
		j.setLogHealth(err)
		j.signal()
		return err
	}
	return j.filler.wait(ctx, *j.file.end.Load())
}

// settle waits for what was appended just before.
func (j *Journal) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, j.options.Settle)
	defer cancel()
	_ = j.Sync(ctx) // the query answers with what there is
}

// Close writes what is left, lets the database catch up for at most five
// seconds, and ends the goroutines. It returns an error if records are lost by
// it. It may be called once only.
func (j *Journal) Close() error {
	if j.closed.Swap(true) {
		return ErrClosed
	}
	err := j.file.flush(&j.queue, true)
	if err != nil {
		records, _ := j.queue.length()
		err = fmt.Errorf("close journal: %d records lost: %w", records, err)
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = j.filler.wait(ctx, *j.file.end.Load()) // the rest stays in the log
		cancel()
	}
	close(j.stop)
	j.ended.Wait()
	err = errors.Join(err, j.file.close(), j.filler.close())
	if j.lock != nil {
		j.lock.Close()
	}
	return err
}

// rate is a token bucket for rows about accepted mail: a second's worth may
// come at once.
type rate struct {
	perSecond float64

	mu   sync.Mutex
	room float64
	last time.Time
}

func (r *rate) take(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.refill(now) {
		return false
	}
	r.room--
	return true
}

// has is take without taking.
func (r *rate) has(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refill(now)
}

func (r *rate) refill(now time.Time) bool {
	if passed := now.Sub(r.last); passed > 0 {
		r.room = min(r.perSecond, r.room+passed.Seconds()*r.perSecond)
		r.last = now
	}
	return r.room >= 1
}
