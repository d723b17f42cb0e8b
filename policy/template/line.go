package template

import (
	"bytes"
	"unicode"
	"unicode/utf8"
)

// A line means something from so many letters on, a CJK character being two,
// and from two words or six such characters. Shorter ones ("Dear Sir", "Total:")
// are in mail of every kind.
// A subject needs less: it is chosen to tell something.
const (
	minLetters        = 12
	minSubjectLetters = 8
)

// Units tell how long a line is: a word is two, a CJK character one. The first
// lines of wholeUnits and more give their beginning and their end of partUnits
// also, which do not depend on a name in the rest: partLines of them, of which
// lastParted at least are at the end of a long text.
const (
	partLines  = 6
	lastParted = 2
	wholeUnits = 12
	partUnits  = 10
)

// maskOctet stands for what varies, in a line as it is hashed.
const maskOctet = 0

// maxName is how many CJK characters before "様" or "さん" are taken for a name.
const maxName = 12

// token is a word, a CJK character, or a mask, in line.norm.
type token struct {
	hash       uint64
	start, end int32
	letters    uint16
	units      uint8 // 0: a mask
}

// line is one line of text, taken apart. It is used again for the next.
type line struct {
	seed   uint64
	norm   []byte // the tokens, words with a blank before them
	tokens []token
	clause int // the first token after the last punctuation mark
}

func (l *line) reset() { l.norm, l.tokens, l.clause = l.norm[:0], l.tokens[:0], 0 }

// read takes a line apart: folded text, NFKC. Link is called for each URL.
func (l *line) read(b []byte, link func([]byte)) {
	l.reset()
	for i := 0; i < len(b); {
		c := b[i]
		if c < utf8.RuneSelf {
			switch k := classes[c]; {
			case k&wordy == 0:
				if k&stop != 0 {
					l.clause = len(l.tokens)
				}
				i++
			default:
				i += l.simple(b, i, link)
			}
			continue
		}
		r, n := wideRune(b[i:])
		switch {
		case r == '、' || r == '。' || r == '「' || r == '」':
			l.clause = len(l.tokens)
		case r == '様' || r == '殿' || r == 'さ' && bytes.HasPrefix(b[i+n:], []byte("ん")):
			l.dropTo(max(l.clause, len(l.tokens)-maxName))
			l.mask()
		case isCJK(r):
			l.char(r, b[i:i+n])
		case unicode.IsLetter(r):
			i += l.chunk(b, i, link)
			continue
		case unicode.IsDigit(r):
			l.mask()
		}
		i += n
	}
}

// wideRune is utf8.DecodeRune, quicker for kana and Han.
func wideRune(b []byte) (rune, int) {
	if len(b) > 2 && b[0] >= 0xe3 && b[0] <= 0xe9 && b[1]&0xc0 == 0x80 && b[2]&0xc0 == 0x80 {
		return rune(b[0]&0xf)<<12 | rune(b[1]&0x3f)<<6 | rune(b[2]&0x3f), 3
	}
	return utf8.DecodeRune(b)
}

// simple is chunk for a word of nothing but letters, as most are.
func (l *line) simple(b []byte, i int, link func([]byte)) int {
	end := i
	for end < len(b) && classes[b[end]]&letter != 0 {
		end++
	}
	if end == i || end < len(b) && (b[end] >= utf8.RuneSelf || classes[b[end]]&(wordy|joiner) != 0) {
		return l.chunk(b, i, link)
	}
	l.word(b[i:end], end-i, 0)
	return end - i
}

// chunk reads what has no blank or bracket in it from i on: a word, a number, an
// address, a link. It tells how long that is.
func (l *line) chunk(b []byte, i int, link func([]byte)) int {
	if n := urlLen(b[i:]); n > 0 {
		link(b[i : i+n])
		l.mask()
		return n
	}
	var letters, digits, hex, at int
	end := i
	for end < len(b) {
		c := b[end]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(b[end:])
			if isCJK(r) || !unicode.IsLetter(r) && !unicode.IsMark(r) {
				break
			}
			letters++
			end += n
			continue
		}
		k := classes[c]
		if k&(wordy|joiner) == 0 {
			break
		}
		if k&letter != 0 {
			letters++
		}
		if k&digit != 0 {
			digits++
		}
		if k&hexadecimal != 0 {
			hex++
		}
		if c == '@' {
			at = end
		}
		end++
	}
	if end == i { // cannot be, but a loop must not stand still
		return 1
	}
	w := b[i:end]
	switch n := letters + digits; {
	case at > i && at < end-1:
		l.address(b, i)
	case letters == 0, digits > 0 && n >= 16, digits > 0 && hex == n && n >= 8:
		l.number()
	default:
		l.word(w, letters, digits)
	}
	if w[len(w)-1] == ':' {
		l.clause = len(l.tokens)
	}
	return end - i
}

// word keeps a word, its digits as "0", without the marks around it.
func (l *line) word(w []byte, letters, digits int) {
	for len(w) > 0 && classes[w[len(w)-1]]&joiner != 0 {
		w = w[:len(w)-1]
	}
	if digits == 0 {
		if len(w) <= 9 && len(l.tokens) > 0 && l.tokens[len(l.tokens)-1].units == 0 && isDate(w) {
			return // the mask before it is the date
		}
		l.put(w, 2, letters)
		return
	}
	var room [64]byte
	masked := room[:0]
	for j, c := range w {
		switch {
		case len(masked) == len(room):
		case c < utf8.RuneSelf && classes[c]&digit != 0:
			if j == 0 || classes[w[j-1]]&digit == 0 {
				masked = append(masked, '0')
			}
		default:
			masked = append(masked, c)
		}
	}
	l.put(masked, 2, letters)
}

// number masks a number, and the weekday or month before it.
func (l *line) number() {
	if n := len(l.tokens); n > 0 {
		if t := l.tokens[n-1]; t.units == 2 && t.end-t.start <= 9 && isDate(l.norm[t.start:t.end]) {
			l.dropTo(n - 1)
		}
	}
	l.mask()
}

// address masks an address. What stands before one in brackets is a name.
func (l *line) address(b []byte, i int) {
	if i > 0 && (b[i-1] == '(' || b[i-1] == '<') {
		l.dropTo(0)
	}
	l.mask()
}

func (l *line) dropTo(n int) {
	if n = min(n, len(l.tokens)); n < len(l.tokens) {
		l.norm = l.norm[:l.tokens[n].start]
		if n > 0 {
			l.norm = l.norm[:l.tokens[n-1].end]
		}
		l.tokens = l.tokens[:n]
	}
	l.clause = min(l.clause, n)
}

// mask notes that something varies here; several in a row are one.
func (l *line) mask() {
	if n := len(l.tokens); n > 0 && l.tokens[n-1].units == 0 {
		return
	}
	start := int32(len(l.norm))
	l.norm = append(l.norm, maskOctet)
	l.tokens = append(l.tokens, token{start: start, end: start + 1, hash: 1})
}

func (l *line) put(w []byte, units, letters int) {
	if len(w) == 0 {
		return
	}
	if units == 2 {
		l.norm = append(l.norm, ' ')
	}
	start := len(l.norm)
	l.norm = append(l.norm, w...)
	l.tokens = append(l.tokens, token{nonzero(wordHash(l.seed, w)), int32(start), int32(len(l.norm)), uint16(letters), uint8(units)})
}

// text is what the tokens from..to are hashed as, nil if that means nothing. It
// begins and ends with a word: whether a name stood beside it is not told.
func (l *line) text(from, to int, least int32) []byte {
	for from < to && l.tokens[from].units == 0 {
		from++
	}
	for from < to && l.tokens[to-1].units == 0 {
		to--
	}
	var letters, words, chars int32
	for _, t := range l.tokens[from:to] {
		letters += int32(t.letters)
		switch t.units {
		case 1:
			chars++
		case 2:
			words++
		}
	}
	if letters < least || words < 2 && chars < least/2 {
		return nil
	}
	return l.norm[l.tokens[from].start:l.tokens[to-1].end]
}

// parts are the beginning and the end of a long line; nil of a short one.
func (l *line) parts() (head, tail []byte) {
	units := int32(0)
	for _, t := range l.tokens {
		units += int32(t.units)
	}
	if units < wholeUnits {
		return nil, nil
	}
	to, from := 0, len(l.tokens)
	for n := int32(0); n < partUnits; to++ {
		n += int32(l.tokens[to].units)
	}
	for n := int32(0); n < partUnits; {
		from--
		n += int32(l.tokens[from].units)
	}
	return l.text(0, to, minLetters), l.text(from, len(l.tokens), minLetters)
}

// char is put for a CJK character.
func (l *line) char(r rune, b []byte) {
	start := len(l.norm)
	l.norm = append(l.norm, b...)
	l.tokens = append(l.tokens, token{nonzero(mix(l.seed ^ uint64(r))), int32(start), int32(len(l.norm)), 2, 1})
}

func isCJK(r rune) bool {
	switch {
	case r >= 0x3021 && r < 0xa000: // nearly all
		return true
	case r < 0x1100:
		return false
	case r < 0x1200, r >= 0x2e80 && r < 0x3000, r >= 0x3005 && r <= 0x3007, r >= 0xac00 && r < 0xd7b0,
		r >= 0xf900 && r < 0xfb00, r >= 0x1b000 && r < 0x1b170, r >= 0x20000 && r < 0x40000:
		return true
	}
	return false
}

// isDate knows words that stand beside numbers in dates and times.
func isDate(w []byte) bool {
	switch string(w) {
	case "mon", "tue", "wed", "thu", "fri", "sat", "sun",
		"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
		"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
		"january", "february", "march", "april", "june", "july", "august", "september", "october", "november", "december",
		"am", "pm", "gmt", "utc", "jst", "cet", "cest", "est", "edt", "pst", "pdt", "th", "nd", "rd", "st":
		return true
	}
	return false
}
