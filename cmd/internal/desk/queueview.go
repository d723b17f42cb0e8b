package desk

import (
	"time"
)

// QueueFilter chooses among all mail in the MTA's queues. What is set must all
// hold; nothing set chooses all.
type QueueFilter struct {
	IDs       []string      `json:"ids,omitempty"`      // queue ids or decision ids
	Instance  string        `json:"instance,omitempty"` // of several
	Queue     string        `json:"queue,omitempty"`    // "hold", "deferred", "active", "incoming", "maildrop"
	Account   string        `json:"account,omitempty"`  // as Filter.Account
	Login     string        `json:"login,omitempty"`
	LocalUser string        `json:"local_user,omitempty"`
	Site      string        `json:"site,omitempty"`
	Plugin    string        `json:"plugin,omitempty"`
	Template  string        `json:"template,omitempty"`
	Rule      string        `json:"rule,omitempty"`
	MailFrom  string        `json:"mail_from,omitempty"` // "<>" is the null sender
	Domain    string        `json:"domain,omitempty"`    // a recipient is there
	Error     string        `json:"error,omitempty"`     // part of why it is stuck, letter case aside
	HeldBy    string        `json:"held_by,omitempty"`   // "relayguard", "admin" or "other"
	OlderThan time.Duration `json:"older_than,omitempty"`
	NewerThan time.Duration `json:"newer_than,omitempty"`
	MinSize   int64         `json:"min_size,omitempty"` // octets
	MaxSize   int64         `json:"max_size,omitempty"` // octets; 0: any
	Before    time.Time     `json:"before,omitzero"`    // in the queue since before; an act that was agreed to names when it was shown
	All       bool          `json:"all,omitempty"`      // an act needs it where nothing else chooses; a queue or an instance alone does not
	Limit     int           `json:"limit,omitempty"`    // at most so many, in the order of the queue
}

// Queued is a message in the MTA's queue, with what the journal knows of it. It
// names nobody whom it goes to but by domain.
type Queued struct {
	Instance   string         `json:"instance,omitempty"`
	Queue      string         `json:"queue"`
	QueueID    string         `json:"queue_id"`
	Arrival    time.Time      `json:"arrival"`
	Size       int64          `json:"size"` // octets
	MailFrom   string         `json:"mail_from"`
	Recipients int            `json:"recipients"`        // not yet delivered; -1: too many to count
	Domains    map[string]int `json:"domains"`           // of them
	Error      string         `json:"error,omitempty"`   // why it is stuck, without addresses
	HeldBy     string         `json:"held_by,omitempty"` // of the hold queue: "relayguard", "admin", "other"

	// Of the journal; empty where the guard knows nothing of it.
	ID       string `json:"id,omitempty"` // of the decision
	Account  string `json:"account,omitempty"`
	Site     string `json:"site,omitempty"`
	Plugin   string `json:"plugin,omitempty"`
	Template string `json:"template,omitempty"`
	Verdict  string `json:"verdict,omitempty"`
	Rule     string `json:"rule,omitempty"`
}

// QueueLook asks about messages in the queue.
type QueueLook struct {
	IDs      []string `json:"ids"`                // queue ids or decision ids
	Instance string   `json:"instance,omitempty"` // of several
}

// QueueShown is a message that is shown alone.
type QueueShown struct {
	Queued
	Decision *Decision `json:"decision,omitempty"`
	Held     []Held    `json:"held,omitempty"` // what the journal says of its holds, newest first
}

// QueueEnd ends a listing of the queue.
type QueueEnd struct {
	Messages  int    `json:"messages"` // that were chosen
	Bytes     int64  `json:"bytes"`
	Seen      int    `json:"seen"`                 // in the queue in all
	Skipped   int    `json:"skipped,omitempty"`    // entries that the MTA's tools could not read
	Problem   string `json:"problem,omitempty"`    // of Skipped, the first
	NoJournal string `json:"no_journal,omitempty"` // why it is not known whose mail it is
	More      bool   `json:"more,omitempty"`       // Limit ended it: Seen is not all, and more may be like that
}

// QueueLine is one line of a stream: one field is set.
type QueueLine struct {
	Message *Queued   `json:"message,omitempty"`
	End     *QueueEnd `json:"end,omitempty"` // the last line
}

// Share is a part of the queue.
type Share struct {
	Name     string         `json:"name"` // an account, a domain, an error; "" of the rest: see Others
	Messages int            `json:"messages"`
	Bytes    int64          `json:"bytes"`
	Oldest   time.Time      `json:"oldest"`
	Ages     []int          `json:"ages"`             // messages by age, as QueueSummary.Bounds
	Queues   map[string]int `json:"queues"`           // messages by queue
	Others   int            `json:"others,omitempty"` // how many names were added up in this line
	Errors   []string       `json:"errors,omitempty"` // of a destination or origin: its most frequent errors, at most 2
}

// QueueSummary answers what is stuck, whose it is, where it goes and why.
type QueueSummary struct {
	QueueEnd
	Looked       time.Time       `json:"looked"`
	Bounds       []time.Duration `json:"bounds"`       // of ages: up to each, and beyond the last
	Queues       []Share         `json:"queues"`       // hold, deferred, active, incoming, maildrop
	Origins      []Share         `json:"origins"`      // the largest first: plugin@site, site, account, "unknown"
	Destinations []Share         `json:"destinations"` // by recipient domain; a message counts once for each of its domains
	Errors       []Share         `json:"errors"`       // by cause, without what differs from message to message
	Senders      []Share         `json:"senders"`      // by envelope sender
}

// QueueOrder asks for something to be done to queued mail.
type QueueOrder struct {
	Verb    string      `json:"verb"` // "hold", "release", "delete", "requeue"
	Filter  QueueFilter `json:"filter"`
	Foreign bool        `json:"foreign"` // also what others put on hold
	NoCopy  bool        `json:"no_copy"` // delete for good
	DryRun  bool        `json:"dry_run"`
	Tell    bool        `json:"tell"` // of every message; else only of those that did not go as usual, or have another id now
	Reason  string      `json:"reason"`
	Ticket  string      `json:"ticket,omitempty"` // chosen by who asks: a Cut with it ends the act after the batch in hand
}

// Cut asks for an act to end after the batch in hand. Who hangs up asks for it, too.
type Cut struct {
	Ticket string `json:"ticket"`
}

// HeldLine is one line of a stream of held mail: one field is set.
type HeldLine struct {
	Message *Held    `json:"message,omitempty"`
	End     *HeldEnd `json:"end,omitempty"` // the last line
}

// HeldEnd ends a listing of held mail.
type HeldEnd struct {
	Messages int       `json:"messages"`       // in the list: held by the guard or an admin, and chosen
	Bytes    int64     `json:"bytes"`          // of them
	More     bool      `json:"more,omitempty"` // the limit ended the list: there are more
	Foreign  int       `json:"foreign"`        // held by others; at most 1,000 of them were listed, and only if nothing chooses
	Looked   time.Time `json:"looked"`         // when the queue was last looked at; zero: it was not
	Stale    string    `json:"stale,omitempty"`
	Older    bool      `json:"older,omitempty"` // a look takes long, so there was none for this
}

// HeldOrder asks for held mail to be released or deleted, step by step.
type HeldOrder struct {
	Verb   string `json:"verb"` // "release", "delete"
	Filter Filter `json:"filter"`
	NoCopy bool   `json:"no_copy"` // delete for good
	DryRun bool   `json:"dry_run"`
	Tell   bool   `json:"tell"` // as QueueOrder.Tell
	Reason string `json:"reason"`
	Ticket string `json:"ticket,omitempty"` // as QueueOrder.Ticket
}

// Step is one line of what a bulk act says while it goes on. Counts are sums so
// far. It ends with a line that has End, or Cut: the batch in hand was ended then,
// what is left was not touched, and the same order again goes on with it.
type Step struct {
	Seen      int            `json:"seen,omitempty"`       // while it is chosen: in the queue so far
	Total     int            `json:"total,omitempty"`      // messages chosen, once that is known
	Bytes     int64          `json:"bytes,omitempty"`      // of them
	Done      int            `json:"done,omitempty"`       // so far, whatever came of them
	DoneBytes int64          `json:"done_bytes,omitempty"` // of those with outcome done, so far
	Counts    map[string]int `json:"counts,omitempty"`     // so far, by outcome: would, done, gone, changed, failed, foreign
	Messages  []Done         `json:"messages,omitempty"`   // of this step, as QueueOrder.Tell says
	Unknown   []string       `json:"unknown,omitempty"`    // ids that chose nothing
	End       bool           `json:"end,omitempty"`        // all were done
	Cut       string         `json:"cut,omitempty"`        // why it ended before that
}
