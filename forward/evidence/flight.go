package evidence

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayguard/policy/address"
)

// Bounds of what is remembered of one message. What is beyond them is in the log
// and, as far as it needs no joining, still becomes a row.
const (
	maxRcpts    = 100 // deliveries
	maxOrigs    = 8   // addresses that it stands for
	maxAdded    = 20  // targets of redirect: and bcc: lines
	maxEnvelope = 100 // recipients that a milter saw
	maxText     = 300 // octets of a Message-ID or the like; longer ones are named by their digest
)

// Where a message came from.
const (
	fromUnknown  = iota // its first lines were not seen, or local(8) made it
	fromClient          // SMTP
	fromPickup          // sendmail(1)
	fromInternal        // a bounce and the like
)

// flight is one queue file, or one run of a Sieve script (Script).
type flight struct {
	ID    string `json:"id"`  // queue id, or Dovecot's session
	Key   string `json:"key"` // unique: id and the time of its first line
	Began int64  `json:"b"`   // microseconds
	Last  int64  `json:"l"`
	Done  int64  `json:"d,omitempty"` // it left the queue; 0: not yet

	From      int    `json:"f,omitempty"`
	Local     bool   `json:"lo,omitempty"` // the client is this machine
	Stranger  bool   `json:"st,omitempty"` // the client may not relay
	UID       int    `json:"u,omitempty"`
	MailFrom  string `json:"mf,omitempty"`
	MessageID string `json:"m,omitempty"`
	HopID     string `json:"x,omitempty"` // a content filter names the queue id in front of it

	How      How      `json:"h,omitempty"` // how it hangs on the message in front of it; empty: it does not
	Sure     Sure     `json:"s,omitempty"`
	Origs    []string `json:"o,omitempty"` // whom it stands for, the nearest first
	RootID   string   `json:"ri,omitempty"`
	RootFrom string   `json:"rf,omitempty"` // MAIL FROM of the message in front of it
	RowsOf   string   `json:"r,omitempty"`  // key under which its rows are: it is a hop of that one
	Depth    int      `json:"dp,omitempty"`
	Added    []string `json:"a,omitempty"` // keys that rules of the MTA send it to
	Envelope []string `json:"e,omitempty"` // as named by RCPT TO; nil: not known
	ORCPT    []string `json:"or,omitempty"`
	Filter   string   `json:"fi,omitempty"` // a FILTER action's next hop
	Rcpts    []rcpt   `json:"rc,omitempty"`
	Script   bool     `json:"sc,omitempty"`

	persisted bool
}

// rcpt is one recipient of a message, as its last delivery line has it.
type rcpt struct {
	To      string `json:"t"`
	Key     string `json:"k"`
	Orig    string `json:"o,omitempty"`
	Status  string `json:"s"`
	DSN     string `json:"d,omitempty"`
	Relay   string `json:"r,omitempty"`
	Time    int64  `json:"b"`
	Inside  bool   `json:"i,omitempty"`
	Handed  bool   `json:"h,omitempty"` // to a program or a mailbox that may have a script
	Session string `json:"se,omitempty"`
	Told    bool   `json:"y,omitempty"` // a row says so
	Program bool   `json:"p,omitempty"` // it is none, but "|command"
}

// key is an address for comparing.
func key(s string) string {
	if a, ok := address.Parse(s); ok {
		return a.Key()
	}
	return strings.ToLower(s)
}

// addressKey is key of an address that may not be known.
func addressKey(s string) string {
	if s == "" {
		return ""
	}
	return key(s)
}

// clip bounds what is remembered of a text that a sender chose, so that two which
// differ still do.
func clip(s string) string {
	if len(s) <= maxText {
		return strings.Clone(s)
	}
	sum := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:200], "") + "..." + base64.RawURLEncoding.EncodeToString(sum[:18])
}

func newFlight(id string, at time.Time) *flight {
	micros := at.UnixMicro()
	return &flight{ID: strings.Clone(id), Key: id + "." + strconv.FormatInt(micros, 36), Began: micros, Last: micros}
}

// rows is the key under which the flight's rows are.
func (f *flight) rows() string {
	if f.RowsOf != "" {
		return f.RowsOf
	}
	return f.Key
}

// root is the queue id under which the message came in.
func (f *flight) root() string {
	if f.RootID != "" || f.Script {
		return f.RootID
	}
	return f.ID
}

// sender is MAIL FROM of the message that came in.
func (f *flight) sender() string {
	if f.RootFrom != "" {
		return f.RootFrom
	}
	return f.MailFrom
}

// standsFor notes for whom the message is.
func (f *flight) standsFor(addrs ...string) {
	for _, a := range addrs {
		if a != "" && len(f.Origs) < maxOrigs && !slices.ContainsFunc(f.Origs, func(o string) bool { return key(o) == key(a) }) {
			f.Origs = append(f.Origs, clip(a))
		}
	}
}

// adds notes where a rule of the MTA sends it.
func (f *flight) adds(addr string) {
	if k := key(addr); len(f.Added) < maxAdded && !slices.Contains(f.Added, k) {
		f.Added = append(f.Added, clip(k))
	}
}

// recipient finds or makes the entry of a recipient. nil: there are too many.
func (f *flight) recipient(to, orig string) *rcpt {
	k, ok := key(to), key(orig)
	for i := range f.Rcpts {
		if f.Rcpts[i].Key == k && key(f.Rcpts[i].Orig) == ok {
			return &f.Rcpts[i]
		}
	}
	if len(f.Rcpts) >= maxRcpts {
		return nil
	}
	f.Rcpts = append(f.Rcpts, rcpt{To: clip(to), Key: clip(k), Orig: clip(orig)})
	return &f.Rcpts[len(f.Rcpts)-1]
}

func (f *flight) marshal() string {
	data, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return string(data)
}

func unmarshalFlight(state string) (*flight, error) {
	f := &flight{persisted: true}
	err := json.Unmarshal([]byte(state), f)
	return f, err
}
