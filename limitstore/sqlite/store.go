package sqlite

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

	"relayguard/policy/limit"
)

// Options say where and how. Zero values stand for what is in brackets.
type Options struct {
	Path   string              // of the file; its directory is made if it is missing
	Memory limit.MemoryOptions // its bounds are the file's, too
	Every  time.Duration       // between two writes [50 ms]
	Log    *slog.Logger        // [discards]

	// Now is the clock by which buckets in the file expire. [time.Now]
	Now func() time.Time
}

// DefaultEvery is Options.Every: with the write itself well below 100 ms.
const DefaultEvery = 50 * time.Millisecond

// ErrInUse: another process has the file open.
var ErrInUse = errors.New("another process has it open; end that one first")

// ErrClosed: the store is closed.
var ErrClosed = errors.New("the store is closed")

// Store is a limit.Store and a limit.Keeper. It is safe for concurrent use.
type Store struct {
	options Options
	log     *slog.Logger
	memory  *limit.Memory

	mu        sync.Mutex // of what follows; mail never takes it
	lock      *os.File   // locked while we run; nil: not yet
	file      *file      // nil: not open
	unwritten []change   // taken from memory, not yet in the file
	afresh    bool       // the file is new: all of memory is to be written
	retry     time.Time  // of what failed
	pause     time.Duration
	lastReset time.Time
	shut      bool // by Close

	health   health
	unsynced atomic.Bool // committed since the disk was told to write
	cancel   context.CancelFunc
	closed   sync.Once
	ended    sync.WaitGroup
}

// Open reads the file into memory, makes it if there is none, and starts the
// goroutines that write it; Close ends them. It fails only if another process
// has the file, or without a path. With a file that cannot be read or written it
// returns a store that works from memory, and says so in Health and the log.
func Open(ctx context.Context, options Options) (*Store, error) {
	path, err := filepath.Abs(options.Path)
	if err != nil || options.Path == "" {
		return nil, errors.Join(fmt.Errorf("open limits %q: want the path of a file", options.Path), err)
	}
	options.Path = path
	if options.Every <= 0 {
		options.Every = DefaultEvery
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	s := &Store{options: options, log: options.Log, memory: limit.NewMemoryOf(options.Memory)}
	err = s.acquire()
	if errors.Is(err, ErrInUse) {
		return nil, err
	}
	if err == nil {
		err = s.open(ctx)
	}
	if err != nil {
		s.failed(err)
		s.peruse(ctx)
	}
	s.Sweep(options.Now())
	var background context.Context // not ctx, which may be that of the start
	background, s.cancel = context.WithCancel(context.Background())
	for _, work := range []func(context.Context){s.write, s.sync, s.tidy} {
		s.ended.Go(func() { work(background) })
	}
	return s, nil
}

// acquire locks a file beside ours, as ours may be put aside.
func (s *Store) acquire() error {
	if s.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.options.Path), 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	lock, err := os.OpenFile(s.options.Path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock file: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return fmt.Errorf("open limits %s: %w", s.options.Path, err)
	}
	s.lock = lock
	return nil
}

// Spend is limit.Store's.
func (s *Store) Spend(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	return s.memory.Spend(ctx, now, step, out)
}

// Peek is limit.Store's.
func (s *Store) Peek(ctx context.Context, now time.Time, step *limit.Step, out *limit.Outcome) error {
	return s.memory.Peek(ctx, now, step, out)
}

// Add is limit.Store's.
func (s *Store) Add(ctx context.Context, now time.Time, step *limit.Step) error {
	return s.memory.Add(ctx, now, step)
}

// Resume is limit.Store's.
func (s *Store) Resume(ctx context.Context, now time.Time, key limit.Key) error {
	return s.memory.Resume(ctx, now, key)
}

// Reset is limit.Store's.
func (s *Store) Reset(ctx context.Context, now time.Time, key limit.Key) error {
	return s.memory.Reset(ctx, now, key)
}

// Each is limit.Keeper's: what memory knows, which is all there is.
func (s *Store) Each(ctx context.Context, fn func(limit.Entry) error) error {
	return s.memory.Each(ctx, fn)
}

// Put is limit.Keeper's. It may wait for the disk, and fails if the file cannot
// be written and much waits already; memory has the entry then.
func (s *Store) Put(ctx context.Context, e limit.Entry) error {
	s.mu.Lock() // nothing of what memory knew before is written after it
	defer s.mu.Unlock()
	if err := s.memory.Put(ctx, e); err != nil {
		return err
	}
	s.unwritten = append(s.unwritten, change{e, true})
	if rows(s.unwritten) < batchRows {
		return nil
	}
	if err := s.writeOut(ctx); err != nil {
		if rows(s.unwritten) > mostUnwritten {
			s.unwritten = s.unwritten[:len(s.unwritten)-1]
			return fmt.Errorf("put into %s: %w", s.options.Path, err)
		}
	}
	return nil
}

// Len is the number of buckets.
func (s *Store) Len() int { return s.memory.Len() }

// Evicted is how many buckets were forgotten before their time, for want of
// room. It should be 0.
func (s *Store) Evicted() uint64 { return s.memory.Evicted() }

// Sweep removes buckets that make no difference at now from memory and returns
// their number. The file's go by themselves.
func (s *Store) Sweep(now time.Time) int {
	n := s.memory.Sweep(now)
	s.tellAhead()
	return n
}

// Flush writes all that changed before it was called: kill -9 then loses nothing
// of it. It does not wait for the disk itself.
func (s *Store) Flush(ctx context.Context) error {
	s.mu.Lock()
	s.retry = time.Time{} // at once
	s.mu.Unlock()
	for {
		more, err := s.step(ctx)
		if err != nil {
			return fmt.Errorf("write limits: %w", err)
		}
		if !more {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("write limits: %w", err)
		}
	}
}

// Close writes what is left, for at most five seconds, and ends the goroutines.
// It returns an error if something is not in the file.
func (s *Store) Close() error {
	err := ErrClosed
	s.closed.Do(func() {
		s.cancel()
		s.ended.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = s.Flush(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.file != nil {
			err = errors.Join(err, s.file.close())
			s.file = nil
		}
		s.shut = true
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
	})
	return err
}

var (
	_ limit.Store  = (*Store)(nil)
	_ limit.Keeper = (*Store)(nil)
)
