package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/rbl"
	"relayguard/rbl/history"
	"relayguard/rbl/watch"
)

// blocklistStatus is how the own addresses stand on blocklists.
type blocklistStatus struct {
	Watch     watch.Status      `json:"watch"`
	Listings  []history.Listing `json:"listings"` // confirmed, of addresses and domains; not of ranges, and none that only informs
	Severity  map[string]int64  `json:"by_severity"`
	Results   map[string]int64  `json:"results"` // of the last round: "listed" is for us and harms, apart from "wide", of networks only, and "info"
	Zones     map[string]int64  `json:"zones"`   // by state, in the last round
	Alerting  int               `json:"alerting"`
	Suspected int               `json:"suspected"`           // seen, and not confirmed yet
	Unchecked string            `json:"unchecked,omitempty"` // why nothing is known that is worth the name, and not just for a moment
	Error     string            `json:"error,omitempty"`     // the history cannot be read
}

// Results beside those of package rbl.
const (
	resultInfo = "info"
	resultWide = "wide"
)

// idleLeast is how long nothing can be checked before somebody is told: at boot a
// network or name server may come later than we do. What was never checked is told at
// once.
const idleLeast = 30 * time.Minute

// status reads the history.
func (b *blocklistWatch) status(ctx context.Context) *blocklistStatus {
	out := &blocklistStatus{Watch: b.watch.Status(), Listings: []history.Listing{}, Severity: map[string]int64{}, Results: map[string]int64{}, Zones: map[string]int64{}}
	for s := rbl.Info; s <= rbl.Critical; s++ {
		out.Severity[s.String()] = 0
	}
	for _, r := range rbl.Results() {
		out.Results[r.String()] = 0
	}
	out.Results[resultInfo], out.Results[resultWide] = 0, 0
	for _, s := range rbl.States() {
		out.Zones[s.String()] = 0
	}
	if err := b.readStatus(ctx, out); err != nil {
		out.Error = err.Error()
		return out
	}
	out.Unchecked = b.unchecked(time.Now(), out)
	return out
}

// unchecked says why nothing is checked, or nothing was answered; "": it is.
func (b *blocklistWatch) unchecked(now time.Time, s *blocklistStatus) string {
	b.mu.Lock()
	idle := b.idle
	b.mu.Unlock()
	last, why := s.Watch.Last, cmp.Or(s.Watch.Trouble, "there is nothing to check, or nobody to ask")
	switch {
	case !idle.IsZero() && (last.IsZero() || now.Sub(idle) >= idleLeast):
		return why
	case !last.IsZero() && s.Results[rbl.Clean.String()]+s.Results[rbl.Listed.String()]+s.Results[resultWide] == 0:
		return "in the last round no list said anything: see relayguard rbl status"
	}
	return ""
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
	subjects, err := standingsIn(ctx, b.store)
	if err != nil {
		return err
	}
	for _, s := range subjects {
		for result, n := range map[string]int{rbl.Listed.String(): s.Listed - s.Range, resultWide: s.Range, resultInfo: s.Info, rbl.Clean.String(): s.Clean, rbl.Unknown.String(): s.Unknown, rbl.Refused.String(): s.Refused} {
			out.Results[result] += int64(n)
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
	case s.Unchecked != "" && s.Unchecked != round.Trouble && !round.Last.IsZero():
		parts = append(parts, s.Unchecked, s.lastRound(now))
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
		parts = append(parts, s.lastRound(now))
		if round.Trouble != "" {
			parts = append(parts, round.Trouble)
		}
	}
	return strings.Join(parts, "; ")
}

// lastRound counts what it said. What harms nobody, or names only networks, is there
// only if it is.
func (s *blocklistStatus) lastRound(now time.Time) string {
	r := s.Results
	text := fmt.Sprintf("last round %s: %d clean, %d listed", shortTime(now, s.Watch.Last), r[rbl.Clean.String()], r[rbl.Listed.String()])
	if n := r[resultWide]; n > 0 {
		text += fmt.Sprintf(", %d of networks", n)
	}
	if n := r[resultInfo]; n > 0 {
		text += fmt.Sprintf(", %d harmless", n)
	}
	return text + fmt.Sprintf(", %d unknown, %d refused", r[rbl.Unknown.String()], r[rbl.Refused.String()])
}

// blocklistsProblem says why own addresses are not checked although the configuration
// wants that; "" if they are, or it does not.
func (s *state) blocklistsProblem(c *config.Config) string {
	if s.blocklists != nil || !c.RBL.Watch {
		return ""
	}
	return s.blocklistsOff
}

// finding reports whether status shall end with 1.
func (s *blocklistStatus) finding() bool {
	return s != nil && (s.Alerting > 0 || s.Error != "" || s.Unchecked != "")
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
