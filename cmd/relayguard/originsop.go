package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/desk"
	"relayguard/incident"
	"relayguard/journal"
)

// originJournal is what is asked of a journal about origins: the daemon's, or the
// one that it left.
type originJournal interface {
	Ranks(context.Context, journal.RankQuery) ([]journal.Rank, error)
	Decisions(context.Context, journal.Query) ([]journal.Decision, error)
	Incidents(ctx context.Context, openOnly bool) ([]journal.Incident, error)
	Holds(context.Context, journal.HoldQuery) ([]journal.Hold, error)
}

// originOperations are what commands may ask for about who sends what.
func (d *daemon) originOperations(m *control.Mux) {
	s := d.state
	control.Handle(m, "GET /v1/origins", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) ([]originRank, error) {
		q, err := rankQuery(r.URL.Query())
		if err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		return asked(originRanks(ctx, s.journal, q))
	})
	control.Handle(m, "GET /v1/origins/show", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (originShown, error) {
		q, err := rankQuery(r.URL.Query())
		if err != nil {
			return originShown{}, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		out, err := showOrigin(ctx, s.journal, r.URL.Query().Get("who"), q)
		if err == nil {
			out.addOpen(s.book.All())
			out.Limits = s.limitsUsed(ctx, time.Now(), out.Who)
		}
		return asked(out, err)
	})
	control.Handle(m, "GET /v1/origins/with-plugin", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) ([]originRank, error) {
		q, err := rankQuery(r.URL.Query())
		if err == nil && q.Plugin == "" {
			err = fmt.Errorf("plugin: it is missing")
		}
		if err != nil {
			return nil, control.Errorf(http.StatusBadRequest, "%v", err)
		}
		return asked(withPlugin(ctx, s.journal, q))
	})
	control.Handle(m, "GET /v1/notice", control.Read, func(ctx context.Context, r *http.Request, _ control.Peer, _ nothing) (noticeFacts, error) {
		return noticeOf(ctx, s.journal, s.knownOf(time.Now()), r.URL.Query().Get("who"))
	})
}

// originRank is what an account, a site, a plugin or a template sent.
type originRank struct {
	Who               string    `json:"who"` // as origins show takes it
	Account           string    `json:"account,omitempty"`
	Accounts          int64     `json:"accounts,omitempty"` // if there are several
	Site              string    `json:"site,omitempty"`
	Plugin            string    `json:"plugin,omitempty"`
	KnownBy           string    `json:"known_by,omitempty"` // how the plugin is known
	Template          string    `json:"template,omitempty"`
	Messages          int64     `json:"messages"` // that passed
	Recipients        int64     `json:"recipients"`
	Stops             int64     `json:"stops"` // messages that did not
	StoppedRecipients int64     `json:"stopped_recipients"`
	First             time.Time `json:"first,omitzero"`
	Last              time.Time `json:"last,omitzero"`
}

func originRanks(ctx context.Context, j originJournal, q journal.RankQuery) ([]originRank, error) {
	all, err := j.Ranks(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]originRank, len(all))
	for i := range all {
		out[i] = rankOf(q.By, &all[i])
	}
	return out, nil
}

func rankOf(by journal.RankBy, r *journal.Rank) originRank {
	o := originRank{Account: r.Account, Site: r.Site, Plugin: r.Plugin, KnownBy: r.PluginBy, Messages: r.Messages, Recipients: r.Recipients, Stops: r.Stops,
		StoppedRecipients: r.StoppedRecipients, First: r.First, Last: r.Last}
	if r.Accounts > 1 {
		o.Accounts = r.Accounts
	}
	switch by {
	case journal.BySite:
		o.Who = "site:" + r.Site
	case journal.ByPlugin, journal.ByUse:
		o.Who = "plugin:" + pluginAt(r.Plugin, r.Site)
	case journal.ByTemplate:
		o.Who, o.Template = "template:"+r.Template, r.Template
	default:
		o.Who = r.Account
	}
	return o
}

func withPlugin(ctx context.Context, j originJournal, q journal.RankQuery) ([]originRank, error) {
	q.By = journal.ByUse
	return originRanks(ctx, j, q)
}

// rankValues is a search as the daemon is asked for it; rankQuery reads it.
func rankValues(q journal.RankQuery) url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"by": string(q.By), "order": string(q.Order), "account": q.Account, "site": q.Site, "plugin": q.Plugin, "template": q.Template} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			v.Set(name, at.UTC().Format(time.RFC3339))
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

func rankQuery(v url.Values) (journal.RankQuery, error) {
	q := journal.RankQuery{By: journal.RankBy(v.Get("by")), Order: journal.RankOrder(v.Get("order")), Account: v.Get("account"), Site: v.Get("site"),
		Plugin: v.Get("plugin"), Template: v.Get("template")}
	if q.By != "" && !slices.Contains(journal.RankBys, q.By) {
		return q, fmt.Errorf("by: found %q, want one of %v", q.By, journal.RankBys)
	}
	if q.Order != "" && !slices.Contains(journal.RankOrders, q.Order) {
		return q, fmt.Errorf("order: found %q, want one of %v", q.Order, journal.RankOrders)
	}
	if err := spanOf(v, &q.Since, &q.Until, &q.Limit); err != nil {
		return q, err
	}
	return q, nil
}

// originShown is all that is known of one origin.
type originShown struct {
	Who       string              `json:"who"`
	Since     time.Time           `json:"since,omitzero"`
	Sent      *originRank         `json:"sent,omitempty"` // absent: nothing since then
	Sites     []originRank        `json:"sites"`          // of an account or a plugin
	Plugins   []originRank        `json:"plugins"`        // of an account or a site
	Limits    []bucketShown       `json:"limits"`         // absent while the daemon is dead
	Incidents []incident.Incident `json:"incidents"`
	Decisions []desk.Decision     `json:"decisions"` // the newest
}

// Bounds of what is shown of one origin.
const (
	shownDecisions = 10
	shownIncidents = 10
)

// showOrigin tells of who: an account, "site:NAME", "plugin:NAME@SITE",
// "plugin:NAME" (of all sites), "template:NAME". Of q only the times count.
func showOrigin(ctx context.Context, j originJournal, who string, q journal.RankQuery) (originShown, error) {
	out := originShown{Who: who, Since: q.Since, Sites: []originRank{}, Plugins: []originRank{}, Limits: []bucketShown{}, Incidents: []incident.Incident{}, Decisions: []desk.Decision{}}
	one := journal.RankQuery{By: journal.ByAccount, Since: q.Since, Until: q.Until, Limit: journal.MaxLimit}
	search := journal.Query{Since: q.Since, Until: q.Until, Limit: shownDecisions}
	kind, value, _ := strings.Cut(who, ":")
	switch kind {
	case "site":
		one.By, one.Site, search.Site = journal.BySite, value, value
	case "plugin":
		one.By = journal.ByPlugin
		one.Site, one.Plugin = incident.SiteOf(who)
		search.Site, search.Plugin = one.Site, one.Plugin
	case "template":
		one.By, one.Template, search.Template = journal.ByTemplate, value, value
	default:
		one.Account, search.Account = who, who
	}
	sent, err := originRanks(ctx, j, one)
	if err != nil {
		return out, err
	}
	out.Sent = sumOf(who, sent)
	for _, more := range []struct {
		by   journal.RankBy
		to   *[]originRank
		when bool
	}{
		{journal.BySite, &out.Sites, kind != "site" && kind != "template" && one.Site == ""},
		{journal.ByPlugin, &out.Plugins, kind != "plugin" && kind != "template"},
	} {
		if more.when {
			q := one
			q.By, q.Limit = more.by, journal.DefaultLimit
			if *more.to, err = originRanks(ctx, j, q); err != nil {
				return out, err
			}
		}
	}
	decisions, err := j.Decisions(ctx, search)
	if err != nil {
		return out, err
	}
	for i := range decisions {
		out.Decisions = append(out.Decisions, desk.ViewDecision(&decisions[i]))
	}
	kept, err := j.Incidents(ctx, false)
	if err != nil {
		return out, err
	}
	for _, k := range kept {
		if i, err := incidentOf(k); err == nil && i.Concerns(who) && len(out.Incidents) < shownIncidents {
			out.Incidents = append(out.Incidents, i)
		}
	}
	return out, nil
}

// sumOf is one rank of several: of a plugin on many sites. Nil: there are none.
func sumOf(who string, all []originRank) *originRank {
	if len(all) == 0 {
		return nil
	}
	sum := all[0]
	for _, r := range all[1:] {
		sum.Messages, sum.Recipients = sum.Messages+r.Messages, sum.Recipients+r.Recipients
		sum.Stops, sum.StoppedRecipients = sum.Stops+r.Stops, sum.StoppedRecipients+r.StoppedRecipients
		if r.First.Before(sum.First) {
			sum.First = r.First
		}
		if r.Last.After(sum.Last) {
			sum.Last = r.Last
		}
		if r.Account != sum.Account {
			sum.Account = ""
		}
		by := slices.Compact(slices.Sorted(slices.Values(append(strings.Fields(sum.KnownBy), strings.Fields(r.KnownBy)...))))
		sum.Site, sum.KnownBy = "", strings.Join(by, " ")
	}
	sum.Who = who
	return &sum
}

// addOpen puts the daemon's own incidents in the place of what the journal has of
// them.
func (o *originShown) addOpen(all []incident.Incident) {
	for _, i := range slices.Backward(all) {
		if !i.Concerns(o.Who) {
			continue
		}
		o.Incidents = slices.DeleteFunc(o.Incidents, func(k incident.Incident) bool { return k.ID == i.ID })
		o.Incidents = slices.Insert(o.Incidents, 0, i)
	}
	sortIncidents(o.Incidents)
	o.Incidents = o.Incidents[:min(len(o.Incidents), shownIncidents)]
}

// limitsUsed are the buckets of an origin, the fullest first; none if there are no
// buckets by that name.
func (s *state) limitsUsed(ctx context.Context, now time.Time, who string) []bucketShown {
	list, err := s.listLimits(ctx, now, who, "", maxShown)
	if err != nil || list.Buckets == nil {
		return []bucketShown{}
	}
	return list.Buckets
}
