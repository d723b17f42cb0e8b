package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/forward/files"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
	"relayguard/forward/watch"
	"relayguard/incident"
	"relayguard/policy"
)

// forwarding is the daemon's watch over forwarding rules.
type forwarding struct {
	config   func() *config.Config
	host     atomic.Pointer[forward.Host]
	scanner  *scan.Scanner
	ledger   *ledger.Ledger
	guard    *forwards.Guard
	channels *incident.Channels // apart from the incidents': neither keeps the other's back
	outside  *incident.Channels // only those that lead out of this machine
	released *releasedMail
	mails    chan forwards.Mail
	handIn   func(ctx context.Context, host, to string, text []byte) error // a message of our own
	log      *slog.Logger
	remote   *files.Remote // nil: this process reads by itself
	reader   forward.Files // remote, or nil
	proof    *proof        // nil: there is none
	wire     wireRules

	began  time.Time
	before map[string][]policy.ForwardRule // by target: what was known when it began

	mu         sync.Mutex
	watchers   map[chan forwardChange]bool
	rulesInUse ledger.Rules
	strangers  map[string]bool // names in forward.writers that were warned of
}

// openForwarding opens the ledger. nil: the configuration wants no watch, or it
// cannot be had, which is logged; mail goes on, and s.forwardsOff says why.
func (s *state) openForwarding(ctx context.Context, c *config.Config) *forwarding {
	if !c.Forward.Watch {
		s.forwardsOff = "forward.watch is false"
		return nil
	}
	f, err := s.newForwarding(ctx, c)
	if err != nil {
		s.log.Error("forwarding rules are not watched", "error", err)
		s.forwardsOff = err.Error()
		return nil
	}
	if why := f.ledger.Broken(); why != "" {
		f.tell(time.Now(), []ledger.Event{{Kind: ledger.Broken, Why: why, Action: ledger.Alert, Time: time.Now()}})
	}
	planner := forwards.PlannerOf(s.config.Load, f.host.Load)
	f.scanner = scan.New(func(ctx context.Context, known func() []string) forward.Plan {
		f.refresh(ctx)
		return planner(ctx, known)
	}, scan.Options{Workers: 1})
	f.guard = forwards.New(forwards.Options{
		Scanner: f.scanner, Ledger: f.ledger, Watcher: f.watcher(), Rescan: c.Forward.Rescan, Poll: c.Forward.Poll, Tell: f.tell, Extra: f.unexplained, Log: s.log, Unanswered: f.unanswered(),
	})
	if err := f.openProof(ctx, c, s.logOptions(c)); err != nil {
		s.log.Error("which mail goes by forwarding rules is not known", "error", err)
	}
	entries := f.ledger.Entries(false)
	f.wire.learn(entries)
	f.before = byTarget(entries)
	s.relearnReleased(ctx, time.Now(), f.released)
	return f
}

// newForwarding opens what a watch cannot do without.
func (s *state) newForwarding(ctx context.Context, c *config.Config) (*forwarding, error) {
	f := &forwarding{began: time.Now(), config: s.config.Load, channels: s.newChannels(c), handIn: s.handIn, log: s.log, released: newReleasedMail(), mails: make(chan forwards.Mail, maxOwnerMails),
		watchers: map[chan forwardChange]bool{}, strangers: map[string]bool{}}
	if os.Geteuid() != 0 {
		f.remote = files.Dial(c.Forward.Helper)
		f.reader = f.remote
	}
	soon, cancel := context.WithTimeout(ctx, helperWait) // a helper that hangs keeps no mail waiting
	host, err := forwards.NewHost(soon, "", f.reader)
	cancel()
	if err == nil {
		f.host.Store(host)
		f.rulesInUse = forwards.Rules(c, host)
		f.ledger, err = ledger.Open(c.ForwardDirectory(), f.rulesInUse)
	}
	if err != nil {
		f.channels.Close()
		if f.remote != nil {
			f.remote.Close()
		}
		return nil, err
	}
	f.outside = incident.NewChannels(incident.ChannelsOptions{PerHour: 120, Log: s.log}, outsideChannels(c)...)
	return f, nil
}

// unanswered counts what the helper did not answer; nil: there is none.
func (f *forwarding) unanswered() func() (uint64, error) {
	if f.remote == nil {
		return nil
	}
	return f.remote.Unanswered
}

// watcher is the helper's, or this process's own.
func (f *forwarding) watcher() forwards.Watcher {
	if f.remote != nil {
		return f.remote
	}
	w, err := watch.New(watch.Options{Log: f.log})
	if err != nil {
		f.log.Error("changes of forwarding rules are seen by the full scan only", "error", err)
		return nil
	}
	return w
}

// run watches until ctx ends.
func (f *forwarding) run(ctx context.Context, work *sync.WaitGroup, heartbeat time.Duration) {
	work.Go(func() { f.guard.Run(ctx) })
	work.Go(func() { f.mailOwners(ctx) })
	if f.proof != nil {
		f.proof.run(ctx, f.guard.Ready(), work, func(err error) { f.log.Error("which mail goes by forwarding rules is not known for now", "error", err) })
	}
	work.Go(func() {
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		select {
		case <-ctx.Done():
			return
		case <-f.guard.Ready(): // a start is a sign of life, and what it found is told at once
			f.alive(time.Now())
		case <-tick.C: // a first scan that takes long, or cannot be made, is to be seen, too
			f.alive(time.Now())
		}
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				f.alive(now)
			}
		}
	})
}

func (f *forwarding) close() {
	if f == nil {
		return
	}
	f.outside.Close()
	f.channels.Close()
	if f.proof != nil {
		if err := f.proof.store.Close(); err != nil {
			f.log.Error("close the evidence of forwarding rules", "error", err)
		}
	}
	if f.remote != nil {
		f.remote.Close()
	}
	if err := f.ledger.Close(); err != nil {
		f.log.Error("close the ledger of forwarding rules", "error", err)
	}
}

// head is what a heartbeat carries.
type head struct {
	Records  int64  `json:"records"` // never fewer than before
	Hash     string `json:"hash"`    // of the last record, which commits to all before it
	Findings int    `json:"findings"`
	Due      int    `json:"due"`
	Method   string `json:"method"`
	Error    string `json:"error,omitempty"`
}

// alive sends the head of the hash chain out of this machine.
func (f *forwarding) alive(now time.Time) {
	s := f.guard.Status()
	h := head{Findings: s.Findings, Due: s.Due, Method: s.Method, Error: s.Error}
	h.Records, h.Hash = f.ledger.Head()
	f.outside.Send(incident.NewAlive(now, fmt.Sprintf("relayguard runs; forwarding rules: %d known, %d should be looked at; ledger record %d, hash %s", h.Findings, h.Due, h.Records, h.Hash), h))
}

// tell hands events on: to the admin, to owners, to those who watch.
func (f *forwarding) tell(now time.Time, events []ledger.Event) {
	for _, a := range forwards.Announce(events) {
		alert := incident.NewNotice(now, a.Topic, a.Text)
		if a.Urgent {
			alert = incident.NewWarning(now, a.Topic, a.Text, a.Detail)
		} else {
			alert.Detail = a.Detail
		}
		f.channels.Send(alert)
		f.log.Warn("forwarding rules", "text", a.Text)
	}
	f.wire.learn(f.ledger.Entries(false))
	for i := range events {
		f.publish(&events[i])
	}
	f.writeToOwners(now, events)
}

// publish gives an event to those who watch. Who is too slow misses it.
func (f *forwarding) publish(e *ledger.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.watchers) == 0 {
		return
	}
	c := changeOf(e)
	for w := range f.watchers {
		select {
		case w <- c:
		default:
		}
	}
}

// follow calls send for each change from now on, and now and then to see whether
// somebody still listens.
func (f *forwarding) follow(ctx context.Context, send func(forwardChange) error) error {
	w := make(chan forwardChange, 1000)
	f.mu.Lock()
	f.watchers[w] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.watchers, w)
		f.mu.Unlock()
	}()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		var c forwardChange
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			c = forwardChange{Time: now, Kind: changeAlive}
		case c = <-w:
		}
		if err := send(c); err != nil {
			return err
		}
	}
}

// reload puts a changed configuration in force.
func (f *forwarding) reload(c *config.Config) {
	if f == nil {
		return
	}
	f.use(c)
	f.guard.Rescan()
}

// refresh learns anew who has an account: an uid may be of somebody else by now, and
// an account that writes for customers may have come since. Every plan asks for it.
func (f *forwarding) refresh(ctx context.Context) {
	host, err := forwards.NewHost(ctx, "", f.reader)
	if err == nil && len(host.Accounts) > 0 { // else as before: the helper is away
		f.host.Store(host)
	}
	if c := f.config(); c != nil {
		f.use(c)
	}
}

// use has the ledger judge by a configuration and by the accounts that there are,
// and warns once of each name in it that no account has.
func (f *forwarding) use(c *config.Config) {
	host := f.host.Load()
	rules := forwards.Rules(c, host)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !reflect.DeepEqual(rules, f.rulesInUse) {
		f.rulesInUse = rules
		f.ledger.Use(rules)
	}
	if len(host.Accounts) == 0 {
		return
	}
	for _, name := range c.Forward.Writers {
		if host.Account(name) == nil && !f.strangers[name] {
			f.strangers[name] = true
			f.log.Warn("forward.writers names an account that does not exist: what others write for it is told as written by a stranger", "account", name)
		}
	}
}
