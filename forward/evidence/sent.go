package evidence

import (
	"context"
	"fmt"
	"time"
)

// Sent is how many mails left by one rule in a time. A mail that went by several
// rules counts for each.
type Sent struct {
	ID     string    `json:"id"`     // of the finding
	Owner  string    `json:"owner"`  // an inside address that mail came to; of several one. Empty: the log names none
	Target string    `json:"target"` // where it went; of several one
	Mails  int       `json:"mails"`
	Taken  int       `json:"taken"` // by the next server
	Back   int       `json:"back"`  // bounced or expired
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
}

// maxSent bounds one answer.
const maxSent = 10_000

// Sent counts what left by each rule from since until before until, the most first.
// Zero times: no bound. Mails older than KeepMails are not in it: Summary has them.
func (s *Store) Sent(ctx context.Context, since, until time.Time) ([]Sent, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT rule, max(orig), max(rcpt), count(*), sum(status = 'sent'), sum(status IN ('bounced', 'expired')), min(time), max(time)
		FROM mail CROSS JOIN cites ON cites.mail = mail.n
		WHERE time >= ?1 AND (?2 = 0 OR time < ?2) GROUP BY rule ORDER BY count(*) DESC, rule LIMIT ?3`, micros(since), micros(until), maxSent)
	if err != nil {
		return nil, fmt.Errorf("count what left by rules: %w", err)
	}
	defer rows.Close()
	var all []Sent
	for rows.Next() {
		var one Sent
		var first, last int64
		if err := rows.Scan(&one.ID, &one.Owner, &one.Target, &one.Mails, &one.Taken, &one.Back, &first, &last); err != nil {
			return nil, fmt.Errorf("count what left by rules: %w", err)
		}
		one.First, one.Last = timeOf(first), timeOf(last)
		all = append(all, one)
	}
	return all, rows.Err()
}

// GapsBetween are the Gaps that have a part from since until before until. Zero
// times: no bound.
func (s *Store) GapsBetween(ctx context.Context, since, until time.Time) ([]Gap, error) {
	all, err := s.Gaps(ctx)
	if err != nil {
		return nil, err
	}
	var between []Gap
	for _, g := range all {
		if (g.To.IsZero() || since.IsZero() || !g.To.Before(since)) && (until.IsZero() || g.From.Before(until)) {
			between = append(between, g)
		}
	}
	return between, nil
}
