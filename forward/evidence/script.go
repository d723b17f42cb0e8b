package evidence

import (
	"slices"
	"strings"
	"time"

	"relayguard/mta/maillog"
)

// scriptID is where the run of a script is found by Dovecot's session.
func scriptID(session string) string { return "session/" + session }

// sieve learns what a Sieve script did. Dovecot says so itself, so a row is
// Certain; which message it was, its session tells.
func (t *Tracker) sieve(e *maillog.Event) {
	id := scriptID(e.Session)
	if e.Session == "" { // Dovecot's lda, or an old one
		id += e.Mailbox + "/" + clip(e.MessageID)
	}
	s := t.byID[id]
	if s == nil || !s.Script {
		s = t.begin(id, e.Time)
		s.Script, s.Done, s.How, s.Sure = true, s.Began, BySieve, Certain
		s.MessageID = clip(e.MessageID)
		t.index(s)
		if f, r := t.ofSession(e.Session, e.MessageID); f != nil {
			t.ran(s, f, r)
		}
	}
	s.standsFor(e.Mailbox)
	t.touch(s, e.Time)
	rules := t.rules()
	if rules == nil {
		return
	}
	if e.Kind == maillog.SievePiped {
		t.handed(s, e.Command, e.Time)
		return
	}
	for _, to := range e.Targets() {
		r := s.recipient(to, "")
		if r == nil {
			break
		}
		r.Status, r.Time, r.Inside = Handed, e.Time.UnixMicro(), rules.Inside(to)
		if e.Kind == maillog.SieveNotified {
			r.Session = string(ByNotice)
		}
		t.explain(s, r)
	}
	t.wake(s)
}

// ofSession finds the message whose delivery had that session.
func (t *Tracker) ofSession(session, messageID string) (*flight, *rcpt) {
	if session == "" {
		return nil, nil
	}
	for _, f := range t.byMessage[clip(messageID)] {
		for i := range f.Rcpts {
			if f.Rcpts[i].Session == session && !f.Script {
				return f, &f.Rcpts[i]
			}
		}
	}
	return nil, nil
}

// ran learns of which message a script's run was.
func (t *Tracker) ran(s, f *flight, r *rcpt) {
	s.RootID, s.RootFrom = f.root(), f.sender()
	if f.MessageID != "" && strings.HasSuffix(s.MessageID, "...") { // Dovecot cuts long ones
		t.unindex(s)
		s.MessageID = f.MessageID
		t.index(s)
	}
	s.standsFor(r.To, r.Orig)
	s.standsFor(f.Origs...)
	t.dirty[s] = true
	t.again(s)
	t.wake(s)
}

// sameMessage are the flights that may be the message of f, by Message-ID.
func (t *Tracker) sameMessage(f *flight) []*flight {
	if f.MessageID == "" {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(t.byMessage[f.MessageID]), func(o *flight) bool { return o == f })
}

// resubmitted is how far apart a message and what a program here made of it may be.
const resubmitted = time.Minute

// fromHere tells whether a program or script on this machine may have sent f.
func (f *flight) fromHere() bool {
	return !f.Script && f.RowsOf == "" && (f.From == fromPickup || f.From == fromClient && f.Local)
}

// ofScript finds the run of a Sieve script that sent f to r: Dovecot named this
// recipient and this Message-ID. How f fares tells how the script's row fares.
func (t *Tracker) ofScript(f *flight, r *rcpt) bool {
	if !f.fromHere() || f.How != "" && f.How != ByResubmitted {
		return false
	}
	for _, s := range t.sameMessage(f) {
		if !s.Script || !within(s, f) || !slices.ContainsFunc(s.Rcpts, func(o rcpt) bool { return o.Key == r.Key }) {
			continue
		}
		if r.Told { // before Dovecot's line was read
			t.batch.rows = append(t.batch.rows, row{drop: true, flight: f.Key, rcpt: r.Key})
		}
		f.RowsOf, f.RootID, f.Depth, f.How = s.rows(), s.RootID, 1, BySieve
		f.standsFor(s.Origs...)
		t.dirty[f] = true
		delete(t.unsettled, f)
		t.follow(f, r)
		return true
	}
	return false
}

// origin finds the message that f was made of by a program on this machine, to be
// sent to r. f came from this machine; that Message-IDs are the same is not enough:
// the other was handed to a program or mailbox here, just then.
func (t *Tracker) origin(f *flight, r *rcpt, rules Rules) bool {
	if !f.fromHere() || f.How != "" {
		return false
	}
	var best *flight
	var by *rcpt
	var id string
	var sure Sure
	for _, p := range t.sameMessage(f) {
		if p.Script || p.Began > f.Began+time.Second.Microseconds() || !within(p, f) {
			continue
		}
		for i := range p.Rcpts {
			o := &p.Rcpts[i]
			if !o.Handed {
				continue
			}
			ids := t.match(rules, append([]string{o.Orig, o.To}, p.Origs...), r.To)
			if len(ids) == 0 {
				if best == nil && !alike(p, f) {
					best, by, sure = p, o, Possible
				}
				continue
			}
			fits := Possible
			if f.From == fromClient || t.ownedBy(o, f.UID) {
				fits = Likely
			}
			if id == "" || fits > sure {
				best, by, id, sure = p, o, ids[0], fits
			}
		}
	}
	if best == nil {
		return false
	}
	f.How, f.Sure, f.RootID, f.RootFrom = ByResubmitted, sure, best.root(), best.sender()
	f.standsFor(by.To, by.Orig)
	f.standsFor(best.Origs...)
	t.dirty[f] = true
	return true
}

// alike tells whether two messages may be one mail that somebody here sent twice.
func alike(p, f *flight) bool {
	return p.From == f.From && p.Local == f.Local && p.UID == f.UID && p.MailFrom == f.MailFrom
}

// ownedBy reports whether a Unix account is that of a local recipient.
func (t *Tracker) ownedBy(r *rcpt, uid int) bool {
	if t.o.UID == nil {
		return false
	}
	local, _, _ := strings.Cut(r.Key, "@")
	got, ok := t.o.UID(local)
	if !ok { // with an extension
		local, _, _ = strings.Cut(local, "+")
		got, ok = t.o.UID(local)
	}
	return ok && got == uid
}

// within reports whether c came just after or while p was delivered here.
func within(p, c *flight) bool {
	begin, end := p.Began-time.Second.Microseconds(), p.Last // times may have no more than seconds
	switch {
	case p.Script: // Dovecot says so when it is done, and then the message may have left
		begin = p.Began - resubmitted.Microseconds()
	case p.Done != 0:
		end = p.Done
	}
	return c.Began >= begin && c.Began <= end+resubmitted.Microseconds()
}

// wake has what came from this machine with the Message-ID of p looked at again.
func (t *Tracker) wake(p *flight) {
	for _, f := range t.sameMessage(p) {
		if f.fromHere() {
			t.again(f)
		}
	}
}
