package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayguard/cmd/internal/queue"
	"relayguard/journal"
	"relayguard/mta"
)

// Filter chooses held mail. What is set must all hold.
type Filter struct {
	IDs       []string      `json:"ids,omitempty"`     // queue ids or decision ids
	Account   string        `json:"account,omitempty"` // also "site:NAME", "plugin:NAME", "plugin:NAME@SITE", "template:NAME"
	Login     string        `json:"login,omitempty"`
	LocalUser string        `json:"local_user,omitempty"`
	Rule      string        `json:"rule,omitempty"`
	Site      string        `json:"site,omitempty"`
	Plugin    string        `json:"plugin,omitempty"`
	Template  string        `json:"template,omitempty"`
	MailFrom  string        `json:"mail_from,omitempty"` // "<>" is the null sender
	OlderThan time.Duration `json:"older_than,omitempty"`
	NewerThan time.Duration `json:"newer_than,omitempty"`
	Before    time.Time     `json:"before,omitzero"` // held before; an act that was agreed to names when it was shown
	All       bool          `json:"all,omitempty"`   // needed where nothing else chooses
	Limit     int           `json:"limit,omitempty"` // the oldest so many
}

// chooses reports whether the filter leaves anything out.
func (f *Filter) chooses() bool {
	return len(f.IDs) > 0 || f.Account != "" || f.Login != "" || f.LocalUser != "" || f.Rule != "" || f.Site != "" || f.Plugin != "" || f.Template != "" || f.MailFrom != "" || f.OlderThan != 0 || f.NewerThan != 0
}

func (f *Filter) query(now time.Time) journal.HoldQuery {
	q := journal.HoldQuery{IDs: f.IDs, Account: f.Account, Login: f.Login, LocalUser: f.LocalUser, Rule: f.Rule, Site: f.Site, Plugin: f.Plugin, Template: f.Template}
	narrow(&q)
	if f.OlderThan != 0 {
		q.HeldBefore = now.Add(-f.OlderThan)
	}
	if !f.Before.IsZero() && (q.HeldBefore.IsZero() || f.Before.Before(q.HeldBefore)) {
		q.HeldBefore = f.Before
	}
	if f.NewerThan != 0 {
		q.HeldAfter = now.Add(-f.NewerThan)
	}
	return q
}

// narrow takes what is less than an account out of Account. What makes no sense,
// or says otherwise than the rest, stays there: no mail is of such an account.
func narrow(q *journal.HoldQuery) {
	kind, value, _ := strings.Cut(q.Account, ":")
	of := *q
	agrees := func(to *string, value string) bool {
		if value == "" || *to != "" && *to != value {
			return false
		}
		*to = value
		return true
	}
	ok := false
	switch kind {
	case "site":
		ok = agrees(&of.Site, strings.ToLower(value))
	case "plugin":
		value = strings.ToLower(value)
		at := strings.LastIndexByte(value, '@')
		if at < 0 {
			ok = agrees(&of.Plugin, value)
			break
		}
		ok = agrees(&of.Plugin, value[:at]) && agrees(&of.Site, value[at+1:])
	case "template":
		ok = agrees(&of.Template, value)
	}
	if ok {
		of.Account = ""
		*q = of
	}
}

// List is what is held.
type List struct {
	Held    []Held    `json:"held"`
	Foreign int       `json:"foreign"` // held by others; at most 1,000 of them are in Held
	Looked  time.Time `json:"looked"`  // when the queue was last looked at
	Stale   string    `json:"stale,omitempty"`
}

// List lists held mail, the oldest first; that of others only if nothing chooses.
func (d *Desk) List(ctx context.Context, now time.Time, f Filter) (List, error) {
	l := List{Held: []Held{}}
	end, err := d.EachHeld(ctx, now, f, func(h Held) error {
		l.Held = append(l.Held, h)
		return nil
	})
	if err != nil {
		return List{}, err
	}
	l.Foreign, l.Looked, l.Stale = end.Foreign, end.Looked, end.Stale
	return l, nil
}

// freshen looks at the queue unless that was just done, or would take long.
func (d *Desk) freshen(ctx context.Context, now time.Time) {
	const many = 5000
	d.mu.Lock()
	just := d.lookErr == nil && now.Sub(d.lookedAt) < fresh && now.After(d.lookedAt) // a look that failed since is tried again
	d.mu.Unlock()
	if just || d.Room != nil && d.Room.Totals().Messages > many {
		return
	}
	if err := d.Reconcile(ctx, now); err != nil && ctx.Err() == nil { // else nobody waits for it any more
		d.Log.Warn("look at the queue", "error", err)
	}
}

// find asks the journal, and narrows to what it has no index for: the longest held
// first, without what they wait for.
func (d *Desk) find(ctx context.Context, now time.Time, f Filter) (all []journal.Hold, err error) {
	err = d.each(ctx, now, f, func(h *journal.Hold) error {
		h.Waits = nil // may be large, and all may be very many
		all = append(all, *h)
		return nil
	})
	return all, err
}

// each calls fn with the open holds that a filter chooses, the longest held first.
func (d *Desk) each(ctx context.Context, now time.Time, f Filter, fn func(*journal.Hold) error) error {
	_, err := d.eachUpTo(ctx, now, f, fn)
	return err
}

// eachUpTo is each, and reports whether the filter's limit left any out.
func (d *Desk) eachUpTo(ctx context.Context, now time.Time, f Filter, fn func(*journal.Hold) error) (more bool, err error) {
	from, n := strings.TrimSuffix(strings.TrimPrefix(f.MailFrom, "<"), ">"), 0
	err = d.Journal.EachHold(ctx, f.query(now), func(h *journal.Hold) error {
		if f.MailFrom != "" && h.MailFrom != from {
			return nil
		}
		if n++; f.Limit > 0 && n > f.Limit {
			more = true
			return errEnough
		}
		return fn(h)
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return more, err
}

// errEnough ends what needs no more.
var errEnough = errors.New("enough")

// ErrEverything says that a request means all held mail without saying so.
var ErrEverything = fmt.Errorf("%w: nothing chooses among the held mail; name ids, an account, a rule or an age, or say --all", ErrUsage)

// Done is what became of one held message.
type Done struct {
	Held
	Outcome string `json:"outcome"`          // would, done, gone, changed, failed, foreign
	NewID   string `json:"new_id,omitempty"` // of a requeued message
	Error   string `json:"error,omitempty"`
	unsure  bool   // it may have been done: nobody said
	settled bool   // by somebody else, whose word stands
}

// Report is what became of an order.
type Report struct {
	Verb     string         `json:"verb"`
	DryRun   bool           `json:"dry_run"`
	Messages []Done         `json:"messages"`
	Counts   map[string]int `json:"counts"` // by outcome
	Bytes    int64          `json:"bytes"`
	Unknown  []string       `json:"unknown,omitempty"` // ids that the guard holds nothing under
}

func (r *Report) add(m Done) {
	r.Messages = append(r.Messages, m)
	r.Counts[m.Outcome]++
	r.Bytes += m.Size
}

// lost reports whether nothing but the MTA's log says that the guard held it.
func lost(h *journal.Hold) bool { return h.DecisionID == "" && h.Rule == "" }

// unknown are the ids that chose nothing.
func unknown(ids []string, chosen []journal.Hold) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		return slices.ContainsFunc(chosen, func(h journal.Hold) bool { return h.QueueID == id || h.DecisionID == id })
	})
}

// transit are the states of an act: asked for, and done.
var transit = map[string]struct{ asked, done journal.State }{
	"release": {journal.StateReleasing, journal.StateReleased},
	"delete":  {journal.StateDeleting, journal.StateDeleted},
	forGood:   {journal.StateDeleting, journal.StateDeleted},
	requeued:  {journal.StateReleasing, journal.StateReleased}, // after a crash a release does as well
}

// requeued is the verb of a release that queues anew, whatever the age.
const requeued = "requeue"

// maxAtOnce is how many messages one act may keep others waiting for: a
// suspension does not wait for the release of 20,000.
const maxAtOnce = 5000

// coming is how long the MTA may take from the guard's answer to the hold queue.
// An order that comes between is carried out by the next reconciliation.
const coming = 2 * time.Second

// settle does it, a few thousand messages at a time. Spare, which may be nil,
// leaves out what is not to be touched after all. The queue is looked at once, and
// nobody waits for that: it takes long where much is queued.
func (d *Desk) settle(ctx context.Context, now time.Time, by By, reason, verb string, chosen []journal.Hold, spare func([]journal.Hold) []journal.Hold) (all []Done, err error) {
	if len(chosen) == 0 {
		return nil, nil
	}
	wanted := make(map[string]bool, len(chosen))
	for i := range chosen {
		wanted[chosen[i].QueueID] = true
	}
	there, err := d.heldQueue(ctx, wanted)
	if err != nil {
		return nil, fmt.Errorf("held %s: %w", verb, err)
	}
	for part := range slices.Chunk(chosen, maxAtOnce) {
		done, err := d.settleSome(ctx, now, by, reason, verb, part, there, spare)
		all = append(all, done...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// settleSome does it: what is asked for stands in the journal before, so that it
// is done again after a crash, and what came of it after. There is what the hold
// queue had since they were chosen; the MTA's side looks once more.
func (d *Desk) settleSome(ctx context.Context, now time.Time, by By, reason, verb string, chosen []journal.Hold, there *heldFiles, spare func([]journal.Hold) []journal.Hold) ([]Done, error) {
	defer d.oneAct()()
	chosen, err := d.again(ctx, chosen)
	if err != nil {
		return nil, fmt.Errorf("held %s: %w", verb, err)
	}
	if spare != nil {
		chosen = spare(chosen)
	}
	state := transit[verb]
	done := make([]Done, len(chosen))
	var targets []mta.Target
	var index []int
	var asked []journal.Record
	for i, h := range chosen {
		done[i] = Done{Held: heldOf(&h)}
		if !h.State.Open() { // somebody was quicker
			done[i].Outcome, done[i].settled = mta.Gone.String(), true
			continue
		}
		e, other := there.of(&h)
		switch {
		case e != nil:
			targets, index = append(targets, e.target()), append(index, i)
		case !other && (there.partial || h.State == journal.StateHeld && now.Sub(h.HeldAt) < coming):
			done[i].Outcome, done[i].Error, done[i].unsure = mta.Failed.String(), "it is not to be seen in the queue yet; it is done as soon as it is", true
			if h.State != journal.StateHeld {
				continue // what was asked for before may be done
			}
		default:
			done[i].Outcome = left(h, other, state.asked)
			continue
		}
		asked = append(asked, journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, State: state.asked, By: by.Name, Reason: reason, Arrival: e.arrived(), ChargeID: h.ChargeID})
		d.waitsNoMore(&h) // before it is done: it is not to be paid for as well
	}
	if len(asked) > 0 {
		d.append(asked...)
	}
	if len(targets) > 0 {
		results, err := d.operate(verb)(ctx, targets)
		if err != nil && results != nil { // it was done, but for what the error says
			d.Log.Warn("held "+verb, "error", err)
			err = nil
		}
		if err != nil {
			return nil, d.unasked(now, by, chosen, index, fmt.Errorf("held %s: %w", verb, err))
		}
		for n, i := range index {
			done[i].Outcome, done[i].NewID = "failed", results[n].NewID
			if results[n].Err != nil {
				done[i].Error = results[n].Err.Error()
				done[i].unsure = errors.Is(results[n].Err, queue.ErrUnsure)
			}
			if results[n].Fate != mta.Failed {
				done[i].Outcome = results[n].Fate.String()
			}
		}
	}
	d.settled(now, by, reason, state.done, done)
	return done, nil
}

// operate is the queue's act on mail on hold.
func (d *Desk) operate(verb string) func(context.Context, []mta.Target) ([]mta.Result, error) {
	switch verb {
	case "delete":
		return d.Queue.Delete
	case forGood:
		return d.Queue.DeleteForGood
	case requeued:
		return d.Queue.Requeue
	}
	return d.Queue.Release
}

// again reads the holds once more, under the lock: another act may have ended
// them since they were chosen.
func (d *Desk) again(ctx context.Context, chosen []journal.Hold) ([]journal.Hold, error) {
	type name struct{ queueID, decisionID string }
	ids, now := make([]string, len(chosen)), map[name]journal.Hold{}
	for i, h := range chosen {
		ids[i] = h.QueueID
	}
	_ = d.upToDate(ctx) // if it cannot be: the MTA's side looks once more, and the journal keeps the first outcome
	all, err := d.Journal.Holds(ctx, journal.HoldQuery{IDs: ids})
	if err != nil {
		return nil, err
	}
	for _, h := range all {
		now[name{h.QueueID, h.DecisionID}] = h
	}
	fresh := slices.Clone(chosen)
	for i, h := range chosen {
		if n, open := now[name{h.QueueID, h.DecisionID}]; open {
			fresh[i] = n
		} else {
			fresh[i].State = journal.StateGone
		}
	}
	return fresh, nil
}

// left is the outcome for a message that is not in the hold queue. One that had
// been asked for before went as it was told to, but nobody heard of it.
func left(h journal.Hold, other bool, asked journal.State) string {
	switch {
	case h.State == asked:
		return mta.Done.String()
	case other:
		return mta.Changed.String()
	}
	return mta.Gone.String()
}

// unasked takes back what was asked for and, as nothing was done, will not be.
func (d *Desk) unasked(now time.Time, by By, chosen []journal.Hold, index []int, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err // it may have been done: reconciliation finds out
	}
	var back []journal.Record
	for _, i := range index {
		h := chosen[i]
		back = append(back, journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, State: journal.StateHeld, By: by.Name, Reason: err.Error()})
	}
	d.append(back...)
	return err
}

// settled journals what came of an act.
func (d *Desk) settled(now time.Time, by By, reason string, ended journal.State, done []Done) {
	var records []journal.Record
	for _, m := range done {
		if m.unsure || m.settled {
			continue // what was asked for stands: reconciliation does it, or finds it done
		}
		c := journal.HoldChange{QueueID: m.QueueID, DecisionID: m.ID, Time: now, By: by.Name, Reason: reason, NewQueueID: m.NewID}
		switch m.Outcome {
		case "done":
			c.State = ended
		case "gone", "changed":
			c.State, c.Reason = journal.StateGone, reasonLeft
			if was := endOf(journal.State(m.State)); was != journal.StateGone { // an act before this one, of which nobody heard
				c.State, c.By, c.Reason = was, m.By, m.Why
			}
		default:
			c.State, c.Reason = journal.StateHeld, m.Error
		}
		if c.State != journal.StateHeld && d.Room != nil && m.Rule != ruleAdmin {
			d.Room.Remove(d.roomOf(m.Account, m.Site, m.Template), m.Size)
		}
		records = append(records, c)
	}
	if len(records) > 0 {
		d.append(records...)
	}
}

// isPartial reports whether a look met entries that it could not read.
func isPartial(err error) bool {
	var some *mta.SkippedError
	return errors.As(err, &some)
}

// skipped tells of queue entries that could not be read, and lives with them.
func (d *Desk) skipped(err error) error {
	if isPartial(err) {
		d.Log.Warn("the queue has entries that cannot be read", "error", err)
		return nil
	}
	return err
}

// matches reports whether a queue file is the message that was held. While a
// message is there nobody else has its id, so one that came before the decision
// is it; Postfix counts its arrival from MAIL, in whole seconds. Postfix may have
// rewritten its sender, so another one says nothing; the same one makes up for a
// clock that was set back a little. Once the arrival was read, it must be that.
func matches(h journal.Hold, q mta.QueueFile) bool {
	if !h.Arrival.IsZero() {
		return h.Arrival.Unix() == q.Arrival.Unix()
	}
	const slowest = 24 * time.Hour
	if q.Arrival.Before(h.HeldAt.Add(-slowest)) {
		return false
	}
	return !q.Arrival.After(h.HeldAt) || mta.Target{ID: q.ID, Sender: h.MailFrom, Arrival: h.HeldAt}.Matches(q)
}

// Look says what one look into a held message needs.
type Look struct {
	ID     string `json:"id"`
	Part   string `json:"part"` // "headers" or "content"
	Reason string `json:"reason"`
}

// Inspect returns headers or content of a held message. It is journaled before
// anything is read: who looked, at what, why.
func (d *Desk) Inspect(ctx context.Context, now time.Time, by By, l Look) (Inspected, error) {
	if l.Part != "headers" && l.Part != "content" || strings.TrimSpace(l.Reason) == "" {
		return Inspected{}, fmt.Errorf("%w: a look into mail is into its headers or its content, and has a reason", ErrUsage)
	}
	all, err := d.find(ctx, now, Filter{IDs: []string{l.ID}})
	if err != nil {
		return Inspected{}, err
	}
	if len(all) == 0 {
		return Inspected{}, fmt.Errorf("%w: %s", ErrNotHeld, l.ID)
	}
	h := &all[len(all)-1]
	out := Inspected{Held: heldOf(h)}
	if err := d.Journal.Append(d.audit(now, by, "held show --"+l.Part, h.QueueID, l.Reason, "")); err != nil {
		return out, fmt.Errorf("the look cannot be journaled, so there is none: %w", err)
	}
	there, err := d.heldQueue(ctx, map[string]bool{h.QueueID: true})
	if err != nil {
		return out, err
	}
	e, _ := there.of(h)
	if e == nil {
		return out, fmt.Errorf("%w: %s has left the queue", ErrNotHeld, h.QueueID)
	}
	read := d.Queue.Headers
	if l.Part == "content" {
		read = d.Queue.Content
	}
	out.Text, err = read(ctx, e.target())
	if errors.Is(err, mta.ErrCut) {
		out.Cut, err = true, nil
	}
	return out, err
}

// Inspected is a look into a held message.
type Inspected struct {
	Held
	Text []byte `json:"text"`          // as it is in the queue
	Cut  bool   `json:"cut,omitempty"` // there is more than may be shown
}

// ErrNotHeld says that the guard holds nothing under an id.
var ErrNotHeld = errors.New("nothing is held under that id")
