package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

const (
	longestRound = time.Hour
	// Facts are looked at with a round, every 6 hours; less what a round of every 6
	// hours may come early, and what it may take.
	factsApart = 5 * time.Hour
	// keepMissing is how long what a plan with trouble left out is still taken as ours.
	keepMissing = 3 * 24 * time.Hour
)

// round makes one round, and then what goes with it.
func (w *Watch) round(ctx context.Context) {
	f := w.takeOff()
	plan := w.o.Plan(ctx)
	began := time.Now()
	if ctx.Err() != nil {
		w.land(began, ctx.Err())
		return
	}
	if why := cannot(&plan); why != "" {
		w.trouble(why)
		w.land(began.Add(min(jittered(planAgain), w.o.Every)), fmt.Errorf("check blocklists: %s", why))
		return
	}
	err := w.check(ctx, &plan, f.wanted)
	if ctx.Err() != nil {
		w.land(began, ctx.Err())
		return
	}
	if err != nil {
		w.o.Log.Error("a round of blocklists was not stored", "error", err)
		w.trouble(joinTrouble(plan.Trouble, err.Error()))
	} else {
		w.trouble(plan.Trouble)
	}
	w.land(began.Add(jittered(w.o.Every)), err)
	signal(w.news)
	w.neighbours(ctx, &plan)
}

// cannot says why a plan is no round; "": it is one.
func cannot(p *Plan) string {
	switch {
	case len(p.Subjects) == 0:
		return joinTrouble(p.Trouble, "there is no address or domain to check")
	case len(p.Zones) == 0:
		return joinTrouble(p.Trouble, "no blocklist is in use")
	case p.Checker == nil:
		return joinTrouble(p.Trouble, "nobody can be asked")
	}
	return ""
}

func joinTrouble(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// trouble is said in Status, and logged when it changes.
func (w *Watch) trouble(text string) {
	w.mu.Lock()
	w.status.Trouble = text
	w.mu.Unlock()
	if text != "" && text != w.warned {
		w.o.Log.Warn("not all can be checked on blocklists", "why", text)
	}
	w.warned = text
}

// check asks, and stores what was said.
func (w *Watch) check(ctx context.Context, p *Plan, wanted bool) error {
	within, cancel := context.WithTimeout(ctx, longestRound)
	defer cancel()
	r := p.Checker.Run(within, p.Subjects, p.Zones, nil)
	if ctx.Err() != nil {
		return ctx.Err() // what was not asked would read as not known
	}
	if r.Began.IsZero() {
		r.Began = time.Now()
	}
	missing, err := w.missing(ctx, p)
	if err == nil {
		aside := w.o.Store.Reset()
		err = w.o.Store.Take(ctx, r, slices.Concat(p.Subjects, missing), p.Zones)
		if now := w.o.Store.Reset(); now != aside {
			w.o.Log.Error("the history of blocklists was broken and begins anew", "kept", now)
		}
	}
	for outcome, n := range r.Outcomes {
		w.counter.add(outcome, n)
	}
	w.mu.Lock()
	w.status.Last, w.status.Took = r.Began, r.Took
	w.mu.Unlock()
	w.o.Log.Info("blocklists were asked", "subjects", len(p.Subjects), "zones", len(p.Zones), "queries", r.Queries, "took", r.Took, "listed", count(&r, rbl.Listed), "unknown", count(&r, rbl.Unknown)+count(&r, rbl.Refused))
	if wanted || w.facts.IsZero() || time.Since(w.facts) >= factsApart || time.Now().Before(w.facts) {
		err = errors.Join(err, w.look(ctx, p))
	}
	return err
}

func count(r *check.Round, result rbl.Result) (n int) {
	for i := range r.Answers {
		if r.Answers[i].Result == result {
			n++
		}
	}
	return n
}

// missing are the subjects with listings that a plan with trouble does not have: that
// an address could not be found is no reason to say that its listing is over.
func (w *Watch) missing(ctx context.Context, p *Plan) (all []rbl.Subject, err error) {
	if p.Trouble == "" {
		return nil, nil
	}
	open, err := w.o.Store.Listings(ctx, history.Query{OpenOnly: true, Limit: 1 << 20})
	if err != nil {
		return nil, err
	}
	for i := range open {
		l := &open[i]
		if slices.Contains(p.Subjects, l.Subject) || slices.Contains(all, l.Subject) {
			continue
		}
		if l.Unasked.IsZero() || time.Since(l.Unasked) < keepMissing {
			all = append(all, l.Subject)
		}
	}
	return all, nil
}

// look looks at what receivers look at.
func (w *Watch) look(ctx context.Context, p *Plan) error {
	if p.Resolver == nil || len(p.Sending)+len(p.Domains) == 0 && p.Trouble != "" {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, longestRound)
	defer cancel()
	resolver := &counted{Resolver: p.Resolver, by: &w.counter}
	facts := sender.Look(within, resolver, p.Sending, p.Domains)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := time.Now()
	if p.Trouble != "" {
		kept, err := w.missingFacts(ctx, facts, p.Trouble)
		if err != nil {
			return err
		}
		facts = slices.Concat(facts, kept)
	}
	if err := w.o.Store.TakeFacts(ctx, now, facts); err != nil {
		return err
	}
	w.facts = now
	return w.o.Store.AddQueries(ctx, now, resolver.sent.Load())
}

// missingFacts are those that a plan with trouble left out, as not known.
func (w *Watch) missingFacts(ctx context.Context, facts []sender.Fact, trouble string) (kept []sender.Fact, err error) {
	before, err := w.o.Store.Facts(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range before {
		if slices.ContainsFunc(facts, func(now sender.Fact) bool { return now.Subject == f.Subject && now.Check == f.Check }) {
			continue
		}
		if f.State != sender.Unknown || time.Since(f.Since) < keepMissing {
			kept = append(kept, sender.Fact{Subject: f.Subject, Check: f.Check, State: sender.Unknown, Found: "not looked at: " + trouble})
		}
	}
	return kept, nil
}

// neighbours looks around, if that is due.
func (w *Watch) neighbours(ctx context.Context, p *Plan) {
	now := time.Now()
	if len(p.Neighbours) == 0 || !w.lastNear.IsZero() && !now.Before(w.lastNear) && now.Sub(w.lastNear) < w.week {
		return
	}
	var zones []rbl.Zone
	for i := range p.Zones {
		if p.Zones[i].Ranges {
			zones = append(zones, p.Zones[i])
		}
	}
	if len(zones) == 0 {
		return
	}
	within, cancel := context.WithTimeout(ctx, longestRound)
	defer cancel()
	all := p.Checker.Neighbours(within, p.Neighbours, zones, w.o.Neighbours)
	if ctx.Err() != nil {
		return
	}
	w.lastNear, w.week = now, jittered(w.o.Week)
	asked := 0 // those about the lists' health are not known, and few beside these
	for _, n := range all {
		asked += n.Asked
	}
	err := w.o.Store.TakeNeighbours(ctx, now, all)
	if err == nil {
		err = w.o.Store.AddQueries(ctx, now, int64(asked))
	}
	if err != nil {
		w.o.Log.Error("a look at neighbours was not stored", "error", err)
	}
}
