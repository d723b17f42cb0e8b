// Package policy decides what becomes of a message.
//
// It is pure: a Message, what is known of its origin, the rules and the time go
// in, a Decision comes out. It opens no socket, file or database; what it must
// look up it asks of interfaces that it declares, by the context's deadline.
// The same code serves live mail and replayed traffic, so nothing here reads
// the clock.
package policy

import (
	"time"

	"relayguard/policy/origin"
	"relayguard/policy/template"
)

// Message is one mail transaction as the MTA described it. It is filled by one
// connection and valid only during the call that receives it.
type Message struct {
	Listener string // the listener's configured name
	Role     Role
	Time     time.Time // of MAIL

	origin.Evidence // what says who sent it: MailFrom, QueueID, Login, ClientIP, ...

	// BySMTP says of local mail that it came by SMTP over loopback, as Sendmail's
	// submission program hands it in: that program hears the answer, and UID is the
	// owner of the socket.
	BySMTP bool

	MailArgs []string // ESMTP arguments of MAIL, "SIZE=1000"
	RcptTo   []string // accepted recipients without brackets, in order
	RcptMore int      // recipients of local mail beyond what RcptTo may hold
	RcptArgs []string // of the recipient that is being asked about

	// RcptOrig says where each of RcptTo comes from; nil but on a listener with the
	// role egress.
	RcptOrig []Original

	Header Header // empty before end of message
	Size   int64  // octets of header and body seen so far

	// Body is the beginning of the body as it arrived, valid during the call: what
	// milter.max_body_bytes and the memory for it allow.
	Body []byte

	// Text is what is known of the text where there is no body to read: a trace has
	// it. nil: it is read from Header and Body.
	Text *template.Text

	// Digest stands for header and body, to tell a retry from another message
	// with the same Message-ID. Zero: not known.
	Digest [16]byte

	// FromHere says that the SMTP client is on this very machine, by whichever of its
	// addresses it came.
	FromHere bool

	// Token says that the message carries a one-time token of the guard's own mail.
	// Policy.Message sets it.
	Token bool

	unsaid bool // Sendmail's submission program hands it on, and does not say for whom
}

// TokenHeader is the field with the one-time token by which the guard knows its own
// mail where the kernel cannot say whose it is: from another machine or container.
const TokenHeader = "X-Relayguard-Token"

// here reports whether the SMTP client is on this very machine.
func (m *Message) here() bool { return m.FromHere || m.ClientIP.Unmap().IsLoopback() }

// Local reports whether the message was handed in by sendmail(1): nobody waits
// for an answer, so it may only be accepted, held or bounced.
func (m *Message) Local() bool { return m.Role == Local }
