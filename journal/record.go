package journal

import (
	"encoding/json"
	"time"

	"relayguard/policy"
)

// Record is one thing that the journal keeps: Decision, Repeat, Held,
// HoldChange, AdminAction, Incident, Delivery, Value or Trouble.
type Record interface {
	// class says how dear the record is when there is not room for all.
	class() class
	// encode writes the members of the record's JSON object.
	encode(*line)
}

// The stages at which the guard answers.
const (
	StageRecipient = "rcpt"
	StageMessage   = "message"
	StageCall      = "call" // before the MTA had it
)

// A Decision is one answer of the guard: to a recipient or to a message.
//
// It has no room for recipients' addresses, subjects and bodies: only the
// domains that a message goes to are kept.
type Decision struct {
	ID        string
	Time      time.Time
	Stage     string // "rcpt", "message" or "call"
	Verdict   policy.Verdict
	Rule      string // that decided; empty for a plain accept
	Reason    string
	Reply     string // what the client was told, empty if nothing in particular
	Phase     policy.Phase
	Listener  string
	Role      policy.Role
	Account   string // "login:taro@example.jp", "unknown"
	Login     string
	LoginBy   string
	LocalUser string
	Network   string
	ClientIP  string
	// ClientName is the client's reverse name, Helo the name that it gave itself.
	ClientName string
	Helo       string
	Confidence string // of the account
	UID        int    // of the Unix account, -1 if unknown
	MailFrom   string
	HeaderFrom string
	MessageID  string
	QueueID    string
	Size       int64 // octets

	// What is known of the web site and the program that the message is from; all of
	// it may be empty. SiteBy and PluginBy are how surely: names of
	// origin.Confidence. Totals by site and plugin have proven sites only, and
	// plugins that are proven or recognised by their form.
	Site      string
	SiteBy    string
	Plugin    string // of the site; origin.OwnSoftware for the site's own
	PluginBy  string
	Node      string // web node that sent it
	Template  string // what the text looks like
	Entry     string // how the site was called: "ajax", "cron", "page"
	Script    string // file:line
	WebClient string // address of the client of the web request
	Pool      string // of php-fpm
	Software  string // what its form looks like

	Recipients int
	Domains    map[string]int // recipients by domain; "" counts the domains beyond the first MaxDomains
	Findings   []policy.Finding
	Counters   []policy.Counter

	// Repeats counts further refusals that were answered with this id, beside
	// the first; LastRepeat is when the newest of them was. Repeat records add
	// to both.
	Repeats    int64
	LastRepeat time.Time

	// Waits is what a message that a limit held waits for, as who releases it paced
	// needs it: JSON, into which the journal does not look. It is kept with the
	// hold that the decision opens, and comes back as Hold.Waits only. What is no
	// JSON, or longer than MaxWaits, is left out: such a hold is one for an admin.
	Waits json.RawMessage

	// Late: the MTA had been answered otherwise (milter.on_timeout) before it was
	// made. A late hold holds nothing.
	Late bool
}

// Repeat says that the decision ID answered N more refusals.
type Repeat struct {
	ID   string
	N    int64
	Last time.Time
}

// Held is a hold that no decision opened: mail that was queued already when its
// sender was suspended, or an entry rebuilt from what the queue shows. If the
// same hold is open already its entry is brought up to date.
type Held struct {
	QueueID    string
	DecisionID string // empty if there is none
	Account    string
	Rule       string
	Reason     string
	MailFrom   string
	Arrival    time.Time // in the queue
	HeldAt     time.Time
	Size       int64
	Recipients int
	Domains    map[string]int
	Site       string // these as far as DecisionID does not tell them
	Plugin     string
	Template   string
}

// State is where a hold stands.
type State string

// A hold is open from held to deleting, closed in the others.
const (
	StateHeld      State = "held"
	StateReleasing State = "releasing" // asked of the MTA, outcome not yet known
	StateDeleting  State = "deleting"
	StateReleased  State = "released"
	StateDeleted   State = "deleted"
	StateGone      State = "gone" // no longer in the queue, without our doing
)

// Open reports whether the message is, for all we know, still in the queue.
func (s State) Open() bool { return s == StateHeld || s == StateReleasing || s == StateDeleting }

// HoldChange moves a hold to another state. Queue ids are used again, so the
// hold is named by both ids; of several the newest changes.
type HoldChange struct {
	QueueID    string
	DecisionID string
	Time       time.Time
	State      State
	By         string
	Reason     string
	NewQueueID string    // after a requeue
	Arrival    time.Time // as the queue tells it; zero: unchanged
	ChargeID   string    // of the step that paid for the release; empty: unchanged
}

// AdminAction is what an admin did.
type AdminAction struct {
	Time     time.Time
	By       string // name
	UID      int    // by the peer credentials
	LoginUID int    // by the audit system, -1 if unknown
	Verb     string
	Target   string
	Reason   string
	Outcome  string
}

// Incident is what belongs together. The whole of it replaces what was there.
type Incident struct {
	ID         string
	Origin     string
	Account    string // whose mail it is, where Origin is less than an account
	Cause      string
	Noticed    string // how
	Opened     time.Time
	Updated    time.Time
	Closed     time.Time // zero: open
	Stops      int64
	Recipients int64

	// State is all there is to know of it, for who opens it again. The journal
	// does not look into it; it must be JSON.
	State json.RawMessage

	// Addresses is what of it is addresses, and kept no longer than these are. JSON,
	// or nothing.
	Addresses json.RawMessage
}

// Delivery adds N to what is known of the fate of a message: of the newest
// decision with that queue id that is no younger than Time.
type Delivery struct {
	QueueID string
	Time    time.Time
	Status  string // "sent", "deferred", "bounced" or "expired"; others are not counted
	N       int
}

// Value is something that a room wants to find again after a restart.
type Value struct {
	Name  string
	Value string
}

// purge forgets an account. It is a record so that a database that is filled
// again from the log forgets it, too.
type purge struct {
	Account string
	Time    time.Time
}

// class says how dear a record is.
type class uint8

const (
	dear     class = iota // stops, holds, admin actions: never dropped but for want of memory
	ordinary              // repeats, deliveries, values, incidents
	accepted              // rows about accepted mail
	classes
)

func (d Decision) class() class {
	if d.Verdict.Stops() {
		return dear
	}
	return accepted
}
func (Repeat) class() class      { return ordinary }
func (Held) class() class        { return dear }
func (HoldChange) class() class  { return dear }
func (AdminAction) class() class { return dear }
func (Incident) class() class    { return ordinary }
func (Delivery) class() class    { return ordinary }
func (Value) class() class       { return ordinary }
func (purge) class() class       { return dear }
