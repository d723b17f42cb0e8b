package scan_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"relayguard/forward"
	"relayguard/forward/scan"
)

// shelf is a host whose places are lines of text: "OWNER TARGET".
type shelf struct {
	mu    sync.Mutex
	text  map[string]string // by path; one that is not there cannot be read
	gaps  []forward.Gap     // of the plan
	ours  []string
	reads map[string]int
	asks  bool // the place "/etc/aliases" asks for known addresses
	known []string
}

func (s *shelf) set(path, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text[path] = text
}

func (s *shelf) plan(_ context.Context, known func() []string) forward.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := forward.Plan{Gaps: s.gaps, Uses: []string{"/etc/main.cf", "/var/vmail", "/etc/conf.d/"}, World: forward.World{Inside: map[string]bool{}, Local: map[string]bool{}, Origin: "corp.test", AppendAtOrigin: true}}
	for _, domain := range s.ours {
		p.World.Inside[domain], p.World.Local[domain] = true, true
	}
	if len(s.gaps) > 0 { // what cannot be read names no place
		return p
	}
	for path := range s.text {
		home := strings.HasPrefix(path, "/home/")
		u := forward.Unit{ID: path, Paths: []string{path}, Server: !home, Writer: forward.NoUID, Poll: strings.HasPrefix(path, "/sql/")}
		if home {
			u.Paths = append(u.Paths, path+"+*")
		}
		u.Read = func(context.Context) forward.Reading { return s.read(path, known) }
		p.Units = append(p.Units, u)
	}
	return p
}

func (s *shelf) read(path string, known func() []string) forward.Reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads[path]++
	if s.asks && path == "/etc/aliases" {
		s.known = known()
	}
	text, there := s.text[path]
	if !there || text == "unreadable" {
		return forward.Reading{Gaps: []forward.Gap{{Source: path, Why: "cannot be read"}}}
	}
	var r forward.Reading
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		owner, target, _ := strings.Cut(line, " ")
		if include, is := strings.CutPrefix(owner, "<"); is {
			r.Uses = append(r.Uses, include)
			continue
		}
		r.Rules = append(r.Rules, forward.Rule{Owner: owner, Mechanism: forward.Aliases, Target: target, Mode: forward.Redirect, Source: path, UID: forward.NoUID})
	}
	return r
}

func newShelf(text map[string]string) *shelf {
	return &shelf{text: text, ours: []string{"corp.test"}, reads: map[string]int{}}
}

func scanner(t *testing.T, s *shelf) *scan.Scanner {
	t.Helper()
	sc := scan.New(s.plan, scan.Options{Workers: 4})
	if _, err := sc.All(t.Context()); err != nil {
		t.Fatal(err)
	}
	return sc
}

func outside(sc *scan.Scanner) []string {
	var all []string
	for _, f := range sc.Graph().Findings() {
		if f.Verdict == forward.Outside {
			all = append(all, strings.Join(f.Chain, ">")+">"+f.Target)
		}
	}
	return all
}

func want(t *testing.T, sc *scan.Scanner, when string, findings ...string) {
	t.Helper()
	slices.Sort(findings)
	got := outside(sc)
	slices.Sort(got)
	if !slices.Equal(got, findings) {
		t.Errorf("%s: got %q, want %q", when, got, findings)
	}
}

func TestOneChangedPlaceIsReadAlone(t *testing.T) {
	s := newShelf(map[string]string{"/etc/aliases": "sales alice\n", "/home/alice": "", "/home/bob": ""})
	sc := scanner(t, s)
	want(t, sc, "at first")
	s.set("/home/alice", "alice x@evil.test\n")
	plan, units := sc.Stale("/home/alice")
	if plan || !slices.Equal(units, []string{"/home/alice"}) {
		t.Fatalf("stale: %v %q", plan, units)
	}
	before := s.reads["/home/bob"]
	changes, err := sc.Again(t.Context(), units)
	if err != nil || len(changes) != 1 || changes[0].Unit != "/home/alice" || len(changes[0].Appeared) != 2 {
		t.Fatalf("%+v, %v", changes, err)
	}
	want(t, sc, "planted", "alice>x@evil.test", "sales>alice>x@evil.test")
	if s.reads["/home/bob"] != before {
		t.Error("bob's was read, too")
	}
	if changes, _ := sc.Again(t.Context(), units); len(changes) != 0 {
		t.Errorf("the same again: %+v", changes)
	}
}

func TestWhatAPathAsksFor(t *testing.T) {
	s := newShelf(map[string]string{"/home/alice": "", "/etc/aliases": "</etc/list\nsales alice\n"})
	sc := scanner(t, s)
	for path, c := range map[string]struct {
		plan  bool
		units []string
	}{
		"/etc/main.cf":        {true, nil},
		"/etc/list":           {false, []string{"/etc/aliases"}},
		"/home/alice+work":    {false, []string{"/home/alice"}},
		"/home/alicf":         {false, nil},
		"/home//alice":        {false, []string{"/home/alice"}},
		"/somewhere/else":     {false, nil},
		"/etc/main.cf/../foo": {false, nil},
		"/var/vmail/new":      {true, nil},  // a mailbox that comes
		"/var/vmail/a/b/mail": {false, nil}, // and mail that comes to one
		"/etc/conf.d/a/b":     {true, nil},
	} {
		if plan, units := sc.Stale(path); plan != c.plan || !slices.Equal(units, c.units) {
			t.Errorf("%s: %v %q", path, plan, units)
		}
	}
	paths := sc.Paths()
	for _, path := range []string{"/etc/main.cf", "/etc/list", "/etc/aliases", "/home/alice", "/home"} {
		if !slices.Contains(paths, path) {
			t.Errorf("%s is not watched: %q", path, paths)
		}
	}
	turn := sc.Turn()
	s.set("/etc/aliases", "</etc/other\n")
	sc.Again(t.Context(), []string{"/etc/aliases"})
	if _, units := sc.Stale("/etc/other"); len(units) != 1 || sc.Turn() == turn {
		t.Errorf("an include that came: %q", units)
	}
}

func TestWhatCannotBeReadStaysAsItWas(t *testing.T) {
	s := newShelf(map[string]string{"/sql/forwards": "alice x@evil.test\n", "/home/bob": "bob y@evil.test\n"})
	sc := scanner(t, s)
	both := []string{"alice>x@evil.test", "bob>y@evil.test"}
	want(t, sc, "at first", both...)
	s.set("/sql/forwards", "unreadable")
	if changes, _ := sc.Again(t.Context(), sc.Polled()); len(changes) != 0 {
		t.Errorf("a database that is away: %+v", changes)
	}
	if gaps := sc.Gaps(); len(gaps) != 1 || gaps[0].Source != "/sql/forwards" {
		t.Errorf("gaps %+v", gaps)
	}
	for range 2 {
		sc.All(t.Context())
		want(t, sc, "after a full scan", both...)
	}
	s.set("/sql/forwards", "")
	sc.Again(t.Context(), sc.Polled())
	want(t, sc, "it is empty", "bob>y@evil.test")

	// The mail server's settings cannot be read: no domain is ours, no place is known.
	s.gaps, s.ours = []forward.Gap{{Source: "main.cf", Why: "is being written"}}, nil
	for range 2 {
		sc.All(t.Context())
		want(t, sc, "without settings", "bob>y@evil.test")
		if w := sc.World(); !w.Inside["corp.test"] {
			t.Error("our domain is no longer ours")
		}
	}
	s.gaps, s.ours = nil, []string{"corp.test"}
	delete(s.text, "/home/bob")
	sc.All(t.Context())
	want(t, sc, "settings are back, bob is gone")
}

func TestGapsThatWereAlwaysThereHideNothing(t *testing.T) {
	s := newShelf(map[string]string{"/home/bob": "bob y@evil.test\n"})
	sc := scan.New(func(ctx context.Context, known func() []string) forward.Plan {
		p := s.plan(ctx, known)
		p.Gaps = []forward.Gap{{Source: "tcp:", Why: "cannot be listed"}}
		return p
	}, scan.Options{})
	sc.All(t.Context())
	delete(s.text, "/home/bob")
	sc.All(t.Context())
	want(t, sc, "bob is gone")
}

func TestWhatCannotBeReadInPartKeepsTheRest(t *testing.T) {
	s := newShelf(map[string]string{"/etc/aliases": "sales x@evil.test\ninfo y@evil.test\n"})
	gap := false
	sc := scan.New(func(ctx context.Context, known func() []string) forward.Plan {
		p := s.plan(ctx, known)
		read := p.Units[0].Read
		p.Units[0].Read = func(ctx context.Context) forward.Reading {
			r := read(ctx)
			if gap {
				r.Gaps = append(r.Gaps, forward.Gap{Source: "/etc/list", Why: "closed"})
			}
			return r
		}
		return p
	}, scan.Options{})
	sc.All(t.Context())
	gap = true
	s.set("/etc/aliases", "sales x@evil.test\nnew z@evil.test\n")
	for range 3 {
		sc.Again(t.Context(), []string{"/etc/aliases"})
		want(t, sc, "closed", "sales>x@evil.test", "info>y@evil.test", "new>z@evil.test")
	}
	gap = false
	sc.All(t.Context())
	want(t, sc, "open again", "sales>x@evil.test", "new>z@evil.test")
}

func TestHomesThatAreNotMountedLoseNothing(t *testing.T) {
	homes := map[string]string{"/etc/aliases": "sales x@evil.test\n"}
	var all []string
	for n := range 30 {
		homes[fmt.Sprintf("/home/u%d", n)] = fmt.Sprintf("u%d x%d@phone.test\n", n, n)
		all = append(all, fmt.Sprintf("u%d>x%d@phone.test", n, n))
	}
	all = append(all, "sales>x@evil.test")
	s := newShelf(homes)
	sc := scanner(t, s)
	for n := range 30 {
		s.set(fmt.Sprintf("/home/u%d", n), "")
	}
	for range 2 {
		sc.All(t.Context())
		want(t, sc, "not mounted", all...)
		if len(sc.Gaps()) != 30 {
			t.Errorf("%d gaps", len(sc.Gaps()))
		}
	}
	for n := range 30 {
		s.set(fmt.Sprintf("/home/u%d", n), fmt.Sprintf("u%d x%d@phone.test\n", n, n))
	}
	s.set("/home/u7", "")
	sc.All(t.Context())
	if got := outside(sc); len(got) != 30 || len(sc.Gaps()) != 0 {
		t.Errorf("mounted, u7 has taken his away: %d rules, %d gaps", len(got), len(sc.Gaps()))
	}
}

func TestQuickReadsTheServersPlaces(t *testing.T) {
	s := newShelf(map[string]string{"/etc/aliases": "", "/home/alice": "", "/home/bob": ""})
	sc := scanner(t, s)
	s.set("/etc/aliases", "sales x@evil.test\n")
	s.set("/home/alice", "alice x@evil.test\n")
	s.set("/home/carol", "carol x@evil.test\n")
	changes, err := sc.Quick(t.Context())
	if err != nil || len(changes) != 2 {
		t.Errorf("%+v, %v", changes, err)
	}
	want(t, sc, "quick", "sales>x@evil.test", "carol>x@evil.test")
	sc.All(t.Context())
	want(t, sc, "full", "sales>x@evil.test", "carol>x@evil.test", "alice>x@evil.test")
}

func TestKnownAddressesComeFromTheReadings(t *testing.T) {
	s := newShelf(map[string]string{"/etc/aliases": "sales alice\n", "/home/alice": "alice@corp.test x@evil.test\n"})
	s.asks = true
	scanner(t, s)
	if !slices.Equal(s.known, []string{"alice@corp.test", "sales@corp.test"}) {
		t.Errorf("known: %q", s.known)
	}
}

func TestAScanThatIsStoppedChangesNothing(t *testing.T) {
	s := newShelf(map[string]string{"/home/bob": "bob y@evil.test\n"})
	sc := scanner(t, s)
	s.set("/home/bob", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sc.All(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	want(t, sc, "stopped", "bob>y@evil.test")
}

func TestProgressReachesTheEnd(t *testing.T) {
	text := map[string]string{}
	for n := range 100 {
		text[fmt.Sprintf("/home/u%d", n)] = ""
	}
	var mu sync.Mutex
	most := 0
	sc := scan.New(newShelf(text).plan, scan.Options{Workers: 4, Progress: func(done, total int) {
		mu.Lock()
		defer mu.Unlock()
		if total != 100 {
			t.Errorf("total %d", total)
		}
		most = max(most, done)
	}})
	sc.All(t.Context())
	if most != 100 {
		t.Errorf("told of %d", most)
	}
}
