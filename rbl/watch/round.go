package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/sender"
)

const (
	longestRound = time.Hour
	// Facts are looked at with a round, every 6 hours; less what a round of every 6
	// hours may come early, and what it may take.
	factsApart = 5 * time.Hour
	// keepMissing is how long facts that a plan with trouble left out are still ours.
	keepMissing = 3 * 24 * time.Hour
)

// round makes one round, and gives its plan; nil: there was none.
func (w *Watch) round(ctx context.Context) *Plan {
	f := w.takeOff()
	plan := w.plan(ctx)
	began := time.Now()
	if ctx.Err() != nil {
		w.land(began, ctx.Err())
		return nil
	}
	if why := cannot(&plan); why != "" {
		w.trouble(why)
		w.land(began.Add(min(jittered(planAgain), w.o.Every)), fmt.Errorf("check blocklists: %s", why))
		return nil
	}
	err := w.check(ctx, &plan, f.wanted)
	if ctx.Err() != nil {
		w.land(began, ctx.Err())
		return nil
	}
	if err != nil {
		w.o.Log.Error("a round of blocklists was not stored", "error", err)
		w.trouble(joinTrouble(plan.Trouble, err.Error()))
	} else {
		w.trouble(plan.Trouble)
	}
	w.land(began.Add(jittered(w.o.Every)), err)
	signal(w.news)
	return &plan
}

// plan asks for one.
func (w *Watch) plan(ctx context.Context) Plan {
	p := w.o.Plan(ctx)
	if p.Checker != nil {
		w.checker = p.Checker
	}
	return p
}

// book has history know what was sent: of a look around that goes on, until now.
func (w *Watch) book(ctx context.Context, c Checker) {
	if c == nil {
		return
	}
	sent := c.Sent()
	if len(sent) == 0 {
		return
	}
	if err := w.o.Store.AddSent(context.WithoutCancel(ctx), time.Now(), sent); err != nil { // they were sent, also if ctx has ended
		w.o.Log.Error("questions to blocklists were not counted", "error", err)
	}
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
	w.book(ctx, p.Checker)
	if ctx.Err() != nil {
		return ctx.Err() // what was not asked would read as not known
	}
	if r.Began.IsZero() {
		r.Began = time.Now()
	}
	aside, taken := w.o.Store.Reset(), r
	taken.Queries = 0 // they are booked
	err := w.o.Store.Take(ctx, taken, p.Subjects, p.Zones)
	if now := w.o.Store.Reset(); now != aside {
		w.o.Log.Error("the history of blocklists was broken and begins anew", "kept", now)
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
