package desk

import (
	"context"
	"errors"
	"time"

	"relayguard/journal"
	"relayguard/mta"
)

// found is a message in the queue that was chosen.
type found struct {
	Queued
	lost bool // nothing but the MTA's log says that the guard held it
	sure bool // the journal has the sender that it has in the queue, too
}

const (
	// firstBatch and maxBatch are how many messages are joined with the journal at a
	// time: few first, so that there is something to see at once.
	firstBatch = 8
	maxBatch   = maxIDs
	// maxWait bounds how long a message waits for others.
	maxWait = 250 * time.Millisecond
	// freshWait bounds how long a listing waits for what was journaled last.
	freshWait = 300 * time.Millisecond
)

// scan goes through the queue and calls fn with what the filter chooses, joined
// with the journal. It keeps some hundred messages at a time. A journal that cannot
// be asked is told in the end; then it is not known whose mail it is.
type scan struct {
	d     *Desk
	sieve *sieve
	fn    func(*found) error
	seen  func(int) error // told how many it met, now and then; may be nil
	end   QueueEnd

	batch []found
	files []mta.QueueFile // of batch, without recipients
	size  int
	since time.Time // of the oldest in batch
	once  once
}

func (d *Desk) scan(ctx context.Context, now time.Time, f *QueueFilter, seen func(int) error, fn func(*found) error) (QueueEnd, *sieve, error) {
	if j, ok := d.Journal.(interface{ Sync(context.Context) error }); ok {
		fresh, cancel := context.WithTimeout(ctx, freshWait)
		_ = j.Sync(fresh) // it is a look: what was decided a moment ago may be missing
		cancel()
	}
	sieve, err := d.newSieve(ctx, now, f)
	if err != nil {
		return QueueEnd{}, nil, err
	}
	s := &scan{d: d, sieve: sieve, fn: fn, seen: seen, size: firstBatch, once: once{}}
	err = d.Queue.List(ctx, func(q mta.QueueFile) error { return s.see(ctx, &q) })
	var skipped *mta.SkippedError
	if errors.As(err, &skipped) {
		s.end.Skipped, s.end.Problem, err = skipped.Lines, skipped.First.Error(), nil
	}
	if err == nil {
		err = s.flush(ctx)
	}
	if errors.Is(err, errEnough) {
		s.end.More, err = true, nil
	}
	return s.end, sieve, err
}

func (s *scan) see(ctx context.Context, q *mta.QueueFile) error {
	s.end.Seen++
	if s.seen != nil {
		if err := s.seen(s.end.Seen); err != nil {
			return err
		}
	}
	if s.sieve.passes(q) {
		m := found{Queued: Queued{Instance: s.once.of(q.Instance), Queue: s.once.of(q.Queue), QueueID: q.ID, Arrival: q.Arrival, Size: q.Size,
			MailFrom: s.once.of(q.Sender), Recipients: recipientsOf(q), Domains: fewDomains(domains(q.Recipients)), Error: redact(q.Reason, q.Recipients)}}
		file := *q
		file.Recipients, file.Reason = nil, ""
		if len(s.batch) == 0 {
			s.since = time.Now()
		}
		s.batch, s.files = append(s.batch, m), append(s.files, file)
	}
	if len(s.batch) >= s.size || len(s.batch) > 0 && time.Since(s.since) >= maxWait {
		return s.flush(ctx)
	}
	return nil
}

// flush joins the batch with the journal and hands over what is chosen.
func (s *scan) flush(ctx context.Context) error {
	s.join(ctx)
	for i := range s.batch {
		m := &s.batch[i]
		if !s.sieve.keeps(&m.Queued) {
			continue
		}
		if s.sieve.f.Limit > 0 && s.end.Messages >= s.sieve.f.Limit {
			return errEnough
		}
		s.end.Messages++
		s.end.Bytes += m.Size
		if err := s.fn(m); err != nil {
			return err
		}
	}
	s.size = min(2*s.size, maxBatch)
	clear(s.batch)
	s.batch, s.files = s.batch[:0], s.files[:0]
	return nil
}

// join asks the journal whose the batch is.
func (s *scan) join(ctx context.Context) {
	if len(s.batch) == 0 || s.end.NoJournal != "" {
		return
	}
	ids := make([]string, len(s.batch))
	for i := range s.batch {
		ids[i] = s.batch[i].QueueID
	}
	all, err := s.d.Journal.Known(ctx, ids)
	if err != nil {
		s.end.NoJournal = err.Error()
		return
	}
	of := map[string][]journal.Known{}
	for _, k := range all {
		of[k.QueueID] = append(of[k.QueueID], k)
	}
	for i := range s.batch {
		m := &s.batch[i]
		hold, decision := pick(of[m.QueueID], s.files[i])
		m.know(hold, decision, s.once)
		for _, k := range []*journal.Known{hold, decision} {
			m.sure = m.sure || k != nil && (mta.Target{ID: m.QueueID, Sender: k.MailFrom, Arrival: m.Arrival}).Matches(s.files[i])
		}
	}
}

// pick finds, of what is known under a queue id, what is of the message that has it
// now: ids are used again.
func pick(known []journal.Known, q mta.QueueFile) (hold, decision *journal.Known) {
	for i := range known {
		k := &known[i]
		switch {
		case k.State != "": // newest first: an open one has no other after it
			if hold == nil && matches(journal.Hold{HeldAt: k.Time, Arrival: k.Arrival, MailFrom: k.MailFrom}, q) {
				hold = k
			}
		case hold != nil && hold.DecisionID != "":
			if k.DecisionID == hold.DecisionID {
				decision = k
			}
		case isAbout(k, q):
			decision = k // the earliest: a later one is of a message that had the id after this one left
		}
	}
	return hold, decision
}

// isAbout reports whether a decision is about a message. Nobody else has its id while
// it is there, so one that was made after it came is, unless the message was queued
// anew, and so has its arrival from before: then the sender must be the same. One
// that the MTA rewrote is believed of a decision soon after.
func isAbout(k *journal.Known, q mta.QueueFile) bool {
	const slow = 10 * time.Minute // a client may take to send a message
	if (mta.Target{ID: q.ID, Sender: k.MailFrom, Arrival: k.Time}).Matches(q) {
		return true
	}
	after := k.Time.Sub(q.Arrival)
	return after >= 0 && after <= slow
}

// know fills in what the journal says.
func (m *found) know(hold, decision *journal.Known, names once) {
	if m.Queue == "hold" {
		m.HeldBy = byOther
	}
	for _, k := range []*journal.Known{decision, hold} { // a hold's rule is why it is there now
		if k == nil {
			continue
		}
		m.ID = k.DecisionID
		m.Rule, m.Verdict = names.of(k.Rule), names.of(k.Verdict.String())
		if k.Account != "" && (k.Account != unknownAccount || m.Account == "") {
			m.Account = names.of(k.Account)
		}
		for to, label := range map[*string]string{&m.Site: k.Site, &m.Plugin: k.Plugin, &m.Template: k.Template} {
			if label != "" {
				*to = names.of(label)
			}
		}
	}
	if hold == nil {
		return
	}
	if decision != nil {
		m.Verdict = names.of(decision.Verdict.String())
	}
	if m.Queue == "hold" && hold.State.Open() && !hold.Moved {
		m.HeldBy = byUs
		if hold.Rule == ruleAdmin {
			m.HeldBy = byAdmin
		}
		m.lost = hold.DecisionID == "" && hold.Rule == ""
	}
	if !hold.State.Open() && hold.Rule == ruleAdmin && decision != nil {
		m.Rule = names.of(decision.Rule) // it is long over
	}
}

// QueueList calls send with what the filter chooses, in the order of the queue, as
// it is read: the first within a second, whatever is queued. What a message waits
// for is told without addresses.
func (d *Desk) QueueList(ctx context.Context, now time.Time, f QueueFilter, send func(Queued) error) (QueueEnd, error) {
	end, _, err := d.scan(ctx, now, &f, nil, func(m *found) error { return send(m.Queued) })
	return end, err
}
