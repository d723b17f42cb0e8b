// Package replay runs recorded traffic through the policy on a clock of its own
// and says what would have happened: who would have been stopped, when, by which
// rule, and whose honest mail with them.
//
// A trace is JSON Lines in the order of time. The policy is the one that judges
// live mail; nothing here decides about a message. What a live guard does beside
// the policy is done here, too, by the same rules: mail that waits for budget is
// let go as it comes back, bounces are charged, incidents open and end, the phase
// changes from learning to enforce. There is no admin but for what the trace says
// one did. The same trace gives the same score, always.
//
// It knows only what the trace tells: not what an alias stands for, and not that
// who was deferred came again.
//
// Trap: a label says what a message was, for the score alone. Nothing that
// decides gets to see it.
package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// The kinds of events in a trace. Of others, which later versions may write, only
// the number is told.
const (
	KindMessage     = "message"
	KindDelivery    = "delivery"
	KindLoginFailed = "login_failed"
	KindComplaint   = "complaint"
	KindRelease     = "release"
	KindSuspend     = "suspend"
	KindResume      = "resume"
)

// Event is one line of a trace. Which fields there are depends on its kind.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  string    `json:"event"`
	ID    string    `json:"id,omitempty"`    // of a message; deliveries and complaints name it
	Label string    `json:"label,omitempty"` // of a message, for the score: "legit", "abuse:share"

	ClientIP    string            `json:"client_ip,omitempty"`
	WebClientIP string            `json:"web_client_ip,omitempty"`
	Login       string            `json:"login,omitempty"`      // authenticated, over SMTP
	LocalUser   string            `json:"local_user,omitempty"` // submitted by sendmail(1)
	UID         *int              `json:"uid,omitempty"`
	Site        string            `json:"site,omitempty"`   // proven
	Plugin      *string           `json:"plugin,omitempty"` // proven; empty is WordPress itself
	Script      string            `json:"script,omitempty"`
	MailFrom    string            `json:"mail_from,omitempty"`
	HeaderFrom  string            `json:"header_from,omitempty"`
	RcptTo      Values            `json:"rcpt_to,omitempty"` // of a delivery: one
	Subject     string            `json:"subject,omitempty"`
	Size        int64             `json:"size,omitempty"` // octets
	MessageID   string            `json:"message_id,omitempty"`
	Body        string            `json:"body,omitempty"`
	Headers     map[string]Values `json:"headers,omitempty"`

	// What is told in place of subject and body: any text or number that is the
	// same in all copies of one form, and one for each line.
	Skeleton   json.RawMessage `json:"skeleton,omitempty"`
	LineHashes json.RawMessage `json:"line_hashes,omitempty"`

	Status string `json:"status,omitempty"` // of a delivery: sent, deferred, bounced, expired
	DSN    string `json:"dsn,omitempty"`

	Origin string `json:"origin,omitempty"` // of release, suspend, resume: "login:taro@example.jp"
}

// Values are one string or a list of them.
type Values []string

// UnmarshalJSON takes a string, a list of strings, or null for none.
func (v *Values) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*v = make(Values, 1)
		return json.Unmarshal(data, &(*v)[0])
	}
	return json.Unmarshal(data, (*[]string)(v))
}

// FormatError is a line that is none, or that there should not be.
type FormatError struct {
	Line int // from 1
	Err  error
}

func (e *FormatError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap gives the cause.
func (e *FormatError) Unwrap() error { return e.Err }

// originForm is how a trace names whom an order is about.
const originForm = "login:NAME, local_user:NAME, network:NAME, site:NAME or plugin:NAME"

// Bounds of a trace: a line holds one message, whose body is optional.
const (
	maxLine       = 16 << 20
	maxRecipients = 100_000
)

// Reader reads a trace. It is for one goroutine.
type Reader struct {
	lines *bufio.Scanner
	line  int
	last  time.Time
}

// NewReader reads a trace from r.
func NewReader(r io.Reader) *Reader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	return &Reader{lines: lines}
}

// Line is the number of the line that Next read last, from 1.
func (r *Reader) Line() int { return r.line }

// Next returns the next event, or io.EOF. Unknown fields are ignored, empty lines
// skipped; events of unknown kinds are returned. A line that is malformed is a
// FormatError.
func (r *Reader) Next() (Event, error) {
	for r.lines.Scan() {
		r.line++
		text := bytes.TrimSpace(r.lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var e Event
		err := unmarshal(text, &e)
		if err == nil {
			err = e.check()
		}
		if err == nil && e.Time.Before(r.last) {
			err = fmt.Errorf("time %s is before that of the line before it, %s; sort the trace by time", e.Time.Format(time.RFC3339Nano), r.last.Format(time.RFC3339Nano))
		}
		if err != nil {
			return Event{}, &FormatError{r.line, err}
		}
		r.last = e.Time
		return e, nil
	}
	switch err := r.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return Event{}, &FormatError{r.line + 1, fmt.Errorf("longer than %d octets", maxLine)}
	case err != nil:
		return Event{}, fmt.Errorf("line %d: %w", r.line+1, err)
	}
	return Event{}, io.EOF
}

// unmarshal is json.Unmarshal, whose errors name types of Go.
func unmarshal(text []byte, e *Event) error {
	err := json.Unmarshal(text, e)
	var wrong *json.UnmarshalTypeError
	switch {
	case !errors.As(err, &wrong):
		return err
	case wrong.Field == "":
		return fmt.Errorf("found a JSON %s, want an object, of one event", wrong.Value)
	}
	return fmt.Errorf("%s: found a JSON %s, which is not what it holds", wrong.Field, wrong.Value)
}

// check says what an event lacks.
func (e *Event) check() error {
	switch {
	case e.Time.IsZero():
		return errors.New(`time: found none, want RFC 3339: "2026-03-02T08:59:03Z"`)
	case e.Time.Year() < 1970 || e.Time.Year() > 2200:
		return fmt.Errorf("time: found %s, want a year from 1970 to 2200", e.Time.Format(time.RFC3339))
	case e.Kind == "":
		return errors.New("event: found none, want message, delivery, login_failed, complaint, release, suspend or resume")
	}
	switch e.Kind {
	case KindMessage:
		return e.checkMessage()
	case KindDelivery:
		if e.ID == "" || e.Status == "" {
			return errors.New("delivery: want id and status")
		}
	case KindComplaint:
		if e.ID == "" && e.Login == "" {
			return errors.New("complaint: want the id of a message, or a login")
		}
	case KindRelease, KindSuspend, KindResume:
		if e.Origin == "" {
			return fmt.Errorf("%s: found origin %q, want %s", e.Kind, e.Origin, originForm)
		}
	}
	return nil
}

func (e *Event) checkMessage() error {
	switch {
	case len(e.RcptTo) == 0:
		return errors.New("rcpt_to: found none, want the recipients")
	case slices.Contains(e.RcptTo, ""):
		return errors.New("rcpt_to: found an empty address")
	case len(e.RcptTo) > maxRecipients:
		return fmt.Errorf("rcpt_to: found %d, want at most %d", len(e.RcptTo), maxRecipients)
	case e.Login != "" && e.LocalUser != "":
		return errors.New("login and local_user: found both, want one: a message is authenticated over SMTP or submitted by sendmail(1)")
	case e.Size < 0:
		return fmt.Errorf("size: found %d, want octets", e.Size)
	case e.UID != nil && (*e.UID < 0 || *e.UID >= 1<<32-1):
		return fmt.Errorf("uid: found %d, want that of a Unix account", *e.UID)
	}
	if e.ClientIP != "" {
		if _, err := netip.ParseAddr(e.ClientIP); err != nil {
			return fmt.Errorf("client_ip: found %q, want an IP address", e.ClientIP)
		}
	}
	return e.checkText()
}
