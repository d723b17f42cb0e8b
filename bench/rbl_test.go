package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/dnstest"
	"relayguard/rbl/history"
)

// What is measured finds all that is planted, directly and through a recursive
// server, and the plain client gets an answer to each of the same questions.
func TestListRoundFindsWhatIsPlanted(t *testing.T) {
	dnstest.Need(t)
	l, dir := newLists(7, 5), t.TempDir()
	for p := dir; p != os.TempDir(); p = filepath.Dir(p) { // servers run as nobody
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server, err := l.serve(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer server.stop()
	through, err := l.behind(t.Context(), dir, server)
	if err != nil {
		t.Fatal(err)
	}
	defer through.stop()
	for name, address := range map[string]string{"rbldnsd": server.address, "unbound": through.address} {
		r := newRecorder(address)
		round := check.New(check.Options{Resolvers: []rbl.Resolver{r}}).Run(t.Context(), l.subjects, l.zones, nil)
		if err := l.complete(&round); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		asked := r.questions()
		if int64(len(asked)) != round.Queries || len(asked) < len(round.Answers) {
			t.Errorf("%s: %d questions were noted of %d", name, len(asked), round.Queries)
		}
		if err := askPlainly(t.Context(), address, asked); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		missed := slices.Clone(round.Answers)
		i := slices.IndexFunc(missed, func(a rbl.Answer) bool { return a.Result == rbl.Listed })
		missed[i].Result = rbl.Clean
		if err := l.complete(&check.Round{Answers: missed, Zones: round.Zones}); err == nil {
			t.Errorf("%s: a listing that is missed is no error", name)
		}
	}
	if err := askPlainly(t.Context(), server.address, []question{{"nobody.example", rbl.TypeA}}); err == nil {
		t.Error("a question that was refused is no error")
	}
}

// The planted state has what a report is to show, and an abuser that stands out.
func TestYearIsPlanted(t *testing.T) {
	y := &yearPlan{
		yearSizes: yearSizes{days: 45, detailed: 20, mails: 300, before: 20, sites: 10, rounds: 4},
		dir:       t.TempDir(), now: time.Now().Truncate(time.Second), lists: newLists(12, 10),
	}
	if err := y.plantJournal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := y.plantHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	j, err := journal.OpenReader(y.journalDir())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	first := y.listedSince(openListings - 1)
	all, err := j.Activity(t.Context(), journal.ActivityQuery{Since: first.Add(-12 * time.Hour), Until: first})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(a journal.Activity) bool { return a.Name() == abuser+"@"+abusedSite })
	if i < 0 || all[i].Recipients < 20 || all[i].Usual > 5 || all[i].FirstTime < 20 || all[i].Bounced == 0 {
		t.Errorf("the abuser does not stand out: %+v", all)
	}
	volumes, err := j.Volumes(t.Context(), time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	sum := map[policy.Verdict]int64{}
	for _, v := range volumes {
		sum[v.Verdict] += v.Recipients
	}
	if length := y.now.Sub(volumes[0].Start); length < 44*24*time.Hour || sum[policy.Accept] == 0 || sum[policy.Hold] == 0 || sum[policy.Reject] == 0 || sum[policy.Tell] == 0 {
		t.Errorf("volumes of %v: %v", length, sum)
	}
	h, err := history.Peek(t.Context(), y.historyDir())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	open, err := h.Listings(t.Context(), history.Query{OpenOnly: true})
	if err != nil || len(open) != openListings {
		t.Errorf("%d listings go on: %v", len(open), err)
	}
	over, err := h.Listings(t.Context(), history.Query{})
	if err != nil || len(over) <= openListings {
		t.Errorf("%d listings in all: %v", len(over), err)
	}
	days, err := h.Days(t.Context(), time.Time{}, time.Time{}, time.UTC)
	if err != nil || len(days) < y.days*len(y.subjects) {
		t.Errorf("%d days: %v", len(days), err)
	}
}

// A report that lacks what was planted does not pass for a quick one.
func TestReportOfNothingIsNotComplete(t *testing.T) {
	y := &yearPlan{yearSizes: wholeYear, lists: newLists(manyZones, manyAddresses)}
	for form, text := range map[string]string{
		"html": "<p>all clean</p>",
		"txt":  "all clean",
		"json": `{"listings": [], "mail": {"days": []}}`,
	} {
		if err := y.complete(form, []byte(text)); err == nil {
			t.Errorf("%s: no error", form)
		}
	}
	if err := y.complete("json", []byte(`{"missing": [{"section": "cause", "why": "the journal is away"}]}`)); err == nil || !strings.Contains(err.Error(), "the journal is away") {
		t.Errorf("an error that does not say what is missing: %v", err)
	}
}
