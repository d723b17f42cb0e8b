package watch_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
	"relayguard/rbl/watch"
)

const (
	every   = 6 * time.Hour
	week    = 7 * 24 * time.Hour
	confirm = 10 * time.Minute
)

var (
	ours  = rbl.Subject{Addr: netip.MustParseAddr("203.0.113.5")}
	other = rbl.Subject{Addr: netip.MustParseAddr("203.0.113.6")}
	near  = netip.MustParsePrefix("203.0.113.0/24")
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lists are blocklists, whose answers a test sets, and who asks them.
type lists struct {
	mu     sync.Mutex
	listed map[string][]byte    // last octets of codes, by "ZONE SUBJECT"
	sick   map[string]rbl.State // by zone
	takes  time.Duration        // a round
	around time.Duration        // a look around takes
	looks  int                  // around, under way
	sent   map[string]int64     // since the last call of Sent
	asked  []string             // "run", "again ZONE SUBJECT", "near ZONES", at what minute since began
	began  time.Time
	runs   []time.Time
}

func (l *lists) note(format string, args ...any) {
	l.asked = append(l.asked, fmt.Sprintf("%.0f ", time.Since(l.began).Minutes())+fmt.Sprintf(format, args...))
}

func (l *lists) set(zone string, s rbl.Subject, codes ...byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listed[zone+" "+s.String()] = codes
}

func (l *lists) ail(zone string, state rbl.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sick[zone] = state
}

// noted are what was asked since the last call.
func (l *lists) noted() (asked []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked, l.asked = l.asked, nil
	return asked
}

func (l *lists) rounds() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.runs)
}

func (l *lists) Sent() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = map[string]int64{}
	return sent
}

func (l *lists) answer(zone string, s rbl.Subject) (rbl.Answer, rbl.Health) {
	l.sent[zone]++
	a := rbl.Answer{Zone: zone, Subject: s, Result: rbl.Clean, Resolver: "127.0.0.1:53", At: time.Now()}
	for _, last := range l.listed[zone+" "+s.String()] {
		a.Result = rbl.Listed
		a.Hits = append(a.Hits, rbl.Hit{Code: netip.AddrFrom4([4]byte{127, 0, 0, last}), Severity: rbl.High})
	}
	h := rbl.Health{Zone: zone, Kind: s.Kind(), State: rbl.Healthy, At: time.Now()}
	if state, ok := l.sick[zone]; ok {
		h.State, a.Result, a.Hits = state, rbl.Unknown, nil
	}
	return a, h
}

func (l *lists) Run(ctx context.Context, subjects []rbl.Subject, zones []rbl.Zone, _ func(done, all int)) check.Round {
	r := check.Round{Began: time.Now(), Outcomes: map[string]int64{"answer": 1, "nxdomain": 2}, Queries: 3}
	select {
	case <-time.After(l.takes):
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("run")
	l.runs = append(l.runs, r.Began)
	for _, s := range subjects {
		for _, z := range zones {
			a, h := l.answer(z.Name, s)
			r.Answers = append(r.Answers, a)
			r.Zones = append(r.Zones, h)
		}
	}
	r.Took = time.Since(r.Began)
	return r
}

func (l *lists) Again(_ context.Context, s rbl.Subject, z *rbl.Zone, by string) (rbl.Answer, rbl.Health) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note("again %s %s by %s", z.Name, s, by)
	return l.answer(z.Name, s)
}

func (l *lists) Neighbours(ctx context.Context, prefixes []netip.Prefix, zones []rbl.Zone, most int) (all []check.Neighbour) {
	l.mu.Lock()
	if l.looks++; l.looks > 1 {
		l.note("two near at once")
	}
	for _, z := range zones {
		l.sent[z.Name] += int64(most)
	}
	l.mu.Unlock()
	select {
	case <-time.After(l.around):
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks--
	l.note("near")
	for _, p := range prefixes {
		for _, z := range zones {
			all = append(all, check.Neighbour{Prefix: p, Zone: z.Name, Asked: most, At: time.Now()})
		}
	}
	return all
}

// names is a resolver for sender facts, that knows no names.
type names struct{ looks *lists }

func (names) Name() string { return "127.0.0.1:53" }

func (n names) Ask(_ context.Context, name string, t rbl.Type) rbl.Response {
	if t == rbl.TypePTR {
		n.looks.mu.Lock()
		defer n.looks.mu.Unlock()
		n.looks.note("ptr")
	}
	return rbl.Response{Outcome: rbl.NoName, Server: "127.0.0.1:53"}
}

// desk is a Watch with all that it needs.
type desk struct {
	*watch.Watch
	t     *testing.T
	lists *lists
	store *history.Store
	dir   string
	stop  func() // and waits until it has

	mu   sync.Mutex
	plan watch.Plan
	made int      // plans
	told []string // "MINUTE KIND WHAT"
	fail int      // so many times telling fails
}

func (d *desk) change(change func(p *watch.Plan)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.plan)
}

// tellings are what was told since the last call.
func (d *desk) tellings() (told []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	told, d.told = d.told, nil
	return told
}

func (d *desk) tell(_ context.Context, events []history.Event) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail > 0 {
		d.fail--
		return errors.New("no channel")
	}
	for _, e := range events {
		what := ""
		switch {
		case e.Listing != nil:
			what = e.Listing.Zone + " " + e.Listing.Subject.String()
		case e.Health != nil:
			what = e.Health.Zone + " " + e.Health.State.String()
		case e.Fact != nil:
			what = e.Fact.Check
		}
		d.told = append(d.told, fmt.Sprintf("%.0f %s %s", time.Since(d.lists.began).Minutes(), e.Kind, what))
	}
	return nil
}

// inBubble runs a test with a Watch that is not running yet, and a virtual clock.
func inBubble(t *testing.T, test func(t *testing.T, d *desk)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := &lists{listed: map[string][]byte{}, sick: map[string]rbl.State{}, sent: map[string]int64{}, began: time.Now(), takes: 10 * time.Second}
		d := &desk{t: t, lists: l, dir: dir, plan: watch.Plan{Checker: l, Subjects: []rbl.Subject{ours, other},
			Zones: []rbl.Zone{{Name: "a.example", Kinds: []rbl.Kind{rbl.IP4}}, {Name: "wide.example", Kinds: []rbl.Kind{rbl.IP4}, Ranges: true}}}}
		d.anew()
		test(t, d)
		d.close()
	})
}

// anew makes store and watch, as a daemon does that starts.
func (d *desk) anew() {
	d.t.Helper()
	store, err := history.Open(d.t.Context(), d.dir, history.Options{Confirm: confirm})
	must(d.t, err)
	d.store = store
	d.Watch = watch.New(watch.Options{Store: store, Every: every, Week: week, Confirm: confirm, Tell: d.tell, Plan: func(context.Context) watch.Plan {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.made++
		return d.plan
	}})
}

// plans are how many were made since the last call.
func (d *desk) plans() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, d.made = d.made, 0
	return n
}

func (d *desk) run() {
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx)
	}()
	d.stop = func() {
		cancel()
		<-ended
		d.stop = nil
	}
}

func (d *desk) close() {
	if d.stop != nil {
		d.stop()
	}
	must(d.t, d.store.Close())
}

// after lets time go by, until all is quiet.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (d *desk) facts() []history.FactState {
	d.t.Helper()
	all, err := d.store.Facts(d.t.Context())
	must(d.t, err)
	return all
}

func (d *desk) open() []history.Listing {
	d.t.Helper()
	all, err := d.store.Listings(d.t.Context(), history.Query{OpenOnly: true})
	must(d.t, err)
	return all
}

var oneSender = []sender.Sending{{Addr: ours.Addr, Helo: "mail.example.jp"}}
