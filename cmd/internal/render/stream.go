package render

import (
	"bufio"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// What a Stream takes its widths from: so many rows, or those that come within
// that time of the first.
const (
	streamRows = 100
	streamWait = 200 * time.Millisecond
)

// Stream is a table whose rows are written as they come: any number of them in
// bounded memory. The first rows settle how wide its columns are; in later ones
// cells that do not fit are cut on a terminal, and elsewhere run over. A row waits
// for at most 200 ms. Cells are as those of Table. Safe for concurrent use; Close
// it. After an error of the writer every call returns that.
type Stream struct {
	table Table
	page  Page

	mu      sync.Mutex
	out     *bufio.Writer
	first   [][]string // escaped; nil once widths is set
	widths  []int
	waiting *time.Timer // flushes what came last
	armed   bool
	err     error
	line    strings.Builder
}

// NewStream begins a table on w; nothing is written before its first row is.
func NewStream(w io.Writer, p Page, columns []Column) *Stream {
	return &Stream{table: Table{Columns: columns}, page: p, out: bufio.NewWriterSize(w, 64<<10)}
}

// Row writes a row.
func (s *Stream) Row(cells ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	row := s.table.shown(cells)
	if s.widths != nil {
		s.write(row)
	} else if s.first = append(s.first, row); len(s.first) == streamRows {
		s.settle()
	}
	s.arm()
	return s.err
}

// Close writes what still waits.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting != nil {
		s.waiting.Stop()
	}
	s.flush()
	return s.err
}

// arm sees to it that what was written last is seen.
func (s *Stream) arm() {
	switch {
	case s.armed:
		return
	case s.waiting == nil:
		s.waiting = time.AfterFunc(streamWait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.armed = false
			s.flush()
		})
	default:
		s.waiting.Reset(streamWait)
	}
	s.armed = true
}

func (s *Stream) flush() {
	if len(s.first) > 0 {
		s.settle()
	}
	if s.err == nil {
		s.err = s.out.Flush()
	}
}

// settle fixes the widths and writes what they were taken from.
func (s *Stream) settle() {
	titles := s.table.titles()
	s.widths = s.table.streamWidths(append([][]string{titles}, s.first...), s.page)
	rows := s.first
	s.first = nil
	s.line.Reset()
	s.table.writeRow(&s.line, titles, s.widths, false)
	s.put(s.page.bold(s.line.String()))
	for _, row := range rows {
		s.write(row)
	}
}

func (s *Stream) write(row []string) {
	s.line.Reset()
	s.table.writeRow(&s.line, row, s.widths, s.page.Cut)
	s.put(s.line.String())
}

func (s *Stream) put(text string) {
	if s.err == nil {
		_, s.err = s.out.WriteString(text)
	}
}

// streamWidths are widths of a table of which only the first rows are known. On a
// terminal what they leave is for the wider cells of those to come: each column
// that may be cut gets up to as much again, and the last one all of the rest. A
// whole column has at least its Min.
func (t *Table) streamWidths(cells [][]string, p Page) []int {
	least := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		if c.Whole {
			least[i] = strings.Repeat(" ", c.Min)
		}
	}
	got := t.widths(append(cells, least), p)
	room := p.width() - len(gap)*(len(got)-1) - sum(got)
	if !p.Cut || room <= 0 {
		return got
	}
	for i, c := range t.Columns {
		if !c.Whole && !c.Right && i < len(got)-1 {
			more := min(room, got[i])
			got[i] += more
			room -= more
		}
	}
	if last := len(got) - 1; last >= 0 && !t.Columns[last].Whole {
		got[last] += room
	}
	return got
}

// titles are the columns' names as they are shown.
func (t *Table) titles() []string {
	all := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		all[i] = Escape(c.Title)
	}
	return all
}

// shown is a row as it is shown: a cell for each column.
func (t *Table) shown(row []string) []string {
	cells := slices.Repeat([]string{"-"}, len(t.Columns))
	for i := range cells {
		if i < len(row) && row[i] != "" {
			cells[i] = Escape(row[i])
		}
	}
	return cells
}
