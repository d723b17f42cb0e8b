package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// Bounds of an answer.
const (
	DefaultLimit = 100
	MaxLimit     = 100_000
)

// Query says which decisions are wanted. Zero values ask nothing.
type Query struct {
	Account   string
	Login     string
	LocalUser string
	Address   string // envelope sender or From; "@example.jp" for all of a domain. Without regard to case
	Rule      string
	Verdicts  []policy.Verdict
	Since     time.Time // inclusive
	Until     time.Time // exclusive
	QueueID   string
	MessageID string
	ClientIP  string
	Stage     string
	Site      string
	Plugin    string // of any site, unless Site says of which
	Template  string
	Node      string
	Before    string // the id of a decision: only older ones, to turn the page
	Limit     int    // 0 is DefaultLimit, at most MaxLimit
}

// HoldQuery says which holds are wanted. Zero values ask nothing.
type HoldQuery struct {
	Account    string
	Login      string
	LocalUser  string
	Rule       string
	Site       string
	Plugin     string
	Template   string
	HeldBefore time.Time // exclusive
	HeldAfter  time.Time // inclusive
	States     []State   // empty: the open ones
	IDs        []string  // queue or decision ids
	Limit      int       // 0: all, at most MaxLimit
}

// Hold is a message that the guard held, as the journal knows it.
type Hold struct {
	QueueID      string
	DecisionID   string // empty if no decision made it
	Account      string
	Rule         string
	Reason       string
	MailFrom     string
	Arrival      time.Time // in the queue; zero: nobody has looked yet
	HeldAt       time.Time
	Size         int64
	Recipients   int
	Domains      map[string]int
	State        State
	Changed      time.Time
	ChangedBy    string
	ChangeReason string
	NewQueueID   string
	Waits        json.RawMessage // of the decision that opened it, until it is released or deleted; nil: it is not released paced
	ChargeID     string          // of the step that paid for its release
	Site         string
	Plugin       string
	Template     string // what its text looks like
}

// Delivered counts the log lines about a message's recipients by their outcome.
type Delivered struct {
	Sent     int64
	Deferred int64
	Bounced  int64
	Expired  int64
}

// Explanation is all that is known under one id.
type Explanation struct {
	Decision  Decision // without an ID if a hold is known only
	Delivered Delivered
	Holds     []Hold // newest first
}

// Total counts an account's answers of one day (UTC). A message counts with its
// recipients; an answer at RCPT as one recipient and no message.
type Total struct {
	Day        time.Time
	Account    string
	Verdict    policy.Verdict
	Messages   int64
	Recipients int64
}

// store answers queries from one database. Safe for concurrent use.
type store struct {
	db   *sql.DB
	past int // the version of an older one; 0: today's
}

// lacks reports whether there is not yet what that version brought: labels of
// decisions and totals by them (4), volumes, troubles, first-time recipients and what is
// beside in totals (5).
func (s store) lacks(version int) bool { return s.past != 0 && s.past < version }

// condition collects the parts of a WHERE.
type condition struct {
	parts []string
	args  []any
}

func (c *condition) add(part string, args ...any) {
	c.parts = append(c.parts, part)
	c.args = append(c.args, args...)
}

func (c *condition) equal(column, value string) {
	if value != "" {
		c.add(column+" = ?", value)
	}
}

// partial is equal for a column whose index leaves out empty texts.
func (c *condition) partial(column, value string) {
	if value != "" {
		c.add(column+" = ? AND "+column+" <> ''", value)
	}
}

func (c *condition) since(column string, t time.Time) {
	if !t.IsZero() {
		c.add(column+" >= ?", micros(t))
	}
}

func (c *condition) until(column string, t time.Time) {
	if !t.IsZero() {
		c.add(column+" < ?", micros(t))
	}
}

func (c *condition) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.parts, " AND ")
}

// among adds column IN (values); the text has nothing of the values in it.
func among[T any](c *condition, column string, values []T) {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	c.add(column+" IN ("+placeholders(len(values))+")", args...)
}

func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

func bounded(limit, standard int) int {
	if limit <= 0 {
		limit = standard
	}
	return min(limit, MaxLimit)
}

const decisionColumns = `id, time, stage, verdict, rule, reason, reply, phase, listener, role, account, confidence, login, login_by,
	local_user, network, client_ip, client_name, helo, uid, mail_from, header_from, message_id, queue_id, size, recipients,
	domains, findings, counters, repeats, last_repeat, late, sent, deferred, bounced, expired, `

// labelColumns are what decisionColumns goes on with; oldLabels stand for them in
// a database that does not have them.
const (
	labelColumns = `site, site_by, plugin, plugin_by, node, template, entry, script, web_client, pool, software`
	oldLabels    = `'', '', '', '', '', '', '', '', '', '', ''`
)

func scanDecision(rows *sql.Rows) (d Decision, out Delivered, err error) {
	var at, last int64
	var verdict, phase, role, domains, findings, counters string
	err = rows.Scan(&d.ID, &at, &d.Stage, &verdict, &d.Rule, &d.Reason, &d.Reply, &phase, &d.Listener, &role, &d.Account,
		&d.Confidence, &d.Login, &d.LoginBy, &d.LocalUser, &d.Network, &d.ClientIP, &d.ClientName, &d.Helo, &d.UID, &d.MailFrom,
		&d.HeaderFrom, &d.MessageID, &d.QueueID, &d.Size, &d.Recipients, &domains, &findings, &counters, &d.Repeats, &last, &d.Late,
		&out.Sent, &out.Deferred, &out.Bounced, &out.Expired, &d.Site, &d.SiteBy, &d.Plugin, &d.PluginBy, &d.Node, &d.Template, &d.Entry,
		&d.Script, &d.WebClient, &d.Pool, &d.Software)
	if err != nil {
		return d, out, err
	}
	d.Time, d.LastRepeat = moment(at), moment(last)
	d.Verdict, _ = policy.ParseVerdict(verdict)
	d.Phase, _ = policy.ParsePhase(phase)
	d.Role, _ = policy.ParseRole(role)
	var f []wireFinding
	var c []wireCounter
	if err := errors.Join(fromText(domains, &d.Domains), fromText(findings, &f), fromText(counters, &c)); err != nil {
		return d, out, fmt.Errorf("%w: decision %s: %w", errBroken, d.ID, err)
	}
	d.Findings, d.Counters = findingsOf(f), countersOf(c)
	return d, out, nil
}

func fromText(text string, v any) error {
	if text == "" {
		return nil
	}
	return json.Unmarshal([]byte(text), v)
}

// accountOfLogin is what the account of a login begins with.
const accountOfLogin = string(origin.KindLogin) + ":"

// place is where a page ends: the last decision of the page before.
type place struct {
	time time.Time // zero if the decision is not known
	id   string
}

// decisions gives them newest first, from before on.
func (s store) decisions(ctx context.Context, q Query, before place) ([]Decision, error) {
	if s.lacks(4) && (q.Site != "" || q.Plugin != "" || q.Template != "" || q.Node != "") {
		return nil, nil
	}
	var c condition
	c.equal("account", q.Account)
	if q.Login != "" { // whoever logged in is the account: that has an index
		c.add("account = ? AND login = ?", accountOfLogin+q.Login, q.Login)
	}
	c.equal("local_user", q.LocalUser)
	c.equal("stage", q.Stage)
	c.equal("client_ip", q.ClientIP)
	c.partial("rule", q.Rule)
	c.partial("queue_id", q.QueueID)
	c.partial("message_id", q.MessageID)
	c.partial("site", q.Site)
	c.partial("plugin", q.Plugin)
	c.partial("template", q.Template)
	c.partial("node", q.Node)
	c.since("time", q.Since)
	c.until("time", q.Until)
	switch {
	case strings.HasPrefix(q.Address, "@"):
		n := -utf8.RuneCountInString(q.Address)
		c.add("(substr(mail_from, ?) = ? COLLATE NOCASE OR substr(header_from, ?) = ? COLLATE NOCASE)", n, q.Address, n, q.Address)
	case q.Address != "":
		c.add("(mail_from = ? OR header_from = ?)", q.Address, q.Address) // From has no index: by time
	}
	if len(q.Verdicts) > 0 {
		names := make([]string, len(q.Verdicts))
		for i, v := range q.Verdicts {
			names[i] = v.String()
		}
		among(&c, "verdict", names)
	}
	switch {
	case !before.time.IsZero():
		c.add("(time, id) < (?, ?)", micros(before.time), before.id)
	case before.id != "": // deleted meanwhile: ids sort by time, too
		c.add("id < ?", before.id)
	}
	found, err := s.explanations(ctx, c.where()+" ORDER BY time DESC, id DESC LIMIT ?", append(c.args, bounded(q.Limit, DefaultLimit))...)
	decisions := make([]Decision, len(found))
	for i := range found {
		decisions[i] = found[i].Decision
	}
	return decisions, err
}

// explanations selects decisions by the rest of a statement.
func (s store) explanations(ctx context.Context, rest string, args ...any) ([]Explanation, error) {
	var found []Explanation
	labels := labelColumns
	if s.lacks(4) {
		labels = oldLabels
	}
	err := s.each(ctx, "SELECT "+decisionColumns+labels+" FROM decision"+rest, args, func(rows *sql.Rows) error {
		d, delivered, err := scanDecision(rows)
		found = append(found, Explanation{Decision: d, Delivered: delivered})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("search decisions: %w", err)
	}
	return found, nil
}

// timeOf is when a decision was made, zero if it is not known.
func (s store) timeOf(ctx context.Context, id string) (time.Time, error) {
	var at int64
	err := s.db.QueryRowContext(ctx, "SELECT time FROM decision WHERE id = ?", id).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return moment(at), err
}

// each runs a query and hands over its rows.
func (s store) each(ctx context.Context, text string, args []any, row func(*sql.Rows) error) error {
	rows, err := s.db.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	for err == nil && rows.Next() {
		err = row(rows)
	}
	return closeRows(rows, err)
}

// explain finds decisions by id, by queue id, and by the queue id that a hold
// was requeued under, newest first.
func (s store) explain(ctx context.Context, id string) ([]Explanation, error) {
	if id == "" {
		return nil, nil
	}
	found, err := s.explanations(ctx, ` WHERE n IN (SELECT n FROM decision WHERE id = ?1
		UNION SELECT n FROM decision WHERE queue_id = ?1 AND queue_id <> ''
		UNION SELECT n FROM decision WHERE id IN (SELECT decision_id FROM hold WHERE new_queue_id = ?1 AND new_queue_id <> '')
		UNION SELECT n FROM decision WHERE id IN (SELECT decision_id FROM hold WHERE queue_id = ?1)
		) ORDER BY time DESC, id DESC LIMIT ?2`, id, DefaultLimit)
	if err != nil {
		return nil, err
	}
	return found, nil
}

// addHolds completes explanations of id with the holds among holds, which are
// newest first. Holds without a decision are explanations of their own.
func addHolds(found []Explanation, holds []Hold) []Explanation {
	for _, h := range holds {
		i := slices.IndexFunc(found, func(e Explanation) bool { return h.DecisionID != "" && e.Decision.ID == h.DecisionID })
		if i < 0 {
			found = append(found, Explanation{Holds: []Hold{h}})
			continue
		}
		found[i].Holds = append(found[i].Holds, h)
	}
	slices.SortStableFunc(found, func(a, b Explanation) int { return b.time().Compare(a.time()) })
	return found
}

func (e *Explanation) time() time.Time {
	if e.Decision.ID == "" {
		return e.Holds[0].HeldAt
	}
	return e.Decision.Time
}

// holdsOf gives the holds known by an id or of these decisions, newest first.
func (s store) holdsOf(ctx context.Context, id string, found []Explanation) ([]Hold, error) {
	ids := []string{id}
	for _, e := range found {
		ids = append(ids, e.Decision.ID)
	}
	return s.holds(ctx, HoldQuery{IDs: ids, States: allStates, Limit: 10 * DefaultLimit})
}

var allStates = []State{StateHeld, StateReleasing, StateDeleting, StateReleased, StateDeleted, StateGone}

const holdColumns = `queue_id, decision_id, account, rule, reason, mail_from, arrival, held_at, size, recipients, domains, state,
	changed, changed_by, change_reason, new_queue_id, waits, charge_id, site, plugin, template`

func scanHold(rows *sql.Rows) (h Hold, err error) {
	var arrival, heldAt, changed int64
	var domains, waits string
	err = rows.Scan(&h.QueueID, &h.DecisionID, &h.Account, &h.Rule, &h.Reason, &h.MailFrom, &arrival, &heldAt, &h.Size,
		&h.Recipients, &domains, &h.State, &changed, &h.ChangedBy, &h.ChangeReason, &h.NewQueueID,
		&waits, &h.ChargeID, &h.Site, &h.Plugin, &h.Template)
	if err != nil {
		return h, err
	}
	if waits != "" {
		h.Waits = json.RawMessage(waits)
	}
	h.Arrival, h.HeldAt, h.Changed = moment(arrival), moment(heldAt), moment(changed)
	if err := fromText(domains, &h.Domains); err != nil {
		return h, fmt.Errorf("%w: hold of %s: %w", errBroken, h.QueueID, err)
	}
	return h, nil
}

// condition is the WHERE of holds.
func (q *HoldQuery) condition() (c condition, err error) {
	c.equal("account", q.Account)
	if q.Login != "" {
		c.equal("account", accountOfLogin+q.Login)
	}
	if q.LocalUser != "" {
		c.equal("account", string(origin.KindLocalUser)+":"+q.LocalUser)
	}
	c.equal("rule", q.Rule)
	c.equal("site", q.Site)
	c.equal("plugin", q.Plugin)
	c.equal("template", q.Template)
	c.until("held_at", q.HeldBefore)
	c.since("held_at", q.HeldAfter)
	if len(q.States) == 0 {
		c.add(openStates)
	} else {
		among(&c, "state", q.States)
	}
	if len(q.IDs) > 0 {
		ids, err := json.Marshal(q.IDs) // there may be more than a statement takes parameters
		if err != nil {
			return c, err
		}
		c.add(`n IN (SELECT hold.n FROM json_each(?) JOIN hold ON queue_id = json_each.value
			UNION SELECT hold.n FROM json_each(?) JOIN hold ON decision_id = json_each.value AND decision_id <> ''
			UNION SELECT hold.n FROM json_each(?) JOIN hold ON new_queue_id = json_each.value AND new_queue_id <> '')`,
			string(ids), string(ids), string(ids))
	}
	return c, nil
}

func (s store) holds(ctx context.Context, q HoldQuery) ([]Hold, error) {
	c, err := q.condition()
	if err != nil {
		return nil, err
	}
	var found []Hold
	err = s.each(ctx, "SELECT "+holdColumns+" FROM hold"+c.where()+" ORDER BY held_at DESC, n DESC LIMIT ?",
		append(c.args, bounded(q.Limit, MaxLimit)), func(rows *sql.Rows) error {
			h, err := scanHold(rows)
			found = append(found, h)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("search holds: %w", err)
	}
	return found, nil
}

func (s store) actions(ctx context.Context, limit int) ([]AdminAction, error) {
	var found []AdminAction
	err := s.each(ctx, `SELECT time, by, uid, login_uid, verb, target, reason, outcome FROM admin_action
		ORDER BY time DESC, n DESC LIMIT ?`, []any{bounded(limit, DefaultLimit)}, func(rows *sql.Rows) error {
		var a AdminAction
		var at int64
		err := rows.Scan(&at, &a.By, &a.UID, &a.LoginUID, &a.Verb, &a.Target, &a.Reason, &a.Outcome)
		a.Time = moment(at)
		found = append(found, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("search admin actions: %w", err)
	}
	return found, nil
}

func (s store) incidents(ctx context.Context, openOnly bool) ([]Incident, error) {
	var found []Incident
	err := s.each(ctx, `SELECT id, origin, cause, noticed, opened, updated, closed, stops, recipients, state, account, addresses FROM incident
		WHERE NOT ? OR closed = 0 ORDER BY closed <> 0, opened DESC, id DESC LIMIT ?`, []any{openOnly, MaxLimit}, func(rows *sql.Rows) error {
		var i Incident
		var opened, updated, closed int64
		var state, addresses string
		if err := rows.Scan(&i.ID, &i.Origin, &i.Cause, &i.Noticed, &opened, &updated, &closed, &i.Stops, &i.Recipients, &state, &i.Account, &addresses); err != nil {
			return err
		}
		i.Opened, i.Updated, i.Closed = moment(opened), moment(updated), moment(closed)
		if state != "" {
			i.State = json.RawMessage(state)
		}
		if addresses != "" {
			i.Addresses = json.RawMessage(addresses)
		}
		found = append(found, i)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("search incidents: %w", err)
	}
	return found, nil
}

func (s store) value(ctx context.Context, name string) (value string, found bool, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT value FROM value WHERE name = ?", name).Scan(&value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("read value %q: %w", name, err)
	}
	return value, true, nil
}

func (s store) totals(ctx context.Context, account string, since, until time.Time) ([]Total, error) {
	var c condition
	c.equal("account", account)
	if !since.IsZero() {
		c.add("day >= ?", day(micros(since)))
	}
	if !until.IsZero() {
		c.add("day <= ?", day(micros(until)))
	}
	var found []Total
	err := s.each(ctx, "SELECT day, account, verdict, messages, recipients FROM total"+c.where()+" ORDER BY day DESC, account, verdict LIMIT ?",
		append(c.args, MaxLimit), func(rows *sql.Rows) error {
			var t Total
			var days int64
			var verdict string
			err := rows.Scan(&days, &t.Account, &verdict, &t.Messages, &t.Recipients)
			t.Day = time.Unix(days*int64(dayLength/time.Second), 0).UTC()
			t.Verdict, _ = policy.ParseVerdict(verdict)
			found = append(found, t)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("read totals: %w", err)
	}
	return found, nil
}
