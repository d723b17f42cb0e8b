package render

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Pair is a labelled value. One without a label goes on under the one before.
type Pair struct{ Label, Text string }

// Pairs writes "label: text" lines, the texts under each other, wrapped at the
// page's width. A word that is longer than a line stays whole.
func (p Page) Pairs(w io.Writer, pairs []Pair) error {
	indent := 0
	for _, pair := range pairs {
		if pair.Label != "" {
			indent = max(indent, Width(Escape(pair.Label))+2)
		}
	}
	var b strings.Builder
	for _, pair := range pairs {
		label := Escape(pair.Label)
		if label != "" {
			label += ":"
		}
		for i, line := range wrap(Escape(pair.Text), p.width()-indent, false) {
			if i > 0 {
				label = ""
			}
			pad := strings.Repeat(" ", indent-Width(label))
			b.WriteString(strings.TrimRight(label+pad+line, " "))
			b.WriteByte('\n')
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Text writes text behind an indent, wrapped at the page's width; its line ends
// count as spaces.
func (p Page) Text(w io.Writer, indent int, text string) error {
	text = strings.NewReplacer("\r\n", " ", "\n", " ").Replace(text)
	var b strings.Builder
	for _, line := range wrap(Escape(text), p.width()-indent, false) {
		b.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+line, " "))
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks escaped text into lines of at most width columns, at spaces and
// between wide characters; at least one line. What cannot be broken there is
// broken anywhere if hard, else it is a line that is too long.
func wrap(text string, width int, hard bool) []string {
	width = max(width, 2) // a wide character
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		for i, u := range units(word) {
			n := Width(u)
			between := ""
			if i == 0 && line != "" {
				between = " "
			}
			if line != "" && used+len(between)+n > width {
				lines = append(lines, line)
				line, used, between = "", 0, ""
			}
			for hard && n > width {
				head, rest := split(u, width)
				lines = append(lines, head)
				u, n = rest, Width(rest)
			}
			line += between + u
			used += len(between) + n
		}
	}
	return append(lines, line)
}

// neverFirst may not begin a line in Japanese.
const neverFirst = "、。，．・：；？！゛゜ヽヾゝゞ々ー）］｝〕〉》」』】ぁぃぅぇぉっゃゅょァィゥェォッャュョ"

// units are the parts of a word between which a line may end.
func units(word string) []string {
	var all []string
	start, before := 0, 0
	for i, c := range word {
		n := runeWidth(c)
		if i > start && (n == 2 || before == 2 && n > 0) && !strings.ContainsRune(neverFirst, c) {
			all = append(all, word[start:i])
			start = i
		}
		if n > 0 {
			before = n
		}
	}
	if start < len(word) || utf8.RuneCountInString(word) == 0 {
		all = append(all, word[start:])
	}
	return all
}
