package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/rbl"
	"relayguard/rbl/check"
)

// ErrFull is that some new listings found no room: Options.Most are open.
// Everything else was stored.
var ErrFull = errors.New("no room for more listings")

// pair is what one answer is about.
type pair struct{ zone, subject string }

// kindOf is what health is about.
type kindOf struct {
	zone string
	kind rbl.Kind
}

// taking is a transaction that takes answers in.
type taking struct {
	ctx     context.Context
	tx      *sql.Tx
	at      time.Time
	stored  time.Time
	confirm time.Duration
	sure    time.Time // the last round that was not odd; zero: none
	floor   time.Time // of First; zero: none
	odd     bool      // at is far from all rounds before: the clock may be wrong

	open   map[pair][]*tracked
	order  []*tracked           // all of open
	before map[*tracked]tracked // as it was read; not there: it is new
	health map[kindOf]rbl.Health
	room   int // for new listings
	full   int // that found none

	clean *sql.Stmt // puts; nil: not yet made
}

// Take takes a round. A listing that it has no answer about, for its subject or zone
// is not among those given or for another reason, is Unasked by that, and dropped
// after 30 days. All is stored or, after an error, nothing, but see ErrFull.
func (s *Store) Take(ctx context.Context, r check.Round, subjects []rbl.Subject, zones []rbl.Zone) error {
	if r.Began.IsZero() {
		return errors.New("store a round of blocklists: it does not say when it was")
	}
	full := 0
	err := s.write(ctx, "store a round of blocklists", func(tx *sql.Tx) error {
		t, err := s.begin(ctx, tx, r.Began, r.Began.Add(r.Took), "")
		if err != nil {
			return err
		}
		if err := t.round(r, subjects, zones); err != nil {
			return err
		}
		full = t.full
		if err := setMark(ctx, tx, markRound, micros(r.Began)); err != nil {
			return err
		}
		if err := addQueries(ctx, tx, r.Began, r.Queries); err != nil {
			return err
		}
		if t.odd {
			return nil
		}
		if err := setMark(ctx, tx, markSure, micros(r.Began)); err != nil {
			return err
		}
		return s.forget(ctx, tx, r.Began)
	})
	if err == nil && full > 0 {
		return fmt.Errorf("store a round of blocklists: %w: %d of them", ErrFull, full)
	}
	return err
}

// TakeAgain takes a second look at a listing, and with it at all others of that
// subject on that zone. One that has ended meanwhile is left.
func (s *Store) TakeAgain(ctx context.Context, id int64, a rbl.Answer, h rbl.Health) error {
	at := a.At
	if at.IsZero() {
		at = h.At
	}
	if at.IsZero() {
		return errors.New("store a second look at a blocklist: it does not say when it was")
	}
	a.Subject.Addr = a.Subject.Addr.Unmap()
	full := 0
	err := s.write(ctx, "store a second look at a blocklist", func(tx *sql.Tx) error {
		t, err := s.begin(ctx, tx, at, later(at, h.At), a.Zone)
		if err != nil {
			return err
		}
		p := pair{a.Zone, a.Subject.String()}
		if !slices.ContainsFunc(t.open[p], func(l *tracked) bool { return l.ID == id }) {
			return nil
		}
		h.Zone, h.Kind = a.Zone, a.Subject.Kind()
		if err := t.takeHealth([]rbl.Health{h}); err != nil {
			return err
		}
		if err := t.putHealth(h); err != nil {
			return err
		}
		t.believe(&a)
		if err := t.see(p, &a); err != nil {
			return err
		}
		t.dropSuspected()
		full = t.full
		if err := t.save(); err != nil {
			return err
		}
		if t.harmed(p.subject) {
			return putSlot(ctx, tx, p.subject, at, worstListed)
		}
		return nil
	})
	if err == nil && full > 0 {
		return fmt.Errorf("store a second look at a blocklist: %w: %d of them", ErrFull, full)
	}
	return err
}

// Drop ends at once those open listings that the caller takes out: what an admin will
// not have checked any more. Nobody is told, and what comes back is another listing.
func (s *Store) Drop(ctx context.Context, now time.Time, out func(*Listing) bool) error {
	return s.write(ctx, "drop listings", func(tx *sql.Tx) error {
		t, err := s.begin(ctx, tx, now, now, "")
		if err != nil {
			return err
		}
		for _, l := range t.order {
			if out(&l.Listing) {
				l.drop(now)
			}
		}
		return t.save()
	})
}

// begin reads what is open: of one zone, unless that is "". ended is when what is
// taken in was over.
func (s *Store) begin(ctx context.Context, tx *sql.Tx, at, ended time.Time, zone string) (*taking, error) {
	t := &taking{ctx: ctx, tx: tx, at: at, stored: s.stamp(ended), confirm: s.o.Confirm, open: map[pair][]*tracked{}, before: map[*tracked]tracked{}, health: map[kindOf]rbl.Health{}}
	err := each(ctx, tx, func(rows *sql.Rows) error {
		l, err := scanListing(rows)
		if err != nil {
			return err
		}
		p := pair{l.Zone, l.Subject.String()}
		t.open[p] = append(t.open[p], &l)
		t.order = append(t.order, &l)
		t.before[&l] = l
		return nil
	}, "SELECT "+listingColumns+" FROM listing WHERE ended = 0 AND (?1 = '' OR zone = ?1) ORDER BY id", zone)
	if err != nil {
		return nil, err
	}
	if err := t.readClock(zone == ""); err != nil {
		return nil, err
	}
	open := len(t.order)
	if zone != "" {
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM listing WHERE ended = 0").Scan(&open); err != nil {
			return nil, err
		}
	}
	t.room = s.o.Most - open // those that are over make room
	return t, nil
}

const (
	// A round within these of another has the same clock as that.
	mostAhead = 7 * 24 * time.Hour
	mostBack  = 24 * time.Hour
)

// readClock says whether at can be believed: it is near the last round that could be
// or, for a round, near the last one. So a clock that is wrong once is not believed,
// nor in second looks after that, and is if a second round has it.
func (t *taking) readClock(round bool) error {
	var last time.Time
	err := each(t.ctx, t.tx, func(rows *sql.Rows) error {
		var name string
		var at int64
		err := rows.Scan(&name, &at)
		switch name {
		case markRound:
			last = timeOf(at)
		case markSure:
			t.sure = timeOf(at)
		}
		return err
	}, "SELECT name, value FROM mark")
	if err != nil || t.sure.IsZero() {
		return err
	}
	near := func(other time.Time) bool {
		apart := t.at.Sub(other) // of centuries it is the greatest there is
		return -mostBack <= apart && apart <= mostAhead
	}
	if !near(t.sure) {
		if t.odd = !round || !near(last); !t.odd {
			t.sure = last
		}
	}
	t.floor = t.sure.Add(-mostBack)
	return nil
}

func (t *taking) round(r check.Round, subjects []rbl.Subject, zones []rbl.Zone) error {
	checkedZones, checkedSubjects, kinds := map[string]bool{}, map[string]bool{}, map[rbl.Kind]bool{}
	for i := range zones {
		checkedZones[zones[i].Name] = true
	}
	subjects = distinct(subjects)
	for _, s := range subjects {
		checkedSubjects[s.String()] = true
		kinds[s.Kind()] = true
	}
	if err := t.forgetBad(checkedZones, kinds); err != nil {
		return err
	}
	if err := t.takeHealth(r.Zones); err != nil {
		return err
	}
	if err := t.keepHealth(r.Zones); err != nil {
		return err
	}
	answers := slices.Clone(r.Answers)
	answered := map[pair]bool{}
	for i := range answers {
		a := &answers[i]
		t.believe(a)
		if p := (pair{a.Zone, a.Subject.String()}); checkedZones[p.zone] && checkedSubjects[p.subject] {
			answered[p] = true
			if err := t.see(p, a); err != nil {
				return err
			}
		}
	}
	for _, l := range t.order {
		if l.Ended.IsZero() && !answered[pair{l.Zone, l.Subject.String()}] {
			l.unasked(t.at, t.odd, t.confirm)
		}
	}
	t.dropSuspected()
	if err := t.dropGone(); err != nil {
		return err
	}
	if err := t.save(); err != nil {
		return err
	}
	return t.keepAnswers(answers, subjects)
}

// believe makes of an answer that stands on a zone that is not healthy, or that says
// listed and not what, one that says nothing.
func (t *taking) believe(a *rbl.Answer) {
	a.Subject.Addr = a.Subject.Addr.Unmap()
	if a.At.IsZero() {
		a.At = t.at
	}
	if a.Result != rbl.Listed && a.Result != rbl.Clean {
		return
	}
	h, ok := t.health[kindOf{a.Zone, a.Subject.Kind()}]
	why := ""
	switch {
	case !ok:
		why = "nothing is known of the list's health"
	case h.State != rbl.Healthy:
		why = "the list is " + h.State.String()
	case a.Result == rbl.Listed && len(a.Hits) == 0:
		why = "an answer without a code"
	default:
		return
	}
	a.Result, a.Hits, a.Reasons, a.Why = rbl.Unknown, nil, nil, why
}

// see moves what is open of a pair by an answer, and begins what is new.
func (t *taking) see(p pair, a *rbl.Answer) error {
	believable := a.Result == rbl.Listed || a.Result == rbl.Clean
	for _, l := range t.open[p] {
		if !l.Ended.IsZero() {
			continue
		}
		s := nothing
		if believable {
			s = gone
		}
		if a.Result == rbl.Listed {
			if i := slices.IndexFunc(a.Hits, func(h rbl.Hit) bool { return sameCode(h, l.Hit) }); i >= 0 {
				s = there
				l.Hit = a.Hits[i] // the table may have learnt what it means
				if len(a.Reasons) > 0 {
					l.Reasons = a.Reasons
				}
			}
		}
		if kind := l.step(s, a.At, t.floor, t.confirm); kind != "" {
			told := l.Listing
			if err := t.tell(Event{Kind: kind, At: a.At, Listing: &told}); err != nil {
				return err
			}
		}
	}
	if a.Result == rbl.Clean {
		return t.putClean(p, a.At)
	}
	if a.Result != rbl.Listed {
		return nil
	}
	clean, err := t.lastClean(p)
	if err != nil {
		return err
	}
	for _, h := range a.Hits {
		if slices.ContainsFunc(t.open[p], func(l *tracked) bool { return sameCode(h, l.Hit) }) {
			continue
		}
		if t.room <= 0 {
			t.full++
			continue
		}
		t.room--
		first := a.At
		if first.Before(t.floor) {
			first = t.sure
		}
		l := &tracked{Listing: Listing{Zone: a.Zone, Subject: a.Subject, Hit: h, Reasons: a.Reasons, Phase: Suspected, CleanBefore: clean, Last: later(first, a.At), Resolver: a.Resolver}}
		l.begin(first)
		l.doubted(a.At, t.confirm)
		t.open[p] = append(t.open[p], l)
		t.order = append(t.order, l)
	}
	return nil
}

// putClean remembers when a list did not have a subject.
func (t *taking) putClean(p pair, at time.Time) (err error) {
	if t.odd {
		return nil
	}
	if t.clean == nil { // the transaction closes it
		if t.clean, err = t.tx.PrepareContext(t.ctx, "INSERT OR REPLACE INTO clean (zone, subject, at) VALUES (?, ?, ?)"); err != nil {
			return err
		}
	}
	_, err = t.clean.ExecContext(t.ctx, p.zone, p.subject, micros(at))
	return err
}

// lastClean is when that last was; zero: never, as far as is known.
func (t *taking) lastClean(p pair) (clean time.Time, err error) {
	err = each(t.ctx, t.tx, func(rows *sql.Rows) error {
		var n int64
		err := rows.Scan(&n)
		clean = timeOf(n)
		return err
	}, "SELECT at FROM clean WHERE zone = ? AND subject = ?", p.zone, p.subject)
	return clean, err
}

// dropSuspected: what a list that has gone wild said just before counts for nothing.
func (t *taking) dropSuspected() {
	for _, l := range t.order {
		if l.Phase == Suspected && t.health[kindOf{l.Zone, l.Subject.Kind()}].State == rbl.Wild {
			l.drop(t.at)
		}
	}
}

// save writes what has changed.
func (t *taking) save() error {
	for _, l := range t.order {
		if old, known := t.before[l]; known && sameListing(&old, l) {
			continue
		}
		if !l.Ended.IsZero() {
			l.Closed = t.stored
		}
		if err := l.put(t.ctx, t.tx); err != nil {
			return err
		}
	}
	if t.full > 0 {
		return addMark(t.ctx, t.tx, markDropped, int64(t.full))
	}
	return nil
}

func sameListing(a, b *tracked) bool {
	return a.Phase == b.Phase && a.Hit == b.Hit && slices.Equal(a.Reasons, b.Reasons) && micros(a.First) == micros(b.First) && micros(a.Last) == micros(b.Last) &&
		micros(a.Ended) == micros(b.Ended) && micros(a.Unasked) == micros(b.Unasked) && micros(a.Due) == micros(b.Due) && micros(a.doubt) == micros(b.doubt)
}

// harmed reports whether a confirmed listing of a subject goes on that is meant for
// it and harms it.
func (t *taking) harmed(subject string) bool {
	return slices.ContainsFunc(t.order, func(l *tracked) bool { return l.Subject.String() == subject && l.harms() })
}

func (l *tracked) harms() bool {
	return (l.Phase == Standing || l.Phase == Ending) && harms(l.Hit) && !l.Hit.Scope.Wide()
}

func harms(h rbl.Hit) bool { return h.Severity > rbl.Info }

// said is what zones said of a subject: listed are all that list it, wide and info
// those of them that harm others too, or nobody.
type said struct{ listed, wide, info, clean, unknown, refused int }

func (n *said) count(a *rbl.Answer) {
	switch a.Result {
	case rbl.Clean:
		n.clean++
	case rbl.Unknown:
		n.unknown++
	case rbl.Refused:
		n.refused++
	case rbl.Listed:
		n.listed++
		switch {
		case slices.ContainsFunc(a.Hits, func(h rbl.Hit) bool { return harms(h) && !h.Scope.Wide() }):
		case slices.ContainsFunc(a.Hits, harms):
			n.wide++
		default:
			n.info++
		}
	}
}

// keepAnswers keeps the round's answers, what they are by subject, and its part of
// the day.
func (t *taking) keepAnswers(answers []rbl.Answer, subjects []rbl.Subject) error {
	if _, err := t.tx.ExecContext(t.ctx, "DELETE FROM answer; DELETE FROM subject_state"); err != nil {
		return err
	}
	insert, err := t.tx.PrepareContext(t.ctx, "INSERT INTO answer (body) VALUES (?)")
	if err != nil {
		return err
	}
	defer insert.Close()
	counts := map[string]said{}
	for i := range answers {
		body, err := json.Marshal(answers[i])
		if err != nil {
			return err
		}
		if _, err := insert.ExecContext(t.ctx, string(body)); err != nil {
			return err
		}
		name := answers[i].Subject.String()
		n := counts[name]
		n.count(&answers[i])
		counts[name] = n
	}
	harmed := map[string]bool{}
	for _, l := range t.order {
		if l.harms() {
			harmed[l.Subject.String()] = true
		}
	}
	for _, s := range subjects {
		name := s.String()
		n := counts[name]
		if _, err := t.tx.ExecContext(t.ctx, "INSERT INTO subject_state (subject, listed, wide, info, clean, unknown, refused, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			name, n.listed-n.wide-n.info, n.wide, n.info, n.clean, n.unknown, n.refused, micros(t.at)); err != nil {
			return err
		}
		worst := worstClean
		told := n.listed + n.clean
		switch asked := told + n.unknown + n.refused; {
		case harmed[name]:
			worst = worstListed
		case asked == 0 || 2*told < asked:
			worst = worstUnknown
		}
		delete(harmed, name)
		if err := putSlot(t.ctx, t.tx, name, t.at, worst); err != nil {
			return err
		}
	}
	for name := range harmed { // not checked now, and not known to have ended
		if err := putSlot(t.ctx, t.tx, name, t.at, worstListed); err != nil {
			return err
		}
	}
	return nil
}

// distinct are subjects by their order, addresses first.
func distinct(subjects []rbl.Subject) []rbl.Subject {
	all := slices.Clone(subjects)
	for i := range all {
		all[i].Addr = all[i].Addr.Unmap()
	}
	slices.SortFunc(all, compareSubjects)
	return slices.Compact(all)
}

func compareSubjects(a, b rbl.Subject) int {
	switch {
	case a.Addr.IsValid() && b.Addr.IsValid():
		return a.Addr.Compare(b.Addr)
	case a.Addr.IsValid():
		return -1
	case b.Addr.IsValid():
		return 1
	}
	return strings.Compare(a.Name, b.Name)
}
