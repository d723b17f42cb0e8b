// Package history remembers which listings there were, since when, and how each
// zone was: an SQLite database of its own.
//
// A listing is told of only when a second look, Options.Confirm later, has seen it
// too, and its end likewise:
//
//	suspected --seen again--> listed --not seen--> ending --not seen again--> ended
//	    |                        ^                    |
//	    +--not seen--> withdrawn +-------seen---------+
//
// The trap: only an answer of a healthy zone moves a listing. Unknown, Refused and
// all that a zone says that is not healthy leave it where it is, and Unasked says
// since when. So does a round that does not ask at all, for a key cannot be read or
// an address is not found: the listing goes on where it was once it is asked about
// again. After 30 days it is dropped (one that is suspected is withdrawn, after
// one), as is at once what Drop takes out, and what a list that is dead, emptied or
// parked for 14 days in a row once said: it is not known then whether it ended.
//
// A clock that is wrong for one round forgets, drops and dates back nothing: only a
// second round with that clock is believed (see taking.odd).
// Nothing here asks anybody; watch does.
package history

import (
	"time"

	"relayguard/rbl"
	"relayguard/rbl/sender"
)

// Phase is where a listing stands.
type Phase string

const (
	Suspected Phase = "suspected" // seen, not confirmed: nobody is told
	Standing  Phase = "listed"
	Ending    Phase = "ending"    // seen clean once, not confirmed
	Ended     Phase = "ended"     // a healthy zone said twice that it is gone
	Withdrawn Phase = "withdrawn" // was not confirmed
	Dropped   Phase = "dropped"   // no longer checked: it may go on
)

// Listing is one code of one zone for one subject. One that comes back is another.
type Listing struct {
	ID      int64       `json:"id"`
	Zone    string      `json:"zone"`
	Subject rbl.Subject `json:"subject"`
	Hit     rbl.Hit     `json:"hit"`
	Reasons []string    `json:"reasons,omitempty"`
	Phase   Phase       `json:"phase"`
	First   time.Time   `json:"first"` // seen
	// CleanBefore is when the list was last asked before First, and did not list the
	// subject: it began between the two. Zero: that is not known.
	CleanBefore time.Time `json:"clean_before,omitzero"`
	Confirmed   time.Time `json:"confirmed,omitzero"`
	Last        time.Time `json:"last"`             // seen
	Ended       time.Time `json:"ended,omitzero"`   // or withdrawn, or dropped: Phase says which
	Closed      time.Time `json:"closed,omitzero"`  // when that was stored, which is later: by this choose what ended in a time
	Resolver    string    `json:"resolver"`         // that saw it first
	Unasked     time.Time `json:"unasked,omitzero"` // since when there is no answer that can be believed, or nobody asks
	Due         time.Time `json:"due,omitzero"`     // when it is to be asked again (Suspected, Ending)
}

// EventKind is what an Event is about.
type EventKind string

const (
	Began    EventKind = "began"     // Listing, confirmed
	Over     EventKind = "over"      // Listing
	ZoneBad  EventKind = "zone_bad"  // Health: Wild or Parked, from a state that was not
	ZoneWell EventKind = "zone_well" // after ZoneBad
	FactBad  EventKind = "fact_bad"  // Fact: wrong, was not
	FactWell EventKind = "fact_well"
)

// Event is what somebody may have to be told: of every listing, whatever its
// severity and scope, for who tells chooses. What it is about is as it was then. It
// is stored until Told, so that a crash between the two tells twice rather than
// never.
type Event struct {
	ID      int64        `json:"id"`
	Kind    EventKind    `json:"kind"`
	At      time.Time    `json:"at"`
	Listing *Listing     `json:"listing,omitempty"`
	Health  *rbl.Health  `json:"health,omitempty"`
	Fact    *sender.Fact `json:"fact,omitempty"`
}
