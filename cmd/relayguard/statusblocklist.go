package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/watch"
)

// blocklistStatus is how the own addresses stand on blocklists.
type blocklistStatus struct {
	Watch     watch.Status      `json:"watch"`
	Listings  []history.Listing `json:"listings"` // confirmed, of addresses and domains; not of ranges, and none that only informs
	Severity  map[string]int64  `json:"by_severity"`
	Results   map[string]int64  `json:"results"` // of the last round
	Zones     map[string]int64  `json:"zones"`   // by state, in the last round
	Alerting  int               `json:"alerting"`
	Suspected int               `json:"suspected"`       // seen, and not confirmed yet
	Error     string            `json:"error,omitempty"` // the history cannot be read
}

// status reads the history.
func (b *blocklistWatch) status(ctx context.Context) *blocklistStatus {
	out := &blocklistStatus{Watch: b.watch.Status(), Listings: []history.Listing{}, Severity: map[string]int64{}, Results: map[string]int64{}, Zones: map[string]int64{}}
	for s := rbl.Info; s <= rbl.Critical; s++ {
		out.Severity[s.String()] = 0
	}
	for _, r := range rbl.Results() {
		out.Results[r.String()] = 0
	}
	for _, s := range rbl.States() {
		out.Zones[s.String()] = 0
	}
	if err := b.readStatus(ctx, out); err != nil {
		out.Error = err.Error()
	}
	return out
}

func (b *blocklistWatch) readStatus(ctx context.Context, out *blocklistStatus) error {
	from := b.state.config.Load().RBL.Alert
	open, err := b.store.Listings(ctx, history.Query{OpenOnly: true})
	if err != nil {
		return err
	}
	for _, l := range open {
		if l.Phase == history.Suspected {
			out.Suspected++
			continue
		}
		if l.Hit.Scope.Wide() {
			continue
		}
		out.Severity[l.Hit.Severity.String()]++
		if l.Hit.Severity == rbl.Info {
			continue
		}
		out.Listings = append(out.Listings, l)
		if l.Hit.Severity >= from {
			out.Alerting++
		}
	}
	subjects, err := b.store.Subjects(ctx)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		for r, n := range map[rbl.Result]int{rbl.Listed: s.Listed, rbl.Clean: s.Clean, rbl.Unknown: s.Unknown, rbl.Refused: s.Refused} {
			out.Results[r.String()] += int64(n)
		}
	}
	zones, err := b.store.Zones(ctx)
	for _, z := range zones {
		out.Zones[z.State.String()]++
	}
	return err
}

// line says it in status.
func (s *blocklistStatus) line(now time.Time) string {
	var parts []string
	for _, l := range s.Listings {
		parts = append(parts, fmt.Sprintf("%s listed by %s (%s, %s) since %s", l.Subject, l.Zone, l.Hit.Means, l.Hit.Severity, shortTime(now, l.First)))
	}
	const most = 3
	if n := len(parts); n > most {
		parts = append(parts[:most], fmt.Sprintf("%d more: relayguard rbl status", n-most))
	}
	round := s.Watch
	switch {
	case s.Error != "":
		parts = append(parts, "not known: "+s.Error)
	case round.Last.IsZero() && round.Trouble != "":
		parts = append(parts, "not checked: "+round.Trouble)
	case round.Last.IsZero():
		parts = append(parts, "not checked yet")
	default:
		if len(s.Listings) == 0 {
			parts = append(parts, "no listing of ours is known")
		}
		if s.Suspected > 0 {
			parts = append(parts, fmt.Sprintf("%d seen and not confirmed yet", s.Suspected))
		}
		parts = append(parts, fmt.Sprintf("last round %s: %d clean, %d listed, %d unknown, %d refused", shortTime(now, round.Last), s.Results["clean"], s.Results["listed"], s.Results["unknown"], s.Results["refused"]))
		if round.Trouble != "" {
			parts = append(parts, round.Trouble)
		}
	}
	return strings.Join(parts, "; ")
}

// finding reports whether status shall end with 1.
func (s *blocklistStatus) finding() bool {
	return s != nil && (s.Alerting > 0 || s.Error != "")
}

// queries by outcome, a number for each.
func (s *blocklistStatus) queries() map[string]int64 {
	out := map[string]int64{}
	for _, o := range rbl.Outcomes() {
		out[o.String()] = s.Watch.Queries[o.String()]
	}
	return out
}

// blocklists is how they stand; zero numbers without a watch.
func (s *status) blocklists() *blocklistStatus {
	if s.Blocklists == nil {
		return &blocklistStatus{}
	}
	return s.Blocklists
}
