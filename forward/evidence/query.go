package evidence

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// columns are those of a Mail; scanMail reads them.
const columns = `mail.n, queue_id, root_id, message_id, time, mail_from, outside, orig, rcpt, relay, status, dsn, how, sure`

func scanMail(rows *sql.Rows) (n int64, m Mail, err error) {
	var at int64
	var from, how string
	var sure int
	err = rows.Scan(&n, &m.QueueID, &m.RootID, &m.MessageID, &at, &from, &m.Outside, &m.OrigTo, &m.RcptTo, &m.Relay, &m.Status, &m.DSN, &how, &sure)
	m.Time, m.How, m.Sure = timeOf(at), How(how), Sure(sure)
	if at := strings.LastIndexByte(from, '@'); at >= 0 {
		m.SenderDomain = from[at+1:]
	}
	return n, m, err
}

// Mails lists what left by a rule from since until before until, the oldest first,
// at most limit (0: 1,000). Zero times: no bound. Older ones than KeepMails are counted
// in Summary alone.
func (s *Store) Mails(ctx context.Context, id string, since, until time.Time, limit int) ([]Mail, error) {
	return s.mails(ctx, "mail JOIN cites ON cites.mail = mail.n AND cites.rule = ?1", id, since, until, limit)
}

// UnexplainedMails lists the mails of one Flow the same way.
func (s *Store) UnexplainedMails(ctx context.Context, origTo, rcptTo string, since, until time.Time, limit int) ([]Mail, error) {
	return s.mails(ctx, "mail", "", since, until, limit, addressKey(origTo), key(rcptTo))
}

const defaultLimit = 1000

func (s *Store) mails(ctx context.Context, from, id string, since, until time.Time, limit int, flow ...any) ([]Mail, error) {
	if limit <= 0 {
		limit = defaultLimit
	}
	where := ""
	args := []any{id, micros(since), micros(until), limit}
	if len(flow) > 0 {
		where = " AND cited = 0 AND orig = ?5 AND rcpt = ?6"
		args = append(args, flow...)
	}
	rows, err := s.read.QueryContext(ctx, "SELECT "+columns+" FROM "+from+
		" WHERE ?1 IS NOT NULL AND time >= ?2 AND (?3 = 0 OR time < ?3)"+where+" ORDER BY time, mail.n LIMIT ?4", args...)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	defer rows.Close()
	var all []Mail
	var numbers []int64
	for rows.Next() {
		n, m, err := scanMail(rows)
		if err != nil {
			return nil, fmt.Errorf("read evidence: %w", err)
		}
		all, numbers = append(all, m), append(numbers, n)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	rows.Close()
	for i := range all {
		if all[i].Rules, err = s.cited(ctx, numbers[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// cited are the rules of a row.
func (s *Store) cited(ctx context.Context, n int64) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT rule FROM cites WHERE mail = ? ORDER BY rule", n)
	if err != nil {
		return nil, fmt.Errorf("read evidence: %w", err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read evidence: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// numbers are the sums over a rule's mails, deleted ones among them.
type numbers struct {
	mails, certain, likely, sent, bounced, deferred, handed, senders int
	first, last                                                      int64
	deleted                                                          int // of mails
}

func (s *Store) numbers(ctx context.Context, id string) (n numbers, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(sure = 3), 0), coalesce(sum(sure = 2), 0), coalesce(sum(status = 'sent'), 0),
		coalesce(sum(status IN ('bounced', 'expired')), 0), coalesce(sum(status = 'deferred'), 0), coalesce(sum(status = 'handed'), 0),
		count(DISTINCT CASE WHEN outside THEN mail_from END), coalesce(min(time), 0), coalesce(max(time), 0)
		FROM cites JOIN mail ON mail.n = cites.mail WHERE cites.rule = ?`, id).
		Scan(&n.mails, &n.certain, &n.likely, &n.sent, &n.bounced, &n.deferred, &n.handed, &n.senders, &n.first, &n.last)
	if err != nil {
		return n, fmt.Errorf("read evidence for %s: %w", id, err)
	}
	var old numbers
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(sum(mails), 0), coalesce(sum(certain), 0), coalesce(sum(likely), 0), coalesce(sum(sent), 0), coalesce(sum(bounced), 0),
		coalesce(sum(deferred), 0), coalesce(min(first), 0), coalesce(max(last), 0) FROM total WHERE rule = ?`, id).
		Scan(&old.mails, &old.certain, &old.likely, &old.sent, &old.bounced, &old.deferred, &old.first, &old.last)
	if err != nil {
		return n, fmt.Errorf("read evidence for %s: %w", id, err)
	}
	if old.mails == 0 {
		return n, nil
	}
	n.deleted = old.mails
	n.mails, n.certain, n.likely = n.mails+old.mails, n.certain+old.certain, n.likely+old.likely
	n.sent, n.bounced, n.deferred = n.sent+old.sent, n.bounced+old.bounced, n.deferred+old.deferred
	n.handed += old.mails - old.sent - old.bounced - old.deferred
	if n.first == 0 || old.first < n.first {
		n.first = old.first
	}
	n.last = max(n.last, old.last)
	return n, nil
}

// Summary is the evidence for one rule in short.
func (s *Store) Summary(ctx context.Context, id string) (Summary, error) {
	n, err := s.numbers(ctx, id)
	if err != nil {
		return Summary{}, err
	}
	sum := Summary{ID: id, First: timeOf(n.first), Last: timeOf(n.last), Mails: n.mails}
	switch {
	case n.certain > 0:
		sum.Sure = Certain
	case n.likely > 0:
		sum.Sure = Likely
	case n.mails > 0:
		sum.Sure = Possible
	}
	if sum.Since, err = s.since(ctx); err != nil {
		return sum, err
	}
	sum.Gaps, err = s.Gaps(ctx)
	return sum, err
}

// since is of what time the oldest evidence is.
func (s *Store) since(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	if err := s.read.QueryRowContext(ctx, "SELECT max(time) FROM began").Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read evidence: %w", err)
	}
	return timeOf(at.Int64), nil
}

// Gaps are the times of which the evidence is incomplete, the oldest first.
func (s *Store) Gaps(ctx context.Context) ([]Gap, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT since, until, why FROM gap ORDER BY until, n")
	if err != nil {
		return nil, fmt.Errorf("read gaps of the evidence: %w", err)
	}
	defer rows.Close()
	var all []Gap
	for rows.Next() {
		var since, until int64
		var g Gap
		if err := rows.Scan(&since, &until, &g.Why); err != nil {
			return nil, fmt.Errorf("read gaps of the evidence: %w", err)
		}
		g.From, g.To = timeOf(since), timeOf(until)
		all = append(all, g)
	}
	return all, rows.Err()
}

// Unexplained is the mail from since on that left with no rule behind it.
func (s *Store) Unexplained(ctx context.Context, since time.Time) ([]Flow, error) {
	// SQLite takes bare columns from the row of the max().
	rows, err := s.read.QueryContext(ctx, `SELECT orig, rcpt, min(time), max(time), count(*), sum(outside), max(sure), how, queue_id
		FROM mail WHERE cited = 0 AND time >= ?1 GROUP BY orig, rcpt ORDER BY min(time), orig, rcpt LIMIT ?2`, micros(since), maxFlows)
	if err != nil {
		return nil, fmt.Errorf("read unexplained mail: %w", err)
	}
	defer rows.Close()
	var all []Flow
	for rows.Next() {
		var f Flow
		var first, last int64
		var sure int
		var how string
		if err := rows.Scan(&f.OrigTo, &f.RcptTo, &first, &last, &f.Mails, &f.Outside, &sure, &how, &f.QueueID); err != nil {
			return nil, fmt.Errorf("read unexplained mail: %w", err)
		}
		f.First, f.Last, f.Sure, f.How = timeOf(first), timeOf(last), Sure(sure), How(how)
		all = append(all, f)
	}
	return all, rows.Err()
}

// maxFlows bounds one answer of Unexplained.
const maxFlows = 10_000

// Relays are the next hops that took mail for inside addresses, the newest first: one
// that was never seen before is worth a look.
func (s *Store) Relays(ctx context.Context) ([]Relay, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT program, relay, first, last, mails FROM relay ORDER BY first DESC, program, relay LIMIT ?1", maxFlows)
	if err != nil {
		return nil, fmt.Errorf("read next hops: %w", err)
	}
	defer rows.Close()
	var all []Relay
	for rows.Next() {
		var r Relay
		var first, last int64
		if err := rows.Scan(&r.Program, &r.Relay, &first, &last, &r.Mails); err != nil {
			return nil, fmt.Errorf("read next hops: %w", err)
		}
		r.First, r.Last = timeOf(first), timeOf(last)
		all = append(all, r)
	}
	return all, rows.Err()
}
