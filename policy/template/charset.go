package template

import (
	"bytes"
	"io"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/japanese"
)

// aliases are names of charsets that mail has and that the registry has not.
var aliases = map[string]string{
	"cp932": "shift_jis", "ms932": "shift_jis", "x-ms-cp932": "shift_jis", "sjis-win": "shift_jis", "x-sjis": "shift_jis", "sjis": "shift_jis",
	"cp50220": "iso-2022-jp", "cp50221": "iso-2022-jp", "cp50222": "iso-2022-jp", "iso-2022-jp-ms": "iso-2022-jp", "iso2022jp": "iso-2022-jp", "jis": "iso-2022-jp",
	"eucjp": "euc-jp", "eucjp-win": "euc-jp", "x-euc-jp": "euc-jp", "ujis": "euc-jp", "cp51932": "euc-jp",
}

// japan are the charsets of most mail that is not in UTF-8.
var japan = map[string]encoding.Encoding{"iso-2022-jp": japanese.ISO2022JP, "shift_jis": japanese.ShiftJIS, "euc-jp": japanese.EUCJP}

// CharsetReader converts from a charset to UTF-8, for mime.WordDecoder. Beside
// those of the registry it knows the names that mail of Japan has.
func CharsetReader(name string, from io.Reader) (io.Reader, error) {
	name = known(name)
	if e := japan[name]; e != nil {
		return &converted{from: from, encoding: e}, nil
	}
	return charset.Reader(name, from)
}

// known is a charset's name as the registry has it.
func known(name string) string {
	name = strings.ToLower(name)
	if alias, ok := aliases[name]; ok {
		return alias
	}
	return name
}

// converted is a short text that is converted as a whole: it needs no buffers.
type converted struct {
	from     io.Reader
	encoding encoding.Encoding
	text     *bytes.Reader // once it is read
}

func (c *converted) Read(p []byte) (int, error) {
	if err := c.load(); err != nil {
		return 0, err
	}
	return c.text.Read(p)
}

// WriteTo implements io.WriterTo.
func (c *converted) WriteTo(w io.Writer) (int64, error) {
	if err := c.load(); err != nil {
		return 0, err
	}
	return c.text.WriteTo(w)
}

func (c *converted) load() error {
	if c.text != nil {
		return nil
	}
	b, err := io.ReadAll(c.from)
	if err != nil {
		return err
	}
	c.text = bytes.NewReader(convert(nil, c.encoding, b, 3*len(b)))
	return nil
}

// convert appends text as UTF-8, at most up to most octets in to.
func convert(to []byte, e encoding.Encoding, b []byte, most int) []byte {
	if e == japanese.ISO2022JP {
		if all, ok := convertJIS(to, b); ok {
			return all[:min(len(all), most)]
		}
	}
	d := e.NewDecoder()
	for len(to) < most {
		if room := min(len(b)+len(b)/2, most-len(to)) + utf8.UTFMax; cap(to)-len(to) < room {
			to = slices.Grow(to, room)
		}
		n, read, err := d.Transform(to[len(to):cap(to)], b, true)
		to, b = to[:len(to)+n], b[read:]
		if err == nil || n+read == 0 {
			break
		}
	}
	return to[:min(len(to), most)]
}

var escape = []byte("\x1b$")

// toUTF8 appends text of a charset as UTF-8, at most up to most octets in to. A
// charset that is not said, not known, or not true, is guessed.
func toUTF8(to []byte, name string, b []byte, most int) []byte {
	name = strings.ToLower(name)
	switch name {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		if bytes.Contains(b, escape) {
			name = "iso-2022-jp"
		} else if name = ""; !valid(b) {
			name = guess(b)
		}
	}
	if name == "" {
		return append(to, b[:min(len(b), most-len(to))]...)
	}
	if e := japan[known(name)]; e != nil {
		return convert(to, e, b, most)
	}
	r, err := charset.Reader(known(name), bytes.NewReader(b))
	if err != nil {
		if name = guess(b); name == "" {
			return append(to, b[:min(len(b), most-len(to))]...)
		}
		return toUTF8(to, name, b, most)
	}
	return readUpTo(to, r, most)
}

// readUpTo appends what a reader has, until there are so many octets. What comes
// before an error is kept.
func readUpTo(to []byte, r io.Reader, most int) []byte {
	for idle := 0; len(to) < most && idle < 100; idle++ {
		if cap(to)-len(to) < 512 {
			to = append(make([]byte, 0, min(2*cap(to)+4096, most+512)), to...)
		}
		n, err := r.Read(to[len(to):min(cap(to), most)])
		to = to[:len(to)+n]
		if err != nil {
			break
		}
		if n > 0 {
			idle = 0
		}
	}
	return to
}

// valid is utf8.Valid of text whose end may be cut off.
func valid(b []byte) bool {
	if utf8.Valid(b) {
		return true
	}
	for cut := 1; cut < utf8.UTFMax && cut < len(b); cut++ {
		if utf8.Valid(b[:len(b)-cut]) {
			return true
		}
	}
	return false
}

// guess tells which charset text is in that is not UTF-8: of Japan's the one in
// which it makes sense, else Latin. "" for ASCII.
func guess(b []byte) string {
	euc, sjis, high := 0, 0, 0
	for i := 0; i < len(b); i++ {
		if b[i] >= 0x80 {
			high++
			if i+1 < len(b) && b[i] >= 0xa1 && b[i] != 0xff && b[i+1] >= 0xa1 {
				euc++
				i++
			}
		}
	}
	wide := high
	high = 0
	for i := 0; i < len(b); i++ {
		if c := b[i]; c >= 0x80 {
			high++
			switch {
			case c >= 0xa1 && c <= 0xdf: // half-width katakana, rare
			case (c >= 0x81 && c <= 0x9f || c >= 0xe0 && c <= 0xfc) && i+1 < len(b) && b[i+1] >= 0x40 && b[i+1] != 0x7f && b[i+1] <= 0xfc:
				sjis++
				i++
			}
		}
	}
	switch {
	case wide == 0:
		return ""
	case euc*10 >= wide*9:
		return "euc-jp"
	case sjis*10 >= high*8:
		return "shift_jis"
	}
	return "windows-1252"
}

var words = mime.WordDecoder{CharsetReader: CharsetReader}

// decodeField decodes RFC 2047 words and charsets that nobody named.
func decodeField(value string) string {
	value = value[:min(len(value), 4*maxSubject)]
	if strings.Contains(value, "=?") {
		if decoded, err := words.DecodeHeader(value); err == nil {
			value = decoded
		}
	}
	for i := range len(value) {
		if value[i] >= 0x80 || value[i] == 0x1b {
			return string(toUTF8(nil, "", []byte(value), 4*maxSubject))
		}
	}
	return value
}
