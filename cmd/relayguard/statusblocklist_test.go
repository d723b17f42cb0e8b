package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/rbl"
	"relayguard/rbl/history"
)

func textLog(to *written) *slog.Logger { return slog.New(slog.NewTextHandler(to, nil)) }

func domainSubject(name string) rbl.Subject { return rbl.Subject{Name: name} }

// openIn are the listings that go on, as subject and list.
func openIn(t *testing.T, b *blocklistWatch) (all []string) {
	t.Helper()
	open, err := b.store.Listings(t.Context(), history.Query{OpenOnly: true})
	must(t, err)
	for _, l := range open {
		all = append(all, l.Subject.String()+" "+l.Zone)
	}
	slices.Sort(all)
	return all
}

// A watch that could not start is seen.
func TestStatusSaysThatBlocklistsAreNotWatched(t *testing.T) {
	path, _ := commandDir(t)
	c, err := config.Load(path)
	must(t, err)
	c.MTA.Log, c.MTA.QueueHelper, c.Alert.Syslog, c.Forward.Watch, c.RBL.FromMTA = config.LogNone, path+".no-helper", false, false, false
	must(t, os.WriteFile(filepath.Join(filepath.Dir(path), "blocklists"), nil, 0o600))
	s := aState(t, c)
	t.Cleanup(func() { s.close(nil) })
	if got := s.blocklistsProblem(c); !strings.Contains(got, "blocklists") {
		t.Errorf("%q", got)
	}
	text, err := json.Marshal(status{NoBlocklists: "why"})
	if err != nil || !strings.Contains(string(text), `"blocklists_problem":"why"`) {
		t.Errorf("%s, %v", text, err)
	}
	c.RBL.Watch = false
	if got := s.blocklistsProblem(c); got != "" {
		t.Errorf("nobody wants it: %q", got)
	}
}

func TestStatusFindsThatNothingIsChecked(t *testing.T) {
	s := watchingState(t, "", nil)
	b := s.blocklists
	b.plan(t.Context())
	now := time.Now()
	round := func(results map[string]int64) *blocklistStatus {
		st := &blocklistStatus{Results: results}
		st.Watch.Last, st.Watch.Trouble = now, "trouble"
		return st
	}
	well := map[string]int64{"clean": 1, "unknown": 60}
	for name, c := range map[string]struct {
		idle   time.Duration // -1: it is not
		status *blocklistStatus
		want   string // begins so
	}{
		"well":                 {-1, round(well), ""},
		"for a moment":         {time.Minute, round(well), ""},
		"lasting":              {time.Hour, round(well), "trouble"},
		"from the start":       {time.Second, &blocklistStatus{}, "there is nothing to check"},
		"not yet":              {-1, &blocklistStatus{}, ""},
		"nobody answered":      {-1, round(map[string]int64{"unknown": 50, "refused": 9, "info": 2}), "in the last round no list said anything"},
		"a listing answers":    {-1, round(map[string]int64{"listed": 1, "unknown": 50}), ""},
		"a wide one does, too": {-1, round(map[string]int64{"wide": 1, "unknown": 50}), ""},
	} {
		b.mu.Lock()
		b.idle = time.Time{}
		if c.idle >= 0 {
			b.idle = now.Add(-c.idle)
		}
		b.mu.Unlock()
		got := b.unchecked(now, c.status)
		if !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if c.status.Unchecked = got; c.status.finding() != (got != "") {
			t.Errorf("%s: finding %v", name, c.status.finding())
		}
	}
	changed := *s.config.Load()
	changed.RBL.Disable = []string{"bl.example"}
	s.config.Store(&changed)
	if b.plan(t.Context()); b.idle.IsZero() {
		t.Error("a plan without any list is one that can be checked")
	}
	s.config.Store(&config.Config{RBL: config.RBL{ZonesFile: "/nowhere"}})
	was := b.idle
	if b.plan(t.Context()); !b.idle.Equal(was) {
		t.Error("the beginning is forgotten")
	}
}

// Entries that harm nobody, as those of lists of the good, and of whole networks are
// no listings of ours.
func TestStandingTellsHarmlessAndWideEntriesApart(t *testing.T) {
	s := watchingState(t, "", nil)
	wellRound(t, s.blocklists, noon, isListed(ourAddr, "good.example", hit(2, rbl.Info, rbl.ScopeAddress)), isListed(ourAddr, "wide.example", hit(2, rbl.High, rbl.ScopeASN)),
		isListed(ourAddr, "bl.example", hit(2, rbl.Low, rbl.ScopeAddress)), isClean(ourAddr, "clean.example"), rbl.Answer{Zone: "no.example", Subject: ourAddr, Result: rbl.Refused})
	out, err := rblStatusOf(t.Context(), s.blocklists.store, noon)
	must(t, err)
	want := rblStanding{Subject: ourAddr, Listed: 2, Range: 1, Info: 1, Clean: 1, Refused: 1}
	if len(out.Subjects) != 1 || out.Subjects[0].rblStanding != want || !out.Subjects[0].At.Equal(noon) {
		t.Errorf("%+v, want %+v", out.Subjects, want)
	}
	if got := out.subject(&out.Subjects[0]); got != "203.0.113.5: listed on 1, its network on 1, harmless entry on 1, refused by 1, clean on 1" {
		t.Errorf("%q", got)
	}
	results := map[string]float64{}
	for _, m := range metrics {
		if strings.Contains(m.desc.String(), "rbl_results") {
			results = m.read(&status{Blocklists: s.blocklists.status(t.Context())})
		}
	}
	if results["listed"] != 1 || results["wide"] != 1 || results["info"] != 1 || results["clean"] != 1 || results["refused"] != 1 {
		t.Errorf("%v", results)
	}
}
