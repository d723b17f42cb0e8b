package render

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Page is what is written on. The zero value is 80 columns that nothing is cut
// for.
type Page struct {
	Width int  // columns; 0 is 80
	Cut   bool // table cells that do not fit are cut; else columns are as wide as they need
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
