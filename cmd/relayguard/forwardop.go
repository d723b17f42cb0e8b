package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/forward"
	"relayguard/forward/evidence"
	"relayguard/forward/ledger"
	"relayguard/journal"
)

// forwardOperations are what commands may ask for about forwarding rules.
func (s *state) forwardOperations(m *control.Mux) {
	control.Handle(m, "GET /v1/forwards", control.Read, func(_ context.Context, r *http.Request, _ control.Peer, _ nothing) (forwardsListed, error) {
		f, err := s.watched()
		if err != nil {
			return forwardsListed{}, err
		}
		q, status := forwardQueryOf(r.URL.Query()), f.guard.Status()
		return forwardsListed{Findings: q.choose(f.ledger), Watch: &status, Broken: f.ledger.Broken()}, nil
	})
	control.Handle(m, "GET /v1/forwards/{id}", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (forwardShown, error) {
		return s.lookAtForward(ctx, r.PathValue("id"), r.URL.Query())
	})
	control.Handle(m, "POST /v1/forwards/approve", control.Admin, func(_ context.Context, _ *http.Request, p control.Peer, o forwardOrder) ([]ledger.Entry, error) {
		return s.approveForwards(time.Now(), p, o)
	})
	control.Handle(m, "POST /v1/forwards/revoke", control.Admin, func(_ context.Context, _ *http.Request, p control.Peer, o forwardOrder) ([]ledger.Entry, error) {
		return s.revokeForwards(time.Now(), p, o)
	})
	control.Follow(m, "GET /v1/forwards/watch", control.Read, func(ctx context.Context, _ *http.Request, send func(forwardChange) error) error {
		f, err := s.watched()
		if err != nil {
			return err
		}
		return f.follow(ctx, send)
	})
}

// lookAtForward shows a rule with its evidence.
func (s *state) lookAtForward(ctx context.Context, id string, query url.Values) (forwardShown, error) {
	f, err := s.watched()
	if err != nil {
		return forwardShown{}, err
	}
	l, err := forwardLookOf(query)
	if err != nil {
		return forwardShown{}, err
	}
	e, err := f.ledger.Find(id)
	if err != nil {
		return forwardShown{}, forwardError(err)
	}
	var store *evidence.Store
	if f.proof != nil {
		store = f.proof.store
		if err := f.proof.tracker.Flush(ctx); err != nil {
			s.log.Warn("the newest mails are not in the evidence yet", "error", err)
		}
	}
	return l.look(ctx, store, e, time.Now())
}

// watched is the watch over forwarding rules, if there is one.
func (s *state) watched() (*forwarding, error) {
	if s.forwarding == nil {
		return nil, control.Errorf(http.StatusServiceUnavailable, "the daemon does not watch forwarding rules: %s; look now: relayguard forwards scan", s.forwardsOff)
	}
	return s.forwarding, nil
}

// maxOrders bounds the rules of one order.
const maxOrders = 10_000

// found are the rules that an order names, and those that state the same by another
// mechanism: a row of a panel is seen in its table and in the mail server's map. All
// that are named must be there, and as they were seen.
func (f *forwarding) found(o forwardOrder) ([]string, error) {
	if len(o.IDs) == 0 || len(o.IDs) > maxOrders {
		return nil, control.Errorf(http.StatusBadRequest, "got %d ids, want 1 to %d", len(o.IDs), maxOrders)
	}
	ids := make([]string, len(o.IDs))
	for i, id := range o.IDs {
		e, err := f.ledger.Find(id)
		if err != nil {
			return nil, forwardError(err)
		}
		ids[i] = e.ID
	}
	for _, seen := range o.Seen {
		e, err := f.ledger.Find(seen.ID)
		if err != nil {
			return nil, forwardError(err)
		}
		if err := seen.still(&e); err != nil {
			return nil, err
		}
	}
	return withTwins(ids, f.ledger.Entries(false)), nil
}

// still is an error if a rule is not what somebody saw of it.
func (s *forwardSeen) still(e *ledger.Entry) error {
	what := ""
	switch {
	case s.Verdict != e.Verdict:
		what = fmt.Sprintf("its verdict was %s and is %s", s.Verdict, e.Verdict)
	case s.Digest != e.Digest:
		what = "the program or script behind it is another"
	case s.Differs != e.Differs:
		what = "how its source differs from what runs is another"
	default:
		return nil
	}
	return control.Errorf(http.StatusConflict, "%s has changed since you looked at it: %s; nothing was done; look again: relayguard forwards show %s", forward.ShortID(e.ID), what, forward.ShortID(e.ID))
}

// withTwins adds to ids those of entries that say the same as one of them.
func withTwins(ids []string, entries []ledger.Entry) []string {
	type saying struct {
		owner, target   string
		sender          bool
		mode            forward.Mode
		verdict         forward.Verdict
		digest, differs string
	}
	says := func(e *ledger.Entry) saying {
		return saying{e.Owner, strings.ToLower(e.Target), e.Sender, e.Mode, e.Verdict, e.Digest, e.Differs}
	}
	named, said := map[string]bool{}, map[saying]bool{}
	for _, id := range ids {
		named[id] = true
	}
	for i := range entries {
		if e := &entries[i]; named[e.ID] {
			said[says(e)] = true
		}
	}
	for i := range entries {
		if e := &entries[i]; !named[e.ID] && said[says(e)] {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func (s *state) approveForwards(now time.Time, p control.Peer, o forwardOrder) ([]ledger.Entry, error) {
	if strings.TrimSpace(o.Reason) == "" || len(o.Reason) > 1000 {
		return nil, control.Errorf(http.StatusBadRequest, "an approval needs a reason of at most 1000 octets")
	}
	return s.eachForward(now, p, o, "forwards approve", func(f *forwarding, id string) (ledger.Event, error) {
		e, err := f.ledger.Approve(now, id, ledger.Approval{By: p.By(), Reason: o.Reason, Until: o.Until})
		for _, seen := range o.Seen { // it may have changed at the last moment
			if err != nil || seen.ID != id {
				continue
			}
			if err = seen.still(&e.Entry); err != nil {
				f.ledger.Revoke(now, id, p.By())
			}
		}
		return e, err
	})
}

func (s *state) revokeForwards(now time.Time, p control.Peer, o forwardOrder) ([]ledger.Entry, error) {
	return s.eachForward(now, p, o, "forwards revoke", func(f *forwarding, id string) (ledger.Event, error) {
		return f.ledger.Revoke(now, id, p.By())
	})
}

// eachForward does something to rules, writes it into the journal and tells it
// those whom alerts go to.
func (s *state) eachForward(now time.Time, p control.Peer, o forwardOrder, verb string, do func(*forwarding, string) (ledger.Event, error)) ([]ledger.Entry, error) {
	f, err := s.watched()
	if err != nil {
		return nil, err
	}
	ids, err := f.found(o)
	if err != nil {
		return nil, err
	}
	by, done, events := byPeer(p), []ledger.Entry{}, []ledger.Event{}
	for i, id := range ids {
		e, doErr := do(f, id)
		if i >= len(o.IDs) && errors.Is(doErr, ledger.ErrNotApproved) {
			continue // one that says the same
		}
		if doErr != nil {
			err = forwardError(doErr)
			break
		}
		done, events = append(done, e.Entry), append(events, e)
		reason := o.Reason
		if i >= len(o.IDs) {
			reason = "states the same as one that was named; " + reason
		}
		if err := s.journal.Append(journal.AdminAction{Time: now, By: by.Name, UID: by.UID, LoginUID: by.LoginUID, Verb: verb, Target: id, Reason: reason, Outcome: "done"}); err != nil {
			s.log.Error("an admin's action is not in the journal", "verb", verb, "error", err)
		}
	}
	f.tell(now, events)
	return done, err
}

// forwardError gives a ledger's error the status that fits it.
func forwardError(err error) error {
	var told *control.Error
	switch {
	case errors.As(err, &told):
		return err
	case errors.Is(err, ledger.ErrUnknown), errors.Is(err, ledger.ErrNotApproved):
		return control.Errorf(http.StatusNotFound, "%v", err)
	case errors.Is(err, ledger.ErrAmbiguous):
		return control.Errorf(http.StatusBadRequest, "%v", err)
	}
	return control.Errorf(http.StatusInternalServerError, "%v", err)
}
