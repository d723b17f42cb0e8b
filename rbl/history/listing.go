package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"relayguard/rbl"
)

// tracked is a listing that is open, in a transaction.
type tracked struct {
	Listing
	doubt time.Time // when a look first said otherwise than the phase; zero: none did
}

// sight is what one answer says of one listing.
type sight uint8

const (
	nothing sight = iota // it cannot be believed
	there
	gone
)

const (
	// longestWait is how far apart the looks at a zone that gives no answer come to be.
	longestWait = 6 * time.Hour
	// How long what nobody asks about stays open without an answer: a listing, and
	// one that nobody was told of.
	keepUnasked   = 30 * 24 * time.Hour
	keepSuspected = 24 * time.Hour
)

// step moves a listing by a sight of it, and says what is to be told then: "" is
// nothing. No sight before floor dates it back.
func (l *tracked) step(s sight, at, floor time.Time, confirm time.Duration) EventKind {
	if s == nothing {
		l.unanswered(at, confirm)
		return ""
	}
	l.Unasked = time.Time{}
	if s == there {
		if l.Phase == Suspected && !at.Before(floor) {
			l.begin(earlier(l.First, at))
		}
		l.Last = later(l.Last, at)
	}
	switch {
	case l.Phase == Suspected && s == there:
		if l.sure(at, confirm) {
			l.settle(Standing)
			l.Confirmed = later(l.First, at)
			return Began
		}
	case l.Phase == Suspected:
		l.end(Withdrawn, at)
	case l.Phase == Standing && s == gone:
		l.Phase = Ending
		l.doubted(at, confirm)
	case l.Phase == Ending && s == there:
		l.settle(Standing)
	case l.Phase == Ending:
		if l.sure(at, confirm) {
			l.end(Ended, at)
			return Over
		}
	}
	return ""
}

// begin says since when it is there. What was clean only after that, by a clock that
// was set back since, says nothing of before.
func (l *tracked) begin(first time.Time) {
	l.First = first
	if !l.CleanBefore.Before(first) {
		l.CleanBefore = time.Time{}
	}
}

// sure reports whether enough time has gone by since the first look that said so.
// If the clock was set back since, that look counts as if it were this one.
func (l *tracked) sure(at time.Time, confirm time.Duration) bool {
	if at.Before(l.doubt) {
		l.doubt = at
	}
	l.Due = l.doubt.Add(confirm) // also if silence had put it off
	return !at.Before(l.Due)
}

func (l *tracked) doubted(at time.Time, confirm time.Duration) {
	l.doubt, l.Due = at, at.Add(confirm)
}

func (l *tracked) settle(p Phase) {
	l.Phase, l.doubt, l.Due = p, time.Time{}, time.Time{}
}

func (l *tracked) end(p Phase, at time.Time) {
	l.settle(p)
	l.Ended = later(l.First, at) // the clock may have been set back
}

// drop is for what is no longer checked: whether it is listed is not known, and
// nobody is told.
func (l *tracked) drop(at time.Time) {
	if l.Phase == Suspected {
		l.end(Withdrawn, at)
	} else {
		l.end(Dropped, at)
	}
}

// unasked is a round that did not ask; an odd one drops nothing.
func (l *tracked) unasked(at time.Time, odd bool, confirm time.Duration) {
	l.unanswered(at, confirm)
	keep := keepUnasked
	if l.Phase == Suspected {
		keep = keepSuspected
	}
	if !odd && at.Sub(l.Unasked) >= keep {
		l.drop(at)
	}
}

// unanswered puts the second look off, twice as far each time.
func (l *tracked) unanswered(at time.Time, confirm time.Duration) {
	if l.Unasked.IsZero() || at.Before(l.Unasked) {
		l.Unasked = at
	}
	if l.Due.IsZero() {
		return
	}
	if wait := max(confirm, min(at.Sub(l.Unasked), longestWait)); !at.Before(l.Due) || l.Due.Sub(at) > wait {
		l.Due = at.Add(wait)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sameCode reports whether two hits of one zone are one listing. Where codes are
// bits, the address changes as other bits come and go.
func sameCode(a, b rbl.Hit) bool {
	if a.Bit != 0 || b.Bit != 0 {
		return a.Bit == b.Bit
	}
	return a.Code == b.Code
}

const listingColumns = "id, zone, subject, hit, reasons, phase, first, confirmed, last, ended, closed, resolver, unasked, due, doubt, clean_before"

func scanListing(rows *sql.Rows) (l tracked, err error) {
	var subject, hit, reasons string
	var first, confirmed, last, ended, closed, unasked, due, doubt, clean int64
	if err := rows.Scan(&l.ID, &l.Zone, &subject, &hit, &reasons, &l.Phase, &first, &confirmed, &last, &ended, &closed, &l.Resolver, &unasked, &due, &doubt, &clean); err != nil {
		return l, err
	}
	if err := l.Subject.UnmarshalText([]byte(subject)); err != nil {
		return l, err
	}
	if err := json.Unmarshal([]byte(hit), &l.Hit); err != nil {
		return l, err
	}
	if err := json.Unmarshal([]byte(reasons), &l.Reasons); err != nil {
		return l, err
	}
	l.First, l.Confirmed, l.Last, l.Ended = timeOf(first), timeOf(confirmed), timeOf(last), timeOf(ended)
	l.Closed, l.Unasked, l.Due, l.doubt = timeOf(closed), timeOf(unasked), timeOf(due), timeOf(doubt)
	l.CleanBefore = timeOf(clean)
	return l, nil
}

// put writes a listing, a new one if it has no ID yet.
func (l *tracked) put(ctx context.Context, tx *sql.Tx) error {
	hit, err := json.Marshal(l.Hit)
	if err != nil {
		return err
	}
	reasons, err := json.Marshal(l.Reasons)
	if err != nil {
		return err
	}
	var id any
	if l.ID != 0 {
		id = l.ID
	}
	result, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO listing ("+listingColumns+", severity) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		id, l.Zone, l.Subject.String(), string(hit), string(reasons), l.Phase, micros(l.First), micros(l.Confirmed), micros(l.Last), micros(l.Ended), micros(l.Closed), l.Resolver,
		micros(l.Unasked), micros(l.Due), micros(l.doubt), micros(l.CleanBefore), l.Hit.Severity)
	if err != nil {
		return err
	}
	if l.ID == 0 {
		l.ID, err = result.LastInsertId()
	}
	return err
}
