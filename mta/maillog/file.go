package maillog

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// headSize bounds how much of a file's first line identifies it.
	headSize = 1024
	// readSize is read at once; a line may need MaxLine in front of it.
	readSize = 64 << 10
)

// logFile is one file of the log, open for reading. Used by one goroutine.
type logFile struct {
	path   string
	file   *os.File
	reader io.Reader // file, or what it holds compressed
	info   os.FileInfo
	head   string // empty: no complete line yet
	start  []byte // what it began with when it was opened, up to headSize
	offset int64  // behind the last complete line that was handed out

	buffer   []byte
	pending  int  // octets of buffer that are read and not handed out
	skipping bool // in a line that is too long; skipped octets are in offset
}

// openLog opens a file, compressed or not, at its start. Nothing is decoded
// beyond its first line.
func openLog(path string) (*logFile, error) {
	// A name in a log directory may be a pipe: never wait for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open mail log: %w", err)
	}
	l := &logFile{path: path, file: file, reader: file}
	if l.info, err = file.Stat(); err == nil && !l.info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err == nil {
		err = l.rewind()
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open mail log %s: %w", path, err)
	}
	return l, nil
}

func (l *logFile) close() { l.file.Close() }

func (l *logFile) compressed() bool { return strings.HasSuffix(l.path, ".gz") }

// rewind goes to the start and reads the head.
func (l *logFile) rewind() error {
	l.offset, l.pending, l.skipping = 0, 0, false
	if !l.compressed() {
		if _, err := l.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		var err error
		l.head, err = l.readHead()
		return err
	}
	for range 2 { // once for the head, once for the reader
		if _, err := l.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		reader, err := gzip.NewReader(l.file)
		if err != nil {
			return err
		}
		if l.reader = reader; l.head != "" {
			return nil
		}
		l.start = make([]byte, headSize)
		n, err := io.ReadFull(reader, l.start)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		l.start = l.start[:n]
		if l.head = digest(l.start); l.head == "" {
			return nil
		}
	}
	return nil
}

// readHead reads the digest of the first line as the file is now.
func (l *logFile) readHead() (string, error) {
	start := make([]byte, headSize)
	n, err := l.file.ReadAt(start, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	if l.start == nil {
		l.start = start[:n]
	}
	return digest(start[:n]), nil
}

// beginsBefore tells whether its first line is older than that.
func (l *logFile) beginsBefore(at, now time.Time, zone *time.Location) bool {
	first, _, _ := strings.Cut(string(l.start), "\n")
	line, ok := ParseLine(first, now, zone)
	return ok && line.Time.Before(at)
}

// digest names a file by its first line, empty if that is not complete.
func digest(start []byte) string {
	end := bytes.IndexByte(start, '\n') + 1
	if end == 0 {
		if len(start) < headSize {
			return ""
		}
		end = headSize
	}
	sum := sha256.Sum256(start[:end])
	return hex.EncodeToString(sum[:16])
}

// seek goes to an offset behind a line feed. False: the file is shorter.
func (l *logFile) seek(offset int64) (bool, error) {
	if l.compressed() {
		n, err := io.CopyN(io.Discard, l.reader, offset)
		if err == io.EOF {
			return false, nil
		}
		l.offset = n
		return err == nil, err
	}
	info, err := l.file.Stat()
	if err != nil || info.Size() < offset {
		return false, err
	}
	_, err = l.file.Seek(offset, io.SeekStart)
	l.offset = offset
	return err == nil, err
}

// seekEnd goes behind the last complete line.
func (l *logFile) seekEnd() error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	start := max(0, end-MaxLine)
	tail := make([]byte, end-start)
	n, err := l.file.ReadAt(tail, start)
	if err != nil && err != io.EOF {
		return err
	}
	offset := start + int64(bytes.LastIndexByte(tail[:n], '\n')) + 1
	if offset == start && start > 0 {
		offset = end // in the middle of a line that is too long
		l.skipping = true
	}
	_, err = l.seek(offset)
	return err
}

// read hands out the complete lines that are there, without their line feeds,
// each with the offset behind it. The text is valid during the call only.
// What is too long is reported by long and left out.
func (l *logFile) read(ctx context.Context, line func(text []byte, end int64) error, long func()) error {
	if l.buffer == nil {
		l.buffer = make([]byte, MaxLine+1+readSize)
	}
	for ctx.Err() == nil {
		n, err := l.reader.Read(l.buffer[l.pending:])
		l.pending += n
		if lineErr := l.handOut(line, long); lineErr != nil {
			return lineErr
		}
		if err == io.EOF || n == 0 && err == nil {
			return nil
		}
		if err != nil {
			return &readError{fmt.Errorf("read mail log %s: %w", l.path, err)}
		}
	}
	return ctx.Err()
}

// readError is a fault of the file, not of who handles its lines.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// handOut deals with the buffer.
func (l *logFile) handOut(line func([]byte, int64) error, long func()) error {
	rest := l.buffer[:l.pending]
	defer func() { l.pending = copy(l.buffer, rest) }()
	for {
		end := bytes.IndexByte(rest, '\n')
		switch {
		case end < 0 && len(rest) <= MaxLine && !l.skipping:
			return nil
		case end < 0: // too long: drop what is there
			l.skipping = true
			l.offset += int64(len(rest))
			rest = rest[:0]
			return nil
		case l.skipping || end > MaxLine:
			l.skipping = false
			l.offset += int64(end) + 1
			rest = rest[end+1:]
			long()
			continue
		}
		if l.head == "" {
			// Its first line came while it was open.
			head, err := l.readHead()
			if err != nil {
				return &readError{fmt.Errorf("read mail log %s: %w", l.path, err)}
			}
			l.head = head
		}
		if err := line(rest[:end], l.offset+int64(end)+1); err != nil {
			return err // the line stays in the buffer
		}
		l.offset += int64(end) + 1
		rest = rest[end+1:]
	}
}

// position is where the file was handed out to.
func (l *logFile) position(end int64) Position {
	p := Position{head: l.head, offset: end}
	if sys, ok := l.info.Sys().(*syscall.Stat_t); ok {
		p.dev, p.inode = uint64(sys.Dev), sys.Ino
	}
	return p
}

// is tells whether a position lies in this file.
func (l *logFile) is(p Position) bool {
	if p.head != "" {
		return p.head == l.head
	}
	own := l.position(0)
	return p.inode != 0 && own.dev == p.dev && own.inode == p.inode
}
