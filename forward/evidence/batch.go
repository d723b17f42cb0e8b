package evidence

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// row is what is known of one mail to one recipient, by one line or more.
type row struct {
	drop      bool   // it is another's, after all
	update    bool   // a further hop's word on a row that may be there
	flight    string // whose mail it is; with rcpt the key
	rcpt      string
	orig      string
	queueID   string
	rootID    string
	messageID string
	time      time.Time
	mailFrom  string
	outside   bool
	status    string
	dsn       string
	relay     string
	depth     int
	how       How
	sure      Sure
	rules     []string
}

// relayKey names a next hop.
type relayKey struct{ program, relay string }

// batch is what goes into the database in one step.
type batch struct {
	events    int
	rows      []row
	relays    map[relayKey]*Relay
	gaps      []Gap
	unclear   map[int64]int     // lines by day
	positions map[string]string // by source
	began     time.Time         // of the first event
	flights   map[string]string // state by key; empty: it ended
}

func newBatch() *batch {
	return &batch{relays: map[relayKey]*Relay{}, unclear: map[int64]int{}, positions: map[string]string{}, flights: map[string]string{}}
}

func (b *batch) empty() bool {
	return len(b.rows) == 0 && len(b.gaps) == 0 && len(b.positions) == 0 && len(b.flights) == 0 && len(b.relays) == 0 && len(b.unclear) == 0
}

// commit writes a batch: all of it or nothing. wasReset: the database was broken and is
// another now, which holds nothing but that batch.
func (s *Store) commit(ctx context.Context, b *batch) (wasReset bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.transact(ctx, func(tx *sql.Tx) error { return b.write(ctx, tx) })
	if err == nil || s.path == "" || !isBroken(err) {
		return false, err
	}
	if err := s.reset(ctx, err); err != nil {
		return true, err
	}
	return true, s.transact(ctx, func(tx *sql.Tx) error { return b.write(ctx, tx) })
}

func (b *batch) write(ctx context.Context, tx *sql.Tx) error {
	for _, part := range []func(context.Context, *sql.Tx) error{b.writeRows, b.writeFlights, b.writeRest} {
		if err := part(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) writeRows(ctx context.Context, tx *sql.Tx) error {
	if len(b.rows) == 0 {
		return nil
	}
	upsert, err := tx.PrepareContext(ctx, upsertMail)
	if err != nil {
		return err
	}
	defer upsert.Close()
	cite, err := tx.PrepareContext(ctx, "INSERT OR IGNORE INTO cites (rule, mail) VALUES (?1, ?2)")
	if err != nil {
		return err
	}
	defer cite.Close()
	for i := range b.rows {
		r := &b.rows[i]
		if r.drop {
			for _, text := range []string{"DELETE FROM cites WHERE mail IN (SELECT n FROM mail WHERE flight = ?1 AND rcpt = ?2)", "DELETE FROM mail WHERE flight = ?1 AND rcpt = ?2"} {
				if _, err := tx.ExecContext(ctx, text, r.flight, r.rcpt); err != nil {
					return err
				}
			}
			continue
		}
		if r.update {
			if _, err := tx.ExecContext(ctx, updateMail, r.flight, r.rcpt, r.queueID, r.status, r.dsn, r.relay, r.depth); err != nil {
				return err
			}
			continue
		}
		var n int64
		err := upsert.QueryRowContext(ctx, r.flight, r.rcpt, r.orig, r.queueID, r.rootID, r.messageID, micros(r.time), r.mailFrom,
			r.outside, r.status, r.dsn, r.relay, r.depth, string(r.how), int(r.sure)).Scan(&n)
		if err != nil {
			return fmt.Errorf("write evidence: %w", err)
		}
		if len(r.rules) == 0 {
			continue
		}
		for _, id := range r.rules {
			if _, err := cite.ExecContext(ctx, id, n); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, "UPDATE mail SET cited = (SELECT count(*) FROM cites WHERE mail = ?1) WHERE n = ?1", n); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) writeFlights(ctx context.Context, tx *sql.Tx) error {
	for key, state := range b.flights {
		var err error
		if state == "" {
			_, err = tx.ExecContext(ctx, "DELETE FROM flight WHERE key = ?", key)
		} else {
			_, err = tx.ExecContext(ctx, "INSERT INTO flight VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET state = ?2", key, state)
		}
		if err != nil {
			return fmt.Errorf("write messages in flight: %w", err)
		}
	}
	return nil
}

func (b *batch) writeRest(ctx context.Context, tx *sql.Tx) error {
	for key, r := range b.relays {
		if _, err := tx.ExecContext(ctx, `INSERT INTO relay VALUES (?1, ?2, ?3, ?4, ?5)
			ON CONFLICT (program, relay) DO UPDATE SET first = min(first, ?3), last = max(last, ?4), mails = mails + ?5`,
			key.program, key.relay, micros(r.First), micros(r.Last), r.Mails); err != nil {
			return err
		}
	}
	for _, g := range b.gaps {
		if err := putGap(ctx, tx, g); err != nil {
			return err
		}
	}
	for day, lines := range b.unclear {
		if _, err := tx.ExecContext(ctx, "INSERT INTO unclear VALUES (?1, ?2) ON CONFLICT (day) DO UPDATE SET lines = lines + ?2", day, lines); err != nil {
			return err
		}
	}
	if !b.began.IsZero() {
		if _, err := tx.ExecContext(ctx, "INSERT INTO began VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET time = min(time, ?1)", micros(b.began)); err != nil {
			return err
		}
	}
	for source, position := range b.positions {
		if _, err := tx.ExecContext(ctx, "INSERT INTO checkpoint VALUES (?1, ?2) ON CONFLICT (source) DO UPDATE SET position = ?2", source, position); err != nil {
			return err
		}
	}
	return nil
}

// putGap writes a gap, or makes the one that began at that time longer.
func putGap(ctx context.Context, tx *sql.Tx, g Gap) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO gap (since, until, why) VALUES (?1, ?2, ?3) ON CONFLICT (since, why) DO UPDATE SET until = max(until, ?2)",
		micros(g.From), micros(g.To), g.Why)
	return err
}
