package limittest

import (
	"slices"
	"time"

	"relayguard/policy/limit"
)

// model is a bucket that keeps every event for ever: slow, exact, and with no
// arithmetic of the code's.
type model struct {
	last     time.Time
	passed   map[time.Duration][]event // by length of window
	seen     []writing                 // of Distinct
	attempts []event
	shut     time.Time // since when; zero if it is open
	added    bool      // Add was called: the limit may be passed
}

// writing is one event of one recipient.
type writing struct {
	item limit.Item
	at   time.Time
}

type event struct {
	at     time.Time
	amount int64
}

// clock is now for this bucket.
func (m *model) clock(now time.Time) time.Time {
	if now.Before(m.last) {
		return m.last
	}
	return now
}

// exact counts events in the closed interval.
func exact(events []event, from, to time.Time) (sum int64) {
	for _, e := range events {
		if !e.at.Before(from) && !e.at.After(to) {
			sum += e.amount
		}
	}
	return sum
}

// bounds are the exact counts between which a store's count must lie.
func bounds(events []event, length time.Duration, now time.Time) (low, high int64) {
	return exact(events, now.Add(-length), now), exact(events, now.Add(-length-length/16), now)
}

// most is the largest sum over any closed interval of length.
func most(events []event, length time.Duration) (sum int64) {
	for _, e := range events {
		sum = max(sum, exact(events, e.at, e.at.Add(length)))
	}
	return sum
}

// pass records an event of a window.
func (m *model) pass(c limit.Charge, w limit.Window, now time.Time, amount int64) {
	switch {
	case c.Counts == limit.Distinct && len(c.Items) > 0:
		m.last = m.clock(now)
		for _, i := range c.Items {
			m.seen = append(m.seen, writing{i, m.last})
		}
	case c.Counts != limit.Distinct && amount > 0:
		m.last = m.clock(now)
		m.passed[w.Length] = append(m.passed[w.Length], event{m.last, amount})
	}
}

func (m *model) attempt(now time.Time, amount int64) {
	if amount > 0 {
		m.last = m.clock(now)
		m.attempts = append(m.attempts, event{m.last, amount})
	}
}

// distinctOf is whom the closed interval saw.
func distinctOf(seen []writing, from, to time.Time) map[limit.Item]bool {
	who := map[limit.Item]bool{}
	for _, w := range seen {
		if !w.at.Before(from) && !w.at.After(to) {
			who[w.item] = true
		}
	}
	return who
}

// people is whom an account wrote to, event by event; bounded, so that it has
// to forget.
type people struct {
	last    time.Time
	written []writing
	room    int
}

func (p *people) clock(now time.Time) time.Time {
	if now.Before(p.last) {
		return p.last
	}
	return now
}

// since is when the account first wrote to an item that it knows at now.
func (p *people) since(item limit.Item, now time.Time) (first time.Time, known bool) {
	var last time.Time
	for _, w := range p.written {
		if w.item == item {
			if first.IsZero() || w.at.Sub(last) > limit.KnownTerm {
				first = w.at
			}
			last = w.at
		}
	}
	return first, !first.IsZero() && p.clock(now).Sub(last) <= limit.KnownTerm
}

// strangers is how many items are not known since before a time; zero: at all.
func (p *people) strangers(items []limit.Item, now, before time.Time) (n int64) {
	for _, i := range items {
		if first, known := p.since(i, now); !known || !before.IsZero() && !first.Before(before) {
			n++
		}
	}
	return n
}

func (p *people) write(items []limit.Item, now time.Time) {
	if len(items) == 0 {
		return
	}
	p.last = p.clock(now)
	for _, i := range items {
		p.written = append(p.written, writing{i, p.last})
	}
	last := map[limit.Item]time.Time{}
	for _, w := range p.written {
		last[w.item] = w.at
	}
	for len(last) > p.room {
		var out limit.Item
		for i, at := range last {
			if was, ok := last[out]; !ok || at.Before(was) || at.Equal(was) && i < out {
				out = i
			}
		}
		delete(last, out)
		p.written = slices.DeleteFunc(p.written, func(w writing) bool { return w.item == out })
	}
}
