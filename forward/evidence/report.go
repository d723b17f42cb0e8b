package evidence

import (
	"context"
	"fmt"
	"time"
)

// Report is what a company needs to size and report what left by a rule, as of now.
func (s *Store) Report(ctx context.Context, id string, now time.Time) (Report, error) {
	n, err := s.numbers(ctx, id)
	if err != nil {
		return Report{}, err
	}
	r := Report{ID: id, From: timeOf(n.first), To: timeOf(n.last), Mails: n.mails, Certain: n.certain, Likely: n.likely,
		Possible: n.mails - n.certain - n.likely, DistinctSenders: n.senders, Delivered: n.sent, Bounced: n.bounced, Deferred: n.deferred, Handed: n.handed}
	if r.Targets, err = s.targets(ctx, id); err != nil {
		return r, err
	}
	if r.Gaps, err = s.Gaps(ctx); err != nil {
		return r, err
	}
	since, err := s.since(ctx)
	if err != nil {
		return r, err
	}
	r.known(now)
	r.notKnown(n, since, s.o.KeepMails)
	unclear, err := s.unclear(ctx, n)
	if unclear > 0 {
		r.NotKnown = append(r.NotKnown, fmt.Sprintf("%d log lines of those days could not be read for certain and count for nothing", unclear))
	}
	return r, err
}

func (r *Report) known(now time.Time) {
	stamp := now.UTC().Format(time.RFC3339)
	if r.Mails == 0 {
		r.Known = append(r.Known, "as of "+stamp+" the log shows no mail that left by this rule")
		return
	}
	r.Known = append(r.Known, fmt.Sprintf("as of %s, %d mails left by this rule, the first at %s, the last at %s",
		stamp, r.Mails, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339)))
	r.Known = append(r.Known, fmt.Sprintf("of those, %d were taken by the next server, %d were returned, %d still wait, %d were given to a program or script",
		r.Delivered, r.Bounced, r.Deferred, r.Handed))
	r.Known = append(r.Known, fmt.Sprintf("%d are certain by the mail server's own words, %d likely, %d possible", r.Certain, r.Likely, r.Possible))
}

func (r *Report) notKnown(n numbers, since time.Time, keep time.Duration) {
	add := func(format string, args ...any) { r.NotKnown = append(r.NotKnown, fmt.Sprintf(format, args...)) }
	if since.IsZero() {
		add("no log was read yet")
	} else {
		add("what left before %s: the log that was read begins there", since.Format(time.RFC3339))
	}
	for _, g := range r.Gaps {
		from := "not known when"
		if !g.From.IsZero() {
			from = g.From.UTC().Format(time.RFC3339)
		}
		add("evidence incomplete from %s to %s: %s", from, g.To.UTC().Format(time.RFC3339), g.Why)
	}
	if n.deleted > 0 {
		add("senders, ids and addresses of %d mails: they are older than %d days and only counted", n.deleted, int(keep/(24*time.Hour)))
	}
	if r.Handed > 0 {
		add("what became of %d mails behind the program or script that got them", r.Handed)
	}
	if r.Mails > 0 {
		add("what the mails contained, and who read them where they went")
	}
}

// targets are where the mails of a rule went, at most 100.
func (s *Store) targets(ctx context.Context, id string) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT DISTINCT rcpt FROM cites JOIN mail ON mail.n = cites.mail WHERE cites.rule = ? ORDER BY rcpt LIMIT 100", id)
	if err != nil {
		return nil, fmt.Errorf("read evidence for %s: %w", id, err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var to string
		if err := rows.Scan(&to); err != nil {
			return nil, fmt.Errorf("read evidence for %s: %w", id, err)
		}
		all = append(all, to)
	}
	return all, rows.Err()
}

// unclear counts the lines of the days of a rule's mails that could not be read.
func (s *Store) unclear(ctx context.Context, n numbers) (lines int, err error) {
	const day = 86400 * 1_000_000
	err = s.read.QueryRowContext(ctx, "SELECT coalesce(sum(lines), 0) FROM unclear WHERE day BETWEEN ? AND ?", n.first/day, n.last/day).Scan(&lines)
	if err != nil {
		err = fmt.Errorf("read evidence: %w", err)
	}
	return lines, err
}
