package render

import (
	"io"
	"strings"
)

// Column is how one column of a table is shown.
type Column struct {
	Title  string
	Right  bool // numbers
	Whole  bool // never cut: ids, which are typed again
	Wrap   bool // what does not fit goes on in further lines instead of being cut
	Min    int  // columns below which it is not cut; default 4, or the title; of a whole one in a Stream, its least width
	Weight int  // its share of what there is, among those that want more; default 1
}

// Table is rows under titles. A row may be shorter than Columns; what is more is
// left out. Cells are given as they are and escaped here; an empty one is shown
// as "-", so that awk finds the others. A table without rows
// writes nothing: say on stderr that there is none.
type Table struct {
	Columns []Column
	Rows    [][]string
}

// gap is between columns.
const gap = "  "

// Write writes the table. Where whole columns alone are wider than the page,
// lines are longer than it.
func (t *Table) Write(w io.Writer, p Page) error {
	if len(t.Rows) == 0 {
		return nil
	}
	cells := make([][]string, 0, len(t.Rows)+1)
	cells = append(cells, t.titles())
	for _, row := range t.Rows {
		cells = append(cells, t.shown(row))
	}
	widths := t.widths(cells, p)
	var b strings.Builder
	for i, row := range cells {
		t.writeRow(&b, row, widths, p.Cut && i > 0)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// widths are those of the columns: what each wants if that fits or nothing is
// cut; else columns that may be cut share what the others leave, by weight.
func (t *Table) widths(cells [][]string, p Page) []int {
	want := make([]int, len(t.Columns))
	for _, row := range cells {
		for i, cell := range row {
			want[i] = max(want[i], Width(cell))
		}
	}
	room := p.width() - len(gap)*(len(want)-1)
	if !p.Cut || sum(want) <= room {
		return want
	}
	got := make([]int, len(want))
	for i, c := range t.Columns {
		if got[i] = want[i]; !c.Whole {
			got[i] = min(want[i], max(c.Min, 4, Width(cells[0][i])))
		}
	}
	for room -= sum(got); room > 0; {
		weights := 0
		for i := range got {
			if got[i] < want[i] {
				weights += t.weight(i)
			}
		}
		if weights == 0 {
			break
		}
		given := 0
		for i := range got {
			if got[i] < want[i] {
				more := min(room*t.weight(i)/weights, want[i]-got[i])
				got[i] += more
				given += more
			}
		}
		for i := 0; given == 0 && i < len(got); i++ { // less than one for each: to the first
			if got[i] < want[i] {
				got[i]++
				given++
			}
		}
		room -= given
	}
	return got
}

func (t *Table) weight(i int) int { return max(t.Columns[i].Weight, 1) }

func sum(all []int) int {
	n := 0
	for _, v := range all {
		n += v
	}
	return n
}

func (t *Table) writeRow(b *strings.Builder, row []string, widths []int, fit bool) {
	lines := make([][]string, len(row))
	height := 1
	for i, cell := range row {
		switch {
		case fit && t.Columns[i].Wrap && Width(cell) > widths[i]:
			lines[i] = wrap(cell, widths[i], true)
		case fit && !t.Columns[i].Whole:
			lines[i] = []string{cut(cell, widths[i])}
		default:
			lines[i] = []string{cell}
		}
		height = max(height, len(lines[i]))
	}
	for n := range height {
		var line strings.Builder
		for i := range row {
			cell := ""
			if n < len(lines[i]) {
				cell = lines[i][n]
			}
			if i > 0 {
				line.WriteString(gap)
			}
			pad := strings.Repeat(" ", max(widths[i]-Width(cell), 0))
			if t.Columns[i].Right {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
}
