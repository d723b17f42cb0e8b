package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relayguard/journal"
	"relayguard/mta"
	"relayguard/policy"
)

// Stopped is what the red switch did.
type Stopped struct {
	Held    int      `json:"held"` // messages that were in the queue
	Caveats []string `json:"caveats,omitempty"`
}

// Stop pulls the red switch: new mail to the outside is held by the guard, what
// is in the queue by the MTA, and nothing goes out meanwhile. Inbound mail is not
// touched.
func (d *Desk) Stop(ctx context.Context, now time.Time, by By, reason string) (Stopped, error) {
	var out Stopped
	d.append(d.audit(now, by, "stop", "all mail to the outside", reason, ""))
	// First the guard, so that nothing new gets into the queue.
	if _, err := d.Switches.Set(policy.Switch{Kind: policy.Stop, Reason: reason, By: by.Name, Since: now}); err != nil {
		out.Caveats = append(out.Caveats, err.Error())
	}
	did, err := d.Queue.Stop(ctx) // waits for no other act: seconds count
	out.Caveats = append(out.Caveats, did.Caveats...)
	for _, f := range did.Failed {
		out.Caveats = append(out.Caveats, fmt.Sprintf("%s is not on hold, only deferred: %v", f.ID, f.Err))
	}
	out.Held = len(did.Held)
	d.adopt(ctx, now, reasonStopped+reason, did.Held)
	if err != nil {
		return out, fmt.Errorf("new mail is held, but what is in the queue may go on: %w", err)
	}
	return out, nil
}

const reasonStopped = "all mail to the outside is stopped: "

// adopt journals what the MTA's side holds for the red switch: at once, and then
// whose each message is.
func (d *Desk) adopt(ctx context.Context, now time.Time, reason string, files []mta.QueueFile) {
	if len(files) == 0 {
		return
	}
	entry := func(q *mta.QueueFile, of whose) journal.Held {
		return journal.Held{QueueID: q.ID, Account: of.account, Rule: policy.RuleStopped, Reason: reason, Site: of.site, Plugin: of.plugin, Template: of.template,
			MailFrom: q.Sender, Arrival: q.Arrival, HeldAt: now, Size: q.Size, Recipients: len(q.Recipients) + q.More, Domains: domains(q.Recipients)}
	}
	entries := make([]journal.Record, 0, min(len(files), maxIDs)) // there may be 100,000
	for part := range slices.Chunk(files, maxIDs) {
		for i := range part {
			entries = append(entries, entry(&part[i], whose{account: unknownAccount}))
		}
		d.append(entries...)
		entries = entries[:0]
	}
	ctx, cancel := context.WithTimeout(ctx, ownersWait)
	defer cancel()
	_ = d.upToDate(ctx) // if it is not, start asks once more
	for part := range slices.Chunk(files, maxIDs) {
		owners := d.owners(ctx, part)
		for i := range part {
			of := owners[i]
			if of.account != unknownAccount {
				entries = append(entries, entry(&part[i], of))
			}
			if d.Room != nil {
				d.Room.Add(d.roomOf(of.account, of.site, of.template), part[i].Size)
			}
		}
		if len(entries) > 0 {
			d.append(entries...)
			entries = entries[:0]
		}
	}
}

// owners finds whose some messages in the queue are, as owner does.
func (d *Desk) owners(ctx context.Context, files []mta.QueueFile) []whose {
	owners, ids := make([]whose, len(files)), make([]string, len(files))
	for i := range files {
		owners[i].account, ids[i] = unknownAccount, files[i].ID
	}
	if ctx.Err() != nil {
		return owners
	}
	all, err := d.Journal.Known(ctx, ids)
	if err != nil {
		return owners
	}
	of := map[string][]journal.Known{}
	for _, k := range all {
		if k.State == "" { // the holds are those of a moment ago
			of[k.QueueID] = append(of[k.QueueID], k)
		}
	}
	for i := range files {
		if _, k := pick(of[files[i].ID], files[i]); k != nil {
			owners[i] = whose{k.Account, k.Site, k.Plugin, k.Template}
		}
	}
	return owners
}

// ownersWait bounds how long the accounts of stopped mail are looked for.
const ownersWait = 10 * time.Second

// whose says where a message came from.
type whose struct{ account, site, plugin, template string }

// names are those under which it may be suspended.
func (w *whose) names() []string {
	all := []string{w.account}
	if w.site != "" {
		all = append(all, "site:"+w.site)
	}
	if w.plugin != "" {
		all = append(all, "plugin:"+w.plugin, "plugin:"+w.plugin+"@"+w.site)
	}
	return all
}

// owner finds whose a message in the queue is; its account is "unknown" if the
// journal knows of no decision about it. An error says that it could not be asked.
func (d *Desk) owner(ctx context.Context, queueID string, arrival time.Time) (whose, error) {
	nobodys := whose{account: unknownAccount}
	if err := ctx.Err(); err != nil {
		return nobodys, err
	}
	all, err := d.Journal.Explain(ctx, queueID)
	if err != nil {
		return nobodys, err
	}
	for _, e := range all {
		if e.Decision.ID != "" && !arrival.After(e.Decision.Time.Add(2*time.Second)) && e.Decision.Time.Sub(arrival) < 24*time.Hour {
			return whose{e.Decision.Account, e.Decision.Site, e.Decision.Plugin, e.Decision.Template}, nil
		}
	}
	return nobodys, nil
}

const unknownAccount = "unknown"

// Started is what taking the red switch back did.
type Started struct {
	Was      bool           `json:"was"` // stopped
	Released map[string]int `json:"released,omitempty"`
	Kept     int            `json:"kept"`     // messages that stay held
	Withheld int            `json:"withheld"` // of them, those of suspended accounts
	Remarks  []string       `json:"remarks,omitempty"`
}

// Start takes the red switch back and releases what it held, unless keep: then
// an admin goes through it.
func (d *Desk) Start(ctx context.Context, now time.Time, by By, reason string, keep bool) (Started, error) {
	var out Started
	kept := d.Journal.Append(d.audit(now, by, "start", "all mail to the outside", reason, ""))
	_, blind := d.Journal.Holds(ctx, journal.HoldQuery{Rule: policy.RuleStopped, Limit: 1})
	if !errors.Is(kept, journal.ErrClosed) && !errors.Is(kept, journal.ErrLost) {
		blind = nil // what is journaled now is found later
	}
	gone, err := d.Switches.Remove(func(s policy.Switch) bool { return s.Kind == policy.Stop })
	if err != nil {
		out.Remarks = append(out.Remarks, err.Error())
	}
	out.Was = len(gone) > 0
	if blind != nil {
		return out, d.startBlind(ctx, now, keep, blind, &out)
	}
	did, err := d.Queue.Start(ctx, true) // nothing goes before it is known whose it is
	if err != nil && !errors.Is(err, mta.ErrNotStopped) {
		return out, fmt.Errorf("new mail is taken again, but the MTA's side is not through with it, start once more: %w", err)
	}
	out.Remarks = append(out.Remarks, did.Caveats...)
	out.Was = out.Was || err == nil
	if err := d.upToDate(ctx); err != nil {
		out.Remarks = append(out.Remarks, "the journal is not up to date; some of the stopped mail may not be known yet: start once more: "+err.Error())
	}
	held, err := d.stoppedMail(ctx, now, reason, did.Kept)
	if err != nil {
		return out, err
	}
	if keep {
		d.keep(now, held)
		out.Kept = len(held)
		return out, nil
	}
	unsure := 0
	done, err := d.settle(ctx, now, by, reason, "release", held, func(part []journal.Hold) []journal.Hold {
		free, withheld, unknown := d.withhold(ctx, now, part)
		out.Withheld += withheld
		unsure += unknown
		return free
	})
	if unsure > 0 {
		out.Remarks = append(out.Remarks, fmt.Sprintf("%d messages stay held, for it could not be found out whether their accounts are suspended: relayguard held list --rule stopped", unsure))
	}
	out.Kept = out.Withheld + unsure
	out.Released = map[string]int{}
	for _, m := range done {
		out.Released[m.Outcome]++
	}
	return out, err
}

// startBlind takes the switch back without a journal to search or to write: what
// the MTA's side holds goes, for nobody would know of it later, unless it is to be
// kept or some account is suspended, of which it may be.
func (d *Desk) startBlind(ctx context.Context, now time.Time, keep bool, blind error, out *Started) error {
	suspended := slices.ContainsFunc(d.Switches.All(now), func(s policy.Switch) bool { return s.Kind == policy.Suspend })
	did, err := d.Queue.Start(ctx, keep || suspended)
	out.Remarks = append(out.Remarks, did.Caveats...)
	out.Remarks = append(out.Remarks, "the journal cannot be searched; what the guard itself held stays held: relayguard held list --rule stopped: "+blind.Error())
	out.Was = out.Was || err == nil
	out.Released = map[string]int{}
	for _, r := range did.Released {
		out.Released[r.Fate.String()]++
	}
	out.Kept = len(did.Kept)
	if suspended && !keep && len(did.Kept) > 0 {
		out.Remarks = append(out.Remarks, "accounts are suspended, so what the MTA held is not let go: relayguard queue list --queue hold shows it, relayguard queue release --foreign lets it go")
	}
	if errors.Is(err, mta.ErrNotStopped) {
		return nil
	}
	return err
}

// keep makes stopped mail wait for an admin: no later start touches it.
func (d *Desk) keep(now time.Time, held []journal.Hold) {
	entries := make([]journal.Record, len(held))
	for i, h := range held {
		entries[i] = journal.Held{QueueID: h.QueueID, DecisionID: h.DecisionID, Account: h.Account, Rule: policy.RuleKept, Reason: "kept when mail went again; " + h.Reason,
			MailFrom: h.MailFrom, Arrival: h.Arrival, HeldAt: h.HeldAt, Size: h.Size, Recipients: h.Recipients, Domains: h.Domains}
	}
	if len(entries) > 0 {
		d.append(entries...)
	}
}

// stoppedMail is what the red switch holds: by the guard, and by the MTA's side,
// of which what has no entry gets one.
func (d *Desk) stoppedMail(ctx context.Context, now time.Time, reason string, kept []mta.Target) ([]journal.Hold, error) {
	held, err := d.find(ctx, now, Filter{Rule: policy.RuleStopped})
	if len(kept) == 0 {
		return held, err
	}
	known := map[string]bool{}
	for _, h := range held {
		known[h.QueueID] = true
	}
	wanted := make(map[string]bool, len(kept))
	for _, t := range kept {
		wanted[t.ID] = true
	}
	there, lookErr := d.heldQueue(ctx, wanted)
	var missing []mta.QueueFile
	for _, t := range kept {
		switch e := there.ofTarget(t); {
		case known[t.ID]:
		case e != nil:
			missing = append(missing, e.file())
		case lookErr != nil: // the MTA's side tells it once: better an entry too many, which reconciliation closes
			missing = append(missing, mta.QueueFile{ID: t.ID, Sender: t.Sender, Arrival: t.Arrival})
		}
	}
	d.adopt(ctx, now, reasonStopped+reason, missing)
	if err = errors.Join(err, lookErr); err != nil || len(missing) == 0 {
		return held, err
	}
	return d.find(ctx, now, Filter{Rule: policy.RuleStopped})
}

// withhold keeps back stopped mail of accounts, sites and plugins that are suspended by now: it is
// held for that from here on. It is asked while no other act is under way: a
// suspension is in force before it waits for its turn, so what was let go before
// is in the queue by the time that the suspension looks there.
func (d *Desk) withhold(ctx context.Context, now time.Time, held []journal.Hold) (free []journal.Hold, withheld, unsure int) {
	suspended := map[string]string{} // reason by account
	for _, s := range d.Switches.All(now) {
		if s.Kind == policy.Suspend {
			suspended[d.name(&s)] = s.Reason
		}
	}
	if len(suspended) == 0 {
		return held, 0, 0
	}
	ctx, cancel := context.WithTimeout(ctx, ownersWait)
	defer cancel()
	var entries []journal.Record
	for _, h := range held {
		if h.Rule != policy.RuleStopped || !h.State.Open() {
			free = append(free, h)
			continue
		}
		of := whose{h.Account, h.Site, h.Plugin, h.Template}
		if of.account == unknownAccount { // when it was stopped: perhaps the journal can tell by now
			var err error
			if of, err = d.owner(ctx, h.QueueID, h.Arrival); err != nil {
				unsure++ // a suspended account's mail does not go because nobody could be asked
				continue
			}
		}
		reason, is := "", false
		for _, name := range of.names() {
			if reason, is = suspended[name]; is {
				break
			}
		}
		if !is {
			free = append(free, h)
			continue
		}
		if of.account != h.Account && d.Room != nil {
			d.Room.Remove(d.roomOf(h.Account, h.Site, h.Template), h.Size)
			d.Room.Add(d.roomOf(of.account, of.site, of.template), h.Size)
		}
		entries = append(entries, journal.Held{QueueID: h.QueueID, DecisionID: h.DecisionID, Account: of.account, Site: of.site, Plugin: of.plugin, Template: of.template, Rule: policy.RuleSuspended, Reason: "suspended: " + reason,
			MailFrom: h.MailFrom, Arrival: h.Arrival, HeldAt: h.HeldAt, Size: h.Size, Recipients: h.Recipients, Domains: h.Domains})
	}
	if len(entries) > 0 {
		d.append(entries...)
	}
	return free, len(entries), unsure
}
