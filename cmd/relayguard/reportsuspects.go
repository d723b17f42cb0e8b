package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/report"
	"relayguard/forward/evidence"
	"relayguard/journal"
	"relayguard/policy/origin"
	"relayguard/rbl"
	"relayguard/rbl/cause"
	"relayguard/rbl/history"
)

// beforeListing is the time before a listing was first seen in which its cause is
// looked for: lists take hours to act, and a round may be hours old.
const beforeListing = 24 * time.Hour

const (
	maxSuspects  = 5
	maxCauses    = 3 // times whose cause is looked for: each takes up to half a second
	causeForDays = 30

	// suspectUsualDays tell what is usual of who may be the cause. Newsletters go out
	// once a month, too.
	suspectUsualDays = 60
)

// causes are who stood out before listings, by when those began: several lists often
// act on one cause.
type causes struct {
	g     *gathering
	found map[time.Time][]cause.Suspect // by hour; nil: not known
}

// of are who stood out before a listing; false: nobody looked, or could.
func (c *causes) of(ctx context.Context, l *history.Listing) ([]report.Suspect, bool) {
	g := c.g
	if g.sources.journal == nil || g.now.Sub(l.First) >= causeForDays*24*time.Hour {
		return nil, false
	}
	if !beganInSight(l) {
		if !l.Confirmed.IsZero() {
			g.missing(report.SectionCause, fmt.Errorf("who was active before %s was listed by %s: when it began is not known", l.Subject, l.Zone))
		}
		return nil, false
	}
	hour := l.First.Truncate(time.Hour)
	found, known := c.found[hour]
	if !known {
		if len(c.found) == maxCauses {
			return nil, false
		}
		var err error
		found, err = rankSuspects(ctx, g.sources.journal, g.sources.evidence, l.First.Add(-beforeListing), l.First)
		if err != nil {
			g.missing(report.SectionCause, fmt.Errorf("who was active before %s: %w", l.First.Format(time.RFC3339), err))
		} else if found == nil {
			found = []cause.Suspect{}
		}
		c.found[hour] = found
	}
	if found == nil {
		return nil, false
	}
	return g.suspects(suspectsFor(found, l.Subject), l.First), true
}

// suspects are as the report has them.
func (g *gathering) suspects(found []cause.Suspect, first time.Time) (all []report.Suspect) {
	for i, s := range found {
		g.explained[explained{first, s.Kind, s.Name}] = explainedBy(&s, found[:i])
		all = append(all, report.Suspect{
			Kind: s.Kind, Name: s.Name, Recipients: s.Recipients, Usual: usual(s.Usual), Bounced: s.Bounced, FirstTime: s.FirstTime, Stopped: s.Stopped, Released: s.Released,
			Share: s.Share, Command: suspendCommand(&s), Tightened: g.tightened(&s, first), From: first.Add(-beforeListing), To: first,
		})
	}
	return all
}

func usual(mean float64) int64 {
	if mean < 0 {
		return -1
	}
	return int64(mean + 0.5)
}

// suspectsOf ranks who was active before an address was listed, the likeliest first.
func suspectsOf(ctx context.Context, j reportJournal, e *evidence.Store, since, until time.Time) ([]cause.Suspect, error) {
	found, err := rankSuspects(ctx, j, e, since, until)
	return found[:min(len(found), maxSuspects)], err
}

// suspectsFor are the likeliest of those that may be why a subject is listed: a domain
// is for mail that names it, so only its own accounts and sites.
func suspectsFor(found []cause.Suspect, subject rbl.Subject) []cause.Suspect {
	if !subject.Addr.IsValid() {
		found = slices.DeleteFunc(slices.Clone(found), func(s cause.Suspect) bool { return !ofDomain(&s, subject.Name) })
	}
	return found[:min(len(found), maxSuspects)]
}

// ofDomain reports whether a suspect is of a domain or of one below it.
func ofDomain(s *cause.Suspect, domain string) bool {
	name := s.Site
	switch s.Kind {
	case cause.Site:
		name = s.Name
	case cause.Account, cause.Template, cause.Forward:
		account := s.Account
		if s.Kind != cause.Template {
			account = s.Name
		}
		name = ""
		if kind, login, ok := strings.Cut(account, ":"); !ok || origin.Kind(kind) == origin.KindLogin {
			if ok {
				account = login
			}
			if at := strings.LastIndexByte(account, '@'); at >= 0 {
				name = account[at+1:]
			}
		}
	}
	name, domain = strings.ToLower(strings.TrimSuffix(name, ".")), strings.ToLower(strings.TrimSuffix(domain, "."))
	return name != "" && (name == domain || strings.HasSuffix(name, "."+domain))
}

// rankSuspects ranks all who were active.
func rankSuspects(ctx context.Context, j reportJournal, e *evidence.Store, since, until time.Time) ([]cause.Suspect, error) {
	if j == nil {
		return nil, errors.New("the journal cannot be read")
	}
	all, err := j.Activity(ctx, journal.ActivityQuery{Since: since, Until: until, UsualDays: suspectUsualDays})
	if err != nil {
		return nil, err
	}
	acts := make([]cause.Activity, 0, len(all))
	for i := range all {
		a := &all[i]
		s := senderOf(a)
		acts = append(acts, cause.Activity{
			Kind: s.Kind, Name: s.Name, Account: a.Account, Site: a.Site, Messages: a.Messages, Recipients: a.Recipients, Stopped: a.Stopped, Told: a.Told, FirstTime: a.FirstTime,
			Sent: a.Sent, Bounced: a.Bounced, Held: a.Held, Released: a.Released, Usual: a.Usual, UsualBounced: a.UsualBounced, UsualMost: a.UsualMost,
		})
	}
	if e != nil {
		forwarded, err := forwardersOf(ctx, e, since, until)
		if err != nil {
			return nil, err
		}
		acts = append(acts, forwarded...)
	}
	return cause.Rank(acts), nil
}

// usualForwards is how many days before tell what is usual of a forwarding rule.
const usualForwards = 14

// forwardersOf are the owners of forwarding rules by which mail went outside.
func forwardersOf(ctx context.Context, e *evidence.Store, since, until time.Time) ([]cause.Activity, error) {
	now, err := e.Sent(ctx, since, until)
	if err != nil {
		return nil, err
	}
	before, err := e.Sent(ctx, since.AddDate(0, 0, -usualForwards), since)
	if err != nil {
		return nil, err
	}
	share := until.Sub(since).Hours() / 24 / usualForwards
	known := map[string]evidence.Sent{}
	for _, s := range before {
		known[s.ID] = s
	}
	var all []cause.Activity
	for _, s := range now {
		if s.Owner == "" {
			continue
		}
		a := cause.Activity{Kind: cause.Forward, Name: s.Owner, Messages: int64(s.Mails), Recipients: int64(s.Mails), FirstTime: -1, Sent: int64(s.Taken), Bounced: int64(s.Back), Usual: -1, UsualBounced: -1}
		if len(before) > 0 {
			a.Usual, a.UsualBounced = share*float64(known[s.ID].Mails), share*float64(known[s.ID].Back)
		}
		all = append(all, a)
	}
	return all, nil
}

// explained names a suspect of the time before a listing.
type explained struct {
	first      time.Time
	kind, name string
}

// nearlyAll is a part of what somebody sent.
const nearlyAll = 0.8

// explainedBy reports whether a smaller one among those did nearly all of what a
// suspect did: a plugin of its site, a site of its account. To stop that is enough,
// and spares the others.
func explainedBy(s *cause.Suspect, before []cause.Suspect) bool {
	return slices.ContainsFunc(before, func(part cause.Suspect) bool {
		within := s.Kind == cause.Site && part.Kind == cause.Plugin && part.Site == s.Name ||
			s.Kind == cause.Account && (part.Kind == cause.Plugin || part.Kind == cause.Site) && part.Account == s.Name
		return within && float64(part.Recipients+part.Released) >= nearlyAll*(float64(s.Recipients+s.Released)-max(0, s.Usual))
	})
}

// suspectAccount is a suspect as suspend takes it; "": it cannot be suspended.
func suspectAccount(s *cause.Suspect) string {
	switch s.Kind {
	case cause.Plugin:
		return "plugin:" + s.Name
	case cause.Site:
		return "site:" + s.Name
	case cause.Account:
		switch kind, value, _ := strings.Cut(s.Name, ":"); origin.Kind(kind) {
		case origin.KindLogin, origin.KindLocalUser, origin.KindNetwork: // not "unknown": that is nobody's
			if value != "" {
				return s.Name
			}
		}
	}
	return ""
}

func suspendCommand(s *cause.Suspect) string {
	account := suspectAccount(s)
	if account == "" {
		return ""
	}
	return "relayguard suspend " + shellWord(account, "ACCOUNT") + " --reason 'before a blocklisting'"
}

// tightenVerb is in the journal's actions.
const tightenVerb = "tighten"

// tightened says what the guard did about a suspect when the listing was confirmed.
func (g *gathering) tightened(s *cause.Suspect, first time.Time) string {
	account := suspectAccount(s)
	for _, a := range g.actions {
		if a.Verb == tightenVerb && (a.Target == account || s.Kind == cause.Plugin && a.Target == "site:"+s.Site) && a.Time.After(first) {
			if strings.HasPrefix(a.Outcome, wouldHalve) {
				return "would"
			}
			return "done"
		}
	}
	return ""
}
