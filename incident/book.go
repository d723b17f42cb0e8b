package incident

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/policy"
)

// Options are what a Book is made with. The zero value of each has a default or
// is left out.
type Options struct {
	Rules       map[string]Rule // by cause; nil: DefaultRules
	MaxOpen     int             // open incidents; default 1,000. Beyond it stops count into one, of OriginOthers
	UpdateEvery time.Duration   // at most one update alert of an incident; default 1 h
	Quiet       time.Duration   // without a stop until an incident closes; default 1 h
	Grace       time.Duration   // how long a closed one is taken up again; default 24 h
	SaveEvery   time.Duration   // at most, while an incident changes; default 1 min

	// StillOver reports that a bucket that stopped an account's mail has no room
	// yet, or is shut: the incident stays open however quiet it is. Of an incident
	// that knows none, bucket is empty. It is asked at most once a minute for each
	// bucket and account.
	StillOver func(account, cause, bucket string, now time.Time) bool

	// Abuses are the causes that are abuse, for Abused: the limits of that kind.
	// nil: none.
	Abuses func() []string

	// Log gets a line for each account that comes near a limit; nil: nowhere.
	Log *slog.Logger

	// Save keeps an incident: when it opens, closes and while it changes. It gets
	// its own copy.
	Save func(Incident)

	// Alert takes what the admin is to be told; Channels.Send. It must not wait.
	Alert func(Alert)
}

const (
	defaultMaxOpen = 1000
	pendingPerOpen = 4 // origins below their threshold that are remembered, for each open incident allowed
	askEvery       = time.Minute
)

// Book keeps the open incidents, and for a grace the closed ones. Safe for
// concurrent use.
//
// Observe only counts. Saving, alerting and closing are done by Tick, which
// somebody calls: Run does.
type Book struct {
	opts    Options
	changed chan struct{}

	turn sync.Mutex // held by who calls out, so that Save and Alert see things in order; before mu

	mu      sync.Mutex
	ids     idSource
	entries map[key]*entry
	open    int
	pending map[key]*seen // below the threshold of their rule
	due     []*entry      // opened or come back; to be saved and told
	lost    int64         // stops below a threshold that could not be remembered by origin
	near    near

	accounts map[string]map[*entry]bool // whose mail each is of, in entries
}

type key struct{ origin, cause string }

// entry is an incident and what the admin and the disk know of it.
type entry struct {
	Incident
	quiet          time.Duration // until it closes; doubles each time it comes back
	told           Event         // empty: nothing yet
	toldStops      int64
	toldRecipients int64
	saved          time.Time
	dirty          bool // changed since saved
	isDue          bool
	asked          time.Time // StillOver
}

// seen is what was seen of an origin that has no incident yet.
type seen struct {
	began             time.Time
	stops, recipients int64
	first             string
}

// NewBook makes an empty book.
func NewBook(o Options) *Book {
	if o.Rules == nil {
		o.Rules = DefaultRules()
	}
	o.MaxOpen = cmp.Or(max(o.MaxOpen, 0), defaultMaxOpen)
	o.UpdateEvery = cmp.Or(o.UpdateEvery, time.Hour)
	o.Quiet = cmp.Or(o.Quiet, time.Hour)
	o.Grace = cmp.Or(o.Grace, 24*time.Hour)
	o.SaveEvery = cmp.Or(o.SaveEvery, time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Book{
		opts:    o,
		changed: make(chan struct{}, 1),
		ids:     newIDSource(),
		entries: map[key]*entry{},
		pending: map[key]*seen{},

		accounts: map[string]map[*entry]bool{},
	}
}

// Observe counts a stop. It is called on the mail path: it takes one lock and
// calls nobody.
func (b *Book) Observe(now time.Time, s Stop) {
	if !s.Verdict.Stops() {
		return
	}
	k := key{name(s.Origin), name(s.Cause)}
	if k.origin == "" {
		k.origin = "unknown"
	}
	rule := b.opts.Rules[k.cause]
	if rule.Never {
		return
	}
	if rule.Whole {
		k.origin = OriginServer
	}
	b.mu.Lock()
	wake := b.observe(now, k, &rule, &s)
	b.mu.Unlock()
	if wake {
		select {
		case b.changed <- struct{}{}:
		default: // it is being said already
		}
	}
}

// observe reports whether there is something to tell.
func (b *Book) observe(now time.Time, k key, rule *Rule, s *Stop) bool {
	e := b.entries[k]
	if e != nil && e.Open() {
		return b.add(e, now, 1, int64(s.Recipients), s)
	}
	before := seen{began: now}
	if rule.After > 1 {
		var c *seen
		c, k = b.below(now, k, rule)
		e = b.entries[k]
		c.stops++
		c.recipients += int64(s.Recipients)
		if c.first == "" {
			c.first = strings.Clone(bound(s.ID, maxID))
		}
		if c.stops < int64(rule.After) {
			return false
		}
		before = *c
		before.stops--
		before.recipients -= int64(s.Recipients)
		*c = seen{began: now}
	}
	switch {
	case e != nil && e.Open():
	case b.open >= b.opts.MaxOpen && k.origin != OriginOthers:
		k = key{OriginOthers, CauseOverflow}
		if e = b.entries[k]; e == nil {
			e = b.begin(now, k, &before, s)
		} else if !e.Open() {
			b.reopen(now, e)
		}
	case e != nil:
		b.reopen(now, e)
	default:
		e = b.begin(now, k, &before, s)
	}
	b.add(e, now, 1+before.stops, int64(s.Recipients)+before.recipients, s)
	return e.isDue
}

// below is the count of an origin that has no incident yet, and what it counts
// for: if too many are remembered, newcomers share one, since so many origins
// are an incident themselves.
func (b *Book) below(now time.Time, k key, rule *Rule) (*seen, key) {
	c := b.pending[k]
	if c == nil && len(b.pending) >= pendingPerOpen*b.opts.MaxOpen {
		b.lost++
		k.origin = OriginOthers
		c = b.pending[k]
	}
	if c == nil {
		k = key{strings.Clone(k.origin), strings.Clone(k.cause)}
		c = &seen{began: now}
		b.pending[k] = c
	}
	if now.Sub(c.began) >= rule.Within {
		*c = seen{began: now}
	}
	return c, k
}

func (b *Book) begin(now time.Time, k key, before *seen, s *Stop) *entry {
	k = key{strings.Clone(k.origin), strings.Clone(k.cause)}
	first := before.first
	if first == "" {
		first = strings.Clone(bound(s.ID, maxID))
	}
	noticed := strings.Clone(bound(s.Noticed, maxNote))
	if noticed == "" {
		noticed = noticedBy(s.Verdict)
	}
	e := &entry{
		Incident: Incident{
			ID: b.ids.next(now), Origin: k.origin, Cause: k.cause, Noticed: noticed,
			Opened: before.began.UTC(), Updated: now.UTC(), First: first,
		},
		quiet: b.opts.Quiet,
	}
	e.note(now, "noticed: "+noticed)
	b.entries[k] = e
	if k.origin != OriginOthers {
		b.open++
	}
	b.mark(e)
	return e
}

func noticedBy(v policy.Verdict) string {
	switch v {
	case policy.Hold:
		return "mail was held"
	case policy.Defer:
		return "mail was deferred"
	}
	return "mail was refused"
}

// reopen takes a closed incident up again. Each time it closes later, so that
// who comes and goes is told of ever less often.
func (b *Book) reopen(now time.Time, e *entry) {
	e.Closed = time.Time{}
	e.Reopened++
	e.quiet = min(2*e.quiet, max(b.opts.Grace, b.opts.Quiet))
	e.note(now, "came back")
	if e.Origin != OriginOthers {
		b.open++
	}
	b.mark(e)
}

// add counts into an open incident and reports whether there is something to
// tell.
func (b *Book) add(e *entry, now time.Time, stops, recipients int64, s *Stop) bool {
	e.Stops += stops
	e.Recipients += recipients
	if now.After(e.Updated) {
		e.Updated = now.UTC()
	}
	if id := bound(s.ID, maxID); id != e.Last {
		e.Last = strings.Clone(id)
	}
	if e.Origin != OriginOthers && e.Origin != OriginServer {
		account := name(cmp.Or(s.Account, s.Origin))
		if account == "" {
			account = "unknown"
		}
		if e.join(account) {
			b.index(account, e)
		}
		e.see(now, &s.Where)
	}
	if e.Origin != OriginOthers {
		for _, bucket := range s.Buckets {
			e.meet(bucket)
		}
	}
	if id := bound(s.QueueID, maxID); id != "" && id != e.LastQueue {
		e.LastQueue = strings.Clone(id)
	}
	e.dirty = true
	if !e.isDue && e.grown() && now.Sub(e.Alerted) >= b.opts.UpdateEvery {
		b.mark(e)
		return true
	}
	return false
}

// grown reports that there is twice as much as the admin was told.
func (e *entry) grown() bool {
	return e.told != "" && (e.Stops >= 2*e.toldStops || e.Recipients >= 2*e.toldRecipients && e.toldRecipients > 0)
}

func (b *Book) mark(e *entry) {
	if !e.isDue {
		e.isDue = true
		b.due = append(b.due, e)
	}
}

// Run closes, saves and tells until ctx ends, and then saves once more.
func (b *Book) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.SaveAll(time.Now())
			return
		case <-tick.C:
			b.Tick(time.Now())
		case <-b.changed:
			b.tell(time.Now())
			select { // a storm of new incidents is told in a few steps
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
}

// Tick does what is due: tells and saves what changed, closes what is quiet,
// forgets what is past its grace. Call it about once a second; it costs a pass
// over what is kept. It waits for Save, Alert and StillOver.
func (b *Book) Tick(now time.Time) {
	b.turn.Lock()
	defer b.turn.Unlock()
	over := map[*entry]bool{}
	if b.opts.StillOver != nil {
		for _, a := range b.toAsk(now) {
			over[a.entry] = slices.ContainsFunc(a.buckets, func(bucket string) bool {
				return slices.ContainsFunc(a.accounts, func(account string) bool {
					return b.opts.StillOver(account, a.Cause, bucket, now) // of an entry the cause never changes
				})
			})
		}
	}
	b.mu.Lock()
	for k, e := range b.entries {
		e.dirty = e.Details.forget(now) || e.dirty
		still, asked := over[e]
		switch {
		case e.Open() && b.isQuiet(e, now) && (b.opts.StillOver == nil || asked && !still):
			b.shut(e, now)
		case !e.Open() && !e.isDue && now.Sub(e.Closed) >= b.opts.Grace:
			b.drop(k, e)
		case e.dirty && now.Sub(e.saved) >= b.opts.SaveEvery, e.Open() && e.grown() && now.Sub(e.Alerted) >= b.opts.UpdateEvery:
			b.mark(e)
		}
	}
	for k, c := range b.pending {
		if now.Sub(c.began) >= b.opts.Rules[k.cause].Within {
			delete(b.pending, k)
		}
	}
	b.trim()
	b.mu.Unlock()
	b.handOver(now)
	b.tellNear(now)
}

// asking is an incident of which it is to be asked whether it goes on.
type asking struct {
	*entry
	buckets, accounts []string
}

// toAsk are those that are quiet.
func (b *Book) toAsk(now time.Time) []asking {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ask []asking
	for _, e := range b.entries {
		if e.Open() && b.isQuiet(e, now) && now.Sub(e.asked) >= askEvery {
			e.asked = now
			buckets := slices.Clone(e.Buckets)
			slices.Reverse(buckets) // the newest is full the longest
			if len(buckets) == 0 {
				buckets = []string{""}
			}
			ask = append(ask, asking{e, buckets, e.Accounts()})
		}
	}
	return ask
}

func (b *Book) isQuiet(e *entry, now time.Time) bool { return now.Sub(e.Updated) >= e.quiet }

func (b *Book) shut(e *entry, now time.Time) {
	e.Closed = now.UTC()
	e.note(now, fmt.Sprintf("stopped: quiet for %v", e.quiet))
	if e.Origin != OriginOthers {
		b.open--
	}
	b.mark(e)
}

// trim forgets the closed incidents that are oldest, if there are more of them
// than open ones are allowed.
func (b *Book) trim() {
	spare := len(b.entries) - b.open - b.opts.MaxOpen
	if spare <= 0 {
		return
	}
	var closed []*entry
	for _, e := range b.entries {
		if !e.Open() && !e.isDue {
			closed = append(closed, e)
		}
	}
	slices.SortFunc(closed, func(x, y *entry) int { return x.Closed.Compare(y.Closed) })
	for _, e := range closed[:min(spare, len(closed))] {
		b.drop(key{e.Origin, e.Cause}, e)
	}
}

// index finds an incident by an account, until it is dropped.
func (b *Book) index(account string, e *entry) {
	of := b.accounts[account]
	if of == nil {
		of = map[*entry]bool{}
		b.accounts[account] = of
	}
	of[e] = true
}

// drop forgets an incident.
func (b *Book) drop(k key, e *entry) {
	delete(b.entries, k)
	for _, account := range e.Accounts() {
		if of := b.accounts[account]; of != nil {
			if delete(of, e); len(of) == 0 {
				delete(b.accounts, account)
			}
		}
	}
}

func (b *Book) tell(now time.Time) {
	b.turn.Lock()
	defer b.turn.Unlock()
	b.handOver(now)
}

// handOver saves and tells what is due. The turn is ours.
func (b *Book) handOver(now time.Time) {
	b.mu.Lock()
	saves := make([]Incident, 0, len(b.due))
	var alerts []Alert
	for _, e := range b.due {
		e.isDue = false
		if event := b.news(e, now); event != "" {
			e.told, e.toldStops, e.toldRecipients = event, e.Stops, e.Recipients
			e.Alerted = now.UTC()
			alerts = append(alerts, newAlert(e.Incident, event, now))
		}
		e.dirty, e.saved = false, now
		saves = append(saves, e.copy())
	}
	clear(b.due)
	b.due = b.due[:0]
	b.mu.Unlock()
	if b.opts.Save != nil {
		for _, i := range saves {
			b.opts.Save(i)
		}
	}
	if b.opts.Alert != nil {
		for _, a := range alerts {
			b.opts.Alert(a)
		}
	}
}

// news is what the admin has to learn of e, empty if nothing.
func (b *Book) news(e *entry, now time.Time) Event {
	switch {
	case !e.Open() && e.told != Closed:
		return Closed
	case e.Open() && e.told == "":
		return Opened
	case e.Open() && e.told == Closed: // it came back
		return Updated
	case e.Open() && e.grown() && now.Sub(e.Alerted) >= b.opts.UpdateEvery:
		return Updated
	}
	return ""
}

// copy is what others get. It costs no copy of the notes: those that are there
// are never changed, and who appends to them gets his own.
func (e *entry) copy() Incident {
	i := e.Incident
	i.Notes, i.Buckets, i.Others, i.Details = slices.Clip(i.Notes), slices.Clone(i.Buckets), slices.Clone(i.Others), i.Details.copy()
	return i
}

// SaveAll saves what has changed, and tells what is due: before the end.
func (b *Book) SaveAll(now time.Time) {
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	for _, e := range b.entries {
		if e.dirty {
			b.mark(e)
		}
	}
	b.mu.Unlock()
	b.handOver(now)
}
