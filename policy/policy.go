package policy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/address"
	"relayguard/policy/origin"
)

// Names of the rules of this package, as verdicts cite them.
const (
	RuleAuth      = "auth"             // nobody answers for the message
	RuleEnvelope  = "envelope-address" // envelope sender that the login does not own
	RuleFrom      = "from-address"     // From that the login does not own
	RuleMap       = "address-map"      // whose an address is could not be found out in time
	RuleHeader    = "header-size"      // more header than the guard reads
	RuleRecipient = "recipient-count"  // more recipients than the guard reads
	RuleSuspended = "suspended"        // the account's sending is suspended
	RuleDenied    = "denied"           // an admin refuses this client, sender or target
	RuleStopped   = "stopped"          // all mail to the outside is held
	RuleKept      = "kept"             // stopped mail that start --keep left to an admin
	RuleAdmin     = "admin"            // an admin put it on hold in the queue
	RuleHoldCap   = "hold-cap"         // it would be held, and there is no more room for that
	RuleLimits    = "limits"           // the limits could not be asked
)

// Rules are the names of this package's rules; a limit has another.
func Rules() []string {
	return []string{RuleAuth, RuleEnvelope, RuleFrom, RuleMap, RuleHeader, RuleRecipient, RuleSuspended, RuleDenied, RuleStopped, RuleKept, RuleAdmin, RuleHoldCap, RuleLimits, RuleForward}
}

// Policy is one configuration's rules. It is not changed once in use, so any
// number of connections may ask it at once; a reload makes another.
type Policy struct {
	Phase  Phase
	Finder origin.Finder
	Inside Inside

	// LocalDaemon is the {daemon_name} of the cleanup service that tells the
	// Unix account of local mail; no other mail's uid header is believed.
	LocalDaemon string
	UIDHeader   string

	// OwnUID is the daemon's own account: its mail is exempt from holds.
	OwnUID int

	// Tokens takes a one-time token of the guard's own mail: true once for each that
	// it gave. nil: there are none. It is called on the mail path.
	Tokens func(token string) bool

	Addresses Addresses

	Attribution *Attribution // nil: sites and plugins are not found out
	Forwarding  *Forwarding  // nil: forwarded mail is not stopped

	Switches *Board  // nil: none
	Limits   *Limits // nil: none
	Room     HoldRoom
}

// HoldRoom bounds what is held, of all together and by the names that
// Limits.RoomOf gives. It must not wait. nil: there is always room.
type HoldRoom interface {
	// Full reports whether nothing more under a name may be held; under "" nothing
	// is, and only the bound of all together counts.
	Full(name string) bool
	// Take reports whether one more message may be held, and counts it.
	Take(name string, size int64) bool
	// Give takes back a Take of a message that is not held after all.
	Give(name string, size int64)
}

// Inside is the set of exactly the domains that are ours, in the form of
// address.Domain.
type Inside map[string]bool

// Has reports whether the address is at a domain of ours. A local part that
// names a further host (user%host, host!user, "user@host") is not: Postfix sends
// it on for clients that may relay.
func (in Inside) Has(addr string) bool {
	if !strings.Contains(addr, "@") { // of this very host: RFC 5321 §4.1.1.3 has <postmaster> so
		return addr != "" && !strings.ContainsAny(addr, "%!")
	}
	a, ok := address.Parse(addr)
	return ok && in[a.Domain] && !strings.ContainsAny(a.Local, "@%!")
}

// all reports whether there are recipients and each is inside.
func (in Inside) all(rcpts []string) bool {
	for _, r := range rcpts {
		if !in.Has(r) {
			return false
		}
	}
	return len(rcpts) > 0
}

// Recipient decides about one recipient while the client waits at RCPT. Only a
// verdict that no later part of the message can change refuses here. It never
// holds; tell means that Message will say more.
func (p *Policy) Recipient(ctx context.Context, now time.Time, m *Message, to string) Decision {
	maps, done := p.mapTime(ctx) // what they take of the time is not the limits' to wait for
	defer done()
	p.findNode(m)
	d := Decision{Verdict: Accept, Origin: p.Finder.Find(&m.Evidence)}
	if m.Local() {
		return d // Postfix answers a refusal at RCPT of local mail by keeping it for ever
	}
	switches := p.Switches.Load()
	exempt := p.own(m) || p.exemptRecipient(m, to)
	if !exempt {
		p.judge(&d, suspended(switches.Suspended(now, &d.Origin), Reject))
	}
	p.judge(&d, denied(switches.Denied(now, m, &d.Origin, to)))
	p.judge(&d, p.auth(m, &d.Origin, to))
	p.judge(&d, p.noRoomFor(switches.Stopped(now), m, &d.Origin, to))
	if d.Verdict.Stops() || m.Role == Egress {
		return d
	}
	if p.Addresses.Envelope == Reject && !p.Inside.Has(to) {
		p.judge(&d, p.envelope(maps, m, &d.Origin))
	}
	if !d.Verdict.Stops() && !exempt && p.signer() == nil {
		p.judgeAs(&d, p.full(ctx, now, m, &d, to))
	}
	if d.Verdict == Hold { // said at the end of the message
		d.Verdict = Tell
	}
	return d
}

// Message decides about the whole message.
func (p *Policy) Message(ctx context.Context, now time.Time, m *Message) Decision {
	maps, done := p.mapTime(ctx) // what they take of the time is not the limits' to wait for
	defer done()
	d := Decision{Verdict: Accept, Counted: len(m.RcptTo) + m.RcptMore}
	if d.Strip = p.strip(&m.Header); len(d.Strip) > 0 && d.Strip[0] == p.UIDHeader {
		p.readUID(m)
	}
	p.takeToken(m)
	p.attribute(now, m)
	m.MessageID, _ = m.Header.Get("Message-ID")
	froms, readable := fromAddresses(&m.Header)
	if len(froms) > 0 {
		m.HeaderFrom = froms[0].String()
	}
	d.Origin = p.Finder.Find(&m.Evidence)
	p.admit(now, &d.Origin)
	sent := p.recognise(now, m, &d.Origin)

	switches := p.Switches.Load()
	if s := p.suspension(switches, now, &d.Origin); s != nil && !p.exempt(m) {
		p.judge(&d, suspended(s, p.suspendedMail(s, m, &d.Origin)))
	}
	for _, to := range m.RcptTo {
		if f := denied(switches.Denied(now, m, &d.Origin, to)); f != nil {
			p.judge(&d, f)
			break
		}
	}
	if f := p.messageAuth(m, &d.Origin); f != nil {
		p.judge(&d, f)
	}
	p.judge(&d, p.unsaid(m))
	if m.Role != Egress && !p.own(m) {
		if m.Header.Truncated() {
			p.judge(&d, &Finding{RuleHeader, p.unread(m, &d.Origin), "the header is larger than milter.max_header_bytes, max_header_fields or max_memory allow, so what it hides is not known"})
		}
		if m.RcptMore > 0 {
			p.judge(&d, &Finding{RuleRecipient, p.unread(m, &d.Origin), "more recipients than milter.max_recipients"})
		}
		p.judge(&d, p.lifted(switches, now, &d.Origin, p.envelope(maps, m, &d.Origin)))
		p.judge(&d, p.lifted(switches, now, &d.Origin, p.headerFrom(maps, m, &d.Origin, froms, readable)))
	}
	p.judge(&d, p.forwarded(m))
	p.judgeOrder(&d, p.shut(switches, now, m, &d.Origin))
	place := place{room: p.Room, limits: p.Limits, size: m.Size}
	p.stopOrSpend(ctx, now, switches, m, &d, &place)
	if d.Verdict == Reject && m.MailFrom == "" { // Sendmail loses a null sender's mail that is refused
		d.Verdict, d.Reply = Hold, Reply{}
		if d.Rule == RuleAuth || d.Rule == RuleDenied && !m.Local() { // a stranger's is not to fill the hold queue either
			d.Verdict, d.Reply = Defer, replyTo(d.Rule, Defer)
		}
	}
	if (d.Verdict == Hold || d.Verdict == Defer) && d.Rule != RuleAuth && d.Rule != RuleDenied && p.exempt(m) {
		d.Verdict, d.Rule, d.Reason, d.Reply = Accept, "", "", Reply{}
	}
	switch {
	case d.Verdict != Hold:
		place.give()
	case !place.take(&d):
		p.noRoom(m, &d)
	}
	if d.Verdict != Hold {
		d.Waits = nil
	}
	if sent != nil && !d.Verdict.Stops() && !slices.ContainsFunc(d.Findings, func(f Finding) bool { return p.Limits.has(f.Rule) }) { // what would be stopped is not to become usual
		sent()
	}
	p.sign(now, m, &d)
	return d
}

// stopOrSpend judges by the red switch and by the limits. Mail that the switch
// alone stops goes out after start, so its limits count now: what fits is charged
// and held as stopped, what does not is held as over its limit and stays so. It
// is charged only if there is room to hold it.
func (p *Policy) stopOrSpend(ctx context.Context, now time.Time, s *Switches, m *Message, d *Decision, place *place) {
	stop := p.stopped(s.Stopped(now), m)
	if !p.stops(d) && m.Role != Egress && !p.own(m) && (stop == nil || place.take(d)) {
		p.spend(ctx, now, s, m, d, stop != nil) // nothing on a web node: the relay does
	}
	p.judge(d, stop)
}

// stopped is what the red switch finds: it is for what leaves.
func (p *Policy) stopped(s *Switch, m *Message) *Finding {
	if s == nil || !p.leaves(m) {
		return nil
	}
	return &Finding{RuleStopped, Hold, "all mail to the outside is stopped: " + s.Reason}
}

// suspended is what a suspension finds.
func suspended(s *Switch, v Verdict) *Finding {
	if s == nil {
		return nil
	}
	return &Finding{RuleSuspended, v, "suspended: " + s.Reason}
}

// suspension is that of one of the origin's accounts, of its site or its plugin;
// on a web node also that of an account of this node, as the relay names it.
func (p *Policy) suspension(s *Switches, now time.Time, o *origin.Origin) *Switch {
	if sw := s.Suspended(now, o); sw != nil {
		return sw
	}
	if signer := p.signer(); signer != nil && o.UID != origin.NoUID {
		return s.find(now, Suspend, SubjectLocalUser, strconv.Itoa(o.UID)+"@"+signer.Node, "")
	}
	return nil
}

// suspendedMail is what becomes of a suspended account's message that came this
// far. Local mail waits, as long as there is room: nobody hears an answer, or he is
// one of many who send as that account. So does what a web node sends: a refusal
// would come back to it as a bounce.
func (p *Policy) suspendedMail(s *Switch, m *Message, o *origin.Origin) Verdict {
	whole := m.BySMTP && s.Subject == SubjectLocalUser && !p.Limits.Shares(o) // sendmail(1) tells who called it
	if m.Local() && !whole || m.Node != "" {
		return Hold
	}
	return Reject
}

func denied(s *Switch) *Finding {
	if s == nil {
		return nil
	}
	return &Finding{RuleDenied, Reject, fmt.Sprintf("denied %s %s: %s", s.Subject, s.Value, s.Reason)}
}

// lifted drops a finding whose rule an admin lifted for the account.
func (p *Policy) lifted(s *Switches, now time.Time, o *origin.Origin, f *Finding) *Finding {
	if f != nil && s.Lifted(now, o, f.Rule) {
		return nil
	}
	return f
}

// stops reports whether the message is stopped, or in the phase observe would
// have been: what is stopped is not charged.
func (p *Policy) stops(d *Decision) bool {
	return d.Verdict.Stops() || p.Phase == Observe && slices.ContainsFunc(d.Findings, func(f Finding) bool { return f.Verdict.Stops() })
}

// leaves reports whether somebody outside gets the message, so that the red
// switch is for it.
func (p *Policy) leaves(m *Message) bool {
	return !p.own(m) && (m.RcptMore > 0 || !p.Inside.all(m.RcptTo))
}

// noRoomFor is what the red switch finds at RCPT: what goes to this recipient
// would be held, and there is no more room for it. Those inside still get theirs.
func (p *Policy) noRoomFor(s *Switch, m *Message, o *origin.Origin, to string) *Finding {
	if s == nil || p.own(m) || p.Inside.Has(to) || !p.noMoreRoom(o) {
		return nil
	}
	return &Finding{RuleHoldCap, Defer, fmt.Sprintf("%s: all mail to the outside is stopped: %s; and as much as may be held is held already", RuleStopped, s.Reason)}
}

// place is room for one message that is held. It is asked for at most once.
type place struct {
	room   HoldRoom // nil: there is always room
	limits *Limits
	size   int64
	asked  bool
	taken  bool
	name   string // whose it is, once it is taken
}

// take reports whether the message may be held.
func (l *place) take(d *Decision) bool {
	if !l.asked {
		l.asked, l.taken = true, true
		if l.room != nil {
			l.name = l.limits.RoomOf(&d.Origin)
			l.taken = l.room.Take(l.name, l.size)
		}
	}
	return l.taken
}

// give takes the place back, if there is one.
func (l *place) give() {
	if l.taken && l.room != nil {
		l.room.Give(l.name, l.size)
	}
	l.taken = false
}

// noRoom turns a hold for which there is no room into a refusal at the source.
//
// Local mail is bounced, also while all mail is stopped and its sender has done
// nothing: a refusal that passes would leave it in maildrop, where no cap counts
// it, no list shows it, and every run of pickup(8) reads all of it again. The
// bounce does not get lost behind the red switch: to an inside sender it is
// delivered, to one outside it waits in Postfix's queue for start. Where bounces
// come by the guard (internal_mail_filter_classes) they have the null sender,
// and are deferred: bounce(8) tries again. Forwarded mail is deferred, too: its
// bounce would go to somebody who wrote to one of ours.
func (p *Policy) noRoom(m *Message, d *Decision) {
	forwarded := d.Rule == RuleForward
	d.Reason = fmt.Sprintf("%s: %s; and as much as may be held is held already", d.Rule, d.Reason)
	d.Rule, d.Verdict = RuleHoldCap, Defer
	if m.Local() && m.MailFrom != "" && !forwarded {
		d.Verdict = Reject
	}
	d.Reply = replyTo(d.Rule, d.Verdict)
	d.Findings = append(d.Findings, Finding{d.Rule, d.Verdict, d.Reason})
}

// unread is what becomes of a message that was not read whole: it waits for
// somebody to look, except a stranger's, who must not be able to fill the queue
// of an MX.
func (p *Policy) unread(m *Message, o *origin.Origin) Verdict {
	if kind, _ := o.Account(); m.Role == Inbound && kind == origin.KindUnknown {
		return Tell
	}
	return Hold
}

// judge adds a finding, softened by the phase, to a decision. The severest
// decides, the first among equals.
func (p *Policy) judge(d *Decision, f *Finding) {
	if f == nil {
		return
	}
	v := f.Verdict
	if v.Stops() && !p.acts(f.Rule) {
		v = Tell
	}
	p.settle(d, f, v)
}

// judgeOrder is judge of what somebody ordered, which acts in every phase whatever
// its rule is.
func (p *Policy) judgeOrder(d *Decision, f *Finding) {
	if f != nil {
		p.settle(d, f, f.Verdict)
	}
}

// settle adds a finding that asks for this verdict.
func (p *Policy) settle(d *Decision, f *Finding, v Verdict) {
	d.Findings = append(d.Findings, *f)
	if v > d.Verdict {
		d.Verdict, d.Rule, d.Reason = v, f.Rule, f.Reason
		d.Reply = p.replyTo(f.Rule, v)
	}
}

// acts reports whether a rule may stop mail in this phase.
func (p *Policy) acts(rule string) bool {
	switch rule {
	case RuleSuspended, RuleDenied, RuleStopped, RuleHoldCap: // orders, not judgements
		return true
	}
	switch p.Phase {
	case Observe:
		return false
	case Learning:
		return rule == RuleAuth || rule == RuleHeader || rule == RuleRecipient || rule == RuleLimits || rule == RuleForward || p.Limits.has(rule) // whose longer windows are soft
	}
	return true
}

// replyTo is what the client is told. Nothing in it comes from the client.
func (p *Policy) replyTo(rule string, v Verdict) Reply {
	switch {
	case p.Limits.has(rule) && v == Defer:
		return Reply{451, "4.7.1", "Sending limit reached, try again later"}
	case p.Limits.has(rule) && v == Reject:
		return Reply{550, "5.7.1", "Sending limit reached"}
	}
	return replyTo(rule, v)
}

func replyTo(rule string, v Verdict) Reply {
	switch {
	case v != Reject && v != Defer:
		return Reply{}
	case rule == RuleAuth && v == Reject:
		return Reply{530, "5.7.0", "Authentication required: log in to send mail through this server"}
	case rule == RuleEnvelope && v == Reject:
		return Reply{550, "5.7.1", "The envelope sender is not an address of the account you are logged in with"}
	case rule == RuleFrom && v == Reject:
		return Reply{550, "5.7.1", "The From address is not an address of the account you are logged in with"}
	case rule == RuleSuspended && v == Defer:
		return Reply{450, "4.7.1", "Sending from this account is suspended, ask the postmaster"}
	case rule == RuleSuspended:
		return Reply{550, "5.7.1", "Sending from this account is suspended, ask the postmaster"}
	case rule == RuleDenied && v == Defer:
		return Reply{451, "4.7.1", "Refused by the administrator of this server"}
	case rule == RuleDenied:
		return Reply{550, "5.7.1", "Refused by the administrator of this server"}
	case rule == RuleHoldCap && v == Defer:
		return Reply{452, "4.3.1", "Too much mail of this sender is waiting already, try again later"}
	case rule == RuleHoldCap:
		return Reply{550, "5.7.1", "Too much mail of this sender is waiting already"}
	case rule == RuleForward && v == Defer:
		return Reply{451, "4.3.2", "Not ready for this message yet, try again later"}
	case rule == RuleLimits:
		return Reply{451, "4.7.1", "Sending limit cannot be checked now, try again later"}
	case v == Reject:
		return Reply{550, "5.7.1", "Message refused by policy"}
	}
	return Reply{451, "4.7.1", "The sender cannot be checked now, try again later"}
}

// readUID believes the uid header of mail from sendmail(1) only: its first
// field, and only where the MTA's own service put it there, before everything
// that the user wrote.
func (p *Policy) readUID(m *Message) {
	if !m.Submitted || m.BySMTP || p.LocalDaemon == "" || m.DaemonName != p.LocalDaemon || m.Header.Len() == 0 {
		return
	}
	name, value := m.Header.Field(0)
	if !strings.EqualFold(name, p.UIDHeader) {
		return
	}
	if uid, ok := parseUID(strings.TrimSpace(value)); ok {
		m.UID = uid
	}
}

// parseUID reads a uid_t in plain decimal digits.
func parseUID(s string) (int, bool) {
	uid := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' || uid > 1<<32 {
			return 0, false
		}
		uid = 10*uid + int(c-'0')
	}
	return uid, s != "" && uid < 1<<32-1 // (uid_t)-1 is nobody at all
}

// exempt reports whether every recipient is one whose mail is never held.
func (p *Policy) exempt(m *Message) bool {
	if p.own(m) {
		return true
	}
	for _, r := range m.RcptTo {
		if !p.exemptRecipient(m, r) {
			return false
		}
	}
	return len(m.RcptTo) > 0 && m.RcptMore == 0
}

// exemptRecipient: postmaster and abuse of our domains (RFC 2142 §4, §5), and
// bounces to our own people. Each for itself: they exempt no other recipient.
func (p *Policy) exemptRecipient(m *Message, to string) bool {
	return p.Inside.Has(to) && exemptInside(m, to)
}

// exemptInside is exemptRecipient of one inside.
func exemptInside(m *Message, to string) bool {
	local := to
	if a, ok := address.Parse(to); ok {
		local = a.Local
	}
	return m.MailFrom == "" || strings.EqualFold(local, "postmaster") || strings.EqualFold(local, "abuse")
}

// own reports whether the guard itself sent the message.
func (p *Policy) own(m *Message) bool {
	return m.Token || m.Submitted && m.UID != origin.NoUID && m.UID == p.OwnUID
}

// takeToken looks for the one-time token.
func (p *Policy) takeToken(m *Message) {
	if p.Tokens == nil || m.Header.Count(TokenHeader) != 1 {
		return
	}
	token, _ := m.Header.Get(TokenHeader)
	m.Token = p.Tokens(token)
}
