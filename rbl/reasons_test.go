package rbl_test

import (
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"relayguard/rbl"
)

func TestCleanReasons(t *testing.T) {
	long := strings.Repeat("あ", 301)
	for name, c := range map[string]struct{ texts, want []string }{
		"as it came":        {[]string{"Listed, see https://example.org/?ip=192.0.2.1"}, []string{"Listed, see https://example.org/?ip=192.0.2.1"}},
		"Japanese":          {[]string{"迷惑メール"}, []string{"迷惑メール"}},
		"order and repeats": {[]string{"b", "a", "b"}, []string{"a", "b"}},
		"nothing":           {[]string{"", " \r\n"}, nil},
		"lines":             {[]string{"one\r\ntwo\tthree  four"}, []string{"one two three four"}},
		"a terminal":        {[]string{"\x1b[31mred\x00"}, []string{`\x1b[31mred\x00`}},
		"bidi":              {[]string{"a\u202eb\u200bc\u3164"}, []string{`a\u202eb\u200bc\u3164`}},
		"no UTF-8":          {[]string{"caf\xe9"}, []string{`caf\xe9`}},
		"HTML stays text":   {[]string{"<b>&"}, []string{"<b>&"}},
		"too long":          {[]string{long}, []string{strings.Repeat("あ", 299) + "…"}},
		"a key":             {[]string{"key AbCdEf0123.zen and abcdef0123"}, []string{"key ***.zen and ***"}},
		"half a key at the cut": {[]string{strings.Repeat(".", 280) + strings.Repeat(" ", 739) + "abcdef0123"},
			[]string{strings.Repeat(".", 280)}},
		// Who reads the answer cuts it, too: then no more is there than can be.
		"a key cut by others":                     {[]string{strings.Repeat(" ", 1024-9) + "abcdef012"}, nil},
		"a key at the end":                        {[]string{strings.Repeat(" ", 1024-10) + "abcdef0123"}, []string{"***"}},
		"a key at the end that ends as it begins": {[]string{strings.Repeat(" ", 1024-9) + "xyz01234x"}, []string{"***"}},
		"as much as is looked at":                 {[]string{strings.Repeat("x", 1024)}, []string{strings.Repeat("x", 299) + "…"}},
		"many octets":                             {[]string{strings.Repeat("\U0001f600", 255) + "\x01\x01\x01"}, []string{strings.Repeat("\U0001f600", 255) + "…"}},
	} {
		if got := rbl.CleanReasons(c.texts, "", "abcdef0123", "xyz01234x"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	var many []string
	for i := range 64 {
		many = append(many, strings.Repeat("x", i+1))
	}
	if got := rbl.CleanReasons(many); len(got) != 16 {
		t.Errorf("%d reasons", len(got))
	}
}

func FuzzCleanReasons(f *testing.F) {
	f.Add("listed", "key", "0123456789abcdef")
	f.Add("\x00x00", "\\", "x000")
	f.Add(strings.Repeat("k", 1020)+"KEYS", "", "keys")
	f.Add("a\u202eb", "\xff\xfe", "u202e")
	f.Add(strings.Repeat("\U0001f600", 255)+"\x01\x01\x01", strings.Repeat("k", 1018)+"0key0k", "0key0")
	f.Add("ſecret İkey", "", "secret")
	f.Fuzz(func(t *testing.T, a, b, key string) {
		if len(key) < 4 || strings.ContainsFunc(key, func(c rune) bool { return !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z') }) {
			key = "" // keys are letters and digits
		}
		got := rbl.CleanReasons([]string{a, b, a + key + b}, key)
		if len(got) > 3 || !slices.IsSorted(got) {
			t.Errorf("%q", got)
		}
		for _, text := range got {
			if text == "" || !utf8.ValidString(text) || utf8.RuneCountInString(text) > 300 || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
				t.Errorf("unfit: %q", text)
			}
			if key != "" && strings.Contains(asciiLower(text), asciiLower(key)) {
				t.Errorf("the key is in %q", text)
			}
		}
		if again := rbl.CleanReasons(got, key); !slices.Equal(again, got) {
			t.Errorf("%q becomes %q", got, again)
		}
	})
}

// asciiLower lowers what names of the DNS take for the same: strings.ToLower makes an
// i of a dotted capital one.
func asciiLower(s string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + ('a' - 'A')
		}
		return c
	}, s)
}
