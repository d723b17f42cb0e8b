package main

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/cmd/internal/config"
	"relayguard/cmd/internal/control"
	"relayguard/cmd/internal/switches"
	"relayguard/incident"
	"relayguard/journal"
	"relayguard/policy"
	"relayguard/policy/limit"
)

// noticeFacts are what a letter is written from.
type noticeFacts struct {
	Incident  incident.Incident `json:"incident"`
	More      []string          `json:"more,omitempty"`      // ids of other incidents of the same site
	Kind      string            `json:"kind,omitempty"`      // of the limit that is the cause; absent: it is none, or no longer one
	Strangers bool              `json:"strangers,omitempty"` // the limit counts first-time recipients
	Suspended string            `json:"suspended,omitempty"` // what is suspended now of whom the incident is about
	Probation time.Time         `json:"probation,omitzero"`  // until when it has half of each limit
	Passed    originRank        `json:"passed"`              // of the plugin or site, in the day before it was stopped and since
	Held      int               `json:"held"`
	Waiting   int               `json:"waiting"` // of Held: what goes by itself as the limit has room
	Released  int               `json:"released"`
	Paced     int               `json:"paced"` // of Released: what went so
	Deleted   int               `json:"deleted"`
}

// noticeKnown is what a letter goes by besides the journal: the daemon's, or what
// it left.
type noticeKnown struct {
	Now       time.Time
	Incidents []incident.Incident // newer than the journal's
	Limits    []config.Limit
	Switches  []policy.Switch
	Stable    func(account string) string // an account as switches name it
	Waits     func(*journal.Hold) bool    // what is held and goes by itself
}

// knownOf is the daemon's.
func (s *state) knownOf(now time.Time) noticeKnown {
	halted := map[string]bool{} // accounts whose lines are stopped, by the limit
	for _, l := range s.desk.Lines(now) {
		halted[l.Limit+" "+l.Account] = halted[l.Limit+" "+l.Account] || l.Stopped != ""
	}
	k := noticeKnown{Now: now, Incidents: s.book.All(), Switches: s.board.Load().All(), Waits: func(h *journal.Hold) bool {
		return s.lines.Has(h.QueueID, h.DecisionID) && !halted[h.Rule+" "+h.Account]
	}}
	if c := s.config.Load(); c != nil {
		k.Limits = c.Limits
	}
	k.Stable = func(account string) string {
		if stable, err := s.desk.Bucket(account); err == nil {
			return stable
		}
		return account
	}
	return k
}

// knownWithout is what there is while the daemon is dead: mail that waited for its
// limits goes on when it is back.
func knownWithout(c *config.Config, now time.Time) (noticeKnown, error) {
	all, err := switches.Read(switchesFile(c), now)
	return noticeKnown{Now: now, Limits: c.Limits, Switches: all, Stable: func(account string) string {
		if name, local := strings.CutPrefix(account, "local_user:"); local {
			if uid, err := userID(name); err == nil {
				return "local_user:" + strconv.Itoa(uid)
			}
		}
		return account
	}, Waits: func(h *journal.Hold) bool { return len(h.Waits) > 0 }}, err
}

// noticeOf finds the incident that a letter is about: by its id, or the newest of a
// site, an open one before those that are closed.
func noticeOf(ctx context.Context, j originJournal, known noticeKnown, who string) (noticeFacts, error) {
	all := slices.Clone(known.Incidents)
	kept, err := j.Incidents(ctx, false)
	if err != nil {
		return noticeFacts{}, err
	}
	for _, k := range kept {
		if i, err := incidentOf(k); err == nil && !slices.ContainsFunc(known.Incidents, func(o incident.Incident) bool { return o.ID == i.ID }) {
			all = append(all, i)
		}
	}
	sortIncidents(all)
	var found []incident.Incident
	for _, i := range all {
		if i.ID == who || i.Concerns(who) || i.Concerns("site:"+strings.ToLower(strings.TrimPrefix(who, "site:"))) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return noticeFacts{}, control.Errorf(http.StatusNotFound, "no incident %s is known, nor one of a site of that name; relayguard origins list --by site tells sites, relayguard origins show site:NAME the incidents of one", who)
	}
	out := noticeFacts{Incident: found[0]}
	for _, i := range found[1:] {
		if i.ID != who && len(out.More) < shownIncidents {
			out.More = append(out.More, i.ID)
		}
	}
	out.ordered(&known)
	return out, out.count(ctx, j, &known)
}

// ordered fills in what limit it is, and what an admin ordered about whom the
// incident is about; of several orders the one that is about the least.
func (f *noticeFacts) ordered(known *noticeKnown) {
	i := &f.Incident
	for _, l := range known.Limits {
		if l.Name == i.Cause {
			f.Kind, f.Strangers = l.Kind, l.Counts == limit.FirstTime.String()
		}
	}
	site, plugin := f.of()
	var whom []string
	add := func(plugin string) {
		if plugin != "" {
			whom = append(whom, "plugin:"+pluginAt(plugin, site), "plugin:"+plugin)
		}
	}
	add(plugin)
	if i.Details != nil && plugin == "" {
		for _, c := range i.Details.Plugins {
			add(c.Value)
		}
	}
	if site != "" {
		whom = append(whom, "site:"+site)
	}
	for _, account := range i.Accounts() {
		whom = append(whom, known.Stable(account))
	}
	for _, about := range slices.Backward(whom) {
		for _, sw := range known.Switches {
			switch {
			case sw.Over(known.Now) || sw.About() != about:
			case sw.Kind == policy.Suspend:
				f.Suspended = about
			case sw.Kind == policy.Probation:
				f.Probation = sw.Until
			}
		}
	}
}

// of is the site and the plugin that the incident is about.
func (f *noticeFacts) of() (site, plugin string) {
	site, plugin = incident.SiteOf(f.Incident.Origin)
	if d := f.Incident.Details; d != nil {
		site, plugin = cmp.Or(site, d.Site), cmp.Or(plugin, d.Plugin)
	}
	return site, plugin
}

// beforeStop is how far back mail is counted that left before an incident began.
const beforeStop = 24 * time.Hour

// count counts the mail that the incident is about.
func (f *noticeFacts) count(ctx context.Context, j originJournal, known *noticeKnown) error {
	i := &f.Incident
	site, plugin := f.of()
	q := journal.RankQuery{By: journal.BySite, Site: site, Plugin: plugin, Since: i.Opened.Add(-beforeStop)}
	if !i.Open() {
		q.Until = i.Closed
	}
	text, ofText := strings.CutPrefix(i.Origin, "template:")
	switch {
	case ofText:
		q = journal.RankQuery{By: journal.ByTemplate, Template: text, Since: q.Since, Until: q.Until}
	case site == "":
		q = journal.RankQuery{By: journal.ByAccount, Account: i.Accounts()[0], Since: q.Since, Until: q.Until}
	}
	if plugin != policy.Unlabelled { // which is no plugin's name in the journal
		passed, err := originRanks(ctx, j, q)
		if err != nil {
			return err
		}
		if sum := sumOf(i.Origin, passed); sum != nil {
			f.Passed = *sum
		}
	}
	holds, err := j.Holds(ctx, journal.HoldQuery{Rule: i.Cause, Site: site, HeldAfter: i.Opened.Add(-time.Minute),
		States: []journal.State{journal.StateHeld, journal.StateReleasing, journal.StateDeleting, journal.StateReleased, journal.StateDeleted}})
	if err != nil {
		return err
	}
	accounts := i.Accounts()
	for n := range holds {
		h := &holds[n]
		switch {
		case site == "" && !slices.Contains(accounts, h.Account):
		case ofText && h.Template != "" && h.Template != text: // another text that the limit stopped
		case plugin != "" && h.Plugin != "" && h.Plugin != plugin: // likewise
		default:
			f.add(h, known)
		}
	}
	return nil
}

// add counts one message that is or was held.
func (f *noticeFacts) add(h *journal.Hold, known *noticeKnown) {
	switch h.State {
	case journal.StateReleased:
		f.Released++
		if h.ChangedBy == guardsName {
			f.Paced++
		}
	case journal.StateDeleted:
		f.Deleted++
	default:
		f.Held++
		if h.State == journal.StateHeld && known.Waits(h) {
			f.Waiting++
		}
	}
}

// guardsName is who releases mail by itself, in the journal.
const guardsName = "relayguard"
