package journal

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RankBy is what is ranked.
type RankBy string

const (
	ByAccount  RankBy = "account"
	BySite     RankBy = "site"
	ByPlugin   RankBy = "plugin" // each site's its own
	ByTemplate RankBy = "template"

	// ByUse is each account and site that a plugin's mail came from.
	ByUse RankBy = "use"
)

// RankBys are those that people choose from.
var RankBys = []RankBy{ByAccount, BySite, ByPlugin, ByTemplate}

// RankOrder is what they are ranked by.
type RankOrder string

const (
	OrderRecipients RankOrder = "recipients" // of all mail, sent and stopped
	OrderMessages   RankOrder = "messages"   // likewise
	OrderStops      RankOrder = "stops"      // messages and recipients that were stopped
)

// RankOrders are all of them.
var RankOrders = []RankOrder{OrderRecipients, OrderMessages, OrderStops}

// RankQuery says what is ranked, and which mail counts. Zero values ask nothing.
type RankQuery struct {
	By       RankBy    // [ByAccount]
	Order    RankOrder // [OrderRecipients]
	Since    time.Time // inclusive
	Until    time.Time // exclusive
	Account  string
	Site     string
	Plugin   string
	Template string
	Limit    int // 0 is DefaultLimit, at most MaxLimit
}

// Rank is what one of them sent. A message counts with its recipients; an answer
// at RCPT as one recipient and no message. Rows that were left out under load are
// not in it.
type Rank struct {
	Account  string // of the several that there are, the first
	Site     string // unless accounts are ranked; likewise of templates
	Plugin   string // where plugins are ranked
	PluginBy string // how it is known, several with blanks between
	Template string // where templates are ranked
	Accounts int64  // how many there are

	Messages          int64 // that passed
	Recipients        int64
	Stops             int64 // messages that did not
	StoppedRecipients int64

	First, Last time.Time // zero if accounts are ranked: their totals have days
}

const stopVerdicts = "('hold', 'defer', 'reject')"

// ranks counts. Without an order and with all there is, up to MaxLimit.
func (s store) ranks(ctx context.Context, q RankQuery) ([]Rank, error) {
	if s.lacks(4) && q.By != ByAccount && q.By != "" {
		return nil, nil
	}
	if s.lacks(4) && (q.Site != "" || q.Plugin != "" || q.Template != "") {
		return nil, nil
	}
	parts, args := q.parts()
	group := map[RankBy]string{ByAccount: "account", BySite: "site", ByPlugin: "plugin, site", ByTemplate: "template", ByUse: "plugin, site, account", "": "account"}[q.By]
	if group == "" {
		return nil, fmt.Errorf("rank by %q: want one of %v", q.By, append([]RankBy{ByUse}, RankBys...))
	}
	text := "SELECT min(account), min(site), min(plugin), group_concat(DISTINCT plugin_by), min(template), count(DISTINCT account)," +
		" sum(iif(verdict IN " + stopVerdicts + ", 0, messages)), sum(iif(verdict IN " + stopVerdicts + ", 0, recipients))," +
		" sum(iif(verdict IN " + stopVerdicts + ", messages, 0)), sum(iif(verdict IN " + stopVerdicts + ", recipients, 0)), min(first), max(last)" +
		" FROM (" + strings.Join(parts, " UNION ALL ") + ") GROUP BY " + group + " ORDER BY sum(recipients) DESC LIMIT ?"
	var found []Rank
	err := s.each(ctx, text, append(args, MaxLimit), func(rows *sql.Rows) error {
		var r Rank
		var first, last int64
		err := rows.Scan(&r.Account, &r.Site, &r.Plugin, &r.PluginBy, &r.Template, &r.Accounts,
			&r.Messages, &r.Recipients, &r.Stops, &r.StoppedRecipients, &first, &last)
		r.PluginBy = strings.Join(nonEmpty(strings.Split(r.PluginBy, ",")), " ")
		r.First, r.Last = moment(first), moment(last)
		found = append(found, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rank by %s: %w", group, err)
	}
	return found, nil
}

func nonEmpty(all []string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// parts are the selects that together have each answer once.
func (q *RankQuery) parts() (parts []string, args []any) {
	add := func(part string, more []any) {
		parts, args = append(parts, part), append(args, more...)
	}
	if q.By == ByTemplate || q.Template != "" {
		var c condition
		c.since("time", q.Since)
		c.until("time", q.Until)
		add(q.ofDecisions(&c))
		return parts, args
	}
	const none = int64(1) << 40
	from, to := -none, none // whole days
	if !q.Since.IsZero() {
		from = day(micros(q.Since)-1) + 1
	}
	if !q.Until.IsZero() {
		to = day(micros(q.Until)) - 1
	}
	if from > to { // no day is whole
		var c condition
		c.since("time", q.Since)
		c.until("time", q.Until)
		add(q.ofDecisions(&c))
		return parts, args
	}
	add(q.ofTotals(from, to))
	if start := from * dayMicros; !q.Since.IsZero() && start > micros(q.Since) {
		var c condition
		c.since("time", q.Since)
		c.add("time < ?", start)
		add(q.ofDecisions(&c))
	}
	if end := (to + 1) * dayMicros; !q.Until.IsZero() && end < micros(q.Until) {
		var c condition
		c.add("time >= ?", end)
		c.until("time", q.Until)
		add(q.ofDecisions(&c))
	}
	return parts, args
}

const dayMicros = int64(dayLength / time.Microsecond)

// ofTotals selects whole days.
func (q *RankQuery) ofTotals(from, to int64) (string, []any) {
	var c condition
	c.add("day BETWEEN ? AND ?", from, to)
	c.equal("account", q.Account)
	if q.by() == ByAccount && q.Site == "" && q.Plugin == "" {
		return "SELECT account, '' AS site, '' AS plugin, '' AS plugin_by, '' AS template, verdict, messages, recipients, 0 AS first, 0 AS last FROM total" + c.where(), c.args
	}
	c.equal("site", q.Site)
	c.partial("plugin", q.Plugin)
	q.known(&c, "site", "plugin")
	return "SELECT account, site, plugin, plugin_by, '' AS template, verdict, messages, recipients, first, last FROM label_total" + c.where(), c.args
}

// ofDecisions selects what the condition on time says.
func (q *RankQuery) ofDecisions(c *condition) (string, []any) {
	c.equal("account", q.Account)
	c.partial("site", q.Site)
	c.partial("plugin", q.Plugin)
	c.partial("template", q.Template)
	site, plugin, first := countedSite, countedPlugin, "time"
	switch by := q.by(); {
	case by == ByTemplate: // as its index has it
		c.add("template <> ''")
		site, plugin = "''", "''"
		if q.Site != "" || q.Plugin != "" {
			site, plugin = countedSite, countedPlugin
			q.known(c, site, plugin)
		}
	case by == ByAccount && q.Site == "" && q.Plugin == "":
		site, plugin, first = "''", "''", "0"
	default:
		q.known(c, site, plugin)
	}
	by := "''"
	if plugin != "''" {
		by = "iif(" + plugin + " = '', '', plugin_by)"
	}
	return "SELECT account, " + site + " AS site, " + plugin + " AS plugin, " + by + " AS plugin_by, " + q.template() + " AS template, verdict," +
		" iif(stage = 'rcpt', 0, 1 + repeats) AS messages, iif(stage = 'rcpt', 1, recipients) * (1 + repeats) AS recipients, " + first + " AS first, " + first + " AS last FROM decision" + c.where(), c.args
}

func (q *RankQuery) by() RankBy { return cmp.Or(q.By, ByAccount) }

func (q *RankQuery) template() string {
	if q.by() == ByTemplate {
		return "template"
	}
	return "''"
}

// known leaves out mail of no site or plugin, and what only claims to be of one
// that is asked for.
func (q *RankQuery) known(c *condition, site, plugin string) {
	if q.by() == BySite || q.Site != "" {
		c.add(site + " <> ''")
	}
	if q.by() == ByPlugin || q.by() == ByUse || q.Plugin != "" {
		c.add(plugin + " <> ''")
	}
}

// joinRanks adds up what two databases have.
func joinRanks(by RankBy, a, b []Rank) []Rank {
	type name struct{ account, site, plugin, template string }
	of := func(r *Rank) name {
		switch by {
		case BySite:
			return name{site: r.Site}
		case ByPlugin:
			return name{site: r.Site, plugin: r.Plugin}
		case ByTemplate:
			return name{template: r.Template}
		case ByUse:
			return name{account: r.Account, site: r.Site, plugin: r.Plugin}
		}
		return name{account: r.Account}
	}
	at := map[name]int{}
	for i := range a {
		at[of(&a[i])] = i
	}
	for _, r := range b {
		i, both := at[of(&r)]
		if !both {
			a = append(a, r)
			continue
		}
		s := &a[i]
		s.Account, s.Accounts = min(s.Account, r.Account), max(s.Accounts, r.Accounts)
		by := append(strings.Fields(s.PluginBy), strings.Fields(r.PluginBy)...)
		slices.Sort(by)
		s.PluginBy = strings.Join(slices.Compact(by), " ")
		s.Messages, s.Recipients = s.Messages+r.Messages, s.Recipients+r.Recipients
		s.Stops, s.StoppedRecipients = s.Stops+r.Stops, s.StoppedRecipients+r.StoppedRecipients
		if s.First.IsZero() || !r.First.IsZero() && r.First.Before(s.First) {
			s.First = r.First
		}
		if r.Last.After(s.Last) {
			s.Last = r.Last
		}
	}
	return a
}

// ranked puts them in order and leaves out what is not asked for.
func ranked(all []Rank, q RankQuery) []Rank {
	stops := func(r *Rank) int64 { return r.Stops + r.StoppedRecipients }
	slices.SortStableFunc(all, func(a, b Rank) int {
		first := 0
		switch q.Order {
		case OrderMessages:
			first = cmp.Compare(b.Messages+b.Stops, a.Messages+a.Stops)
		case OrderStops:
			first = cmp.Compare(stops(&b), stops(&a))
		}
		return cmp.Or(first, cmp.Compare(b.Recipients+b.StoppedRecipients, a.Recipients+a.StoppedRecipients), cmp.Compare(stops(&b), stops(&a)),
			strings.Compare(a.Account, b.Account), strings.Compare(a.Site, b.Site), strings.Compare(a.Plugin, b.Plugin), strings.Compare(a.Template, b.Template))
	})
	for i := range all {
		switch q.by() {
		case ByAccount:
			all[i].Site, all[i].Plugin, all[i].PluginBy = "", "", ""
		case BySite:
			all[i].Plugin, all[i].PluginBy = "", ""
		}
	}
	return all[:min(len(all), bounded(q.Limit, DefaultLimit))]
}
