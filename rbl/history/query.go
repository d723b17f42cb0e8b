package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"relayguard/rbl"
)

// Due are the listings to be asked again by now, the oldest first. Also those that
// were last looked at in what is the future, for the clock was set back since.
func (s *Store) Due(ctx context.Context, now time.Time) ([]Listing, error) {
	return s.listings(ctx, "read which listings are to be asked again",
		"due <> 0 AND (due <= ?1 OR doubt > ?1 OR unasked > ?1) ORDER BY due, id", micros(now))
}

// NextDue is when the next one is; zero: none waits.
func (s *Store) NextDue(ctx context.Context) (next time.Time, err error) {
	err = s.query(ctx, "read when a listing is to be asked again", func(rows *sql.Rows) error {
		var at int64
		err := rows.Scan(&at)
		next = timeOf(at)
		return err
	}, "SELECT coalesce(min(due), 0) FROM listing WHERE due <> 0")
	return next, err
}

// PutOff has listings not be Due before a time: nobody can ask about them now.
func (s *Store) PutOff(ctx context.Context, now, until time.Time, ids ...int64) error {
	return s.write(ctx, "put off second looks at blocklists", func(tx *sql.Tx) error {
		for _, id := range ids {
			// What is in the future, for the clock was set back, would be due for ever.
			if _, err := tx.ExecContext(ctx, "UPDATE listing SET due = max(due, ?2), doubt = min(doubt, ?3), unasked = min(unasked, ?3) WHERE id = ?1 AND due <> 0",
				id, micros(until), micros(now)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Query says which listings are wanted. Zero values ask nothing.
type Query struct {
	Subject      string
	Zone         string
	Since, Until time.Time // that were there at any time between, or Closed then
	OpenOnly     bool      // Suspected, Standing, Ending: also those that are Unasked
	Limit        int       // [1,000]
}

// Listings searches: open ones first, worst first; then by First, newest first.
func (s *Store) Listings(ctx context.Context, q Query) ([]Listing, error) {
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	subject := strings.ToLower(strings.TrimSuffix(q.Subject, "."))
	if addr, err := netip.ParseAddr(subject); err == nil {
		subject = addr.Unmap().String()
	}
	return s.listings(ctx, "search listings", `(?1 = '' OR subject = ?1) AND (?2 = '' OR zone = ?2) AND (ended = 0 OR closed >= ?3) AND (?4 = 0 OR first < ?4) AND (ended = 0 OR NOT ?5)
		ORDER BY ended <> 0, CASE WHEN ended = 0 THEN severity END DESC, first DESC, id DESC LIMIT ?6`,
		subject, strings.ToLower(strings.TrimSuffix(q.Zone, ".")), micros(q.Since), micros(q.Until), q.OpenOnly, q.Limit)
}

func (s *Store) listings(ctx context.Context, what, where string, args ...any) (all []Listing, err error) {
	err = s.query(ctx, what, func(rows *sql.Rows) error {
		l, err := scanListing(rows)
		all = append(all, l.Listing)
		return err
	}, "SELECT "+listingColumns+" FROM listing WHERE "+where, args...)
	return all, err
}

// SubjectState is how many zones said what of a subject in the last round; each is
// counted once.
type SubjectState struct {
	Subject rbl.Subject `json:"subject"`
	Listed  int         `json:"listed"` // for what harms, and is meant for it
	Wide    int         `json:"wide"`   // only for what harms a range or a provider's whole network
	Info    int         `json:"info"`   // only for what harms nobody
	Clean   int         `json:"clean"`
	Unknown int         `json:"unknown"`
	Refused int         `json:"refused"`
	At      time.Time   `json:"at"`
}

// Subjects are those of the last round, addresses first.
func (s *Store) Subjects(ctx context.Context) (all []SubjectState, err error) {
	err = s.query(ctx, "read what was checked", func(rows *sql.Rows) error {
		var c SubjectState
		var name string
		var at int64
		if err := rows.Scan(&name, &c.Listed, &c.Wide, &c.Info, &c.Clean, &c.Unknown, &c.Refused, &at); err != nil {
			return err
		}
		c.At = timeOf(at)
		err := c.Subject.UnmarshalText([]byte(name))
		all = append(all, c)
		return err
	}, "SELECT subject, listed, wide, info, clean, unknown, refused, at FROM subject_state ORDER BY n")
	return all, err
}

// Answers are those of the last round (all zones, all subjects), as they came, but
// that those of a zone that is not healthy are Unknown.
func (s *Store) Answers(ctx context.Context) (all []rbl.Answer, err error) {
	err = s.query(ctx, "read answers", func(rows *sql.Rows) error {
		var body string
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var a rbl.Answer
		err := json.Unmarshal([]byte(body), &a)
		all = append(all, a)
		return err
	}, "SELECT body FROM answer ORDER BY n")
	return all, err
}

// Last are when the last round and the last look at neighbours were; zero: never.
func (s *Store) Last(ctx context.Context) (round, neighbours time.Time, err error) {
	err = s.query(ctx, "read when the last round was", func(rows *sql.Rows) error {
		var name string
		var value int64
		err := rows.Scan(&name, &value)
		switch name {
		case markRound:
			round = timeOf(value)
		case markNeighbours:
			neighbours = timeOf(value)
		}
		return err
	}, "SELECT name, value FROM mark")
	return round, neighbours, err
}

// Dropped is how many listings were forgotten before their time, or not remembered
// at all, for there were too many.
func (s *Store) Dropped(ctx context.Context) (n int64, err error) {
	err = s.query(ctx, "read how many listings were dropped", func(rows *sql.Rows) error { return rows.Scan(&n) },
		"SELECT value FROM mark WHERE name = ?", markDropped)
	return n, err
}

func setMark(ctx context.Context, tx *sql.Tx, name string, value int64) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO mark (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
	return err
}

func addMark(ctx context.Context, tx *sql.Tx, name string, n int64) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO mark (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value", name, n)
	return err
}
