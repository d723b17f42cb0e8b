// Package report makes the daily report: one structure, and text, HTML and a
// letter of it, in English and Japanese.
//
// It asks nobody: Report holds facts, and who fills it (cmd/relayguard) has them
// from the journal, the blocklists' history and the ledger of forwarding rules.
//
// The trap: names in it were chosen by senders. Everything is escaped where it is
// shown, in each format by its own rules.
package report

import (
	"net/netip"
	"time"

	"relayguard/rbl"
)

// Languages are those there are.
var Languages = []string{"en", "ja"}

// Report is what is known of a day. Times carry the server's zone. What could not
// be known is in Missing, never a zero that looks like a count.
type Report struct {
	Host    string    `json:"host"`
	Version string    `json:"version"`
	Made    time.Time `json:"made"`
	Since   time.Time `json:"since"` // inclusive; the day before, or the hours until now
	Until   time.Time `json:"until"` // exclusive
	First   time.Time `json:"first"` // since when the guard counts; zero: not known. What is "usual" needs days before Since
	Phase   string    `json:"phase"`
	Stopped *Span     `json:"stopped,omitempty"` // the red switch is pulled now: Why, and since when; nil: it is not

	Changes []Change  `json:"changes"` // of the day, the most urgent first
	Steps   []Step    `json:"steps"`   // what to do, in order
	Missing []Missing `json:"missing"`

	Listings   []Listing   `json:"listings"` // that go on, worst first; unconfirmed ones too
	Ended      []Listing   `json:"ended"`    // that ended in the day
	Addresses  []Checked   `json:"addresses"`
	Zones      ZoneCounts  `json:"zones"`
	Neighbours *Neighbours `json:"neighbours,omitempty"` // nil: not looked at
	Sender     []Fact      `json:"sender"`               // PTR, HELO, SPF

	Mail      Mail        `json:"mail"`
	Senders   []Sender    `json:"senders"` // accounts and sites, by recipients
	Plugins   []Sender    `json:"plugins"`
	Held      Held        `json:"held"`
	Incidents []Incident  `json:"incidents"` // open, or of the day
	Suspended []Suspended `json:"suspended"`
	Forwards  Forwards    `json:"forwards"`
	Degraded  []Span      `json:"degraded"` // when something of the guard was not well
	Gaps      []Span      `json:"gaps"`     // in which nobody knows what went by forwarding rules
}

// Level is how much something matters.
type Level uint8

const (
	Good Level = iota // something is over
	Notice
	Look // somebody should look at it today
	Act  // now
)

// Change is a thing that was not so the day before. Kind is one of the Change
// constants; a renderer makes a sentence of it and the other fields.
type Change struct {
	Level Level     `json:"level"`
	Kind  string    `json:"kind"`
	What  string    `json:"what"`           // of whom or what: an address, an account, a rule
	By    string    `json:"by,omitempty"`   // zone, rule, admin
	Text  string    `json:"text,omitempty"` // further: a reason, a target
	Count int64     `json:"count,omitempty"`
	At    time.Time `json:"at"`
}

// Kinds of changes.
const (
	ChangeListed      = "listed"    // What on zone By, Text the code's meaning
	ChangeSuspected   = "suspected" // not yet confirmed
	ChangeUnlisted    = "unlisted"
	ChangeDropped     = "dropped"   // its list or address is no longer checked: it may go on
	ChangeZone        = "zone"      // zone What is now Text (a rbl.State's name)
	ChangeZoneWell    = "zone_well" // again
	ChangeSender      = "sender"    // fact of What (check By) is now wrong: Text
	ChangeSenderWell  = "sender_well"
	ChangeIncident    = "incident"   // opened: What origin, By cause
	ChangeClosed      = "closed"     // an incident
	ChangeSuspended   = "suspension" // What by admin By: Text
	ChangeResumed     = "resumed"
	ChangeForward     = "forward" // new rule: What owner, Text target, By mechanism
	ChangeForwardGone = "forward_gone"
	ChangeHeld        = "held"     // Count messages that were held in these 24 hours still wait
	ChangeDegraded    = "degraded" // What part, Text why
	ChangeVolume      = "volume"   // What account sent Count recipients, Text its usual number
	ChangeStopped     = "stopped"  // the red switch
	ChangeStarted     = "started"
)

// Step is what an admin can do. Kind is one of the Step constants; Command may be
// empty.
type Step struct {
	Kind    string `json:"kind"`
	What    string `json:"what"`
	By      string `json:"by,omitempty"`
	Text    string `json:"text,omitempty"`
	Command string `json:"command,omitempty"` // a command line and nothing else, its words quoted for a shell
	URL     string `json:"url,omitempty"`     // a link if it is https; one of http is shown as text
}

// Kinds of steps.
const (
	StepSuspend  = "suspend"  // What the suspect; Text why: its numbers
	StepProve    = "prove"    // see that it has stopped, before removal is asked for: What the suspect with By BySuspect, else what is listed
	StepRemoval  = "removal"  // address What from zone By at URL; Text one of rbl.Removal.How
	StepHeld     = "held"     // look at held mail of What
	StepForwards = "forwards" // review forwarding rules
	StepSender   = "sender"   // mend the fact What; Text what is wanted
	StepZone     = "zone"     // zone What cannot be believed, or is not asked: By a rbl.State's name, Text why, or what it takes
	StepResolver = "resolver" // a resolver of one's own
	StepDegraded = "degraded" // What part of the guard is not well; Text why
	StepIncident = "incident" // look at What
)

// BySuspect is Step.By of a StepProve whose What is a suspect.
const BySuspect = "suspect"

// Missing is what could not be known, and why.
type Missing struct {
	Section string `json:"section"` // one of the Section constants
	Why     string `json:"why"`
}

// Sections of which something can be missing. What one is about is shown as not
// known, whatever the other fields say.
const (
	SectionBlocklists  = "blocklists" // whether we are listed at all, or the check does not run: the verdict is "cannot tell"
	SectionAddresses   = "addresses"  // which addresses send: the verdict is not "all clean"
	SectionLists       = "lists"      // a remark about lists; the verdict stands
	SectionHistory     = "history"    // Checked.Days
	SectionNeighbours  = "neighbours"
	SectionSender      = "sender" // Report.Sender
	SectionMail        = "mail"   // Mail.Total, Senders, Plugins
	SectionDeliveries  = "deliveries"
	SectionUsual       = "usual"
	SectionCause       = "cause" // Listing.Suspects
	SectionHeld        = "held"
	SectionIncidents   = "incidents"
	SectionSuspensions = "suspensions"
	SectionForwards    = "forwards"
	SectionGuard       = "guard" // Degraded
	SectionGaps        = "gaps"
	SectionChanges     = "changes"
)

// Listing is a listing of one of our addresses or domains.
type Listing struct {
	Subject   string       `json:"subject"`
	Zone      string       `json:"zone"`
	Operator  string       `json:"operator,omitempty"`
	Means     string       `json:"means"` // the code's
	Code      string       `json:"code"`
	Severity  rbl.Severity `json:"severity"`
	Scope     rbl.Scope    `json:"scope"`
	Since     time.Time    `json:"since"`
	Ended     time.Time    `json:"ended,omitzero"`
	Confirmed bool         `json:"confirmed"`
	Reasons   []string     `json:"reasons"` // the list's own words
	Removal   rbl.Removal  `json:"removal"`
	Waits     string       `json:"waits,omitempty"`   // the meaning of another listing that has to end first
	Unasked   time.Time    `json:"unasked,omitzero"`  // since when the zone gives no answer: it may be over
	Dropped   bool         `json:"dropped,omitempty"` // its list or address is no longer checked: nobody knows whether it goes on
	Searched  bool         `json:"searched"`          // whether it was looked who stood out: without Suspects, nobody did
	Suspects  []Suspect    `json:"suspects,omitempty"`
}

// Suspect is who stood out in the hours before a listing began.
type Suspect struct {
	Kind       string    `json:"kind"` // "plugin", "site", "account", "template", "forward"
	Name       string    `json:"name"` // "share-by-mail@shop.example.jp"
	Recipients int64     `json:"recipients"`
	Usual      int64     `json:"usual"` // recipients in as many hours; -1: not known
	Bounced    int64     `json:"bounced"`
	FirstTime  int64     `json:"first_time"` // recipients that it never wrote to before
	Stopped    int64     `json:"stopped"`    // recipients held or refused
	Released   int64     `json:"released"`   // held messages that were let go
	Share      float64   `json:"share"`      // of all recipients of those hours, 0 to 1
	Command    string    `json:"command,omitempty"`
	Tightened  string    `json:"tightened,omitempty"` // "would": observed; "done"
	From, To   time.Time `json:"-"`
}

// Checked is an address or domain that is checked, and how many zones said what in
// the last round. A zone is in one of the counts: in the first that fits of Listed,
// Wide and Info.
type Checked struct {
	Subject string    `json:"subject"`
	How     string    `json:"how"`    // how it is known: a setting, "rbl.addresses", "Received"
	Listed  int       `json:"listed"` // what lists it stands in Listings
	Wide    int       `json:"wide"`   // name a range or network that it is in
	Info    int       `json:"info"`   // only inform, as welcome lists do
	Clean   int       `json:"clean"`
	Unknown int       `json:"unknown"`
	Refused int       `json:"refused"`
	At      time.Time `json:"at"`             // of the last round; zero: none yet
	Days    Days      `json:"days,omitempty"` // oldest first, at most 365
}

// ZoneCounts is how the lists are.
type ZoneCounts struct {
	Asked    int           `json:"asked"`
	Healthy  int           `json:"healthy"`
	Trouble  []ZoneTrouble `json:"trouble"` // not those that the admin switched off
	Queries  int64         `json:"queries"` // in the day
	Resolver string        `json:"resolver"`
	Warning  string        `json:"warning,omitempty"` // about the resolver
}

// ZoneTrouble is a list that cannot be believed, or is not asked.
type ZoneTrouble struct {
	Zone     string       `json:"zone"`
	State    rbl.State    `json:"state"`
	Why      string       `json:"why"`
	Since    time.Time    `json:"since"`
	Severity rbl.Severity `json:"severity"`
}

// Neighbours are how the addresses around ours stand, on lists of ranges.
type Neighbours struct {
	At     time.Time   `json:"at"`
	Ranges []Neighbour `json:"ranges"`
}

// Neighbour is one prefix on one zone.
type Neighbour struct {
	Prefix  netip.Prefix `json:"prefix"`
	Zone    string       `json:"zone"`
	Asked   int          `json:"asked"`
	Listed  int          `json:"listed"`
	Unknown int          `json:"unknown"`
	Before  int          `json:"before"` // listed the time before; -1: there was none
}

// Fact is something that receivers look at.
type Fact struct {
	Subject string    `json:"subject"`
	Check   string    `json:"check"` // "ptr", "forward", "helo", "spf"
	State   string    `json:"state"` // "ok", "wrong", "unknown"
	Found   string    `json:"found"`
	Wanted  string    `json:"wanted,omitempty"`
	Since   time.Time `json:"since"`
}

// Mail is the volume by verdict.
type Mail struct {
	Total    Verdicts  `json:"total"`
	Usual    *Verdicts `json:"usual,omitempty"` // a day's mean over the four weeks before; nil: fewer than 3 days are known
	Days     []DayMail `json:"days"`            // oldest first, at most 365, the report's day last
	Sent     int64     `json:"sent"`            // deliveries, and so the next two
	Bounced  int64     `json:"bounced"`
	Deferred int64     `json:"deferred"`
	Unseen   int64     `json:"unseen,omitempty"` // rows that were dropped under load
}

// Verdicts counts recipients. Told counts as accepted.
type Verdicts struct {
	Accepted int64 `json:"accepted"`
	Told     int64 `json:"told"` // of Accepted
	Held     int64 `json:"held"`
	Deferred int64 `json:"deferred"`
	Rejected int64 `json:"rejected"`
}

// DayMail is one day.
type DayMail struct {
	Day time.Time `json:"day"` // its midnight in the server's zone
	Verdicts
}

// Sender is who sent how much.
type Sender struct {
	Kind       string `json:"kind"` // "account", "site", "plugin"
	Name       string `json:"name"`
	Messages   int64  `json:"messages"`
	Recipients int64  `json:"recipients"`
	Usual      int64  `json:"usual"` // recipients a day; -1: not known
	Stopped    int64  `json:"stopped"`
	Bounced    int64  `json:"bounced"` // -1: not known
}

// Held is what waits.
type Held struct {
	Messages int64     `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Oldest   time.Time `json:"oldest,omitzero"`
	Foreign  int64     `json:"foreign"`  // held by others
	Released int64     `json:"released"` // in the day
	Deleted  int64     `json:"deleted"`
	By       []HeldBy  `json:"by"` // most first
}

// HeldBy is what waits of one account under one rule.
type HeldBy struct {
	Account  string    `json:"account"`
	Rule     string    `json:"rule"`
	Messages int64     `json:"messages"`
	Oldest   time.Time `json:"oldest"`
}

// Incident is one incident.
type Incident struct {
	ID         string    `json:"id"`
	Origin     string    `json:"origin"`
	Cause      string    `json:"cause"`
	Opened     time.Time `json:"opened"`
	Closed     time.Time `json:"closed,omitzero"`
	Stops      int64     `json:"stops"`
	Recipients int64     `json:"recipients"`
}

// Suspended is a suspension in force.
type Suspended struct {
	Name   string    `json:"name"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
}

// Forwards are the forwarding rules that point outside.
type Forwards struct {
	Watched    bool      `json:"watched"`
	Known      int       `json:"known"`
	Due        int       `json:"due"`        // alerted and not approved
	Unreviewed int       `json:"unreviewed"` // there at the first scan, never reviewed
	New        []Forward `json:"new"`        // of the day, not reviewed; at most 20, due ones first
	More       int       `json:"more"`       // beyond those
}

// Forward is one rule.
type Forward struct {
	ID        string    `json:"id"` // short
	Owner     string    `json:"owner"`
	Target    string    `json:"target"`
	Mechanism string    `json:"mechanism"`
	Due       bool      `json:"due"`
	Since     time.Time `json:"since"`
}

// Span is when something was so. Until zero: it still is.
type Span struct {
	What  string    `json:"what"`
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
}
