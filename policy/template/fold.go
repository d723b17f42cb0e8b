package template

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// fold appends a line in NFKC and lower case, without what cannot be seen.
func fold(to, b []byte) []byte {
	start := len(to)
	for rest := b; ; {
		n := steady(rest)
		to = append(to, rest[:n]...)
		if rest = rest[n:]; len(rest) == 0 {
			lower(to[start:])
			return to
		}
		r, size := utf8.DecodeRune(rest)
		folded := &foldPageOf(r)[r&0xff]
		if *folded == interacts || r > 0xffff || r == utf8.RuneError {
			return foldWide(to[:start], b)
		}
		to = append(to, *folded...)
		rest = rest[size:]
	}
}

const (
	eachOctet = 0x0101010101010101
	highBits  = 0x80 * eachOctet
)

// lower makes ASCII letters small, in place, eight octets at a time.
func lower(b []byte) []byte {
	rest := b
	for ; len(rest) >= 8; rest = rest[8:] {
		w := binary.LittleEndian.Uint64(rest)
		low := w &^ highBits
		from, behind := low+(0x80-'A')*eachOctet, low+(0x7f-'Z')*eachOctet // bit 7: it is at or behind A, behind Z
		binary.LittleEndian.PutUint64(rest, w|(from^behind)&^w&highBits>>2)
	}
	for i, c := range rest {
		if c >= 'A' && c <= 'Z' {
			rest[i] = c + 'a' - 'A'
		}
	}
	return b
}

// steady is how many octets b begins with that NFKC does not change: ASCII, kana
// and Han only, without marks that join what is before them. It is the quick way
// for nearly everything.
func steady(b []byte) int {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c < utf8.RuneSelf {
			for i+9 <= len(b) && binary.LittleEndian.Uint64(b[i+1:])&highBits == 0 {
				i += 8
			}
			continue
		}
		if i+2 >= len(b) || b[i+1]&0xc0 != 0x80 || b[i+2]&0xc0 != 0x80 {
			return i
		}
		second, third := b[i+1], b[i+2]
		switch {
		case c >= 0xe4 && c <= 0xe9: // U+4000 to U+9FFF
		case c == 0xe3 && second == 0x80 && third >= 0x81 && third <= 0x8f: // U+3001 to U+300F
		case c == 0xe3 && second == 0x81 && third >= 0x81: // U+3041 to U+307F
		case c == 0xe3 && second == 0x82 && (third <= 0x96 || third >= 0xa1): // U+3080 to U+3096, U+30A1 to U+30BF
		case c == 0xe3 && second == 0x83 && third <= 0xbe: // U+30C0 to U+30FE
		default:
			return i
		}
		i += 2
	}
	return len(b)
}

// foldPage is what 256 neighbouring characters are folded to.
type foldPage [256]string

// interacts stands for a character of which NFKC makes something with those
// beside it.
const interacts = "\xff"

// foldPages are those of the first 65,536 characters, each made when it is needed.
var foldPages [256]atomic.Pointer[foldPage]

func foldPageOf(r rune) *foldPage {
	at := &foldPages[r>>8&0xff]
	if page := at.Load(); page != nil {
		return page
	}
	page := &foldPage{}
	for i := range page {
		page[i] = foldAlone(r&0xff00 | rune(i))
	}
	at.Store(page) // another may have made the same
	return page
}

// foldAlone is what a character is folded to, whatever is beside it.
func foldAlone(r rune) string {
	if unseen(r) {
		return ""
	}
	alone := func(s string) bool { return norm.NFKC.PropertiesString(s).BoundaryBefore() } // joins nothing before it
	s := string(r)
	if !alone(s) {
		return interacts
	}
	for _, c := range norm.NFKC.String(s) {
		if !alone(string(c)) {
			return interacts
		}
	}
	return string(foldWide(nil, []byte(s)))
}

// foldWide is fold of any text.
func foldWide(to, b []byte) []byte {
	start := len(to)
	to = norm.NFKC.Append(to, withoutUnseen(b)...)
	for i := start; i < len(to); {
		c := to[i]
		if c < utf8.RuneSelf {
			if c >= 'A' && c <= 'Z' {
				to[i] = c + 'a' - 'A'
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(to[i:])
		// A letter whose lower case is of another length stays: there are few.
		if r < 0x2000 {
			if low := unicode.ToLower(r); low != r && utf8.RuneLen(low) == n {
				utf8.EncodeRune(to[i:], low)
			}
		}
		i += n
	}
	return to
}

// withoutUnseen is a line without characters that show nothing: with one of them
// between its letters no word is like another.
func withoutUnseen(b []byte) []byte {
	i := bytes.IndexFunc(b, unseen)
	if i < 0 {
		return b
	}
	to := append(make([]byte, 0, len(b)), b[:i]...)
	for rest := b[i:]; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if !unseen(r) {
			to = append(to, rest[:n]...)
		}
		rest = rest[n:]
	}
	return to
}

// unseen knows characters that format others, and those that Unicode says to show
// nothing for (UAX #44, Default_Ignorable_Code_Point).
func unseen(r rune) bool {
	return r >= 0xad && unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}
