package template

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"
	"sync"
	"time"
)

// Options of a Memory.
type Options struct {
	Key   [16]byte // of the hashes; keep it from one start to the next
	Parts int      // the most parts to remember [200,000]
	Days  int      // earlier days after which a part is boilerplate [3]; at most 14
}

// growth is how many times as many recipients as on its usual days boilerplate
// may go to: a shop has sale days.
const growth = 3

// manyADay is from how many recipients a day on a form may have new parts: fewer
// are what the limit for one template allows anyway.
const manyADay = 40

// newcomers is how many recipients may get a shared account's mail without links
// on a day that is of domains which had none on Options.Days earlier days. What
// comes on top is the account's: where a form has its visitor's address in From,
// that domain is whatever he likes.
const newcomers = 100

const maxDays = 14

// Memory remembers parts of texts by sender. Safe for concurrent use.
//
// It takes 217 octets for each place, sixteen places at a time as they are needed,
// and never more than Options.Parts: 200,000 are 43.4 MB. An empty memory takes next
// to nothing. A message has at most 47 parts, its sender one, and where Shared is
// asked up to 33 more; most are the same as in the message before. A place is kept for a part as long as nothing wants it. Then the part
// goes that was seen longest ago, counting a day more for each day on which it
// was sent, and six hours for each doubling of its recipients. The parts of a
// sender who has more than a quarter of the places that come into question go
// first, so that nobody's flood pushes out the others'.
type Memory struct {
	keys   keys
	days   int
	shards []shard
}

// ways are the places that a part may be in.
const ways = 16

type shard struct {
	mu   sync.Mutex
	sets []*set // nil: nothing is in it
}

// set is the places of all parts with one remainder. A zero key is a free place.
type set struct {
	keys  [ways]uint64
	parts [ways]part
}

// New makes an empty memory. Options out of range are taken to the nearest; zero
// is the default.
func New(o Options) *Memory {
	if o.Parts <= 0 {
		o.Parts = 200_000
	}
	if o.Days <= 0 {
		o.Days = 3
	}
	m := &Memory{keys: keysOf(o.Key), days: min(o.Days, maxDays)}
	sets := min(max(o.Parts/ways, 1), 1<<26)
	n := min(16, sets) // the locks
	m.shards = make([]shard, n)
	for i := range m.shards {
		m.shards[i].sets = make([]*set, (sets-i+n-1)/n)
	}
	return m
}

// Match is the part of a text that most went to.
type Match struct {
	Name    string // of the part, by sender: 16 hexadecimal digits; empty: there is none
	Kind    string // "link", "subject", "line" or "shape"
	Day     int    // different recipients in the last 24 to 32 hours, without this message: an estimate, see part
	Days    int    // earlier days on which it was sent, of the last 21
	Trained bool   // the sender has been watched on Options.Days earlier days
}

// Kinds of parts, in the order in which they are preferred.
const (
	aSender = iota
	aLink
	aSubject
	aLine
	aShape
	aHost
)

var kindNames = [...]string{aLink: "link", aSubject: "subject", aLine: "line", aShape: "shape"}

// Find names the text of a sender's message by that part, not boilerplate, which
// went to most different recipients lately. A link is preferred to the subject,
// that to a line, that to the shape, all of them, if they are new, to what was
// boilerplate on other days, and to all that what mail was held for on this day,
// while it has half as many. It counts the
// recipients for all parts, so that those who are refused count, too. Recipients
// are keyed hashes, the same from one message to the next.
func (m *Memory) Find(now time.Time, sender string, t *Text, rcpts []uint64) Match {
	at, s := timeOf(now), m.of(sender)
	t.to = recipients{}
	for _, r := range rcpts {
		t.to.put(r)
	}
	var best choice
	trained := m.sender(at, s)
	for kind, hash := range t.parts() {
		key := m.key(s, kind, hash)
		best.consider(kind, key, m.see(at, key, uint32(s), kind, &t.to))
	}
	var match Match
	match, t.named = best.match(trained)
	m.hold(at, t.named, 1) // until Sent says that it went
	return match
}

// Sent notes that a message went out that Find was asked of: its parts were sent
// today, to the recipients that Find was told of.
func (m *Memory) Sent(now time.Time, sender string, t *Text) {
	at, s := timeOf(now), m.of(sender)
	for kind, hash := range t.parts() {
		m.sent(at, m.key(s, kind, hash), uint32(s), kind, &t.to)
	}
	m.sent(at, m.key(s, aSender, 0), uint32(s), aSender, &t.to)
	if t.host != 0 {
		m.sent(at, t.host, t.account, aHost, &t.to)
	}
	if t.newcomers != 0 {
		m.sent(at, t.newcomers, t.account, aHost, &t.to)
	}
	m.hold(at, t.named, -1)
}

// of is a sender as keys have it.
func (m *Memory) of(sender string) uint64 { return sip(m.keys.domain[domainSender], []byte(sender)) }

// parts goes through what Find looks at, by kind.
func (t *Text) parts() func(yield func(kind uint8, hash uint64) bool) {
	return func(yield func(uint8, uint64) bool) {
		if t.Skeleton != 0 && !yield(aSubject, t.Skeleton) {
			return
		}
		for _, h := range t.Links[:min(len(t.Links), maxLinks)] {
			if !yield(aLink, h) {
				return
			}
		}
		for _, h := range t.Lines[:min(len(t.Lines), maxLines)] {
			if !yield(aLine, h) {
				return
			}
		}
		for _, h := range t.Shape[:min(len(t.Shape), bands)] {
			if !yield(aShape, h) {
				return
			}
		}
	}
}

// key is a part's name: of whom, and what. The sender is a keyed hash already.
func (m *Memory) key(sender uint64, kind uint8, hash uint64) uint64 {
	return nonzero(mix(mix(hash^m.keys.seed) ^ sender + uint64(kind)*0x9e3779b97f4a7c15))
}

// sender tells whether the sender has sent on enough earlier days.
func (m *Memory) sender(at moment, sender uint64) bool {
	var none recipients
	return m.see(at, m.key(sender, aSender, 0), uint32(sender), aSender, &none).days >= m.days
}

// see is a part as it was, with recipients added to it.
func (m *Memory) see(at moment, key uint64, sender uint32, kind uint8, to *recipients) view {
	sh := m.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.set(key).get(at, key, sender, kind)
	p.roll(at, m.days)
	return p.see(at, m.days, to)
}

func (m *Memory) sent(at moment, key uint64, sender uint32, kind uint8, to *recipients) {
	sh := m.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	p := sh.set(key).get(at, key, sender, kind)
	p.roll(at, m.days)
	p.send(to)
}

// hold counts messages that have a part's name and were not sent. A part that
// had to make room meanwhile is not counted.
func (m *Memory) hold(at moment, key uint64, n int) {
	if key == 0 {
		return
	}
	sh := m.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if p := sh.set(key).find(key); p != nil {
		p.roll(at, m.days)
		p.held = uint16(min(max(int(p.held)+n, 0), math.MaxUint16))
	}
}

func (m *Memory) shard(key uint64) *shard { return &m.shards[key%uint64(len(m.shards))] }

// set is where a key may be. The lock is the caller's.
func (sh *shard) set(key uint64) *set {
	i, _ := bits.Mul64(key, uint64(len(sh.sets)))
	if sh.sets[i] == nil {
		sh.sets[i] = new(set)
	}
	return sh.sets[i]
}

// find is the part, nil if it is not there.
func (s *set) find(key uint64) *part {
	for i, k := range s.keys {
		if k == key {
			return &s.parts[i]
		}
	}
	return nil
}

// get finds the part, or makes it in a free place, or in that of another.
func (s *set) get(at moment, key uint64, sender uint32, kind uint8) *part {
	free := -1
	for i, k := range s.keys {
		if k == key {
			return &s.parts[i]
		}
		if k == 0 && free < 0 {
			free = i
		}
	}
	if free < 0 {
		free = s.victim()
	}
	s.keys[free] = key
	s.parts[free] = part{sender: sender, kind: kind, last: at.hour, day: at.day}
	return &s.parts[free]
}

// victim is the place to give away, all being taken.
func (s *set) victim() int {
	most := 0
	var greedy uint32
	for i := range s.parts {
		n := 0
		for j := range s.parts {
			if s.parts[i].sender == s.parts[j].sender {
				n++
			}
		}
		if n > most {
			most, greedy = n, s.parts[i].sender
		}
	}
	least, worth := 0, ^uint32(0)
	for i := range s.parts {
		p := &s.parts[i]
		if most > ways/4 && p.sender != greedy {
			continue
		}
		if w := p.worth(); w < worth {
			least, worth = i, w
		}
	}
	return least
}

// choice is the best part so far, of each kind: among those that are new, and
// among those that were boilerplate until too many got them.
type choice struct {
	kinds [2][aShape + 1]struct {
		key  uint64
		view view
	}
	most  int
	lines int // all
	known int // that are boilerplate
	form  bool
}

func (c *choice) consider(kind uint8, key uint64, v view) {
	switch kind {
	case aSubject:
		c.form = v.boilerplate && v.usual >= manyADay
	case aLine:
		c.lines++
		if v.boilerplate {
			c.known++
		}
	}
	if v.boilerplate {
		return
	}
	age := 0
	if v.known {
		age = 1
	}
	k := &c.kinds[age][kind]
	if k.key == 0 || v.count > k.view.count || v.count == k.view.count && key < k.key {
		k.key, k.view = key, v
	}
	c.most = max(c.most, v.count)
}

// match prefers what mail was held for today, so that what is held stays held; then
// what is new: what is known is rather another form's, too.
func (c *choice) match(trained bool) (match Match, key uint64) {
	match.Trained = trained
	if c.form && c.lines > 0 && 2*c.known >= c.lines {
		return match, 0
	}
	held := -1
	for age := range c.kinds {
		for kind := aLink; kind <= aShape; kind++ {
			if k := &c.kinds[age][kind]; k.key != 0 && 2*(k.view.count+1) > c.most && k.view.held > held {
				held, key = k.view.held, k.key
				match.Kind, match.Day, match.Days = kindNames[kind], k.view.count, k.view.days
			}
		}
	}
	if key != 0 {
		var name [8]byte
		binary.BigEndian.PutUint64(name[:], key)
		match.Name = hex.EncodeToString(name[:])
	}
	return match, key
}
