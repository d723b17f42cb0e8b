package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/config"
	"relayguard/mta"
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
	doubted   []doubted       // of resolvers
	targets   blocklists.Targets
	unsure    bool     // an address that sends may not be among targets
	unread    []string // keys that are configured and cannot be read: their lists are not asked
	warnings  []string // what is not as it should be, and can be lived with
	forwarded string   // what is known of the first of doubted; "": of no resolver that it is not the one whom lists see
	root      string   // "", or the top of another tree with a machine's settings
}

// doubted is a resolver whom lists may refuse, or answer wrongly, and why.
type doubted struct {
	resolver, why string
	public        bool
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
	var sending *mta.Sending
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
	a.unsure = unsure(a.targets.Trouble)
	return a, nil
}

// unsure reports whether trouble means that an address which sends is not known. What
// there is about domains does not.
func unsure(trouble []string) bool {
	return slices.ContainsFunc(trouble, func(t string) bool { return !strings.HasPrefix(t, "rbl.domains: ") })
}

func sendingOf(ctx context.Context, c *config.Config) (mta.Sending, error) {
	i, err := loadMailServer(ctx, c)
	if err != nil {
		return mta.Sending{}, err
	}
	return i.Sending(ctx)
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
			a.unread = append(a.unread, fmt.Sprintf("zone_key %s: %v; its lists are not asked", k.Operator, err))
			continue
		}
		a.keys[k.Operator], choice.Keys[k.Operator] = key, true
	}
	a.zones, a.not, err = a.table.Choose(choice)
	if err != nil {
		return fmt.Errorf("rbl: %w", err)
	}
	a.warnings = append(a.warnings, a.unread...)
	a.off = map[string]bool{}
	for _, name := range c.RBL.Disable {
		a.off[name] = true
	}
	a.warnings = append(a.warnings, a.table.Warnings(c.RBL.Enable)...)
	return nil
}

// maxKeyFile is far above any file with a key: they are 26 to 64 characters.
const maxKeyFile = 4096

// readZoneKey reads the key from the first line of a file.
func readZoneKey(path string) (string, error) {
	text, err := rbl.ReadFile(path, maxKeyFile)
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
// machine's own that are not public. What somebody chose is used, whatever it is.
func (a *asking) resolve(c *config.Config) error {
	if len(c.RBL.Resolvers) > 0 {
		a.ask(c, c.RBL.Resolvers)
		return nil
	}
	var err error
	if a.found, err = resolve.System(a.root); err != nil {
		return fmt.Errorf("no resolver: %w; set rbl.resolvers", err)
	}
	var public []string
	for _, f := range a.found {
		if f.Public != "" {
			public = append(public, fmt.Sprintf("%s (%s)", f.Address, f.Public))
			continue
		}
		a.resolvers = append(a.resolvers, resolve.New(f.Address, c.RBL.Timeout))
		a.doubt(f)
	}
	if len(a.resolvers) == 0 {
		return fmt.Errorf("no resolver to ask blocklists: those of this machine are public ones (%s), which lists refuse or answer wrongly; install a recursive one (apt-get install unbound) and set rbl.resolvers = [\"127.0.0.1:53\"]", strings.Join(public, ", "))
	}
	return nil
}

// ask takes resolvers that somebody named.
func (a *asking) ask(c *config.Config, servers []string) {
	for _, address := range servers {
		a.resolvers = append(a.resolvers, resolve.New(address, c.RBL.Timeout))
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			continue
		}
		addr := ap.Addr().Unmap()
		f := resolve.Found{Address: address, Addr: addr, Public: resolve.Public(addr)}
		// Which program answers on another port is not known.
		const domain = 53
		f.Own = ap.Port() == domain && (addr.IsLoopback() || blocklists.Machine().Has(addr))
		a.doubt(f)
	}
}

// doubt warns of a resolver if it is not its own address that lists see.
func (a *asking) doubt(f resolve.Found) {
	why, warning := "", ""
	if f.Public != "" {
		why = "it is a public one, of " + f.Public
		warning = fmt.Sprintf("%s is a public resolver (%s): lists refuse it, or answer it wrongly", f.Address, f.Public)
	} else if how, whom := resolve.Recurses(a.root, f); how == resolve.Forwards {
		why = "it has others ask for it: " + whom
		warning = fmt.Sprintf("the resolver %s does not ask by itself, but %s: lists see that one's address, and may refuse it", f.Address, whom)
	}
	if why == "" {
		return
	}
	a.doubted = append(a.doubted, doubted{f.Address, why, f.Public != ""})
	a.forwarded = cmp.Or(a.forwarded, why)
	a.warnings = append(a.warnings, warning+"; a recursive one of your own is better (apt-get install unbound, rbl.resolvers)")
}

// checker asks with what was made ready. used is what was asked today already.
func (a *asking) checker(log *slog.Logger, used map[string]int64) *check.Checker {
	return check.New(check.Options{Resolvers: a.resolvers, Keys: a.keys, Used: used, Log: log})
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
	asks    string         // by whom and with what it asks; has keys in it
	warned  string         // what of asking was last logged
	idle    time.Time      // since when nothing can be checked; zero: it can
	applied *config.Config // by which history knows what was taken out

	told listingsTold // of tell alone
}

// openBlocklists opens the history of listings. nil: nothing is watched, and
// s.blocklistsOff says why.
func (s *state) openBlocklists(ctx context.Context, c *config.Config) *blocklistWatch {
	if !c.RBL.Watch {
		s.blocklistsOff = "rbl.watch is false"
		return nil
	}
	store, err := history.Open(ctx, c.RBLDirectory(), history.Options{Confirm: c.RBL.Confirm, Keep: c.Journal.KeepTotals, Now: time.Now})
	if err != nil {
		s.log.Error("blocklists are not watched", "error", err)
		s.blocklistsOff = err.Error()
		return nil
	}
	if aside := store.Reset(); aside != "" {
		s.log.Error("the history of blocklists was broken and begins anew", "kept", aside)
	}
	b := &blocklistWatch{state: s, store: store, hurry: make(chan struct{}, 1), applied: c, told: listingsTold{sent: map[int64]*telling{}, lost: map[int64]int{}, acted: map[int64]bool{}}}
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
				b.apply(ctx)
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
	p := b.planned(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch nothing := p.Checker == nil || len(p.Subjects) == 0 || len(p.Zones) == 0; {
	case !nothing:
		b.idle = time.Time{}
	case b.idle.IsZero() && ctx.Err() == nil:
		b.idle = time.Now()
	}
	return p
}

func (b *blocklistWatch) planned(ctx context.Context) watch.Plan {
	c := b.state.config.Load()
	a, err := b.asking(ctx, c)
	if err != nil {
		return watch.Plan{Trouble: err.Error()}
	}
	b.now.Store(a)
	b.warn(a.warnings)
	if len(a.resolvers) == 0 {
		return watch.Plan{Trouble: strings.Join(slices.Concat(a.targets.Trouble, a.warnings), "; ")}
	}
	b.dropUnknownLists(ctx, a)
	p := watch.Plan{Checker: b.checkerOf(ctx, a), Subjects: a.targets.Subjects(), Zones: a.zones, Sending: a.targets.Sending(), Domains: a.targets.Domains, Trouble: strings.Join(a.targets.Trouble, "; ")}
	p.Resolver = a.resolvers[0]
	if c.RBL.Neighbours {
		p.Neighbours = blocklists.Prefixes(a.targets)
	}
	return p
}

// asking is what there is to be asked now. What could not be read is in Trouble.
func (b *blocklistWatch) asking(ctx context.Context, c *config.Config) (*asking, error) {
	learnt, learntErr := b.store.LearntAll(ctx)
	a, err := newAsking(ctx, c, b.state.insideDomains(), learnt)
	if err != nil {
		return nil, err
	}
	if learntErr != nil {
		a.targets.Trouble = append(a.targets.Trouble, fmt.Sprintf("addresses that were learnt are not known: %v", learntErr))
		a.unsure = a.unsure || len(c.RBL.Addresses) == 0
	}
	a.targets.Trouble = append(a.targets.Trouble, b.state.insideUnread()...)
	return a, nil
}

// warn logs what can be lived with, once.
func (b *blocklistWatch) warn(warnings []string) {
	text := strings.Join(warnings, "\n")
	b.mu.Lock()
	before := b.warned
	b.warned = text
	b.mu.Unlock()
	if text == before {
		return
	}
	for _, w := range warnings {
		b.state.log.Warn("blocklists are asked, but not as they should be", "why", w)
	}
}

// checkerOf keeps one checker while nothing changes that it asks with: it counts what
// lists allow in a day.
func (b *blocklistWatch) checkerOf(ctx context.Context, a *asking) *check.Checker {
	var names []string
	for _, r := range a.resolvers {
		names = append(names, r.Name())
	}
	asks := fmt.Sprint(names, a.keys, b.state.config.Load().RBL.Timeout)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.checker == nil || b.asks != asks {
		used, err := b.store.Used(ctx, time.Now())
		if err != nil {
			b.state.log.Warn("how much lists were asked today is not known", "error", err)
		}
		b.checker, b.asks = a.checker(b.state.log, used), asks
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

// insideUnread says which of them could not be read when the rules in force were made.
func (s *state) insideUnread() (all []string) {
	r := s.rules.Load()
	if r == nil {
		return nil
	}
	for _, err := range r.unread { // those of address maps are there, too
		if text := err.Error(); strings.HasPrefix(text, "inside.from_mta") {
			all = append(all, text)
		}
	}
	return all
}
