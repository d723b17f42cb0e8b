package fingerprint

import "bytes"

// needles finds many texts in one pass (Wu and Manber 1994): a look at the last
// four octets of a window as long as the shortest text tells how far it can move
// before any text can end there. Usually that is nearly the whole window, so the
// time hardly grows with the number of texts.
type needles struct {
	texts  []string
	window int                   // octets of the shortest text
	shift  [1 << blockBits]uint8 // by block: how far to move; 0: see ending
	ending map[uint32][]int      // by block: texts whose first window octets end with it
}

const (
	blockBits = 13
	blockSize = 4
)

// block is a number for four octets.
func block[text string | []byte](t text, end int) uint32 {
	t = t[end-blockSize : end]
	four := uint32(t[0]) | uint32(t[1])<<8 | uint32(t[2])<<16 | uint32(t[3])<<24
	return four * 2654435761 >> (32 - blockBits) // Knuth's multiplier
}

func newNeedles(texts []string) *needles {
	n := &needles{texts: texts, window: longestText, ending: map[uint32][]int{}}
	for _, t := range texts {
		n.window = min(n.window, len(t))
	}
	for i := range n.shift {
		n.shift[i] = uint8(n.window - blockSize + 1)
	}
	for i, t := range texts {
		for end := blockSize; end <= n.window; end++ {
			b := block(t, end)
			n.shift[b] = min(n.shift[b], uint8(n.window-end))
			if end == n.window {
				n.ending[b] = append(n.ending[b], i)
			}
		}
	}
	return n
}

// find tells which texts a body has, nil for none.
func (n *needles) find(body []byte) []bool {
	var hits []bool
	for end := n.window; end <= len(body); {
		b := block(body, end)
		if far := n.shift[b]; far > 0 {
			end += int(far)
			continue
		}
		window := body[end-n.window:]
		for _, i := range n.ending[b] {
			if t := n.texts[i]; len(t) <= len(window) && string(window[:len(t)]) == t {
				if hits == nil {
					hits = make([]bool, len(n.texts))
				}
				hits[i] = true
			}
		}
		end++
	}
	return hits
}

// unbroken is a body without the soft line breaks of quoted-printable (RFC 2045
// §6.7), which may break any sentence. It is body itself where there are none.
func unbroken(body []byte) []byte {
	end, next := softBreak(body)
	if end < 0 {
		return body
	}
	joined := make([]byte, 0, len(body))
	for end >= 0 {
		joined = append(joined, body[:end]...)
		body = body[next:]
		end, next = softBreak(body)
	}
	return append(joined, body...)
}

// softBreak is where the first soft line break is, and where it ends; -1 if there
// is none.
func softBreak(body []byte) (end, next int) {
	for i := 0; ; {
		n := bytes.IndexByte(body[i:], '=') // there are fewer than lines
		if n < 0 {
			return -1, 0
		}
		i += n + 1
		switch rest := body[i:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i - 1, i + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i - 1, i + 2
		}
	}
}
