package maillog

import (
	"fmt"
	"strings"
	"time"
)

// Position is a place in a log: after a line of a file or an entry of the
// journal. The zero Position is none. Positions are comparable.
type Position struct {
	// At is the time of that line, to the microsecond; it bounds a gap.
	At time.Time

	cursor string // of the journal; else a file:
	dev    uint64 // which file while it has no complete line
	inode  uint64
	head   string // digest of the first line: the file, also renamed, copied, compressed
	offset int64  // octets from the start, behind a line feed
}

const (
	filePosition    = "file"
	journalPosition = "journal"
	noValue         = "-"
)

// String is the position as a checkpoint: one line, for ParsePosition and
// Options.Checkpoint. Empty for the zero Position.
func (p Position) String() string {
	at := max(0, p.At.UnixMicro())
	switch {
	case p == Position{}:
		return ""
	case p.cursor != "":
		return fmt.Sprintf("%s %d %s", journalPosition, at, p.cursor)
	}
	head := p.head
	if head == "" {
		head = noValue
	}
	return fmt.Sprintf("%s %d %x %x %s %d", filePosition, at, p.dev, p.inode, head, p.offset)
}

// ID names the line in front of the position: the same each time it is read,
// also after the file was renamed, copied or compressed. Two files that begin
// with the same line would share ids.
func (p Position) ID() string {
	if p.cursor != "" {
		return p.cursor
	}
	return fmt.Sprintf("%s+%d", p.head, p.offset)
}

// maxCheckpoint bounds what is read as one.
const maxCheckpoint = 4096

// ParsePosition reads what String wrote.
func ParsePosition(s string) (Position, error) {
	bad := func(why string) (Position, error) {
		return Position{}, fmt.Errorf("read log checkpoint %.80q: %s", s, why)
	}
	if s == "" {
		return Position{}, nil
	}
	fields := strings.Fields(s)
	if len(s) > maxCheckpoint || len(fields) < 3 {
		return bad("not a position")
	}
	micros, ok := number(fields[1])
	if !ok {
		return bad("the time is no number")
	}
	p := Position{At: time.UnixMicro(micros).UTC()}
	switch {
	case fields[0] == journalPosition && len(fields) == 3:
		p.cursor = fields[2]
		return p, nil
	case fields[0] != filePosition || len(fields) != 6:
		return bad("not a position of a file or journal")
	}
	if _, err := fmt.Sscanf(fields[2]+" "+fields[3], "%x %x", &p.dev, &p.inode); err != nil {
		return bad("device or inode is no number")
	}
	if fields[4] != noValue {
		p.head = fields[4]
	}
	if p.offset, ok = number(fields[5]); !ok {
		return bad("the offset is no number")
	}
	return p, nil
}

// Gap is a stretch of the log that may hold lines which were not read.
type Gap struct {
	From time.Time // of the last line in front of it; zero: not known
	To   time.Time // of the first line behind it, or when it was noticed
	Why  string    // for a person
}
