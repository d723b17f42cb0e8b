package render_test

import (
	"slices"
	"testing"

	"relayguard/cmd/internal/render"
)

func TestLinesFitWhateverTheTextIs(t *testing.T) {
	for text, want := range map[string][]string{
		"":                   {""},
		"a word or two":      {"a word", "or two"},
		"abcdefghijklmnop q": {"abcdefgh", "ijklmnop", "q"},
		"日本語の長い行":            {"日本語の", "長い行"},
		"a\x1bb":             {`a\x1bb`},
	} {
		if got := render.Lines(text, 8); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
