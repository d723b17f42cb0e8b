package replay

import (
	"cmp"
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
	Events    int              `json:"events"` // lines of the trace
}

// Tally is what became of the messages of one label. Told counts as accept.
type Tally struct {
	Accept Sum `json:"accept"`
	Hold   Sum `json:"hold"` // also what paced release let go later than Within
	Defer  Sum `json:"defer"`
	Reject Sum `json:"reject"`
}

// Sum counts messages and their recipients.
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

func newJudge() *judge {
	return &judge{labels: map[string]*Tally{}, began: map[whose]time.Time{}, passed: map[whose]int{}, stops: map[stopped]*Stop{}}
}

// message counts a message; one that waits is counted when it is known for how
// long.
func (j *judge) message(now time.Time, origin, label string, recipients int, d *policy.Decision, waits bool) {
	who := whose{origin, label}
	if _, known := j.began[who]; !known {
		j.began[who] = now
	}
	if !d.Verdict.Stops() {
		j.passed[who] += recipients
	} else {
		j.stop(now, who, d)
	}
	if !waits {
		j.add(label, d.Verdict, recipients)
	}
}

// stop notes the first of its kind.
func (j *judge) stop(now time.Time, who whose, d *policy.Decision) {
	k := stopped{who, d.Rule}
	if j.stops[k] != nil {
		return
	}
	j.stops[k] = &Stop{Origin: who.origin, Label: who.label, Rule: d.Rule, Verdict: d.Verdict.String(), Time: now,
		AfterRecipients: j.passed[who], AfterSeconds: now.Sub(j.began[who]).Seconds()}
}

// add counts a message under what became of it.
func (j *judge) add(label string, v policy.Verdict, recipients int) {
	t := j.labels[label]
	if t == nil {
		t = &Tally{}
		j.labels[label] = t
	}
	sum := map[policy.Verdict]*Sum{policy.Accept: &t.Accept, policy.Tell: &t.Accept, policy.Hold: &t.Hold, policy.Defer: &t.Defer, policy.Reject: &t.Reject}[v]
	sum.Messages++
	sum.Recipients += recipients
}

// released counts a message that waited and was let go.
func (j *judge) released(now time.Time, w *waiting) {
	v := policy.Hold
	if now.Sub(w.since) <= Within {
		v = policy.Accept
	}
	j.passed[whose{w.origin, w.label}] += w.recipients
	j.add(w.label, v, w.recipients)
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
