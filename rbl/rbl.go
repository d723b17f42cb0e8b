// Package rbl asks DNS blocklists (RFC 5782) whether an address or a domain is
// listed, and whether the list itself is fit to be asked.
//
// Here are the words: what a Zone is, what is asked about (Subject), what a
// resolver says (Response) and what that means (Answer). resolve asks name
// servers, check runs a round over zones and subjects, history remembers,
// watch does so on a schedule, sender looks at what receivers look at beside the
// lists, cause says who was active before a listing.
//
// The trap: only answers inside 127.0.0.0/8 count, and not all of them: some
// refuse the query. That nobody answered, that a list is empty and that it lists
// everybody are neither "listed" nor "clean".
package rbl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Result is what is known of one subject on one zone. The four are never mixed.
type Result uint8

const (
	Unknown Result = iota // nobody said anything that can be believed
	Clean
	Listed
	Refused // the list, or the resolver, does not answer us
)

var resultNames = [...]string{"unknown", "clean", "listed", "refused"}

// Results are all of them.
func Results() []Result { return []Result{Listed, Unknown, Refused, Clean} }

// String is the name in JSON, metrics and reports.
func (r Result) String() string { return resultNames[r] }

// MarshalText writes the name.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the name.
func (r *Result) UnmarshalText(text []byte) error { return named(resultNames[:], text, r, "result") }

// Severity is how much a listing harms the mail of whom it names: our own grading.
type Severity uint8

const (
	Info Severity = iota // says something, harms nobody
	Low
	Medium
	High
	Critical
)

var severityNames = [...]string{"info", "low", "medium", "high", "critical"}

// String is the name in configuration and JSON.
func (s Severity) String() string { return severityNames[s] }

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name.
func (s *Severity) UnmarshalText(text []byte) error {
	return named(severityNames[:], text, s, "severity")
}

// Scope is what a listing names.
type Scope uint8

const (
	ScopeAddress Scope = iota // one address; of IPv6 its /64, where the list does so
	ScopeRange                // a whole range: neighbours' fault, or policy
	ScopeASN                  // the provider's whole network
	ScopeDomain
)

var scopeNames = [...]string{"ip", "range", "asn", "domain"}

// String is the name in JSON and reports.
func (s Scope) String() string { return scopeNames[s] }

// MarshalText writes the name.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name.
func (s *Scope) UnmarshalText(text []byte) error { return named(scopeNames[:], text, s, "scope") }

// Wide reports whether somebody else may be the cause: nobody is woken for it.
func (s Scope) Wide() bool { return s == ScopeRange || s == ScopeASN }

// State is whether a zone can be believed now.
type State uint8

const (
	Silent    State = iota // no answer that tells anything: timeout, SERVFAIL
	Healthy                // its test entries are there, and nothing else is
	Dead                   // the name is gone, or the table of dead lists has it
	Emptied                // it is there, and its test entries are not
	Wild                   // it lists what nobody lists
	Parked                 // it answers with addresses outside 127.0.0.0/8: its domain is somebody else's
	Refusing               // it does not answer us
	Filtered               // the resolver takes answers in 127.0.0.0/8 away
	Rewritten              // the resolver makes answers up for names that do not exist
	NotAsked               // it needs a key, an account or another kind of use: Why says what
)

var stateNames = [...]string{"silent", "healthy", "dead", "emptied", "wild", "parked", "refusing", "filtered", "rewritten", "not_asked"}

// States are all of them.
func States() []State {
	return []State{Healthy, Silent, Dead, Emptied, Wild, Parked, Refusing, Filtered, Rewritten, NotAsked}
}

// String is the name in JSON, metrics and reports.
func (s State) String() string { return stateNames[s] }

// MarshalText writes the name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the name.
func (s *State) UnmarshalText(text []byte) error { return named(stateNames[:], text, s, "state") }

func named[T ~uint8](names []string, text []byte, into *T, what string) error {
	for i, name := range names {
		if name == string(text) {
			*into = T(i)
			return nil
		}
	}
	return fmt.Errorf("%s %q: want one of %v", what, text, names)
}

// Kind is what a zone can be asked about. Its health is known by kind: a list can
// be well for IPv4 and empty for IPv6.
type Kind uint8

const (
	IP4 Kind = iota
	IP6
	Domain
)

var kindNames = [...]string{"ip4", "ip6", "domain"}

// String is the name in the data file and JSON.
func (k Kind) String() string { return kindNames[k] }

// MarshalText writes the name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the name.
func (k *Kind) UnmarshalText(text []byte) error { return named(kindNames[:], text, k, "kind") }

// Subject is what a zone is asked about: an address (never 4-in-6), or a domain
// (lower case, A-labels, no final dot). Comparable. The zero value is nothing.
type Subject struct {
	Addr netip.Addr
	Name string
}

// Kind is which zones can be asked about it.
func (s Subject) Kind() Kind {
	switch {
	case !s.Addr.IsValid():
		return Domain
	case s.Addr.Is4():
		return IP4
	}
	return IP6
}

// String is the address or the domain.
func (s Subject) String() string {
	if s.Addr.IsValid() {
		return s.Addr.String()
	}
	return s.Name
}

// MarshalText writes it.
func (s Subject) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Subject) UnmarshalText(text []byte) error {
	if addr, err := netip.ParseAddr(string(text)); err == nil {
		*s = Subject{Addr: addr.Unmap()}
		return nil
	}
	*s = Subject{Name: string(text)}
	return nil
}

// Type is a type of DNS records, by its number.
type Type uint16

const (
	TypeA    Type = 1
	TypeNS   Type = 2
	TypeSOA  Type = 6
	TypePTR  Type = 12
	TypeMX   Type = 15
	TypeTXT  Type = 16
	TypeAAAA Type = 28
)

// Outcome is how a question ended. They are all distinct: what net.Resolver calls
// "no such host" is several of them.
type Outcome uint8

const (
	TimedOut     Outcome = iota // nothing came in time, or ctx ended
	Answered                    // NOERROR with records of that type
	NoData                      // NOERROR without
	NoName                      // NXDOMAIN
	ServFail                    // SERVFAIL
	QueryRefused                // REFUSED
	Broken                      // anything else: FORMERR, NOTIMP, an answer that cannot be read, no connection
)

var outcomeNames = [...]string{"timeout", "answer", "nodata", "nxdomain", "servfail", "refused", "broken"}

// Outcomes are all of them.
func Outcomes() []Outcome {
	return []Outcome{TimedOut, Answered, NoData, NoName, ServFail, QueryRefused, Broken}
}

// String is the name in logs and metrics.
func (o Outcome) String() string { return outcomeNames[o] }

// ErrDangling is in the Err of a Broken Response: the name is there, as an alias (CNAME)
// of one that does not exist. That is not NoName: a list whose alias leads nowhere lists
// nobody, and is not empty.
var ErrDangling = errors.New("the name is an alias of one that does not exist")

// Response is what one name server said to one question.
type Response struct {
	Outcome Outcome
	Addrs   []netip.Addr // of A and AAAA
	Texts   []string     // of TXT, the strings of one record joined; raw octets, at most 1,024 each
	Names   []string     // of PTR, NS and MX (by preference), lower case, without the final dot
	Server  string       // that said it
	Err     error        // what went wrong, nil if Answered, NoData or NoName; names no key
}

// Resolver asks one recursive name server. Safe for concurrent use.
type Resolver interface {
	// Name is for people: "127.0.0.1:53".
	Name() string
	// Ask asks for a name without its final dot. It returns by ctx's deadline.
	Ask(ctx context.Context, name string, t Type) Response
}

// Hit is one code of an answer.
type Hit struct {
	Code     netip.Addr `json:"code"`          // the A record
	Bit      uint8      `json:"bit,omitempty"` // of its last octet, where the zone's codes are bits
	Means    string     `json:"means"`
	Severity Severity   `json:"severity"` // Info: no listing that harms
	Scope    Scope      `json:"scope"`
}

// Answer is what is known of a subject on a zone.
type Answer struct {
	Zone     string    `json:"zone"` // without any key
	Subject  Subject   `json:"subject"`
	Result   Result    `json:"result"`
	Hits     []Hit     `json:"hits,omitempty"`    // if Listed; by code and bit
	Reasons  []string  `json:"reasons,omitempty"` // TXT as it came, made fit to be shown: one line each, at most 300 characters, no key
	Why      string    `json:"why,omitempty"`     // if Unknown or Refused
	Resolver string    `json:"resolver,omitempty"`
	At       time.Time `json:"at"`
}

// Worst is the greatest severity of its hits; Info without any.
func (a *Answer) Worst() Severity {
	worst := Info
	for _, h := range a.Hits {
		worst = max(worst, h.Severity)
	}
	return worst
}

// Health is whether a zone can be believed for one kind of subject.
type Health struct {
	Zone  string    `json:"zone"`
	Kind  Kind      `json:"kind"`
	State State     `json:"state"`
	Why   string    `json:"why,omitempty"`
	At    time.Time `json:"at"`
}
