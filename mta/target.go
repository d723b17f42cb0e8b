package mta

import (
	"strings"
	"time"
)

// Fate is what became of a target.
type Fate uint8

// The fates.
const (
	Failed  Fate = iota // see Result.Err; the message is where it was, or nobody can tell
	Done                // Postfix's tool said that it did it
	Gone                // no such message in the queues concerned; not an error
	Changed             // the id now belongs to another message, which was left alone
)

func (f Fate) String() string {
	switch f {
	case Done:
		return "done"
	case Gone:
		return "gone"
	case Changed:
		return "changed"
	}
	return "failed"
}

// Result is what became of one target. Results come in the order of the targets.
type Result struct {
	ID    string
	Fate  Fate
	NewID string // of a requeued message, if it could be learnt
	Err   error  // of Failed
}

// Target is a message as its caller knows it. The id alone would not do: a short
// one is the microsecond of creation and the inode, and comes back.
type Target struct {
	Instance string // QueueFile.Instance; empty: look in all
	ID       string
	Sender   string // "" or MAILER-DAEMON is the null sender
	// Arrival is a moment when the message was in Postfix's hands: when the
	// guard decided about it. With Exact it is QueueFile.Arrival itself.
	Arrival time.Time
	// Exact says that Sender and Arrival were read from the queue.
	Exact bool
}

// Target is the message of f, exactly.
func (f QueueFile) Target() Target {
	return Target{Instance: f.Instance, ID: f.ID, Sender: f.Sender, Arrival: f.Arrival, Exact: true}
}

const (
	// afterDecision allows for a clock that is set back a little.
	afterDecision = time.Second
	// beforeDecision is how long a client may have taken to send a message.
	beforeDecision = 24 * time.Hour
)

// Matches tells whether f is the message that t means.
//
// An exact target has the queue's own sender, byte for byte, and arrival second.
//
// Else the arrival must lie between a day before t.Arrival and a second after
// it. That cannot take a reused id for the old one: while the message is there
// nobody else can have its id, so a message that has it now was created after
// the old one left, and so after the guard decided about the old one. Two ways
// are left, both need a new file with the same microsecond and inode and the
// same sender: within that second, or by a client that said MAIL before the
// decision and RCPT after the old message left, for Postfix counts the arrival
// from MAIL.
//
// Senders are compared as addresses: without needless quotes, and with a '?'
// for what Postfix does not print. A sender that Postfix rewrote (a domain
// appended, canonical maps, another milter) does not match what the guard was
// told; such a message needs an exact target.
func (t Target) Matches(f QueueFile) bool {
	if t.ID != f.ID || t.ID == "" {
		return false
	}
	if t.Exact {
		return t.Sender == f.Sender && t.Arrival.Unix() == f.Arrival.Unix()
	}
	if !sameSender(t.Sender, f.Sender) {
		return false
	}
	return !f.Arrival.After(t.Arrival.Add(afterDecision)) && !f.Arrival.Before(t.Arrival.Add(-beforeDecision))
}

// sameSender compares the sender that a milter was told with the one that
// postqueue prints.
func sameSender(told, printed string) bool {
	if told == NullSender {
		told = ""
	}
	if printed == NullSender {
		printed = ""
	}
	if told == printed {
		return true
	}
	told, printed = unquoted(told), unquoted(printed)
	return told == printed || printable(told, true) == printed || printable(told, false) == printed
}

// unquoted takes the quotes off a local part (RFC 5321 §4.1.2).
func unquoted(address string) string {
	if len(address) == 0 || address[0] != '"' {
		return address
	}
	var out strings.Builder
	for n := 1; n < len(address); n++ {
		switch c := address[n]; {
		case c == '\\' && n+1 < len(address):
			n++
			out.WriteByte(address[n])
		case c == '"':
			return out.String() + address[n+1:]
		default:
			out.WriteByte(c)
		}
	}
	return address
}

// printable does as Postfix's printable(3): control characters, and what is
// not UTF-8 or, without SMTPUTF8, not ASCII, become question marks. A tab is a
// space by the time it is in the queue (observed, 3.7.11).
func printable(s string, utf8 bool) string {
	var out strings.Builder
	for n, r := range s {
		switch {
		case r == '\t':
			out.WriteByte(' ')
		case r < ' ' || r == 0x7f:
			out.WriteByte('?')
		case r == 0xFFFD && !strings.HasPrefix(s[n:], "\uFFFD"):
			out.WriteByte('?')
		case r >= 0x80 && !utf8:
			out.WriteString(strings.Repeat("?", len(string(r))))
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// ValidQueueID tells whether an MTA could have given that queue id: letters and
// digits. Each MTA's own room knows its exact form.
func ValidQueueID(id string) bool {
	if len(id) < 6 || len(id) > 100 {
		return false
	}
	for n := range len(id) {
		if c := id[n] | 0x20; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
