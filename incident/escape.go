package incident

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"unicode/utf8"
)

// bound cuts s to at most limit octets, at a rune, with "..." in place of the
// rest.
func bound(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len("...")
	for end > 0 && end > limit-len("...")-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// maxName bounds an origin or a cause: an address has at most 254 octets
// (RFC 5321 §4.5.3.1).
const maxName = 280

// maxID bounds an id: ours have 13 characters, the MTA's fewer than 32.
const maxID = 32

// name is bound for what tells incidents apart: two long names that begin alike
// stay two. It is UTF-8, so that it comes back from JSON as it was.
func name(s string) string {
	if len(s) <= maxName && utf8.ValidString(s) {
		return s
	}
	short := strings.ToValidUTF8(bound(s, maxName), string(utf8.RuneError))
	if len(s) <= maxName && len(short) <= maxName {
		return short
	}
	h := fnv.New64a()
	h.Write([]byte(s))
	return fmt.Sprintf("%s#%016x", bound(short, maxName-17), h.Sum64())
}

// escape makes s fit for one line of a log, a terminal or an argument: what is
// not printable (control and format characters, bidi controls, odd spaces) and
// what is not UTF-8 is written \xNN or \uNNNN; at most limit octets come out.
func escape(s string, limit int) string {
	s = bound(s, limit) // what comes out is never shorter
	clean := true
	for _, c := range s {
		if c == utf8.RuneError || !strconv.IsPrint(c) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, c := range s {
		switch {
		case c == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
			} else {
				b.WriteRune(c)
			}
		case strconv.IsPrint(c):
			b.WriteRune(c)
		case c < 0x80:
			fmt.Fprintf(&b, `\x%02x`, c)
		case c < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			fmt.Fprintf(&b, `\U%08x`, c)
		}
	}
	return bound(b.String(), limit)
}
