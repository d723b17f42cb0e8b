package milter

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"

	"relayguard/policy"
	"relayguard/policy/origin"
	"relayguard/policy/origin/stamp"
)

// UIDHeader is the field by which Postfix can be made to tell the Unix account
// behind sendmail(1). Whoever set it, it is taken off the message, up to maxStrip
// times; Postfix's smtp_header_checks see to the rest.
const UIDHeader = "X-Relayguard-Uid"

// session is the guard's side of one MTA connection: it fills one message after
// another and asks the guard. Only the library's goroutine touches it.
//
// Between transactions it is small: agreed, macros of connect and HELO, client
// and the reader's unread octets say all, so that it can be handed on.
type session struct {
	conn     *conn
	listener *Listener

	greeted bool // options were negotiated
	agreed  negotiated
	macros  macros
	client  client

	inTransaction bool // MAIL seen, neither end of message nor abort
	panicked      bool // a handler panicked where no answer is due: tempfail at the next
	message       policy.Message
	digest        hash.Hash // of header and body, in place of what is not kept
	rcptBytes     int
	kept          *[]byte  // where message.Body is, nil without one
	bodyCut       bool     // message.Body is not to grow any more
	held          int64    // of the server's memory budget
	args          []string // ESMTP arguments of the command at hand
	out           []byte   // frames of an answer
	sum           [sha256.Size]byte
}

// client is what the connection said of the SMTP client.
type client struct {
	name   string
	addr   netip.Addr
	port   uint16
	helo   string
	uid    int
	askUID bool // the uid was looked for
}

var _ gomilter.Milter = (*session)(nil)

func newSession(c *conn, l *Listener) *session {
	s := &session{conn: c, listener: l, client: client{uid: origin.NoUID}, digest: sha256.New()}
	s.message.Header.MaxBytes = c.server.Limits.HeaderBytes
	s.message.Header.MaxFields = c.server.Limits.HeaderFields
	s.message.Header.Tally = []string{UIDHeader, stamp.Header, stamp.NodeHeader, stamp.CallHeader, policy.TokenHeader}
	return s
}

// allow judges the order of commands. Both MTAs keep it; who does not is no MTA.
func (s *session) allow(cmd byte) error {
	switch cmd {
	case cmdOptNeg:
		if s.greeted {
			return malformed(cmd, "second negotiation")
		}
	case cmdQuit:
	case cmdRcpt, cmdData, cmdHeader, cmdEOH, cmdBody, cmdEOM:
		if !s.inTransaction {
			return malformed(cmd, "outside a transaction")
		}
	default:
		if !s.greeted {
			return malformed(cmd, "before the negotiation")
		}
	}
	return nil
}

// take looks at a frame before the library does; false: the library is not to
// see it.
func (s *session) take(cmd byte, payload []byte) (forLibrary bool, err error) {
	defer s.guardPanic(false)
	switch cmd {
	case cmdOptNeg:
		s.greeted, s.agreed = true, agree(payload, s.listener.protocol())
	case cmdMacro:
		s.macros.set(payload[0], payload[1:])
		return false, nil
	case cmdConnect:
		s.macros.newClient()
		s.client = parseConnect(payload)
		if s.listener.LocalBySMTP { // while the MTA waits: the client may not stay
			s.findClient()
		}
	case cmdMail, cmdRcpt:
		s.args = arguments(payload)
	case cmdHeader:
		s.replyUnless(gomilter.OptNoHeaderReply)
		return false, nil
	case cmdEOH:
		s.replyUnless(gomilter.OptNoEOHReply)
		return false, nil
	case cmdBody:
		s.replyUnless(gomilter.OptNoBodyReply)
		return false, nil
	case cmdData:
		s.replyUnless(gomilter.OptNoDataReply)
		return false, nil
	case cmdUnknown:
		s.replyUnless(gomilter.OptNoUnknownReply)
		return false, nil
	case cmdQuit:
		s.endTransaction()
	case cmdQuitNC:
		s.endTransaction()
		s.macros.endSession()
		s.client = client{uid: origin.NoUID}
		return false, nil
	}
	return true, nil
}

func (s *session) replyUnless(bit gomilter.OptProtocol) {
	if !s.agreed.has(bit) {
		s.conn.answer(ansContinue)
	}
}

// parseConnect reads a checked CONNECT frame.
func parseConnect(p []byte) client {
	c := client{uid: origin.NoUID}
	end := bytes.IndexByte(p, 0)
	c.name = string(p[:end])
	family, rest := p[end+1], p[end+2:]
	if family != '4' && family != '6' {
		return c
	}
	c.port = uint16(rest[0])<<8 | uint16(rest[1])
	if ip, err := netip.ParseAddr(withoutTag(strings.TrimSuffix(string(rest[2:]), "\x00"))); err == nil {
		c.addr = ip.Unmap()
	}
	return c
}

// arguments are the strings behind the address of a MAIL or RCPT frame.
func arguments(p []byte) []string {
	first := bytes.IndexByte(p, 0)
	if first+1 == len(p) {
		return nil
	}
	return strings.Split(string(p[first+1:len(p)-1]), "\x00")
}

// The handlers of gomilter.Milter answer themselves and return no response: the
// library's own accept, reject and tempfail make it forget all it knows of the
// connection.

// Connect implements gomilter.Milter; the frame was read by take.
func (s *session) Connect(string, string, uint16, net.IP, *gomilter.Modifier) (gomilter.Response, error) {
	s.replyUnless(gomilter.OptNoConnReply)
	return nil, nil
}

// Helo implements gomilter.Milter.
func (s *session) Helo(name string, _ *gomilter.Modifier) (gomilter.Response, error) {
	s.client.helo = name
	s.replyUnless(gomilter.OptNoHeloReply)
	return nil, nil
}

// MailFrom implements gomilter.Milter. What is wrong with the sender is said at
// every RCPT: a refusal at MAIL would sink local mail without a trace.
func (s *session) MailFrom(from string, _ *gomilter.Modifier) (gomilter.Response, error) {
	defer s.replyUnless(gomilter.OptNoMailReply)
	defer s.guardPanic(false)
	s.startTransaction(from)
	return nil, nil
}

func (s *session) startTransaction(from string) {
	s.resetMessage()
	s.inTransaction = true
	m := &s.message
	m.Listener, m.Role, m.Time = s.listener.Name, s.role(), time.Now()
	m.Evidence = s.evidence()
	m.BySMTP = m.Role == policy.Local && s.client.port != 0
	m.FromHere = s.client.port != 0 && s.fromHere()
	m.MailFrom, m.MailArgs = from, s.args
}

// role is the listener's, unless what came is not what the listener is for:
// a listener for sendmail(1) that is put on an SMTP service must not let
// strangers through as local mail.
func (s *session) role() policy.Role {
	if s.listener.Role == policy.Local && !s.fromSendmail() {
		return policy.Relay
	}
	return s.listener.Role
}

// fromSendmail reports whether the connection is that of a local program: of
// Postfix's pickup, which is loopback with port 0; or, where local mail comes by
// SMTP, any from loopback but a login's.
func (s *session) fromSendmail() bool {
	if !s.client.addr.IsLoopback() {
		return false
	}
	return s.client.port == 0 || s.listener.LocalBySMTP && s.macro("{auth_authen}") == ""
}

func (s *session) evidence() origin.Evidence {
	e := origin.NewEvidence()
	e.ClientIP, e.ClientPort, e.ClientName, e.Helo = s.client.addr, s.client.port, s.client.name, s.client.helo
	e.DaemonName = s.macro("{daemon_name}")
	if s.role() == policy.Local {
		e.Submitted = true
		e.UID = s.client.uid // known of SMTP alone
		return e             // Postfix tells no login for sendmail(1), and none is believed
	}
	e.Login, e.AuthType = s.macro("{auth_authen}"), s.macro("{auth_type}")
	e.CertSubject, e.CertIssuer = s.macro("{cert_subject}"), s.macro("{cert_issuer}")
	// Postfix tells a subject only if it verified the chain, and knows no
	// {verify}; Sendmail tells both, if it can be asked for them.
	verify := s.macro("{verify}")
	e.CertVerified = e.CertSubject != "" && (verify == "OK" || verify == "" && s.agreed.may(gomilter.OptSetSymList))
	if s.role() != policy.Egress { // there the client is the MTA itself, for whomever it sends
		e.UID = s.clientUID(e.Login)
	}
	return e
}

// clientUID is the Unix account behind SMTP from this very machine, found once
// a connection.
func (s *session) clientUID(login string) int {
	if login != "" {
		return origin.NoUID
	}
	s.findClient()
	return s.client.uid
}

// fromHere reports whether the client is on this machine: it comes by loopback, or
// by one of the machine's own addresses, for which an MTA may relay as well.
func (s *session) fromHere() bool {
	addr := s.client.addr
	if !addr.IsValid() {
		return false
	}
	for _, macro := range [...]string{"{if_addr}", "{daemon_addr}"} {
		if own, err := netip.ParseAddr(withoutTag(s.macro(macro))); err == nil && own.Unmap() == addr.Unmap() {
			return true
		}
	}
	own := s.conn.server.Own
	return addr.Unmap().IsLoopback() || own != nil && own(addr)
}

// findClient looks for the owner of the client's socket, once. Sendmail tells the
// address that its daemon listens on, which may be that of no interface, with
// IPv6 for clients of either kind.
func (s *session) findClient() {
	find := s.conn.server.ClientUID
	if find == nil || s.client.askUID || !s.fromHere() || s.client.port == 0 {
		return
	}
	s.client.askUID = true
	port, err := strconv.ParseUint(s.macro("{daemon_port}"), 10, 16)
	if err != nil {
		return
	}
	addr, err := netip.ParseAddr(withoutTag(s.macro("{daemon_addr}")))
	if err != nil {
		return
	}
	s.client.uid = find(netip.AddrPortFrom(s.client.addr, s.client.port), netip.AddrPortFrom(addr, uint16(port)))
}

// withoutTag takes off what Sendmail writes in front of an IPv6 address.
func withoutTag(addr string) string {
	const tag = "IPv6:"
	if len(addr) > len(tag) && strings.EqualFold(addr[:len(tag)], tag) {
		return addr[len(tag):]
	}
	return addr
}

func (s *session) macro(name string) string { return string(s.macros.get(name)) }

// RcptTo implements gomilter.Milter: the guard is asked about this recipient,
// except for local mail, where Postfix takes any refusal here for its own
// misconfiguration.
func (s *session) RcptTo(to string, _ *gomilter.Modifier) (gomilter.Response, error) {
	defer s.guardPanic(true)
	m := &s.message
	m.QueueID = s.macro("i")
	m.RcptArgs = s.args
	switch {
	case m.Role == policy.Local:
		s.keepRecipient(to)
		s.conn.answer(ansContinue)
	case s.panicked:
		s.conn.answer(ansTempFail)
	case !s.roomFor(to):
		s.conn.send(appendReply(s.out[:0], policy.Reply{Code: 452, Enhanced: "4.5.3", Text: "Too many recipients, send the rest in another message"}))
	default:
		s.askRecipient(to)
	}
	return nil, nil
}

func (s *session) askRecipient(to string) {
	ctx := s.begin(false)
	d := s.conn.server.Guard.Recipient(ctx, &s.message, to)
	refused := d.Verdict == policy.Reject || d.Verdict == policy.Defer
	if !s.end(ctx) { // too late, the MTA was told what overdue decisions are answered with
		refused = !s.conn.server.Limits.AcceptOverdue
	} else if refused {
		s.out = appendReply(s.out[:0], d.Reply)
		s.conn.send(s.out)
	} else {
		s.conn.answer(ansContinue)
	}
	if !refused {
		s.keepRecipient(to)
	}
}

// maxRcptBytes bounds what the recipients of one message take, whatever their
// number: that of 10,000 addresses of 100 octets.
const maxRcptBytes = 1 << 20

func (s *session) roomFor(to string) bool {
	return len(s.message.RcptTo) < s.conn.server.Limits.Recipients && s.rcptBytes+len(to) <= maxRcptBytes && s.hold(rcptCost+len(to))
}

func (s *session) keepRecipient(to string) {
	if !s.roomFor(to) {
		s.message.RcptMore++
		return
	}
	s.rcptBytes += len(to)
	s.message.RcptTo = append(s.message.RcptTo, to)
	if s.message.Role == policy.Egress {
		orig := policy.OriginalOf(s.message.RcptArgs)
		if !s.hold(rcptCost + len(orig.Address)) {
			orig.Address = ""
		}
		s.rcptBytes += rcptCost + len(orig.Address)
		s.message.RcptOrig = append(s.message.RcptOrig, orig)
	}
}

// What a recipient and a header field take beside their octets.
const (
	rcptCost  = 32
	fieldCost = 32
)

// hold reports whether the message may keep up to n octets more. The first
// keepBytes of each connection are always there; what goes beyond comes out of
// a budget of all connections.
func (s *session) hold(n int) bool {
	want := int64(s.rcptBytes+len(s.message.RcptTo)*rcptCost+s.message.Header.Bytes()+s.message.Header.Len()*fieldCost+len(s.message.Body)+n) - keepBytes
	if want <= s.held {
		return true
	}
	if !s.conn.server.memory.take(want - s.held) {
		return false
	}
	s.held = want
	return true
}

// header takes a header frame's payload.
func (s *session) header(p []byte) error {
	defer s.guardPanic(false)
	name, value, err := splitHeader(p)
	if err != nil {
		return err
	}
	s.message.Size += int64(len(name) + len(value) + len(": \r\n"))
	s.digest.Write(p) // with the NULs, so that fields cannot run into one another
	if !s.message.Header.Truncated() && !s.hold(len(p)+fieldCost) {
		s.message.Header.Overflow()
	}
	s.message.Header.Add(name, value)
	return nil
}

// oversizedHeader notes a field too large to be kept at all.
func (s *session) oversizedHeader(n int) {
	s.message.Size += int64(n)
	s.message.Header.Overflow()
}

// body takes a piece of body, valid during the call.
func (s *session) body(piece []byte) {
	s.message.Size += int64(len(piece))
	s.digest.Write(piece)
	s.keepBody(piece)
}

// bodies are buffers that connections share: an idle one needs none.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// keepBody keeps the beginning of a body, as far as there is memory for it.
func (s *session) keepBody(piece []byte) {
	m := &s.message
	if s.bodyCut { // there would be a gap
		return
	}
	if room := s.listener.BodyBytes - len(m.Body); len(piece) > room {
		s.bodyCut = true
		piece = piece[:room]
	}
	if len(piece) == 0 {
		return
	}
	if !s.hold(len(piece)) {
		s.bodyCut = true
		return
	}
	if s.kept == nil {
		s.kept = bodies.Get().(*[]byte)
		m.Body = (*s.kept)[:0]
	}
	m.Body = append(m.Body, piece...)
}

// dropBody gives the buffer back.
func (s *session) dropBody() {
	if s.kept == nil {
		return
	}
	if cap(s.message.Body) <= keepBytes {
		*s.kept = s.message.Body[:0]
		bodies.Put(s.kept)
	}
	s.kept = nil
}

// Body implements gomilter.Milter: end of message, the guard decides.
func (s *session) Body(*gomilter.Modifier) (gomilter.Response, error) {
	defer s.endTransaction()
	defer s.guardPanic(true)
	if s.panicked {
		s.conn.answer(ansTempFail)
		return nil, nil
	}
	if id := s.macro("i"); id != "" {
		s.message.QueueID = id
	}
	s.conn.server.Stats.Messages.Add(1)
	copy(s.message.Digest[:], s.digest.Sum(s.sum[:0]))
	ctx := s.begin(true)
	d := s.conn.server.Guard.Message(ctx, &s.message)
	if s.end(ctx) {
		s.out = s.appendAnswer(s.out[:0], &d)
		s.conn.send(s.out)
	}
	return nil, nil
}

// maxStrip bounds the fields of one name that are taken off a message: Postfix
// reads its queue file for each.
const maxStrip = 100

// appendAnswer turns the decision on a whole message into frames: what is done
// to the message comes before the answer proper.
func (s *session) appendAnswer(b []byte, d *policy.Decision) []byte {
	switch d.Verdict {
	case policy.Reject, policy.Defer:
		return appendReply(b, d.Reply)
	case policy.Hold:
		if !s.agreed.may(gomilter.OptQuarantine) {
			s.conn.server.sometimes(lineQuarantine, slog.LevelError, "the MTA offers no quarantine; message deferred", "listener", s.listener.Name, "id", d.ID)
			return appendFrame(b, ansTempFail)
		}
		b = appendQuarantine(b, d.Rule)
	case policy.Accept, policy.Tell:
	default:
		s.conn.server.log().Error("no verdict; message deferred", "listener", s.listener.Name, "verdict", d.Verdict)
		return appendFrame(b, ansTempFail)
	}
	if s.agreed.may(gomilter.OptChangeHeader) {
		for _, name := range d.Strip {
			b = appendDelete(b, name, min(s.message.Header.Count(name), maxStrip))
		}
	}
	if s.agreed.may(gomilter.OptAddHeader) {
		for _, f := range d.Add {
			b = appendInsert(b, f)
		}
	}
	return appendFrame(b, ansContinue)
}

// begin starts a decision; end stops it. False: it took too long, and the MTA
// has been answered meanwhile.
func (s *session) begin(eom bool) *deadline {
	by := time.Now().Add(s.conn.server.Limits.DecisionTimeout)
	s.conn.beginDecision(by, eom)
	return &deadline{Context: s.conn.ctx, by: by}
}

func (s *session) end(ctx *deadline) bool {
	ctx.stop()
	return s.conn.endDecision()
}

// Header, Headers and BodyChunk are never called: the frames do not reach the
// library.
func (s *session) Header(string, string, *gomilter.Modifier) (gomilter.Response, error) {
	panic("header frame reached the library")
}

// Headers implements gomilter.Milter, see Header.
func (s *session) Headers(textproto.MIMEHeader, *gomilter.Modifier) (gomilter.Response, error) {
	panic("end-of-header frame reached the library")
}

// BodyChunk implements gomilter.Milter, see Header.
func (s *session) BodyChunk([]byte, *gomilter.Modifier) (gomilter.Response, error) {
	panic("body frame reached the library")
}

// Abort implements gomilter.Milter. Postfix sends it after every message, too,
// and twice before it quits.
func (s *session) Abort(*gomilter.Modifier) error {
	defer s.guardPanic(false)
	s.endTransaction()
	return nil
}

// keepBytes is the header memory that a connection keeps from one message to
// the next.
const keepBytes = 16 << 10

func (s *session) endTransaction() {
	s.inTransaction, s.panicked = false, false
	s.resetMessage()
	s.macros.endMessage()
}

func (s *session) resetMessage() {
	s.dropBody()
	m := &s.message
	m.Header.Reset(keepBytes)
	rcpt := m.RcptTo[:0]
	if cap(rcpt) > 256 {
		rcpt = nil
	}
	clear(rcpt[:cap(rcpt)])
	*m = policy.Message{Header: m.Header, RcptTo: rcpt}
	s.digest.Reset()
	s.rcptBytes, s.bodyCut = 0, false
	s.conn.server.memory.give(s.held)
	s.held = 0
}

// guardPanic turns a panic into a tempfail: here where an answer is due, else
// at the next stage that has one.
func (s *session) guardPanic(answerDue bool) {
	v := recover()
	if v == nil {
		return
	}
	if s.conn.deciding && !s.conn.endDecision() {
		answerDue = false // watch has answered
	}
	s.conn.server.Stats.Panics.Add(1)
	s.conn.server.sometimes(linePanic, slog.LevelError, "panic; message deferred", "panics", s.conn.server.Stats.Panics.Load(), "listener", s.listener.Name, "queue_id", s.message.QueueID,
		"panic", v, "stack", string(debug.Stack()))
	s.panicked = true
	if answerDue {
		s.conn.answer(ansTempFail)
	}
}
