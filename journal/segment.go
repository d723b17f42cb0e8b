package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// position is a place in the log: an octet of a segment. Positions of later
// records are greater.
type position struct {
	segment int64
	offset  int64
}

func (p position) before(q position) bool {
	return p.segment < q.segment || p.segment == q.segment && p.offset < q.offset
}

// segment is one file of the log.
type segment struct {
	number int64
	size   int64
	newest time.Time // when it was last written
}

const segmentSuffix = ".log"

func segmentName(number int64) string { return fmt.Sprintf("%010d%s", number, segmentSuffix) }

// listSegments names the segments in dir, oldest first. A directory that does
// not exist has none.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return segmentsOf(entries)
}

// segmentsOf finds the segments in a directory, oldest first.
func segmentsOf(entries []fs.DirEntry) ([]segment, error) {
	var segments []segment
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		number, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || number < 1 || segmentName(number) != e.Name() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		segments = append(segments, segment{number, info.Size(), info.ModTime()})
	}
	slices.SortFunc(segments, func(a, b segment) int { return int(min(1, max(-1, a.number-b.number))) })
	return segments, nil
}

// Bounds of writing.
const (
	maxWrite   = 1 << 20                // octets of one write, so that one lost line costs little
	segmentAge = 24 * time.Hour         // then a new segment: retention deletes whole ones
	retryPause = 100 * time.Millisecond // before the second attempt while writing does not work; then doubled
	retryMost  = time.Second
)

// logFile appends to the segments of the log. Everything in it belongs to who
// holds mu, but for the positions and counters.
type logFile struct {
	dir          string
	segmentBytes int64
	now          func() time.Time

	mu      sync.Mutex
	file    *os.File // nil: the next write opens a segment
	current segment  // of file
	opened  time.Time
	head    pending // taken from the queue, not yet written
	written int     // octets of head.buf that are written
	lines   int     // entries of head that are settled
	retry   time.Time
	pause   time.Duration
	err     error // of the last attempt, nil if it worked

	done    atomic.Uint64 // lines that left the queue, counted as queue.added
	dropped atomic.Int64  // of them, not written
	end     atomic.Pointer[position]
	bytes   atomic.Int64 // of all segments
	unsync  atomic.Bool  // something was written since the last sync
	names   atomic.Bool  // a segment was made since the last sync

	retiredMu sync.Mutex
	retired   []*os.File // full segments that wait for their sync
}

// flush writes what is in the queue, oldest first. An error leaves what could
// not be written in memory; the next flush goes on with it.
func (f *logFile) flush(q *queue, again bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flushLocked(q, again)
}

// flushTo is flush unless another goroutine wrote line n meanwhile.
func (f *logFile) flushTo(q *queue, n uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done.Load() >= n {
		return nil
	}
	err := f.flushLocked(q, false)
	if f.done.Load() >= n {
		return nil
	}
	return err
}

func (f *logFile) flushLocked(q *queue, again bool) error {
	if f.err != nil && !again && f.now().Before(f.retry) {
		return f.err
	}
	for {
		if f.lines == len(f.head.entries) {
			f.head = q.take(f.head)
			f.written, f.lines = 0, 0
			if len(f.head.entries) == 0 {
				if f.err = f.probe(); f.err == nil {
					f.pause = 0
				}
				return f.err
			}
		}
		if err := f.writeSome(q); err != nil {
			f.err = err
			f.pause = min(retryMost, max(retryPause, 2*f.pause))
			f.retry = f.now().Add(f.pause)
			f.forgetAccepted(q)
			return err
		}
	}
}

// probe says, with nothing to write, whether what went wrong last is over.
func (f *logFile) probe() error {
	const room = 256 << 10 // enough for a stop and its database pages
	if f.err == nil {
		return nil
	}
	if err := f.ready(0); err != nil {
		return err
	}
	if errors.Is(f.err, syscall.ENOSPC) {
		if free, err := freeBytes(f.dir); err != nil || free < room {
			return f.err
		}
	}
	return nil
}

// writeSome writes the next whole lines of head.
func (f *logFile) writeSome(q *queue) error {
	size, lines := 0, 0
	for _, e := range f.head.entries[f.lines:] {
		if size > 0 && size+int(e.length) > maxWrite {
			break
		}
		size += int(e.length)
		lines++
	}
	if err := f.ready(int64(size)); err != nil {
		return err
	}
	n, err := f.file.Write(f.head.buf[f.written : f.written+size])
	whole, octets := 0, 0
	for _, e := range f.head.entries[f.lines : f.lines+lines] {
		if octets+int(e.length) > n {
			break
		}
		octets += int(e.length)
		whole++
	}
	q.settle(f.head.entries[f.lines : f.lines+whole])
	for _, e := range f.head.entries[f.lines : f.lines+whole] {
		f.done.Add(uint64(e.lines()))
	}
	f.lines += whole
	f.written += octets
	f.current.size += int64(octets)
	f.bytes.Add(int64(octets))
	if octets > 0 {
		f.unsync.Store(true)
		f.end.Store(&position{f.current.number, f.current.size})
	}
	if err != nil {
		f.mend(err)
		return fmt.Errorf("append to log: %w", err)
	}
	return nil
}

// mend sees to it that what a write left of its last line costs no other line.
func (f *logFile) mend(cause error) {
	err := f.file.Truncate(f.current.size)
	noRoom := errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT)
	// A fresh segment helps against a bad place on the disk and a bound of a
	// file's size; but an empty one is as good as a fresh one.
	if err != nil || !noRoom && f.current.size > 0 {
		f.retire()
	}
}

// ready makes sure that there is a segment with room for size octets.
func (f *logFile) ready(size int64) error {
	if f.file != nil && f.current.size > 0 &&
		(f.current.size+size > f.segmentBytes || f.now().Sub(f.opened) > segmentAge) {
		f.retire()
	}
	if f.file != nil {
		return nil
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	// Numbers rise with time even if the directory was emptied: the database
	// remembers up to which one it has read.
	number := max(f.current.number+1, f.now().Unix())
	if end := f.end.Load(); end != nil {
		number = max(number, end.segment+1)
	}
	file, err := os.OpenFile(filepath.Join(f.dir, segmentName(number)), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			f.current.number = number
		}
		return fmt.Errorf("make log segment: %w", err)
	}
	f.file, f.opened = file, f.now()
	f.current = segment{number: number}
	f.names.Store(true)
	return nil
}

// verify ends a segment that is no longer where it was made, as when somebody
// emptied the directory.
func (f *logFile) verify() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return
	}
	ours, err := f.file.Stat()
	if err != nil {
		return
	}
	there, err := os.Stat(filepath.Join(f.dir, segmentName(f.current.number)))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, there) {
		f.retire()
	}
}

func (f *logFile) retire() {
	if f.file == nil {
		return
	}
	f.removeEmpty()
	f.retiredMu.Lock()
	f.retired = append(f.retired, f.file)
	f.retiredMu.Unlock()
	f.file = nil
	f.unsync.Store(true)
}

// removeEmpty deletes the current segment if no whole line was written to it.
func (f *logFile) removeEmpty() {
	if f.current.size > 0 {
		return
	}
	name := filepath.Join(f.dir, segmentName(f.current.number))
	ours, err := f.file.Stat()
	if there, e := os.Stat(name); err == nil && e == nil && os.SameFile(ours, there) {
		os.Remove(name) // if it stays it is read as empty, or as one damaged line
	}
}

// rotate ends the current segment.
func (f *logFile) rotate() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retire()
}

// forgetAccepted drops rows about accepted mail from head, so that they neither
// take the place of stops nor come before them when there is room again.
func (f *logFile) forgetAccepted(q *queue) {
	if !q.holds(accepted) {
		return
	}
	rest := f.head.entries[f.lines:]
	var gone []entry
	kept := pending{make([]byte, 0, len(f.head.buf)-f.written), make([]entry, 0, len(rest))}
	at := f.written
	for _, e := range rest {
		last := len(kept.entries) - 1
		switch {
		case e.gone == 0 && e.class != accepted:
			kept.buf = append(kept.buf, f.head.buf[at:at+int(e.length)]...)
			kept.entries = append(kept.entries, e)
		case last >= 0 && kept.entries[last].gone > 0:
			kept.entries[last].gone += e.lines()
		default:
			kept.entries = append(kept.entries, entry{gone: e.lines()})
		}
		if e.gone == 0 && e.class == accepted {
			gone = append(gone, e)
		}
		at += int(e.length)
	}
	f.head, f.written, f.lines = kept, 0, 0
	q.settle(gone)
	f.dropped.Add(int64(len(gone)))
}

// sync brings what is written to the disk's own memory. It does not hold up
// writers.
func (f *logFile) sync() error {
	if !f.unsync.Swap(false) {
		return nil
	}
	var errs []error
	f.retiredMu.Lock()
	retired := f.retired
	f.retired = nil
	f.retiredMu.Unlock()
	for _, file := range retired {
		errs = append(errs, datasync(file), file.Close())
	}
	f.mu.Lock()
	file := f.file
	f.mu.Unlock()
	if file != nil {
		// If the segment ends now it is closed by a later call of this
		// function only: sync is called by one goroutine.
		errs = append(errs, datasync(file))
	}
	if f.names.Swap(false) {
		errs = append(errs, syncDirectory(f.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

func (f *logFile) close() error {
	f.rotate()
	return f.sync()
}

func datasync(file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			if failed = syscall.Fdatasync(int(fd)); failed != syscall.EINTR {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// freeBytes is the room that the file system of dir has for us.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}
