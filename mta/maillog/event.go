package maillog

import (
	"net/netip"
	"time"
)

// Kind is what a line tells.
type Kind uint8

// The fields named are those that a kind fills in, beside QueueID and what
// every event has.
const (
	// None: a line that is of no interest here.
	None Kind = iota
	// Unreadable: a line of interest whose fields cannot be told apart for
	// certain, by accident or because somebody tried to forge one. Only
	// QueueID is filled in.
	Unreadable
	// Pickup: sendmail(1) submitted a message: UID, MailFrom; of Sendmail LocalUser,
	// and UID is -1. OrigID is set
	// when "postsuper -r" did instead: the message had that id before, and UID
	// is Postfix's own.
	Pickup
	// MessageID: the Message-ID field, in angle brackets as written: MessageID, Resent.
	MessageID
	// Client: an SMTP client began a message: ClientName, ClientIP, Authenticated,
	// AuthMethod, Login; OrigID: its queue id in front of a content filter. Sendmail
	// does not tell the login, only that there is one.
	Client
	// Queued: the message is (again) in the active queue: MailFrom, Size,
	// Recipients. Of Sendmail: its content is there, and is yet to be decided on;
	// Recipients are those before aliases.
	Queued
	// Delivery: one recipient was tried: RcptTo, OrigTo, Relay, Delay, DSN,
	// Status, Text.
	Delivery
	// Forwarded: a Delivery (all its fields) to an alias or .forward: the copy
	// runs on as NewID.
	Forwarded
	// Held: the message goes to the hold queue: By; Text for milter and admin.
	Held
	// Released: "postsuper -H" let it go.
	Released
	// Requeued: "postsuper -r"; a Pickup with OrigID follows.
	Requeued
	// Deleted: "postsuper -d" removed it.
	Deleted
	// Removed: the queue manager is done with it.
	Removed
	// Expired: it was too old and goes back to its sender: MailFrom.
	Expired
	// Notified: a notification about it was made, with the id NewID: Text is
	// "sender non-delivery", "sender delivery status", "sender delay", "postmaster non-delivery" and so on.
	Notified
	// AuthFailed: a client did not prove a login: ClientName, ClientIP,
	// AuthMethod, Text; Login where Postfix tells it (3.8 and later).
	// No QueueID.
	AuthFailed
	// MilterRejected: a milter refused: Stage, ClientName, ClientIP, Text; QueueID is
	// empty before the first recipient.
	MilterRejected
	// Redirected: a rule of the MTA sends the message to RcptTo instead: By
	// (empty: a milter's header check and the like); for ByAccess, Stage,
	// ClientName, ClientIP and QueueID as with MilterRejected.
	Redirected
	// Copied: the same for a BCC action: RcptTo is added.
	Copied
	// Filtered: the same for a FILTER action: Relay is the "transport:nexthop".
	Filtered
	// SieveForwarded: a Sieve script of Mailbox sent the message on to RcptTo:
	// Session, MessageID as Dovecot shows it (at most 80 characters, then "...").
	// Service is Dovecot's; no QueueID.
	SieveForwarded
	// SieveNotified: the same for a notification by mail. See Targets.
	SieveNotified
	// SievePiped: the same for a program: Command.
	SievePiped
	// HandedOn: Sendmail's submission program gave a message of its own queue to the
	// MTA, or tried to: all of a Delivery; NewID is its id there. That it arrives
	// the lines of NewID tell.
	HandedOn
	// Cloned: Sendmail sends a list with an owner as a message of its own, NewID.
	Cloned
)

var kindNames = [...]string{"none", "unreadable", "pickup", "message_id", "client", "queued", "delivery", "forwarded", "held",
	"released", "requeued", "deleted", "removed", "expired", "notified", "auth_failed", "milter_rejected",
	"redirected", "copied", "filtered", "sieve_forwarded", "sieve_notified", "sieve_piped", "handed_on", "cloned"}

// String is the kind's name: lower case, with underscores.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Who held a message.
const (
	ByMilter = "milter"
	ByAdmin  = "admin"  // postsuper -h
	ByHeader = "header" // header_checks, mime_header_checks
	ByBody   = "body"   // body_checks
	ByAccess = "access" // an access table, policy server or static HOLD
)

// Status values of a delivery.
const (
	Sent          = "sent"
	Deferred      = "deferred"
	Bounced       = "bounced"
	Expire        = "expired"
	Deliverable   = "deliverable"
	Undeliverable = "undeliverable"
)

// Event is one line of interest. Its strings share the line's memory: clone
// those that are kept long. Fields that its kind does not name are zero.
// Addresses have no angle brackets; the null sender is empty. Texts are UTF-8,
// come from the network and may hold anything but line feeds.
type Event struct {
	Time    time.Time // as logged, UTC; to the second in the traditional form
	Host    string
	Service string // syslog_name: "postfix", "postfix/submission", "postfix-out"; ServiceSendmail
	Program string // "smtpd", "qmgr"; the tag of Sendmail's lines, "sm-mta"
	PID     int
	Kind    Kind
	Count   int // 1, or how often syslog says that it was repeated

	QueueID       string
	OrigID        string
	NewID         string
	UID           int
	LocalUser     string // name of a Unix account, "Unknown UID 54321" without one
	MailFrom      string
	MessageID     string
	Resent        bool
	ClientName    string     // verified by Postfix; "unknown"
	ClientIP      netip.Addr // zero: unknown
	AuthMethod    string
	Login         string
	Authenticated bool  // a Client proved a login that the line does not tell
	Size          int64 // octets
	Recipients    int
	RcptTo        string
	OrigTo        string // where it was addressed before aliases; empty: to RcptTo
	Relay         string // "host[ip]:port", "local", "none"
	Delay         time.Duration
	DSN           string // "2.0.0"
	Status        string
	By            string
	Stage         string // "RCPT", "END-OF-MESSAGE"
	Text          string
	Command       string // a Delivery's, if a program got the mail: its command line, or the service of pipe(8)
	Mailbox       string // whose Sieve script it was: the login of Dovecot's user
	Session       string // of Dovecot's: the same as in the reply to the LMTP client
}
