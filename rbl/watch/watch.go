// Package watch checks on schedule, confirms what is new, and says what has changed.
//
// One goroutine makes rounds, and second looks at what a round found. Another looks
// weekly at neighbours, which takes long, and another tells: neither that nor a
// channel that hangs holds up a round. What is to be remembered is history's: a Watch
// that is made anew goes on where another was killed.
//
// The trap: a round that could not be made says nothing. One that ctx cut off, and a
// plan that has no subjects, change neither history nor when the next one is due; and
// that a plan lacks an address or a list for once says nothing of its listings.
package watch

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// Checker is what is needed of a *check.Checker.
type Checker interface {
	Run(ctx context.Context, subjects []rbl.Subject, zones []rbl.Zone, progress func(done, all int)) check.Round
	Again(ctx context.Context, s rbl.Subject, z *rbl.Zone, by string) (rbl.Answer, rbl.Health)
	Neighbours(ctx context.Context, prefixes []netip.Prefix, zones []rbl.Zone, most int) []check.Neighbour
	Sent() map[string]int64
}

// Plan is what is to be checked now.
type Plan struct {
	Checker    Checker
	Resolver   rbl.Resolver // for sender facts; nil: they are not looked at
	Subjects   []rbl.Subject
	Zones      []rbl.Zone // in use
	Sending    []sender.Sending
	Domains    []string       // for SPF
	Neighbours []netip.Prefix // none: not looked at
	Trouble    string         // why nothing or not all can be checked
}

// Options of a Watch.
type Options struct {
	Store      *history.Store
	Plan       func(ctx context.Context) Plan // called for each round and for second looks, by one goroutine; what Checkers sent before is in Store.Used then
	Every      time.Duration                  // between rounds, give or take a tenth [6 h]
	Week       time.Duration                  // between looks at neighbours [7 days], likewise; with the next round then
	Confirm    time.Duration                  // like history.Options.Confirm
	Neighbours int                            // addresses a prefix at most [256]
	// Tell tells somebody. nil error: told, else it is tried again, at first after
	// half a minute, at last every hour. It may be told the same again after a crash.
	Tell func(ctx context.Context, events []history.Event) error
	Log  *slog.Logger // nil: nowhere
}

// Status is how the watch stands.
type Status struct {
	Last    time.Time        `json:"last"` // when the last round began; zero: never
	Next    time.Time        `json:"next"`
	Took    time.Duration    `json:"took"` // of the last round since the start
	Running bool             `json:"running"`
	Trouble string           `json:"trouble,omitempty"`
	Queries map[string]int64 `json:"queries"` // by rbl.Outcome, since the start, of rounds and sender facts
}

// Watch checks. Safe for concurrent use; Run it once.
type Watch struct {
	o       Options
	counter counter
	wake    chan struct{} // somebody asked for a round
	news    chan struct{} // there may be something to tell

	mu     sync.Mutex
	status Status
	flight *flight // the round that is asked for or under way
	after  *flight // that was asked for while flight was under way
	ended  error   // Run has; set once
	near   around

	// Of Run's goroutine alone.
	facts      time.Time // when they were last looked at
	lastSecond time.Time // when the last pass of second looks began
	warned     string    // the trouble that was last logged
	checker    Checker   // of the last plan; nil: none yet
}

// around is when neighbours are looked at.
type around struct {
	last  time.Time     // zero: never
	week  time.Duration // until the next time
	looks bool          // now
}

// flight is a round that somebody may wait for.
type flight struct {
	done   chan struct{}
	begun  bool  // it may have its plan: what has changed since is not in it
	err    error // once done
	wanted bool  // by somebody, not by the schedule
}

// New makes a Watch.
func New(o Options) *Watch {
	if o.Every <= 0 {
		o.Every = 6 * time.Hour
	}
	if o.Week <= 0 {
		o.Week = 7 * 24 * time.Hour
	}
	if o.Confirm <= 0 {
		o.Confirm = 10 * time.Minute
	}
	if o.Neighbours <= 0 {
		o.Neighbours = 256
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Watch{o: o, wake: make(chan struct{}, 1), news: make(chan struct{}, 1)}
}

// Status says how it stands.
func (w *Watch) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.status
	s.Queries = w.counter.all()
	return s
}

// signal wakes who waits for c, now or later.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
