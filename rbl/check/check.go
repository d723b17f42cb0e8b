// Package check asks blocklists about our addresses and domains, and first whether
// each list can be believed.
//
// A zone is believed for one kind of subject, through one resolver, in one round: its
// test entry is there, and neither its negative test nor a random name is. What it
// listed is thrown away if it lists at the end what nobody lists, and what it did not
// list if its test entry is gone by then; either, if nothing can be found out.
//
// Operators are asked at the pace of their terms, by all that a Checker does.
//
// The trap: a zone that fails its test has said nothing. Silence is never "clean",
// and an answer to a name that nobody lists is never "listed".
package check

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"relayguard/rbl"
)

// Options say by whom and how much is asked.
type Options struct {
	Resolvers []rbl.Resolver    // in order of preference; the others are asked if one does not answer
	Keys      map[string]string // by rbl.Zone.Key
	Parallel  int               // questions under way at once [64]
	PerZone   int               // of them to one zone [4]
	HealthFor time.Duration     // how long a zone's test entry is believed to be there [10 min]; that it lists nothing else is asked in each round
	Used      map[string]int64  // by zone: questions sent today (UTC), before this Checker
	Now       func() time.Time  // [time.Now]
	Log       *slog.Logger      // nil: nowhere
}

// Checker asks. Safe for concurrent use. The zones of one operator (rbl.Zone.Operator)
// are together asked no more a second than the least of their terms allows; 50 if they
// say nothing. What a zone's terms allow a day is counted by Checker and UTC day: give
// one that is made anew what others have Sent on its day.
type Checker struct {
	resolvers []rbl.Resolver
	keys      map[string]string
	perZone   int
	healthFor time.Duration
	now       func() time.Time
	log       *slog.Logger
	slots     chan struct{}
	used      map[string]int64
	day       string // of used

	mu        sync.Mutex
	sent      map[string]int64 // since Sent
	gates     map[string]*gate
	operators map[whose]*operator
	passed    map[testEntry]time.Time // when the test entry was there
}

// New makes a Checker.
func New(o Options) *Checker {
	if o.Parallel < 1 {
		o.Parallel = 64
	}
	if o.PerZone < 1 {
		o.PerZone = 4
	}
	if o.HealthFor <= 0 {
		o.HealthFor = 10 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Checker{
		resolvers: slices.Clone(o.Resolvers),
		keys:      o.Keys,
		perZone:   o.PerZone,
		healthFor: o.HealthFor,
		now:       o.Now,
		log:       o.Log,
		slots:     make(chan struct{}, o.Parallel),
		used:      maps.Clone(o.Used),
		day:       dayOf(o.Now()),
		sent:      map[string]int64{},
		gates:     map[string]*gate{},
		operators: map[whose]*operator{},
		passed:    map[testEntry]time.Time{},
	}
}

// Round is what a pass over zones and subjects found.
type Round struct {
	Began    time.Time        `json:"began"`
	Took     time.Duration    `json:"took"`
	Queries  int64            `json:"queries"`            // sent, with those about the zones' health
	Outcomes map[string]int64 `json:"outcomes,omitempty"` // of them, by rbl.Outcome
	Answers  []rbl.Answer     `json:"answers"`            // one for each subject and zone that takes its kind, by subject as given, then zone
	Zones    []rbl.Health     `json:"zones"`              // by zone and kind, of the kinds that there are subjects of
}

// Run asks all zones about all subjects. It returns early, with what it has, when
// ctx ends: what was not asked is Unknown. progress (nil: none) is told of each
// answer, by one goroutine at a time.
func (c *Checker) Run(ctx context.Context, subjects []rbl.Subject, zones []rbl.Zone, progress func(done, all int)) Round {
	p := c.pass(c.resolvers, false)
	subjects = distinct(subjects)
	stands := p.stands(zones, subjects)

	all := 0
	for _, s := range stands {
		all += len(s.subjects)
	}
	told := teller(progress, all)
	p.run(ctx, stands, true, told)

	round := Round{Began: p.began, Zones: healths(stands)}
	byPlace := map[place]rbl.Answer{}
	for _, s := range stands {
		for i, a := range s.answers {
			byPlace[place{s.subjects[i], s.zone.Name}] = a
		}
	}
	round.Answers = make([]rbl.Answer, 0, all)
	for _, subject := range subjects {
		for _, s := range stands {
			if s.kind == subject.Kind() {
				round.Answers = append(round.Answers, byPlace[place{subject, s.zone.Name}])
			}
		}
	}
	round.Queries, round.Outcomes = p.sent()
	round.Took = c.now().Sub(p.began)
	return round
}

type place struct {
	subject rbl.Subject
	zone    string
}

// Again asks one zone about one subject once more, its health first (never from
// memory), through another resolver than by if there is one.
func (c *Checker) Again(ctx context.Context, s rbl.Subject, z *rbl.Zone, by string) (rbl.Answer, rbl.Health) {
	others := slices.Clone(c.resolvers)
	slices.SortStableFunc(others, func(a, b rbl.Resolver) int {
		return compareBool(a.Name() == by, b.Name() == by)
	})
	p := c.pass(others, true)
	subjects := distinct([]rbl.Subject{s})
	stands := p.stands([]rbl.Zone{*z}, subjects)
	if len(stands) == 0 {
		why := "the list does not take subjects of this kind"
		return rbl.Answer{Zone: z.Name, Subject: s, Why: why, At: p.began},
			rbl.Health{Zone: z.Name, Kind: s.Kind(), State: rbl.NotAsked, Why: why, At: p.began}
	}
	p.run(ctx, stands, true, func() {})
	return stands[0].answers[0], stands[0].health()
}

// Sent are the questions since the last call of it, by zone, whatever they were sent
// for and if their answer is still waited for; under "" those about names of no zone.
func (c *Checker) Sent() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = map[string]int64{}
	return sent
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// distinct are the subjects without repetition, addresses without 4-in-6.
func distinct(subjects []rbl.Subject) []rbl.Subject {
	seen := make(map[rbl.Subject]bool, len(subjects))
	var all []rbl.Subject
	for _, s := range subjects {
		s.Addr = s.Addr.Unmap()
		if s == (rbl.Subject{}) || seen[s] {
			continue
		}
		seen[s] = true
		all = append(all, s)
	}
	return all
}

// teller counts answers for progress.
func teller(progress func(done, all int), all int) func() {
	if progress == nil {
		return func() {}
	}
	var mu sync.Mutex
	done := 0
	return func() {
		mu.Lock()
		defer mu.Unlock()
		done++
		progress(done, all)
	}
}

func healths(stands []*stand) []rbl.Health {
	all := make([]rbl.Health, 0, len(stands))
	for _, s := range stands {
		all = append(all, s.health())
	}
	return all
}

// byName is the order of zones.
func byName(a, b rbl.Zone) int { return strings.Compare(a.Name, b.Name) }
