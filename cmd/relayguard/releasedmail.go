package main

import (
	"context"
	"sync"
	"time"

	"relayguard/journal"
	"relayguard/policy"
)

// releasedMail remembers which messages an admin released that were held because
// they are forwarded, so that the way out does not hold them once more. Safe for
// concurrent use.
type releasedMail struct {
	mu   sync.Mutex
	all  map[string]releasedOne
	full bool // the last one found no room
}

type releasedOne struct {
	until time.Time
	left  int
}

const (
	releasedFor = 24 * time.Hour // by then it went, or is old enough to be looked at again
	maxReleased = 10_000         // remembered; the mail of more is held once more
)

func newReleasedMail() *releasedMail { return &releasedMail{all: map[string]releasedOne{}} }

// add lets a message pass, as often as it has recipients. False: so many are
// remembered that it is held once more; first is true for the first of these since
// there was room.
func (r *releasedMail) add(now time.Time, messageID string, recipients int) (added, first bool) {
	if messageID == "" {
		return true, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, there := r.all[messageID]
	if !there && len(r.all) >= maxReleased {
		for id, one := range r.all {
			if !now.Before(one.until) {
				delete(r.all, id)
			}
		}
		if len(r.all) >= maxReleased {
			first, r.full = !r.full, true
			return false, first
		}
	}
	r.full = r.full && there
	r.all[messageID] = releasedOne{now.Add(releasedFor), max(recipients, 1)}
	return true, false
}

// take reports whether a message was released, once for each recipient that it had.
func (r *releasedMail) take(now time.Time, messageID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	one, there := r.all[messageID]
	if !there || messageID == "" || !now.Before(one.until) {
		return false
	}
	if one.left--; one.left == 0 {
		delete(r.all, messageID)
	} else {
		r.all[messageID] = one
	}
	return true
}

// passForwarded has the way out let a message pass that an admin is about to
// release. One without a Message-ID it cannot know again: the journal has no more of
// it that the way out sees, too.
func (s *state) passForwarded(ctx context.Context, h *journal.Hold) {
	if s.forwarding == nil || h.Rule != policy.RuleForward || h.DecisionID == "" {
		return
	}
	all, err := s.journal.Explain(ctx, h.DecisionID)
	if err != nil {
		s.log.Warn("a released message may be held once more on its way out", "id", h.DecisionID, "error", err)
		return
	}
	for _, e := range all {
		s.letPass(s.forwarding.released, time.Now(), e.Decision.MessageID, h.Recipients)
	}
}

func (s *state) letPass(r *releasedMail, now time.Time, messageID string, recipients int) {
	if _, first := r.add(now, messageID, recipients); first {
		s.log.Warn("released messages may be held once more on their way out: too many were released within a day", "remembered", maxReleased)
	}
}

// relearnWait bounds what a start waits for the journal.
const relearnWait = 5 * time.Second

// relearnReleased has those pass that were released not long before this process
// began, once more for each recipient: which of them went already is not known.
func (s *state) relearnReleased(ctx context.Context, now time.Time, r *releasedMail) {
	ctx, cancel := context.WithTimeout(ctx, relearnWait)
	defer cancel()
	holds, err := s.journal.Holds(ctx, journal.HoldQuery{Rule: policy.RuleForward, States: []journal.State{journal.StateReleasing, journal.StateReleased}})
	recipients, oldest := map[string]int{}, now
	for _, h := range holds {
		since := h.Changed.Add(releasedFor)
		if h.DecisionID == "" || h.State == journal.StateReleased && !now.Before(since) {
			continue
		}
		recipients[h.DecisionID] = h.Recipients
		if h.HeldAt.Before(oldest) {
			oldest = h.HeldAt
		}
	}
	if err == nil && len(recipients) > 0 {
		var all []journal.Decision
		all, err = s.journal.Decisions(ctx, journal.Query{Rule: policy.RuleForward, Since: oldest.Add(-time.Minute), Limit: journal.MaxLimit})
		for _, d := range all {
			if n, there := recipients[d.ID]; there {
				s.letPass(r, now, d.MessageID, n)
			}
		}
	}
	if err != nil {
		s.log.Warn("messages that were released before this start may be held once more on their way out", "error", err)
	}
}
