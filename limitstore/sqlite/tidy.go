package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"relayguard/policy/limit"
)

const (
	tidyEvery = time.Second
	tidyRows  = 5000     // looked at in one go: a million in some minutes
	smallWAL  = 4 << 20  // octets; below it the log is moved every few ticks
	largeWAL  = 64 << 20 // above it nothing is written meanwhile
	calmTicks = 10
)

// tidy deletes what expired and moves SQLite's log into the file, beside what
// is written.
func (s *Store) tidy(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	p := pass{after: []byte{}}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.expire(ctx, &p)
		if size := sizeOf(s.options.Path + "-wal"); size > smallWAL || size > 0 && n%calmTicks == 0 {
			err = errors.Join(err, s.moveLog(ctx, size > largeWAL))
		}
		if isBroken(err) { // who writes may not meet that page for long; all else it meets, and tells
			s.mu.Lock()
			_ = s.recover(ctx, err)
			s.mu.Unlock()
		}
	}
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// side is the pool for what is done beside writing; nil without a file.
func (s *Store) side() *sql.DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || s.afresh {
		return nil
	}
	return s.file.side
}

// moveLog writes SQLite's log into the file. If it has become long, as under a
// flood, nothing is added to it meanwhile.
func (s *Store) moveLog(ctx context.Context, long bool) error {
	side, mode := s.side(), "PASSIVE"
	if side == nil {
		return nil
	}
	if long {
		s.mu.Lock()
		defer s.mu.Unlock()
		mode = "TRUNCATE"
	}
	_, err := side.ExecContext(ctx, "PRAGMA wal_checkpoint("+mode+")")
	return err
}

// pass is one way through the buckets, in the order of their keys.
type pass struct {
	after []byte    // what was looked at
	until time.Time // zero: now. Later, if the file has more buckets than memory may
}

// expire deletes those of the next few buckets that make no difference any more.
func (s *Store) expire(ctx context.Context, p *pass) error {
	side := s.side()
	if side == nil {
		return nil
	}
	var to []byte
	err := side.QueryRowContext(ctx, "SELECT key FROM bucket WHERE key > ? ORDER BY key LIMIT 1 OFFSET ?", p.after, tidyRows-1).Scan(&to)
	last := errors.Is(err, sql.ErrNoRows)
	if err != nil && !last {
		return fmt.Errorf("look for expired buckets: %w", err)
	}
	text, args := "DELETE FROM bucket WHERE key > ? AND expires <> 0 AND expires <= ?", []any{p.after, max(micros(s.options.Now()), micros(p.until))}
	if !last {
		text, args = text+" AND key <= ?", append(args, to)
	}
	if err := s.delete(ctx, text, args...); err != nil {
		return err
	}
	p.after = to
	if !last {
		return nil
	}
	p.after = []byte{}
	if err := removeBrokenBefore(s.options.Path, s.options.Now().Add(-brokenTime)); err != nil {
		s.log.Warn("limits file put aside cannot be deleted", "error", oneLine(err))
	}
	p.until, err = s.overflow(ctx, side)
	return err
}

func (s *Store) delete(ctx context.Context, text string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	if _, err := s.file.conn.ExecContext(ctx, text, args...); err != nil {
		return fmt.Errorf("delete expired buckets: %w", err)
	}
	s.unsynced.Store(true)
	return nil
}

// overflow is the time before which buckets have to go although they would make
// a difference: memory forgets the oldest for want of room and tells nobody, and
// the file must not grow for ever.
func (s *Store) overflow(ctx context.Context, side *sql.DB) (time.Time, error) {
	most := max(cmp.Or(s.options.Memory.Buckets, limit.DefaultBuckets), s.memory.Len()) // which has some headroom
	var n int
	if err := side.QueryRowContext(ctx, "SELECT count(*) FROM bucket").Scan(&n); err != nil {
		return time.Time{}, fmt.Errorf("count buckets: %w", err)
	}
	if n <= most+most/4 {
		return time.Time{}, nil
	}
	var until int64
	err := side.QueryRowContext(ctx, "SELECT expires FROM bucket WHERE expires <> 0 ORDER BY expires LIMIT 1 OFFSET ?", n-most-1).Scan(&until)
	if errors.Is(err, sql.ErrNoRows) { // nearly all are shut
		return time.Time{}, nil
	}
	return time.UnixMicro(until), err
}
