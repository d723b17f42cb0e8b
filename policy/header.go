package policy

import (
	"bytes"
	"strings"
)

// Header is the header of one message, in order, held in one buffer that the
// next message on the connection uses again. Values are as on the wire: folded,
// undecoded, possibly hostile. The zero value is empty and unlimited. Not safe
// for concurrent use.
type Header struct {
	MaxBytes  int // of names and values together; 0 = unlimited
	MaxFields int // 0 = unlimited

	// Tally names fields that Count knows of even where they were not kept.
	Tally []string

	unkept [5]int // fields of each name of Tally that were not kept; of the first five
	buf    []byte
	fields []field
	over   bool
}

type field struct{ start, colon, end int }

// Add appends a field. Beyond a limit it keeps nothing more and Truncated says
// so: a field that was not kept may be the one that matters.
func (h *Header) Add(name, value []byte) {
	if h.over || h.MaxFields > 0 && len(h.fields) >= h.MaxFields || h.MaxBytes > 0 && len(h.buf)+len(name)+len(value) > h.MaxBytes {
		h.over = true
		for i, tally := range h.Tally {
			if i < len(h.unkept) && len(name) == len(tally) && strings.EqualFold(string(name), tally) {
				h.unkept[i]++
			}
		}
		return
	}
	f := field{start: len(h.buf)}
	h.buf = append(h.buf, name...)
	f.colon = len(h.buf)
	h.buf = append(h.buf, value...)
	f.end = len(h.buf)
	h.fields = append(h.fields, f)
}

// Overflow notes that there was a field too large to be kept.
func (h *Header) Overflow() { h.over = true }

// Reset empties the header; memory of more than keep bytes is given back.
func (h *Header) Reset(keep int) {
	if cap(h.buf) > keep {
		h.buf = nil
	}
	if cap(h.fields) > 256 {
		h.fields = nil
	}
	h.buf, h.fields, h.over, h.unkept = h.buf[:0], h.fields[:0], false, [5]int{}
}

// Len is the number of fields kept.
func (h *Header) Len() int { return len(h.fields) }

// Bytes is the memory that the fields take.
func (h *Header) Bytes() int { return len(h.buf) }

// Truncated reports that the message has more header than was kept.
func (h *Header) Truncated() bool { return h.over }

// Field returns the field i, 0 <= i < Len, as it arrived.
func (h *Header) Field(i int) (name, value string) {
	f := h.fields[i]
	return string(h.buf[f.start:f.colon]), string(h.buf[f.colon:f.end])
}

// Count is the number of fields of that name, in any case, among those kept; of
// the names of Tally, among all.
func (h *Header) Count(name string) int {
	n := 0
	for i, tally := range h.Tally {
		if i < len(h.unkept) && strings.EqualFold(name, tally) {
			n = h.unkept[i]
		}
	}
	for _, f := range h.fields {
		if h.is(f, name) {
			n++
		}
	}
	return n
}

// Get returns the first field of that name, unfolded and trimmed.
func (h *Header) Get(name string) (string, bool) {
	for _, f := range h.fields {
		if h.is(f, name) {
			return h.value(f), true
		}
	}
	return "", false
}

// Values returns every field of that name, unfolded and trimmed; nil for none.
func (h *Header) Values(name string) []string {
	var all []string
	for _, f := range h.fields {
		if h.is(f, name) {
			all = append(all, h.value(f))
		}
	}
	return all
}

func (h *Header) is(f field, name string) bool {
	return f.colon-f.start == len(name) && strings.EqualFold(string(h.buf[f.start:f.colon]), name)
}

var newlines = strings.NewReplacer("\r\n", "", "\n", "", "\r", "")

func (h *Header) value(f field) string {
	v := h.buf[f.colon:f.end]
	if bytes.IndexByte(v, '\n') >= 0 || bytes.IndexByte(v, '\r') >= 0 {
		return strings.TrimSpace(newlines.Replace(string(v))) // RFC 5322 §2.2.3: unfolding removes the line end, keeps the white space
	}
	return string(bytes.TrimSpace(v))
}
