package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/journal"
	"relayguard/mta"
	"relayguard/mta/grace"
)

// forGood is the verb of a delete that keeps no copy.
const forGood = "delete for good"

// Deleted is a deleted message of which there is a copy.
type Deleted struct {
	Held
	DeletedAt time.Time `json:"deleted_at"`
	kept      keptCopy
}

// DeletedFilter chooses deleted mail. What is set must all hold. OlderThan, NewerThan
// and Before are about when it was deleted. What the journal does not know is chosen
// by queue id and times, or by the account "unknown".
type DeletedFilter struct {
	Filter
	Since time.Time `json:"since,omitzero"` // deleted then or later
	By    string    `json:"by,omitempty"`   // who deleted it
}

func (f *DeletedFilter) chooses() bool {
	return f.Filter.chooses() || !f.Since.IsZero() || f.By != ""
}

// ofOrigin reports whether only the journal can say what is meant.
func (f *DeletedFilter) ofOrigin() bool {
	return f.Account != "" && f.Account != unknownAccount || f.Login != "" || f.LocalUser != "" || f.Rule != "" || f.Site != "" || f.Plugin != "" || f.Template != "" || f.MailFrom != "" || f.By != ""
}

// DeletedOrder asks for deleted mail to come back.
type DeletedOrder struct {
	Filter DeletedFilter `json:"filter"`
	DryRun bool          `json:"dry_run"`
	Tell   bool          `json:"tell"` // as QueueOrder.Tell
	Reason string        `json:"reason"`
	Ticket string        `json:"ticket,omitempty"` // as QueueOrder.Ticket
}

// DeletedLine is one line of a stream of deleted mail: one field is set.
type DeletedLine struct {
	Message *Deleted    `json:"message,omitempty"`
	End     *DeletedEnd `json:"end,omitempty"` // the last line
}

// DeletedEnd ends a listing of deleted mail.
type DeletedEnd struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// keptCopy is a copy, or the note of one that is back: as much as is needed to put
// it back. There may be 200,000.
type keptCopy struct {
	name, id         string
	arrival, deleted int64 // Unix seconds and microseconds
	size             int64
	back             bool // nobody has journaled that yet
}

// EachDeleted calls send with what Restore can put back, the longest deleted first.
// Of what the journal does not know there are queue id, arrival and size. It keeps
// none of it.
func (d *Desk) EachDeleted(ctx context.Context, now time.Time, f DeletedFilter, send func(Deleted) error) (DeletedEnd, error) {
	var end DeletedEnd
	err := d.eachKept(ctx, now, &f, nil, func(m *Deleted) error {
		if m.kept.back {
			return nil
		}
		if f.Limit > 0 && end.Messages >= f.Limit {
			return errEnough
		}
		end.Messages++
		end.Bytes += m.Size
		return send(*m)
	})
	return end, err
}

// eachKept calls fn with what a filter chooses, and with notes of it.
func (d *Desk) eachKept(ctx context.Context, now time.Time, f *DeletedFilter, seen func(int) error, fn func(*Deleted) error) error {
	s, err := d.newDeletedSieve(ctx, now, f)
	if err != nil {
		return fmt.Errorf("list deleted mail: %w", err)
	}
	var page []keptCopy
	flush := func() error {
		all, err := d.join(ctx, s, page)
		page = page[:0]
		for i := range all {
			if err == nil {
				err = fn(&all[i])
			}
		}
		return err
	}
	n := 0
	err = d.Queue.Kept(ctx, func(k grace.Kept) error {
		if n++; seen != nil {
			if err := seen(n); err != nil {
				return err
			}
		}
		if !s.passes(&k) {
			return nil
		}
		page = append(page, keptCopy{name: k.Name, id: k.ID, arrival: k.Arrival.Unix(), deleted: k.Deleted.UnixMicro(), size: k.Size, back: k.NewID != ""})
		if len(page) < maxIDs {
			return nil
		}
		return flush()
	})
	if err == nil && len(page) > 0 {
		err = flush()
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list deleted mail: %w", err)
	}
	return nil
}

// deletedStates are those of holds of which there may be a copy.
var deletedStates = []journal.State{journal.StateDeleted, journal.StateDeleting, journal.StateGone}

// deletedSieve is a filter made ready.
type deletedSieve struct {
	*DeletedFilter
	now      time.Time
	from     string
	named    map[string]bool // its ids; nil: none choose
	queueIDs map[string]bool // that messages had which are named so
}

// newDeletedSieve asks the journal which queue ids messages had that are named by
// their decisions.
func (d *Desk) newDeletedSieve(ctx context.Context, now time.Time, f *DeletedFilter) (*deletedSieve, error) {
	s := &deletedSieve{DeletedFilter: f, now: now, from: strings.TrimSuffix(strings.TrimPrefix(f.MailFrom, "<"), ">")}
	if len(f.IDs) == 0 {
		return s, nil
	}
	s.named, s.queueIDs = make(map[string]bool, len(f.IDs)), make(map[string]bool, len(f.IDs))
	for part := range slices.Chunk(f.IDs, maxIDs) {
		known, err := d.Journal.Holds(ctx, journal.HoldQuery{IDs: part, States: deletedStates})
		if err != nil {
			return nil, err
		}
		for _, id := range part {
			s.named[id], s.queueIDs[id] = true, true
		}
		for i := range known {
			s.queueIDs[known[i].QueueID] = true
		}
	}
	return s, nil
}

// passes judges by what the copy says alone.
func (s *deletedSieve) passes(k *grace.Kept) bool {
	switch {
	case s.queueIDs != nil && !s.queueIDs[k.ID],
		!s.Since.IsZero() && k.Deleted.Before(s.Since),
		!s.Before.IsZero() && !k.Deleted.Before(s.Before),
		s.OlderThan != 0 && !k.Deleted.Before(s.now.Add(-s.OlderThan)),
		s.NewerThan != 0 && k.Deleted.Before(s.now.Add(-s.NewerThan)):
		return false
	}
	return true
}

// keeps judges by what the journal knows; known is false if that is nothing.
func (s *deletedSieve) keeps(m *Deleted, known bool) bool {
	switch {
	case !known && s.ofOrigin(),
		s.Account == unknownAccount && m.Account != unknownAccount,
		s.MailFrom != "" && m.MailFrom != s.from,
		s.DeletedFilter.By != "" && m.By != s.DeletedFilter.By,
		s.named != nil && !s.named[m.QueueID] && (m.ID == "" || !s.named[m.ID]):
		return false
	}
	return true
}

// join asks the journal what is known of some copies, and leaves out what is not
// meant.
func (d *Desk) join(ctx context.Context, s *deletedSieve, page []keptCopy) ([]Deleted, error) {
	q := s.query(s.now)
	q.IDs, q.States, q.HeldBefore, q.HeldAfter = make([]string, len(page)), deletedStates, time.Time{}, time.Time{}
	for i := range page {
		q.IDs[i] = page[i].id
	}
	if s.Account == unknownAccount { // also what has no entry
		q.Account = ""
	}
	all, err := d.Journal.Holds(ctx, q)
	if err != nil {
		return nil, err
	}
	known := make(map[string][]*journal.Hold, len(all))
	for i := range all {
		known[all[i].QueueID] = append(known[all[i].QueueID], &all[i])
	}
	out := make([]Deleted, 0, len(page))
	for i := range page {
		m, is := deletedOf(&page[i], known[page[i].id])
		if s.keeps(&m, is) {
			out = append(out, m)
		}
	}
	return out, nil
}

// deletedOf is a copy as it is shown; false if the journal does not know it. Ids are
// used again: the hold with its arrival is it, else one whose arrival nobody saw.
func deletedOf(k *keptCopy, holds []*journal.Hold) (Deleted, bool) {
	arrival := time.Unix(k.arrival, 0).UTC()
	m := Deleted{Held: Held{QueueID: k.id, Account: unknownAccount, Arrival: arrival, Size: k.size, State: string(journal.StateDeleted), HeldBy: byUs}, DeletedAt: time.UnixMicro(k.deleted).UTC(), kept: *k}
	at := slices.IndexFunc(holds, func(h *journal.Hold) bool { return !h.Arrival.IsZero() && h.Arrival.Unix() == k.arrival })
	if at < 0 {
		at = slices.IndexFunc(holds, func(h *journal.Hold) bool { return h.Arrival.IsZero() })
	}
	if at < 0 {
		return m, false
	}
	m.Held = heldOf(holds[at])
	m.Arrival = arrival
	return m, true
}

// ActOnDeleted puts deleted mail back on hold, under new queue ids, as ActOnQueue does
// what it does. Where an id is that of several, the last deleted is meant. What was put
// back by an act that was cut off, and of which nobody heard the new id, is Done again:
// it is not put back twice.
func (d *Desk) ActOnDeleted(ctx context.Context, now time.Time, by By, o DeletedOrder, send func(Step) error) error {
	const verb = "held restore"
	if !o.Filter.chooses() && !o.Filter.All {
		return fmt.Errorf("%w: nothing chooses among the deleted mail; name ids, an account, a rule or a time, or say --all", ErrUsage)
	}
	if err := d.upToDate(ctx); err != nil {
		d.Log.Warn(verb+": the journal is not up to date, whose the mail is that was deleted last may not be known", "error", err)
	}
	r, begun := newRun(send, o.Tell), time.Now()
	r.most = actBatch // the queue is not read for it, so larger ones gain nothing
	r.quiet = len(o.Filter.IDs) == 0
	all, err := d.chooseDeleted(ctx, now, &o, r)
	if err != nil {
		return r.unchosen(ctx, err)
	}
	clock := func() time.Time { return now.Add(time.Since(begun)) }
	if !o.DryRun && len(all) > 0 {
		d.append(d.audit(now, by, verb, fmt.Sprintf("%d messages", len(all)), o.Reason, chosenBy(o.Filter)))
	}
	err = r.batches(ctx, len(all), func(ctx context.Context, from, to int) ([]Done, error) {
		if o.DryRun {
			return d.wouldRestore(ctx, all[from:to])
		}
		return d.restore(ctx, clock(), by, o.Reason, all[from:to])
	})
	return d.ended(clock(), by, verb, o.DryRun, r, err)
}

// chooseDeleted finds what an order is about.
func (d *Desk) chooseDeleted(ctx context.Context, now time.Time, o *DeletedOrder, r *run) ([]keptCopy, error) {
	var all []keptCopy
	last := make(map[string]int, len(o.Filter.IDs)) // by id: the place of what it means, from 1
	for _, id := range o.Filter.IDs {
		last[id] = 0
	}
	err := d.eachKept(ctx, now, &o.Filter, r.seen, func(m *Deleted) error {
		if o.Filter.Limit > 0 && len(all) >= o.Filter.Limit {
			return errEnough
		}
		all = append(all, m.kept)
		for _, id := range []string{m.QueueID, m.ID} {
			if _, is := last[id]; is {
				last[id] = len(all)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var unknown []string
	if len(last) > 0 {
		meant := map[int]bool{}
		for _, id := range o.Filter.IDs {
			if meant[last[id]] = true; last[id] == 0 {
				unknown = append(unknown, id)
			}
		}
		some := all[:0]
		for i := range all {
			if meant[i+1] {
				some = append(some, all[i])
			}
		}
		all = some
	}
	var bytes int64
	for i := range all {
		bytes += all[i].size
	}
	return all, r.chosen(len(all), bytes, unknown)
}

// everyCopy is the sieve that leaves out nothing.
var everyCopy = &deletedSieve{DeletedFilter: &DeletedFilter{}}

func (d *Desk) wouldRestore(ctx context.Context, part []keptCopy) ([]Done, error) {
	all, err := d.join(ctx, everyCopy, part)
	done := make([]Done, len(all))
	for i := range all {
		done[i] = Done{Held: all[i].Held, Outcome: outcomeWould}
	}
	return done, err
}

// restore brings some back, and journals under which ids. Only then the queue may
// forget these: who is killed before finds them once more.
func (d *Desk) restore(ctx context.Context, now time.Time, by By, reason string, part []keptCopy) ([]Done, error) {
	defer d.oneAct()()
	all, err := d.join(ctx, everyCopy, part)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(part))
	for i := range part {
		names[i] = part[i].name
	}
	results, err := d.Queue.Restore(ctx, names)
	if err = d.beside("held restore", results, err); err != nil {
		return nil, err
	}
	done, back := make([]Done, len(all)), []string{}
	var records []journal.Record
	for i := range all {
		done[i] = Done{Held: all[i].Held, Outcome: results[i].Fate.String(), NewID: results[i].NewID}
		if err := results[i].Err; err != nil {
			done[i].Error = err.Error()
		}
		if results[i].Fate != mta.Done {
			continue
		}
		back = append(back, names[i])
		if m := &done[i]; m.NewQueueID != m.NewID { // else that was journaled already
			records = append(records, m.restored(now, by, reason)...)
			if d.Room != nil && m.Rule != ruleAdmin {
				d.Room.Add(d.roomOf(m.Account, m.Site, m.Template), m.Size)
			}
		}
	}
	if len(records) > 0 {
		if err := d.Journal.Append(records...); err != nil {
			d.Log.Error("the journal does not take what was done", "error", err)
			for i := range done {
				if done[i].Outcome == mta.Done.String() {
					done[i].Error = "it is on hold, and the journal does not take that: undelete it once more, which only writes it down"
				}
			}
			return done, nil
		}
	}
	if err := d.Queue.Forget(ctx, back); err != nil {
		d.Log.Warn("held restore: notes of new queue ids stay for a while", "error", err)
	}
	return done, nil
}

// restored are the journal's entries of a message that is back: its new hold, and
// what the old one became.
func (m *Done) restored(now time.Time, by By, reason string) []journal.Record {
	was := journal.State(m.State)
	if was == journal.StateDeleting { // which nobody heard the end of
		was = journal.StateDeleted
	}
	return []journal.Record{
		journal.Held{QueueID: m.NewID, DecisionID: m.ID, Account: m.Account, Rule: m.Rule, Reason: m.Reason, MailFrom: m.MailFrom, Arrival: m.Arrival, HeldAt: now,
			Size: m.Size, Recipients: m.Recipients, Domains: m.Domains, Site: m.Site, Plugin: m.Plugin, Template: m.Template},
		journal.HoldChange{QueueID: m.QueueID, DecisionID: m.ID, Time: now, State: was, By: by.Name, Reason: strings.TrimSuffix("restored: "+reason, ": "), NewQueueID: m.NewID},
	}
}
