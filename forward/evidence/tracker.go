package evidence

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/mta/maillog"
)

// TrackerOptions are what a tracker is made with. The zero value is good.
type TrackerOptions struct {
	Log *slog.Logger // nil: discarded
	// Trusted reports whether a client may send mail to anywhere without AUTH
	// (mynetworks). With it, mail of strangers that leaves is a finding also where no
	// line names the inside address. nil: not known.
	Trusted func(netip.Addr) bool
	// UID is the Unix account behind a local name; ok is false if there is none.
	UID func(local string) (uid int, ok bool)
	// MaxFlights bounds the messages in flight; 0: 50,000, about 1 KiB each.
	MaxFlights int
	// Batch is how many events make a transaction, Every how old they may be; 0:
	// 500 and a second. Run is needed for the latter.
	Batch int
	Every time.Duration
}

const (
	defaultFlights = 50_000
	defaultBatch   = 500
	defaultEvery   = time.Second
	// maxUnwritten is how many events wait while the database cannot be written;
	// then the log waits.
	maxUnwritten = 20_000
	// lingers is how long a message that left the queue is remembered: the line
	// that says whose copy it was may come later.
	lingers = 10 * time.Minute
	// scriptLingers is the same for a Sieve script's run: what it sent may be tried late.
	scriptLingers = time.Hour
	// longest is how long a message is remembered of which nothing is heard: more
	// than Postfix keeps trying.
	longest = 8 * 24 * time.Hour
	// settles is how long after its delivery mail without a rule waits for the line
	// that explains it.
	settles = 30 * time.Second

	maxSameID   = 16     // messages with one Message-ID that are compared
	maxSessions = 4_000  // SMTP sessions with an action before a queue id
	maxSeen     = 10_000 // messages that a milter told of before the log
)

// Tracker follows the events of a log. Safe for concurrent use.
type Tracker struct {
	store *Store
	rules func() Rules
	o     TrackerOptions

	mu        sync.Mutex
	batch     *batch
	dirty     map[*flight]bool
	order     *list.List // of *flight, the longest unheard first
	place     map[*flight]*list.Element
	keys      map[string]bool      // of all flights
	byID      map[string]*flight   // the latest of each queue id; scripts by "session/..."
	byMessage map[string][]*flight // by Message-ID
	sessions  map[string]*before   // smtpd processes by service and pid
	seen      map[string]Passage   // by queue id
	unsettled map[*flight]bool     // that have mail without a rule
	now       time.Time            // of the latest line
	failed    string               // why the last commit did not work
}

// before is what an smtpd process said before the message had a queue id. It is
// kept beside the flights.
type before struct {
	Session string   `json:"s"`
	At      int64    `json:"b"` // microseconds
	Added   []string `json:"a,omitempty"`
	Filter  string   `json:"f,omitempty"`
}

// beforeKey begins the keys of what is kept of SMTP sessions; no flight's does.
const beforeKey = "smtpd "

// ErrWaits is returned by Event when the database could not be written for so
// long that no more is kept in memory. The event was not taken.
var ErrWaits = errors.New("evidence cannot be written")

// NewTracker makes a tracker that goes on with what the store has in flight. rules is
// asked for at each event. Where it returns nil, all is taken for inside: have the
// first scan done before the first event.
func NewTracker(store *Store, rules func() Rules, o TrackerOptions) (*Tracker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxFlights <= 0 {
		o.MaxFlights = defaultFlights
	}
	if o.Batch <= 0 {
		o.Batch = defaultBatch
	}
	if o.Every <= 0 {
		o.Every = defaultEvery
	}
	t := &Tracker{store: store, rules: rules, o: o, batch: newBatch(), dirty: map[*flight]bool{}, order: list.New(),
		place: map[*flight]*list.Element{}, keys: map[string]bool{}, byID: map[string]*flight{}, byMessage: map[string][]*flight{},
		sessions: map[string]*before{}, seen: map[string]Passage{}, unsettled: map[*flight]bool{}}
	states, err := store.flights()
	if err != nil {
		return nil, fmt.Errorf("read messages in flight: %w", err)
	}
	if err := t.load(states); err != nil {
		return nil, err
	}
	return t, nil
}

// load takes over what was in flight, in the order in which it was heard of.
func (t *Tracker) load(states map[string]string) error {
	var all []*flight
	for k, state := range states {
		if strings.HasPrefix(k, beforeKey) {
			b := &before{}
			if err := json.Unmarshal([]byte(state), b); err != nil {
				return fmt.Errorf("read messages in flight: %w", err)
			}
			t.sessions[b.Session] = b
			continue
		}
		f, err := unmarshalFlight(state)
		if err != nil {
			return fmt.Errorf("read messages in flight: %w", err)
		}
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b *flight) int {
		if a.Last != b.Last {
			return int(min(max(a.Last-b.Last, -1), 1))
		}
		return strings.Compare(a.Key, b.Key)
	})
	for _, f := range all {
		t.place[f] = t.order.PushBack(f)
		t.byID[f.ID], t.keys[f.Key] = f, true
		t.index(f)
		if at := timeOf(f.Last); at.After(t.now) {
			t.now = at
		}
		if slices.ContainsFunc(f.Rcpts, func(r rcpt) bool { return !r.Inside && !r.Told && !r.Program }) {
			t.unsettled[f] = true
		}
	}
	return nil
}

// Event learns of a line of the log and of the position behind it. What it says
// and the position are written together, with the events around it; a position
// that the store has (Checkpoint) is never behind what it has. An error is that of
// maillog.Follower's fn: the event was not taken, and comes again.
func (t *Tracker) Event(e maillog.Event, p maillog.Position) error { return t.EventOf("", e, p) }

// EventOf is Event for a further log, such as Dovecot's own.
func (t *Tracker) EventOf(source string, e maillog.Event, p maillog.Position) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.batch.events >= maxUnwritten {
		if err := t.flush(context.Background()); err != nil {
			return fmt.Errorf("%w: %w", ErrWaits, err)
		}
	}
	if e.Time.After(t.now) {
		t.now = e.Time
	}
	if t.batch.began.IsZero() || e.Time.Before(t.batch.began) {
		t.batch.began = e.Time
	}
	t.learn(&e)
	t.batch.events++
	t.batch.positions[source] = p.String()
	if t.batch.events%t.o.Batch == 0 {
		_ = t.flush(context.Background()) // said there; the events stay
	}
	return nil
}

// Begin notes where the reading of a log began (a Follower's Position right after
// its first start), unless the store knows of that log already: else what comes
// between a first event and a stop before it would be passed over.
func (t *Tracker) Begin(source string, p maillog.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.batch.positions[source]; !ok && t.store.CheckpointOf(source) == "" {
		t.batch.positions[source] = p.String()
	}
}

// Gap learns that lines of the log may be lost.
func (t *Tracker) Gap(g maillog.Gap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.batch.gaps = append(t.batch.gaps, gapOf(g))
}

// Run writes what waits, about every Every, and purges, until ctx ends; then it
// writes the rest.
func (t *Tracker) Run(ctx context.Context) error {
	tick := time.NewTicker(t.o.Every)
	defer tick.Stop()
	var purged time.Time
	for {
		select {
		case <-ctx.Done():
			return t.Flush(context.WithoutCancel(ctx))
		case <-tick.C:
		}
		_ = t.Flush(ctx) // said there, tried again
		if now := t.store.o.Now(); now.Sub(purged) >= time.Hour {
			purged = now
			if err := t.store.Purge(ctx, now); err != nil && ctx.Err() == nil {
				t.o.Log.Warn("old evidence not deleted", "err", err)
			}
		}
	}
}

// Flush writes what waits.
func (t *Tracker) Flush(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flush(ctx)
}

// Finish settles all that still waits for an explanation and writes it: for the end
// of a look at log files.
func (t *Tracker) Finish(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f := range t.unsettled {
		t.settle(f)
	}
	return t.flush(ctx)
}

func (t *Tracker) flush(ctx context.Context) error {
	t.sweep()
	for f := range t.dirty {
		t.batch.flights[f.Key] = f.marshal()
		f.persisted = true
	}
	clear(t.dirty)
	if t.batch.empty() {
		return nil
	}
	wasReset, err := t.store.commit(ctx, t.batch)
	if wasReset { // the new database has none of them
		for f := range t.place {
			t.dirty[f] = true
		}
		clear(t.sessions)
	}
	if err != nil {
		if err.Error() != t.failed {
			t.o.Log.Error("evidence cannot be written; it waits in memory, then the log waits", "err", err)
		}
		t.failed = err.Error()
		return err
	}
	t.failed = ""
	t.batch = newBatch()
	return nil
}

// sweep settles and forgets by time.
func (t *Tracker) sweep() {
	now := t.now.UnixMicro()
	for f := range t.unsettled {
		if now-f.Last > settles.Microseconds() {
			t.settle(f)
		}
	}
	for e := t.order.Front(); e != nil; {
		f, next := e.Value.(*flight), e.Next()
		age := time.Duration(now-f.Last) * time.Microsecond
		if age <= lingers {
			break
		}
		if age > longest || f.Done != 0 && (!f.Script || age > scriptLingers) {
			t.forget(f)
		}
		e = next
	}
	for k, b := range t.sessions {
		if now-b.At > lingers.Microseconds() {
			t.endSession(k)
		}
	}
}

// endSession forgets what an smtpd process said.
func (t *Tracker) endSession(session string) {
	delete(t.sessions, session)
	t.batch.flights[beforeKey+session] = ""
}

// touch notes that something was heard of f.
func (t *Tracker) touch(f *flight, at time.Time) {
	if at := at.UnixMicro(); at > f.Last {
		f.Last = at
	}
	t.dirty[f] = true
	if e := t.place[f]; e != nil {
		t.order.MoveToBack(e)
	}
}

// begin makes a flight that has that queue id from now on.
func (t *Tracker) begin(id string, at time.Time) *flight {
	f := newFlight(id, at)
	for n, first := 2, f.Key; t.keys[f.Key]; n++ { // the traditional time has seconds only
		f.Key = fmt.Sprintf("%s.%d", first, n)
	}
	t.keys[f.Key] = true
	if old := t.byID[f.ID]; old != nil && old.Done == 0 {
		old.Done = old.Last // its end was not seen
		t.dirty[old] = true
	}
	t.byID[f.ID] = f
	t.place[f] = t.order.PushBack(f)
	t.dirty[f] = true
	if p, ok := t.seen[f.ID]; ok {
		delete(t.seen, f.ID)
		t.attach(f, p)
	}
	t.bound(at)
	return f
}

// bound drops the flights of which nothing was heard for longest, and says so.
func (t *Tracker) bound(at time.Time) {
	for t.order.Len() > t.o.MaxFlights {
		f := t.order.Front().Value.(*flight)
		if f.Done == 0 {
			const why = "more messages were in flight than are remembered; what became of the oldest is not known"
			g := Gap{From: timeOf(f.Began), To: at, Why: why}
			if n := len(t.batch.gaps); n > 0 && t.batch.gaps[n-1].Why == why { // one gap a batch
				g.From = t.batch.gaps[n-1].From
				if g.From.After(timeOf(f.Began)) {
					g.From = timeOf(f.Began)
				}
				t.batch.gaps[n-1] = g
			} else {
				t.batch.gaps = append(t.batch.gaps, g)
			}
		}
		t.forget(f)
	}
}

// forget settles f and drops it.
func (t *Tracker) forget(f *flight) {
	t.settle(f)
	if e := t.place[f]; e != nil {
		t.order.Remove(e)
		delete(t.place, f)
	}
	if t.byID[f.ID] == f {
		delete(t.byID, f.ID)
	}
	t.unindex(f)
	delete(t.keys, f.Key)
	delete(t.unsettled, f)
	delete(t.dirty, f)
	if f.persisted || t.batch.flights[f.Key] != "" {
		t.batch.flights[f.Key] = ""
	}
}

// index makes f one that is found by its Message-ID.
func (t *Tracker) index(f *flight) {
	if f.MessageID == "" {
		return
	}
	all := t.byMessage[f.MessageID]
	if len(all) >= maxSameID { // the first stay: whoever repeats an id does not push them out
		return
	}
	t.byMessage[f.MessageID] = append(all, f)
}

func (t *Tracker) unindex(f *flight) {
	all := t.byMessage[f.MessageID]
	if i := slices.Index(all, f); i >= 0 {
		if all = slices.Delete(all, i, i+1); len(all) == 0 {
			delete(t.byMessage, f.MessageID)
		} else {
			t.byMessage[f.MessageID] = all
		}
	}
}

// Seen learns what a milter knows of a message, before or after the log.
func (t *Tracker) Seen(p Passage) {
	if p.QueueID == "" || len(p.RcptTo) == 0 || len(p.RcptTo) > maxEnvelope {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.byID[p.QueueID]; f != nil && f.Done == 0 && f.Envelope == nil && timeOf(f.Began).Sub(p.Time).Abs() < lingers {
		t.attach(f, p)
		return
	}
	if len(t.seen) >= maxSeen {
		for id, old := range t.seen {
			if p.Time.Sub(old.Time) > lingers || len(t.seen) >= maxSeen {
				delete(t.seen, id)
			}
		}
	}
	p.QueueID, p.RcptTo = strings.Clone(p.QueueID), slices.Clone(p.RcptTo)
	t.seen[p.QueueID] = p
}

// attach adds to a flight what a milter saw, if it is of that time.
func (t *Tracker) attach(f *flight, p Passage) {
	if timeOf(f.Began).Sub(p.Time).Abs() >= lingers {
		return
	}
	for _, r := range p.RcptTo {
		f.Envelope = append(f.Envelope, clip(key(r.Address)))
		orcpt := ""
		if p.Egress {
			orcpt = clip(r.ORCPT)
		}
		f.ORCPT = append(f.ORCPT, orcpt)
	}
	t.dirty[f] = true
}
