// Package evidence proves forwarding rules by traffic: it follows the events of
// the mail log (mta/maillog), finds mail that left for outside although it was
// addressed inside, says by which rule, and how sure that is. What leaves with no
// known rule behind it is a finding of its own.
//
// A Tracker binds lines to messages by queue ids and what follows from them
// ("forwarded as", orig_to, redirect and bcc lines, Dovecot's session ids). A
// Store (SQLite, a file of its own) keeps what was found, what is in flight and
// how far the log was read in one transaction, so that after a crash nothing is
// lost and nothing is there twice. What rules there are, others know (Rules);
// this package never reads a rule and never reads mail.
//
// The traps. Senders choose Message-IDs, addresses and subjects: a Message-ID
// alone binds nothing, it only joins a message that came from this machine to
// one that was handed to a program here, and such a row is never Certain.
// Postfix logs the copy that a .forward makes before the line that says whose
// copy it is, so what is known of a row grows for a while. And any local account
// can write a syslog line in Postfix's name: what comes from a file shows what the
// log says, no more.
package evidence

import (
	"fmt"
	"time"

	"relayguard/forward"
	"relayguard/mta/maillog"
)

// Rules is what is asked of those who know the rules. Addresses come as the log
// has them. Safe for concurrent use; the answers must not wait.
type Rules interface {
	// Match tells which finding explains that mail addressed to origTo left to
	// rcpt ("|command" for a program).
	Match(origTo, rcpt string) (id string, ok bool)
	// Inside reports whether an address is ours. A name without a domain is.
	Inside(addr string) bool
	// ByTarget are the findings whose target that is.
	ByTarget(rcpt string) []string
}

// Finder is what Rules may have beside. With it BCC and header rules are told
// from others that have the same target.
type Finder interface {
	Find(id string) (forward.Finding, bool)
}

// Wire is what Rules may have beside, for rules that the log does not show by an
// address: generic maps, which rewrite on the way out, and other next hops. relay
// is as the log has it: "mx.example.net[192.0.2.1]:25", or a service's name.
type Wire interface {
	// OnWire tells which finding changes where mail to the inside address rcpt
	// goes by that relay, and the address it has then (rcpt: unchanged; "|command":
	// the program behind a service of pipe(8)).
	OnWire(rcpt, relay string) (id, target string, ok bool)
}

// Sure is how sure it is that a mail left by a rule.
type Sure uint8

const (
	// Possible: fits by Message-ID, time and place; somebody on this machine
	// could have made it so.
	Possible Sure = iota + 1
	// Likely: beside that the Unix account or the recipients fit, too.
	Likely
	// Certain: the MTA or Dovecot says so itself.
	Certain
)

// String is its name.
func (s Sure) String() string {
	switch s {
	case Possible:
		return "possible"
	case Likely:
		return "likely"
	case Certain:
		return "certain"
	}
	return "unknown"
}

// MarshalText is String.
func (s Sure) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Sure) UnmarshalText(text []byte) error {
	for v := range Certain + 1 {
		if v.String() == string(text) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("how sure it is: %q is none of possible, likely, certain", text)
}

// How is by what it is known.
type How string

const (
	ByOrigTo      How = "orig_to"      // the log names the address before the rule
	ByCopy        How = "forwarded as" // and local(8) says whose copy it is
	ByAction      How = "action"       // a redirect: or bcc: line
	ByGrowth      How = "recipient"    // a recipient that nobody named
	BySieve       How = "sieve"        // Dovecot says so
	ByNotice      How = "sieve notice" // a notification, not the message itself
	ByProgram     How = "program"      // the message was handed to a program
	ByResubmitted How = "same message" // submitted again on this machine, with the same Message-ID
	ByRelay       How = "relay"        // by the next hop
	ByORCPT       How = "ORCPT"        // only the DSN parameter names it
)

// Status values beside maillog's.
const (
	// Handed: given to a program or script; what became of it then is not known.
	Handed = "handed"
)

// Mail is one message that left to one recipient.
type Mail struct {
	QueueID      string    `json:"queue_id"`      // under which it left; empty: not seen
	RootID       string    `json:"root_queue_id"` // under which it came in; empty: not seen
	MessageID    string    `json:"message_id"`
	Time         time.Time `json:"time"`          // when it was first tried
	SenderDomain string    `json:"sender_domain"` // of MAIL FROM; empty: the null sender, or not known
	Outside      bool      `json:"outside_sender"`
	OrigTo       string    `json:"orig_to"` // the inside address; empty: not known
	RcptTo       string    `json:"rcpt_to"` // where it went; "|command" a program
	Relay        string    `json:"relay"`
	Status       string    `json:"status"` // maillog's, Handed
	DSN          string    `json:"dsn"`
	How          How       `json:"how"`
	Sure         Sure      `json:"sure"`
	Rules        []string  `json:"rules,omitempty"` // findings' ids
}

// Gap is a time of which the evidence is incomplete.
type Gap struct {
	From time.Time `json:"from"` // zero: not known since when
	To   time.Time `json:"to"`
	Why  string    `json:"why"`
}

// Summary is the evidence for one rule in short.
type Summary struct {
	ID    string    `json:"id"`
	First time.Time `json:"first"` // zero: no mail
	Last  time.Time `json:"last"`
	Mails int       `json:"mails"`
	Sure  Sure      `json:"sure"`  // of the surest
	Since time.Time `json:"since"` // of what time the oldest evidence is; zero: none
	Gaps  []Gap     `json:"gaps,omitempty"`
}

// Report is what is needed to size and report a breach.
type Report struct {
	ID              string    `json:"id"`
	From            time.Time `json:"from"` // of the first mail; zero: none
	To              time.Time `json:"to"`
	Mails           int       `json:"mails"`
	Certain         int       `json:"certain"`
	Likely          int       `json:"likely"`
	Possible        int       `json:"possible"`
	DistinctSenders int       `json:"distinct_senders"` // outside ones, of the mails that are still listed
	Delivered       int       `json:"delivered"`
	Bounced         int       `json:"bounced"`
	Deferred        int       `json:"deferred"`
	Handed          int       `json:"handed"`
	Targets         []string  `json:"targets"`
	Known           []string  `json:"known"`
	NotKnown        []string  `json:"not_known"`
	Gaps            []Gap     `json:"gaps,omitempty"`
}

// Flow is mail that left with no rule behind it, put together by OrigTo and RcptTo.
type Flow struct {
	OrigTo  string    `json:"orig_to"` // empty: only known that it came in and went out
	RcptTo  string    `json:"rcpt_to"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Mails   int       `json:"mails"`
	Outside int       `json:"outside"` // of those, from outside senders
	How     How       `json:"how"`
	Sure    Sure      `json:"sure"`     // of the surest
	QueueID string    `json:"queue_id"` // of the last
}

// Relay is a next hop that took mail for inside addresses.
type Relay struct {
	Program string    `json:"program"` // "postfix/smtp"
	Relay   string    `json:"relay"`   // without its port
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Mails   int       `json:"mails"`
}

// Passage is a message as a milter saw it: what was named by RCPT TO, before any rule.
type Passage struct {
	Time    time.Time
	QueueID string
	RcptTo  []Recipient // all of them, or none if they were too many
	// Egress: it was on its way out, seen on the hop that all outgoing mail takes.
	Egress bool
}

// Recipient is one RCPT TO.
type Recipient struct {
	Address string
	ORCPT   string // its DSN parameter, decoded, without "rfc822;"; whoever sent the message may have chosen it
}

// gapOf takes over what a Follower told.
func gapOf(g maillog.Gap) Gap { return Gap{From: g.From, To: g.To, Why: g.Why} }
