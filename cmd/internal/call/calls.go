package call

import (
	"container/list"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"relayguard/policy"
)

// Call is what is known of one call of sendmail(1). Only UID is sure; see the
// package.
type Call = policy.Call

// Lifetime of a token. What the MTA has not shown the guard by then has waited
// for longer than any retry does.
const Lifetime = 24 * time.Hour

// defaultMost is how many calls are remembered. With all their texts at their
// bounds they take 50 MB, as they mostly are 15.
const defaultMost = 50_000

// share of all places that the calls of one uid may take: else an account that
// calls and calls could make the guard forget the others' calls.
const share = 4

// token names a call: 128 random bits, which nobody guesses.
type token [16]byte

func (t token) String() string { return hex.EncodeToString(t[:]) }

func parseToken(s string) (t token, ok bool) {
	if len(s) != 2*len(t) {
		return t, false
	}
	_, err := hex.Decode(t[:], []byte(s))
	return t, err == nil
}

// Calls remembers calls by their tokens, so many at most: then the oldest is
// forgotten, and of a uid with more than a quarter of all its own oldest. Its
// mail counts as not called by the wrapper. A restart forgets all. Safe for
// concurrent use.
type Calls struct {
	most  int
	clock func() time.Time

	mu    sync.Mutex
	known map[token]*entry
	all   *list.List         // of *entry, the oldest first
	ofUID map[int]*list.List // the same of each uid
}

type entry struct {
	token  token
	call   Call
	used   bool
	digest [16]byte      // of the message that used it
	inAll  *list.Element // its places
	inUID  *list.Element
}

// NewCalls remembers at most so many calls, 0 for the default of 50,000, and
// tells the time by clock.
func NewCalls(most int, clock func() time.Time) *Calls {
	if most < 1 {
		most = defaultMost
	}
	return &Calls{most: most, clock: clock, known: map[token]*entry{}, all: list.New(), ofUID: map[int]*list.List{}}
}

// Add remembers a call, as of now, and returns its token.
func (c *Calls) Add(call Call) string {
	e := &entry{call: call}
	rand.Read(e.token[:]) // never fails
	c.mu.Lock()
	defer c.mu.Unlock()
	e.call.Time = c.clock()
	c.expire(e.call.Time)
	own := c.ofUID[call.UID]
	switch {
	case own != nil && own.Len() >= max(c.most/share, 1):
		c.forget(own.Front().Value.(*entry))
	case c.all.Len() >= c.most:
		c.forget(c.all.Front().Value.(*entry))
	}
	if own = c.ofUID[call.UID]; own == nil {
		own = list.New()
		c.ofUID[call.UID] = own
	}
	c.known[e.token] = e
	e.inAll, e.inUID = c.all.PushBack(e), own.PushBack(e)
	return e.token.String()
}

// expire forgets what is over its time.
func (c *Calls) expire(now time.Time) {
	for first := c.all.Front(); first != nil; first = c.all.Front() {
		e := first.Value.(*entry)
		if now.Sub(e.call.Time) < Lifetime {
			return
		}
		c.forget(e)
	}
}

func (c *Calls) forget(e *entry) {
	delete(c.known, e.token)
	c.all.Remove(e.inAll)
	own := c.ofUID[e.call.UID]
	own.Remove(e.inUID)
	if own.Len() == 0 {
		delete(c.ofUID, e.call.UID)
	}
}

// Call is the call with that token, for the message with that digest. The first
// message that comes with a token has it for good: the same message again is a
// retry, another one is not believed.
func (c *Calls) Call(text string, digest [16]byte) (Call, bool) {
	t, ok := parseToken(text)
	if !ok {
		return Call{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.known[t]
	if e == nil || c.clock().Sub(e.call.Time) >= Lifetime || e.used && e.digest != digest {
		return Call{}, false
	}
	e.used, e.digest = true, digest
	return e.call, true
}

// Len is how many calls are remembered.
func (c *Calls) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.known)
}
