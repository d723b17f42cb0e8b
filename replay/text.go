package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"relayguard/policy/template"
)

// maxLines is how many lines of one text are taken; the guard, too, reads the
// beginning only.
const maxLines = 500

// checkText: what stands for a text can be compared.
func (e *Event) checkText() error {
	if given(e.Skeleton) && !scalar(e.Skeleton) {
		return errors.New("skeleton: want a text or a number, the same for all copies of one form")
	}
	lines, ok := e.lines()
	if !ok || slices.ContainsFunc(lines, func(l json.RawMessage) bool { return given(l) && !scalar(l) }) {
		return errors.New("line_hashes: want a list of texts or numbers, one for each line")
	}
	return nil
}

// lines are what stands for the lines, the first of them.
func (e *Event) lines() (all []json.RawMessage, ok bool) {
	if !given(e.LineHashes) {
		return nil, true
	}
	err := json.Unmarshal(e.LineHashes, &all)
	return all[:min(len(all), maxLines)], err == nil
}

// given reports whether a value is there.
func given(v json.RawMessage) bool { return len(v) > 0 && !bytes.Equal(v, []byte("null")) }

// scalar reports whether it is a text or a number.
func scalar(v json.RawMessage) bool { return bytes.IndexByte([]byte(`"-0123456789`), v[0]) >= 0 }

// textOf is the text of a message for which the trace gives hashes, as a journal
// does, in place of subject and body; nil if it does not.
func textOf(e *Event) *template.Text {
	lines, _ := e.lines()
	if !given(e.Skeleton) && len(lines) == 0 {
		return nil
	}
	names := make([]string, len(lines))
	for i, l := range lines {
		names[i] = nameOf(l)
	}
	t := template.TextOf(nameOf(e.Skeleton), names)
	return &t
}

// nameOf is what a trace calls a part of a text; empty: nothing.
func nameOf(v json.RawMessage) string {
	var s string
	switch {
	case !given(v):
	case json.Unmarshal(v, &s) != nil: // a number
		return string(v)
	}
	return s
}
