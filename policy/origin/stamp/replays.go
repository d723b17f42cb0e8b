package stamp

import (
	"slices"
	"sync"
	"time"
)

// Replays remembers stamps that were seen. Safe for concurrent use.
//
// It keeps at most so many uses, of at most UseBytes each. When it is full, the site
// or node that has most forgets its oldest, and from then on believes none that it
// has not seen and that is as old: its horizon. Who floods it spends only his own.
type Replays struct {
	mu     sync.Mutex
	most   int
	used   int
	scopes map[string]*scope
}

// defaultUses are those of 100,000 messages a day: 7 MB.
const defaultUses = 100_000

// UseBytes is the most that one use takes, however many came before it.
const UseBytes = 70

// NewReplays remembers at most so many uses of stamps; with less than one, 100,000.
func NewReplays(most int) *Replays {
	if most < 1 {
		most = defaultUses
	}
	return &Replays{most: most, scopes: map[string]*scope{}}
}

// Len is the number of uses that are remembered.
func (r *Replays) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// use is one thing that is used up: the nonce of a site's stamp, a recipient of a
// node's.
type use [12]byte

// sighting is a stamp that is to be believed.
type sighting struct {
	scope  string
	life   time.Duration // how old a stamp of this scope may be
	time   int64         // of the stamp
	uses   []use
	digest [16]byte
	others uint8 // how many times a message that is not the same may follow
}

// take notes a stamp and reports whether it may be believed. One that may not
// leaves nothing behind.
func (r *Replays) take(now time.Time, s sighting) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	sc := r.scopes[s.scope]
	if sc == nil {
		sc = &scope{seen: newSights()}
		r.scopes[s.scope] = sc
	}
	sc.life = s.life
	r.used -= sc.expire(now)
	for _, u := range s.uses {
		if !sc.allows(u, &s) {
			return false
		}
	}
	for _, u := range s.uses {
		if sc.note(u, &s) {
			r.used++
		}
	}
	if r.used > r.most {
		r.makeRoom(now)
	}
	return true
}

// wouldTake is take that notes nothing.
func (r *Replays) wouldTake(now time.Time, s sighting) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	sc := r.scopes[s.scope]
	if sc == nil {
		return true
	}
	sc.life = s.life
	r.used -= sc.expire(now)
	return !slices.ContainsFunc(s.uses, func(u use) bool { return !sc.allows(u, &s) })
}

// makeRoom forgets a 64th of all, so that it is seldom needed.
func (r *Replays) makeRoom(now time.Time) {
	for name, s := range r.scopes {
		r.used -= s.expire(now)
		if s.idle(now) {
			delete(r.scopes, name)
		}
	}
	for goal := r.most - r.most/64; r.used > goal; {
		largest := &scope{}
		for _, s := range r.scopes {
			if len(s.byTime) > len(largest.byTime) {
				largest = s
			}
		}
		for n := min(r.used-goal, len(largest.byTime)); n > 0; n-- {
			largest.forget()
			r.used--
		}
	}
}

// scope is what one site or node has used.
type scope struct {
	life    time.Duration
	seen    sights
	byTime  []timed // heap, the oldest first
	horizon int64   // of this time or before, only what is in seen is believed
}

type timed struct {
	second uint32 // since 1970: times far from now are not taken
	use    use
}

func (s *scope) allows(u use, by *sighting) bool {
	before := s.seen.find(u)
	switch {
	case before == nil:
		return by.time > s.horizon
	case before.digest == by.digest && by.digest != [16]byte{}:
		return true
	}
	return before.others < by.others
}

// note reports whether u is new.
func (s *scope) note(u use, by *sighting) bool {
	before := s.seen.find(u)
	if before == nil {
		s.seen.put(u, sight{digest: by.digest})
		s.push(timed{uint32(by.time), u})
		return true
	}
	if before.digest != by.digest || by.digest == [16]byte{} {
		*before = sight{by.digest, before.others + 1}
	}
	return false
}

// expire forgets what is too old to be believed anyway, and says how many.
func (s *scope) expire(now time.Time) int {
	n := 0
	for oldest := now.Add(-s.life).Unix(); len(s.byTime) > 0 && int64(s.byTime[0].second) < oldest; n++ {
		s.forget()
	}
	return n
}

// idle reports whether there is nothing left to know.
func (s *scope) idle(now time.Time) bool {
	return len(s.byTime) == 0 && s.horizon < now.Add(-s.life).Unix()
}

// forget drops the oldest use.
func (s *scope) forget() {
	t := s.pop()
	s.seen.remove(t.use)
	s.horizon = max(s.horizon, int64(t.second))
}

func (s *scope) push(t timed) {
	s.byTime = append(s.byTime, t)
	for i := len(s.byTime) - 1; i > 0; {
		parent := (i - 1) / 2
		if s.byTime[parent].second <= s.byTime[i].second {
			return
		}
		s.byTime[parent], s.byTime[i] = s.byTime[i], s.byTime[parent]
		i = parent
	}
}

func (s *scope) pop() timed {
	first, last := s.byTime[0], len(s.byTime)-1
	s.byTime[0] = s.byTime[last]
	s.byTime = s.byTime[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < last && s.byTime[child+1].second < s.byTime[child].second {
			child++
		}
		if child >= last || s.byTime[i].second <= s.byTime[child].second {
			return first
		}
		s.byTime[i], s.byTime[child] = s.byTime[child], s.byTime[i]
		i = child
	}
}
