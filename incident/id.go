package incident

import (
	"math/rand/v2"
	"time"
)

// idSource makes names of incidents: "i-", seconds, and a counter that starts
// anywhere. The prefix keeps them apart from decisions, which are 13 characters
// of the same alphabet.
type idSource uint64

const (
	idPrefix    = "i-"
	idAlphabet  = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32
	idLength    = 10
	counterBits = 15
)

func newIDSource() idSource { return idSource(rand.Uint64()) }

func (s *idSource) next(now time.Time) string {
	*s++
	v := uint64(now.Unix())<<counterBits | uint64(*s)&(1<<counterBits-1)
	var id [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		id[i] = idAlphabet[v&31]
		v >>= 5
	}
	return idPrefix + string(id[:])
}
