package main

import (
	"context"
	"errors"
	"os"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/desk"
	"relayguard/forward/evidence"
	"relayguard/rbl/history"
)

const (
	// wouldHalve begins the outcome of an action that was only observed.
	wouldHalve = "observed: would halve each of its limits"

	maxTightened = 3
	causeTimeout = 30 * time.Second
)

// tighten halves the limits of whom new listings are most likely due to, or notes
// whose it would halve: listings of an address of ours, and that one alone. A domain is
// listed for mail that others send, too.
func (b *blocklistWatch) tighten(ctx context.Context, now time.Time, events []history.Event) {
	c, s := b.state.config.Load(), b.state
	if c.RBL.Tighten == config.TightenOff {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, causeTimeout)
	defer cancel()
	seen := map[string]bool{} // several lists often act on one cause
	for _, e := range events {
		l := e.Listing
		if e.Kind != history.Began || l == nil || l.Hit.Scope.Wide() || l.Hit.Severity < c.RBL.Alert || !l.Subject.Addr.IsValid() || !beganInSight(l) {
			continue
		}
		suspects, err := suspectsOf(ctx, s.journal, s.evidence(), l.First.Add(-beforeListing), l.First)
		if err != nil {
			s.log.Warn("who was active before a listing is not known", "zone", l.Zone, "error", err)
			continue
		}
		done := 0
		for i := range suspects {
			account := suspectAccount(&suspects[i])
			if account == "" || done == maxTightened || explainedBy(&suspects[i], suspects[:i]) {
				continue
			}
			if !seen[account] && !b.tightenOne(ctx, now, account, l) {
				continue
			}
			seen[account] = true
			done++
		}
	}
}

// cleanShortly is how long before a listing was seen it must have been seen not to be
// there.
const cleanShortly = 2 * 24 * time.Hour

// beganInSight reports whether it is known when a listing began: who was active in the
// hours before that of a first round, or after an outage, tells nothing.
func beganInSight(l *history.Listing) bool {
	return !l.CleanBefore.IsZero() && l.CleanBefore.Before(l.First) && l.First.Sub(l.CleanBefore) < cleanShortly
}

// tightenOne halves the limits of one, or notes that it would; false: there is nothing
// to be halved.
func (b *blocklistWatch) tightenOne(ctx context.Context, now time.Time, account string, l *history.Listing) bool {
	s := b.state
	reason := "most likely the cause of the listing of " + l.Subject.String() + " by " + l.Zone
	var outcome string
	var err error
	if s.config.Load().RBL.Tighten == config.TightenObserve {
		var whose string
		if whose, outcome, err = s.desk.WouldTighten(now, account); err == nil && outcome == "" {
			outcome = wouldHalve
			s.desk.Action(now, guardItself(), tightenVerb, whose, reason, outcome)
		}
	} else {
		outcome, err = s.desk.Tighten(ctx, now, guardItself(), account, reason)
	}
	switch {
	case errors.Is(err, desk.ErrShared):
		return false
	case err != nil:
		s.log.Error("halve the limits of a likely cause of a listing", "account", account, "error", err)
	default:
		s.log.Warn("limits of a likely cause of a listing", "account", account, "outcome", outcome, "zone", l.Zone)
	}
	return err == nil
}

// evidence is which mail went by forwarding rules; nil: that is not known.
func (s *state) evidence() *evidence.Store {
	if s.forwarding == nil || s.forwarding.proof == nil {
		return nil
	}
	return s.forwarding.proof.store
}

// guardItself is who acts when nobody ordered it.
func guardItself() desk.By { return desk.By{Name: "relayguard", UID: os.Geteuid(), LoginUID: -1} }
