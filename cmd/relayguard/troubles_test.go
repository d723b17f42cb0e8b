package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"relayguard/journal"
)

// noted remembers what was recorded.
type noted struct {
	troubles []journal.Trouble
	alive    string
}

func (n *noted) Note(r journal.Record) {
	switch r := r.(type) {
	case journal.Trouble:
		n.troubles = append(n.troubles, r)
	case journal.Value:
		n.alive = r.Value
	}
}

// said are those since the last call: what, from when, until when, in minutes from noon.
func (n *noted) said() (all []string) {
	minute := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return fmt.Sprint(int(t.Sub(noon).Minutes()))
	}
	for _, t := range n.troubles {
		all = append(all, t.What+" "+minute(t.Since)+" "+minute(t.Until))
	}
	n.troubles = nil
	slices.Sort(all)
	return all
}

func at(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

func TestTroublesBeginAndEndOnce(t *testing.T) {
	n := &noted{}
	tr := &troubles{journal: n}
	tr.begin(at(0), nil, "")
	if got := n.said(); len(got) > 0 { // the first start of all
		t.Errorf("%q", got)
	}
	for minute, c := range []struct {
		bad  map[string]string
		want []string
	}{
		{map[string]string{}, nil},
		{map[string]string{"redis": "away"}, []string{"redis 1 -"}},
		{map[string]string{"redis": "away, still", "queue": "no helper"}, []string{"queue 2 -"}},
		{map[string]string{"queue": "no helper"}, []string{"redis 1 3"}},
		{map[string]string{"queue": "no helper", "redis": "away"}, []string{"redis 4 -"}},
		{nil, []string{"queue 2 5", "redis 4 5"}},
		{nil, nil},
	} {
		tr.look(at(minute), c.bad)
		if got := n.said(); !slices.Equal(got, c.want) {
			t.Errorf("minute %d: %q, want %q", minute, got, c.want)
		}
		if want := at(minute).UTC().Format(time.RFC3339); n.alive != want {
			t.Errorf("minute %d: alive %s", minute, n.alive)
		}
	}
}

func TestTroublesGoOnOverARestart(t *testing.T) {
	alive := func(minute int) string { return at(minute).UTC().Format(time.RFC3339) }
	for name, c := range map[string]struct {
		left  []journal.Trouble
		alive string
		begin []string // recorded at the start, minute 60
		look  []string // and when redis is bad a minute later
	}{
		"none":                {nil, alive(59), nil, []string{"redis 61 -"}},
		"it still is":         {[]journal.Trouble{{What: "redis", Since: at(10)}}, alive(59), nil, nil},
		"it is over":          {[]journal.Trouble{{What: "queue", Since: at(10)}}, alive(59), nil, []string{"queue 10 61", "redis 61 -"}},
		"it was over":         {[]journal.Trouble{{What: "redis", Since: at(10), Until: at(20)}}, alive(59), nil, []string{"redis 61 -"}},
		"twice":               {[]journal.Trouble{{What: "redis", Since: at(10)}, {What: "redis", Since: at(30)}}, alive(59), []string{"redis 10 30"}, nil},
		"a short restart":     {nil, alive(58), nil, []string{"redis 61 -"}},
		"nobody ran":          {nil, alive(20), []string{"daemon 20 60"}, []string{"redis 61 -"}},
		"the clock was ahead": {[]journal.Trouble{{What: "queue", Since: at(90)}}, alive(90), nil, []string{"queue 90 90", "redis 61 -"}},
		"not a time":          {nil, "yesterday", nil, []string{"redis 61 -"}},
	} {
		n := &noted{}
		tr := &troubles{journal: n}
		tr.begin(at(60), c.left, c.alive)
		if got := n.said(); !slices.Equal(got, c.begin) {
			t.Errorf("%s: at the start %q, want %q", name, got, c.begin)
		}
		tr.look(at(61), map[string]string{"redis": "away"})
		if got := n.said(); !slices.Equal(got, c.look) {
			t.Errorf("%s: then %q, want %q", name, got, c.look)
		}
	}
}

func TestWhatOfTheGuardIsNotWell(t *testing.T) {
	well := func() *status {
		s := &status{}
		s.Journal.OK, s.Store.OK = true, true
		return s
	}
	if got := well().bad(); len(got) > 0 {
		t.Errorf("%v", got)
	}
	for what, change := range map[string]func(*status){
		"journal":           func(s *status) { s.Journal.OK = false },
		"limits":            func(s *status) { s.Store.OK = false },
		"redis":             func(s *status) { s.Store.Away = true },
		"queue":             func(s *status) { s.Queue = "no helper" },
		"room":              func(s *status) { s.NoRoom = "full" },
		"mta log":           func(s *status) { s.Log.Problem = "no such file" },
		"relays":            func(s *status) { s.Relays = "one is away" },
		"mta stop":          func(s *status) { s.MTAStop = "pulled by somebody else" },
		"alerts by webhook": func(s *status) { s.Alerts = []alertStatus{{Channel: "webhook", Problem: "503"}, {Channel: "syslog"}} },
		"forwarding rules":  func(s *status) { s.NoForwards = "not watched" },
		"blocklists":        func(s *status) { s.Blocklists = &blocklistStatus{Error: "database is locked"} },
	} {
		s := well()
		change(s)
		if got := s.bad(); len(got) != 1 {
			t.Errorf("%s: %v", what, got)
		} else if _, is := got[what]; !is {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestBlocklistsThatNobodyChecksAreNotWell(t *testing.T) {
	for _, s := range []status{{NoBlocklists: "not a directory"}, {Blocklists: &blocklistStatus{Unchecked: "not a directory"}}} {
		if got := s.bad()["blocklists"]; got != "not a directory" {
			t.Errorf("%+v: %q", s, got)
		}
	}
}

// A daemon that was killed left its troubles open; the next one closes them, and the
// report has both them and the time in which nobody ran.
func TestTroublesOfAKilledDaemonAreInTheReport(t *testing.T) {
	s := newReportScene(t)
	tr := &troubles{journal: s.journal}
	tr.begin(s.ago(10*time.Hour), nil, "")
	tr.look(s.ago(9*time.Hour), map[string]string{"redis": "away"})
	must(t, s.journal.Sync(t.Context()))
	left, err := s.journal.Troubles(t.Context(), time.Time{}, time.Time{})
	must(t, err)
	alive, _, err := s.journal.Value(t.Context(), aliveMark)
	must(t, err)
	next := &troubles{journal: s.journal}
	next.begin(s.ago(5*time.Hour), left, alive)
	next.look(s.ago(5*time.Hour), nil)
	r := s.report()
	var got []string
	for _, d := range r.Degraded {
		got = append(got, fmt.Sprintf("%s %.0f", d.What, d.Until.Sub(d.Since).Hours()))
	}
	if want := []string{"daemon 4", "redis 4"}; !slices.Equal(got, want) && !slices.Equal(got, []string{"redis 4", "daemon 4"}) || len(stepsOf(r)) > 0 {
		t.Errorf("%q, want %q; steps %q", got, want, stepsOf(r))
	}
}
