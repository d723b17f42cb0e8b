package guard

import (
	"net/netip"
	"sync"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/origin"
)

// Refusals of one kind in a minute that have an entry of their own. Those that
// follow are answered with the id of the last of them and counted there: a flood
// must not be able to use the journal and the log as its amplifier. Only what
// has the same rule and the same account is joined, and of those without an
// account what has the same client, as long as there are not too many of them.
const (
	joinFor       = time.Minute
	tellEvery     = 10 * time.Second // a kill -9 loses no more counts than that
	ownWaiting    = 1                // of one account and rule, while clients wait at RCPT, or programs call
	ownMessages   = 20               // the same, of whole messages: each may be asked for
	ownOfUnknown  = 100              // of all that nobody answers for
	maxRefusals   = 20_000
	unknownClient = 1 // of one such client
)

// refusalKey is what makes refusals alike.
type refusalKey struct {
	stage, account string
	client         string // of an account that is not known; "" is all those for whom there is no room
	rule           string
	verdict        policy.Verdict
	reason         string // of a deny: which one
	where          string // of a call: the bucket, or else the site
	late           bool   // the MTA had been answered: nobody has heard this id
}

type refusal struct {
	id       string // empty until it is in the journal: none is told that might be lost
	own      int
	since    time.Time
	repeats  int64 // not yet told
	lastSeen time.Time
	told     time.Time
}

func (e *refusal) tell(now time.Time, tell func(journal.Repeat)) {
	if e.repeats > 0 {
		tell(journal.Repeat{ID: e.id, N: e.repeats, Last: e.lastSeen})
	}
	e.repeats, e.told = 0, now
}

// refusals joins refusals that are alike.
type refusals struct {
	mu      sync.Mutex
	recent  map[refusalKey]*refusal
	gone    []journal.Repeat // of entries that made room, not yet told
	unknown struct {
		since time.Time
		own   int
	}
}

// join returns the id that a refusal is answered with: its own, to be called
// kept as soon as the journal has it, or that of an earlier one which is like it
// and was kept, with nil.
func (r *refusals) join(stage string, d *policy.Decision, now time.Time, late bool, own func() string) (id string, kept func()) {
	kind, _ := d.Origin.Account()
	key := refusalKey{stage: stage, account: d.Origin.Name(), rule: d.Rule, verdict: d.Verdict, late: late}
	if d.Rule == policy.RuleDenied { // of which there are no more than an admin typed
		key.reason = d.Reason
	}
	allowed := ownMessages
	switch stage {
	case stageRcpt:
		allowed = ownWaiting
	case stageCall: // many sites may have one account
		allowed, key.where = ownWaiting, whereOf(d)
	}
	if kind == origin.KindUnknown {
		key.client, allowed = clientNet(d.Origin.ClientIP.Value), unknownClient
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recent == nil {
		r.recent = map[refusalKey]*refusal{}
	}
	e := r.live(key, now)
	if e == nil && kind == origin.KindUnknown && !r.stranger(now) {
		key.client = ""
		e = r.live(key, now)
	}
	if e != nil && e.own >= allowed && e.id != "" {
		e.repeats++
		e.lastSeen = now
		return e.id, nil
	}
	id = own()
	if e == nil {
		e = &refusal{since: now, told: now}
		r.makeRoom()
		r.recent[key] = e
	}
	e.own++
	return id, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.repeats == 0 {
			e.id = id
		}
	}
}

// whereOf is which bucket stops a message, else of which site it is: there are no
// more of either than the guard knows.
func whereOf(d *policy.Decision) string {
	if buckets := d.Buckets(); len(buckets) > 0 {
		return buckets[0]
	}
	if d.Origin.Site.Proven() {
		return d.Origin.Site.Value
	}
	return ""
}

// live is the entry of refusals like this one. One that is too old is dropped,
// its count kept to be told.
func (r *refusals) live(key refusalKey, now time.Time) *refusal {
	e := r.recent[key]
	if e != nil && now.Sub(e.since) >= joinFor {
		r.drop(key, e)
		return nil
	}
	return e
}

func (r *refusals) drop(key refusalKey, e *refusal) {
	e.tell(e.since, func(n journal.Repeat) { r.gone = append(r.gone, n) })
	delete(r.recent, key)
}

// makeRoom drops any one entry when there are too many.
func (r *refusals) makeRoom() {
	if len(r.recent) < maxRefusals {
		return
	}
	for key, e := range r.recent {
		r.drop(key, e)
		return
	}
}

// stranger reports whether one more client without an account may have an entry
// of its own. Those beyond share one for each rule, which tells the client that
// came first.
func (r *refusals) stranger(now time.Time) bool {
	u := &r.unknown
	if now.Sub(u.since) >= joinFor {
		u.since, u.own = now, 0
	}
	if u.own >= ownOfUnknown {
		return false
	}
	u.own++
	return true
}

// clientNet is a client's address, of IPv6 the /64 that one customer has.
func clientNet(ip string) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip
}

// sweep forgets what is older than a minute, and tells how often each id
// answered beyond its own refusal.
func (r *refusals) sweep(now time.Time, tell func(journal.Repeat)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.gone {
		tell(n)
	}
	r.gone = nil
	for key, e := range r.recent {
		over := now.Sub(e.since) >= joinFor
		if over || now.Sub(e.told) >= tellEvery {
			e.tell(now, tell)
		}
		if over {
			delete(r.recent, key)
		}
	}
}
