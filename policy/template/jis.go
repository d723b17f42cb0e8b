package template

import (
	"slices"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding/japanese"
)

// jisSide is how many cells a row of JIS X 0208 has, and how many rows there are.
const jisSide = 94

// jisTable is JIS X 0208 by row and cell, as the decoder has it; 0: no character.
var jisTable = sync.OnceValue(func() *[jisSide * jisSide]uint16 {
	table := &[jisSide * jisSide]uint16{}
	d := japanese.ISO2022JP.NewDecoder()
	for i := range table {
		text, err := d.Bytes([]byte{0x1b, '$', 'B', byte('!' + i/jisSide), byte('!' + i%jisSide), 0x1b, '(', 'B'})
		if r, n := utf8.DecodeRune(text); err == nil && n == len(text) && r < utf8.RuneError {
			table[i] = uint16(r)
		}
	}
	return table
})

// convertJIS appends text in ISO-2022-JP as UTF-8, in a third of the time that the
// decoder takes. It is false for whatever is not ASCII and JIS X 0208 in order:
// that is the decoder's.
func convertJIS(to, b []byte) ([]byte, bool) {
	table, wide := jisTable(), false
	to = slices.Grow(to, len(b)+len(b)/2)
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c == 0x1b:
			if i+2 >= len(b) {
				return nil, false
			}
			switch string(b[i+1 : i+3]) {
			case "$B", "$@":
				wide = true
			case "(B", "(J":
				wide = false
			default:
				return nil, false
			}
			i += 3
		case c >= utf8.RuneSelf:
			return nil, false
		case !wide || c == '\n': // which ends it
			wide = false
			to = append(to, c)
			i++
		default:
			if i+1 >= len(b) || c < '!' || c > '~' || b[i+1] < '!' || b[i+1] > '~' {
				return nil, false
			}
			switch r := table[int(c-'!')*jisSide+int(b[i+1]-'!')]; {
			case r == 0:
				return nil, false
			case r >= 0x800:
				to = append(to, 0xe0|byte(r>>12), 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
			default:
				to = utf8.AppendRune(to, rune(r))
			}
			i += 2
		}
	}
	return to, true
}
