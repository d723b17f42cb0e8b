package journal

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"relayguard/policy"
)

// statements of the writing side, by what they do.
var statements = [...]string{
	insertDecision: `INSERT INTO decision (id, time, stage, verdict, rule, reason, reply, phase, listener, role,
		account, confidence, login, login_by, local_user, network, client_ip, client_name, helo, uid,
		mail_from, header_from, message_id, queue_id, size, recipients, domains, findings, counters, repeats, last_repeat, late,
		site, site_by, plugin, plugin_by, node, template, entry, script, web_client, pool, software, first_time)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING`,
	addTotal: `INSERT INTO total (day, account, verdict, messages, recipients, beside) VALUES (?,?,?,?,?,?)
		ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, recipients = recipients + excluded.recipients, beside = beside + excluded.beside`,
	addLabelTotal: `INSERT INTO label_total (day, site, plugin, plugin_by, account, verdict, messages, recipients, first, last, beside)
		VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?9,?10) ON CONFLICT DO UPDATE SET messages = messages + excluded.messages,
		recipients = recipients + excluded.recipients, beside = beside + excluded.beside, first = min(first, excluded.first), last = max(last, excluded.last)`,
	addVolume: `INSERT INTO volume (slot, verdict, messages, recipients) VALUES (?,?,?,?)
		ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, recipients = recipients + excluded.recipients`,
	addRepeat: `UPDATE decision SET repeats = repeats + ?, last_repeat = max(last_repeat, ?) WHERE id = ?
		RETURNING time, account, verdict, stage, role, recipients, site, site_by, plugin, plugin_by`,
	findHold: `SELECT n, state, queue_id FROM hold WHERE queue_id = ? AND decision_id = ? ORDER BY n DESC LIMIT 1`,
	findHoldOfDecision: `SELECT n, state, queue_id FROM hold WHERE decision_id = ? AND decision_id <> '' AND queue_id = ''
		ORDER BY n DESC LIMIT 1`,
	insertHold: `INSERT INTO hold (queue_id, decision_id, account, rule, reason, mail_from, arrival, held_at, size, recipients,
		domains, state, changed, site, plugin, template) SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,'held',?12,
		iif(?13 <> '', ?13, coalesce((SELECT site FROM decision WHERE id = ?2), '')), iif(?14 <> '', ?14, coalesce((SELECT plugin FROM decision WHERE id = ?2), '')),
		iif(?15 <> '', ?15, coalesce((SELECT template FROM decision WHERE id = ?2), ''))`,
	// A hold that was saved from a broken database is there before its decision.
	openHold: `INSERT INTO hold (queue_id, decision_id, account, rule, reason, mail_from, arrival, held_at, size, recipients,
		domains, state, changed, waits, site, plugin, template) SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,'held',?12,?13,
		iif(?14 <> '', ?14, coalesce((SELECT site FROM decision WHERE id = ?2), '')), iif(?15 <> '', ?15, coalesce((SELECT plugin FROM decision WHERE id = ?2), '')),
		iif(?16 <> '', ?16, coalesce((SELECT template FROM decision WHERE id = ?2), ''))
		WHERE NOT EXISTS (SELECT 1 FROM hold WHERE decision_id = ?2 AND decision_id <> '')`,
	updateHold: `UPDATE hold SET queue_id = ?, account = ?, rule = ?, reason = ?, mail_from = ?, arrival = ?, held_at = ?,
		size = ?, recipients = ?, domains = ?, state = 'held',
		site = iif(?12 = '', site, ?12), plugin = iif(?13 = '', plugin, ?13), template = iif(?14 = '', template, ?14) WHERE n = ?11`,
	// What a message waited for says to whom it goes, if only in digests: it goes
	// with the message.
	changeHold: `UPDATE hold SET queue_id = ?, state = ?2, changed = ?, changed_by = ?, change_reason = ?,
		new_queue_id = iif(?6 = '', new_queue_id, ?6), arrival = iif(?7 = 0, arrival, ?7),
		charge_id = iif(?8 = '', charge_id, ?8), waits = iif(?2 IN ('released', 'deleted'), '', waits) WHERE n = ?9`,
	// What was saved from a broken database has an n below 1, and may be in the log
	// that is left as well.
	insertAction: `INSERT INTO admin_action (n, time, by, uid, login_uid, verb, target, reason, outcome)
		SELECT max(1, coalesce((SELECT max(n) FROM admin_action), 0) + 1),?1,?2,?3,?4,?5,?6,?7,?8
		WHERE NOT EXISTS (SELECT 1 FROM admin_action WHERE time = ?1 AND n < 1 AND by = ?2 AND uid = ?3 AND login_uid = ?4
			AND verb = ?5 AND target = ?6 AND reason = ?7 AND outcome = ?8)`,
	putIncident: `INSERT INTO incident (id, origin, cause, noticed, opened, updated, closed, stops, recipients, state, account, addresses)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET origin = excluded.origin, cause = excluded.cause,
		noticed = excluded.noticed, opened = excluded.opened, updated = excluded.updated, closed = excluded.closed,
		stops = excluded.stops, recipients = excluded.recipients, state = excluded.state,
		account = excluded.account, addresses = excluded.addresses`,
	putValue: `INSERT INTO value (name, value) VALUES (?,?) ON CONFLICT DO UPDATE SET value = excluded.value`,
	// A queue id belongs to the newest decision that had it, or whose hold was
	// requeued under it.
	addDelivery: `UPDATE decision SET sent = sent + ?1, deferred = deferred + ?2, bounced = bounced + ?3, expired = expired + ?4
		WHERE n = coalesce(
			(SELECT n FROM decision WHERE queue_id = ?5 AND queue_id <> '' AND time <= ?6 ORDER BY time DESC, n DESC LIMIT 1),
			(SELECT decision.n FROM hold JOIN decision ON decision.id = hold.decision_id
				WHERE hold.new_queue_id = ?5 AND hold.new_queue_id <> '' AND hold.changed <= ?6 ORDER BY hold.n DESC LIMIT 1))`,
	putTrouble:    `INSERT INTO trouble (what, why, since, until) VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET why = excluded.why, until = excluded.until`,
	setCheckpoint: `UPDATE checkpoint SET segment = ?, offset = ?`,
}

const (
	insertDecision = iota
	addTotal
	addLabelTotal
	addVolume
	addRepeat
	findHold
	findHoldOfDecision
	insertHold
	openHold
	updateHold
	changeHold
	insertAction
	putIncident
	putValue
	addDelivery
	putTrouble
	setCheckpoint
)

// deliverySlack is how much younger than a line of the MTA's log, which may have
// whole seconds only, the decision about the same message can be.
const deliverySlack = 10 * time.Second

// applier turns records into rows, on one connection. It is not safe for
// concurrent use.
type applier struct {
	conn     *sql.Conn
	prepared [len(statements)]*sql.Stmt
	scratch  []byte
}

func newApplier(ctx context.Context, conn *sql.Conn) (*applier, error) {
	a := &applier{conn: conn}
	for i, text := range statements {
		s, err := conn.PrepareContext(ctx, text)
		if err != nil {
			a.close()
			return nil, fmt.Errorf("prepare %.30q: %w", text, err)
		}
		a.prepared[i] = s
	}
	return a, nil
}

func (a *applier) close() {
	for _, s := range a.prepared {
		if s != nil {
			s.Close()
		}
	}
}

func (a *applier) exec(statement int, args ...any) (int64, error) {
	result, err := a.prepared[statement].Exec(args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// apply writes the rows of one record, inside the transaction that is open.
func (a *applier) apply(r Record) error {
	switch r := r.(type) {
	case Decision:
		return a.decision(&r)
	case Repeat:
		return a.repeat(r)
	case Held:
		return a.held(&r)
	case HoldChange:
		return a.holdChange(&r)
	case AdminAction:
		_, err := a.exec(insertAction, micros(r.Time), r.By, r.UID, r.LoginUID, r.Verb, r.Target, r.Reason, r.Outcome)
		return err
	case Incident:
		_, err := a.exec(putIncident, r.ID, r.Origin, r.Cause, r.Noticed, micros(r.Opened), micros(r.Updated), micros(r.Closed),
			r.Stops, r.Recipients, string(r.State), r.Account, string(r.Addresses))
		return err
	case Delivery:
		return a.delivery(r)
	case Trouble:
		_, err := a.exec(putTrouble, r.What, r.Why, micros(r.Since), micros(r.Until))
		return err
	case Value:
		_, err := a.exec(putValue, r.Name, r.Value)
		return err
	case purge:
		return a.purgeAccount(r)
	}
	return nil
}

func (a *applier) decision(d *Decision) error {
	domains := a.domainsText(d.Domains)
	var findings, counters string
	if len(d.Findings) > 0 {
		a.scratch = appendFindings(a.scratch[:0], d.Findings)
		findings = string(a.scratch)
	}
	if len(d.Counters) > 0 {
		a.scratch = appendCounters(a.scratch[:0], d.Counters)
		counters = string(a.scratch)
	}
	at := micros(d.Time)
	verdict := verdictName(d.Verdict)
	added, err := a.exec(insertDecision, d.ID, at, d.Stage, verdict, d.Rule, d.Reason, d.Reply,
		phaseName(d.Phase), d.Listener, roleName(d.Role), d.Account, d.Confidence, d.Login, d.LoginBy, d.LocalUser, d.Network,
		d.ClientIP, d.ClientName, d.Helo, d.UID, d.MailFrom, d.HeaderFrom, d.MessageID, d.QueueID, d.Size, d.Recipients,
		domains, findings, counters, d.Repeats, micros(d.LastRepeat), d.Late,
		d.Site, d.SiteBy, d.Plugin, d.PluginBy, d.Node, d.Template, d.Entry, d.Script, d.WebClient, d.Pool, d.Software, firstTime(d.Counters))
	if err != nil || added == 0 { // known already
		return err
	}
	if err := a.total(at, d.Account, verdict, d.Stage, roleName(d.Role), labelOf(d), int64(d.Recipients), 1+d.Repeats); err != nil {
		return err
	}
	if !d.opensHold() {
		return nil
	}
	const notSeen = 0 // its arrival, before somebody looks into the queue
	_, err = a.exec(openHold, d.QueueID, d.ID, d.Account, d.Rule, d.Reason, d.MailFrom, notSeen, at, d.Size, d.Recipients,
		domains, at, string(d.Waits), d.Site, d.Plugin, d.Template)
	return err
}

// total counts times answers: a message with its recipients, or one recipient
// at RCPT.
func (a *applier) total(at int64, account, verdict, stage, role string, of label, recipients, times int64) error {
	messages := times
	if stage == StageRecipient {
		messages, recipients = 0, 1
	}
	recipients *= times
	beside := int64(0)
	if isBeside(role) {
		beside = recipients
	}
	_, err := a.exec(addTotal, day(at), account, verdict, messages, recipients, beside)
	if err == nil && of != (label{}) {
		_, err = a.exec(addLabelTotal, day(at), of.site, of.plugin, of.pluginBy, account, verdict, messages, recipients, at, beside)
	}
	if err == nil && !isBeside(role) {
		_, err = a.exec(addVolume, slot(at), verdict, messages, recipients)
	}
	return err
}

// isBeside is NOT leaves: see ofReports.
func isBeside(role string) bool {
	return role == policy.Inbound.String() || role == policy.Egress.String()
}

func (a *applier) repeat(r Repeat) error {
	rows, err := a.prepared[addRepeat].Query(r.N, micros(r.Last), r.ID)
	if err != nil {
		return err
	}
	var account, verdict, stage, role string
	var d Decision
	var at, recipients int64
	known := rows.Next()
	if known {
		err = rows.Scan(&at, &account, &verdict, &stage, &role, &recipients, &d.Site, &d.SiteBy, &d.Plugin, &d.PluginBy)
	}
	for rows.Next() { // RETURNING is done when its rows are read
	}
	if err := closeRows(rows, err); err != nil || !known {
		return err
	}
	if !r.Last.IsZero() {
		at = micros(r.Last)
	}
	return a.total(at, account, verdict, stage, role, labelOf(&d), recipients, r.N)
}

func (a *applier) held(h *Held) error {
	n, state, _, err := a.find(h.QueueID, h.DecisionID)
	if err != nil {
		return err
	}
	domains := a.domainsText(h.Domains)
	if n != 0 && state.Open() {
		_, err = a.exec(updateHold, h.QueueID, h.Account, h.Rule, h.Reason, h.MailFrom, micros(h.Arrival), micros(h.HeldAt),
			h.Size, h.Recipients, domains, n, h.Site, h.Plugin, h.Template)
		return err
	}
	_, err = a.exec(insertHold, h.QueueID, h.DecisionID, h.Account, h.Rule, h.Reason, h.MailFrom, micros(h.Arrival),
		micros(h.HeldAt), h.Size, h.Recipients, domains, micros(h.HeldAt), h.Site, h.Plugin, h.Template)
	return err
}

func (a *applier) holdChange(c *HoldChange) error {
	n, state, queueID, err := a.find(c.QueueID, c.DecisionID)
	if err != nil || n == 0 {
		return err
	}
	if done := state == StateReleased || state == StateDeleted; done && c.State != state {
		return nil // what became of it is known; who came later found nothing
	}
	if queueID == "" {
		queueID = c.QueueID
	}
	_, err = a.exec(changeHold, queueID, string(c.State), micros(c.Time), c.By, c.Reason, c.NewQueueID, micros(c.Arrival),
		c.ChargeID, n)
	return err
}

// find gives the newest hold with these ids; n is 0 if there is none.
func (a *applier) find(queueID, decisionID string) (n int64, state State, held string, err error) {
	err = a.prepared[findHold].QueryRow(queueID, decisionID).Scan(&n, &state, &held)
	if err == sql.ErrNoRows { // the MTA had told no queue id when the decision was made
		err = a.prepared[findHoldOfDecision].QueryRow(decisionID).Scan(&n, &state, &held)
	}
	if err == sql.ErrNoRows {
		err = nil
	}
	return n, state, held, err
}

func (a *applier) delivery(d Delivery) error {
	var n [4]int64
	switch d.Status {
	case "sent":
		n[0] = int64(d.N)
	case "deferred":
		n[1] = int64(d.N)
	case "bounced":
		n[2] = int64(d.N)
	case "expired":
		n[3] = int64(d.N)
	default:
		return nil
	}
	_, err := a.exec(addDelivery, n[0], n[1], n[2], n[3], d.QueueID, notAfter(d.Time))
	return err
}

// notAfter bounds the time of decisions that something seen at t can belong to.
func notAfter(t time.Time) int64 {
	if t.IsZero() {
		return 1<<63 - 1
	}
	return micros(t.Add(deliverySlack))
}

func (a *applier) purgeAccount(p purge) error {
	for _, text := range purgeAccountStatements {
		if _, err := a.conn.ExecContext(context.Background(), text, p.Account, micros(p.Time)); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) domainsText(v map[string]int) string {
	if len(v) == 0 {
		return ""
	}
	a.scratch = appendDomains(a.scratch[:0], v)
	return string(a.scratch)
}

// opensHold reports whether the message is in the MTA's hold queue by this
// decision.
func (d *Decision) opensHold() bool {
	return d.Stage == StageMessage && d.Verdict == policy.Hold && !d.Late
}

// day counts days since the epoch, UTC.
func day(us int64) int64 {
	const length = int64(24 * time.Hour / time.Microsecond)
	d := us / length
	if us%length < 0 {
		d--
	}
	return d
}

func closeRows(rows *sql.Rows, err error) error {
	if err == nil {
		err = rows.Err()
	}
	if e := rows.Close(); err == nil {
		err = e
	}
	return err
}
