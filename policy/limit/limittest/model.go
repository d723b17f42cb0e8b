package limittest

import (
	"time"

	"relayguard/policy/limit"
)

// model is a bucket that keeps every event for ever: slow, exact, and with no
// arithmetic of the code's.
type model struct {
	last     time.Time
	passed   map[time.Duration][]event // by length of window
	attempts []event
	shut     bool
	added    bool // Add was called: the limit may be passed
}

type event struct {
	at     time.Time
	amount int64
}

func newModel() *model { return &model{passed: map[time.Duration][]event{}} }

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
func (m *model) pass(w limit.Window, now time.Time, amount int64) {
	if amount > 0 {
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
