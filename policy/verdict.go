package policy

import (
	"fmt"

	"relayguard/policy/limit"
	"relayguard/policy/origin"
)

// Verdict is what becomes of a message. The zero value is no verdict.
type Verdict uint8

const (
	Accept Verdict = iota + 1
	Tell           // accept, recorded and reported as a would-be stop
	Hold           // into the MTA's hold queue
	Defer          // 4xx: the client tries again
	Reject         // 5xx: the client gives up
)

var verdictNames = [...]string{Accept: "accept", Tell: "tell", Hold: "hold", Defer: "defer", Reject: "reject"}

// Verdicts are the names that ParseVerdict takes.
func Verdicts() []string { return verdictNames[1:] }

func (v Verdict) String() string { return nameOf(verdictNames[:], int(v), "verdict") }

// ParseVerdict reads a verdict by its name in the configuration.
func ParseVerdict(s string) (Verdict, error) {
	i, err := parseName(verdictNames[:], s)
	return Verdict(i), err
}

// Stops reports whether the message does not go on its way now.
func (v Verdict) Stops() bool { return v >= Hold }

// Reply is what an SMTP client is told: RFC 5321 §4.2, RFC 3463. Text is one
// line and names no internal host, path or zone.
type Reply struct {
	Code     int    // 4xx or 5xx
	Enhanced string // "5.7.1"
	Text     string
}

func (r Reply) String() string { return fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text) }

// Finding is one rule's objection to a message.
type Finding struct {
	Rule    string  // the rule's configured name
	Verdict Verdict // what the rule asks for, before the phase softens it
	Reason  string  // for the admin: what was found against what was wanted
}

// Decision is the answer to one recipient or to one whole message.
type Decision struct {
	ID      string // names the decision in replies, the log and the journal
	Verdict Verdict
	Rule    string // the rule that decided; empty for a plain accept
	Reason  string // for the admin
	Reply   Reply  // set when Verdict is Defer or Reject
	Origin  origin.Origin

	// Counters are the limits that were asked, each window with what it held
	// before this message.
	Counters []Counter
	Retry    int // recipients that were free: an earlier try was charged

	// Counted is how many recipients the message has for all that is known: those
	// it names, each alias and list as many as it stood for lately.
	Counted int

	// Charges are what was taken, for what the message turns out to be more;
	// Bounces those of each recipient that is bounced.
	Charges []limit.Charge
	Bounces []limit.Charge

	// Near are the windows that this message has brought to where their rule warns.
	Near []Counter

	// Waits is what a message takes that is held for want of room only, so that it
	// goes on by itself when there is. nil: it is not held, or not only for that.
	Waits *Waits

	// Findings are all objections, also those that only tell and those that
	// the phase softened. In order of the rules.
	Findings []Finding

	// Strip names header fields that must not leave with the message.
	Strip []string

	// Add are header fields that the message leaves with, put before all others.
	Add []Field
}

// Field is a header field. Value is ASCII without line ends.
type Field struct{ Name, Value string }
