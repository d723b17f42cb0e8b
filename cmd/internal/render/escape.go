// Package render writes what the commands show to people: tables, blocks of
// labelled values, ages and sizes, and JSON for programs.
//
// It knows nothing of mail. The trap: much of what is shown was chosen by a
// sender. Everything that comes in as text is escaped, so that it cannot move
// the cursor, colour or reorder what an admin reads; only what the package adds
// itself (line ends, spaces) is not.
package render

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape makes s fit for a terminal and for one line: whatever is not plainly
// visible (control characters, bidi controls and other format characters, spaces
// but the common two, blank letters) becomes \xNN, \uNNNN or \UNNNNNNNN, an octet
// that is not UTF-8 \xNN. A backslash stays as it is: the form is for eyes, not
// for reading back. At most six octets come out for one.
func Escape(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == utf8.RuneError && n == 1, c < 0x80 && !visible(c):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case visible(c):
			b.WriteString(s[i : i+n])
		case c < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			fmt.Fprintf(&b, `\U%08x`, c)
		}
		i += n
	}
	return b.String()
}

func plain(s string) bool {
	for i, c := range s {
		if c == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return false
			}
		}
		if !visible(c) {
			return false
		}
	}
	return true
}

// ideographicSpace is the space of Japanese and Chinese text.
const ideographicSpace = '\u3000'

// visible reports whether c shows itself, and nothing else, wherever it stands.
func visible(c rune) bool {
	switch {
	case c < 0x80:
		return c >= ' ' && c < 0x7f
	case c == ideographicSpace:
		return true
	case c == 0x115f, c == 0x1160, c == 0x3164, c == 0xffa0, c == 0x2800: // letters and braille that are blank
		return false
	case unicode.Is(unicode.Variation_Selector, c): // would change the width of others
		return false
	}
	return strconv.IsPrint(c)
}

// Width is how many columns escaped text takes on a terminal: two for a wide
// character, none for a mark above another, one for all others.
func Width(s string) int {
	n := 0
	for _, c := range s {
		n += runeWidth(c)
	}
	return n
}

func runeWidth(c rune) int {
	switch {
	case c < 0x300:
		return 1
	case unicode.In(c, unicode.Mn, unicode.Me):
		return 0
	}
	i := sort.Search(len(wide), func(i int) bool { return wide[i][1] >= c })
	if i < len(wide) && wide[i][0] <= c {
		return 2
	}
	return 1
}

// ellipsis stands for what was cut.
const ellipsis = "..."

// cut shortens escaped text to at most width columns, at a character.
func cut(s string, width int) string {
	if Width(s) <= width {
		return s
	}
	if width <= len(ellipsis) {
		head, _ := split(s, width)
		return head
	}
	head, _ := split(s, width-len(ellipsis))
	return head + ellipsis
}

// split parts s before the character that does not fit into width columns.
func split(s string, width int) (head, rest string) {
	n := 0
	for i, c := range s {
		if n += runeWidth(c); n > width {
			return s[:i], s[i:]
		}
	}
	return s, ""
}
