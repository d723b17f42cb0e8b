package journal

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/policy"
	"relayguard/policy/limit"
)

// ActivityQuery says of what time activity is wanted. Since and Until must be given.
type ActivityQuery struct {
	Since     time.Time // inclusive
	Until     time.Time // exclusive
	UsualDays int       // before the day of Since (UTC), which tell what is usual; 0: 14, at most 60
}

// Activity is what one account, site, plugin or template did in a time. What came in
// from outside (role inbound) and what was seen again on its way out (egress) is
// not in it, nor are rows that were left out under load.
type Activity struct {
	By       RankBy // ByAccount, BySite, ByPlugin or ByTemplate
	Account  string // of the several that there are, the one with most recipients
	Site     string // of a site, of a plugin; proven
	Plugin   string
	Template string

	Messages   int64 // that passed
	Recipients int64
	Stopped    int64 // recipients held or refused
	Told       int64 // of Recipients: of would-be stops
	FirstTime  int64 // of Recipients: whom the account had never written to; -1: no limit that counts them was asked

	Sent, Deferred, Bounced int64 // deliveries of the messages of that time, as far as the MTA's log told by now
	Held                    int64 // messages held in that time that still wait
	Released                int64 // messages that were let go in that time, whenever they were held

	// Usual is a mean of Recipients over as long a time, UsualBounced of Bounced, on
	// UsualDays, of the same mail; UsualMost the most Recipients on one of these days.
	// -1: the journal knows no day before.
	//
	// Accounts, sites and plugins have it from daily totals, scaled: a time that is
	// shorter than a day is compared with that part of a mean day, whatever the hour.
	// UsualMost is not scaled. Bounces, and all of templates, are counted from
	// decisions, as far back as these are kept. Totals of days before version 5 of the
	// database have what came in and what was seen again in them, unless there were
	// decisions of it when that version came.
	Usual, UsualBounced, UsualMost float64
}

// Name is what it is called among its kind: "login:taro@example.jp",
// "shop.example.jp", "share-by-mail@shop.example.jp", a template.
func (a *Activity) Name() string {
	switch a.By {
	case BySite:
		return a.Site
	case ByPlugin:
		if a.Site == "" {
			return a.Plugin
		}
		return a.Plugin + "@" + a.Site
	case ByTemplate:
		return a.Template
	}
	return a.Account
}

// Activity tells what accounts, sites, plugins and templates did: of each kind those
// with most recipients, at most 10,000; first the accounts, then sites, plugins,
// templates. Only proven sites, and plugins as Ranks has them. Templates only of
// some recipients, at most 100: most mail has one of its own, which tells nothing.
func (j *Journal) Activity(ctx context.Context, q ActivityQuery) ([]Activity, error) {
	return search(ctx, j, func(s store) ([]Activity, error) { return activity(ctx, q, s) })
}

// Activity is Journal.Activity.
func (r *Reader) Activity(ctx context.Context, q ActivityQuery) ([]Activity, error) {
	if r.file == nil {
		return activity(ctx, q, r.memory)
	}
	return activity(ctx, q, r.memory, r.inFile())
}

// Bounds of activity.
const (
	usualDays    = 14
	mostUsual    = 60
	mostActivity = 10_000 // of a kind

	// A template's usual takes all decisions that it was ever in.
	mostTemplates  = 100
	leastTemplates = 5 // recipients and messages held or let go, of each

	mostGroups = 500_000 // rows that are read for it, by the account, site, plugin and template that they have in common
)

// actor is whose activity it is.
type actor struct {
	by                 RankBy
	name, siteOfPlugin string
}

// acting adds up activity.
type acting struct {
	q        ActivityQuery
	all      map[actor]*Activity
	accounts map[actor]map[string]int64 // recipients, passed or not
}

// activity asks stores that have each answer once; the first of them has all holds.
func activity(ctx context.Context, q ActivityQuery, stores ...store) ([]Activity, error) {
	if q.Since.IsZero() || !q.Since.Before(q.Until) {
		return nil, fmt.Errorf("activity from %v until %v: want a time", q.Since, q.Until)
	}
	if q.UsualDays <= 0 {
		q.UsualDays = usualDays
	}
	q.UsualDays = min(q.UsualDays, mostUsual)
	a := &acting{q: q, all: map[actor]*Activity{}, accounts: map[actor]map[string]int64{}}
	err := a.counted(ctx, stores)
	if err == nil {
		err = a.held(ctx, stores)
	}
	if err == nil {
		a.leaveTemplates()
		err = a.usual(ctx, stores)
	}
	if err != nil {
		return nil, fmt.Errorf("read activity: %w", err)
	}
	return a.found(), nil
}

// leaveTemplates forgets all but the largest.
func (a *acting) leaveTemplates() {
	size := func(name actor) int64 {
		one := a.all[name]
		return one.Recipients + one.Stopped + one.Held + one.Released
	}
	var kept []actor
	for name := range a.all {
		if name.by != ByTemplate {
			continue
		}
		if size(name) >= leastTemplates {
			kept = append(kept, name)
		} else {
			delete(a.all, name)
		}
	}
	if len(kept) <= mostTemplates {
		return
	}
	slices.SortFunc(kept, func(x, y actor) int {
		return cmp.Or(cmp.Compare(size(y), size(x)), strings.Compare(x.name, y.name))
	})
	for _, name := range kept[mostTemplates:] {
		delete(a.all, name)
	}
}

// found puts them in order.
func (a *acting) found() []Activity {
	byKind := map[RankBy][]Activity{}
	for name, one := range a.all {
		for account, n := range a.accounts[name] {
			if most := a.accounts[name][one.Account]; one.Account == "" || n > most || n == most && account < one.Account {
				one.Account = account
			}
		}
		byKind[name.by] = append(byKind[name.by], *one)
	}
	var found []Activity
	for _, by := range RankBys {
		all := byKind[by]
		slices.SortFunc(all, func(a, b Activity) int {
			return cmp.Or(cmp.Compare(b.Recipients+b.Stopped, a.Recipients+a.Stopped), strings.Compare(a.Name(), b.Name()))
		})
		found = append(found, all[:min(len(all), mostActivity)]...)
	}
	return found
}

// origins is what an answer counts for.
type origins struct{ account, site, plugin, template string }

// actors are whom an answer counts for.
func (o *origins) actors() []actor {
	all := []actor{{by: ByAccount, name: o.account}}
	if o.site != "" {
		all = append(all, actor{by: BySite, name: o.site})
	}
	if o.plugin != "" {
		all = append(all, actor{by: ByPlugin, name: o.plugin, siteOfPlugin: o.site})
	}
	if o.template != "" {
		all = append(all, actor{by: ByTemplate, name: o.template})
	}
	return all
}

// of are the activities that an answer counts in; size is how much it says of whose
// they are.
func (a *acting) of(o origins, size int64) []*Activity {
	actors := o.actors()
	all := make([]*Activity, len(actors))
	for i, name := range actors {
		one := a.all[name]
		if one == nil {
			one = &Activity{By: name.by, FirstTime: -1, Usual: -1, UsualBounced: -1, UsualMost: -1}
			switch name.by {
			case ByAccount:
				one.Account = name.name
			case BySite:
				one.Site = name.name
			case ByPlugin:
				one.Plugin, one.Site = name.name, name.siteOfPlugin
			case ByTemplate:
				one.Template = name.name
			}
			a.all[name] = one
			a.accounts[name] = map[string]int64{}
		}
		if name.by != ByAccount {
			a.accounts[name][o.account] += size
		}
		all[i] = one
	}
	return all
}

const (
	isStop        = "verdict IN " + stopVerdicts
	allRecipients = "iif(stage = 'rcpt', 1, recipients) * (1 + repeats)"
	leaves        = "(role NOT IN ('inbound', 'egress'))" // or would: see ofReports
)

// labels are the expressions for site, plugin and template of a decision.
func (s store) labels() string {
	if s.lacks(4) {
		return "'', '', ''"
	}
	return countedSite + ", " + countedPlugin + ", template"
}

// counted reads the decisions of the time.
func (a *acting) counted(ctx context.Context, stores []store) error {
	for _, s := range stores {
		first := "first_time"
		if s.lacks(5) {
			first = "-1"
		}
		text := "SELECT account, " + s.labels() + ", sum(iif(" + isStop + " OR stage = 'rcpt', 0, 1 + repeats))," +
			" sum(iif(" + isStop + ", 0, " + allRecipients + ")), sum(iif(" + isStop + ", " + allRecipients + ", 0)), sum(iif(verdict = 'tell', " + allRecipients + ", 0))," +
			" sum(iif(" + isStop + ", 0, max(0, " + first + "))), max(iif(" + isStop + ", -1, " + first + ")), sum(sent), sum(deferred), sum(bounced)" +
			" FROM decision WHERE time >= ? AND time < ? AND " + leaves + " GROUP BY 1, 2, 3, 4 ORDER BY sum(" + allRecipients + ") DESC LIMIT ?"
		err := s.each(ctx, text, []any{micros(a.q.Since), micros(a.q.Until), mostGroups}, func(rows *sql.Rows) error {
			var o origins
			var n Activity
			var known int64
			if err := rows.Scan(&o.account, &o.site, &o.plugin, &o.template, &n.Messages, &n.Recipients, &n.Stopped, &n.Told,
				&n.FirstTime, &known, &n.Sent, &n.Deferred, &n.Bounced); err != nil {
				return err
			}
			for _, one := range a.of(o, n.Recipients+n.Stopped) {
				one.Messages, one.Recipients, one.Stopped, one.Told = one.Messages+n.Messages, one.Recipients+n.Recipients, one.Stopped+n.Stopped, one.Told+n.Told
				one.Sent, one.Deferred, one.Bounced = one.Sent+n.Sent, one.Deferred+n.Deferred, one.Bounced+n.Bounced
				if known >= 0 {
					one.FirstTime = max(0, one.FirstTime) + n.FirstTime
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// held counts holds. How surely their site is known, and whether their mail came in
// or was seen again, only decisions tell.
func (a *acting) held(ctx context.Context, stores []store) error {
	type hold struct {
		origins
		decision       string
		held, released int64
	}
	var holds []hold
	var ids []string
	since, until := micros(a.q.Since), micros(a.q.Until)
	err := stores[0].each(ctx, `SELECT decision_id, account, template, 1, 0 FROM hold WHERE `+openStates+` AND held_at >= ?1 AND held_at < ?2
		UNION ALL SELECT decision_id, account, template, 0, 1 FROM hold
			WHERE state NOT IN ('held', 'releasing', 'deleting') AND state = 'released' AND changed >= ?1 AND changed < ?2
		LIMIT ?3`, []any{since, until, mostGroups}, func(rows *sql.Rows) error {
		var h hold
		err := rows.Scan(&h.decision, &h.account, &h.template, &h.held, &h.released)
		holds = append(holds, h)
		if h.decision != "" {
			ids = append(ids, h.decision)
		}
		return err
	})
	if err != nil || len(holds) == 0 {
		return err
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	known, beside := make(map[string]origins, len(ids)), map[string]bool{}
	for _, s := range stores {
		err := s.each(ctx, "SELECT id, "+leaves+", "+s.labels()+" FROM decision WHERE id IN (SELECT value FROM json_each(?))", []any{string(list)}, func(rows *sql.Rows) error {
			var id string
			var leaving bool
			var o origins
			err := rows.Scan(&id, &leaving, &o.site, &o.plugin, &o.template)
			known[id], beside[id] = o, !leaving
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, h := range holds {
		if beside[h.decision] {
			continue
		}
		o, ok := known[h.decision]
		if !ok {
			o.template = h.template
		}
		o.account = h.account
		for _, one := range a.of(o, 0) {
			one.Held, one.Released = one.Held+h.held, one.Released+h.released
		}
	}
	return nil
}

// usual tells what is usual.
func (a *acting) usual(ctx context.Context, stores []store) error {
	u := usually{acting: a, until: day(micros(a.q.Since)), days: map[actor]map[int64]int64{}, bounced: map[actor]int64{}}
	firstTotal, firstDecision := u.until, u.until
	for _, s := range stores {
		var total, decision int64
		err := s.db.QueryRowContext(ctx, "SELECT coalesce((SELECT min(day) FROM total), ?1), coalesce((SELECT min(time) FROM decision), ?1 * 86400000000)", u.until).Scan(&total, &decision)
		if err != nil {
			return err
		}
		firstTotal, firstDecision = min(firstTotal, total), min(firstDecision, day(decision))
	}
	u.ofTotals, u.ofDecisions = u.from(firstTotal), u.from(firstDecision)
	u.bounces = true
	for _, s := range stores {
		if err := u.read(ctx, s); err != nil {
			return err
		}
	}
	u.tell()
	return nil
}

// usually collects the days before. Days are counted since the epoch, UTC.
type usually struct {
	*acting
	until                 int64 // exclusive
	ofTotals, ofDecisions int64 // the first day that is counted
	bounces               bool  // they can be read
	days                  map[actor]map[int64]int64
	bounced               map[actor]int64
}

// from is the first day to be counted. That the journal begins on is seldom whole.
func (u *usually) from(first int64) int64 {
	if first+1 < u.until {
		first++
	}
	return max(first, u.until-int64(u.q.UsualDays))
}

// add counts what an actor sent on a day, if that actor is asked for.
func (u *usually) add(name actor, day, recipients int64) {
	if u.all[name] == nil {
		return
	}
	if u.days[name] == nil {
		u.days[name] = map[int64]int64{}
	}
	u.days[name][day] += recipients
}

func (u *usually) read(ctx context.Context, s store) error {
	totals, labels := "SELECT day, account, verdict, recipients - beside AS recipients FROM total", "SELECT day, site, plugin, verdict, recipients - beside AS recipients FROM label_total"
	if s.lacks(5) {
		totals, labels = leavingTotals, leavingLabels
	}
	err := s.each(ctx, "SELECT day, account, max(0, sum(recipients)) FROM ("+totals+") WHERE day >= ? AND day < ? AND verdict NOT IN "+stopVerdicts+" GROUP BY day, account LIMIT ?",
		[]any{u.ofTotals, u.until, mostGroups}, func(rows *sql.Rows) error {
			var day, recipients int64
			name := actor{by: ByAccount}
			err := rows.Scan(&day, &name.name, &recipients)
			u.add(name, day, recipients)
			return err
		})
	if err != nil || s.lacks(4) {
		u.bounces = u.bounces && !s.lacks(4)
		return err
	}
	err = s.each(ctx, "SELECT day, site, plugin, max(0, sum(recipients)) FROM ("+labels+") WHERE day >= ? AND day < ? AND verdict NOT IN "+stopVerdicts+" GROUP BY day, site, plugin LIMIT ?",
		[]any{u.ofTotals, u.until, mostGroups}, func(rows *sql.Rows) error {
			var day, recipients int64
			var site, plugin string
			err := rows.Scan(&day, &site, &plugin, &recipients)
			u.add(actor{by: BySite, name: site}, day, recipients)
			u.add(actor{by: ByPlugin, name: plugin, siteOfPlugin: site}, day, recipients)
			return err
		})
	if err != nil {
		return err
	}
	templates, err := u.templates()
	if err == nil {
		err = u.readTemplates(ctx, s, templates)
	}
	if err != nil || s.lacks(5) { // without an index of bounces
		u.bounces = u.bounces && !s.lacks(5)
		return err
	}
	return s.each(ctx, "SELECT account, "+countedSite+", "+countedPlugin+", iif(template IN (SELECT value FROM json_each(?)), template, '') AS text, sum(bounced)"+
		" FROM decision WHERE bounced > 0 AND time >= ? AND time < ? AND "+leaves+" GROUP BY 1, 2, 3, 4 LIMIT ?",
		[]any{templates, u.ofDecisions * dayMicros, u.until * dayMicros, mostGroups}, func(rows *sql.Rows) error {
			var o origins
			var n int64
			err := rows.Scan(&o.account, &o.site, &o.plugin, &o.template, &n)
			for _, name := range o.actors() {
				u.bounced[name] += n
			}
			return err
		})
}

// templates are those that are asked for, JSON.
func (u *usually) templates() (string, error) {
	names := []string{}
	for name := range u.all {
		if name.by == ByTemplate {
			names = append(names, name.name)
		}
	}
	list, err := json.Marshal(names)
	return string(list), err
}

// readTemplates counts decisions: templates have no totals.
func (u *usually) readTemplates(ctx context.Context, s store, names string) error {
	return s.each(ctx, "SELECT time / 86400000000 AS day, template, sum("+allRecipients+") FROM decision WHERE template <> '' AND template IN (SELECT value FROM json_each(?))"+
		" AND time >= ? AND time < ? AND NOT "+isStop+" AND "+leaves+" GROUP BY template, day LIMIT ?",
		[]any{names, u.ofDecisions * dayMicros, u.until * dayMicros, mostGroups}, func(rows *sql.Rows) error {
			var day, recipients int64
			name := actor{by: ByTemplate}
			err := rows.Scan(&day, &name.name, &recipients)
			u.add(name, day, recipients)
			return err
		})
}

// tell fills in what is usual.
func (u *usually) tell() {
	length := u.q.Until.Sub(u.q.Since).Hours() / dayLength.Hours()
	for name, one := range u.all {
		known := u.until - u.ofTotals
		if name.by == ByTemplate {
			known = u.until - u.ofDecisions
		}
		if known > 0 {
			var sum, most int64
			for _, n := range u.days[name] {
				sum, most = sum+n, max(most, n)
			}
			one.Usual, one.UsualMost = float64(sum)/float64(known)*length, float64(most)
		}
		if known = u.until - u.ofDecisions; known > 0 && u.bounces {
			one.UsualBounced = float64(u.bounced[name]) / float64(known) * length
		}
	}
}

// firstTime counts a message's first-time recipients, as a limit on them did: all
// such limits ask the same memory. -1: none was asked.
func firstTime(all []policy.Counter) int64 {
	n := int64(-1)
	for i := range all {
		if all[i].Unit == limit.FirstTime.String() {
			n = max(n, all[i].Amount)
		}
	}
	return n
}
