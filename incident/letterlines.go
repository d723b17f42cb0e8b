package incident

import (
	"strings"

	"golang.org/x/text/width"
)

// layOut breaks a text into lines of at most columns. Paragraphs have blank lines
// between; the lines of one are joined, with a space if spaced. A line that begins
// with "* " is an item of a list, one with "# " stands for itself, one with "> " is
// indented. Nothing may begin so that others chose.
func layOut(text string, columns int, spaced bool) string {
	var b strings.Builder
	joint, bullet := "", "・"
	if spaced {
		joint, bullet = " ", "- "
	}
	var paragraph []string
	before := "" // the kind of what stands above
	begin := func(kind string) {
		if before != "" && (kind != "* " || before != "* ") {
			b.WriteByte('\n')
		}
		before = kind
	}
	flush := func() {
		if len(paragraph) > 0 {
			begin("text")
			write(&b, "", strings.Join(paragraph, joint), columns)
			paragraph = nil
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		mark, rest := "", line
		for _, m := range []string{"* ", "# ", "> "} {
			if after, ok := strings.CutPrefix(line, m); ok {
				mark, rest = m, after
			}
		}
		switch {
		case line == "":
			flush()
		case mark == "":
			paragraph = append(paragraph, line)
		default:
			flush()
			begin(mark)
			write(&b, map[string]string{"* ": bullet, "# ": "", "> ": "    "}[mark], rest, columns)
		}
	}
	flush()
	return b.String()
}

// write writes text behind its first mark, and under it.
func write(b *strings.Builder, mark, text string, columns int) {
	indent := strings.Repeat(" ", displayWidth(mark))
	for i, line := range breakLines(text, columns-len(indent)) {
		if i == 0 {
			b.WriteString(mark)
		} else {
			b.WriteString(indent)
		}
		b.WriteString(line)
		b.WriteByte('\n')
	}
}

// Characters that may not begin or end a line in Japanese (JIS X 4051).
const (
	neverFirst = "、。，．・：；？！゛゜ヽヾゝゞ々ー）］｝〕〉》」』】ぁぃぅぇぉっゃゅょァィゥェォッャュョ)]},.!?"
	neverLast  = "（［｛〔〈《「『【([{"
)

// breakLines breaks a paragraph at spaces and between wide characters, and a word
// that is longer than a line anywhere.
func breakLines(text string, columns int) []string {
	var lines []string
	line, used, gap := "", 0, false
	end := func() { lines, line, used, gap = append(lines, line), "", 0, false }
	for _, u := range pieces(text) {
		if u == " " {
			gap = line != ""
			continue
		}
		n := displayWidth(u)
		space := 0
		if gap {
			space = 1
		}
		if line != "" && used+space+n > columns {
			end()
			space = 0
		}
		for n > columns { // it begins a line
			at, taken := 0, 0
			for i, c := range u {
				if w := displayWidth(string(c)); taken+w > columns {
					break
				} else {
					taken += w
					at = i + len(string(c))
				}
			}
			lines, u = append(lines, u[:at]), u[at:]
			n = displayWidth(u)
		}
		line += strings.Repeat(" ", space) + u
		used += space + n
		gap = false
	}
	if line != "" || len(lines) == 0 {
		end()
	}
	return lines
}

// pieces are the parts of a text that stay together; a space is one of its own.
func pieces(text string) []string {
	var all []string
	var piece []rune
	flush := func() {
		if len(piece) > 0 {
			all = append(all, string(piece))
			piece = nil
		}
	}
	for _, c := range text {
		switch {
		case c == ' ':
			flush()
			all = append(all, " ")
			continue
		case len(piece) == 0:
		case strings.ContainsRune(neverFirst, c), strings.ContainsRune(neverLast, piece[len(piece)-1]):
		case runeColumns(c) == 2 || runeColumns(piece[len(piece)-1]) == 2:
			if runeColumns(c) != 0 {
				flush()
			}
		}
		piece = append(piece, c)
	}
	flush()
	return all
}

// displayWidth is how many columns a text takes.
func displayWidth(s string) (n int) {
	for _, c := range s {
		n += runeColumns(c)
	}
	return n
}

// runeColumns is 2 for what UAX #11 calls wide, 0 for marks on others.
func runeColumns(c rune) int {
	switch {
	case c < 0x300:
		return 1
	case c >= 0x300 && c < 0x370, c == 0x3099, c == 0x309a, c >= 0xfe00 && c <= 0xfe0f:
		return 0
	}
	switch width.LookupRune(c).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}
