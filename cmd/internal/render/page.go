package render

import (
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Page is what is written on. The zero value is 80 columns that nothing is cut
// for.
type Page struct {
	Width int  // columns; 0 is 80
	Cut   bool // table cells that do not fit are cut; else columns are as wide as they need
	Bold  bool // titles of streams and headings are bold
}

// The narrowest and the widest page that is believed.
const (
	usualWidth = 80
	minWidth   = 20
	maxWidth   = 1000
)

// PageOf is the page behind w. On a terminal tables are made to fit: into
// COLUMNS if the environment has it, else into what the terminal says, else into
// 80. Anywhere else whole values are written, for grep and awk; text is wrapped
// at 80 columns.
func PageOf(w io.Writer) Page {
	f, ok := w.(*os.File)
	if !ok {
		return Page{Width: usualWidth}
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Page{Width: usualWidth}
	}
	width, err := strconv.Atoi(os.Getenv("COLUMNS"))
	if err != nil || width <= 0 {
		width = int(size.Col)
	}
	if width == 0 { // a serial line does not know
		width = usualWidth
	}
	return Page{Width: min(max(width, minWidth), maxWidth), Cut: true}
}

func (p Page) width() int {
	if p.Width <= 0 {
		return usualWidth
	}
	return max(p.Width, minWidth)
}

// Headings is the page with bold headings, if w is a terminal that can show them
// and nobody set NO_COLOR.
func (p Page) Headings(w io.Writer) Page {
	term := os.Getenv("TERM")
	_, isFile := w.(*os.File)
	p.Bold = p.Cut && isFile && term != "" && term != "dumb" && os.Getenv("NO_COLOR") == ""
	return p
}

// Heading is a line that stands over others, escaped.
func (p Page) Heading(text string) string { return p.bold(Escape(text)) }

// bold is one escaped line, with or without its end, in bold letters.
func (p Page) bold(line string) string {
	if !p.Bold {
		return line
	}
	text := strings.TrimSuffix(line, "\n")
	return "\x1b[1m" + text + "\x1b[m" + line[len(text):]
}
