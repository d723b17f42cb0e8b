package stamp

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Longest names, in octets. Who makes a stamp cuts them there.
const (
	longestPlugin   = 100
	longestScript   = 200
	longestUser     = 64
	longestHost     = 255
	longestPool     = 100
	longestSoftware = 100
	longestQueue    = 64
	longestNode     = 64
)

// b64 is base64url without padding. Strict: one text for each value.
var b64 = base64.RawURLEncoding.Strict()

// tokens reads "k=VALUE" one after the other, in the order in which they are
// asked for; blank is what stands before each. After the first fault bad is true
// and every value empty.
type tokens struct {
	rest  string
	blank string
	bad   bool
}

// next is the value of the token of that name.
func (t *tokens) next(name byte) string {
	rest, ok := strings.CutPrefix(t.rest, t.blank)
	if t.bad || !ok || len(rest) < 2 || rest[0] != name || rest[1] != '=' {
		t.bad = true
		return ""
	}
	value := rest[2:]
	t.rest = ""
	if i := strings.IndexByte(value, '='); i >= 0 { // of the token after this
		end := i - 1 - len(t.blank)
		if end < 0 {
			t.bad = true
			return ""
		}
		value, t.rest = value[:end], value[end:]
	}
	return value
}

// number is the next token, decimal, without sign and leading zeros.
func (t *tokens) number(name byte, most int64) int64 {
	s := t.next(name)
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || len(s) > 1 && s[0] == '0' || int64(n) > most {
		t.bad = true
		return 0
	}
	return int64(n)
}

// text is the next token, base64 of a name of at most so many octets.
func (t *tokens) text(name byte, most int) string {
	s, ok := decodeName(t.next(name), most)
	t.bad = t.bad || !ok
	return s
}

// octets fills out with the next token, base64 of just so many octets.
func (t *tokens) octets(name byte, out []byte) {
	s := t.next(name)
	if b64.DecodedLen(len(s)) != len(out) {
		t.bad = true
		return
	}
	if _, err := b64.Decode(out, []byte(s)); err != nil {
		t.bad = true
	}
}

// word is the next token, of bounded length and of these characters only.
func (t *tokens) word(name byte, most int, allowed func(byte) bool) string {
	s := t.next(name)
	if len(s) > most {
		t.bad = true
		return ""
	}
	for i := range len(s) {
		if !allowed(s[i]) {
			t.bad = true
			return ""
		}
	}
	return s
}

// client is the next token, an address or "-". What is no address counts as none:
// a stamp is not worth less by what the web server calls its client.
func (t *tokens) client(name byte) netip.Addr {
	s := t.word(name, 64, func(c byte) bool { return c > ' ' && c <= '~' })
	if s == "-" {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(s)
	return a.Unmap().WithZone("")
}

func decodeName(s string, most int) (string, bool) {
	if b64.DecodedLen(len(s)) > most {
		return "", false
	}
	raw, err := b64.DecodeString(s)
	return cleaned(string(raw)), err == nil
}

func encodeName(s string, most int) string { return b64.EncodeToString([]byte(cut(cleaned(s), most))) }

// cleaned is a name without control characters and what cannot be seen.
func cleaned(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unseen) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unseen(r) {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "_"))
}

func unseen(r rune) bool { return !unicode.IsPrint(r) }

// cut is the beginning of s of at most so many octets, whole characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }

// isNameByte is true of what names of nodes and queue ids are made of.
func isNameByte(c byte) bool {
	return isLetter(c) || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// name is s in characters that isNameByte.
func name(s string, most int) string {
	b := []byte(s[:min(len(s), most)])
	for i, c := range b {
		if !isNameByte(c) {
			b[i] = '_'
		}
	}
	return string(b)
}

var entries = Entries()

// entry is s if it is one of Entries, else "other".
func entry(s string) string {
	if slices.Contains(entries, s) {
		return s
	}
	return "other"
}

func clientToken(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.Unmap().WithZone("").String()
}
