package call

import (
	"sync"
	"time"
)

// Bounds of what accounts may ask of the daemon. Beyond them it hangs up, and
// the mail goes to the MTA without a token. Postfix takes some fifty local
// messages in a second, of all accounts.
const (
	maxConns  = 128 // at a time, of all
	maxPerUID = 16  // of one account
	perSecond = 50  // questions of one account, in the long run
	burst     = 500 // of one account at once
	maxRates  = 4096
)

// places bounds connections and questions. Safe for concurrent use.
type places struct {
	mu    sync.Mutex
	all   int
	open  map[int]int
	rates map[int]*rate
}

// rate is a bucket that fills again.
type rate struct {
	left float64
	at   time.Time
}

func newPlaces() *places { return &places{open: map[int]int{}, rates: map[int]*rate{}} }

// take takes a place; false: there is none for that account.
func (p *places) take(now time.Time, uid int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= maxConns || p.open[uid] >= maxPerUID || !p.spend(now, uid) {
		return false
	}
	p.all++
	p.open[uid]++
	return true
}

func (p *places) spend(now time.Time, uid int) bool {
	r := p.rates[uid]
	if r == nil {
		if len(p.rates) >= maxRates {
			p.forgetFull(now)
		}
		r = &rate{left: burst, at: now}
		p.rates[uid] = r
	}
	r.left, r.at = r.full(now), now
	if r.left < 1 {
		return false
	}
	r.left--
	return true
}

// full is how much is left of a bucket now.
func (r *rate) full(now time.Time) float64 {
	return min(r.left+max(now.Sub(r.at).Seconds(), 0)*perSecond, burst)
}

// forgetFull forgets buckets that are full again: ten seconds after their last
// use they are. If none is, all begin anew.
func (p *places) forgetFull(now time.Time) {
	for uid, r := range p.rates {
		if r.full(now) >= burst {
			delete(p.rates, uid)
		}
	}
	if len(p.rates) >= maxRates {
		clear(p.rates)
	}
}

func (p *places) give(uid int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.open[uid]--; p.open[uid] == 0 {
		delete(p.open, uid)
	}
}
