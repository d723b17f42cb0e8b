package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/config"
	"relayguard/incident"
	"relayguard/mta/postfix"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/resolve"
	"relayguard/rbl/watch"
)

// asking is what a configuration says of blocklists, made ready to be asked.
type asking struct {
	table     *rbl.Table
	zones     []rbl.Zone // in use
	not       []rbl.NotChosen
	off       map[string]bool   // named in rbl.disable
	keys      map[string]string // by operator
	resolvers []rbl.Resolver
	found     []resolve.Found // the machine's own, used or not; nil with rbl.resolvers
	targets   blocklists.Targets
	warnings  []string // what is not as it should be, and can be lived with
	forwarded string   // who asks in place of the first resolver; "": it asks by itself, or that is not known
}

// newAsking makes it ready. Without any resolver it is asked of nobody, which a
// warning says; the error is one of the configuration.
func newAsking(ctx context.Context, c *config.Config, inside []string, learnt []history.Learnt) (*asking, error) {
	a := &asking{}
	if err := a.choose(c); err != nil {
		return nil, err
	}
	if err := a.resolve(c); err != nil {
		a.warnings = append(a.warnings, err.Error())
	}
	var sending *postfix.Sending
	trouble := ""
	if c.RBL.FromMTA {
		s, err := sendingOf(ctx, c)
		if err != nil {
			trouble = fmt.Sprintf("rbl.from_mta: which addresses send is not known: %v; set rbl.addresses", err)
		} else {
			sending = &s
		}
	}
	a.targets = blocklists.Find(ctx, c, sending, learnt, inside, blocklists.Machine())
	if trouble != "" && len(c.RBL.Addresses) == 0 {
		a.targets.Trouble = append(a.targets.Trouble, trouble)
	}
	return a, nil
}

func sendingOf(ctx context.Context, c *config.Config) (postfix.Sending, error) {
	mta, err := postfix.Load(ctx, postfix.Tools{}, c.MTA.ConfigDirectory)
	if err != nil {
		return postfix.Sending{}, err
	}
	return mta.Sending(ctx)
}

// choose reads the table of lists and the keys, and says which lists are asked.
func (a *asking) choose(c *config.Config) (err error) {
	a.table = rbl.Builtin()
	if c.RBL.ZonesFile != "" {
		if a.table, err = rbl.Load(c.RBL.ZonesFile); err != nil {
			return fmt.Errorf("rbl.zones_file: %w", err)
		}
	}
	choice := rbl.Choice{Enable: c.RBL.Enable, Disable: c.RBL.Disable, Keys: map[string]bool{}, Commercial: c.RBL.Use == config.UseCommercial}
	a.keys = map[string]string{}
	for _, k := range c.ZoneKeys {
		key, err := readZoneKey(k.File)
		if err != nil {
			a.warnings = append(a.warnings, fmt.Sprintf("zone_key %s: %v; its lists are not asked", k.Operator, err))
			continue
		}
		a.keys[k.Operator], choice.Keys[k.Operator] = key, true
	}
	a.zones, a.not, err = a.table.Choose(choice)
	if err != nil {
		return fmt.Errorf("rbl: %w", err)
	}
	a.off = map[string]bool{}
	for _, name := range c.RBL.Disable {
		a.off[name] = true
	}
	a.warnings = append(a.warnings, a.table.Warnings(c.RBL.Enable)...)
	return nil
}

// maxKey is far above any key: they are 26 to 64 characters.
const maxKey = 256

// readZoneKey reads the key from the first line of a file.
func readZoneKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKey+2))
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	key := strings.TrimSpace(string(line))
	if !isLabel(key) {
		return "", fmt.Errorf("read %s: its first line is no key: want 8 to 63 letters and digits", path)
	}
	return key, nil
}

// isLabel reports whether a key can be a label of a DNS name.
func isLabel(key string) bool {
	return len(key) >= 8 && len(key) <= 63 && !strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// resolve finds the name servers to ask: those of the configuration, or the
// machine's own that are not public.
func (a *asking) resolve(c *config.Config) error {
	if len(c.RBL.Resolvers) > 0 {
		for _, address := range c.RBL.Resolvers {
			a.resolvers = append(a.resolvers, resolve.New(address, c.RBL.Timeout))
		}
		return nil
	}
	var err error
	if a.found, err = resolve.System(""); err != nil {
		return fmt.Errorf("no resolver: %w; set rbl.resolvers", err)
	}
	var public []string
	for _, f := range a.found {
		if f.Public != "" {
			public = append(public, fmt.Sprintf("%s (%s)", f.Address, f.Public))
			continue
		}
		a.resolvers = append(a.resolvers, resolve.New(f.Address, c.RBL.Timeout))
		if how, whom := resolve.Recurses("", f); how == resolve.Forwards && a.forwarded == "" {
			a.forwarded = whom
		}
	}
	if len(a.resolvers) == 0 {
		return fmt.Errorf("no resolver to ask blocklists: those of this machine are public ones (%s), which lists refuse or answer wrongly; install a recursive one (apt-get install unbound) and set rbl.resolvers = [\"127.0.0.1:53\"]", strings.Join(public, ", "))
	}
	if a.forwarded != "" {
		a.warnings = append(a.warnings, fmt.Sprintf("the resolver %s does not ask by itself, but %s: lists see that one's address, and may refuse it; a recursive one of your own is better (apt-get install unbound, rbl.resolvers)", a.resolvers[0].Name(), a.forwarded))
	}
	return nil
}

// checker asks with what was made ready.
func (a *asking) checker(log *slog.Logger) *check.Checker {
	return check.New(check.Options{Resolvers: a.resolvers, Keys: a.keys, Log: log})
}

// blocklistWatch is the daemon's watch over its own addresses.
type blocklistWatch struct {
	state *state
	store *history.Store
	watch *watch.Watch
	now   atomic.Pointer[asking] // of the newest plan; nil: none yet
	hurry chan struct{}

	mu      sync.Mutex
	checker *check.Checker
	asks    string // by whom and with what it asks; has keys in it
}

// openBlocklists opens the history of listings. nil: nothing is watched, and
// s.blocklistsOff says why.
func (s *state) openBlocklists(ctx context.Context, c *config.Config) *blocklistWatch {
	if !c.RBL.Watch {
		s.blocklistsOff = "rbl.watch is false"
		return nil
	}
	store, err := history.Open(ctx, c.RBLDirectory(), history.Options{Confirm: c.RBL.Confirm, Keep: c.Journal.KeepTotals})
	if err != nil {
		s.log.Error("blocklists are not watched", "error", err)
		s.blocklistsOff = err.Error()
		return nil
	}
	if aside := store.Reset(); aside != "" {
		s.log.Error("the history of blocklists was broken and begins anew", "kept", aside)
	}
	b := &blocklistWatch{state: s, store: store, hurry: make(chan struct{}, 1)}
	b.watch = watch.New(watch.Options{
		Store: store, Plan: b.plan, Every: c.RBL.Every, Confirm: c.RBL.Confirm, Tell: b.tell, Log: s.log,
	})
	return b
}

// reload checks anew what a changed configuration says.
func (b *blocklistWatch) reload(before, c *config.Config) {
	if b == nil || reflect.DeepEqual(before.RBL, c.RBL) && reflect.DeepEqual(before.ZoneKeys, c.ZoneKeys) {
		return
	}
	select {
	case b.hurry <- struct{}{}:
	default: // a round is asked for already
	}
}

// run checks until ctx ends.
func (b *blocklistWatch) run(ctx context.Context, work *sync.WaitGroup) {
	work.Go(func() { b.watch.Run(ctx) })
	work.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-b.hurry:
				if err := b.watch.Now(ctx); err != nil && ctx.Err() == nil {
					b.state.log.Warn("check blocklists", "error", err)
				}
			}
		}
	})
}

func (b *blocklistWatch) close() {
	if b == nil {
		return
	}
	if err := b.store.Close(); err != nil {
		b.state.log.Error("close the history of blocklists", "error", err)
	}
}

// plan reads the configuration, the MTA's settings and the machine's anew each time.
func (b *blocklistWatch) plan(ctx context.Context) watch.Plan {
	c := b.state.config.Load()
	learnt, err := b.store.LearntAll(ctx)
	if err != nil {
		b.state.log.Warn("addresses that were learnt", "error", err)
	}
	a, err := newAsking(ctx, c, b.state.insideDomains(), learnt)
	if err != nil {
		return watch.Plan{Trouble: err.Error()}
	}
	b.now.Store(a)
	if len(a.resolvers) == 0 {
		return watch.Plan{Trouble: strings.Join(slices.Concat(a.targets.Trouble, a.warnings), "; ")}
	}
	p := watch.Plan{Checker: b.checkerOf(a), Subjects: a.targets.Subjects(), Zones: a.zones, Sending: a.targets.Sending(), Domains: a.targets.Domains, Trouble: strings.Join(a.targets.Trouble, "; ")}
	p.Resolver = a.resolvers[0]
	if c.RBL.Neighbours {
		p.Neighbours = blocklists.Prefixes(a.targets)
	}
	return p
}

// checkerOf keeps one checker while nothing changes that it asks with: it counts what
// lists allow in a day.
func (b *blocklistWatch) checkerOf(a *asking) *check.Checker {
	var names []string
	for _, r := range a.resolvers {
		names = append(names, r.Name())
	}
	asks := fmt.Sprint(names, a.keys, b.state.config.Load().RBL.Timeout)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.checker == nil || b.asks != asks {
		b.checker, b.asks = a.checker(b.state.log), asks
	}
	return b.checker
}

// insideDomains are those in force, in order.
func (s *state) insideDomains() []string {
	r := s.rules.Load()
	if r == nil {
		return nil
	}
	var all []string
	for d := range r.policy.Inside {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// tell hands events on to the admin. What was sent to the channels counts as told:
// they keep and repeat by themselves.
func (b *blocklistWatch) tell(ctx context.Context, events []history.Event) error {
	c := b.state.config.Load()
	used := map[string]bool{}
	for _, e := range events {
		text, urgent := announceListing(&e, c.RBL.Alert)
		if text == "" {
			continue
		}
		topic := "rbl " + string(e.Kind)
		if e.Listing != nil {
			topic += " " + e.Listing.Zone + " " + e.Listing.Subject.String()
		}
		if e.Health != nil { // of two notices with one topic only one is sent
			topic += " " + e.Health.Zone
		}
		if used[topic] && e.Listing != nil { // a list can have several of one address
			topic += fmt.Sprintf(" %s/%d", e.Listing.Hit.Code, e.Listing.Hit.Bit)
		}
		used[topic] = true
		b.state.log.Warn("blocklists", "text", text)
		alert := incident.NewNotice(e.At, topic, text)
		if urgent {
			alert = incident.NewWarning(e.At, topic, text, e)
		}
		b.state.channels.Send(alert)
	}
	b.tighten(ctx, time.Now(), events)
	return nil
}

// announceListing says what the admin is told of an event, and whether it is urgent;
// "": the daily report is enough. For a range or a whole network nobody is woken.
func announceListing(e *history.Event, from rbl.Severity) (text string, urgent bool) {
	switch e.Kind {
	case history.Began, history.Over:
		l := e.Listing
		if l == nil || l.Hit.Scope.Wide() || l.Hit.Severity < from {
			return "", false
		}
		if e.Kind == history.Over {
			return fmt.Sprintf("%s is no longer listed by %s (%s), since %s", l.Subject, l.Zone, l.Hit.Means, l.First.Local().Format("2006-01-02 15:04 MST")), false
		}
		return fmt.Sprintf("%s is listed by %s: %s (%s), first seen %s; see: relayguard report", l.Subject, l.Zone, l.Hit.Means, l.Hit.Severity, l.First.Local().Format("2006-01-02 15:04 MST")), true
	case history.ZoneBad:
		if e.Health == nil {
			return "", false
		}
		return fmt.Sprintf("the blocklist %s is %s: what it says is not believed until it is well again: %s", e.Health.Zone, e.Health.State, e.Health.Why), false
	}
	return "", false
}
