package rbl

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxReason  = 300  // characters of a reason
	maxReasons = 16   // of an answer
	maxText    = 1024 // octets that are looked at
)

// CleanReasons makes TXT records fit to be shown, and takes keys out: at most 16, one
// line each, at most 300 characters; what is not plainly visible is escaped. They are
// sorted, without repeats: servers give records in changing order.
func CleanReasons(texts []string, keys ...string) []string {
	var clean []string
	for _, text := range texts {
		if text = cleanReason(text, keys); text != "" {
			clean = append(clean, text)
		}
	}
	slices.Sort(clean)
	clean = slices.Compact(clean)
	return clean[:min(len(clean), maxReasons)]
}

func cleanReason(text string, keys []string) string {
	if len(text) >= maxText { // whoever cut it there may have left the beginning of a key
		text = withoutKeys(text[:maxText], keys) // first: a whole one can end as it begins
		for _, key := range keys {
			text = text[:len(text)-cutKey(text, key)]
		}
	}
	text = withoutKeys(text, keys)
	text = strings.Join(strings.Fields(strings.ToValidUTF8(visible(text), "")), " ")
	text = withoutKeys(text, keys) // an escape could have written one
	if runes := []rune(text); len(runes) > maxReason || len(text) >= maxText {
		const more = "…"
		runes = runes[:min(len(runes), maxReason-1)]
		for len(string(runes))+len(more) >= maxText {
			runes = runes[:len(runes)-1]
		}
		text = strings.TrimRight(string(runes), " ") + more
	}
	return text
}

// withoutKeys masks keys, in whatever case: names of the DNS have none.
func withoutKeys(text string, keys []string) string {
	for _, key := range keys {
		if key == "" {
			continue
		}
		var b strings.Builder
		for i := 0; i < len(text); {
			if len(text)-i >= len(key) && asciiFold(text[i:i+len(key)], key) {
				b.WriteString("***")
				i += len(key)
				continue
			}
			b.WriteByte(text[i])
			i++
		}
		text = b.String()
	}
	return text
}

// cutKey is how many octets at the end of text begin a key.
func cutKey(text, key string) int {
	for n := min(len(key)-1, len(text)); n > 0; n-- {
		if asciiFold(text[len(text)-n:], key[:n]) {
			return n
		}
	}
	return 0
}

func asciiFold(a, b string) bool {
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// visible escapes what does not show, or moves what does: control characters, bidi
// controls and other format characters, octets that are no UTF-8. White space becomes
// a space.
func visible(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strings.ContainsRune(" \t\r\n\v\f", c):
			b.WriteByte(' ')
		case unicode.IsPrint(c) && !blank(c):
			b.WriteString(s[i : i+n])
		case c < 0x80:
			fmt.Fprintf(&b, `\x%02x`, c)
		case c < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			fmt.Fprintf(&b, `\U%08x`, c)
		}
		i += n
	}
	return b.String()
}

// blank are letters and marks without a shape.
func blank(c rune) bool {
	switch c {
	case 0x034f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x2800, 0x3164, 0xffa0:
		return true
	}
	return unicode.Is(unicode.Variation_Selector, c)
}
