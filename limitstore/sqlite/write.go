package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"relayguard/policy/limit"
)

const (
	batchRows     = 4096 // of one transaction: some 20 ms
	mostUnwritten = 4 * batchRows
	dirtyAtOnce   = 256 // entries; one may be a thousand rows

	firstPause   = 200 * time.Millisecond // after a failure, doubled
	longestPause = 2 * time.Second
	resetPause   = time.Minute // between two files put aside, lest a bad disk keeps us busy
	syncEvery    = time.Second
)

// write brings what changed to the file until ctx ends.
func (s *Store) write(ctx context.Context) {
	tick := time.NewTicker(s.options.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for more := true; more && ctx.Err() == nil; {
			more, _ = s.step(ctx) // failed has told it
		}
	}
}

// step writes a batch; more: there is another one.
func (s *Store) step(ctx context.Context) (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return false, err // memory keeps what waits
	}
	n := rows(s.unwritten)
	for n < batchRows {
		before := len(s.unwritten)
		told := s.memory.Dirty(dirtyAtOnce, func(e limit.Entry) { s.unwritten = append(s.unwritten, change{Entry: e}) })
		n += rows(s.unwritten[before:])
		if told < dirtyAtOnce {
			break
		}
	}
	if err := s.writeOut(ctx); err != nil {
		return false, err
	}
	if n < batchRows {
		s.health.upToDate()
	}
	return n >= batchRows, nil
}

// writeOut writes what is unwritten, to a new file all of memory. It looks after
// the file first, also if there is nothing to write.
func (s *Store) writeOut(ctx context.Context) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if s.file.away() {
		s.afresh = true
		return s.failed(fmt.Errorf("%s was removed, replaced or emptied while it was in use; all that is in memory is written to a new one", s.options.Path))
	}
	var err error
	switch {
	case s.afresh:
		err = s.writeAll(ctx)
	case len(s.unwritten) > 0:
		err = s.file.store(s.unwritten)
	case s.health.error() != nil: // is the disk well again?
		err = s.file.touch(ctx)
	default:
		return nil
	}
	if err != nil {
		return s.recover(ctx, err)
	}
	s.well()
	clear(s.unwritten) // for the garbage collector
	s.unwritten = s.unwritten[:0]
	s.unsynced.Store(true)
	return nil
}

// ready sees to it that the file is open, unless it is too early to try again.
func (s *Store) ready(ctx context.Context) error {
	switch {
	case s.shut:
		return ErrClosed
	case time.Now().Before(s.retry):
		return s.health.error()
	}
	if s.file != nil {
		return nil
	}
	err := s.acquire()
	if err == nil {
		s.file, err = openFile(ctx, s.options.Path, s.afresh)
	}
	if err != nil {
		return s.recover(ctx, err)
	}
	return nil
}

// writeAll writes all of memory to a new file. Nothing else is written
// meanwhile: it could be newer.
func (s *Store) writeAll(ctx context.Context) error {
	var batch []change
	n := 0
	err := s.memory.Each(ctx, func(e limit.Entry) error {
		c := change{e, true}
		batch = append(batch, c)
		if n += rows(batch[len(batch)-1:]); n < batchRows {
			return nil
		}
		err := errors.Join(s.file.store(batch), ctx.Err())
		clear(batch)
		batch, n = batch[:0], 0
		return err
	})
	if err == nil {
		err = s.file.store(batch)
	}
	if err == nil {
		_, err = s.file.conn.ExecContext(ctx, "UPDATE whole SET yes = 1")
	}
	if err == nil {
		s.afresh = false
	}
	return err
}

// recover does what can be done about an error of the file: one that is broken
// is put aside, and memory is written to a new one.
func (s *Store) recover(ctx context.Context, err error) error {
	if !isBroken(err) {
		return s.failed(err)
	}
	if _, replaced := s.replace(ctx, err); replaced != nil {
		return s.failed(replaced)
	}
	s.health.reset(fmt.Sprintf("%s was broken and was put aside; all that is in memory is written to a new file", s.options.Path))
	return err // the next attempt writes
}

// replace puts a broken file aside and makes a new one.
func (s *Store) replace(ctx context.Context, cause error) (aside string, err error) {
	s.closeFile()
	now := time.Now()
	if !s.lastReset.IsZero() && now.Sub(s.lastReset) < resetPause {
		return "", fmt.Errorf("broken again soon after it was made new: %w", cause)
	}
	if aside, err = putAside(s.options.Path, s.options.Now()); err != nil {
		return "", err
	}
	lengthen(aside)
	s.lastReset, s.afresh = now, true
	s.log.Error("limits file was broken: put aside, a new one is made", "file", s.options.Path, "aside", aside, "error", oneLine(cause))
	s.file, err = openFile(ctx, s.options.Path, true)
	return aside, err
}

func (s *Store) closeFile() {
	if s.file != nil {
		_ = s.file.close() // what it had to say was said
		s.file = nil
	}
}

// failed tells that nothing is written, and when to try again. The file is opened
// anew then: that sees whether the disk is well again.
func (s *Store) failed(err error) error {
	s.closeFile()
	s.pause = min(longestPause, max(firstPause, 2*s.pause))
	s.retry = time.Now().Add(s.pause)
	if s.health.fail(err) {
		s.log.Error("counters are not written to their file: they are kept in memory", "file", s.options.Path, "error", oneLine(err))
	}
	return err
}

// well tells that the file was written, again or at last.
func (s *Store) well() {
	s.pause, s.retry = 0, time.Time{}
	if s.health.heal() {
		s.log.Info("counters are written to their file again", "file", s.options.Path)
	}
}

// sync has the disk write once a second what was committed: SQLite itself does
// so only when it moves its log (WAL) into the file.
func (s *Store) sync(ctx context.Context) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.unsynced.Swap(false) {
			continue
		}
		// The log may be new: its name is in the directory.
		err := errors.Join(syncFile(s.options.Path+"-wal"), syncFile(filepath.Dir(s.options.Path)))
		if s.health.unsafe(err) {
			s.log.Error("counters may not survive a power failure", "file", s.options.Path, "error", oneLine(err))
		}
	}
}

// syncFile has the disk write a file, or a directory. One that is not there was
// written by who removed it.
func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Fdatasync(int(f.Fd())); err != nil {
		return fmt.Errorf("fdatasync %s: %w", path, err)
	}
	return nil
}
