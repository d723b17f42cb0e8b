// Package forwards keeps watch over forwarding rules: it scans, reads again what
// changes, compares with the ledger, and hands on what somebody must know.
//
// It knows neither channels nor commands: Options.Tell gets the events. The trap:
// a watch may miss changes (an overflow, a file system that says nothing), so it
// only makes things faster; what counts is the full scan at intervals.
package forwards

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
)

// Watcher tells of changes of paths.
type Watcher interface {
	// Watch replaces the paths that are watched; one that ends with "/" stands
	// for all below it.
	Watch(paths []string) error
	// Run calls fn for each change until ctx ends or nothing can be watched.
	Run(ctx context.Context, fn func(forward.Change)) error
	// Method is how it watches: "fanotify", "inotify", "none".
	Method() string
}

// Options of a guard. Scanner, Ledger and Tell must be set.
type Options struct {
	Scanner *scan.Scanner
	Ledger  *ledger.Ledger
	Watcher Watcher // nil: only the intervals
	Rescan  time.Duration
	Poll    time.Duration
	// Tell is given what changed, in order. It must not wait.
	Tell func(now time.Time, events []ledger.Event)
	Log  *slog.Logger
	// Extra are findings that no place states; nil: none.
	Extra func() []forward.Finding
	// Unanswered is how many times a file could not be asked for, since the helper
	// that reads it was away, and why the last time. What was read while it grew is
	// compared with nothing: rules would be gone that are there. nil: never.
	Unanswered func() (uint64, error)
	// Settle is how long changes are collected before they are read; 0: 100 ms.
	Settle time.Duration
}

const (
	defaultSettle = 100 * time.Millisecond
	expireEvery   = 10 * time.Second
	remindEvery   = 24 * time.Hour
	maxBy         = 1000             // paths of which is remembered who changed them
	lastAgain     = 30 * time.Second // after many that failed: the helper may be back
	firstAgain    = 2 * time.Second  // after a scan or a watch that failed; doubles up to Rescan
)

// Guard is one watch. Run runs it; the other methods may be called at any time by
// any goroutine.
type Guard struct {
	o       Options
	changes chan forward.Change
	wake    chan struct{} // a full scan is wanted
	ready   chan struct{} // closed when the first is over
	once    sync.Once

	mu     sync.Mutex
	status Status

	// Run's own.
	stale  map[string][]forward.Writer // units, with who changed them
	by     map[string][]forward.Writer // who changed a path that another plan is needed for
	plan   bool                        // another plan is needed
	lost   bool                        // all is to be read
	unsure bool                        // something was not answered since the last full scan
	turn   uint64                      // of the paths that are watched

	whole map[string]bool // databases that were read, by unit
	away  map[string]bool // databases that were not, at some time
	gaps  map[string]int  // by source: in how many full scans in a row; nil: there was none
}

// Status is how a watch stands.
type Status struct {
	Method   string        `json:"method"`
	Units    int           `json:"units"` // places that are read
	Findings int           `json:"findings"`
	Due      int           `json:"due"` // that should alert and are not approved
	Gaps     []forward.Gap `json:"gaps"`
	Scanned  time.Time     `json:"scanned,omitzero"` // when the last full scan ended
	Took     time.Duration `json:"took"`
	Error    string        `json:"error,omitempty"` // of the last scan or of the watch
}

// New makes a guard.
func New(o Options) *Guard {
	if o.Settle <= 0 {
		o.Settle = defaultSettle
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Guard{o: o, changes: make(chan forward.Change, 1024), wake: make(chan struct{}, 1), ready: make(chan struct{}), stale: map[string][]forward.Writer{}, by: map[string][]forward.Writer{}, whole: map[string]bool{}, away: map[string]bool{}}
}

// Ready is closed when the first full scan is over.
func (g *Guard) Ready() <-chan struct{} { return g.ready }

// Rescan asks for a full scan soon.
func (g *Guard) Rescan() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Status tells how it stands.
func (g *Guard) Status() Status {
	g.mu.Lock()
	s := g.status
	g.mu.Unlock()
	s.Units, s.Gaps, s.Method = g.o.Scanner.Units(), g.o.Scanner.Gaps(), "none"
	if g.o.Watcher != nil {
		s.Method = g.o.Watcher.Method()
	}
	s.Findings, s.Due = g.o.Ledger.Numbers()
	return s
}

// Run scans and watches until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	if g.o.Watcher != nil {
		watching.Go(func() { g.watch(ctx) })
	}
	poll, expire, remind := time.NewTicker(g.o.Poll), time.NewTicker(expireEvery), time.NewTicker(remindEvery)
	defer poll.Stop()
	defer expire.Stop()
	defer remind.Stop()
	again := firstAgain
	next := time.Now() // of the full scan; only ever moved nearer by what happens
	rescan := time.NewTimer(0)
	defer rescan.Stop()
	var settled <-chan time.Time
	full, running, wanted := make(chan error, 1), false, false
	began := time.Now()
	defer func() {
		if running { // it ends soon: ctx has
			<-full
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-g.changes:
			g.note(c)
			settled = g.settle(settled, running)
			continue
		case <-settled:
			settled = nil
			if g.some(ctx, running) {
				if soon := time.Now().Add(g.pause()); soon.Before(next) {
					next = soon
					rescan.Reset(time.Until(next))
				}
			}
			continue
		case <-poll.C:
			g.polled(ctx)
			continue
		case now := <-expire.C:
			g.tell(g.o.Ledger.Expire(now))
			g.extra(now)
			continue
		case now := <-remind.C:
			g.remind(now)
			continue
		case err := <-full:
			running = false
			wait := g.o.Rescan
			if ok := g.all(ctx, began, err); !ok {
				wait = min(again, g.o.Rescan)
				again = min(2*again, lastAgain)
			} else {
				again = firstAgain
			}
			if wanted {
				wait = min(wait, g.pause())
			}
			next, wanted = time.Now().Add(wait), false
			rescan.Reset(wait)
			settled = g.settle(settled, running)
			continue
		case <-g.wake:
		case <-rescan.C:
		}
		if wanted = running; running {
			continue
		}
		running, began = true, time.Now()
		go func() { // meanwhile what changes is read
			_, why, err := g.answered(func() ([]scan.Change, error) { return g.o.Scanner.All(ctx) })
			full <- cmp.Or(err, why)
		}()
	}
}

// settle is when what was noted is to be read: settled, or soon; nil: nothing was.
func (g *Guard) settle(settled <-chan time.Time, running bool) <-chan time.Time {
	if settled == nil && (!running && (g.plan || g.lost) || len(g.stale) > 0) {
		return time.After(g.o.Settle)
	}
	return settled
}

// watch hands changes on. A watch that ends is begun again: meanwhile changes may
// be missed.
func (g *Guard) watch(ctx context.Context) {
	pause := firstAgain
	for {
		began := time.Now()
		err := g.o.Watcher.Run(ctx, func(c forward.Change) {
			select {
			case g.changes <- c:
			case <-ctx.Done():
			}
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			g.failed("watch forwarding rules", err)
		}
		if time.Since(began) > time.Minute {
			pause = firstAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, g.o.Rescan)
		select {
		case g.changes <- forward.Change{Lost: true, Writer: forward.UnknownWriter}:
		case <-ctx.Done():
			return
		}
	}
}

// note finds out what a change asks for.
func (g *Guard) note(c forward.Change) {
	if c.Lost {
		g.lost = true
		return
	}
	plan, units := g.o.Scanner.Stale(c.Path)
	if plan && len(g.by) < maxBy {
		g.by[c.Path] = withWriter(g.by[c.Path], c.Writer)
	}
	g.plan = g.plan || plan
	for _, id := range units {
		g.stale[id] = withWriter(g.stale[id], c.Writer)
	}
}

// maxWriters is how many who wrote one place are remembered until it is read.
const maxWriters = 16

// withWriter adds a writer that is known and not there yet.
func withWriter(all []forward.Writer, w forward.Writer) []forward.Writer {
	if !w.Known() || len(all) >= maxWriters || slices.ContainsFunc(all, func(o forward.Writer) bool { return o.UID == w.UID && o.LoginUID == w.LoginUID }) {
		return all
	}
	return append(all, w)
}

// noteAll notes what waits: what changed while a full scan ran, it may have read,
// and who wrote it is to be known then.
func (g *Guard) noteAll() {
	for {
		select {
		case c := <-g.changes:
			g.note(c)
		default:
			return
		}
	}
}

// some reads what is stale, and reports whether a full scan is to follow.
// While a full scan runs, another plan has to wait for its end.
func (g *Guard) some(ctx context.Context, running bool) (full bool) {
	stale, by, plan, lost := g.stale, g.by, g.plan && !running, g.lost && !running
	if running {
		by = nil
	}
	g.stale, g.by, g.plan, g.lost = map[string][]forward.Writer{}, map[string][]forward.Writer{}, false, false
	now := time.Now()
	if len(stale) > 0 {
		ids := make([]string, 0, len(stale))
		for id := range stale {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		changes, err := g.read(func() ([]scan.Change, error) { return g.o.Scanner.Again(ctx, ids) })
		g.took(ctx, now, changes, err, writers{units: stale})
	}
	if plan && !lost {
		changes, err := g.read(func() ([]scan.Change, error) { return g.o.Scanner.Quick(ctx) })
		g.took(ctx, now, changes, err, writers{paths: by})
		if err == nil {
			g.world(now)
		}
	}
	g.look()
	return plan || lost
}

// pause is how long to wait for a full scan that a change asks for: whoever
// changes an account again and again is not to keep the machine busy with it. After
// a while without one it is soon.
func (g *Guard) pause() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return min(max(time.Second, 5*g.status.Took-time.Since(g.status.Scanned)), g.o.Rescan)
}

// look has the watch look at what is read by now.
func (g *Guard) look() {
	if turn := g.o.Scanner.Turn(); g.o.Watcher != nil && turn != g.turn {
		g.turn = turn
		if err := g.o.Watcher.Watch(g.o.Scanner.Paths()); err != nil {
			g.turn = 0 // once more with the next look
			g.failed("watch forwarding rules", err)
		}
	}
}

// polled asks what tells nobody of its changes.
func (g *Guard) polled(ctx context.Context) {
	if ids := g.o.Scanner.Polled(); len(ids) > 0 {
		changes, err := g.read(func() ([]scan.Change, error) { return g.o.Scanner.Again(ctx, ids) })
		if err == nil {
			g.adopt(time.Now())
		}
		g.took(ctx, time.Now(), changes, err, writers{})
	}
}

// read is a reading that fails if anything was not answered. Then what the scanner
// knows is not to be relied on until a full scan has succeeded, and one is wanted.
func (g *Guard) read(reading func() ([]scan.Change, error)) ([]scan.Change, error) {
	changes, why, err := g.answered(reading)
	if why == nil || err != nil {
		return changes, err
	}
	if !g.unsure {
		g.unsure = true
		g.Rescan()
	}
	return nil, why
}

// answered reads, and says why something was not answered meanwhile; nil: all was.
func (g *Guard) answered(reading func() ([]scan.Change, error)) (changes []scan.Change, why, err error) {
	if g.o.Unanswered == nil {
		changes, err = reading()
		return changes, nil, err
	}
	before, _ := g.o.Unanswered()
	changes, err = reading()
	if now, cause := g.o.Unanswered(); now != before {
		why = cause
	}
	return changes, why, err
}

// all is what follows a full scan, which began then and failed or not. False: it
// failed.
func (g *Guard) all(ctx context.Context, began time.Time, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	if err != nil {
		g.unsure = g.unsure || g.o.Unanswered != nil
		g.failed("scan forwarding rules", err)
		return false
	}
	g.unsure = false
	g.look()
	now := time.Now()
	g.world(now)
	g.noteAll()
	g.adopt(now)
	g.tell(g.o.Ledger.All(now, g.findings(), seenBy(g.o.Scanner, writers{units: g.stale, paths: g.by}), g.keep))
	g.blind(now)
	g.mu.Lock()
	g.status.Scanned, g.status.Took, g.status.Error = now, now.Sub(began), ""
	g.mu.Unlock()
	g.once.Do(func() {
		close(g.ready)
		g.remind(now) // what was told before a crash may not have arrived
	})
	return true
}

// adopt takes the rules of a database as existing that was away since this process
// began, also when the baseline was made. One that was read once, or that is the
// server's own, never is: there a rule is new.
func (g *Guard) adopt(now time.Time) {
	_, based := g.o.Ledger.Based()
	for _, id := range g.o.Scanner.Polled() {
		switch u, _ := g.o.Scanner.Unit(id); {
		case g.whole[id]:
		case !g.o.Scanner.Whole(id):
			g.away[id] = true
		default:
			if g.whole[id] = true; based && g.away[id] && !u.Server && !g.o.Ledger.Knows(id) {
				g.tell(g.o.Ledger.Adopt(now, id, g.o.Scanner.Of(id)))
			}
		}
	}
}

// keep are the places of which nothing can be said since this process began.
func (g *Guard) keep(unit string) bool { return g.away[unit] && !g.whole[unit] }

// maxGaps is how many places that cannot be read an event names.
const maxGaps = 1000

// blind tells of places that could be read and cannot be any more: whoever makes them
// so may be planting something there. Those of the first scan are not told of; they
// are in status.
func (g *Guard) blind(now time.Time) {
	gaps := map[string]int{}
	for _, gap := range g.o.Scanner.Gaps() {
		gaps[gap.Source]++
	}
	first := g.gaps == nil
	var names []string
	for source := range gaps {
		if first {
			gaps[source] = tooBlind
			continue
		}
		if gaps[source] = g.gaps[source] + 1; gaps[source] == tooBlind {
			names = append(names, source)
		}
	}
	g.gaps = gaps
	if len(names) > 0 {
		slices.Sort(names)
		g.tell([]ledger.Event{{Kind: Blind, Time: now, Action: ledger.Alert, Count: len(names), Names: names[:min(len(names), maxGaps)]}}, nil)
	}
}

// tooBlind is in how many full scans in a row a place cannot be read before that is
// told.
const tooBlind = 2

// Kinds of events beside the ledger's.
const (
	Blind = "blind" // Count places cannot be read any more: Names
	Due   = "due"   // Count rules that alerted are not approved yet
)

// remind tells once a day, and at the start, that rules wait to be looked at.
func (g *Guard) remind(now time.Time) {
	if _, due := g.o.Ledger.Numbers(); due > 0 {
		g.tell([]ledger.Event{{Kind: Due, Time: now, Action: ledger.Alert, Count: due}}, nil)
	}
}

// world compares what counts as inside.
func (g *Guard) world(now time.Time) {
	w := g.o.Scanner.World()
	g.tell(g.o.Ledger.World(now, &w))
}

// extra compares what no place states, between full scans: only what is new.
func (g *Guard) extra(now time.Time) {
	if _, based := g.o.Ledger.Based(); g.o.Extra != nil && based && !g.unsure {
		g.tell(g.o.Ledger.Some(now, g.o.Extra(), nil, nil))
	}
}

// findings are those of the scan, and what no place states.
func (g *Guard) findings() []forward.Finding {
	all := g.o.Scanner.Graph().Findings()
	if g.o.Extra != nil {
		all = append(all, g.o.Extra()...)
	}
	return all
}

// took compares what some units' readings changed with the ledger. Before the
// first full scan there is nothing to compare with.
func (g *Guard) took(ctx context.Context, now time.Time, changes []scan.Change, err error, w writers) {
	if err != nil {
		if ctx.Err() == nil {
			g.failed("read forwarding rules again", err)
		}
		return
	}
	if _, based := g.o.Ledger.Based(); !based {
		return
	}
	var appeared, gone []forward.Finding
	for _, c := range changes {
		appeared, gone = append(appeared, c.Appeared...), append(gone, c.Gone...)
	}
	if len(appeared)+len(gone) > 0 {
		g.tell(g.o.Ledger.Some(now, appeared, gone, seenBy(g.o.Scanner, w)))
	}
}

func (g *Guard) tell(events []ledger.Event, err error) {
	if err != nil { // what changed is told all the same
		g.failed("remember forwarding rules", err)
	}
	if len(events) > 0 {
		g.o.Tell(time.Now(), events)
	}
}

func (g *Guard) failed(what string, err error) {
	text := what + ": " + strings.TrimSpace(err.Error())
	g.mu.Lock()
	told := g.status.Error == text
	g.status.Error = text
	g.mu.Unlock()
	if !told {
		g.o.Log.Error(what, "error", err)
	}
}
