package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"relayguard/cmd/internal/queue"
	"relayguard/journal"
	"relayguard/mta"
)

// queueVerbs are what may be done to queued mail, and to which of it.
var queueVerbs = map[string]func(q string) bool{
	"hold":    func(q string) bool { return q != "hold" && q != "maildrop" },
	"release": func(q string) bool { return q == "hold" },
	"delete":  func(q string) bool { return q != "maildrop" },
	"requeue": func(q string) bool { return q != "maildrop" },
}

// chosen is a message that an act is to be done to: what is needed to know it again,
// and to journal it.
type chosen struct{ Queued }

// choice is what an order is about. There may be 200,000.
type choice struct {
	idShelf // marked: the journal says by the sender whose it is, too; see found.sure
	bytes   int64
}

// mostDomains is how much of whom mail goes to is kept for the journal.
const mostDomains = 4 << 20

func newChoice() *choice { return &choice{idShelf: idShelf{Shelf: Shelf{MostDomains: mostDomains}}} }

func (c *choice) add(m *found) {
	q := m.Queued
	q.Error, q.Verdict = "", "" // of which no act asks
	if n := c.find(q.Instance, q.QueueID); n >= 0 {
		c.bytes -= c.At(n).Size
	}
	c.marks[c.put(&q)] = m.sure
	c.bytes += q.Size
}

// part are some of what was chosen. Where several instances have an id, which the
// journal does not know apart, a hold counts as another's unless the sender says that
// it is ours.
func (c *choice) part(from, to int) []*chosen {
	out := make([]*chosen, 0, to-from)
	for n := from; n < to; n++ {
		one := &chosen{c.At(n)}
		if one.HeldBy != "" && !c.marks[n] && c.count(one.QueueID) > 1 {
			one.HeldBy = byOther
		}
		out = append(out, one)
	}
	return out
}

// ActOnQueue puts mail in the MTA's queue on hold, releases, deletes or requeues it.
// What the filter chooses is looked up first; then it is done, 500 messages at a
// time: what is asked for stands in the journal before, and what came of it after.
// Of what is on hold, others' holds are left alone unless the order says Foreign.
//
// Send is told how far it is. When it fails or ctx ends, the batch in hand is ended
// and no other begun; the last step says so with Cut. The same order again goes on
// with the rest.
func (d *Desk) ActOnQueue(ctx context.Context, now time.Time, by By, o QueueOrder, send func(Step) error) error {
	fits, ok := queueVerbs[o.Verb]
	switch {
	case !ok:
		return fmt.Errorf("%w: queue %q, want hold, release, delete or requeue", ErrUsage, o.Verb)
	case !o.Filter.chooses() && !o.Filter.All:
		return errAll
	}
	if err := d.upToDate(ctx); err != nil {
		d.Log.Warn("queue "+o.Verb+": the journal is not up to date, some holds may look like others'", "error", err)
	}
	r, begun := newRun(send, o.Tell), time.Now()
	c, err := d.choose(ctx, now, &o, r, fits)
	if err != nil {
		return r.unchosen(ctx, err)
	}
	clock := func() time.Time { return now.Add(time.Since(begun)) }
	if !o.DryRun && c.Len() > 0 {
		d.append(d.audit(clock(), by, "queue "+o.Verb, fmt.Sprintf("%d messages", c.Len()), o.Reason, chosenBy(o.Filter)))
	}
	err = r.batches(ctx, c.Len(), func(ctx context.Context, from, to int) ([]Done, error) {
		part := c.part(from, to)
		if o.DryRun {
			return would(part, o.Foreign), nil
		}
		return d.doQueued(ctx, clock(), by, &o, part)
	})
	return d.ended(clock(), by, "queue "+o.Verb, o.DryRun, r, err)
}

// chosenBy is a filter as the audit of an act has it. Of a sender it has the domain:
// an audit is kept longer than addresses are.
func chosenBy[F Filter | QueueFilter | DeletedFilter](f F) string {
	const most, someIDs = 1000, 20 // octets; what was agreed to is named by all its ids, and chosen by the rest
	var text []byte
	switch f := any(f).(type) {
	case Filter:
		f.MailFrom, f.IDs = onlyDomain(f.MailFrom), f.IDs[:min(len(f.IDs), someIDs)]
		text, _ = json.Marshal(f)
	case QueueFilter:
		f.MailFrom, f.IDs = onlyDomain(f.MailFrom), f.IDs[:min(len(f.IDs), someIDs)]
		text, _ = json.Marshal(f)
	case DeletedFilter:
		f.MailFrom, f.IDs = onlyDomain(f.MailFrom), f.IDs[:min(len(f.IDs), someIDs)]
		text, _ = json.Marshal(f)
	}
	if len(text) > most {
		text = append(text[:most], "..."...)
	}
	return "chosen by " + strings.ToValidUTF8(string(text), "")
}

func onlyDomain(addr string) string {
	if at := strings.LastIndexByte(addr, '@'); at >= 0 {
		return "*" + addr[at:]
	}
	return addr
}

// errAll is ErrEverything in words for the queue.
var errAll = fmt.Errorf("%w: nothing chooses among the mail in the queue; name ids, an account, a domain, an error or an age, or say --all", ErrUsage)

// ended tells how an act ended, and journals that it was cut short.
func (d *Desk) ended(now time.Time, by By, verb string, dry bool, r *run, why error) error {
	if why != nil && !dry && r.sum.Total > 0 {
		so := fmt.Sprintf("ended after %d of %d messages: %v", r.sum.Done, r.sum.Total, why)
		d.append(d.audit(now, by, verb, fmt.Sprintf("%d messages", r.sum.Total), "", so))
		d.Log.Warn(verb+" was cut short", "done", r.sum.Done, "of", r.sum.Total, "why", why)
	}
	said := r.end(why)
	if errors.Is(why, errStopped) {
		why = nil // the last step says it
	}
	return errors.Join(why, said)
}

// choose finds what an order is about.
func (d *Desk) choose(ctx context.Context, now time.Time, o *QueueOrder, r *run, fits func(string) bool) (*choice, error) {
	c, f := newChoice(), o.Filter
	f.Limit = 0 // what the act is not for does not count
	end, sieve, err := d.scan(ctx, now, &f, r.seen, func(m *found) error {
		if !fits(m.Queue) || m.lost && len(o.Filter.IDs) == 0 {
			return nil
		}
		if o.Filter.Limit > 0 && c.Len() >= o.Filter.Limit {
			return errEnough
		}
		c.add(m)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case end.NoJournal != "":
		return nil, fmt.Errorf("queue %s: the journal cannot be asked whose the mail is, so nothing is done: %s", o.Verb, end.NoJournal)
	}
	return c, r.chosen(c.Len(), c.bytes, sieve.unknown())
}

// leaves reports whether a hold is somebody else's and left alone.
func (c *chosen) leaves(foreign bool) bool { return c.HeldBy == byOther && !foreign }

// shown is a chosen message as it is told.
func (c *chosen) shown(outcome string) Done {
	return Done{Outcome: outcome, Held: Held{Instance: c.Instance, Queue: c.Queue, QueueID: c.QueueID, ID: c.ID, Account: c.Account, Site: c.Site, Plugin: c.Plugin,
		Template: c.Template, Rule: c.Rule, MailFrom: c.MailFrom, Arrival: c.Arrival, Size: c.Size, Recipients: c.Recipients, Domains: c.Domains, HeldBy: c.HeldBy}}
}

func (c *chosen) target() mta.Target {
	return mta.Target{Instance: c.Instance, ID: c.QueueID, Sender: c.MailFrom, Arrival: c.Arrival, Exact: true}
}

func would(part []*chosen, foreign bool) []Done {
	out := make([]Done, len(part))
	for i := range part {
		out[i] = part[i].shown(outcomeWould)
		if part[i].leaves(foreign) {
			out[i].Outcome = outcomeForeign
		}
	}
	return out
}

// doQueued does one batch.
func (d *Desk) doQueued(ctx context.Context, now time.Time, by By, o *QueueOrder, part []*chosen) (done []Done, err error) {
	var ours, others, queued []*chosen
	for i := range part {
		switch c := part[i]; {
		case c.leaves(o.Foreign):
			done = append(done, c.shown(outcomeForeign))
		case c.Queue != "hold":
			queued = append(queued, c)
		case c.HeldBy == byOther:
			others = append(others, c)
		default:
			ours = append(ours, c)
		}
	}
	for _, one := range []struct {
		part []*chosen
		do   func(context.Context, time.Time, By, *QueueOrder, []*chosen) ([]Done, error)
	}{{ours, d.doHeld}, {others, d.doForeign}, {queued, d.doOnItsWay}} {
		if len(one.part) == 0 {
			continue
		}
		more, err := one.do(ctx, now, by, o, one.part)
		done = append(done, more...)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// heldVerb is the verb of settle.
func (o *QueueOrder) heldVerb() string {
	switch {
	case o.Verb == "delete" && o.NoCopy:
		return forGood
	case o.Verb == "requeue":
		return requeued
	}
	return o.Verb
}

// doHeld does it to what the guard or an admin holds.
func (d *Desk) doHeld(ctx context.Context, now time.Time, by By, o *QueueOrder, part []*chosen) ([]Done, error) {
	there, ids := newHeldFiles(), make([]string, len(part))
	for i := range part {
		c := part[i]
		there.add(&heldFile{instance: c.Instance, id: c.QueueID, sender: c.MailFrom, arrival: c.Arrival.Unix(), size: c.Size})
		ids[i] = c.QueueID
	}
	all, err := d.Journal.Holds(ctx, journal.HoldQuery{IDs: ids})
	if err != nil {
		return nil, err
	}
	var holds []journal.Hold
	known := map[string]bool{}
	for i := range all { // newest first
		h := &all[i]
		if f, _ := there.of(h); f != nil && !known[f.instance+" "+f.id] {
			known[f.instance+" "+f.id] = true
			if o.Verb != "delete" && d.Releasing != nil {
				d.Releasing(ctx, h)
			}
			holds = append(holds, *h)
		}
	}
	done, err := d.settleSome(ctx, now, by, o.Reason, o.heldVerb(), holds, there, nil)
	for i := range done {
		done[i].Queue = "hold"
	}
	if err != nil {
		return done, err
	}
	for i := range part { // somebody was quicker
		if c := part[i]; !known[c.Instance+" "+c.QueueID] {
			done = append(done, c.shown(mta.Gone.String()))
		}
	}
	return done, nil
}

// doForeign does it to what others hold. What was done is journaled, so that what is
// deleted or has another id is found under what it was; what was not stays theirs, and
// has no entry that would make it ours.
func (d *Desk) doForeign(ctx context.Context, now time.Time, by By, o *QueueOrder, part []*chosen) ([]Done, error) {
	defer d.oneAct()()
	results, err := d.operate(o.heldVerb())(ctx, targetsOf(part))
	if err = d.beside("queue "+o.Verb, results, err); err != nil {
		return nil, err
	}
	done := outcomes(part, results)
	var records []journal.Record
	for i := range done {
		if done[i].Outcome == mta.Done.String() {
			change, _ := part[i].became(now, by, o, &done[i], transit[o.heldVerb()].done)
			records = append(records, part[i].entry(now, strings.TrimSuffix("held by another, by "+by.Name+": "+o.Reason, ": ")), change)
		}
	}
	if len(records) > 0 {
		d.append(records...)
	}
	return done, nil
}

// beside logs what an act says beside its results; without these it is an error.
func (d *Desk) beside(verb string, results []mta.Result, err error) error {
	if err != nil && results != nil {
		d.Log.Warn(verb, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

func targetsOf(part []*chosen) []mta.Target {
	targets := make([]mta.Target, len(part))
	for i := range part {
		targets[i] = part[i].target()
	}
	return targets
}

func outcomes(part []*chosen, results []mta.Result) []Done {
	done := make([]Done, len(part))
	for i := range part {
		done[i] = part[i].shown(results[i].Fate.String())
		done[i].NewID = results[i].NewID
		if err := results[i].Err; err != nil {
			done[i].Error, done[i].unsure = err.Error(), errors.Is(err, queue.ErrUnsure)
		}
	}
	return done
}

// doOnItsWay holds, deletes or requeues mail that is not on hold. It is journaled as
// held by an admin before, so that what is cut off between has its entry, and what
// is deleted or has another id is found under what it was.
func (d *Desk) doOnItsWay(ctx context.Context, now time.Time, by By, o *QueueOrder, part []*chosen) ([]Done, error) {
	defer d.oneAct()()
	reason := strings.TrimSuffix("by "+by.Name+": "+o.Reason, ": ")
	state := transit[o.heldVerb()]
	var asked []journal.Record
	for i := range part {
		asked = append(asked, part[i].entry(now, reason))
		if o.Verb != "hold" {
			asked = append(asked, part[i].change(now, by, o.Reason, state.asked))
		}
	}
	d.append(asked...)
	results, err := d.onItsWay(ctx, o, targetsOf(part))
	if err = d.beside("queue "+o.Verb, results, err); err != nil {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) { // else it may have been done
			var back []journal.Record
			for i := range part {
				back = append(back, part[i].change(now, by, err.Error(), journal.StateGone))
			}
			d.append(back...)
		}
		return nil, err
	}
	done := outcomes(part, results)
	var records []journal.Record
	for i := range done {
		if c, changes := part[i].became(now, by, o, &done[i], state.done); changes {
			records = append(records, c)
		}
	}
	if len(records) > 0 {
		d.append(records...)
	}
	return done, nil
}

// onItsWay is the queue's act on mail that is not on hold.
func (d *Desk) onItsWay(ctx context.Context, o *QueueOrder, targets []mta.Target) ([]mta.Result, error) {
	switch {
	case o.Verb == "hold":
		return d.Queue.Hold(ctx, targets, o.Reason)
	case o.Verb == "requeue":
		return d.Queue.Requeue(ctx, targets)
	case !o.NoCopy:
		return d.Queue.DeleteQueued(ctx, targets)
	}
	results, err := d.Queue.Hold(ctx, targets, o.Reason)
	if results == nil {
		return nil, err
	}
	var held []mta.Target
	var index []int
	for i, r := range results {
		if r.Fate == mta.Done {
			held, index = append(held, targets[i]), append(index, i)
		}
	}
	if len(held) == 0 {
		return results, err
	}
	deleted, err := d.Queue.DeleteForGood(ctx, held)
	for n, i := range index {
		if deleted == nil {
			results[i] = mta.Result{ID: held[n].ID, Err: fmt.Errorf("it is on hold, and not deleted: %w", errors.Join(queue.ErrUnsure, err))}
		} else {
			results[i] = deleted[n]
		}
	}
	return results, nil
}

// entry is the hold of a message that an admin acts on.
func (c *chosen) entry(now time.Time, reason string) journal.Held {
	account := c.Account
	if account == "" {
		account = unknownAccount
	}
	return journal.Held{QueueID: c.QueueID, DecisionID: c.ID, Account: account, Rule: ruleAdmin, Reason: reason, MailFrom: c.MailFrom, Arrival: c.Arrival,
		HeldAt: now, Size: c.Size, Recipients: max(0, c.Recipients), Domains: c.Domains, Site: c.Site, Plugin: c.Plugin, Template: c.Template}
}

func (c *chosen) change(now time.Time, by By, reason string, to journal.State) journal.HoldChange {
	return journal.HoldChange{QueueID: c.QueueID, DecisionID: c.ID, Time: now, State: to, By: by.Name, Reason: reason}
}

// became is what is journaled of an outcome; false: what was asked for stands, and
// reconciliation finds out.
func (c *chosen) became(now time.Time, by By, o *QueueOrder, m *Done, done journal.State) (change journal.HoldChange, changes bool) {
	switch {
	case m.unsure:
		return change, false
	case m.Outcome == mta.Done.String() && o.Verb == "hold":
		return change, false // it is held, as its entry says
	case m.Outcome == mta.Done.String():
		change = c.change(now, by, o.Reason, done)
		change.NewQueueID = m.NewID
		return change, true
	}
	why := "it had left before anything could be done"
	if m.Error != "" {
		why = "it was not done: " + m.Error
	}
	return c.change(now, by, why, journal.StateGone), true
}
