package template

// Bounds of a Text, and of the work that Read does for one message.
const (
	maxLinks   = 6 // half of them from the beginning, half from the end
	maxLines   = 32
	maxWhole   = 16 // whole lines among them
	firstWhole = 10 // of those, from the beginning; the others are from the end
	maxFronts  = 3  // of sites, among the lines; as many again in a signature
	bands      = 8  // of Shape
	maxHosts   = 32
	maxMiddle  = 100      // links that are looked at between the first lines and the last
	maxBody    = 64 << 10 // octets of the body that are looked at; milter.max_body_bytes is bounded so
	maxText    = 16384    // octets of decoded text that are looked at
	maxSubject = 1024
	maxLine    = 2000 // octets; a longer one counts as several
)

// Text is what is known of a message's text, without the text itself: hosts, and
// hashes of what is the same in all copies of one form. The zero value is a message of
// which nothing is known. Shared and Find note in it what Sent is to know, so it
// belongs to one message.
type Text struct {
	Skeleton uint64   // of the subject; 0: none
	Links    []uint64 // each once, the first three and the last three
	Lines    []uint64 // each once, in their order, the first ones and the last ones; at most 32
	Shape    []uint64 // what similar texts share, whatever their lines; at most 8
	Hosts    []string // that links lead to, each once; at most 32
	More     bool     // there are more hosts

	to        recipients // that Find was told of
	named     uint64     // the part that Find has named
	account   uint32     // that Shared was asked of, and its
	host      uint64     // part that tells the site, and that for all
	newcomers uint64     // if it is one of them
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

// addLast is add, but of too many the last half stays beside the first half.
func addLast(to []uint64, h uint64, most int) []uint64 {
	if len(to) < most {
		return add(to, h, most)
	}
	for _, have := range to {
		if have == h {
			return to
		}
	}
	copy(to[most/2:], to[most/2+1:])
	to[most-1] = h
	return to
}

func nonzero(h uint64) uint64 { return max(h, 1) }
