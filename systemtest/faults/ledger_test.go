package faults_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"relayguard/mta/smtptest"
)

// outcome is what a client knows of its message.
type outcome uint8

const (
	unknown  outcome = iota // no answer to the final dot
	accepted                // 250, or sendmail(1) ended with 0
	refused
)

func (o outcome) String() string { return [...]string{"no answer", "accepted", "refused"}[o] }

// ticket is one message as its client knows it. Each is tried once.
type ticket struct {
	token   string
	login   string // "" is mail by sendmail(1)
	rcpts   int
	session time.Time // when its connection began
	sent    time.Time
	dot     time.Time // zero: it came to no final dot
	done    time.Time // when the answer was there
	outcome outcome
	queueID string
	reply   string // that refused it
}

func (t *ticket) String() string {
	return fmt.Sprintf("%s of %q, %d recipients, sent %s, dot %s, done %s, %v %s %s", t.token, t.login, t.rcpts, clock(t.sent), clock(t.dot), clock(t.done), t.outcome, t.queueID, t.reply)
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

// ledger is what all clients know, and what was done to the servers.
type ledger struct {
	mu      sync.Mutex
	tickets []*ticket
	outages []outage
	deleted map[string]bool // ids of decisions that were ordered to be deleted
	orders  int             // to release or delete that ended with 0 or 1
}

// outage is one server's absence.
type outage struct {
	who      string
	from, to time.Time
}

func (l *ledger) add(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tickets = append(l.tickets, t)
}

func (l *ledger) out(who string, from, to time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outages = append(l.outages, outage{who, from, to})
}

func (l *ledger) order(ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.deleted[id] = true
	}
}

// kills counts when one of them was killed between two times.
func (l *ledger) kills(from, to time.Time, who ...string) (n int) {
	for _, o := range l.outages {
		for _, w := range who {
			if o.who == w && !o.from.After(to) && !o.to.Before(from) {
				n++
			}
		}
	}
	return n
}

var refusalID = regexp.MustCompile(`\(([0-9a-hjkmnp-tv-z]{13})\)`)

// idOf is the id of the guard that a client was told, if any.
func idOf(reply string) string {
	if m := refusalID.FindStringSubmatch(reply); m != nil {
		return m[1]
	}
	return ""
}

// note puts an SMTP answer into a ticket.
func (t *ticket) note(r smtptest.Reply) {
	t.done = time.Now()
	switch {
	case r.Code == 250:
		t.outcome, t.queueID = accepted, queuedAs(r)
	case r.Code >= 400:
		t.outcome, t.reply = refused, strings.ReplaceAll(r.String(), "\n", " / ")
	}
}
