// Package incident puts together what belongs together: all stops of one origin
// for one cause are one incident, with one alert when it opens, few while it
// lasts and one at its end.
//
// Book keeps the incidents and is told of stops on the mail path. Channels carry
// its alerts to the admin (Syslog, Command) on goroutines of their own. The
// package decides nothing about mail and stores nothing: Options.Save hands an
// incident to whoever keeps it.
//
// The trap: everything here is driven by whoever attacks. Memory, alerts and
// child processes are bounded whatever comes in, and no call on the mail path
// waits for any of them. An alert carries neither content nor addresses of third
// parties; what the network chose (a login) is escaped and cut in it.
package incident

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"relayguard/policy"
	"relayguard/policy/origin"
)

// Origins and causes that the book itself writes.
const (
	OriginServer  = "server"   // all origins of a cause that is the server's trouble, not a sender's
	OriginOthers  = "others"   // those beyond Options.MaxOpen
	CauseOverflow = "overflow" // why they have no incident of their own
)

// Stop is one message, or one refused recipient, that did not go on its way. Of
// an Origin or Cause that is not UTF-8 or longer than an address may be, the
// incident has a form that is.
type Stop struct {
	Origin     string         // the account: "login:taro@example.jp", or what is less than one: "site:shop.example.jp"; empty is "unknown"
	Account    string         // whose mail it is; empty: Origin
	Cause      string         // the rule, or what else stopped it: "suspended", "hold-cap"
	Verdict    policy.Verdict // those that do not stop mail are no stops and ignored
	Recipients int
	ID         string   // of the decision
	QueueID    string   // the MTA's, empty until it told one
	Noticed    string   // how it was noticed, if not by the verdict on mail
	Buckets    []string // values of those of the limit that is the cause, see StillOver
	Where      Where    // of mail from web sites
}

// StopOf is the stop that a decision is. What a limit per plugin, template or site
// stopped is of that: one site's trouble is not another's, whoever sends for both. So
// is a suspension, and that there is no more room to hold, where many send as the
// account; Shares, nil for never, tells that.
func StopOf(m *policy.Message, d *policy.Decision, shares func(*origin.Origin) bool) Stop {
	account := d.Origin.Name()
	s := Stop{Origin: account, Account: account, Where: whereOf(&d.Origin), Cause: d.Rule, Verdict: d.Verdict, Recipients: max(len(m.RcptTo)+m.RcptMore, 1), ID: d.ID, QueueID: m.QueueID}
	if !d.Verdict.Stops() {
		return s
	}
	s.Buckets = d.Buckets()
	s.Origin = originOf(account, s.Buckets)
	if ofSite := d.Rule == policy.RuleSuspended || d.Rule == policy.RuleHoldCap; ofSite && s.Where.Site != "" && shares != nil && shares(&d.Origin) {
		s.Origin = "site:" + s.Where.Site
	}
	return s
}

// StopsOf are the stops that a decision is: the one of the rule that decided, and
// those of the limits of abuse that were tripped beside it.
func StopsOf(m *policy.Message, d *policy.Decision, abuses []string, shares func(*origin.Origin) bool) []Stop {
	all := []Stop{StopOf(m, d, shares)}
	for _, f := range d.Findings {
		if f.Rule != d.Rule && f.Verdict.Stops() && slices.Contains(abuses, f.Rule) {
			beside := *d
			beside.Rule = f.Rule
			all = append(all, StopOf(m, &beside, shares))
		}
	}
	return all
}

// Incident is one origin's trouble for one cause. Times are UTC.
type Incident struct {
	ID         string    `json:"id"` // "i-" and 10 characters of Crockford's base 32; sorts by time
	Origin     string    `json:"origin"`
	Account    string    `json:"account,omitempty"`        // whose mail it is, the first of them; empty in those of an earlier version: Origin
	Others     []string  `json:"other_accounts,omitempty"` // further ones, at most 16
	Cause      string    `json:"cause"`
	Noticed    string    `json:"noticed"` // how
	Opened     time.Time `json:"opened"`
	Updated    time.Time `json:"updated"`          // the last stop
	Closed     time.Time `json:"closed,omitzero"`  // zero while it is open
	Alerted    time.Time `json:"alerted,omitzero"` // the last alert about it
	Stops      int64     `json:"stops"`
	Recipients int64     `json:"recipients"`
	Reopened   int       `json:"reopened,omitempty"` // how often it came back
	First      string    `json:"first"`              // decision id of the first stop
	Last       string    `json:"last"`               // and of the last one
	LastQueue  string    `json:"last_queue_id,omitempty"`
	Buckets    []string  `json:"buckets,omitempty"` // of the limit that is the cause; the newest 8
	Notes      []Note    `json:"notes,omitempty"`   // the time line, oldest first
	Details    *Details  `json:"details,omitempty"` // nil: nothing is known
}

// Bounds of the buckets of an incident: who writes to a thousand domains may fill
// as many.
const (
	maxBuckets = 8
	maxBucket  = 1000 // octets
)

// meet remembers a bucket, the newest last.
func (i *Incident) meet(bucket string) {
	n := len(i.Buckets)
	if n > 0 && i.Buckets[n-1] == bucket || len(bucket) > maxBucket || !utf8.ValidString(bucket) { // JSON would make another of it
		return
	}
	if at := slices.Index(i.Buckets, bucket); at >= 0 {
		bucket = i.Buckets[at]
		i.Buckets = slices.Delete(i.Buckets, at, at+1)
	} else if bucket = strings.Clone(bucket); n >= maxBuckets {
		i.Buckets = slices.Delete(i.Buckets, 0, 1)
	}
	i.Buckets = append(i.Buckets, bucket)
}

// Open reports whether it goes on.
func (i *Incident) Open() bool { return i.Closed.IsZero() }

// Note is one entry of a time line. Text is as it was given: escape it where it
// is shown.
type Note struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// maxNotes bounds a time line. The first keepNotes (how it began) stay; the
// oldest after them make room.
const (
	maxNotes  = 50
	keepNotes = 10
	maxNote   = 500 // octets
)

func (i *Incident) note(now time.Time, text string) {
	if len(i.Notes) >= maxNotes { // copies share the elements: none is changed
		i.Notes = slices.Concat(i.Notes[:keepNotes], i.Notes[keepNotes+1:])
	}
	i.Notes = append(i.Notes, Note{now.UTC(), bound(text, maxNote)})
}
