package main

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/blocklists"
	"relayguard/cmd/internal/control"
	"relayguard/journal"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/watch"
)

// rblOperations are what commands may ask for about blocklists.
func (s *state) rblOperations(m *control.Mux) {
	control.Handle(m, "GET /v1/rbl/status", control.Read, func(ctx context.Context, _ *http.Request, _ control.Peer, _ nothing) (rblStatus, error) {
		return s.rblStatus(ctx, time.Now())
	})
	control.Handle(m, "GET /v1/rbl/history", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (rblPast, error) {
		b, err := s.listed()
		if err != nil {
			return rblPast{}, err
		}
		q, err := rblQueryOf(r.URL.Query())
		if err != nil {
			return rblPast{}, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		return asked(rblPastOf(ctx, b.store, q, time.Now()))
	})
	control.Handle(m, "POST /v1/rbl/check", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, _ nothing) (rblStatus, error) {
		return s.rblRound(ctx, p)
	})
	control.Handle(m, "POST /v1/rbl/learn", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o rblLearning) ([]history.Learnt, error) {
		return s.rblLearn(context.WithoutCancel(ctx), time.Now(), p, o)
	})
	control.Handle(m, "POST /v1/rbl/forget", control.Admin, func(ctx context.Context, _ *http.Request, p control.Peer, o rblForgetting) ([]history.Learnt, error) {
		return s.rblForget(context.WithoutCancel(ctx), time.Now(), p, o)
	})
}

// listed is the watch over blocklists, if there is one.
func (s *state) listed() (*blocklistWatch, error) {
	if s.blocklists == nil {
		return nil, control.Errorf(http.StatusServiceUnavailable, "the daemon does not check blocklists: %s; look now: relayguard rbl check", s.blocklistsOff)
	}
	return s.blocklists, nil
}

// rblStatus is how our addresses stand, by what is remembered.
type rblStatus struct {
	Now      time.Time           `json:"now"`
	Watch    *watch.Status       `json:"watch,omitempty"` // absent: no daemon
	Round    time.Time           `json:"round,omitzero"`  // the last one; zero: none yet
	Listings []history.Listing   `json:"listings"`        // that go on, unconfirmed ones too
	Every    time.Duration       `json:"every,omitempty"` // between rounds
	Subjects []rblSubjectState   `json:"subjects"`        // of the last round
	Zones    []history.ZoneState `json:"zones"`
	Facts    []history.FactState `json:"facts"` // what receivers look at beside lists
	Around   []rblAround         `json:"neighbours"`
	Looked   time.Time           `json:"neighbours_at,omitzero"`
	Unread   []string            `json:"keys_unread"` // that are configured: their lists are not asked
	Warnings []string            `json:"warnings"`    // how lists are asked, though not as they should be
	Own      rblTargets          `json:"own"`         // what is checked; without a daemon, and before its first round, only what was learnt
}

// rblSubjectState is how a subject stood in the last round.
type rblSubjectState struct {
	rblStanding
	At time.Time `json:"at"`
}

// standingsIn counts by the answers of the last round: which of those that list are
// about us, and harm.
func standingsIn(ctx context.Context, h *history.Store) ([]rblSubjectState, error) {
	states, err := h.Subjects(ctx)
	if err != nil {
		return nil, err
	}
	answers, err := h.Answers(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]rblSubjectState, len(states))
	place := map[rbl.Subject]int{}
	for i, s := range states {
		all[i] = rblSubjectState{rblStanding{Subject: s.Subject}, s.At}
		place[s.Subject] = i
	}
	for i := range answers {
		if at, ours := place[answers[i].Subject]; ours {
			all[at].count(&answers[i])
		}
	}
	return all, nil
}

// rblAround is how a prefix around ours stands on a list of ranges.
type rblAround struct {
	check.Neighbour
	Before int `json:"before"` // listed the time before; -1: there was none
}

// rblStatusOf reads what is remembered.
func rblStatusOf(ctx context.Context, h *history.Store, now time.Time) (rblStatus, error) {
	out := rblStatus{Now: now, Listings: []history.Listing{}, Subjects: []rblSubjectState{}, Zones: []history.ZoneState{}, Facts: []history.FactState{}, Around: []rblAround{}, Unread: []string{}, Warnings: []string{}}
	round, looked, err := h.Last(ctx)
	if err != nil {
		return out, err
	}
	out.Round, out.Looked = round, looked
	around, before, err := h.Neighbours(ctx)
	if err != nil {
		return out, err
	}
	for i := range around {
		out.Around = append(out.Around, rblAround{around[i], before[i]})
	}
	into(&err, &out.Listings, func() ([]history.Listing, error) { return h.Listings(ctx, history.Query{OpenOnly: true}) })
	into(&err, &out.Subjects, func() ([]rblSubjectState, error) { return standingsIn(ctx, h) })
	into(&err, &out.Zones, func() ([]history.ZoneState, error) { return h.Zones(ctx) })
	into(&err, &out.Facts, func() ([]history.FactState, error) { return h.Facts(ctx) })
	var learnt []history.Learnt
	into(&err, &learnt, func() ([]history.Learnt, error) { return h.LearntAll(ctx) })
	out.Own = rblTargetsOf(blocklists.Targets{}, learnt)
	return out, err
}

// into reads a list unless an earlier one could not be; it is never nil then.
func into[T any](err *error, list *[]T, read func() ([]T, error)) {
	if *err != nil {
		return
	}
	var all []T
	if all, *err = read(); all != nil {
		*list = all
	}
}

func (s *state) rblStatus(ctx context.Context, now time.Time) (rblStatus, error) {
	b, err := s.listed()
	if err != nil {
		return rblStatus{}, err
	}
	out, err := rblStatusOf(ctx, b.store, now)
	standing := b.watch.Status()
	out.Watch, out.Every = &standing, s.config.Load().RBL.Every
	if a := b.now.Load(); a != nil {
		out.Own = rblTargetsOf(a.targets, out.Own.Learnt)
		out.Own.Unsure = a.unsure
		out.Unread, out.Warnings = append(out.Unread, a.unread...), append(out.Warnings, a.warnings...)
		_, how := out.Own.subjects()
		for i := range out.Subjects {
			out.Subjects[i].How = how[out.Subjects[i].Subject]
		}
	}
	return asked(out, err)
}

// rblRound has a round made and waits for it.
func (s *state) rblRound(ctx context.Context, p control.Peer) (rblStatus, error) {
	b, err := s.listed()
	if err != nil {
		return rblStatus{}, err
	}
	err = b.watch.Now(ctx)
	s.rblAction(p, time.Now(), "rbl check", "", "", err)
	if err != nil {
		return asked(rblStatus{}, err)
	}
	return s.rblStatus(ctx, time.Now())
}

// rblLearning is an address from which somebody outside saw our mail come.
type rblLearning struct {
	Addr  netip.Addr `json:"addr"`
	Where string     `json:"where"` // how it is known
}

type rblForgetting struct {
	Addr netip.Addr `json:"addr"`
}

// maxWhere bounds what is kept of how an address is known.
const maxWhere = 300

func (s *state) rblLearn(ctx context.Context, now time.Time, p control.Peer, o rblLearning) ([]history.Learnt, error) {
	b, err := s.listed()
	if err != nil {
		return nil, err
	}
	addr := o.Addr.Unmap()
	switch {
	case !addr.IsValid() || addr.Zone() != "":
		return nil, control.Errorf(http.StatusBadRequest, "learn: want one address")
	case notSeen(addr) != "":
		return nil, control.Errorf(http.StatusBadRequest, "learn: %s %s", addr, notSeen(addr))
	case strings.TrimSpace(o.Where) == "" || len(o.Where) > maxWhere:
		return nil, control.Errorf(http.StatusBadRequest, "learn: want how it is known in at most %d octets", maxWhere)
	}
	err = b.store.Learn(ctx, history.Learnt{Addr: addr.String(), Where: o.Where, At: now})
	s.rblAction(p, now, "rbl learn", addr.String(), o.Where, err)
	return s.rblLearnt(ctx, b, err)
}

func (s *state) rblForget(ctx context.Context, now time.Time, p control.Peer, o rblForgetting) ([]history.Learnt, error) {
	b, err := s.listed()
	if err != nil {
		return nil, err
	}
	addr := o.Addr.Unmap().String()
	learnt, err := b.store.LearntAll(ctx)
	if err != nil {
		return asked(learnt, err)
	}
	if !slices.ContainsFunc(learnt, func(l history.Learnt) bool { return l.Addr == addr }) {
		return nil, control.Errorf(http.StatusNotFound, "no address %s was learnt; relayguard rbl addresses shows how each is known", addr)
	}
	err = b.store.Forget(ctx, addr)
	s.rblAction(p, now, "rbl forget", addr, "", err)
	return s.rblLearnt(ctx, b, err)
}

// rblLearnt are all after a change.
func (s *state) rblLearnt(ctx context.Context, b *blocklistWatch, err error) ([]history.Learnt, error) {
	if err != nil {
		return asked[[]history.Learnt](nil, err)
	}
	all, err := b.store.LearntAll(ctx)
	return asked(append([]history.Learnt{}, all...), err)
}

// rblAction writes into the journal what an admin did.
func (s *state) rblAction(p control.Peer, now time.Time, verb, target, reason string, err error) {
	by, outcome := byPeer(p), "done"
	if err != nil {
		outcome = err.Error()
	}
	if err := s.journal.Append(journal.AdminAction{Time: now, By: by.Name, UID: by.UID, LoginUID: by.LoginUID, Verb: verb, Target: target, Reason: reason, Outcome: outcome}); err != nil {
		s.log.Error("an admin's action is not in the journal", "verb", verb, "error", err)
	}
}

// rblPast is what was listed in a time, and which lists went bad.
type rblPast struct {
	Listings []history.Listing `json:"listings"`
	Zones    []history.Event   `json:"zones"`
	Full     bool              `json:"full,omitempty"` // there may be more listings
}

// rblQueryOf reads a search from the query of a URL.
func rblQueryOf(v url.Values) (history.Query, error) {
	q := history.Query{Subject: v.Get("subject"), Zone: v.Get("zone")}
	err := spanOf(v, &q.Since, &q.Until, &q.Limit)
	return q, err
}

// rblPastOf searches. Events about lists are those of the time; a search for a subject
// has none.
func rblPastOf(ctx context.Context, h *history.Store, q history.Query, now time.Time) (rblPast, error) {
	out := rblPast{Listings: []history.Listing{}, Zones: []history.Event{}}
	found, err := h.Listings(ctx, q)
	if err != nil {
		return out, err
	}
	out.Listings = append(out.Listings, found...)
	out.Full = q.Limit > 0 && len(found) == q.Limit
	if q.Subject != "" {
		return out, nil
	}
	until := q.Until
	if until.IsZero() {
		until = now
	}
	events, err := h.Events(ctx, q.Since, until)
	for i := range events {
		if health := events[i].Health; health != nil && (q.Zone == "" || q.Zone == health.Zone) {
			out.Zones = append(out.Zones, events[i])
		}
	}
	return out, err
}
