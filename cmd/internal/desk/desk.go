// Package desk does what an admin asks for: it finds held mail, releases and
// deletes it, pulls and releases switches, and keeps journal and queue in step.
// By itself it releases what volume limits held, as they have room again (Pace),
// and tells of held mail that nobody claims (Remind). The daemon has one desk; root has another when the daemon is dead. It knows no
// socket and prints nothing. Trap: queue ids are used again; whoever acts on one
// has looked at the queue just before, and the root helper looks once more.
package desk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/holds"
	"relayguard/cmd/internal/queue"
	"relayguard/cmd/internal/switches"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// Journal is what the desk needs of the journal: *journal.Journal, or for root
// without a daemon a *journal.Reader that takes records to be handed in later.
type Journal interface {
	Append(...journal.Record) error
	Holds(context.Context, journal.HoldQuery) ([]journal.Hold, error)
	Explain(ctx context.Context, id string) ([]journal.Explanation, error)
	Decisions(context.Context, journal.Query) ([]journal.Decision, error)
	EachHold(context.Context, journal.HoldQuery, func(*journal.Hold) error) error
	Known(ctx context.Context, ids []string) ([]journal.Known, error)
}

// Desk does it. Its methods are safe for concurrent use; acts on the queue run
// one after another.
type Desk struct {
	Journal  Journal
	Queue    queue.Operator
	Switches *switches.File
	Log      *slog.Logger

	// These may be nil, as they are when the daemon is dead.
	Room    *holds.Room
	Buckets limit.Store

	// UID tells the number of a Unix account, UserName its name, Shared whether
	// many sites send as it. SharedAccount tells that of any account by its name, as
	// policy.Limits does.
	UID           func(name string) (int, error)
	UserName      func(uid int) string
	Shared        func(uid int) bool
	SharedAccount func(name string) bool

	// Releasing is told of each message that an admin is about to release.
	Releasing func(ctx context.Context, h *journal.Hold)

	// Tell adds to the time lines of an account's incidents.
	Tell func(now time.Time, account, text string)

	// Nodes knows accounts of web nodes; nil: none are known. Node is this guard's
	// own name where it is one itself; nil or "": it is not.
	Nodes Nodes
	Node  func() string

	// ForNodes reports whether web nodes are to hold the mail of a bucket that is
	// shut, Latched whether it is; nil: there are no web nodes.
	ForNodes func(limit.Key) bool
	Latched  func(context.Context, time.Time, limit.Key) (bool, error)

	// Shut are the buckets that an account's open incidents of abuse name; nil:
	// none are known.
	Shut func(account string) []string

	// Registered reports whether a web site is; nil: none is known to be.
	Registered func(site string) bool

	// Dropped counts rows about accepted mail that the journal does not have.
	Dropped func() int64

	// Limits are the names of the limits in force.
	Limits func() []string

	// What releases held mail by itself; without Waiting nothing is. Pay pays for
	// a message as policy.Limits does. Abused reports whether an incident of abuse
	// is open that concerns a message. Released is told what went, under the queue id that it
	// has now, and what it was charged, as far as that is known. These two may be
	// nil.
	Waiting  *policy.Lines
	Pay      func(ctx context.Context, now time.Time, w *policy.Waits, id string) (policy.Paid, error)
	Pacing   func() Pacing
	Abused   func(*policy.Waits) bool
	Released func(now time.Time, w policy.Waiting, paid policy.Paid)

	// Notice tells the admin something that is no incident, one line; of one topic
	// the newest counts. It must not wait.
	Notice func(now time.Time, topic, text string)

	// Clock tells how long the desk's own work takes; nil: time.Now.
	Clock func() time.Time

	turn     sync.Mutex // of Pace; before acting
	payments payments
	bounces  bounces

	acting sync.Mutex   // on the queue
	acts   atomic.Int64 // that were ended

	mu        sync.Mutex
	foreign   []Held // held by somebody else, as of the last look; at most maxForeign
	others    int    // of them in all
	lookedAt  time.Time
	lookErr   error
	byMilter  map[string]time.Time // queue ids that the MTA's log says a milter held
	missing   map[holdName]bool    // holds that the last look did not find in the queue
	requeued  []requeue            // new queue ids that the log told of
	told      map[string]bool      // errors that come again with every try
	looking   time.Duration        // how long the last look at the queue took
	refreshed chan struct{}        // closed when the look that goes on for a listing is over; nil: none does
	paced     time.Time            // when Pace last looked
	standing  Standing             // of the MTA's settings, as of the last look
	pauses    map[string]pause     // by switch, ends of suspensions that could not be carried out; and of Pace
	toShut    map[limit.Key]toShut // what web nodes are to be told
	wakeShut  chan struct{}        // made by whoever needs it first
	left      map[holdName]bool    // what no longer waits for its limits, but for an admin
	reminded  time.Time            // when held mail was last told of; zero: not known
}

// maxForeign bounds what is kept of other people's holds.
const maxForeign = 1000

// ErrUsage says that what was asked for makes no sense.
var ErrUsage = errors.New("not understood")

// By says who asks.
type By struct {
	Name     string
	UID      int
	LoginUID int
}

// audit journals what an admin did. It comes before the deed, so that no deed is
// without its entry.
func (d *Desk) audit(now time.Time, by By, verb, target, reason, outcome string) journal.AdminAction {
	return journal.AdminAction{Time: now, By: by.Name, UID: by.UID, LoginUID: by.LoginUID, Verb: verb, Target: target, Reason: reason, Outcome: outcome}
}

// shared reports whether many send as an account.
func (d *Desk) shared(account string) bool { return d.SharedAccount != nil && d.SharedAccount(account) }

// roomOf names whose room a message takes.
func (d *Desk) roomOf(account, site, template string) string {
	return policy.RoomName(account, d.shared(account), site, template)
}

// oneAct waits for its turn to act on the queue, and returns what ends it.
func (d *Desk) oneAct() (over func()) {
	d.acting.Lock()
	return func() {
		d.acts.Add(1)
		d.acting.Unlock()
	}
}

// append journals, and logs what could not be written; the journal keeps it.
func (d *Desk) append(records ...journal.Record) {
	if err := d.Journal.Append(records...); err != nil {
		d.Log.Error("the journal does not take what was done", "error", err)
	}
}

// Account reads an account as people write it: "login:taro@example.jp",
// "local_user:www-data", "network:web-nodes", or a plain login; or what is less
// than an account: "site:shop.example.jp", "plugin:share-by-mail". It returns the
// subject of a switch and its value.
func (d *Desk) Account(name string) (policy.Subject, string, error) {
	const want = "want login:NAME, local_user:NAME, network:NAME, site:NAME or plugin:NAME"
	kind, value, ok := strings.Cut(name, ":")
	if !ok {
		kind, value = "login", name
	}
	switch {
	case value == "":
		return "", "", fmt.Errorf("%w: account %q: %s", ErrUsage, name, want)
	case kind == "login":
		return policy.SubjectLogin, strings.ToLower(value), nil
	case kind == "network":
		return policy.SubjectTrusted, value, nil
	case kind == "site" && strings.TrimSuffix(value, ".") != "":
		return policy.SubjectSite, strings.TrimSuffix(value, "."), nil // as a resolver writes it
	case kind == "plugin":
		if strings.Contains(value, "@") {
			value = strings.TrimSuffix(value, ".")
		}
		return policy.SubjectPlugin, value, nil
	case kind == "local_user":
		id, err := d.LocalID(value)
		if err != nil {
			return "", "", fmt.Errorf("%w: account %q: %w", ErrUsage, name, err)
		}
		return policy.SubjectLocalUser, id, nil
	}
	return "", "", fmt.Errorf("%w: account %q: %s", ErrUsage, name, want)
}

// name is a switch's account as the journal has it.
func (d *Desk) name(s *policy.Switch) string {
	if s.Subject == policy.SubjectLocalUser {
		return d.localName(s.Value)
	}
	return s.About()
}

// Action journals what an admin did outside the desk; see audit.
func (d *Desk) Action(now time.Time, by By, verb, target, reason, outcome string) {
	d.append(d.audit(now, by, verb, target, reason, outcome))
}
