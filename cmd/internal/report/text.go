package report

import (
	"fmt"
	"io"
	"strings"

	"relayguard/cmd/internal/render"
)

// textWidth is the columns of the text. Only commands and addresses of web pages are
// longer: broken, they could not be copied.
const textWidth = 80

// Text writes the report for a terminal or as a text part. lang is one of Languages.
func Text(w io.Writer, r *Report, lang string) error {
	d, err := compose(r, lang, page)
	if err != nil {
		return fmt.Errorf("write the report as text: %w", err)
	}
	if _, err := io.WriteString(w, d.text()); err != nil {
		return fmt.Errorf("write the report as text: %w", err)
	}
	return nil
}

// sign is a tone in two columns.
func (t Tone) sign() string {
	switch t {
	case ToneAct:
		return "!!"
	case ToneLook:
		return "! "
	case ToneUnknown:
		return "? "
	case ToneGood:
		return "+ "
	}
	return "- "
}

type textWriter struct{ strings.Builder }

func (d *document) text() string {
	var t textWriter
	t.wrapped("", "", line{{Text: d.Host}})
	t.wrapped("", "", d.Period)
	t.WriteString("\n")
	t.WriteString("\n")
	t.wrapped(d.Tone.sign()+" ", "   ", d.Verdict)
	t.items(d.Notes, false)
	t.WriteString("\n")
	for _, x := range d.Tiles {
		l := append(line{}.text(x.Label+": "), x.Value...)
		if len(x.Under) > 0 {
			l = append(l.text(" "), x.Under...)
		}
		t.wrapped("  ", "    ", l)
	}
	for _, s := range d.Sections {
		title := s.Title.String()
		t.WriteString("\n")
		t.wrapped("", "", s.Title)
		t.WriteString(strings.Repeat("=", min(render.Width(title), textWidth)) + "\n")
		t.blocks(s.Blocks)
		for i, part := range s.Parts {
			if i > 0 || len(s.Blocks) > 0 {
				t.WriteString("\n")
			}
			title := part.Title
			for _, chip := range part.Chips {
				title = title.text(" [" + chip.Text + "]")
			}
			t.wrapped("-- ", "   ", title)
			t.blocks(part.Blocks)
		}
	}
	t.WriteString("\n")
	for _, l := range d.Foot {
		t.wrapped("", "", l)
	}
	return t.String()
}

// wrapped writes a line behind first, and where it goes on, behind then.
func (t *textWriter) wrapped(first, then string, l line) {
	room := textWidth - max(render.Width(first), render.Width(then))
	for i, text := range render.Lines(l.String(), room) {
		if i > 0 {
			first = then
		}
		t.WriteString(strings.TrimRight(first+text, " ") + "\n")
	}
}

func (t *textWriter) blocks(all []block) {
	for _, b := range all {
		if len(b.Line) > 0 {
			t.wrapped("", "", b.Line)
		}
		t.items(b.Items, b.Ordered)
		if b.Table != nil {
			t.table(b.Table)
		}
		if b.Chart != nil {
			t.wrapped("", "  ", b.Chart.Caption)
		}
	}
}

func (t *textWriter) items(all []item, ordered bool) {
	for i, x := range all {
		first := x.Tone.sign() + " "
		if ordered {
			first = fmt.Sprintf("%d. ", i+1)
		}
		l := x.Line
		if x.Label != "" {
			l = append(line{}.text("["+x.Label+"] "), l...)
		}
		then := strings.Repeat(" ", len(first))
		t.wrapped(first, then, l)
		for _, under := range x.Under {
			t.wrapped(then, then, under)
		}
		if x.Command != "" {
			t.WriteString(then + "$ " + x.Command + "\n")
		}
		if x.URL != "" {
			t.WriteString(then + x.URL + "\n")
		}
		if x.Page != "" {
			t.WriteString(then + x.Page + "\n")
		}
		if x.Chart != nil {
			if x.Chart.Text != "" {
				t.WriteString(then + "|" + tail(x.Chart.Text, textWidth-len(then)-2) + "|\n")
			}
			t.wrapped(then, then, x.Chart.Caption)
		}
	}
}

// tail is the last n octets of an ASCII text.
func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// table writes what each row is about in the first columns, whatever it takes, and
// numbers at the right.
func (t *textWriter) table(x *table) {
	if len(x.Rows) == 0 {
		return
	}
	columns := 0
	for _, r := range x.Rows {
		columns = max(columns, len(r.Cells)) // a chart's has none
	}
	widths := make([]int, columns)
	for i := range widths {
		widths[i] = render.Width(x.Columns[i])
		for _, r := range x.Rows {
			widths[i] = max(widths[i], render.Width(r.Cells[i].String()))
		}
	}
	room := textWidth - 3
	for _, w := range widths[1:] {
		room -= w + 2
	}
	room = min(max(room, 20), max(widths[0], 20))
	if x.Caption != "" {
		t.wrapped("", "", line{{Text: x.Caption}})
	}
	head := row{}
	for _, title := range x.Columns[:columns] {
		head.Cells = append(head.Cells, line{{Text: title}})
	}
	t.row(head, "   ", room, widths)
	for _, r := range x.Rows {
		first := "   "
		if r.Tone == ToneLook {
			first = ToneLook.sign() + " "
		}
		t.row(r, first, room, widths)
	}
}

func (t *textWriter) row(r row, first string, room int, widths []int) {
	for i, text := range render.Lines(r.Cells[0].String(), room) {
		if i > 0 {
			t.WriteString("   " + text + "\n")
			continue
		}
		l := first + text + strings.Repeat(" ", room-render.Width(text))
		for n, cell := range r.Cells[1:] {
			s := cell.String()
			l += "  " + strings.Repeat(" ", widths[n+1]-render.Width(s)) + s
		}
		t.WriteString(strings.TrimRight(l, " ") + "\n")
	}
	for _, under := range r.Under {
		t.wrapped("     ", "     ", under)
	}
}
