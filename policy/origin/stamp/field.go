package stamp

import (
	"io"
	"mime"
	"strings"
)

// Bounds of what is read. A stamp with the longest names has some 630 octets;
// Q-encoding makes each of them three at worst.
const (
	mostFields     = 8     // of one message that are looked at
	longestRaw     = 4096  // octets of a site's field as it arrived
	longestDecoded = 1024  // and of its text
	longestNodeRaw = 16384 // octets of a node's: 1,000 recipients are 8,000
)

// words decodes encoded words. A stamp is ASCII, and so is its text in every
// charset that a blog may be set to: no conversion is needed.
var words = mime.WordDecoder{CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil }}

// Decode is the text of a site's field: unfolded, its encoded words (RFC 2047)
// decoded, one blank between tokens. PHPMailer encodes each field that is longer
// than its lines. It reports false for what is no printable ASCII, or too long.
func Decode(field string) (string, bool) {
	if len(field) > longestRaw {
		return "", false
	}
	if strings.Contains(field, "=?") {
		decoded, err := words.DecodeHeader(field)
		if err != nil {
			return "", false
		}
		field = decoded
	}
	field = strings.Trim(field, blanks)
	if !spaced(field) {
		field = strings.Join(strings.FieldsFunc(field, isBlank), " ")
	}
	if len(field) > longestDecoded || !printable(field) {
		return "", false
	}
	return field, true
}

// compact is a node's field without any blanks, which mean nothing in it: MTAs
// break long lines where they like.
func compact(field string) (string, bool) {
	if len(field) > longestNodeRaw {
		return "", false
	}
	b := make([]byte, 0, len(field))
	for i := range len(field) {
		if !isBlank(rune(field[i])) {
			b = append(b, field[i])
		}
	}
	s := string(b)
	return s, printable(s)
}

const blanks = " \t\r\n"

func isBlank(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }

// spaced reports whether all blanks of s are single spaces.
func spaced(s string) bool {
	for i := range len(s) {
		if isBlank(rune(s[i])) && (s[i] != ' ' || i > 0 && s[i-1] == ' ') {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
