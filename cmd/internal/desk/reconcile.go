package desk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"relayguard/cmd/internal/holds"
	"relayguard/journal"
	"relayguard/mta"
)

// guardItself is who does what the guard does by itself.
var guardItself = By{Name: "relayguard", LoginUID: -1}

// Reasons of the guard's own entries.
const (
	reasonLost = "lost: the MTA's log says that a milter held it, the journal does not say why"
	reasonLeft = "it was no longer in the queue"
	reasonGone = "it is no longer in the hold queue, and the guard did not take it out"
)

// young is how long a hold may be in the journal before its message is in the
// queue: the entry is written before the MTA is answered.
const young = time.Minute

// Reconcile looks at the hold queue and puts the journal right: what is asked
// for and not done is done again, what left is closed, what is held without an
// entry gets one. Other people's holds are counted and left alone. What it
// concludes rests on a journal that is up to date and, before anything is closed,
// on two looks: a queue that changes while it is read may hide a message. It
// also asks what the MTA's settings stop, for MTAStopped.
func (d *Desk) Reconcile(ctx context.Context, now time.Time) error {
	redo, left, err := d.reconcile(ctx, now)
	if err != nil && ctx.Err() != nil {
		return err // who asked has left: that says nothing of the queue
	}
	d.mu.Lock()
	d.lookErr = err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	d.lookAtStop(ctx, now)
	for verb, again := range redo {
		d.Log.Info("an act on held mail that was cut off is done again", "verb", verb, "messages", len(again))
		if _, err := d.settle(ctx, now, guardItself, "again, after it was cut off", verb, again, func(part []journal.Hold) []journal.Hold {
			part = slices.DeleteFunc(part, func(h journal.Hold) bool { return h.State.Open() && h.State != transit[verb].asked }) // somebody wished otherwise since
			if verb == "release" {
				part, _, _ = d.withhold(ctx, now, d.haltedAgain(now, part))
			}
			return part
		}); err != nil {
			return err
		}
	}
	return d.deleteUndone(ctx, now, left)
}

// comparison is one look at queue and journal.
type comparison struct {
	d       *Desk
	now     time.Time
	files   *heldFiles // the hold queue
	totals  map[string]holds.Total
	records []journal.Record
	redo    map[string][]journal.Hold // by verb
	unheld  []journal.Hold            // that were to be put on hold and deleted, and are not on hold
	missing map[holdName]bool         // holds that this look did not find
	room    *holds.Watch              // what is held meanwhile; nil: it is not counted
	begun   time.Time                 // when that began, or a little later
}

type holdName struct{ queueID, decisionID string }

func (d *Desk) reconcile(ctx context.Context, now time.Time) (redo map[string][]journal.Hold, left undone, err error) {
	// A look takes long where much is queued, so nobody waits for it. An act that
	// ended meanwhile makes it worthless.
	c := d.compare(now)
	defer c.end()
	acts := d.acts.Load()
	files, err := d.heldQueue(ctx, nil)
	if err != nil {
		return nil, left, err
	}
	d.acting.Lock() // an act is between two states
	defer d.acting.Unlock()
	if d.acts.Load() != acts {
		if files, err = d.heldQueue(ctx, nil); err != nil {
			return nil, left, err
		}
	}
	c.files = files
	lines := d.newFill(now)
	if err := d.eachOpen(ctx, func(h *journal.Hold) error {
		if c.hold(h) {
			lines.see(h)
		}
		return nil
	}); err != nil {
		return nil, left, err
	}
	if left, err = d.lookElsewhere(ctx, c.unheld); err != nil {
		return nil, left, err
	}
	c.judge(left)
	foreign, others := d.strangers(ctx, c)
	c.flush()
	if c.room != nil {
		c.room.Set(c.totals)
	}
	lines.fill()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.missing, d.others, d.foreign, d.lookedAt = c.missing, others, foreign, now
	return c.redo, left, nil
}

// syncWait bounds how long the journal's database may be behind its log. A
// reconciliation that would rest on less is left out.
const syncWait = 10 * time.Second

// compare begins a comparison of what the queue has, which is read before the
// journal is: what it has was journaled before it came there, so an entry that is
// not found is not there.
func (d *Desk) compare(now time.Time) *comparison {
	c := &comparison{d: d, now: now, totals: map[string]holds.Total{}, redo: map[string][]journal.Hold{}, missing: map[holdName]bool{}}
	if d.Room != nil {
		c.room = d.Room.Watch()
	}
	if c.begun = time.Now(); c.begun.Before(now) {
		c.begun = now
	}
	return c
}

func (c *comparison) end() {
	if c.room != nil {
		c.room.End()
	}
}

// eachOpen calls fn with all open holds of a journal that is up to date.
func (d *Desk) eachOpen(ctx context.Context, fn func(*journal.Hold) error) error {
	if err := d.upToDate(ctx); err != nil {
		return fmt.Errorf("compare the queue with the journal, which is not up to date: %w", err)
	}
	return d.Journal.EachHold(ctx, journal.HoldQuery{}, fn)
}

// upToDate waits until the journal finds all that was appended to it.
func (d *Desk) upToDate(ctx context.Context) error {
	j, ok := d.Journal.(interface{ Sync(context.Context) error })
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, syncWait)
	defer cancel()
	return j.Sync(ctx)
}

// count counts what takes room: an admin's hold takes none. What the mail path
// holds while the look goes on, of which nobody has told the arrival yet, the room
// counts itself: the journal may not have all of it.
func (c *comparison) count(h *journal.Hold) {
	if h.Rule == ruleAdmin || c.room != nil && h.Arrival.IsZero() && h.HeldAt.After(c.begun) {
		return
	}
	room := c.d.roomOf(h.Account, h.Site, h.Template)
	t := c.totals[room]
	c.totals[room] = holds.Total{Messages: t.Messages + 1, Bytes: t.Bytes + h.Size}
}

// hold looks for an open hold in the queue, and reports whether it stays open.
func (c *comparison) hold(h *journal.Hold) (open bool) {
	e, _ := c.files.of(h)
	switch {
	case e != nil:
		c.files.marks[e.number] = true
		c.count(h)
		if h.State == journal.StateReleasing {
			c.again("release", h)
		} else if h.State == journal.StateDeleting {
			c.again("delete", h)
		} else if h.Arrival.Unix() != e.arrival {
			c.record(journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: c.now, State: journal.StateHeld, By: guardItself.Name, Reason: h.ChangeReason, Arrival: e.arrived()})
		}
	case h.State == journal.StateHeld && c.now.Sub(h.HeldAt) < young:
		c.count(h) // on its way into the queue
	case h.State == journal.StateDeleting && h.Rule == ruleAdmin: // queue delete, cut off
		one := *h
		one.Waits = nil
		c.unheld = append(c.unheld, one)
	default:
		return c.absent(h)
	}
	return true
}

// absent judges a hold that is not in the queue, and reports whether it stays open.
func (c *comparison) absent(h *journal.Hold) (open bool) {
	name := holdName{h.QueueID, h.DecisionID}
	c.d.mu.Lock()
	missed := c.d.missing[name]
	c.d.mu.Unlock()
	if missed && !c.files.partial {
		c.record(ended(c.now, *h))
		return false
	}
	c.missing[name] = missed || !c.files.partial
	c.count(h)
	return true
}

// judge closes what was to be deleted and is nowhere, as absent does.
func (c *comparison) judge(left undone) {
	there := make(map[holdName]bool, len(left.holds))
	for _, h := range left.holds {
		there[holdName{h.QueueID, h.DecisionID}] = true
	}
	for i := range c.unheld {
		if h := &c.unheld[i]; !there[holdName{h.QueueID, h.DecisionID}] {
			c.absent(h)
		}
	}
}

// record journals, some hundred records at a time.
func (c *comparison) record(r journal.Record) {
	if c.records = append(c.records, r); len(c.records) >= maxIDs {
		c.flush()
	}
}

func (c *comparison) flush() {
	if len(c.records) > 0 {
		c.d.append(c.records...)
		c.records = c.records[:0]
	}
}

// again has an act done again. What the message waited for is read anew then.
func (c *comparison) again(verb string, h *journal.Hold) {
	one := *h
	one.Waits = nil
	c.redo[verb] = append(c.redo[verb], one)
}

// ended closes a hold whose message left the queue.
func ended(now time.Time, h journal.Hold) journal.HoldChange {
	c := journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: now, By: guardItself.Name, State: endOf(h.State)}
	if c.State == journal.StateGone {
		c.Reason = reasonGone
	} else { // as it was asked for
		c.By, c.Reason = h.ChangedBy, h.ChangeReason
	}
	return c
}

// endOf is the state of a hold whose message left the queue: what was asked for
// was done.
func endOf(s journal.State) journal.State {
	switch s {
	case journal.StateReleasing:
		return journal.StateReleased
	case journal.StateDeleting:
		return journal.StateDeleted
	}
	return journal.StateGone
}

// strangers are held messages without an open hold: ours, if one was closed too
// early, or if the MTA's log says that a milter held them and the journal does
// not say that it was not us; and else somebody else's, which are counted, and
// some returned.
func (d *Desk) strangers(ctx context.Context, c *comparison) (foreign []Held, others int) {
	for numbers := range slices.Chunk(c.files.unmarked(), maxIDs) {
		part := c.files.some(numbers)
		closed := d.closed(ctx, c.now, part)
		for _, f := range part {
			if h, ok := closed[f.id]; ok && matches(h, f.file()) {
				c.record(journal.HoldChange{QueueID: f.id, DecisionID: h.DecisionID, Time: c.now, State: journal.StateHeld, By: guardItself.Name, Reason: "it is in the hold queue after all", Arrival: f.arrived()})
				c.count(&h)
				continue
			}
			if at, ours := d.heldByUs(ctx, c.now, f.file()); ours {
				c.record(journal.Held{QueueID: f.id, Account: unknownAccount, Reason: reasonLost, MailFrom: f.sender,
					Arrival: f.arrived(), HeldAt: at, Size: f.size, Recipients: f.recipients, Domains: f.domains})
				c.count(&journal.Hold{Account: unknownAccount, Size: f.size})
				continue
			}
			if others++; len(foreign) < maxForeign {
				foreign = append(foreign, f.foreign())
			}
		}
	}
	d.forgetMilter(c)
	return foreign, others
}

// maxIDs is how many ids the journal is asked for at a time.
const maxIDs = 500

// closedFor is how long a hold that was closed may turn out to be there after all: a
// few looks. What is on hold later somebody else has put there.
const closedFor = 15 * time.Minute

// closed are holds that were closed a short while ago because their messages were not
// seen, by queue id; of one id the newest that fits.
func (d *Desk) closed(ctx context.Context, now time.Time, files []*heldFile) map[string]journal.Hold {
	ids, byID := make([]string, len(files)), make(map[string]*heldFile, len(files))
	for i, f := range files {
		ids[i], byID[f.id] = f.id, f
	}
	closed := map[string]journal.Hold{}
	all, err := d.Journal.Holds(ctx, journal.HoldQuery{IDs: ids, States: []journal.State{journal.StateGone}})
	if err != nil {
		return nil
	}
	for _, h := range all { // newest first
		f := byID[h.QueueID]
		if h.ChangeReason != reasonGone && h.ChangeReason != reasonLeft || now.Sub(h.Changed) > closedFor {
			continue
		}
		if _, known := closed[h.QueueID]; !known && f != nil && matches(h, f.file()) {
			closed[h.QueueID] = h
		}
	}
	return closed
}

// heldByUs reports whether the MTA's log says that a milter held the message, and
// the journal knows of no decision to let it pass: then another milter did. The
// log is evidence, not proof; what rests on it alone no bulk verb touches.
func (d *Desk) heldByUs(ctx context.Context, now time.Time, e mta.QueueFile) (at time.Time, ours bool) {
	d.mu.Lock()
	at, ours = d.byMilter[e.ID]
	d.mu.Unlock()
	if !ours || e.Arrival.After(at.Add(time.Second)) || now.Sub(at) < young {
		return at, false
	}
	known, err := d.Journal.Explain(ctx, e.ID)
	if err != nil {
		return at, false
	}
	for _, k := range known {
		if k.Decision.ID != "" && matches(journal.Hold{HeldAt: k.Decision.Time, MailFrom: k.Decision.MailFrom}, e) {
			return at, false
		}
	}
	return at, true
}

// forgetMilter drops what the log told of messages that have left.
func (d *Desk) forgetMilter(c *comparison) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, at := range d.byMilter {
		if c.files.count(id) == 0 && c.now.Sub(at) > young {
			delete(d.byMilter, id)
		}
	}
}

// HeldByMilter learns from the MTA's log that a milter held a message.
func (d *Desk) HeldByMilter(queueID string, at time.Time) {
	const most = 100_000 // what is held at all, several times
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byMilter == nil {
		d.byMilter = map[string]time.Time{}
	}
	if len(d.byMilter) < most {
		d.byMilter[queueID] = at
	}
}

// domains counts recipients by domain: all that is told of them.
func domains(rcpts []string) map[string]int {
	all := map[string]int{}
	for _, to := range rcpts {
		all[domainOf(to)]++
	}
	return all
}

// Requeued learns from the MTA's log that a message has another queue id now. It
// does not wait for the journal: Expire follows.
func (d *Desk) Requeued(oldID, newID string, at time.Time) {
	d.bounces.follow(oldID, newID)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.requeued) < maxRequeued {
		d.requeued = append(d.requeued, requeue{oldID, newID, at})
	}
}

// maxRequeued bounds what waits for Expire: postsuper -r ALL is not ours to follow
// for ever.
const maxRequeued = 10_000

type requeue struct {
	oldID, newID string
	at           time.Time
}

// followRequeued journals the new ids of messages that were held. It goes between
// acts, and waits for none: what it journals has the state that it finds, and the
// journal takes no change back to "releasing" once a release has come to its end.
func (d *Desk) followRequeued(ctx context.Context) {
	if !d.acting.TryLock() {
		return // the next call follows
	}
	defer d.acting.Unlock()
	d.mu.Lock()
	all := d.requeued
	d.requeued = nil
	d.mu.Unlock()
	if len(all) == 0 {
		return
	}
	newID, ids := map[string]requeue{}, make([]string, len(all))
	for i, r := range all {
		newID[r.oldID], ids[i] = r, r.oldID
	}
	holds, err := d.Journal.Holds(ctx, journal.HoldQuery{IDs: ids, States: []journal.State{journal.StateReleasing, journal.StateReleased}})
	if err != nil {
		d.tellOnce("requeued", "new queue ids of released mail are not journaled; it is tried again", "error", err)
		d.mu.Lock()
		defer d.mu.Unlock()
		all = append(all, d.requeued...)
		d.requeued = all[:min(len(all), maxRequeued)]
		return
	}
	d.mended("requeued")
	var records []journal.Record
	for _, h := range holds { // newest first: an id may have been used before
		if r, ok := newID[h.QueueID]; ok && h.NewQueueID == "" {
			records = append(records, journal.HoldChange{QueueID: h.QueueID, DecisionID: h.DecisionID, Time: r.at, State: h.State, By: h.ChangedBy, Reason: h.ChangeReason, NewQueueID: r.newID})
			delete(newID, h.QueueID)
		}
	}
	if len(records) > 0 {
		d.append(records...)
	}
}

// Looked tells how many messages others hold, and what was wrong with the last
// look at the queue.
func (d *Desk) Looked() (foreign int, problem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lookErr != nil {
		problem = d.lookErr.Error()
	}
	return d.others, problem
}
