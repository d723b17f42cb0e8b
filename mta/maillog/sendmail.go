package maillog

import (
	"net/netip"
	"strings"
	"time"
)

// ServiceSendmail is the Service of Sendmail's events. Of a delivery Program is
// what the mailer amounts to: "smtp", "lmtp", "local", else its own name.
const ServiceSendmail = "sendmail"

// isSendmail reports whether a tag is one of Sendmail's: "sendmail", and on Debian
// "sm-mta", "sm-msp-queue", "sendmail-msp".
func isSendmail(tag string) bool {
	return strings.HasPrefix(tag, "sm-") || strings.HasPrefix(tag, ServiceSendmail) && !strings.Contains(tag, "/")
}

// Sendmail reads a line of Sendmail 8's (seen: 8.17, LogLevel 9). It may tell
// several things: all recipients that fared alike are on one line. None is nil.
//
// The line that tells a message's sender and size comes before its end is
// decided on, also of one that a milter then refuses, and counts the recipients
// before aliases.
func Sendmail(l Line) []Event {
	e := Event{Time: l.Time, Host: l.Host, Service: ServiceSendmail, Program: l.Tag, PID: l.PID, Count: max(1, l.Count)}
	id, s, ok := strings.Cut(l.Text, ": ")
	if !ok || id != noQueue && !IsSendmailID(id) {
		return nil
	}
	if id != noQueue {
		e.QueueID = id
	}
	for _, read := range sendmailLines {
		if rest, ok := strings.CutPrefix(s, read.prefix); ok {
			return known(read.as(e, rest), e)
		}
	}
	if other, rest, ok := strings.Cut(s, ": "); ok && IsSendmailID(other) && e.QueueID != "" {
		return about(e, other, rest)
	}
	return nil
}

// sendmailLines are the lines of interest by how they begin.
var sendmailLines = []struct {
	prefix string
	as     func(e Event, rest string) []Event
}{
	{"from=", began},
	{"to=", fared},
	{"AUTH failure (", notAuthenticated},
	{"Milter: ", refused},
	{"milter=", quarantined},
	{"quarantine=", func(e Event, reason string) []Event { return one(e, Held, Event{By: ByAdmin, Text: reason}) }},
	{"unquarantine", func(e Event, _ string) []Event { return one(e, Released, Event{}) }},
	{"ruleset=", ruled},
	{"done; delay=", func(e Event, _ string) []Event { return one(e, Removed, Event{}) }},
}

// one is a single event: what every one has from e, the rest from what.
func one(e Event, kind Kind, what Event) []Event {
	what.Time, what.Host, what.Service, what.PID, what.Count, what.QueueID, what.Kind = e.Time, e.Host, e.Service, e.PID, e.Count, e.QueueID, kind
	if what.Program == "" {
		what.Program = e.Program
	}
	return []Event{what}
}

// known drops what needs a queue id where there is none.
func known(all []Event, e Event) []Event {
	if e.QueueID == "" && len(all) > 0 && all[0].Kind != AuthFailed && all[0].Kind != MilterRejected {
		return nil
	}
	return all
}

func unreadable(e Event) []Event { return one(e, Unreadable, Event{}) }

// IsSendmailID tells whether s looks like a queue id of Sendmail 8.10 or later: 8
// letters or digits of base 60, then a process id of at least 6 digits.
func IsSendmailID(s string) bool {
	if len(s) < 14 || len(s) > 18 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
		case i < 8 && (c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'x'):
		default:
			return false
		}
	}
	return true
}

// began reads "<a@b>, size=1, class=0, nrcpts=2, msgid=<...>, bodytype=8BITMIME,
// proto=ESMTPA, daemon=MTA, relay=name [ip]". The sender chooses the address and
// the Message-ID, which may hold anything, so what follows that is read from the
// end.
func began(e Event, s string) []Event {
	from, s, ok := cutList(s)
	if !ok || len(from) > 1 {
		return unreadable(e)
	}
	size, s, ok1 := cutField(s, "size=")
	_, s, ok2 := cutField(s, "class=")
	count, s, ok3 := cutField(s+",", "nrcpts=")
	octets, isSize := number(size)
	recipients, isCount := number(count)
	at := strings.LastIndex(s, ", relay=")
	if !ok1 || !ok2 || !ok3 || !isSize || !isCount || recipients > 1<<31-1 || at < 0 {
		return unreadable(e)
	}
	if recipients == 0 { // all were refused: there is no message
		return nil
	}
	sender := ""
	if len(from) == 1 {
		sender = bare(from[0])
	}
	id, protocol := middle(s[:at])
	relay := strings.TrimSuffix(s[at+len(", relay="):], ",")
	all := one(e, Queued, Event{MailFrom: sender, Size: octets, Recipients: int(recipients)})
	if id != "" {
		all = append(one(e, MessageID, Event{MessageID: id}), all...)
	}
	if user, ok := strings.CutSuffix(relay, "@localhost"); ok {
		return append(one(e, Pickup, Event{UID: -1, LocalUser: user, MailFrom: sender}), all...)
	}
	name, ip := relayOf(relay)
	return append(one(e, Client, Event{ClientName: name, ClientIP: ip, Authenticated: strings.HasSuffix(protocol, "A")}), all...)
}

// middle takes the Message-ID and the protocol out of what stands between the
// number of recipients and the relay.
func middle(s string) (id, protocol string) {
	for _, name := range []string{"daemon=", "proto=", "bodytype="} {
		at := strings.LastIndex(s, ", "+name)
		if at < 0 || strings.ContainsAny(s[at+2:], ",<> ") {
			continue
		}
		if name == "proto=" {
			protocol = s[at+len(", proto="):]
		}
		s = s[:at]
	}
	id, _ = strings.CutPrefix(s, ", msgid=")
	return id, protocol
}

// relayOf reads "name [ip]", "[ip]", "name [ip] (may be forged)" and what an ident
// server said in front of these.
func relayOf(s string) (name string, ip netip.Addr) {
	s = strings.TrimSuffix(s, " (may be forged)")
	open := strings.LastIndexByte(s, '[')
	if open < 0 || !strings.HasSuffix(s, "]") {
		return "unknown", ip
	}
	address := strings.TrimPrefix(s[open+1:len(s)-1], "IPv6:")
	if parsed, err := netip.ParseAddr(address); err == nil && len(address) <= 64 {
		ip = parsed.Unmap()
	}
	name = strings.TrimSuffix(s[:open], " ")
	name = name[strings.LastIndexByte(name, '@')+1:]
	if name == "" || strings.ContainsAny(name, " ,;:<>()[]\"") {
		name = "unknown"
	}
	return name, ip
}

// fared reads "<a@b>,<c@d>, [more], ctladdr=<e@f> (8/0), delay=00:00:01,
// xdelay=00:00:00, mailer=esmtp, pri=120000, relay=name [ip], dsn=2.0.0, reply=...,
// stat=Sent (...)". The other server chooses the reply, and dsn stands in front of
// it. Without a dsn it is no delivery: held, or refused by a milter, which other
// lines tell, or only queued.
func fared(e Event, s string) []Event {
	to, s, ok := cutList(s)
	if !ok || len(to) == 0 {
		return unreadable(e)
	}
	s = strings.TrimPrefix(s, ", [more]")
	var by []string
	if rest, found := strings.CutPrefix(s, ", ctladdr="); found {
		if by, s, ok = cutList(rest); !ok {
			return unreadable(e)
		}
	}
	delay, s, ok1 := cutField(s, "delay=")
	duration, ok2 := clock(delay)
	if !ok1 || !ok2 {
		return unreadable(e)
	}
	if _, rest, found := cutField(s, "xdelay="); found {
		s = rest
	}
	mailer, s, ok := cutField(s, "mailer=")
	if !ok {
		return nil
	}
	if _, rest, found := cutField(s, "pri="); found {
		s = rest
	}
	relay := "local"
	if rest, found := strings.CutPrefix(s, ", relay="); found {
		at := strings.Index(rest, ", dsn=")
		if at < 0 {
			return nil
		}
		relay, s = relayText(rest[:at]), rest[at:]
	}
	dsn, s, ok := cutField(s+",", "dsn=")
	if !ok {
		return nil
	}
	status, ok := statusOf(dsn)
	if !ok {
		return unreadable(e)
	}
	d := Event{Program: programOf(mailer), Relay: relay, Delay: duration, DSN: dsn, Status: status, Text: textOf(s)}
	if handedOn(&d, e.Program, to[0], relay) {
		return deliveries(e, HandedOn, d, to, by)
	}
	return deliveries(e, Delivery, d, to, by)
}

// deliveries are an event a recipient. A program or file stands in for whom its
// alias is of.
func deliveries(e Event, kind Kind, d Event, to, by []string) []Event {
	all := make([]Event, 0, len(to))
	for _, address := range to {
		d := d
		d.RcptTo = bare(address)
		inner := strings.Trim(address, `"`)
		command, isCommand := strings.CutPrefix(inner, "|")
		if isCommand || strings.HasPrefix(inner, "/") {
			if isCommand && d.Status == Sent {
				d.Command = command
			}
			if len(by) == 1 {
				owner, _, _ := strings.Cut(by[0], " (")
				d.RcptTo = bare(owner)
			}
		}
		all = append(all, one(e, kind, d)...)
	}
	return all
}

// handedOn reports whether it was the submission program that gave a message to
// the MTA on this machine, or tried to: it writes recipients without brackets, and
// its relay is loopback. What became of the message the MTA's own lines tell.
func handedOn(d *Event, tag, to, relay string) bool {
	_, ip := relayOf(relay)
	if tag == "sm-mta" || d.Program != "smtp" || strings.HasPrefix(to, "<") || !ip.IsLoopback() {
		return false
	}
	if id, ok := strings.CutSuffix(strings.TrimPrefix(d.Text, "Sent ("), " Message accepted for delivery)"); ok && IsSendmailID(id) {
		d.NewID = id
	}
	return true
}

// relayText brings "name [ip]" into the form that Postfix logs.
func relayText(s string) string {
	name, ip := relayOf(s)
	if !ip.IsValid() {
		return s
	}
	if name == "unknown" {
		name = ip.String()
	}
	return strings.TrimSuffix(name, ".") + "[" + ip.String() + "]"
}

func programOf(mailer string) string {
	switch mailer {
	case "smtp", "esmtp", "smtp8", "dsmtp", "relay":
		return "smtp"
	case "lmtp", "cyrusv2":
		return "lmtp"
	case "local", "prog", "*file*", "*include*", "procmail", "mail.local":
		return "local"
	}
	return mailer
}

// statusOf is how a recipient fared by the class of its code: RFC 3463 §2.
func statusOf(dsn string) (string, bool) {
	switch {
	case strings.HasPrefix(dsn, "2."):
		return Sent, true
	case strings.HasPrefix(dsn, "4."):
		return Deferred, true
	case strings.HasPrefix(dsn, "5."):
		return Bounced, true
	}
	return "", false
}

// textOf is what the other server said, or Sendmail itself.
func textOf(s string) string {
	s = strings.TrimSuffix(s, ",")
	at := strings.LastIndex(s, ", stat=")
	if reply, ok := strings.CutPrefix(s, ", reply="); ok {
		if at > 0 {
			reply = s[len(", reply="):at]
		}
		return reply
	}
	if at < 0 {
		return ""
	}
	return s[at+len(", stat="):]
}

// clock reads "00:00:01" and, from a day on, "1+02:03:04".
func clock(s string) (time.Duration, bool) {
	days := int64(0)
	if before, after, ok := strings.Cut(s, "+"); ok {
		if days, ok = number(before); !ok || days > 10_000 {
			return 0, false
		}
		s = after
	}
	if len(s) != len("00:00:00") || s[2] != ':' || s[5] != ':' {
		return 0, false
	}
	hours, ok1 := number(s[:2])
	minutes, ok2 := number(s[3:5])
	seconds, ok3 := number(s[6:])
	return time.Duration(days*86400+hours*3600+minutes*60+seconds) * time.Second, ok1 && ok2 && ok3
}

// notAuthenticated reads "PLAIN): reason, user=LOGIN, relay=name [ip]"; the client
// chooses LOGIN.
func notAuthenticated(e Event, s string) []Event {
	method, s, ok := strings.Cut(s, "): ")
	at := strings.LastIndex(s, ", relay=")
	if !ok || at < 0 || strings.ContainsAny(method, " :,") {
		return nil
	}
	name, ip := relayOf(s[at+len(", relay="):])
	reason, login, _ := strings.Cut(s[:at], ", user=")
	e.QueueID = ""
	return one(e, AuthFailed, Event{ClientName: name, ClientIP: ip, AuthMethod: method, Text: reason, Login: login})
}

// milterStages are the words of a milter's refusal.
var milterStages = map[string]string{"connect": "CONNECT", "helo": "EHLO", "from": "MAIL", "to": "RCPT", "data": "END-OF-MESSAGE"}

// refused reads "data, reject=550 5.7.1 text" and "to=<a@b>, reject=451 4.7.1
// text". The client chooses what stands in front.
func refused(e Event, s string) []Event {
	end := strings.IndexAny(s, "=,:")
	if end < 0 {
		return nil
	}
	stage, ok := milterStages[s[:end]]
	_, text, found := strings.Cut(s[end:], ", reject=")
	if !ok || !found {
		return nil
	}
	return one(e, MilterRejected, Event{Stage: stage, Text: text})
}

// quarantined reads "NAME, quarantine=reason".
func quarantined(e Event, s string) []Event {
	name, reason, ok := strings.Cut(s, ", quarantine=")
	if !ok || strings.ContainsAny(name, " ,=") {
		return nil
	}
	return one(e, Held, Event{By: ByMilter, Text: reason})
}

// ruled reads "check_mail, arg1=<a@b>, relay=name [ip], quarantine=reason". The
// client chooses what stands in front of the reason.
func ruled(e Event, s string) []Event {
	at := strings.LastIndex(s, "], quarantine=")
	if at < 0 {
		return nil
	}
	return one(e, Held, Event{By: ByAccess, Text: s[at+len("], quarantine="):]})
}

// about reads what a line tells of a second message: "DSN: User unknown" of a
// notification, "clone: owner=a@b" of the copy for a list with an owner.
func about(e Event, other, s string) []Event {
	if strings.HasPrefix(s, "clone: owner=") {
		return one(e, Cloned, Event{NewID: other})
	}
	what, reason, ok := strings.Cut(s, ": ")
	text := ""
	switch {
	case !ok:
		return nil
	case what == "DSN" && strings.HasPrefix(reason, "Return receipt"):
		text = "sender delivery status"
	case what == "DSN", what == "return to sender":
		text = "sender non-delivery"
	case what == "sender notify":
		text = "sender delay"
	case what == "postmaster notify":
		text = "postmaster non-delivery"
	default:
		return nil
	}
	all := one(e, Notified, Event{Text: text, NewID: other})
	if text == "sender non-delivery" && strings.HasPrefix(reason, "Cannot send message for ") {
		all = append(one(e, Expired, Event{}), all...)
	}
	return all
}

// bare takes the brackets off an address.
func bare(s string) string {
	if inner, ok := strings.CutPrefix(s, "<"); ok {
		return strings.TrimSuffix(inner, ">")
	}
	return s
}

// maxListed bounds the addresses that one line is taken for.
const maxListed = 1000

// cutList reads addresses up to the ", " behind them; between them are commas
// without a blank. Addresses in brackets are quoted where they need to be; others
// are those of aliases and of sendmail(1)'s arguments, as written, with quotes,
// comments and programs. False: where they end is not certain.
func cutList(s string) (all []string, rest string, ok bool) {
	for len(all) < maxListed {
		end, ok := addressEnd(s)
		if !ok || end == 0 {
			return nil, "", false
		}
		if all = append(all, s[:end]); end == len(s) || strings.HasPrefix(s[end:], ", ") {
			return all, s[end:], true
		}
		s = s[end+1:]
	}
	return nil, "", false
}

// addressEnd is where an address ends: at a comma, or at the end of s.
func addressEnd(s string) (int, bool) {
	if inner, ok := strings.CutPrefix(s, "<"); ok {
		_, rest, ok := cutAddress(inner)
		end := len(s) - len(rest)
		if !ok || rest != "" && rest[0] != ',' && !strings.HasPrefix(rest, " (") {
			return 0, false
		}
		if strings.HasPrefix(rest, " (") { // of ctladdr: "(8/0)"
			at := strings.IndexByte(rest, ')')
			if at < 0 || strings.Trim(rest[2:at], "0123456789/") != "" {
				return 0, false
			}
			end += at + 1
		}
		return end, true
	}
	quoted, depth := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == '"' && depth == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == ',' && depth == 0:
			return i, true
		case c == '<' || c == '>':
			return 0, false
		}
	}
	return len(s), !quoted && depth == 0
}
