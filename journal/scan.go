package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Bounds of one batch that goes from the log to the database.
const (
	batchRecords = 1000
	batchBytes   = 4 << 20
)

// scanner reads the log's segments in order. It is not safe for concurrent use.
type scanner struct {
	dir string

	at     position // of the next octet that reader gives
	window window
	reader *bufio.Reader
}

// window is the part of a segment that is complete.
type window struct {
	file  *os.File
	at    int64
	limit int64
}

func (w *window) Read(p []byte) (int, error) {
	n := min(int64(len(p)), w.limit-w.at)
	if n <= 0 {
		return 0, io.EOF
	}
	got, err := w.file.ReadAt(p[:n], w.at)
	w.at += int64(got)
	if got > 0 {
		err = nil
	}
	return got, err
}

// batch is what was read between two positions.
type batch struct {
	records []Record
	next    position
	lines   int
	damaged int
}

// read reads on from from, at most to end, which lies at the end of a line or
// of a segment that nobody writes to any more.
func (s *scanner) read(from, end position) (batch, error) {
	b := batch{next: from}
	for len(b.records) < batchRecords && b.octets(from) < batchBytes && b.next.before(end) {
		ok, err := s.open(b.next, end)
		if err != nil {
			return b, err
		}
		if ok {
			err = s.lines(&b)
			if err != nil {
				return b, fmt.Errorf("read log segment %d at %d: %w", b.next.segment, b.next.offset, err)
			}
			if b.lines > 0 {
				break // the next call goes on
			}
		}
		if b.next.segment == end.segment { // shorter than it was said to be
			b.next = end
			break
		}
		next, err := s.segmentAfter(b.next.segment, end)
		if err != nil {
			return b, err
		}
		b.next = next
	}
	return b, nil
}

// octets is a lower bound of what was read since from.
func (b *batch) octets(from position) int64 {
	if b.next.segment != from.segment {
		return b.next.offset
	}
	return b.next.offset - from.offset
}

// open sees to it that the reader stands at p; ok is false if there is no such
// segment.
func (s *scanner) open(p, end position) (ok bool, err error) {
	if s.reader == nil || s.at != p {
		s.close()
		file, err := openPlain(filepath.Join(s.dir, segmentName(p.segment)))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("open log segment: %w", err)
		}
		s.window = window{file: file, at: p.offset}
		s.reader = bufio.NewReaderSize(&s.window, 64<<10)
		s.at = p
	}
	s.window.limit = end.offset
	if p.segment != end.segment {
		info, err := s.window.file.Stat()
		if err != nil {
			return false, fmt.Errorf("stat log segment: %w", err)
		}
		s.window.limit = info.Size()
	}
	return true, nil
}

// lines reads lines of the open segment until its end or the batch is full.
func (s *scanner) lines(b *batch) error {
	start := b.next.offset
	for len(b.records) < batchRecords && b.next.offset-start < batchBytes {
		text, size, err := s.line()
		if size > 0 {
			s.at.offset += size
			b.next.offset += size
			b.lines++
			record, bad := parseLine(text)
			if bad != nil {
				b.damaged++
			} else if record != nil {
				b.records = append(b.records, record)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line reads one line, of which text lacks the newline; text is nil if the line
// is torn or too long. size counts all its octets.
func (s *scanner) line() (text []byte, size int64, err error) {
	const longest = maxLine + lineHead + 1
	var long []byte
	for {
		part, err := s.reader.ReadSlice('\n')
		size += int64(len(part))
		switch {
		case err == nil && long == nil && size == int64(len(part)):
			return part[:len(part)-1], size, nil
		case size <= longest:
			long = append(long, part...)
		default:
			long = nil
		}
		if err == nil && int64(len(long)) == size {
			return long[:len(long)-1], size, nil
		}
		if err != bufio.ErrBufferFull {
			return nil, size, err
		}
	}
}

// segmentAfter is the start of the oldest segment after number, or end.
func (s *scanner) segmentAfter(number int64, end position) (position, error) {
	segments, err := listSegments(s.dir)
	if err != nil {
		return position{}, fmt.Errorf("read log directory: %w", err)
	}
	for _, segment := range segments {
		if segment.number > number && segment.number < end.segment {
			return position{segment: segment.number}, nil
		}
	}
	return position{segment: end.segment}, nil
}

func (s *scanner) close() {
	if s.window.file != nil {
		s.window.file.Close()
	}
	s.window, s.reader = window{}, nil
}
