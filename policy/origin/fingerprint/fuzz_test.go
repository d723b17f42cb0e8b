package fingerprint_test

import (
	"slices"
	"strings"
	"testing"

	"relayguard/policy/origin/fingerprint"
)

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := fingerprint.Default().Parse(text)
		if (s == nil) != (err != nil) {
			t.Fatalf("%v, %v", s, err)
		}
		if err != nil {
			return
		}
		if got := s.Find(fields{"X-Mailer": {string(text)}}, string(text), text); got != "" && !slices.Contains(s.Names(), got) {
			t.Fatalf("found %q, which is none of %q", got, s.Names())
		}
	})
}

// FuzzFind compares the search for many texts with that for each.
func FuzzFind(f *testing.F) {
	texts := []string{"abcabcab", "bcabcabc", "some text", "aaaaaaaa", "aaaaaaaaab", "日本語日本語"}
	var file strings.Builder
	for _, text := range texts {
		file.WriteString("x" + string(rune('a'+slices.Index(texts, text))) + " body has \"" + text + "\"\n")
	}
	set, err := new(fingerprint.Set).Parse([]byte(file.String()))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value, subject string, body []byte) {
		plain := strings.NewReplacer("=\r\n", "", "=\n", "").Replace(string(body[:min(len(body), 8<<10)]))
		want := ""
		for i, text := range texts {
			if strings.Contains(plain, text) {
				want = "x" + string(rune('a'+i))
			}
		}
		if got := set.Find(fields{}, subject, body); got != want {
			t.Fatalf("%q: %q, want %q", body, got, want)
		}
		fingerprint.Default().Find(fields{"X-Mailer": {value}, "Message-Id": {value}}, subject, body)
	})
}
