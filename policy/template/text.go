package template

// Bounds of a Text, and of the work that Read does for one message.
const (
	maxLinks   = 6
	maxLines   = 32
	maxWhole   = 16 // whole lines among them
	bands      = 8  // of Shape
	maxHosts   = 4
	maxBody    = 64e3  // octets of the body that are looked at
	maxText    = 16384 // octets of decoded text that are looked at
	maxSubject = 1024
	maxLine    = 2000 // octets; a longer one counts as several
)

// Text is what is known of a message's text, without the text itself: hashes of
// what is the same in all copies of one form. The zero value is a message of
// which nothing is known. Find notes the recipients in it for Sent, so it belongs to one message.
type Text struct {
	Skeleton uint64   // of the subject; 0: none
	Links    []uint64 // each once; at most 6
	Lines    []uint64 // each once, in their order; at most 32
	Shape    []uint64 // what similar texts share, whatever their lines; at most 8
	Hosts    []uint64 // that links lead to, each once; at most 4

	to recipients // that Find was told of
}

// TextOf is the text of a trace, which has a skeleton and lines as strings, or
// hashes of them, instead of the text. Empty strings are left out.
func TextOf(skeleton string, lineHashes []string) Text {
	var t Text
	if skeleton != "" {
		t.Skeleton = nonzero(sip([16]byte{}, []byte(skeleton)))
	}
	for _, l := range lineHashes {
		if l != "" {
			t.Lines = add(t.Lines, sip([16]byte{}, []byte(l)), maxLines)
		}
	}
	return t
}

// add appends h, unless it is there or there are enough.
func add(to []uint64, h uint64, most int) []uint64 {
	if len(to) >= most {
		return to
	}
	for _, have := range to {
		if have == h {
			return to
		}
	}
	return append(to, h)
}

func nonzero(h uint64) uint64 { return max(h, 1) }
