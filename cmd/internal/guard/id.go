package guard

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// idSource makes the names of decisions: 13 characters of Crockford's base 32,
// milliseconds before a counter that starts anywhere, so that ids sort by time
// and two relays seldom meet. A Postfix queue id is shorter or upper case.
type idSource struct{ counter atomic.Uint64 }

const (
	idAlphabet  = "0123456789abcdefghjkmnpqrstvwxyz"
	idLength    = 13
	counterBits = 20 // a million decisions a millisecond
)

func (s *idSource) seed() { s.counter.Store(rand.Uint64()) }

func (s *idSource) next(now time.Time) string {
	v := uint64(now.UnixMilli())<<counterBits | s.counter.Add(1)&(1<<counterBits-1)
	var id [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		id[i] = idAlphabet[v&31]
		v >>= 5
	}
	return string(id[:])
}
