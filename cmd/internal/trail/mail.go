package trail

import (
	"slices"
	"time"

	"relayguard/mta/maillog"
	"relayguard/policy/limit"
)

// Passed is what the guard knows of a message that it let pass.
type Passed struct {
	Charges    []limit.Charge // what it took; those that count recipients grow with it
	Bounces    []limit.Charge // what each bounce takes
	Recipients int            // named by RCPT TO
	Counted    int            // charged or free, with what their aliases were known to add; 0: Recipients
	Rcpts      []string       // those recipients, or the first of them
}

// maxGrowth bounds what one message, all its copies together, is charged
// afterwards: more than a mailing list of a usual size has, and little enough
// that a forged line cannot shut a sender out for longer than its windows last.
const maxGrowth = 1000

// maxLearnt is how many recipients a message may have whose aliases are learnt
// from: it is remembered for days.
const maxLearnt = 20

// message is one queue file: what was accepted, or a copy of it.
type message struct {
	*mail
	recipients int       // charged or free, so far; or beyond what is charged
	fared      int       // delivered or returned, on Sendmail
	copy       bool      // made by an alias or a .forward
	left       time.Time // the queue, by the log; zero: not yet
	done       bool      // some minutes ago: who has its id now is another
}

// mail is a message with all its copies.
type mail struct {
	id         string // queue id of the message that the guard saw
	charges    []limit.Charge
	bounces    []limit.Charge
	recipients int // as the guard saw them

	advance  int // charged in advance, and not seen yet
	charged  int // afterwards
	told     bool
	returned int // bounces charged

	grown     int          // seen beyond recipients
	ended     int          // delivered or returned, copies' among them
	removed   bool         // all but its copies left the queue, the log says
	forwarded bool         // it has copies
	rcpts     []limit.Item // those that aliases are learnt of; nil: it teaches nothing
	seen      []int32      // deliveries of each of rcpts, where the log names it; nil: none
}

func newMail(id string, m *Passed, e *Expansions) *mail {
	root := &mail{id: id, bounces: slices.Clone(m.Bounces), recipients: m.Recipients, advance: max(m.Counted-m.Recipients, 0)}
	for _, c := range m.Charges {
		if c.Counts == limit.Recipients || c.Counts == 0 {
			c.Items = nil
			root.charges = append(root.charges, c)
		}
	}
	if e != nil && m.Recipients == len(m.Rcpts) && len(m.Rcpts) <= maxLearnt {
		for _, to := range m.Rcpts {
			if item, ok := e.item(to); ok {
				root.rcpts = append(root.rcpts, item)
			}
		}
	}
	return root
}

// foreseen is how many recipients more there are than were charged in advance.
func (m *mail) foreseen(more int) (left, foreseen int) {
	foreseen = min(more, m.advance)
	m.advance -= foreseen
	return more - foreseen, foreseen
}

// take takes so many recipients more, as far as there is room. Tell: for the
// first time there was not.
func (m *mail) take(more int) (taken, beyond int, tell bool) {
	taken = min(more, maxGrowth-m.charged)
	m.charged += taken
	beyond = more - taken
	tell = beyond > 0 && !m.told
	m.told = m.told || beyond > 0
	return taken, beyond, tell
}

// bounce is how many of so many bounces are charged: a message has no more of
// them than recipients.
func (m *mail) bounce(n int) int {
	if len(m.bounces) == 0 {
		return 0
	}
	n = max(min(n, m.recipients+min(m.grown, maxGrowth)-m.returned), 0)
	m.returned += n
	return n
}

// single reports whether all that a message becomes is its one recipient's doing.
func (m *mail) single() bool { return m.recipients == 1 && len(m.rcpts) == 1 }

// grew learns that a message has so many recipients more.
func (m *mail) grew(now time.Time, more int, e *Expansions) {
	m.grown = min(m.grown+more, 2*maxGrowth) // beyond it nothing asks
	if m.single() && more > 0 {
		e.atLeast(now, m.rcpts[0], 1+m.grown)
	}
}

// delivered learns how recipients fared. That a copy was made is no delivery:
// those of the copy are.
func (m *mail) delivered(now time.Time, log *maillog.Event, n int, e *Expansions) {
	if len(m.rcpts) == 0 || log.Kind == maillog.Forwarded || log.Status == maillog.Deferred {
		return
	}
	m.ended += n
	if !m.single() {
		m.named(now, log, n, e)
	}
	m.settle(now, e)
}

// named learns of which recipient's alias they are, where the log says so.
func (m *mail) named(now time.Time, log *maillog.Event, n int, e *Expansions) {
	if log.OrigTo == "" {
		return
	}
	item, ok := e.item(log.OrigTo)
	i := slices.Index(m.rcpts, item)
	if !ok || i < 0 {
		return
	}
	if m.seen == nil {
		m.seen = make([]int32, len(m.rcpts))
	}
	m.seen[i] = int32(min(int(m.seen[i])+n, 2*maxGrowth))
	e.atLeast(now, item, int(m.seen[i]))
}

// settle learns what is known when a message left the queue and as many
// recipients as it has were seen delivered or returned: an alias that had shrunk
// is seen now. That it left proves nothing by itself: the line may be forged.
func (m *mail) settle(now time.Time, e *Expansions) {
	switch {
	case !m.removed || m.ended < m.recipients+m.grown:
	case m.single():
		e.exactly(now, m.rcpts[0], 1+m.grown)
	case !m.forwarded:
		for i, n := range m.seen {
			if n > 0 {
				e.exactly(now, m.rcpts[i], int(n))
			}
		}
	}
}
