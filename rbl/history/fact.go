package history

import (
	"context"
	"database/sql"
	"time"

	"relayguard/rbl/sender"
)

// FactState is a fact of the last look, and since when it is so.
type FactState struct {
	sender.Fact
	Since time.Time `json:"since"`
}

// factKey names a fact; there may be several of one check.
type factKey struct {
	subject, check string
	nth            int
}

// keptFact is what was known before. A look that DNS did not answer changes
// neither what is known nor since when.
type keptFact struct {
	state, known      string
	since, knownSince int64
}

// TakeFacts takes what receivers look at; all there are.
func (s *Store) TakeFacts(ctx context.Context, now time.Time, facts []sender.Fact) error {
	return s.write(ctx, "store what receivers look at", func(tx *sql.Tx) error {
		before := map[factKey]keptFact{}
		err := each(ctx, tx, func(rows *sql.Rows) error {
			var k factKey
			var f keptFact
			err := rows.Scan(&k.subject, &k.check, &k.nth, &f.state, &f.since, &f.known, &f.knownSince)
			before[k] = f
			return err
		}, `SELECT subject, "check", nth, state, since, known, known_since FROM fact`)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM fact"); err != nil {
			return err
		}
		count, stored := map[factKey]int{}, s.stamp(now)
		for _, f := range facts {
			k := factKey{subject: f.Subject, check: f.Check}
			k.nth = count[k]
			count[factKey{subject: f.Subject, check: f.Check}]++
			if err := takeFact(ctx, tx, now, stored, f, k, before[k]); err != nil {
				return err
			}
		}
		return nil
	})
}

func takeFact(ctx context.Context, tx *sql.Tx, now, stored time.Time, f sender.Fact, k factKey, old keptFact) error {
	at := micros(now)
	kept := keptFact{state: f.State, since: at, known: old.known, knownSince: old.knownSince}
	switch {
	case f.State == sender.Unknown:
		if old.state == f.State {
			kept.since = old.since
		}
	case f.State == old.known:
		kept.since = old.knownSince
	default:
		kept.known, kept.knownSince = f.State, at
		kind := EventKind("")
		if f.State == sender.Wrong {
			kind = FactBad
		} else if old.known == sender.Wrong {
			kind = FactWell
		}
		if kind != "" {
			if err := putEvent(ctx, tx, stored, Event{Kind: kind, At: now, Fact: &f}); err != nil {
				return err
			}
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO fact (subject, "check", nth, state, found, wanted, since, known, known_since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		k.subject, k.check, k.nth, f.State, f.Found, f.Wanted, kept.since, kept.known, kept.knownSince)
	return err
}

// Facts are those of the last look.
func (s *Store) Facts(ctx context.Context) (all []FactState, err error) {
	err = s.query(ctx, "read what receivers look at", func(rows *sql.Rows) error {
		var f FactState
		var since int64
		err := rows.Scan(&f.Subject, &f.Check, &f.State, &f.Found, &f.Wanted, &since)
		f.Since = timeOf(since)
		all = append(all, f)
		return err
	}, `SELECT subject, "check", state, found, wanted, since FROM fact ORDER BY n`)
	return all, err
}
