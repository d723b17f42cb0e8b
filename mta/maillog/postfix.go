package maillog

import (
	"strings"
)

// textLimit is where Postfix cuts the text of a line (seen on 3.7.11 with
// maillog_file). Of a text as long as that the end may be missing, and who
// chose its length chose where.
const textLimit = 2000

// Events reads a line of Postfix's, Sendmail's or Dovecot's programs. There are
// none when the line is of no interest, or another's; several only on a line of
// Sendmail's.
func Events(l Line) []Event {
	if isSendmail(l.Tag) {
		return Sendmail(l)
	}
	if e := Read(l); e.Kind != None {
		return []Event{e}
	}
	return nil
}

// Read is Events of a line of Postfix's or Dovecot's programs. Its Kind is None when
// the line is of no interest, or another's.
func Read(l Line) Event {
	if strings.Contains(l.Tag, "/") {
		return Postfix(l)
	}
	return Dovecot(l)
}

// Postfix reads a line of one of Postfix's programs. Its Kind is None when the
// line is of no interest, or not Postfix's.
func Postfix(l Line) Event {
	service, program := "", l.Tag
	if slash := strings.LastIndexByte(l.Tag, '/'); slash >= 0 {
		service, program = l.Tag[:slash], l.Tag[slash+1:]
	}
	e := Event{Time: l.Time, Host: l.Host, Service: service, Program: program, PID: l.PID, Count: max(1, l.Count)}
	if service == "" {
		return e // Postfix always logs "syslog_name/program"
	}
	t := text{l.Text, len(l.Text) >= textLimit}
	if program == "smtpd" && strings.HasPrefix(t.s, "warning: ") {
		e.authFailed(t)
		return e
	}
	id, rest, ok := strings.Cut(t.s, ": ")
	if !ok || id != noQueue && !IsQueueID(id) {
		return e
	}
	if id != noQueue {
		e.QueueID = id
	}
	t.s = rest
	switch program {
	case "pickup":
		e.pickup(t)
	case "smtpd":
		e.smtpd(t)
	case "cleanup":
		e.cleanup(t)
	case "qmgr", "oqmgr", "nqmgr":
		e.queueManager(t)
	case "smtp", "lmtp", "local", "virtual", "pipe", "error", "retry", "discard":
		e.delivery(t)
	case "bounce":
		e.notified(t)
	case "postsuper":
		e.postsuper(t)
	}
	switch {
	case e.Kind == Unreadable:
		e = Event{Time: e.Time, Host: e.Host, Service: e.Service, Program: e.Program, PID: e.PID, Count: e.Count, Kind: Unreadable, QueueID: e.QueueID}
	case e.Kind == None:
		e.QueueID = ""
	}
	return e
}

// text is what is left of a line's text. Cut: its end may be missing.
type text struct {
	s   string
	cut bool
}

// noQueue stands in place of a queue id that there is none of.
const noQueue = "NOQUEUE"

// IsQueueID tells whether s looks like a queue id: short ones are upper-case
// hex (microseconds and inode), long ones digits and consonants with a 'z'
// between time and inode (enable_long_queue_ids).
func IsQueueID(s string) bool {
	if len(s) < 6 || len(s) > 32 {
		return false
	}
	hex, long := true, false
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
		case c >= 'A' && c <= 'Z':
			if c > 'F' {
				hex = false
			}
		case c >= 'a' && c <= 'z':
			hex = false
			long = long || c == 'z'
		default:
			return false
		}
	}
	return hex || long && len(s) >= 10 && !strings.ContainsAny(s, "AEIOUaeiou")
}

// pickup reads "uid=33 from=<a@b>" with " orig_id=ID" for requeued mail. The
// sender is free to choose what stands between the brackets, so the end
// decides: without orig_id it is a bracket.
func (e *Event) pickup(t text) {
	s, ok := strings.CutPrefix(t.s, "uid=")
	if !ok {
		return
	}
	e.Kind = Unreadable
	digits, s, ok := strings.Cut(s, " from=<")
	uid, isNumber := number(digits)
	if !ok || !isNumber || uid > 1<<32-1 || t.cut {
		return
	}
	from, ok := strings.CutSuffix(s, ">")
	if !ok {
		at := strings.LastIndex(s, "> orig_id=")
		if at < 0 || !IsQueueID(s[at+len("> orig_id="):]) {
			return
		}
		from, e.OrigID = s[:at], s[at+len("> orig_id="):]
	}
	e.Kind, e.UID, e.MailFrom = Pickup, int(uid), from
}

func (e *Event) smtpd(t text) {
	switch {
	case strings.HasPrefix(t.s, "client="):
		e.client(t)
	case strings.HasPrefix(t.s, "milter-reject: "):
		e.milterRejected(t)
	case strings.HasPrefix(t.s, "hold: "):
		e.Kind, e.By = Held, ByAccess
	case strings.HasPrefix(t.s, "milter-hold: "): // a quarantine before end of message
		e.Kind, e.By = Held, ByMilter
		e.Text = holdReason(e.decided(t))
	default:
		if kind, rest, ok := cutAction(t.s); ok {
			e.accessAction(kind, rest, t.cut)
		}
	}
}

// client reads "client=name[ip]" with ", sasl_method=PLAIN,
// sasl_username=LOGIN, sasl_sender=..." and ", orig_queue_id=ID,
// orig_client=...". The sender chooses sasl_sender, which holds no space, and
// whoever may use XFORWARD what follows.
func (e *Event) client(t text) {
	if e.QueueID == "" {
		return // with smtpd_proxy_filter: not queued here
	}
	e.Kind = Unreadable
	name, ip, s, ok := cutClient(t.s[len("client="):])
	if !ok || t.cut {
		return
	}
	if at := strings.LastIndex(s, ", orig_client="); at >= 0 {
		s = s[:at]
	}
	if at := strings.LastIndex(s, ", orig_queue_id="); at >= 0 {
		if id := s[at+len(", orig_queue_id="):]; IsQueueID(id) {
			e.OrigID = id
		}
		s = s[:at]
	}
	if at := strings.LastIndex(s, ", sasl_sender="); at >= 0 {
		s = s[:at]
	}
	if method, found := strings.CutPrefix(s, ", sasl_method="); found {
		method, login, found := strings.Cut(method, ", sasl_username=")
		if !found || strings.ContainsAny(method, " ,") {
			return
		}
		e.AuthMethod, e.Login = method, login
	} else if login, found := strings.CutPrefix(s, ", sasl_username="); found { // XCLIENT LOGIN
		e.Login = login
	} else if s != "" {
		return
	}
	e.Kind, e.ClientName, e.ClientIP = Client, name, ip
}

// authFailed reads "warning: name[ip]: SASL PLAIN authentication failed:
// reason, sasl_username=LOGIN"; the client chooses LOGIN.
func (e *Event) authFailed(t text) {
	name, ip, s, ok := cutClient(t.s[len("warning: "):])
	if !ok {
		return
	}
	s, ok = strings.CutPrefix(s, ": SASL ")
	if !ok {
		return
	}
	method, s, ok := strings.Cut(s, " authentication failed")
	if !ok || strings.ContainsAny(method, " :,") {
		return
	}
	s = strings.TrimPrefix(s, ": ")
	reason, login, found := strings.Cut(s, ", sasl_username=")
	if found && !t.cut {
		e.Login = login
	}
	e.Kind, e.ClientName, e.ClientIP, e.AuthMethod, e.Text = AuthFailed, name, ip, method, reason
}

func (e *Event) cleanup(t text) {
	switch {
	case e.QueueID == "":
	case strings.HasPrefix(t.s, "message-id="):
		e.messageID(text{t.s[len("message-id="):], t.cut})
	case strings.HasPrefix(t.s, "resent-message-id="):
		e.Resent = true
		e.messageID(text{t.s[len("resent-message-id="):], t.cut})
	case strings.HasPrefix(t.s, "milter-hold: "):
		e.Kind, e.By = Held, ByMilter
		e.Text = holdReason(e.decided(t))
	case strings.HasPrefix(t.s, "milter-reject: "):
		e.milterRejected(t)
	case strings.HasPrefix(t.s, "hold: header "): // the rest is content
		e.Kind, e.By = Held, ByHeader
	case strings.HasPrefix(t.s, "hold: body "):
		e.Kind, e.By = Held, ByBody
	case strings.HasPrefix(t.s, "to=<"): // asked by address verification, or an error in a virtual alias
		e.delivery(t)
	default:
		if kind, rest, ok := cutAction(t.s); ok {
			e.checkAction(kind, rest, t.cut)
		}
	}
}

// messageID takes all that is left. A message may have several.
func (e *Event) messageID(t text) {
	e.Kind, e.MessageID = MessageID, t.s
	if t.cut {
		e.Kind = Unreadable
	}
}

// decided reads "ACTION: STAGE from name[ip]: text; from=<...> ..." of a
// milter and returns the text, which the milter chose. What follows it chose
// the client.
func (e *Event) decided(t text) string {
	_, s, _ := strings.Cut(t.s, ": ")
	stage, s, ok := strings.Cut(s, " from ")
	if !ok || len(stage) > len("END-OF-MESSAGE") {
		return ""
	}
	name, ip, s, ok := cutClient(s)
	if !ok {
		return ""
	}
	e.Stage, e.ClientName, e.ClientIP = stage, name, ip
	s = strings.TrimPrefix(s, ": ")
	end := len(s)
	for _, next := range []string{"; from=<", "; to=<", "; proto="} {
		if at := strings.Index(s[:end], next); at >= 0 {
			end = at
		}
	}
	return strings.TrimSuffix(s[:end], ";")
}

// holdReason is what Postfix 3.10 and later add to the milter's hold.
func holdReason(text string) string {
	if reason, ok := strings.CutPrefix(text, "milter triggers HOLD action"); ok {
		return strings.TrimLeft(reason, ": ")
	}
	return text
}

func (e *Event) milterRejected(t text) {
	e.Kind = MilterRejected
	if e.Text = e.decided(t); e.Stage == "" {
		e.Kind = Unreadable
	}
}

// queueManager reads "from=<a@b>, size=1, nrcpt=1 (queue active)", "from=<a@b>,
// status=expired, returned to sender" and "removed". The end decides: the
// sender chooses what stands between the brackets.
func (e *Event) queueManager(t text) {
	s, ok := strings.CutPrefix(t.s, "from=<")
	switch {
	case e.QueueID == "":
		return
	case t.s == "removed":
		e.Kind = Removed
		return
	case strings.HasPrefix(t.s, "to=<"):
		e.delivery(t)
		return
	case !ok:
		return
	}
	e.Kind = Unreadable
	if t.cut {
		return
	}
	for _, end := range []string{">, status=expired, returned to sender", ">, status=force-expired, returned to sender"} {
		if from, ok := strings.CutSuffix(s, end); ok {
			e.Kind, e.MailFrom = Expired, from
			return
		}
	}
	at := strings.LastIndex(s, ">, size=")
	if at < 0 || !strings.HasSuffix(s, ")") {
		return
	}
	from, s := s[:at], s[at+len(">, size="):]
	size, s, ok := strings.Cut(s, ", nrcpt=")
	octets, isSize := number(size)
	recipients, queue, ok2 := strings.Cut(s, " (")
	count, isCount := number(recipients)
	if !ok || !isSize || !ok2 || !isCount || count > 1<<31-1 || !strings.HasPrefix(queue, "queue ") {
		return
	}
	e.Kind, e.MailFrom, e.Size, e.Recipients = Queued, from, octets, int(count)
}

// delivery reads "to=<a@b>, orig_to=<c@d>, relay=R, conn_use=2, delay=1.2,
// delays=1/0/0/0.2, dsn=2.0.0, status=sent (text)". Sender and recipient side
// choose the addresses, the other server the text: what is in front of an
// unquoted bracket is address, what follows the first complete set of fields
// is text. A sender on this machine can get one more form logged, a domain with
// brackets; that always ends at the error transport, which by itself has no
// reason to speak of relays.
func (e *Event) delivery(t text) {
	s, ok := strings.CutPrefix(t.s, "to=<")
	if !ok || e.QueueID == "" {
		return
	}
	e.Kind = Unreadable
	to, s, ok := cutAddress(s)
	if !ok {
		return
	}
	origTo := ""
	if rest, found := strings.CutPrefix(s, ", orig_to=<"); found {
		if origTo, s, ok = cutAddress(rest); !ok {
			return
		}
	}
	relay, s, ok := cutField(s, "relay=")
	if !ok {
		return
	}
	if _, rest, found := cutField(s, "conn_use="); found {
		s = rest
	}
	delay, s, ok1 := cutField(s, "delay=")
	_, s, ok2 := cutField(s, "delays=")
	dsn, s, ok3 := cutField(s, "dsn=")
	duration, ok4 := seconds(delay)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return
	}
	s, ok = strings.CutPrefix(s, ", status=")
	status, reply, found := strings.Cut(s, " (")
	if !ok || !found || !isStatus(status) {
		return
	}
	reply, closed := strings.CutSuffix(reply, ")")
	if !closed && !t.cut {
		return
	}
	switch e.Program {
	case "smtp", "lmtp", "local", "virtual", "pipe", "discard":
	default:
		if strings.Contains(reply, ">, relay=") || strings.Contains(reply, ">, orig_to=<") {
			return
		}
	}
	e.Kind = Delivery
	e.RcptTo, e.OrigTo, e.Relay, e.Delay, e.DSN, e.Status, e.Text = to, origTo, relay, duration, dsn, status, reply
	e.Command = command(e.Program, status, reply)
	if e.Program == "local" && status == Sent && !t.cut {
		if id, found := strings.CutPrefix(reply, "forwarded as "); found && IsQueueID(id) {
			e.Kind, e.NewID = Forwarded, id
		}
	}
}

func isStatus(s string) bool {
	switch s {
	case Sent, Deferred, Bounced, Expire, Deliverable, Undeliverable:
		return true
	}
	return false
}

// cutField reads ", name=value" up to the next comma. No program lets a value
// of those asked for hold a comma or a bracket.
func cutField(s, name string) (value, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, ", ")
	if !ok {
		return "", "", false
	}
	s, ok = strings.CutPrefix(s, name)
	if !ok {
		return "", "", false
	}
	end := strings.IndexByte(s, ',')
	if end < 0 || strings.ContainsAny(s[:end], "<>()") {
		return "", "", false
	}
	return s[:end], s[end:], true
}

// cutAddress reads an address in external form up to its closing bracket: a
// local part that is quoted where it needs to be, and a domain.
func cutAddress(s string) (address, rest string, ok bool) {
	end := 0
	if strings.HasPrefix(s, `"`) {
		end = 1
		for end < len(s) && s[end] != '"' {
			if s[end] == '\\' {
				end++
			}
			end++
		}
		end++ // the closing quote
		if end >= len(s) || s[end] != '@' && s[end] != '>' {
			return "", "", false
		}
	}
	literal := false
	for ; end < len(s); end++ {
		switch c := s[end]; {
		case literal && c != ']':
		case c == '[':
			literal = true
		case c == ']':
			literal = false
		case c == '>':
			return s[:end], s[end+1:], true
		case c == '"' || c == '<' || c == ' ' || c == ',' || c == '(':
			return "", "", false
		}
	}
	return "", "", false
}

// notified reads "sender non-delivery notification: ID".
func (e *Event) notified(t text) {
	what, id, ok := strings.Cut(t.s, " notification: ")
	if !ok || e.QueueID == "" || !IsQueueID(id) {
		return
	}
	if !strings.HasPrefix(what, "sender ") && !strings.HasPrefix(what, "postmaster ") {
		return
	}
	e.Kind, e.Text, e.NewID = Notified, what, id
}

func (e *Event) postsuper(t text) {
	switch {
	case e.QueueID == "":
	case t.s == "placed on hold":
		e.Kind, e.By = Held, ByAdmin
	case t.s == "released from hold":
		e.Kind = Released
	case t.s == "requeued":
		e.Kind = Requeued
	case t.s == "removed":
		e.Kind = Deleted
	}
}
