package limit

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
	"time"
)

const (
	// RetryTerm is how long after its charge a unit can be tried again for free.
	RetryTerm = 24 * time.Hour
	// RetryTries is how many tries are free.
	RetryTries = 3
	// DefaultUnits is how many units NewRetries is usually given: some 65 MB, and
	// 120 where each was tried as often as is free.
	DefaultUnits = 200_000
)

// Retries remembers what was charged, so that a message which the MTA did not
// take in the end is not charged again when its client comes back.
//
// A unit is one recipient of one Message-ID of one account. After its charge,
// up to RetryTries tries within RetryTerm are free, if headers and body have the
// same digest, and if no earlier try is known to have been queued. All else is
// charged: a message without Message-ID or queue id, a unit whose content was
// another once, a unit forgotten for want of room (the oldest go first), and,
// as nothing is written down, every unit from before a restart.
//
// Units are kept as digests under a key that is made with the memory and never
// leaves it. It is safe for concurrent use.
type Retries struct {
	most int

	mu     sync.Mutex
	mac    hash.Hash
	units  map[digest]*unit
	order  []*unit // by their charge; order[:head] is gone
	head   int
	queued map[digest][]*unit // by the queue id of a try
}

type digest [16]byte

type unit struct {
	id      digest
	content [16]byte
	charged int64 // when, microseconds
	tries   uint8 // in queues
	closed  bool  // nothing is free any more
	queues  [1 + RetryTries]digest
}

// NewRetries makes a memory for so many units.
func NewRetries(units int) *Retries {
	key := make([]byte, 32)
	rand.Read(key) // never an error
	return &Retries{most: max(units, 1), mac: hmac.New(sha256.New, key), units: map[digest]*unit{}, queued: map[digest][]*unit{}}
}

// Try is one message on its way, from Begin to Keep or Cancel. It is for one
// goroutine.
type Try struct {
	// Free says of each recipient, in the order given, that it is not charged.
	Free []bool

	memory  *Retries
	now     int64
	content [16]byte
	queue   digest
	ids     []digest // of the recipients; nil if nothing is remembered
	counted []*unit  // per recipient, nil if its unit is not known yet
}

// Charged is how many recipients are to be charged.
func (t *Try) Charged() int {
	n := 0
	for _, free := range t.Free {
		if !free {
			n++
		}
	}
	return n
}

// Begin says which recipients of a message are a free retry, and counts the
// try, in one step: repeats that race do not share what is left. Then the
// message is charged for the others. If it goes on its way, call Keep before
// the MTA gets its reply; if it does not, Cancel.
//
// The content is the digest of headers and body. The queue id is that of this
// try, by which Queued will name it.
func (r *Retries) Begin(now time.Time, account, messageID, queueID string, content [16]byte, rcptTo []string) *Try {
	t := &Try{Free: make([]bool, len(rcptTo)), memory: r, now: micros(now), content: content}
	if account == "" || messageID == "" || queueID == "" {
		return t
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.queue = r.digest("queue", queueID)
	t.ids, t.counted = make([]digest, len(rcptTo)), make([]*unit, len(rcptTo))
	for i, rcpt := range rcptTo {
		t.ids[i] = r.digest("unit", account, messageID, rcpt)
		if u := r.known(t.ids[i], t.now); u != nil {
			t.Free[i] = r.try(u, t)
			t.counted[i] = u
		}
	}
	return t
}

// Keep remembers what was charged. Without it the message is charged again.
func (t *Try) Keep() {
	r := t.memory
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, id := range t.ids {
		switch u := r.known(id, t.now); {
		case t.counted[i] != nil:
		case u != nil: // another came first
			r.try(u, t)
		default:
			u = &unit{id: id, content: t.content, charged: t.now}
			r.remember(u, t.now)
			r.try(u, t)
		}
	}
	t.ids = nil
}

// Cancel takes the try back: the message was stopped. After Keep or Cancel it
// does nothing, so that it can be deferred.
func (t *Try) Cancel() {
	r := t.memory
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range t.ids {
		if u := t.counted[i]; u != nil {
			r.untry(u, t.queue)
		}
	}
	t.ids = nil
}

// Queued tells that the MTA has queued the message of this queue id: whoever
// sends it again sends it a second time.
func (r *Retries) Queued(queueID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := r.digest("queue", queueID)
	for _, u := range r.queued[queue] {
		u.closed = true
	}
	delete(r.queued, queue)
}

// Len is how many units are remembered.
func (r *Retries) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.units)
}

// known is a unit that was charged within the term.
func (r *Retries) known(id digest, now int64) *unit {
	if u := r.units[id]; u != nil && now-u.charged <= RetryTerm.Microseconds() {
		return u
	}
	return nil
}

// try counts a try of a unit and says whether it is free.
func (r *Retries) try(u *unit, t *Try) bool {
	if u.content != t.content || int(u.tries) == len(u.queues) {
		u.closed = true // this try may get queued, and would not be noticed
	}
	if u.closed {
		return false
	}
	u.queues[u.tries] = t.queue
	u.tries++
	r.queued[t.queue] = append(r.queued[t.queue], u)
	return true
}

// untry takes a counted try back.
func (r *Retries) untry(u *unit, queue digest) {
	for i := range u.queues[:u.tries] {
		if u.queues[i] == queue {
			u.tries--
			u.queues[i] = u.queues[u.tries]
			r.unlink(u, queue)
			return
		}
	}
}

func (r *Retries) unlink(u *unit, queue digest) {
	units := r.queued[queue]
	for i := range units {
		if units[i] == u {
			units[i] = units[len(units)-1]
			units = units[:len(units)-1]
			break
		}
	}
	if len(units) == 0 {
		delete(r.queued, queue)
		return
	}
	r.queued[queue] = units
}

// remember adds a unit, and forgets those whose term is over and the oldest for
// which there is no room.
func (r *Retries) remember(u *unit, now int64) {
	if old := r.units[u.id]; old != nil {
		r.forget(old) // its place in the order is found empty
	}
	for r.head < len(r.order) && (len(r.order)-r.head >= r.most || now-r.order[r.head].charged > RetryTerm.Microseconds()) {
		r.forget(r.order[r.head])
		r.order[r.head] = nil
		r.head++
	}
	if r.head > len(r.order)/2 {
		r.order = append(r.order[:0], r.order[r.head:]...)
		r.head = 0
	}
	r.units[u.id] = u
	r.order = append(r.order, u)
}

func (r *Retries) forget(u *unit) {
	for _, queue := range u.queues[:u.tries] {
		r.unlink(u, queue)
	}
	u.tries = 0
	if r.units[u.id] == u {
		delete(r.units, u.id)
	}
}

// digest is that of parts, none of which can pass for two. The memory is locked.
func (r *Retries) digest(parts ...string) (d digest) {
	r.mac.Reset()
	for _, p := range parts {
		var length [8]byte
		binary.LittleEndian.PutUint64(length[:], uint64(len(p)))
		r.mac.Write(length[:])
		r.mac.Write([]byte(p))
	}
	copy(d[:], r.mac.Sum(nil))
	return d
}
