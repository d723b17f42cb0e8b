package incident

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
)

// Event is what an alert is about.
type Event string

const (
	Opened  Event = "opened"
	Updated Event = "updated" // it grew much, or came back
	Closed  Event = "closed"
	More    Event = "more"    // alerts that were kept back; of no one incident
	Notice  Event = "notice"  // something to know that is no incident
	Warning Event = "warning" // something to act on that is no incident of mail
	Alive   Event = "alive"   // the guard runs: Detail says how it stands
)

// Alert is what the admin is told. Text is one line, escaped and at most 700
// octets.
type Alert struct {
	Incident Incident // without its notes; zero if the event is of none
	Event    Event
	Topic    string // of a Notice or Warning: of two that wait the later is told
	Text     string
	Time     time.Time
	Detail   any // for programs, as JSON; nil: none

	// Done, unless nil, is called once: with true as soon as one channel has delivered
	// the alert, or one that took its place; with false once all have given it up, and
	// none will. It must not wait, and may be called before Send returns.
	Done func(delivered bool)
}

// maxText bounds Alert.Text: syslog daemons cut a line at 1,024 (RFC 3164 §4.1).
const maxText = 700

// newAlert makes an alert about i as it is now.
func newAlert(i Incident, e Event, now time.Time) Alert {
	i.Notes, i.Buckets = nil, nil // an admin's words, and limits by recipients' domains, may name third parties
	if i.Details = i.Details.copy(); i.Details != nil {
		i.Details.WebClients = nil // so are these
	}
	return Alert{Incident: i, Event: e, Text: line(&i, e), Time: now.UTC()}
}

// NewNotice makes an alert about what is no incident. The text may name accounts,
// no third parties.
func NewNotice(now time.Time, topic, text string) Alert {
	return Alert{Event: Notice, Topic: escape(topic, maxName), Text: escape(text, maxText), Time: now.UTC()}
}

// NewWarning makes an alert about what somebody must look at, and what is no
// incident of mail. The text may name accounts and configuration, no third parties.
func NewWarning(now time.Time, topic, text string, detail any) Alert {
	a := NewNotice(now, topic, text)
	a.Event, a.Detail = Warning, detail
	return a
}

// NewAlive makes the alert that says that the guard runs.
func NewAlive(now time.Time, text string, detail any) Alert {
	a := NewNotice(now, "alive", text)
	a.Event, a.Detail = Alive, detail
	return a
}

// free reports whether such alerts are of no incident and have a topic.
func (e Event) free() bool { return e == Notice || e == Warning || e == Alive }

// sameAs reports whether two alerts are about the same, so that one of them is
// enough.
func (a *Alert) sameAs(b *Alert) bool {
	switch {
	case a.Event == More || b.Event == More:
		return false
	case a.Event.free() || b.Event.free():
		return a.Event == b.Event && a.Topic == b.Topic
	}
	return a.Incident.ID == b.Incident.ID
}

func line(i *Incident, e Event) string {
	s := fmt.Sprintf("incident %s %s", i.ID, e)
	if e == Updated && i.Reopened > 0 {
		s += fmt.Sprintf(" (back %s)", times(i.Reopened))
	}
	const form = "2006-01-02 15:04Z"
	s += fmt.Sprintf(": %s, %s: %d stops, %d recipients since %s",
		escape(i.Origin, maxName), escape(i.Cause, 100), i.Stops, i.Recipients, i.Opened.UTC().Format(form))
	if d := i.Details; d != nil {
		s += fmt.Sprintf(", last %s", i.Updated.UTC().Format(form))
		for _, part := range [...]struct{ label, value string }{{"site", d.Site}, {"plugin", d.plugin()}, {"entry", first(d.Entries)}, {"file", first(d.Scripts)}} {
			if part.value != "" {
				s += "; " + part.label + " " + escape(part.value, maxPart)
			}
		}
	}
	command := ""
	if id := i.Last; id != "" {
		command = "; relayguard explain " + escape(id, maxID)
	}
	return bound(s, maxText-len(command)) + command
}

// maxPart bounds one value of the details in a text.
const maxPart = 100

// plugin is the one whose trouble it is, or else the most frequent.
func (d *Details) plugin() string { return cmp.Or(d.Plugin, first(d.Plugins)) }

// first is the most frequent value.
func first(all []Count) (value string) {
	most := int64(0)
	for _, c := range all {
		if c.Count > most {
			value, most = c.Value, c.Count
		}
	}
	return value
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// MarshalJSON is the form that commands read. Origin and cause are escaped as in
// Text: who reads this may print it.
func (a Alert) MarshalJSON() ([]byte, error) {
	i := a.Incident
	var d Details
	if i.Details != nil {
		d = *i.Details
	}
	return json.Marshal(struct {
		Event      Event     `json:"event"`
		Time       time.Time `json:"time"`
		Text       string    `json:"text"`
		Topic      string    `json:"topic,omitempty"`
		ID         string    `json:"id,omitempty"`
		Origin     string    `json:"origin,omitempty"`
		Account    string    `json:"account,omitempty"`
		Site       string    `json:"site,omitempty"`
		Plugin     string    `json:"plugin,omitempty"`
		Entry      string    `json:"entry,omitempty"`
		Script     string    `json:"script,omitempty"`
		Cause      string    `json:"cause,omitempty"`
		Noticed    string    `json:"noticed,omitempty"`
		Opened     time.Time `json:"opened,omitzero"`
		Updated    time.Time `json:"updated,omitzero"`
		Closed     time.Time `json:"closed,omitzero"`
		Stops      int64     `json:"stops,omitempty"`
		Recipients int64     `json:"recipients,omitempty"`
		Reopened   int       `json:"reopened,omitempty"`
		First      string    `json:"first,omitempty"`
		Last       string    `json:"last,omitempty"`
		Detail     any       `json:"detail,omitempty"`
	}{a.Event, a.Time, a.Text, a.Topic, i.ID, escape(i.Origin, maxName), escape(i.Account, maxName),
		escape(d.Site, maxName), escape(d.plugin(), maxName), escape(first(d.Entries), maxName), escape(first(d.Scripts), maxName), escape(i.Cause, maxName), escape(i.Noticed, maxNote),
		i.Opened, i.Updated, i.Closed, i.Stops, i.Recipients, i.Reopened, escape(i.First, maxID), escape(i.Last, maxID), a.Detail})
}
