package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
)

// JSON writes v for programs, indented. What Escape would not show is written
// \uNNNN, which JSON reads back: it may end up on a terminal, too.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err := w.Write(visibleJSON(b.String()))
	return err
}

// visibleJSON is JSON in which every character shows itself.
func visibleJSON(text string) []byte {
	out := make([]byte, 0, len(text))
	for _, c := range text { // beyond ASCII there are only strings
		switch {
		case c == '\n', visible(c):
			out = append(out, string(c)...)
		case c < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			high, low := utf16.EncodeRune(c)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}
