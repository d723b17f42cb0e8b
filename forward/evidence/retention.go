package evidence

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// purgeChunk is how many rows one transaction deletes, so that it is short.
const purgeChunk = 500

// Purge deletes what is older than is kept: of mails their numbers stay, by rule and
// day. Run does it every hour.
func (s *Store) Purge(ctx context.Context, now time.Time) error {
	for {
		deleted, err := s.purgeMails(ctx, micros(now.Add(-s.o.KeepMails)))
		if err != nil {
			return fmt.Errorf("delete old evidence: %w", err)
		}
		if deleted < purgeChunk {
			break
		}
	}
	oldest := now.Add(-s.o.KeepTotals)
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.transact(ctx, func(tx *sql.Tx) error {
		for text, arg := range map[string]int64{
			"DELETE FROM total WHERE day < ?":   oldest.Unix() / 86400,
			"DELETE FROM unclear WHERE day < ?": oldest.Unix() / 86400,
			"DELETE FROM gap WHERE until < ?":   micros(oldest),
			"DELETE FROM relay WHERE last < ?":  micros(oldest),
		} {
			if _, err := tx.ExecContext(ctx, text, arg); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete old evidence: %w", err)
	}
	return nil
}

// purgeMails counts and deletes one chunk.
func (s *Store) purgeMails(ctx context.Context, oldest int64) (deleted int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.transact(ctx, func(tx *sql.Tx) error {
		for _, text := range []string{
			`CREATE TEMP TABLE IF NOT EXISTS old (n INTEGER PRIMARY KEY)`,
			`DELETE FROM old`,
		} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO old SELECT n FROM mail WHERE time < ? ORDER BY time LIMIT ?", oldest, purgeChunk); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO total
			SELECT rule, time / 86400000000, count(*), sum(sure = 3), sum(sure = 2), sum(status = 'sent'), sum(status IN ('bounced', 'expired')),
				sum(status = 'deferred'), min(time), max(time)
			FROM old JOIN mail USING (n) JOIN cites ON cites.mail = old.n WHERE true GROUP BY 1, 2
			ON CONFLICT (rule, day) DO UPDATE SET mails = mails + excluded.mails, certain = certain + excluded.certain, likely = likely + excluded.likely,
				sent = sent + excluded.sent, bounced = bounced + excluded.bounced, deferred = deferred + excluded.deferred,
				first = min(first, excluded.first), last = max(last, excluded.last)`); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM cites WHERE mail IN (SELECT n FROM old)"); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, "DELETE FROM mail WHERE n IN (SELECT n FROM old)")
		if err != nil {
			return err
		}
		deleted, err = result.RowsAffected()
		return err
	})
	return deleted, err
}

// Reconsider asks the rules again about mail that had none behind it: a rule may be
// found after the first mail went by it. It returns how many mails have one now.
func (t *Tracker) Reconsider(ctx context.Context) (explained int, err error) {
	rules := t.rules()
	if rules == nil {
		return 0, nil
	}
	flows, err := t.store.Unexplained(ctx, time.Time{})
	if err != nil {
		return 0, err
	}
	for _, f := range flows {
		id, ok := "", false
		if f.OrigTo != "" {
			id, ok = rules.Match(f.OrigTo, f.RcptTo)
		} else if ids := rules.ByTarget(f.RcptTo); len(ids) == 1 && f.How == ByAction {
			id, ok = ids[0], true
		}
		if !ok {
			continue
		}
		n, err := t.store.cite(ctx, f.OrigTo, f.RcptTo, id)
		if err != nil {
			return explained, err
		}
		explained += n
	}
	return explained, nil
}

// cite has the unexplained mails of a flow cite a rule.
func (s *Store) cite(ctx context.Context, orig, rcpt, id string) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO cites SELECT ?1, n FROM mail WHERE cited = 0 AND orig = ?2 AND rcpt = ?3", id, orig, rcpt); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, "UPDATE mail SET cited = 1 WHERE cited = 0 AND orig = ?1 AND rcpt = ?2", orig, rcpt)
		if err != nil {
			return err
		}
		changed, err := result.RowsAffected()
		n = int(changed)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("cite rule %s: %w", id, err)
	}
	return n, nil
}
