package forwards_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayguard/cmd/internal/forwards"
	"relayguard/forward"
	"relayguard/forward/ledger"
	"relayguard/forward/scan"
)

// host has homes whose .forward is one target, and /etc/aliases, the server's.
type host struct {
	mu    sync.Mutex
	files map[string]string
	fails bool // nothing can be planned
	scans int
	slow  chan struct{} // the place "sql" is read when it is closed; nil: at once
}

func (h *host) set(path, target string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if target == "" {
		delete(h.files, path)
		return
	}
	h.files[path] = target
}

// plans is how often everything was planned.
func (h *host) plans() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.scans
}

func (h *host) plan(context.Context, func() []string) forward.Plan {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scans++
	p := forward.Plan{Uses: []string{"/etc/main.cf"}, World: forward.World{Inside: map[string]bool{"corp.test": true}, Local: map[string]bool{"corp.test": true}, Origin: "corp.test", AppendAtOrigin: true}}
	for _, name := range []string{"alice", "bob", "sales"} {
		path := "/home/" + name + "/.forward"
		p.Units = append(p.Units, forward.Unit{ID: "forward " + name, Paths: []string{path}, Writer: 1000, Owner: name, Read: h.reader(path, name, false)})
	}
	p.Units = append(p.Units, forward.Unit{ID: "aliases", Paths: []string{"/etc/aliases"}, Writer: 0, Server: true, Read: h.reader("/etc/aliases", "*", true)})
	p.Units = append(p.Units, forward.Unit{ID: "sql", Poll: true, Writer: forward.NoUID, Read: h.reader("/sql", "bob", false)})
	return p
}

func (h *host) reader(path, owner string, server bool) func(context.Context) forward.Reading {
	return func(context.Context) forward.Reading {
		h.mu.Lock()
		slow := h.slow
		h.mu.Unlock()
		if slow != nil && path == "/sql" {
			<-slow
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		target, there := h.files[path]
		if !there {
			return forward.Reading{}
		}
		return forward.Reading{Rules: []forward.Rule{{Owner: owner, Mechanism: forward.DotForward, Target: target, Mode: forward.Redirect, Source: path, Line: 1, UID: 1000, Server: server}}}
	}
}

// eyes is a watch by hand.
type eyes struct {
	changes chan forward.Change
	broken  chan error
	mu      sync.Mutex
	paths   []string
	watched int
}

func newEyes() *eyes {
	return &eyes{changes: make(chan forward.Change), broken: make(chan error)}
}

func (e *eyes) Watch(paths []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.paths, e.watched = paths, e.watched+1
	return nil
}

func (e *eyes) Method() string { return "by hand" }

func (e *eyes) Run(ctx context.Context, fn func(forward.Change)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-e.broken:
			return err
		case c := <-e.changes:
			fn(c)
		}
	}
}

func (e *eyes) saw(path string, uid int) {
	e.changes <- forward.Change{Path: path, Writer: forward.Writer{UID: uid, LoginUID: forward.NoUID, PID: 7, Process: "/bin/sh"}}
}

// watch is a guard over a host, in a bubble of its own time.
type watch struct {
	*forwards.Guard
	host   *host
	eyes   *eyes
	ledger *ledger.Ledger
	mu     sync.Mutex
	told   []ledger.Event
}

func start(t *testing.T, change func(*forwards.Options)) *watch {
	t.Helper()
	w := &watch{host: &host{files: map[string]string{}}, eyes: newEyes()}
	var err error
	if w.ledger, err = ledger.Open(t.TempDir(), ledger.Rules{Roles: []string{"sales"}, Policy: ledger.DefaultPolicy()}); err != nil {
		t.Fatal(err)
	}
	o := forwards.Options{Scanner: scan.New(w.host.plan, scan.Options{Workers: 1}), Ledger: w.ledger, Watcher: w.eyes, Rescan: time.Hour, Poll: time.Minute, Tell: func(_ time.Time, events []ledger.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.told = append(w.told, events...)
	}}
	if change != nil {
		change(&o)
	}
	w.Guard = forwards.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; w.ledger.Close() })
	synctest.Wait()
	return w
}

// wantTold are the events since the last call: "KIND OWNER TARGET ACTION".
func (w *watch) wantTold(t *testing.T, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, e := range w.told {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", e.Kind, e.Entry.Owner, e.Entry.Target, e.Action)))
	}
	w.told = nil
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: told\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const baseline = "baseline   alert"

func TestAPlantedRuleIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		w.wantTold(t, "at first", baseline)
		before := w.host.plans()
		for _, c := range []struct {
			path   string
			uid    int
			target string
			want   string
		}{
			{"/home/alice/.forward", 1000, "a@evil.test", "appeared alice a@evil.test digest"},
			{"/home/sales/.forward", 1000, "s@evil.test", "appeared sales s@evil.test alert"},
			{"/home/bob/.forward", 33, "b@evil.test", "appeared bob b@evil.test alert"},
			{"/etc/aliases", 0, "all@evil.test", "appeared * all@evil.test alert"},
		} {
			w.host.set(c.path, c.target)
			w.eyes.saw(c.path, c.uid)
			time.Sleep(time.Second) // of the bubble
			w.wantTold(t, c.path, c.want)
		}
		if w.host.plans() != before {
			t.Error("all was read for it")
		}
		if e, err := w.ledger.Find(forward.FindingID("bob", forward.DotForward, "b@evil.test", forward.Redirect)); err != nil || e.Writer.UID != 33 || e.Writer.Process != "/bin/sh" {
			t.Errorf("who wrote it: %+v, %v", e.Writer, err)
		}
		w.host.set("/home/bob/.forward", "")
		w.eyes.saw("/home/bob/.forward", 33)
		time.Sleep(time.Second)
		w.wantTold(t, "taken away", "gone bob b@evil.test digest")
	})
}

func TestChangesOfSettingsAreReadAtOnceAndThenAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		w.wantTold(t, "at first", baseline)
		scans := w.host.plans()
		w.host.set("/etc/aliases", "all@evil.test")
		w.host.set("/home/alice/.forward", "a@evil.test") // nobody told of it
		w.eyes.saw("/etc/main.cf", 0)
		time.Sleep(500 * time.Millisecond)
		w.wantTold(t, "at once", "appeared * all@evil.test alert")
		time.Sleep(10 * time.Second)
		w.wantTold(t, "soon", "appeared alice a@evil.test digest")
		if w.host.plans() != scans+2 {
			t.Errorf("%d plans", w.host.plans()-scans)
		}
	})
}

func TestWhatNobodyTellsOfIsFoundByPollAndRescan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(o *forwards.Options) { o.Watcher = nil })
		w.wantTold(t, "at first", baseline)
		w.host.set("/sql", "q@evil.test")
		w.host.set("/home/sales/.forward", "s@evil.test")
		time.Sleep(61 * time.Second)
		w.wantTold(t, "after a poll", "appeared bob q@evil.test digest")
		time.Sleep(time.Hour)
		w.wantTold(t, "after a rescan", "appeared sales s@evil.test alert")
	})
}

func TestLostChangesAndABrokenWatchMeanAFullScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		w.wantTold(t, "at first", baseline)
		w.host.set("/home/sales/.forward", "s@evil.test")
		w.eyes.changes <- forward.Change{Lost: true, Writer: forward.UnknownWriter}
		time.Sleep(5 * time.Second)
		w.wantTold(t, "lost", "appeared sales s@evil.test alert")
		w.host.set("/etc/aliases", "all@evil.test")
		w.eyes.broken <- errors.New("the helper is gone")
		time.Sleep(10 * time.Second)
		w.wantTold(t, "broken", "appeared * all@evil.test alert")
		w.host.set("/home/alice/.forward", "a@evil.test")
		w.eyes.saw("/home/alice/.forward", 1000) // it runs again
		time.Sleep(time.Second)
		w.wantTold(t, "again", "appeared alice a@evil.test digest")
	})
}

func TestAFullScanDelaysNoAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, func(o *forwards.Options) { o.Poll = 24 * time.Hour })
		w.wantTold(t, "at first", baseline)
		slow := make(chan struct{})
		w.host.mu.Lock()
		w.host.slow = slow
		w.host.mu.Unlock()
		w.Rescan()
		synctest.Wait() // all but one place has been read
		w.host.set("/home/sales/.forward", "s@evil.test")
		w.eyes.saw("/home/sales/.forward", 33)
		time.Sleep(time.Second)
		w.wantTold(t, "during the scan", "appeared sales s@evil.test alert")
		w.host.set("/etc/aliases", "all@evil.test")
		w.eyes.saw("/etc/main.cf", 0)
		time.Sleep(time.Second)
		w.wantTold(t, "another plan has to wait")
		close(slow)
		time.Sleep(time.Second)
		w.wantTold(t, "the scan is over", "appeared * all@evil.test alert")
		if e := w.ledger.Entries(false); len(e) != 2 {
			t.Errorf("%+v", e)
		}
	})
}

func TestWhoeverChangesSettingsAllTheTimeKeepsNobodyBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		scans := w.host.plans()
		for range 100 {
			w.eyes.saw("/etc/main.cf", 0)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if n := w.host.plans() - scans; n > 15 {
			t.Errorf("%d plans in a second of changes", n)
		}
	})
}

func TestWhatNoPlaceStatesIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flow := forward.Finding{ID: "F1", Owner: "bob", Mechanism: forward.Traffic, Target: "x@evil.test", Verdict: forward.Outside, Mode: forward.Redirect, Chain: []string{"bob"}, UID: forward.NoUID}
		var mu sync.Mutex
		var extra []forward.Finding
		w := start(t, func(o *forwards.Options) {
			o.Extra = func() []forward.Finding {
				mu.Lock()
				defer mu.Unlock()
				return extra
			}
		})
		w.wantTold(t, "at first", baseline)
		mu.Lock()
		extra = append(extra, flow)
		mu.Unlock()
		time.Sleep(2 * time.Hour)
		w.wantTold(t, "mail went", "appeared bob x@evil.test alert")
	})
}

func TestAnApprovalThatIsOverIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t, nil)
		w.host.set("/home/sales/.forward", "s@evil.test")
		w.eyes.saw("/home/sales/.forward", 1000)
		time.Sleep(time.Second)
		w.wantTold(t, "planted", baseline, "appeared sales s@evil.test alert")
		id := forward.FindingID("sales", forward.DotForward, "s@evil.test", forward.Redirect)
		if _, err := w.ledger.Approve(time.Now(), id, ledger.Approval{By: "root", Reason: "partner", Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
		if s := w.Status(); s.Due != 0 || s.Findings != 1 || s.Method != "by hand" || s.Scanned.IsZero() {
			t.Errorf("%+v", s)
		}
		time.Sleep(62 * time.Minute)
		w.wantTold(t, "an hour later", "expired sales s@evil.test alert")
		if s := w.Status(); s.Due != 1 {
			t.Errorf("%+v", s)
		}
	})
}
