package check_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

func addr(a string) netip.Addr { return netip.MustParseAddr(a) }

func TestRunSaysWhatEachZoneSays(t *testing.T) {
	zone := zone4("bl.example")
	zone.Codes = []rbl.Code{
		{From: addr("127.0.0.2"), To: addr("127.0.0.2"), Means: "spam source"},
		{From: addr("127.0.0.10"), To: addr("127.0.0.11"), Means: "dynamic range", Severity: new(rbl.Info), Scope: new(rbl.ScopeRange)},
	}
	f := newFake("r").serve("bl.example", well(entries{
		"5.2.0.192":     addrs("127.0.0.10", "127.0.0.2"),
		"5.2.0.192 TXT": {Outcome: rbl.Answered, Texts: []string{"see\nhttps://bl.example/?192.0.2.5"}},
		"6.2.0.192":     timedOut(),
		"8.2.0.192":     refused(),
		"9.2.0.192":     addrs("192.0.2.80"),
		"10.2.0.192":    servFail(),
		"11.2.0.192":    noData(),
	}).server()).serve("a.example", well(nil).server())
	var subjects []rbl.Subject
	for i := 5; i <= 11; i++ {
		subjects = append(subjects, ip(fmt.Sprintf("192.0.2.%d", i)))
	}
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1})
	var told []string
	round := c.Run(t.Context(), subjects, []rbl.Zone{zone, zone4("a.example")}, func(done, all int) {
		told = append(told, fmt.Sprint(done, " / ", all))
	})

	var order, results []string
	for _, a := range round.Answers {
		order = append(order, a.Subject.String()+" "+a.Zone)
		if a.Zone == "bl.example" {
			results = append(results, a.Result.String())
		} else if a.Result != rbl.Clean {
			t.Errorf("%+v", a)
		}
		if a.At.IsZero() || (a.Result == rbl.Unknown || a.Result == rbl.Refused) != (a.Why != "") {
			t.Errorf("%+v", a)
		}
	}
	if want := []string{"192.0.2.5 a.example", "192.0.2.5 bl.example", "192.0.2.6 a.example"}; !slices.Equal(order[:3], want) || len(order) != 14 {
		t.Errorf("order %v", order)
	}
	if want := []string{"listed", "unknown", "clean", "refused", "unknown", "unknown", "clean"}; !slices.Equal(results, want) {
		t.Errorf("got %v, want %v", results, want)
	}
	if len(told) != 14 || told[13] != "14 / 14" {
		t.Errorf("progress %v", told)
	}

	listed := round.Answers[1]
	if len(listed.Hits) != 2 || listed.Hits[0].Means != "spam source" || listed.Hits[1].Scope != rbl.ScopeRange || listed.Worst() != rbl.High {
		t.Errorf("hits %+v", listed.Hits)
	}
	if !slices.Equal(listed.Reasons, []string{"see https://bl.example/?192.0.2.5"}) || listed.Resolver != "r" {
		t.Errorf("%+v", listed)
	}
	if txt := f.questions("TXT"); !slices.Equal(txt, []string{"5.2.0.192.bl.example TXT"}) {
		t.Errorf("asked for texts of what is not listed: %v", txt)
	}
	sum := int64(0)
	for _, n := range round.Outcomes {
		sum += n
	}
	if n := int64(len(f.questions(""))); round.Queries != n || sum != n {
		t.Errorf("%d queries, by outcome %v, want %d", round.Queries, round.Outcomes, n)
	}
}

// What a list says at the time a random name is on it, too, is no listing.
func TestWentWildMeanwhile(t *testing.T) {
	for name, probe := range map[string]func(labels string) bool{
		"a random name":     isCanary,
		"its negative test": func(labels string) bool { return labels == clean4 },
	} {
		wild := false
		f := newFake("r")
		f.serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
			f.mu.Lock()
			defer f.mu.Unlock()
			switch {
			case labels == listed4:
				return addrs("127.0.0.2")
			case labels == "6.2.0.192":
				wild = true
				return addrs("127.0.0.2")
			case wild && probe(labels):
				return addrs("127.0.0.2")
			}
			return noName()
		})
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1}).
			Run(t.Context(), []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6")}, []rbl.Zone{zone4("bl.example")}, nil)
		if round.Zones[0].State != rbl.Wild {
			t.Errorf("%s: %+v", name, round.Zones)
		}
		for _, a := range round.Answers {
			if a.Result != rbl.Unknown || len(a.Hits) > 0 || !strings.Contains(a.Why, name) {
				t.Errorf("%s: %+v", name, a)
			}
		}
	}
}

// A list that refuses half-way has said nothing before: some answer everything when
// they have had enough.
func TestRefusesMeanwhile(t *testing.T) {
	f := newFake("r").serve("bl.example", well(entries{
		"5.2.0.192": addrs("127.0.0.2"),
		"6.2.0.192": addrs("127.255.255.255"),
	}).server())
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1}).
		Run(t.Context(), []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6"), ip("192.0.2.7")}, []rbl.Zone{zone4("bl.example")}, nil)
	if round.Zones[0].State != rbl.Refusing {
		t.Errorf("%+v", round.Zones)
	}
	for _, a := range round.Answers {
		if a.Result != rbl.Refused || len(a.Hits) > 0 || a.Why == "" {
			t.Errorf("%+v", a)
		}
	}
	if asked := f.questions("7.2.0.192.bl.example A"); len(asked) > 0 {
		t.Errorf("asked further: %v", asked)
	}
}

// An answer without records is "clean" only if the test entry still comes through.
func TestNoRecordsAboutASubject(t *testing.T) {
	filters := false
	f := newFake("r")
	f.serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch labels {
		case listed4:
			if filters {
				return noData()
			}
			return addrs("127.0.0.2")
		case "5.2.0.192":
			filters = true
			return noData()
		}
		return noName()
	})
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).
		Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}, nil)
	if a := round.Answers[0]; a.Result != rbl.Unknown || round.Zones[0].State != rbl.Filtered {
		t.Errorf("%+v %+v", a, round.Zones)
	}
}

// If the test entry cannot be asked for meanwhile, nothing is "clean" by an answer
// without records, and it is not tried for each subject.
func TestNoRecordsAndThenSilence(t *testing.T) {
	silent := false
	f := newFake("r")
	f.serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case labels == listed4 && silent:
			return timedOut()
		case labels == listed4:
			return addrs("127.0.0.2")
		case strings.HasSuffix(labels, ".2.0.192"):
			silent = true
			return noData()
		}
		return noName()
	})
	var subjects []rbl.Subject
	for i := range 10 {
		subjects = append(subjects, ip(fmt.Sprintf("192.0.2.%d", i)))
	}
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1}).Run(t.Context(), subjects, []rbl.Zone{zone4("bl.example")}, nil)
	for _, a := range round.Answers {
		if a.Result != rbl.Unknown || a.Why == "" {
			t.Errorf("%+v", a)
		}
	}
	if asked := f.questions(listed4 + ".bl.example A"); len(asked) != 3 {
		t.Errorf("asked %d times for the test entry", len(asked))
	}
}

// A list that stops answering is left alone; what it said before holds.
func TestSilentMeanwhile(t *testing.T) {
	f := newFake("r")
	f.serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
		switch {
		case labels == listed4 || labels == "5.2.0.192":
			return addrs("127.0.0.2")
		case strings.HasSuffix(labels, ".2.0.192") && labels != "6.2.0.192":
			return timedOut()
		}
		return noName()
	})
	var subjects []rbl.Subject
	for i := 5; i < 25; i++ {
		subjects = append(subjects, ip(fmt.Sprintf("192.0.2.%d", i)))
	}
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1}).Run(t.Context(), subjects, []rbl.Zone{zone4("bl.example")}, nil)
	count := map[rbl.Result]int{}
	for _, a := range round.Answers {
		count[a.Result]++
	}
	if count[rbl.Listed] != 1 || count[rbl.Clean] != 1 || count[rbl.Unknown] != 18 {
		t.Errorf("%v", count)
	}
	if round.Zones[0].State != rbl.Healthy || round.Zones[0].Why == "" {
		t.Errorf("%+v", round.Zones)
	}
	if asked := f.questions(".2.0.192.bl.example A"); len(asked) != 4 {
		t.Errorf("asked on: %v", asked)
	}
}

func TestNobodyToAsk(t *testing.T) {
	round := check.New(check.Options{}).Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}, nil)
	if a, h := round.Answers[0], round.Zones[0]; a.Result != rbl.Unknown || a.Why == "" || h.State != rbl.Silent {
		t.Errorf("%+v %+v", a, h)
	}
}

func TestSubjectsAndZonesOnce(t *testing.T) {
	f := newFake("r").serve("bl.example", well(nil).server())
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(),
		[]rbl.Subject{ip("192.0.2.5"), {}, ip("::ffff:192.0.2.5"), ip("2001:db8::1"), {Name: "example.org"}},
		[]rbl.Zone{zone4("bl.example"), zone4("bl.example")}, nil)
	if len(round.Answers) != 1 || len(round.Zones) != 1 || round.Answers[0].Subject != ip("192.0.2.5") {
		t.Errorf("%+v", round)
	}
}

func TestNameTooLong(t *testing.T) {
	z := zone4("bl.example")
	z.Kinds, z.Test = []rbl.Kind{rbl.Domain}, rbl.Test{ListedDomain: "test", CleanDomain: "invalid"}
	f := newFake("r").serve("bl.example", entries{"test": addrs("127.0.0.2")}.server())
	long := strings.Repeat("a23456789.", 24) + "example"
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), []rbl.Subject{{Name: long}, {Name: "example.org"}}, []rbl.Zone{z}, nil)
	if a := round.Answers; a[0].Result != rbl.Unknown || a[1].Result != rbl.Clean || len(f.questions(long+".bl.example A")) > 0 {
		t.Errorf("%+v", a)
	}
}

func TestEndedRoundSaysWhatItHas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newFake("r").serve("bl.example", well(nil).server())
	f.serve("late.example", func(labels string, _ rbl.Type) rbl.Response {
		cancel()
		return rbl.Response{Err: context.Canceled}
	})
	c := check.New(check.Options{Resolvers: []rbl.Resolver{f}})
	if round := c.Run(ctx, []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("late.example")}, nil); round.Answers[0].Result != rbl.Unknown ||
		!strings.Contains(round.Answers[0].Why, "ended") || round.Zones[0].State != rbl.Silent {
		t.Errorf("%+v", round)
	}
	before := len(f.questions(""))
	round := c.Run(ctx, []rbl.Subject{ip("192.0.2.5"), ip("192.0.2.6")}, []rbl.Zone{zone4("bl.example")}, nil)
	if len(round.Answers) != 2 || round.Answers[0].Result != rbl.Unknown || round.Queries != 0 || len(f.questions("")) != before {
		t.Errorf("%+v", round)
	}
}

// It ends while a subject is asked about: its zone was well, the rest is not known. Nor
// is a listing that could not be looked at once more.
func TestEndedHalfWay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newFake("r")
	f.serve("bl.example", func(labels string, _ rbl.Type) rbl.Response {
		switch labels {
		case listed4, "5.2.0.192":
			return addrs("127.0.0.2")
		case "7.2.0.192":
			cancel()
			return rbl.Response{Err: context.Canceled}
		}
		return noName()
	})
	var subjects []rbl.Subject
	for i := 5; i < 12; i++ {
		subjects = append(subjects, ip(fmt.Sprintf("192.0.2.%d", i)))
	}
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, PerZone: 1}).Run(ctx, subjects, []rbl.Zone{zone4("bl.example")}, nil)
	for i, a := range round.Answers {
		want := rbl.Unknown
		switch i {
		case 1:
			want = rbl.Clean
		}
		if a.Result != want || want == rbl.Unknown && !strings.Contains(a.Why, "the check ended") {
			t.Errorf("%+v, want %v", a, want)
		}
	}
	if h := round.Zones[0]; h.State != rbl.Healthy || h.Why != "" {
		t.Errorf("%+v", h)
	}
}

// Answers that mean nothing: no address at all, or one that is none of a list.
func TestAnswersWithoutMeaning(t *testing.T) {
	for text, answer := range map[string]rbl.Response{
		"means nothing":                        {Outcome: rbl.Answered},
		"none of a list: 192.0.2.80":           addrs("127.0.0.2", "192.0.2.80"),
		"none of a list: 2001:db8::1":          addrs("2001:db8::1"),
		"127.0.0.1, which is no listing here":  addrs("127.0.0.1"),
		"127.255.255.9, which refuses queries": addrs("127.0.0.2", "127.255.255.9"),
	} {
		f := newFake("r").serve("bl.example", well(entries{"5.2.0.192": answer}).server())
		round := check.New(check.Options{Resolvers: []rbl.Resolver{f}}).Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}, nil)
		if a := round.Answers[0]; a.Result == rbl.Listed || a.Result == rbl.Clean || len(a.Hits) > 0 || !strings.Contains(a.Why, text) {
			t.Errorf("%s: %+v", text, a)
		}
	}
}

// A round is JSON, with words for results and states.
func TestRoundAsJSON(t *testing.T) {
	f := newFake("r").serve("bl.example", well(entries{"5.2.0.192": addrs("127.0.0.2")}).server())
	now := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	round := check.New(check.Options{Resolvers: []rbl.Resolver{f}, Now: func() time.Time { return now }}).
		Run(t.Context(), []rbl.Subject{ip("192.0.2.5")}, []rbl.Zone{zone4("bl.example")}, nil)
	raw, err := json.Marshal(round)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"began":"2026-03-02T09:00:00Z"`, `"result":"listed"`, `"state":"healthy"`, `"kind":"ip4"`, `"subject":"192.0.2.5"`, `"code":"127.0.0.2"`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("no %s in %s", want, raw)
		}
	}
}
