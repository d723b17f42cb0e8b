package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"time"

	"relayguard/journal"
	"relayguard/policy"
	"relayguard/rbl"
	"relayguard/rbl/check"
	"relayguard/rbl/history"
	"relayguard/rbl/sender"
)

// yearSizes are of a server that has run for some time.
type yearSizes struct {
	days     int // of totals, and of rounds over blocklists
	detailed int // of them with each decision: as long as the journal keeps these
	mails    int // a day
	before   int // decisions a day of which only totals are left
	sites    int // as many logins
	rounds   int // over blocklists a day
}

// wholeYear is the one of the goal.
var wholeYear = yearSizes{days: 365, detailed: 30, mails: 5_000, before: 150, sites: 300, rounds: 4}

const (
	pluginsEach   = 4 // of a site
	templatesEach = 3 // of a plugin
	oneStopped    = 50
	oneBounced    = 25

	// openListings is how many go on, each begun at another time: a report looks for
	// the cause of no more.
	openListings  = 8
	betweenBegins = 13 * time.Hour

	// abuser is the plugin that is to be found as their cause.
	abuser, abusedSite = "share-by-mail", "site000.example.jp"
	oneAbuse           = 5 // of so many mails one is its, since the first of them
)

// yearPlan is a server's state: what its journal and its history of listings know.
type yearPlan struct {
	yearSizes
	dir string // of both
	now time.Time
	*lists
}

func (y *yearPlan) journalDir() string { return filepath.Join(y.dir, "journal") }

// historyDir is where the daemon looks for it: beside the journal.
func (y *yearPlan) historyDir() string { return filepath.Join(y.dir, "blocklists") }

// listedSince is when a listing that goes on began.
func (y *yearPlan) listedSince(i int) time.Time {
	return y.now.Add(-time.Duration(i+1) * betweenBegins)
}

// plantJournal writes the journal.
func (y *yearPlan) plantJournal(ctx context.Context) (err error) {
	j, err := journal.Open(ctx, journal.Options{Dir: y.journalDir(), KeepLogBytes: 1})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	w := &yearWriter{yearPlan: y, journal: j, random: rand.New(rand.NewPCG(365, uint64(y.days)))}
	for d := y.days; d > 0 && err == nil; d-- {
		if err = ctx.Err(); err != nil {
			break
		}
		if d > y.detailed {
			err = w.oldDay(d)
		} else {
			err = w.day(d)
		}
	}
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		err = j.Sync(ctx)
	}
	if err == nil {
		err = j.PurgeNow(ctx, y.now)
	}
	if err != nil {
		return fmt.Errorf("write a journal: %w", err)
	}
	return nil
}

// yearWriter writes decisions.
type yearWriter struct {
	*yearPlan
	journal *journal.Journal
	random  *rand.Rand
	waiting []journal.Record
	n       int
}

func (w *yearWriter) put(records ...journal.Record) error {
	if w.waiting = append(w.waiting, records...); len(w.waiting) < 2000 {
		return nil
	}
	return w.flush()
}

func (w *yearWriter) flush() error {
	all := w.waiting
	w.waiting = w.waiting[:0]
	return w.journal.Append(all...)
}

// oldDay writes a day of which only totals are left: a few decisions for all that
// was sent, and some stops.
func (w *yearWriter) oldDay(back int) error {
	length := 24 * time.Hour / time.Duration(w.before)
	for i := range w.before {
		d := w.decision(w.now.AddDate(0, 0, -back).Add(time.Duration(i)*length), w.random.IntN(2*w.sites))
		d.Recipients = 1 + w.random.IntN(2*w.mails/w.before)
		if i%7 == 0 {
			d.Verdict, d.Rule = policy.Reject, "site-volume"
		}
		if err := w.put(d); err != nil {
			return err
		}
	}
	return nil
}

// day writes each decision of a day.
func (w *yearWriter) day(back int) error {
	length := 24 * time.Hour / time.Duration(w.mails)
	for i := range w.mails {
		at := w.now.AddDate(0, 0, -back).Add(time.Duration(i) * length)
		d := w.decision(at, w.random.IntN(2*w.sites))
		if i%oneAbuse == 0 && at.After(w.listedSince(openListings-1).Add(-betweenBegins)) {
			d = w.decision(at, 0)
			w.ofSite(&d, 0, abuser, 0)
			d.Counters = []policy.Counter{{Limit: "plugin-first-time", Key: abuser, Unit: "first_time", Kind: "abuse", Window: 24 * time.Hour, Count: 40, Used: int64(i), Amount: 1, Over: true, Soft: true}}
			d.Verdict, d.Rule = policy.Tell, "plugin-first-time"
		}
		if err := w.put(d); err != nil {
			return err
		}
		if err := w.fate(&d, i, back); err != nil {
			return err
		}
	}
	return nil
}

// fate tells what became of a message.
func (w *yearWriter) fate(d *journal.Decision, i, back int) error {
	switch {
	case d.Verdict == policy.Hold && back > 1:
		return w.put(journal.HoldChange{QueueID: d.QueueID, DecisionID: d.ID, Time: d.Time.Add(3 * time.Hour), State: journal.StateReleased, By: "paced"})
	case d.Verdict == policy.Hold:
		return nil
	case i%oneBounced == 0 || d.Plugin == abuser && i%3 == 0:
		return w.put(journal.Delivery{QueueID: d.QueueID, Time: d.Time.Add(time.Minute), Status: "bounced", N: 1})
	case back <= 2:
		return w.put(journal.Delivery{QueueID: d.QueueID, Time: d.Time.Add(time.Second), Status: "sent", N: 1})
	}
	return nil
}

// decision is about a message of an origin: a site or a login.
func (w *yearWriter) decision(at time.Time, origin int) journal.Decision {
	w.n++
	d := journal.Decision{
		ID: fmt.Sprintf("%016x", w.n), Time: at, Stage: journal.StageMessage, Verdict: policy.Accept, Phase: policy.Enforce,
		Size: 4000, Recipients: 1, UID: -1, QueueID: fmt.Sprintf("4XyZ%09X", w.n), MessageID: fmt.Sprintf("<%d@%s>", w.n, insideDomain),
		Domains: map[string]int{outsideDomain: 1},
	}
	if origin >= w.sites {
		d.Listener, d.Role, d.Confidence = "submission", policy.Submission, "kernel"
		d.Login = login(origin - w.sites)
		d.Account, d.MailFrom, d.HeaderFrom, d.ClientIP = "login:"+d.Login, d.Login, d.Login, "192.0.2.7"
	} else {
		n := w.random.IntN(pluginsEach)
		w.ofSite(&d, origin, fmt.Sprintf("plugin-%d", n), n)
	}
	if w.n%oneStopped == 0 {
		d.Verdict, d.Rule, d.Reason = policy.Hold, "site-volume", "over 300 recipients an hour"
	}
	return d
}

// ofSite makes it one of a site's plugin.
func (w *yearWriter) ofSite(d *journal.Decision, site int, plugin string, n int) {
	d.Listener, d.Role, d.Confidence, d.UID = "local", policy.Local, "kernel", 10_000+site
	d.LocalUser = fmt.Sprintf("site%03d", site)
	d.Account, d.Site, d.SiteBy = "local_user:"+d.LocalUser, d.LocalUser+".example.jp", "kernel"
	d.Plugin, d.PluginBy = plugin, "signed"
	d.Template = fmt.Sprintf("%03x%x%x-%s", site, n, w.random.IntN(templatesEach), plugin)
	d.MailFrom, d.HeaderFrom = "www-data@web."+insideDomain, "wordpress@"+d.Site
}

// plantHistory writes rounds over blocklists: listings that came and went, and some
// that go on.
func (y *yearPlan) plantHistory(ctx context.Context) (err error) {
	s, err := history.Open(ctx, y.historyDir(), history.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	between := 24 * time.Hour / time.Duration(y.rounds)
	last := y.now.Add(-between / 4) // the next one is not due while reports are made
	for n := y.days*y.rounds - 1; n >= 0; n-- {
		zones := y.zones
		if n > 10*y.rounds { // what nobody was listed on leaves no trace of so long ago
			zones = zones[:openListings]
		}
		if err := s.Take(ctx, y.round(last.Add(-time.Duration(n)*between), n, zones), y.subjects, zones); err != nil {
			return err
		}
	}
	var facts []sender.Fact
	for _, subject := range y.subjects {
		for _, c := range []string{sender.PTR, sender.Forward, sender.Helo, sender.SPF} {
			facts = append(facts, sender.Fact{Subject: subject.String(), Check: c, State: sender.OK, Found: "mail." + insideDomain})
		}
	}
	var near []check.Neighbour
	for _, z := range y.zones[:openListings] {
		near = append(near, check.Neighbour{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Zone: z.Name, Asked: 256, Listed: 3, At: last})
	}
	return errors.Join(s.TakeFacts(ctx, last, facts), s.TakeNeighbours(ctx, last, near))
}

// round is what was found at a time, n rounds ago.
func (y *yearPlan) round(at time.Time, n int, zones []rbl.Zone) check.Round {
	r := check.Round{Began: at, Took: time.Second, Queries: int64(len(zones) * len(y.subjects))}
	hit := rbl.Hit{Code: netip.AddrFrom4([4]byte{127, 0, 0, 2}), Means: "spam was seen", Severity: rbl.High}
	for s, subject := range y.subjects {
		for z := range zones {
			a := rbl.Answer{Zone: zones[z].Name, Subject: subject, Result: rbl.Clean, Resolver: "127.0.0.1:53", At: at}
			// One address is on one list for two days of twenty; those that go on are of the first address.
			stay, past := n%(20*y.rounds), s > 0 && z < openListings && (n/(20*y.rounds))%len(y.subjects) == s
			if past && stay > y.rounds && stay < 3*y.rounds && z == s%openListings || s == 0 && z < openListings && !at.Before(y.listedSince(z)) {
				a.Result, a.Hits, a.Reasons = rbl.Listed, []rbl.Hit{hit}, []string{"Spam was seen from " + subject.String()}
			}
			r.Answers = append(r.Answers, a)
		}
	}
	for _, z := range zones {
		for _, k := range z.Kinds {
			if k != rbl.Domain {
				r.Zones = append(r.Zones, rbl.Health{Zone: z.Name, Kind: k, State: rbl.Healthy, At: at})
			}
		}
	}
	return r
}
