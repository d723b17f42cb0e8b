package evidence

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"time"

	"relayguard/mta/maillog"
)

// learn takes one event.
func (t *Tracker) learn(e *maillog.Event) {
	switch e.Kind {
	case maillog.Unreadable:
		t.batch.unclear[e.Time.Unix()/86400] += max(e.Count, 1)
	case maillog.Client:
		t.client(e)
	case maillog.Pickup:
		t.pickup(e)
	case maillog.MessageID:
		t.messageID(e)
	case maillog.Queued:
		f := t.known(e.QueueID, e.Time)
		f.MailFrom = clip(e.MailFrom)
		t.touch(f, e.Time)
	case maillog.Delivery, maillog.Forwarded:
		t.delivery(e)
	case maillog.Removed, maillog.Deleted:
		if f := t.byID[e.QueueID]; f != nil && f.Done == 0 {
			t.touch(f, e.Time)
			f.Done = max(e.Time.UnixMicro(), 1)
		}
	case maillog.Notified:
		if f := t.known(e.NewID, e.Time); f.From == fromUnknown {
			f.From = fromInternal
			t.touch(f, e.Time)
		}
	case maillog.Redirected, maillog.Copied, maillog.Filtered:
		t.action(e)
	case maillog.SieveForwarded, maillog.SieveNotified, maillog.SievePiped:
		t.sieve(e)
	}
}

// known is the message that has a queue id, or a new one if that left the queue.
func (t *Tracker) known(id string, at time.Time) *flight {
	if f := t.byID[id]; f != nil && !f.Script && (f.Done == 0 || at.UnixMicro()-f.Done < lingers.Microseconds()) {
		return f
	}
	return t.begin(id, at)
}

func (t *Tracker) client(e *maillog.Event) {
	f := t.begin(e.QueueID, e.Time)
	f.From, f.Local = fromClient, e.ClientIP.IsLoopback()
	f.Stranger = e.Login == "" && !e.Authenticated && !f.Local && t.o.Trusted != nil && !t.o.Trusted(e.ClientIP)
	f.HopID = strings.Clone(e.OrigID)
	session := sessionOf(e)
	if b := t.sessions[session]; b != nil {
		if e.Time.Sub(timeOf(b.At)).Abs() <= lingers {
			f.Added, f.Filter = b.Added, b.Filter
		}
		t.endSession(session)
	}
}

// sessionOf names an smtpd process: it serves one client at a time.
func sessionOf(e *maillog.Event) string {
	var b strings.Builder
	b.WriteString(e.Host + "/" + e.Service + "/")
	for n := e.PID; n > 0; n /= 10 {
		b.WriteByte(byte('0' + n%10))
	}
	return b.String()
}

// action learns of a redirect:, bcc: or filter: line. Those of smtpd come before
// the first recipient made a queue id; a transaction that came to nothing leaves
// its own for the next, so what counts is whether mail goes there.
func (t *Tracker) action(e *maillog.Event) {
	if e.QueueID != "" {
		f := t.known(e.QueueID, e.Time)
		if e.Kind == maillog.Filtered {
			f.Filter = clip(e.Relay)
		} else {
			f.adds(e.RcptTo)
		}
		t.touch(f, e.Time)
		return
	}
	if e.PID == 0 {
		return
	}
	session := sessionOf(e)
	b := t.sessions[session]
	if b == nil {
		if len(t.sessions) >= maxSessions { // what is lost makes a row less sure, no more
			for other := range t.sessions {
				t.endSession(other)
				break
			}
		}
		b = &before{Session: session}
		t.sessions[session] = b
	}
	b.At = e.Time.UnixMicro()
	if e.Kind == maillog.Filtered {
		b.Filter = clip(e.Relay)
	} else if k := clip(key(e.RcptTo)); len(b.Added) < maxAdded && !slices.Contains(b.Added, k) {
		b.Added = append(b.Added, k)
	}
	state, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings and a number
	}
	t.batch.flights[beforeKey+session] = string(state)
}

func (t *Tracker) pickup(e *maillog.Event) {
	if e.OrigID == "" {
		f := t.begin(e.QueueID, e.Time)
		f.From, f.Local, f.UID, f.MailFrom = fromPickup, true, e.UID, clip(e.MailFrom)
		return
	}
	old := t.byID[e.OrigID]
	if old == nil || old.Script {
		t.begin(e.QueueID, e.Time)
		return
	}
	delete(t.byID, old.ID) // requeued: the same message under another id
	if old.RootID == "" {
		old.RootID = old.ID
	}
	old.ID, old.Done = strings.Clone(e.QueueID), 0
	t.byID[old.ID] = old
	t.touch(old, e.Time)
}

func (t *Tracker) messageID(e *maillog.Event) {
	f := t.byID[e.QueueID]
	if f == nil || f.Done != 0 || f.Script {
		f = t.begin(e.QueueID, e.Time) // cleanup's line is the first of a copy
	}
	t.touch(f, e.Time)
	if e.Resent || f.MessageID != "" || e.MessageID == "" || e.MessageID == "<>" {
		return
	}
	f.MessageID = clip(e.MessageID)
	t.index(f)
	if parent := t.byID[f.HopID]; f.HopID != "" && parent != nil && parent.MessageID == f.MessageID && parent != f {
		t.hop(f, parent)
	}
}

// delivery learns how a recipient fared.
func (t *Tracker) delivery(e *maillog.Event) {
	switch e.Status {
	case maillog.Deliverable, maillog.Undeliverable:
		return // address verification: no mail
	}
	f := t.known(e.QueueID, e.Time)
	t.touch(f, e.Time)
	rules := t.rules()
	r := f.recipient(e.RcptTo, e.OrigTo)
	if r == nil {
		r = &rcpt{To: e.RcptTo, Key: key(e.RcptTo), Orig: e.OrigTo}
	}
	r.Status, r.DSN, r.Relay = clip(e.Status), clip(e.DSN), clip(e.Relay)
	r.Inside = rules == nil || rules.Inside(e.RcptTo)
	if r.Time == 0 {
		r.Time = e.Time.UnixMicro()
	}
	if e.Kind == maillog.Forwarded {
		t.copied(f, r, e)
		return
	}
	r.Handed = r.Handed || e.Status == maillog.Sent && r.Inside && (e.Command != "" || e.Program == "lmtp")
	if rules == nil {
		return
	}
	if e.Status == maillog.Sent {
		t.handedOn(f, r, e)
	}
	t.explain(f, r)
	if r.Inside {
		if t.unsettled[f] {
			t.again(f) // it may be whom another recipient was added for
		}
		t.wire(f, r, e)
		t.program(f, r, e)
	}
	if r.Handed {
		t.wake(f)
	}
}

// copied learns whose copy a message is: it may have left already.
func (t *Tracker) copied(f *flight, r *rcpt, e *maillog.Event) {
	c := t.known(e.NewID, e.Time)
	if c == f {
		return
	}
	c.How, c.Sure, c.RootID, c.RootFrom = ByCopy, Certain, f.root(), f.sender()
	c.standsFor(r.To, r.Orig)
	c.standsFor(f.Origs...)
	t.touch(c, e.Time)
	t.again(c)
}

// handedOn learns what the next hop on this machine made of the message: Dovecot's
// session, or the queue id behind a content filter.
func (t *Tracker) handedOn(f *flight, r *rcpt, e *maillog.Event) {
	if e.Program == "lmtp" {
		if session, ok := lmtpSession(e.Text); ok {
			r.Session = strings.Clone(session)
			if s := t.byID[scriptID(session)]; s != nil && s.Script {
				t.ran(s, f, r)
			}
		}
	}
	if !isLocalRelay(e.Relay) {
		return
	}
	at := strings.LastIndex(e.Text, "queued as ")
	if at < 0 {
		return
	}
	id, _, _ := strings.Cut(e.Text[at+len("queued as "):], " ")
	id = strings.TrimRight(id, ")")
	if c := t.byID[id]; c != nil && c != f && c.From == fromClient && c.Local && c.MessageID != "" && c.MessageID == f.MessageID {
		t.hop(c, f)
	}
}

// hop learns that c is what another program on this machine made of f: the same
// message to the same recipients. How it fares tells how f's rows fare.
func (t *Tracker) hop(c, f *flight) {
	if c.RowsOf != "" || c.Began < f.Began || f.rows() == c.Key {
		return
	}
	c.RowsOf, c.RootID, c.RootFrom, c.Depth = f.rows(), f.root(), f.sender(), f.Depth+1
	c.standsFor(f.Origs...)
	t.dirty[c] = true
	delete(t.unsettled, c)
	for i := range c.Rcpts {
		t.follow(c, &c.Rcpts[i])
	}
}

// follow hands on how a recipient of a further hop fared.
func (t *Tracker) follow(c *flight, r *rcpt) {
	t.batch.rows = append(t.batch.rows, row{update: true, flight: c.RowsOf, rcpt: r.Key, queueID: c.ID,
		status: r.Status, dsn: r.DSN, relay: r.Relay, depth: c.Depth})
}

// isLocalRelay tells whether a relay as logged is this machine:
// "127.0.0.1[127.0.0.1]:10024", "relay.example.jp[private/x]".
func isLocalRelay(relay string) bool {
	_, s, ok := strings.Cut(relay, "[")
	address, _, ok2 := strings.Cut(s, "]")
	if !ok || !ok2 {
		return false
	}
	if ip := net.ParseIP(strings.TrimPrefix(address, "IPv6:")); ip != nil {
		return ip.IsLoopback()
	}
	return strings.Contains(address, "/") // a Unix socket
}

// lmtpSession reads Dovecot's "250 2.0.0 <user> SESSION Saved".
func lmtpSession(reply string) (session string, ok bool) {
	s, ok := strings.CutSuffix(reply, " Saved")
	at := strings.LastIndexByte(s, ' ')
	if !ok || at < 0 || !strings.HasPrefix(s, "250 ") {
		return "", false
	}
	session = s[at+1:]
	return session, len(session) >= 4 && len(session) <= 64 && !strings.ContainsAny(session, "<>")
}

// relayName is a relay without its port, which changes nothing.
func relayName(relay string) string {
	if at := strings.LastIndex(relay, "]:"); at >= 0 {
		return relay[:at+1]
	}
	return relay
}
