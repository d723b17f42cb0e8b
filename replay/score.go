package replay

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/policy"
)

// Score is what a configuration did to a trace. Its JSON is the contract of
// relayguard replay --json.
type Score struct {
	Labels    map[string]Tally `json:"labels"` // "" has messages without a label
	Stops     []Stop           `json:"stops"`  // in order of time
	Incidents []Incident       `json:"incidents"`

	Events  int            `json:"-"` // of the trace
	Unknown map[string]int `json:"-"` // events by kind, of kinds that are not known; some of them
}

// Tally is what became of the messages of one label. Told counts as accept.
type Tally struct {
	Accept Sum `json:"accept"`
	Hold   Sum `json:"hold"` // also what paced release let go later than Within
	Defer  Sum `json:"defer"`
	Reject Sum `json:"reject"`
}

// of is where a verdict counts.
func (t *Tally) of(v policy.Verdict) *Sum {
	switch v {
	case policy.Hold:
		return &t.Hold
	case policy.Defer:
		return &t.Defer
	case policy.Reject:
		return &t.Reject
	}
	return &t.Accept
}

// Sum counts messages and their recipients. Recipients that were refused count
// where they were, their message where the rest of it went.
type Sum struct {
	Messages   int `json:"messages"`
	Recipients int `json:"recipients"`
}

// Within is how late mail may be let go by paced release and counts as accepted.
const Within = 15 * time.Minute

// Stop is the first time that a rule stopped an origin's messages of a label.
type Stop struct {
	Origin  string    `json:"origin"`
	Label   string    `json:"label"`
	Rule    string    `json:"rule"`
	Verdict string    `json:"verdict"`
	Time    time.Time `json:"time"`

	// Since the origin's first message of that label: the recipients that had
	// been let through, and the seconds.
	AfterRecipients int     `json:"after_recipients"`
	AfterSeconds    float64 `json:"after_seconds"`
}

// Incident is an incident that would have been opened.
type Incident struct {
	Origin string     `json:"origin"`
	Cause  string     `json:"cause"`
	Opened time.Time  `json:"opened"`
	Closed *time.Time `json:"closed"` // nil: still open at the end
}

// judge keeps the score.
type judge struct {
	labels map[string]*Tally
	began  map[whose]time.Time
	passed map[whose]int
	stops  map[stopped]*Stop
}

type whose struct{ origin, label string }

type stopped struct {
	whose
	rule string
}

// Bounds of a score.
const (
	maxLabels = 10_000
	maxWhose  = 1_000_000 // origins, each by its labels
	maxStops  = 1_000_000
)

func newJudge() *judge {
	return &judge{labels: map[string]*Tally{}, began: map[whose]time.Time{}, passed: map[whose]int{}, stops: map[stopped]*Stop{}}
}

// message counts a message; one that waits is counted when it is known for how
// long.
func (j *judge) message(now time.Time, who whose, recipients int, d *policy.Decision, refused []refusal, waits bool) error {
	if _, known := j.began[who]; !known {
		j.began[who] = now
	}
	for i := range refused {
		j.stop(now, who, &refused[i].Decision)
		j.add(who.label, refused[i].Verdict, 0, refused[i].recipients)
	}
	if d.Verdict.Stops() {
		j.stop(now, who, d)
	} else {
		j.passed[who] += recipients
	}
	if !waits {
		j.add(who.label, d.Verdict, 1, recipients)
	}
	switch {
	case len(j.labels) > maxLabels:
		return &FormatError{0, fmt.Errorf("more than %d labels; a label says what kind of mail it is, not which", maxLabels)}
	case len(j.began) > maxWhose, len(j.stops) > maxStops:
		return &FormatError{0, fmt.Errorf("more than %d origins or stops; cut the trace into shorter ones", maxWhose)}
	}
	return nil
}

// stop notes the first of its kind.
func (j *judge) stop(now time.Time, who whose, d *policy.Decision) {
	k := stopped{who, d.Rule}
	if j.stops[k] != nil {
		return
	}
	j.stops[k] = &Stop{Origin: who.origin, Label: who.label, Rule: d.Rule, Verdict: d.Verdict.String(), Time: now.UTC(),
		AfterRecipients: j.passed[who], AfterSeconds: now.Sub(j.began[who]).Seconds()}
}

// add counts messages and recipients under what became of them.
func (j *judge) add(label string, v policy.Verdict, messages, recipients int) {
	t := j.labels[label]
	if t == nil {
		t = &Tally{}
		j.labels[label] = t
	}
	sum := t.of(v)
	sum.Messages += messages
	sum.Recipients += recipients
}

// score is what there is to say at the end.
func (j *judge) score() Score {
	s := Score{Labels: map[string]Tally{}, Stops: []Stop{}, Incidents: []Incident{}}
	for label, t := range j.labels {
		s.Labels[label] = *t
	}
	for _, stop := range j.stops {
		s.Stops = append(s.Stops, *stop)
	}
	slices.SortFunc(s.Stops, func(a, b Stop) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.Origin, b.Origin), strings.Compare(a.Label, b.Label), strings.Compare(a.Rule, b.Rule))
	})
	return s
}
