package template

// bins is how many samples are taken of a text's pairs of words: three in each
// band. Texts with a Jaccard similarity of s share a band with probability
// 1-(1-s^3)^8: 0.86 for 0.6, 0.001 for 0.05.
const (
	bins      = 3 * bands
	minFilled = 8 // a text of which fewer bins have a sample is too short for a shape
	emptiness = ^uint64(0)
)

// shape samples pairs of neighbouring words, in CJK text of characters: the
// smallest hash in each bin (one permutation MinHash, Li, Owen, Zhang 2012).
type shape struct {
	least  [bins]uint64
	prev   uint64
	filled int // bins
}

func (s *shape) reset() {
	for i := range s.least {
		s.least[i] = emptiness
	}
	s.prev, s.filled = 0, 0
}

func (s *shape) word(h uint64) {
	prev := s.prev
	s.prev = h
	if prev == 0 {
		return
	}
	pair := mix(prev*3 ^ h)
	bin := (pair >> 32) * bins >> 32
	if s.least[bin] == emptiness {
		s.filled++
	}
	s.least[bin] = min(s.least[bin], pair&0xffffffff)
}

// bands appends what the text shares with similar ones. An empty bin takes what
// a full one has, which one depends on the bin only (Shrivastava 2017).
func (s *shape) bands(key [16]byte, to []uint64) []uint64 {
	if s.filled < minFilled {
		return to
	}
	var filled [bins]uint64
	for i, v := range s.least {
		for try := uint64(1); v == emptiness; try++ {
			v = s.least[mix(uint64(i)<<32|try)%bins]
		}
		filled[i] = v
	}
	for b := range bands {
		to = add(to, sipWords(key, domainShape, uint64(b), filled[3*b], filled[3*b+1], filled[3*b+2]), bands)
	}
	return to
}
